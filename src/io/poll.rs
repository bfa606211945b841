//! Polled operations: what they share with [`Async::read_with`], without the park.
//!
//! For each direction, a source remembers the waker of the last poll that was not ready. This waker stands beside the
//! queue of waiters, and is called at the next edge together with the first of them. So a task that has turned to
//! something else takes nothing away from a green thread.
#![forbid(unsafe_code)]

use std::future::{Future, poll_fn};
use std::io;
#[cfg(any(feature = "tokio-io", feature = "hyper"))]
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
#[cfg(any(feature = "tokio-io", feature = "hyper"))]
use std::os::fd::BorrowedFd;
use std::task::{Context, Poll, ready};

#[cfg(any(feature = "tokio-io", feature = "hyper"))]
use rustix::net::RecvFlags;

use super::Async;
use super::ready::{Readiness, look};
use crate::hub::{Direction, Hub, budget};
#[cfg(any(feature = "tokio-io", feature = "hyper"))]
use crate::sys::plain::plainly;

/// The most bytes that are copied at once.
#[cfg(any(feature = "tokio-io", feature = "hyper"))]
const CHUNK: usize = 8192;

/// For code that polls: in a future that a hub polls ([`block_on`](crate::future::block_on)), or in one of the traits
/// that the sockets implement.
///
/// For each direction the descriptor keeps only the waker of the last poll, so one task may read while another writes.
/// Where several tasks read, each needs a future of its own: [`read_with_async`](Self::read_with_async).
impl<T: AsFd> Async<T> {
    /// Runs `op`; if it returns `WouldBlock`, the task is woken when the descriptor may be readable.
    ///
    /// ```
    /// use std::{future::poll_fn, io::{Read, Write}};
    /// use greenthread::{future::block_on, io::Async};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let (reader, mut writer) = std::io::pipe()?;
    /// let reader = Async::new(reader)?;
    /// writer.write_all(b"!")?;
    /// let mut byte = [0];
    /// block_on(poll_fn(|context| reader.poll_read_with(context, |mut pipe| pipe.read(&mut byte))))?;
    /// assert_eq!(&byte, b"!");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// What `op` returns, and what the poller reports for the descriptor. The read time-out does not apply here.
    pub fn poll_read_with<R>(
        &self,
        context: &mut Context<'_>,
        op: impl FnMut(&T) -> io::Result<R>,
    ) -> Poll<io::Result<R>> {
        self.poll_with(Direction::Read, context, op)
    }

    /// Runs `op`; if it returns `WouldBlock`, the task is woken when the descriptor may be writable.
    ///
    /// # Errors
    /// As [`poll_read_with`](Self::poll_read_with).
    pub fn poll_write_with<R>(
        &self,
        context: &mut Context<'_>,
        op: impl FnMut(&T) -> io::Result<R>,
    ) -> Poll<io::Result<R>> {
        self.poll_with(Direction::Write, context, op)
    }

