//! [`Async`]: a descriptor, where it is registered, and the one loop of its operations.
//!
//! A descriptor is mostly registered with one hub, from its first wait to its end. But a socket may be used from any OS
//! thread, so it may be registered with several hubs. The first registration is kept where it is found without a lock.
#![forbid(unsafe_code)]

use std::fmt;
use std::future::Future;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::ready::{self, Readiness};
use super::{answer, interrupted, late, reason};
use crate::hub::{self, Direction, Hub, HubRef, Key, Mode, Parker, Wake, budget};
use crate::sys::inside::Mutex;
use crate::sys::poison::IgnorePoison;

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
            None => unreachable!("the descriptor is there until into_inner or drop takes it"),
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
            None => unreachable!("the descriptor is there until into_inner or drop takes it"),
        }
    }

    /// Runs `op` until it returns anything but `WouldBlock`; before each new try it waits until the descriptor is
    /// readable.
    ///
    /// # Errors
    /// What `op` returns; `TimedOut` after [`set_read_timeout`](Self::set_read_timeout); an error of kind `Other` if it
    /// would have to wait [while the caller unwinds](crate::io#while-the-caller-unwinds).
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
    pub(super) fn drained_if_short(&self, got: usize, len: usize) {
        if got > 0
            && got < len
            && let Some((hub, key)) = self.known()
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
        let deadline = deadline.map(hub::deadline_at);
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
        let mut known = self.known();
        let mut asks = deadline.is_some();
        loop {
            if let Some(result) = self.attempt(known, direction, asks, &mut op) {
                return result;
            }
            asks = false;
            known = Some(self.wait(direction, &mut deadline)?);
        }
    }

    /// This OS thread's hub and the descriptor's key there, if it is registered there.
    #[inline]
    pub(super) fn known(&self) -> Option<(&'static Hub, Key)> {
        let hub = Hub::try_current()?;
        Some((hub, self.source.key(hub)?))
    }

    /// Registers the descriptor `fd` of this value with a hub, if it is not registered there.
    #[inline]
    pub(super) fn register(&self, hub: &'static Hub, fd: BorrowedFd<'_>) -> io::Result<Key> {
        self.source.join(hub, fd)
    }

    /// One attempt of an operation, by blocking and by polling code alike. `None`: it would block, and only an edge
    /// makes the source ready again. If one comes before the caller waits, that wait returns at once.
    ///
    /// If no edge has come since the last `EAGAIN`, the attempt would fail, and is made only if the caller `asks` for
    /// it. After `EINTR` it is made again at once, and that takes no step of the budget.
    #[inline]
    pub(super) fn attempt<R>(
        &self,
        known: Option<(&'static Hub, Key)>,
        direction: Direction,
        asks: bool,
        op: &mut impl FnMut(&T) -> io::Result<R>,
    ) -> Option<io::Result<R>> {
        if !asks && known.is_some_and(|(hub, key)| hub.reactor.is_drained(key, direction)) {
            return None;
        }
        loop {
            match op(self.get_ref()) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if let Some((hub, key)) = known {
                        hub.reactor.drained(key, direction);
                    }
                    return None;
                }
                result => {
                    // There may be more than this attempt took: the next waiter tries too.
                    if let Some((hub, key)) = known {
                        hub.reactor.wake_next(hub, key, direction);
                    }
                    return Some(result);
                }
            }
        }
    }

    /// Waits until an attempt may succeed. Gives the hub, and the descriptor's key there.
    #[track_caller]
    fn wait(&self, direction: Direction, deadline: &mut Option<u64>) -> io::Result<(&'static Hub, Key)> {
        // `as_fd` is the user's code and may do anything, so it is called before the hub is looked at.
        let fd = self.get_ref().as_fd();
        let hub = Parker::hub_for_io()?;
        let key = self.source.join(hub, fd)?;
        let timeout = self.timeouts[direction as usize].load(Ordering::Relaxed);
        // The time-out covers the whole operation, so only the first wait sets the deadline.
        if timeout != 0 && deadline.is_none() {
            *deadline = Some(hub.clock.now().saturating_add(timeout));
        }
        let wake = hub
            .reactor
            .wait(Parker::of(hub), key, direction, *deadline, reason(fd, direction));
        answer(wake, || {
            let what = match direction {
                Direction::Read => " the read time-out of",
                Direction::Write => " the write time-out of",
            };
            late(fd, direction, what, self.timeout(direction))
        })?;
        Ok((hub, key))
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
        Readiness::new(self, Direction::Read)
    }

    /// Like [`writable`](Self::writable), for an `async` function that is polled on a hub.
    pub fn writable_async(&self) -> impl Future<Output = io::Result<()>> + use<'_, T> {
        Readiness::new(self, Direction::Write)
    }

    fn timeout(&self, direction: Direction) -> Option<Duration> {
        let nanos = self.timeouts[direction as usize].load(Ordering::Relaxed);
        (nanos != 0).then(|| Duration::from_nanos(nanos))
    }

    fn set_timeout(&self, direction: Direction, timeout: Option<Duration>) -> io::Result<()> {
        if timeout.is_some_and(|timeout| timeout.is_zero()) {
            return Err(io::Error::new(
                ErrorKind::InvalidInput,
                "a time-out of zero is not allowed: use None for no time-out",
            ));
        }
        let nanos = timeout.map_or(0, |timeout| u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX));
        self.timeouts[direction as usize].store(nanos, Ordering::Relaxed);
        Ok(())
    }

    /// Sets how long a read may wait. `None`: forever.
    ///
    /// # Errors
    /// `InvalidInput` for a time-out of zero, as with std's sockets.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.set_timeout(Direction::Read, timeout)
    }

    /// Sets how long a write may wait. `None`: forever.
    ///
    /// # Errors
    /// `InvalidInput` for a time-out of zero.
    pub fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.set_timeout(Direction::Write, timeout)
    }

    /// How long a read may wait. `None`: forever.
    pub fn read_timeout(&self) -> Option<Duration> {
        self.timeout(Direction::Read)
    }

    /// How long a write may wait. `None`: forever.
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

