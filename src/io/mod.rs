//! Any descriptor, with green threads that wait for it: [`Async`], and waits for foreign descriptors.
//!
//! Every method of every socket is one loop (`Async::run`): try; on `EAGAIN` wait for the source; try again.
//!
//! ```
//! use std::io::{Read, Write};
//! use greenthread::{io::Async, spawn};
//!
//! # fn main() -> std::io::Result<()> {
//! let (reader, mut writer) = std::io::pipe()?;
//! let reader = Async::new(reader)?;
//! let got = spawn(move || {
//!     let mut byte = [0];
//!     reader.read_with(|mut pipe| pipe.read(&mut byte)).map(|_| byte[0])
//! });
//! writer.write_all(b"!")?;
//! assert_eq!(got.join().unwrap()?, b'!');
//! # Ok(())
//! # }
//! ```
//!
//! # While the caller unwinds
//! A destructor may do I/O while a panic, a kill or a time-out unwinds its green thread. What the kernel can do at once
//! is done. An operation that would have to wait fails, with an error of kind `Other` that says so: other green threads
//! of the same OS thread must not run while `std::thread::panicking` is true for them. (A green thread that has
//! thread-locals of its own, see [`is_isolated`](crate::thread::is_isolated), and no local green threads beside it,
//! waits.) A last message that must go out is best sent before the unwinding or after it has been caught: after
//! [`catch_kill`](crate::thread::catch_kill), or after the join.
#![forbid(unsafe_code)]

mod poll;
mod reader;
mod ready;
mod source;
pub(crate) mod traits;
mod writer;

use std::fmt;
use std::future::Future;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::hub::{Direction, Hub, Mode, Parker, Wake, Why, budget, interrupt};
use source::Source;

#[cfg(any(feature = "tokio-io", feature = "hyper"))]
pub(crate) use poll::{read, receive};
pub use reader::{IncompleteRead, LimitOverrun, Reader};
pub use writer::Writer;

static READ: &str = "data to read from descriptor";
static WRITE: &str = "room to write to descriptor";

/// A descriptor in non-blocking mode. An operation that must wait parks its green thread.
///
/// Several green threads, even on several hubs, may use one `Async`: as with std's sockets, the kernel gives each its
/// share. Several `Async`s may also share one descriptor (through references to it, for example). One that waits while
/// another waits too keeps a copy of the descriptor (`dup`), from its first wait on.
pub struct Async<T: AsFd> {
    /// Taken by `into_inner` and by the drop, after `source` has been removed from every hub.
    io: Option<T>,
    source: Source,
    timeouts: [AtomicU64; 2],
}

impl<T: AsFd> Async<T> {
    /// Takes ownership of a descriptor, and makes it non-blocking.
    ///
    /// The flag belongs to the open file, so every `dup` of the descriptor has it.
    ///
    /// # Errors
    /// If the system refuses the flag.
    pub fn new(io: T) -> io::Result<Async<T>> {
        rustix::io::ioctl_fionbio(io.as_fd(), true)?;
        Ok(Async::new_nonblocking(io))
    }

    /// Takes ownership of a descriptor that is non-blocking already.
    pub(crate) fn new_nonblocking(io: T) -> Async<T> {
        Async {
            io: Some(io),
            source: Source::new(),
            timeouts: Default::default(),
        }
    }

    /// The value that owns the descriptor.
    #[inline]
    pub fn get_ref(&self) -> &T {
        match &self.io {
            Some(io) => io,
            None => unreachable!("only into_inner and the drop take it, and they are the last"),
        }
    }

    /// Returns the value, in blocking mode.
    ///
    /// # Errors
    /// If the system refuses the flag; the descriptor is closed then.
    pub fn into_inner(self) -> io::Result<T> {
        rustix::io::ioctl_fionbio(self.as_fd(), false)?;
        Ok(self.into_fd())
    }

    /// Returns the value in blocking mode, or as it is if the system refuses the flag.
    pub(crate) fn into_fd(mut self) -> T {
        let _ = rustix::io::ioctl_fionbio(self.as_fd(), false);
        self.source.leave(self.as_fd());
        match self.io.take() {
            Some(io) => io,
            None => unreachable!("only into_inner and the drop take it, and they are the last"),
        }
    }

    /// Runs `op` until it returns anything but `WouldBlock`; before each new try it waits until the descriptor is
    /// readable.
    ///
    /// # Errors
    /// What `op` returns; `TimedOut` after [`set_read_timeout`](Self::set_read_timeout); an error of kind `Other` if it
    /// would have to wait [while the caller unwinds](self#while-the-caller-unwinds).
    ///
    /// # Blocking and cancellation
    /// Parks, or gives way after many operations that succeeded at once. A kill or time-out unwinds between two tries,
    /// never within one.
    #[track_caller]
    pub fn read_with<R>(&self, op: impl FnMut(&T) -> io::Result<R>) -> io::Result<R> {
        self.run(Direction::Read, op)
    }

