//! Reads and writes of descriptors that can be waited for and are neither sockets nor pipes: terminals, and the
//! kernel's anonymous files (eventfd, timerfd, signalfd, inotify). Also of FIFOs, which are pipes but do not support
//! `RWF_NOWAIT`, and of all pipes on an older kernel (before about Linux 6.5).
//!
//! Some of them support reads that do not wait (`RWF_NOWAIT`). For the others, `poll` is asked first, and the call
//! itself is made when it says that the descriptor is ready. Between the two, another OS thread may take what there
//! was. A pipe is opened once more for the call, without waiting, so the call then waits as a green thread. Anything
//! else blocks this OS thread until there is more; so does a pipe that cannot be opened again (see `reopened`).

#![forbid(unsafe_code)]

use std::time::Duration;

use libc::{c_int, ssize_t};

use super::call::{self, Call, Waited, is_nonblocking};
use super::symbol::{errno, fail, set_errno};
use crate::hub::Direction;
use crate::sys::probe::{Sort, allows, is_eventfd, is_ready, is_terminal, raw_terminal};

/// The ways to make one read or write.
pub(super) struct Ways<'a> {
    pub(super) call: &'a Call,
    /// Without waiting; it fails with `EOPNOTSUPP` on what does not support that.
    pub(super) at_once: &'a dyn Fn() -> ssize_t,
    /// As it is: it may block the OS thread.
    pub(super) plainly: &'a dyn Fn() -> ssize_t,
    /// On another OS thread, in the caller's place.
    pub(super) elsewhere: &'a dyn Fn() -> ssize_t,
    /// How many bytes it is for.
    pub(super) len: &'a dyn Fn() -> usize,
}

impl Ways<'_> {
    /// The call as [`device`](self) makes it, whatever name the caller's has.
    fn call(&self, direction: Direction) -> Call {
        let name = match direction {
            Direction::Read => "read",
            Direction::Write => "write",
        };
        Call::new(self.call.hub, self.call.fd, direction, name)
    }
}

/// As `readv`, for anything but sockets, pipes and files.
pub(super) fn read(ways: &Ways<'_>, sort: Sort) -> ssize_t {
    let fd = ways.call.fd;
    if is_nonblocking(fd) {
        return (ways.plainly)();
    }
    let before = errno();
    // `tcgetattr` fails on a device that is no terminal, and must not change errno.
    let terminal = if sort == Sort::Device { raw_terminal(fd) } else { None };
    set_errno(before);
    if let Some((least, tenths)) = terminal {
        return read_raw(ways, least, tenths);
    }
    ways.call(Direction::Read).attempt(false, || {
        // Generated files get no `RWF_NOWAIT`: for them poll decides, as below.
        if sort != Sort::Synthetic {
            let got = (ways.at_once)();
            if got >= 0 || errno() != libc::EOPNOTSUPP {
                return got;
            }
        }
        read_if_ready(ways, before)
    })
}

/// Makes the call if there is something to read, and fails with `EAGAIN` if not. A descriptor that is for writing only
/// never has something to read: there the call fails.
fn read_if_ready(ways: &Ways<'_>, before: c_int) -> ssize_t {
    if !is_ready(ways.call.fd, libc::POLLIN) && allows(ways.call.fd, libc::O_RDONLY) {
        return fail(libc::EAGAIN) as ssize_t;
    }
    set_errno(before);
    (ways.plainly)()
}

/// Makes the call once there is something to read.
pub(super) fn read_when_ready(ways: &Ways<'_>) -> ssize_t {
    let before = errno();
    ways.call(Direction::Read)
        .attempt(false, || read_if_ready(ways, before))
}

/// A read of a terminal that is not in line mode: it returns at least `least` bytes, or fewer if none comes for
/// `tenths` of a second.
fn read_raw(ways: &Ways<'_>, least: usize, tenths: u64) -> ssize_t {
    let fd = ways.call.fd;
    if least == 0 {
        // With `VMIN` 0, the time runs from the call, and the read may return without a byte.
        let time = Duration::from_millis(100 * tenths);
        let is_over = time.is_zero() || is_ready(fd, libc::POLLIN);
        return if is_over {
            (ways.plainly)()
        } else {
            read_within(ways, time)
        };
    }
    if (ways.len)() < least {
        // The read returns when all bytes have come, but poll reports the terminal only from `least` bytes on.
        return (ways.elsewhere)();
    }
    let before = errno();
    ways.call(Direction::Read).attempt(false, || {
        if least > 1 && tenths > 0 && is_ready(fd, libc::POLLIN) {
            // After the first byte, the read waits up to `VTIME` for each further byte, so it may block.
            return (ways.elsewhere)();
        }
        read_if_ready(ways, before)
    })
}

/// Reads what comes within a time; returns 0 if nothing does.
fn read_within(ways: &Ways<'_>, time: Duration) -> ssize_t {
    let (hub, fd) = (ways.call.hub, ways.call.fd);
    let deadline = hub.deadline_in(time);
    loop {
        match call::wait(hub, fd, Direction::Read, Some(deadline), "read") {
            Waited::Ready if is_ready(fd, libc::POLLIN) => return (ways.plainly)(),
            Waited::Ready => {}
            Waited::TimedOut => return 0,
            Waited::Interrupted(error) | Waited::Failed(error) => return fail(error) as ssize_t,
        }
    }
}

/// As `writev`, for anything but sockets, pipes and files. `is_small` says whether an eventfd that has some room has
/// enough for it.
pub(super) fn write(ways: &Ways<'_>, sort: Sort, is_small: impl FnOnce() -> bool) -> ssize_t {
    let fd = ways.call.fd;
    let before = errno();
    let waits = match sort {
        Sort::Device => is_terminal(fd),
        Sort::Anonymous => is_eventfd(fd),
        _ => false,
    };
    set_errno(before);
    // Writes to other devices and anonymous files are made as they are: none is known to wait.
    if !waits || is_nonblocking(fd) {
        return (ways.plainly)();
    }
    let is_small = sort == Sort::Anonymous && is_small();
    ways.call(Direction::Write).attempt(false, || {
        // `EAGAIN` makes `attempt` wait until there is room.
        if !is_ready(fd, libc::POLLOUT) {
            return fail(libc::EAGAIN) as ssize_t;
        }
        set_errno(before);
        if is_small {
            return (ways.plainly)();
        }
        // poll says that there is some room, which may be too little for this write: it may block.
        (ways.elsewhere)()
    })
}

/// As `writev` on a FIFO, in pieces of at most `PIPE_BUF` bytes: when poll reports a FIFO, it has room for such a
/// piece. `piece` writes what comes after a number of bytes, up to another number of them.
pub(super) fn write_fifo(ways: &Ways<'_>, piece: impl Fn(usize, usize) -> ssize_t) -> ssize_t {
    let fd = ways.call.fd;
    if is_nonblocking(fd) {
        return (ways.plainly)();
    }
    let step = |done| {
        if !is_ready(fd, libc::POLLOUT) && allows(fd, libc::O_WRONLY) {
            return fail(libc::EAGAIN) as ssize_t;
        }
        piece(done, libc::PIPE_BUF)
    };
    ways.call(Direction::Write).attempt_all(ways.len, step)
}
