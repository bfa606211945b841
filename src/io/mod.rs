//! Any descriptor, with green threads that wait for it: [`Async`], and waits for foreign descriptors.
//!
//! Every method of every socket is one loop (`Async::run_until`): try; on `EAGAIN` wait for the source; try again.
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
//! A destructor may do I/O while a panic, a kill or a time-out unwinds its green thread. An operation that the kernel
//! can do at once is done. An operation that would have to wait fails with an error of kind `Other`. If it waited,
//! other green threads with the same thread-locals would run, and `std::thread::panicking` would be true for them. So
//! send a last message before the unwinding, or after it was caught: after [`catch_kill`](crate::thread::catch_kill),
//! or after the join. The exception is an isolated green thread (see [`is_isolated`](crate::thread::is_isolated)) that
//! shares its thread-locals with no local one: there the operation waits.
#![forbid(unsafe_code)]

mod async_fd;
mod poll;
mod reader;
mod ready;
pub(crate) mod traits;
mod writer;

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use crate::hub::{Direction, Hub, Mode, Parker, Wake, Why, budget, interrupt};

pub use async_fd::Async;
#[cfg(any(feature = "tokio-io", feature = "hyper"))]
pub(crate) use poll::{read, receive};
pub use reader::{IncompleteRead, LimitOverrun, Reader};
pub use writer::Writer;

static READ: &str = "data to read from descriptor";
static WRITE: &str = "room to write to descriptor";

/// The result of a wait for a descriptor.
fn answer(wake: Wake, late: impl FnOnce() -> io::Error) -> io::Result<()> {
    match wake {
        Wake::Ready | Wake::Early => Ok(()),
        Wake::TimedOut => Err(late()),
        Wake::Interrupted => Err(interrupted()),
    }
}

/// What a wait for a descriptor waits for.
fn reason(fd: BorrowedFd<'_>, direction: Direction) -> Why {
    let what = match direction {
        Direction::Read => &READ,
        Direction::Write => &WRITE,
    };
    Why::new(what, fd.as_raw_fd() as usize)
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
    io::Error::other("the call would have to wait, but cannot: the caller is unwinding or was killed")
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
    if crate::sys::is_watched_file(fd) {
        return give_way();
    }
    let hub = Parker::hub_for_io()?;
    let deadline = timeout.map(|timeout| hub.deadline_in(timeout));
    let why = reason(fd, direction);
    let wake = hub
        .reactor
        .wait_foreign(Parker::of(hub), fd, direction, deadline, why, || false)?;
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