    /// Runs `op` until it returns anything but `WouldBlock`; before each new try it waits until the descriptor is
    /// writable.
    ///
    /// # Errors
    /// What `op` returns; `TimedOut` after [`set_write_timeout`](Self::set_write_timeout); otherwise as
    /// [`read_with`](Self::read_with).
    ///
    /// # Blocking and cancellation
    /// As [`read_with`](Self::read_with). What was written before a kill stays written.
    #[track_caller]
    pub fn write_with<R>(&self, op: impl FnMut(&T) -> io::Result<R>) -> io::Result<R> {
        self.run(Direction::Write, op)
    }

    /// A read from a byte stream. A read that returns less than was asked for has drained the stream, which saves the
    /// attempt that would fail with `EAGAIN`.
    #[inline]
    #[track_caller]
    pub(crate) fn read_stream(&self, len: usize, op: impl FnMut(&T) -> io::Result<usize>) -> io::Result<usize> {
        let got = self.run(Direction::Read, op)?;
        self.drained_if_short(got, len);
        budget::charge(got);
        Ok(got)
    }

    /// A write of bytes.
    #[inline]
    #[track_caller]
    pub(crate) fn write_stream(&self, op: impl FnMut(&T) -> io::Result<usize>) -> io::Result<usize> {
        let put = self.run(Direction::Write, op)?;
        budget::charge(put);
        Ok(put)
    }

    #[inline]
    fn drained_if_short(&self, got: usize, len: usize) {
        if got > 0
            && got < len
            && let Some(hub) = Hub::try_current()
            && let Some(key) = self.source.key(hub)
        {
            hub.reactor.drained_by_short_read(key);
        }
    }

    /// Like [`read_with`](Self::read_with), but waits no longer than until `deadline`: then the error is `TimedOut`.
    #[track_caller]
    pub(crate) fn read_before<R>(
        &self,
        deadline: Option<Instant>,
        op: impl FnMut(&T) -> io::Result<R>,
    ) -> io::Result<R> {
        self.run_before(Direction::Read, deadline, op)
    }

    /// Like [`write_with`](Self::write_with), but waits no longer than until `deadline`: then the error is `TimedOut`.
    #[track_caller]
    pub(crate) fn write_before<R>(
        &self,
        deadline: Option<Instant>,
        op: impl FnMut(&T) -> io::Result<R>,
    ) -> io::Result<R> {
        self.run_before(Direction::Write, deadline, op)
    }

    #[track_caller]
    fn run_before<R>(
        &self,
        direction: Direction,
        deadline: Option<Instant>,
        op: impl FnMut(&T) -> io::Result<R>,
    ) -> io::Result<R> {
        let deadline = deadline.map(crate::hub::deadline_at);
        self.run_until(direction, deadline, op)
    }

    #[inline]
    #[track_caller]
    fn run<R>(&self, direction: Direction, op: impl FnMut(&T) -> io::Result<R>) -> io::Result<R> {
        self.run_until(direction, None, op)
    }

    /// The loop of every operation: try, wait, try again.
    #[inline]
    #[track_caller]
    fn run_until<R>(
        &self,
        direction: Direction,
        mut deadline: Option<u64>,
        mut op: impl FnMut(&T) -> io::Result<R>,
    ) -> io::Result<R> {
        // Before any attempt: an operation that always succeeds must give way now and then, and observe a kill.
        if budget::spend(Mode::Cancel) == Wake::Interrupted {
            return Err(interrupted());
        }
        // If the deadline has passed already, the wait fails without asking the kernel. So the first try is made in any
        // case.
        let mut asks = deadline.is_some();
        loop {
            let known = Hub::try_current().and_then(|hub| Some((hub, self.source.key(hub)?)));
            // No edge has come since the last `EAGAIN`: the attempt would fail, so go straight to the wait.
            let in_vain =
                !std::mem::take(&mut asks) && known.is_some_and(|(hub, key)| hub.reactor.is_drained(key, direction));
            if !in_vain {
                match op(self.get_ref()) {
                    Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    result => {
                        // There may be more than this attempt took: the next waiter tries too.
                        if let Some((hub, key)) = known {
                            hub.reactor.succeeded(hub, key, direction);
                        }
                        return result;
                    }
                }
                // From here on only an edge makes the source ready. If one comes before the wait, the wait returns at
                // once.
                if let Some((hub, key)) = known {
                    hub.reactor.drained(key, direction);
                }
            }
            self.wait(direction, &mut deadline)?;
        }
    }

