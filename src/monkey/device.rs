//! Reads and writes of what is neither socket nor pipe nor a file on a disk, and can be waited for: terminals, and the
//! kernel's own kinds (eventfd, timerfd, signalfd, inotify); and of FIFOs, which are pipes but for `RWF_NOWAIT`.
//!
//! Some know how to read without waiting (`RWF_NOWAIT`); of the others `poll` is asked, which says so of whatever epoll
//! accepts. Then the call itself is made: between the two another OS thread may take what there was, and this one then
//! waits for the next.

use std::mem::zeroed;
use std::time::Duration;

use libc::{c_int, iovec, ssize_t};

use super::fd::{self, Call};
use super::symbol::patch;
use super::{Cut, errno, fail, names, ready};
use crate::hub::Hub;
use crate::hub::reactor::Direction;

patch! {
    SOCKETS tcdrain(fd: c_int) -> c_int => tcdrain_green;
}

/// What a descriptor is, as far as waiting is concerned.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    Pipe,
    Socket,
    /// A file on a disk, a directory: it is always ready.
    File,
    /// What the kernel makes up as it is read (`/proc` and the like): it may have to be waited for.
    Synthetic,
    /// A terminal or another device.
    Device,
    /// eventfd and the like.
    Anonymous,
}

pub(super) fn sort(fd: c_int) -> Sort {
    // SAFETY: writes a `stat`, for which all-zero is valid.
    let (result, stat) = unsafe {
        let mut stat: libc::stat = zeroed();
        (libc::fstat(fd, &raw mut stat), stat)
    };
    if result != 0 {
        return Sort::File;
    }
    match stat.st_mode & libc::S_IFMT {
        libc::S_IFIFO => Sort::Pipe,
        libc::S_IFSOCK => Sort::Socket,
        libc::S_IFCHR => Sort::Device,
        libc::S_IFREG if stat.st_size == 0 && libc::major(stat.st_dev) == 0 => Sort::Synthetic,
        0 => Sort::Anonymous,
        _ => Sort::File,
    }
}

/// How a terminal reads that does not read lines: how many bytes it waits for at least, and how long in tenths of a
/// second for each; `None` for lines, and for what is no terminal.
fn raw_terminal(fd: c_int) -> Option<(usize, u64)> {
    // SAFETY: writes a `termios`, for which all-zero is valid.
    let modes = unsafe {
        let mut modes: libc::termios = zeroed();
        (libc::tcgetattr(fd, &raw mut modes) == 0).then_some(modes)
    }?;
    let count = |which: usize| modes.c_cc.get(which).copied().unwrap_or_default();
    (modes.c_lflag & libc::ICANON == 0).then(|| (usize::from(count(libc::VMIN)), count(libc::VTIME).into()))
}

/// Has an OS thread make a call in the caller's place.
pub(super) fn apart(call: impl FnOnce() -> ssize_t) -> ssize_t {
    let mut result = 0;
    let done = names::apart(|| {
        result = call();
        0
    });
    match done {
        Some(_) => result,
        None => fail(libc::ENOMEM) as ssize_t,
    }
}

/// As `readv`, by `plainly` where it is known not to wait.
///
/// # Safety
/// As for `readv`.
pub(super) unsafe fn read(
    hub: &'static Hub,
    fd: c_int,
    sort: Sort,
    (vectors, count): (*const iovec, c_int),
    plainly: impl Fn() -> ssize_t,
) -> ssize_t {
    if fd::is_nonblocking(fd) {
        return plainly();
    }
    let before = errno();
    let terminal = if sort == Sort::Device { raw_terminal(fd) } else { None };
    super::set_errno(before);
    if let Some((least, tenths)) = terminal {
        // SAFETY: the caller's: as many vectors.
        let len = unsafe { fd::vectors_of(vectors, count as usize) }
            .iter()
            .map(|vector| vector.iov_len)
            .sum();
        return read_raw(hub, fd, len, least, tenths, plainly);
    }
    Call::new(hub, fd, Direction::Read, "read").attempt(false, || {
        if sort != Sort::Synthetic {
            // SAFETY: the caller's.
            let got = unsafe { libc::preadv2(fd, vectors, count, -1, libc::RWF_NOWAIT) };
            if got >= 0 || errno() != libc::EOPNOTSUPP {
                return got;
            }
        }
        read_if_ready(fd, before, &plainly)
    })
}

fn read_if_ready(fd: c_int, before: c_int, plainly: &impl Fn() -> ssize_t) -> ssize_t {
    if !ready::is_ready(fd, libc::POLLIN) {
        return fail(libc::EAGAIN) as ssize_t;
    }
    super::set_errno(before);
    plainly()
}

/// As `read`, once there is something.
pub(super) fn read_when_ready(hub: &'static Hub, fd: c_int, plainly: impl Fn() -> ssize_t) -> ssize_t {
    let before = errno();
    Call::new(hub, fd, Direction::Read, "read").attempt(false, || read_if_ready(fd, before, &plainly))
}