    /// Whether the descriptor is readable; if not, the task is woken when it may be.
    ///
    /// # Errors
    /// What `poll` and the poller report for the descriptor.
    pub fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_read_with(context, |io| look(io.as_fd(), Direction::Read))
    }

    /// Whether the descriptor is writable; if not, the task is woken when it may be.
    ///
    /// # Errors
    /// As [`poll_readable`](Self::poll_readable).
    pub fn poll_writable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_write_with(context, |io| look(io.as_fd(), Direction::Write))
    }

    /// Like [`read_with`](Self::read_with), without a time-out, for an `async` function that is polled on a hub.
    ///
    /// Any number of tasks may wait in it.
    ///
    /// ```
    /// use std::io::{Read, Write};
    /// use greenthread::{future::{block_on, spawn}, io::Async};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let (reader, mut writer) = std::io::pipe()?;
    /// let reader = Async::new(reader)?;
    /// spawn(async move { writer.write_all(b"!") });
    /// let mut byte = [0];
    /// assert_eq!(block_on(reader.read_with_async(|mut pipe| pipe.read(&mut byte)))?, 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn read_with_async<R>(&self, op: impl FnMut(&T) -> io::Result<R>) -> impl Future<Output = io::Result<R>> {
        self.with_async(Direction::Read, op)
    }

    /// Like [`write_with`](Self::write_with), without a time-out, for an `async` function that is polled on a hub.
    pub fn write_with_async<R>(&self, op: impl FnMut(&T) -> io::Result<R>) -> impl Future<Output = io::Result<R>> {
        self.with_async(Direction::Write, op)
    }

    async fn with_async<R>(&self, direction: Direction, mut op: impl FnMut(&T) -> io::Result<R>) -> io::Result<R> {
        loop {
            poll_fn(|context| budget::poll(context)).await;
            match self.attempt(self.known(), direction, true, &mut op) {
                Some(result) => return result,
                None => Readiness::new(self, direction).await?,
            }
        }
    }

    fn poll_with<R>(
        &self,
        direction: Direction,
        context: &mut Context<'_>,
        mut op: impl FnMut(&T) -> io::Result<R>,
    ) -> Poll<io::Result<R>> {
        ready!(budget::poll(context));
        loop {
            // Checked before each attempt: `op` is the user's code, and may have run until after the hub's end.
            if Hub::has_ended() {
                return Poll::Ready(Err(crate::hub::ended()));
            }
            let hub = Hub::current();
            if let Some(result) = self.attempt(self.known(), direction, false, &mut op) {
                return Poll::Ready(result);
            }
            let key = self.register(hub, self.as_fd())?;
            // `false`: an edge came after the attempt. Without another try, the task would wait for one that may never
            // come.
            if hub.reactor.wake_later(hub, key, direction, context.waker()) {
                return Poll::Pending;
            }
        }
    }

    /// A read from a byte stream; see [`read_stream`](Self::read_stream).
    pub(crate) fn poll_read_stream(
        &self,
        context: &mut Context<'_>,
        len: usize,
        op: impl FnMut(&T) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        let got = self.poll_read_with(context, op);
        if let Poll::Ready(Ok(got)) = got {
            self.drained_if_short(got, len);
            budget::charge(got);
        }
        got
    }

    /// A write of bytes.
    pub(crate) fn poll_write_stream(
        &self,
        context: &mut Context<'_>,
        op: impl FnMut(&T) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        let put = self.poll_write_with(context, op);
        if let Poll::Ready(Ok(put)) = put {
            budget::charge(put);
        }
        put
    }

    /// A read from a byte stream into memory that the caller may not have initialised: the bytes that were read are
    /// passed to `take`. Copying them costs less than clearing all of a big buffer would.
    #[cfg(any(feature = "tokio-io", feature = "hyper"))]
    pub(crate) fn poll_read_onto(
        &self,
        context: &mut Context<'_>,
        read: ReadOnto,
        most: usize,
        drained: bool,
        mut take: impl FnMut(&[u8]),
    ) -> Poll<io::Result<()>> {
        let mut chunk = [MaybeUninit::<u8>::uninit(); CHUNK];
        let chunk = &mut chunk[..most.min(CHUNK)];
        let len = if drained { chunk.len() } else { 0 };
        let got = self.poll_read_stream(context, len, |io| {
            let got = read(io.as_fd(), &mut *chunk)?;
            take(got);
            Ok(got.len())
        });
        got.map_ok(|_| ())
    }
}

/// Reads into memory that need not be initialised, and returns the part that has been.
#[cfg(any(feature = "tokio-io", feature = "hyper"))]
pub(crate) type ReadOnto = for<'a> fn(BorrowedFd<'_>, &'a mut [MaybeUninit<u8>]) -> io::Result<&'a mut [u8]>;

/// Reads from any descriptor.
#[cfg(any(feature = "tokio-io", feature = "hyper"))]
pub(crate) fn read<'a>(fd: BorrowedFd<'_>, memory: &'a mut [MaybeUninit<u8>]) -> io::Result<&'a mut [u8]> {
    Ok(plainly(|| rustix::io::read(fd, memory))?.0)
}

/// Reads from a socket, for which the kernel is quicker this way.
#[cfg(any(feature = "tokio-io", feature = "hyper"))]
pub(crate) fn receive<'a>(fd: BorrowedFd<'_>, memory: &'a mut [MaybeUninit<u8>]) -> io::Result<&'a mut [u8]> {
    Ok(plainly(|| rustix::net::recv(fd, memory, RecvFlags::empty()))?.0.0)
}