    /// Waits until an attempt may succeed.
    #[track_caller]
    fn wait(&self, direction: Direction, deadline: &mut Option<u64>) -> io::Result<()> {
        // `as_fd` is the user's code and may do anything, so it is called before the hub is looked at.
        let fd = self.get_ref().as_fd();
        if Hub::has_ended() {
            return Err(crate::hub::ended());
        }
        crate::hub::check_can_park();
        let hub = Hub::current();
        let key = self.source.join(hub, fd)?;
        let timeout = self.timeouts[direction as usize].load(Ordering::Relaxed);
        // The time-out covers the whole operation, so only the first wait sets the deadline.
        if timeout != 0 && deadline.is_none() {
            *deadline = Some(hub.clock.now().saturating_add(timeout));
        }
        let why = Why::new(
            if direction == Direction::Read { &READ } else { &WRITE },
            fd.as_raw_fd() as usize,
        );
        let wake = hub.reactor.wait(Parker::new(), key, direction, *deadline, why);
        answer(wake, || {
            late(
                fd,
                direction,
                if direction == Direction::Read {
                    " the read time-out of"
                } else {
                    " the write time-out of"
                },
                self.timeout(direction),
            )
        })
    }

    /// Waits until the descriptor is readable.
    ///
    /// # Errors
    /// What `poll` and the poller report for the descriptor; `TimedOut` after
    /// [`set_read_timeout`](Self::set_read_timeout).
    ///
    /// # Blocking and cancellation
    /// Parks. A kill or time-out unwinds while it waits. By the time it returns, another task may have read the data.
    #[track_caller]
    pub fn readable(&self) -> io::Result<()> {
        self.until(Direction::Read)
    }

    /// Waits until the descriptor is writable.
    ///
    /// # Errors
    /// What `poll` and the poller report for the descriptor; `TimedOut` after
    /// [`set_write_timeout`](Self::set_write_timeout).
    ///
    /// # Blocking and cancellation
    /// As [`readable`](Self::readable).
    #[track_caller]
    pub fn writable(&self) -> io::Result<()> {
        self.until(Direction::Write)
    }

    /// Asks the kernel, and while the answer is no, waits on the descriptor's own registration.
    #[track_caller]
    fn until(&self, direction: Direction) -> io::Result<()> {
        self.run(direction, |io| ready::look(io.as_fd(), direction))
    }

    /// Like [`readable`](Self::readable), for an `async` function that is polled on a hub: in
    /// [`block_on`](crate::future::block_on), or in [`select!`](crate::select!).
    pub fn readable_async(&self) -> impl Future<Output = io::Result<()>> + use<'_, T> {
        ready::Readiness::new(self, Direction::Read)
    }

    /// Like [`writable`](Self::writable), for an `async` function that is polled on a hub.
    pub fn writable_async(&self) -> impl Future<Output = io::Result<()>> + use<'_, T> {
        ready::Readiness::new(self, Direction::Write)
    }

    fn timeout(&self, direction: Direction) -> Option<Duration> {
        let nanos = self.timeouts[direction as usize].load(Ordering::Relaxed);
        (nanos != 0).then(|| Duration::from_nanos(nanos))
    }

    fn set_timeout(&self, direction: Direction, timeout: Option<Duration>) -> io::Result<()> {
        if timeout.is_some_and(|timeout| timeout.is_zero()) {
            return Err(io::Error::new(
                ErrorKind::InvalidInput,
                "a time-out of zero: use None for no time-out",
            ));
        }
        let nanos = timeout.map_or(0, |timeout| u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX));
        self.timeouts[direction as usize].store(nanos, Ordering::Relaxed);
        Ok(())
    }

    /// Sets how long a read may wait. `None`: for ever.
    ///
    /// # Errors
    /// `InvalidInput` for a time-out of zero, as with std's sockets.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.set_timeout(Direction::Read, timeout)
    }

    /// Sets how long a write may wait. `None`: for ever.
    ///
    /// # Errors
    /// `InvalidInput` for a time-out of zero.
    pub fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.set_timeout(Direction::Write, timeout)
    }

    /// How long a read may wait. `None`: for ever.
    pub fn read_timeout(&self) -> Option<Duration> {
        self.timeout(Direction::Read)
    }

    /// How long a write may wait. `None`: for ever.
    pub fn write_timeout(&self) -> Option<Duration> {
        self.timeout(Direction::Write)
    }
}

impl<T: AsFd> Drop for Async<T> {
    fn drop(&mut self) {
        if let Some(io) = self.io.take() {
            self.source.leave(io.as_fd());
        }
    }
}

impl<T: AsFd> AsFd for Async<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.get_ref().as_fd()
    }
}

impl<T: AsFd + fmt::Debug> fmt::Debug for Async<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Async").field(self.get_ref()).finish()
    }
}

impl<T: AsFd> Read for Async<T>
where
    for<'a> &'a T: Read,
{
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buffer)
    }
}

impl<T: AsFd> Read for &Async<T>
where
    for<'a> &'a T: Read,
{
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.read_with(|mut io| io.read(buffer))
    }
}