/// A terminal that gives bytes as they come: at least `least` of them, or whatever has come after `tenths` of a second.
fn read_raw(
    hub: &'static Hub,
    fd: c_int,
    len: usize,
    least: usize,
    tenths: u64,
    plainly: impl Fn() -> ssize_t,
) -> ssize_t {
    if least == 0 {
        let time = Duration::from_millis(100 * tenths);
        let is_over = time.is_zero() || ready::is_ready(fd, libc::POLLIN);
        return if is_over {
            plainly()
        } else {
            read_within(hub, fd, time, plainly)
        };
    }
    if len < least {
        // It gives as many as are asked for, of which poll knows nothing.
        return apart(plainly);
    }
    let before = errno();
    Call::new(hub, fd, Direction::Read, "read").attempt(false, || {
        if least > 1 && tenths > 0 && ready::is_ready(fd, libc::POLLIN) {
            // From the first byte on it waits for each of the others.
            return apart(&plainly);
        }
        read_if_ready(fd, before, &plainly)
    })
}

/// Reads what comes within a time, if anything does.
fn read_within(hub: &'static Hub, fd: c_int, time: Duration, plainly: impl Fn() -> ssize_t) -> ssize_t {
    let deadline = hub.after(time);
    loop {
        // SAFETY: it was good a moment ago.
        let waited = fd::wait(hub, unsafe { fd::borrow(fd) }, Direction::Read, Some(deadline), "read");
        match waited {
            Ok(Ok(())) if ready::is_ready(fd, libc::POLLIN) => return plainly(),
            Ok(Ok(())) => {}
            Ok(Err(Cut::TimedOut)) => return 0,
            Ok(Err(Cut::Interrupted(error))) | Err(error) => return fail(error) as ssize_t,
        }
    }
}

/// As `writev`, by `plainly` where it is known not to wait.
///
/// # Safety
/// As for `writev`.
pub(super) unsafe fn write(
    hub: &'static Hub,
    fd: c_int,
    sort: Sort,
    (vectors, count): (*const iovec, c_int),
    plainly: impl Fn() -> ssize_t,
) -> ssize_t {
    let before = errno();
    let waits = match sort {
        // SAFETY: asks what it is.
        Sort::Device => unsafe { libc::isatty(fd) == 1 },
        Sort::Anonymous => is_eventfd(fd),
        _ => false,
    };
    super::set_errno(before);
    if !waits || fd::is_nonblocking(fd) {
        return plainly();
    }
    // SAFETY: the caller's: as many vectors, of as many bytes.
    let is_small = sort == Sort::Anonymous && unsafe { is_small(fd::vectors_of(vectors, count as usize)) };
    Call::new(hub, fd, Direction::Write, "write").attempt(false, || {
        if !ready::is_ready(fd, libc::POLLOUT) {
            return fail(libc::EAGAIN) as ssize_t;
        }
        super::set_errno(before);
        if is_small {
            return plainly();
        }
        // A terminal that has some room may not have enough, nor may a counter.
        apart(&plainly)
    })
}

/// Until a terminal has sent what it was given.
unsafe fn tcdrain_green(_hub: &'static Hub, fd: c_int) -> c_int {
    // SAFETY: no pointers.
    let drain = || unsafe { original::tcdrain(fd) };
    let before = errno();
    let mut left: c_int = 0;
    // SAFETY: writes a number.
    let asked = unsafe { libc::ioctl(fd, libc::TIOCOUTQ, &raw mut left) };
    super::set_errno(before);
    if asked != 0 || left == 0 {
        return drain();
    }
    names::apart(drain).unwrap_or_else(|| fail(libc::ENOMEM))
}

/// As `writev` on a FIFO, of which poll says that it has room for as much as is written in one piece.
///
/// # Safety
/// As for `writev`.
pub(super) unsafe fn write_fifo(
    hub: &'static Hub,
    fd: c_int,
    vectors: &[iovec],
    plainly: impl Fn() -> ssize_t,
) -> ssize_t {
    if fd::is_nonblocking(fd) {
        return plainly();
    }
    let call = Call::new(hub, fd, Direction::Write, "write");
    let step = |done| {
        if !ready::is_ready(fd, libc::POLLOUT) {
            return fail(libc::EAGAIN) as ssize_t;
        }
        let mut piece = fd::rest_of(vectors, done);
        let mut room = libc::PIPE_BUF;
        piece.retain_mut(|vector| {
            vector.iov_len = vector.iov_len.min(room);
            room -= vector.iov_len;
            vector.iov_len > 0
        });
        // SAFETY: parts of the caller's buffers.
        unsafe { fd::original::writev(fd, piece.as_ptr(), piece.len() as c_int) }
    };
    call.attempt_all(|| fd::total_of(vectors), step)
}

/// Whether it is an eventfd: of its kind the only one that a write may wait for.
fn is_eventfd(fd: c_int) -> bool {
    let path = format!("/proc/self/fd/{fd}");
    std::fs::read_link(path).is_ok_and(|to| to.as_os_str() == "anon_inode:[eventfd]")
}

/// Whether a write adds so little to a counter that one with any room at all has room for it.
///
/// # Safety
/// The vectors' bytes may be read.
unsafe fn is_small(vectors: &[iovec]) -> bool {
    match vectors {
        // SAFETY: the caller's: eight bytes.
        [one] if one.iov_len >= 8 => unsafe { one.iov_base.cast::<u64>().read_unaligned() <= u32::MAX.into() },
        _ => false,
    }
}