struct Registration {
    hub: HubRef,
    key: Key,
    /// The descriptor that is registered in place of the source's own, if another source has registered that one.
    copy: Option<OwnedFd>,
}

/// Where a descriptor is registered.
struct Source {
    home: OnceLock<Registration>,
    others: Mutex<Vec<Registration>>,
}

impl Source {
    fn new() -> Source {
        Source {
            home: OnceLock::new(),
            others: Mutex::default(),
        }
    }

    /// The source's key with this hub, if it is registered there.
    #[inline]
    fn key(&self, hub: &Hub) -> Option<Key> {
        let home = self.home.get()?;
        if home.hub.is(hub) {
            return Some(home.key);
        }
        self.other_key(hub)
    }

    #[cold]
    fn other_key(&self, hub: &Hub) -> Option<Key> {
        let others = self.others.lock().ignore_poison();
        others.iter().find(|other| other.hub.is(hub)).map(|other| other.key)
    }

    /// The source's key with this hub. Registers the source if necessary.
    fn join(&self, hub: &'static Hub, fd: BorrowedFd<'_>) -> io::Result<Key> {
        if let Some(key) = self.key(hub) {
            return Ok(key);
        }
        let (key, copy) = hub.reactor.register(hub, fd)?;
        let new = Registration {
            hub: hub.reference(),
            key,
            copy,
        };
        if let Err(new) = self.home.set(new) {
            let mut others = self.others.lock().ignore_poison();
            // Registrations with hubs that have ended are of no use, and a long-lived source may have had any number of
            // them.
            others.retain(|other| other.hub.is_alive());
            others.push(new);
        }
        Ok(key)
    }

    /// Removes the source from every hub. To be called before its descriptor is closed or given away.
    fn leave(&self, fd: BorrowedFd<'_>) {
        let Some(home) = self.home.get() else { return };
        let others = std::mem::take(&mut *self.others.lock().ignore_poison());
        for place in std::iter::once(home).chain(&others) {
            // A forked child must leave the parent's poller alone.
            if !place.hub.is_of_this_process() {
                continue;
            }
            let key = place.key;
            match place.hub.here() {
                Some(hub) => {
                    let registered = place.copy.as_ref().map_or(fd, OwnedFd::as_fd);
                    hub.reactor.deregister(hub, key, Some(registered));
                }
                None => place.hub.run_or_send(move |hub| hub.reactor.deregister(hub, key, None)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn only_hubs_that_have_not_ended_are_remembered() {
        let (reader, _writer) = std::io::pipe().unwrap();
        let (reader, source) = (Arc::new(reader), Arc::new(Source::new()));
        let join = || {
            let (reader, source) = (reader.clone(), source.clone());
            move || source.join(Hub::current(), reader.as_fd()).map(drop)
        };
        for _ in 0..20 {
            std::thread::spawn(join()).join().unwrap().unwrap();
        }
        join()().unwrap();
        assert_eq!(source.others.lock().unwrap().len(), 1);
        assert!(source.key(Hub::current()).is_some());
        source.leave(reader.as_fd());
    }
}