impl<T: AsFd> Write for Async<T>
where
    for<'a> &'a T: Write,
{
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        (&*self).write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        (&*self).flush()
    }
}

impl<T: AsFd> Write for &Async<T>
where
    for<'a> &'a T: Write,
{
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.write_with(|mut io| io.write(buffer))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.write_with(|mut io| io.flush())
    }
}

/// The result of a wait for a descriptor.
fn answer(wake: Wake, late: impl FnOnce() -> io::Error) -> io::Result<()> {
    match wake {
        Wake::Ready | Wake::Early => Ok(()),
        Wake::TimedOut => Err(late()),
        Wake::Interrupted => Err(interrupted()),
    }
}

/// Takes a step of the budget, for an operation that may be done without a wait for a descriptor: because what it needs
/// is in a buffer, or because a connection is refused at once.
#[track_caller]
pub(crate) fn give_way() -> io::Result<()> {
    match budget::spend(Mode::Cancel) {
        Wake::Interrupted => Err(interrupted()),
        _ => Ok(()),
    }
}

/// Unwinds for the interrupt that is due. Where that is not possible, returns the error.
#[cold]
fn interrupted() -> io::Error {
    interrupt::raise();
    io::Error::other("it would have to wait, and cannot: the caller is unwinding or was killed")
}

/// The error of a wait that has timed out: which descriptor, what it was not, and within what time.
#[cold]
fn late(fd: BorrowedFd<'_>, direction: Direction, what: &str, limit: Option<Duration>) -> io::Error {
    let fd = fd.as_raw_fd();
    let wanted = if direction == Direction::Read {
        "readable"
    } else {
        "writable"
    };
    let text = match limit {
        Some(limit) => format!("descriptor {fd} was not {wanted} within{what} {limit:?}"),
        // Another green thread has removed the time-out meanwhile.
        None => format!("descriptor {fd} was not {wanted} in time"),
    };
    io::Error::new(ErrorKind::TimedOut, text)
}

#[track_caller]
fn wait_for(fd: BorrowedFd<'_>, direction: Direction, timeout: Option<Duration>) -> io::Result<()> {
    if Hub::has_ended() {
        return Err(crate::hub::ended());
    }
    let hub = Hub::current();
    let deadline = timeout.map(|timeout| hub.deadline_in(timeout));
    let why = Why::new(
        if direction == Direction::Read { &READ } else { &WRITE },
        fd.as_raw_fd() as usize,
    );
    let parker = Parker::new();
    let wake = hub
        .reactor
        .wait_foreign(parker, fd, direction, deadline, why, || false)?;
    answer(wake, || late(fd, direction, "", timeout))
}

/// Waits until any descriptor is readable, for at most `timeout`. A descriptor that cannot be polled (a file) is ready
/// at once.
///
/// ```
/// use std::{io::{ErrorKind, Write}, time::Duration};
/// use greenthread::io::wait_readable;
///
/// # fn main() -> std::io::Result<()> {
/// let (reader, mut writer) = std::io::pipe()?;
/// let late = wait_readable(&reader, Some(Duration::from_millis(1)));
/// assert_eq!(late.unwrap_err().kind(), ErrorKind::TimedOut);
/// writer.write_all(b"!")?;
/// wait_readable(&reader, None)
/// # }
/// ```
///
/// # Errors
/// `TimedOut`; what `epoll` reports for the descriptor; `EBADF` if it is closed by [`close`] meanwhile.
///
/// # Blocking and cancellation
/// Parks. A kill or time-out unwinds while it waits.
///
/// # Coming from Python
/// `gevent.socket.wait_read(fd, timeout)`.
#[track_caller]
pub fn wait_readable(fd: impl AsFd, timeout: Option<Duration>) -> io::Result<()> {
    wait_for(fd.as_fd(), Direction::Read, timeout)
}

/// Waits until any descriptor is writable, for at most `timeout`.
///
/// # Errors
/// As [`wait_readable`].
///
/// # Blocking and cancellation
/// As [`wait_readable`].
#[track_caller]
pub fn wait_writable(fd: impl AsFd, timeout: Option<Duration>) -> io::Result<()> {
    wait_for(fd.as_fd(), Direction::Write, timeout)
}

/// Closes a descriptor, and wakes every green thread of this hub that waits for its number, with `EBADF`.
///
/// A plain drop closes it too, but a green thread that waits by the number (through a raw copy of it) would never wake.
///
/// # Coming from Python
/// `gevent`'s `cancel_wait` at `socket.close()`.
pub fn close(fd: impl Into<OwnedFd>) {
    let fd = fd.into();
    if let Some(hub) = Hub::try_current() {
        hub.reactor.close_foreign(hub, fd.as_fd());
    }
    drop(fd);
}
