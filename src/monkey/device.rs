//! Reads and writes of descriptors that can be waited for and are neither sockets nor pipes: terminals, and the
//! kernel's anonymous files (eventfd, timerfd, signalfd, inotify). Also of FIFOs, which are pipes but do not support
//! `RWF_NOWAIT`.
//!
//! Some of them support reads that do not wait (`RWF_NOWAIT`). For the others, `poll` is asked first, and the call
//! itself is made when it says that the descriptor is ready. Between the two, another OS thread may take what there
//! was; then the call blocks this OS thread until there is more.

use std::mem::zeroed;
use std::time::Duration;

use libc::{c_int, iovec, ssize_t};

use super::fd::{self, Call};
use super::symbol::patch;
use super::{Cut, errno, fail, names, ready};
use crate::hub::{Direction, Hub};

patch! {
    SOCKETS tcdrain(fd: c_int) -> c_int => tcdrain_green;
}

/// The kind of a descriptor, as far as waiting is concerned.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    Pipe,
    Socket,
    /// A file on a disk or a directory, which is always ready; or no open descriptor.
    File,
    /// A file that the kernel generates when it is read (`/proc` and the like): a read may have to wait.
    Synthetic,
    /// A terminal or another device.
    Device,
    /// eventfd and the like.
    Anonymous,
}

/// Finds out the kind of a descriptor.
pub(super) fn sort(fd: c_int) -> Sort {
    // SAFETY: `fstat` writes to a local `stat`, for which all-zero is valid.
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
        // A file system without a block device has major number 0, and the files of `/proc` have no size.
        libc::S_IFREG if stat.st_size == 0 && libc::major(stat.st_dev) == 0 => Sort::Synthetic,
        // The kernel's anonymous inodes have no file type.
        0 => Sort::Anonymous,
        _ => Sort::File,
    }
}

/// `VMIN` and `VTIME` of a terminal that is not in line mode: the least number of bytes that a read waits for, and how
/// long it waits for each, in tenths of a second. `None` in line mode, and if it is no terminal.
fn raw_terminal(fd: c_int) -> Option<(usize, u64)> {
    // SAFETY: `tcgetattr` writes to a local `termios`, for which all-zero is valid.
    let modes = unsafe {
        let mut modes: libc::termios = zeroed();
        (libc::tcgetattr(fd, &raw mut modes) == 0).then_some(modes)
    }?;
    let count = |which: usize| modes.c_cc.get(which).copied().unwrap_or_default();
    (modes.c_lflag & libc::ICANON == 0).then(|| (usize::from(count(libc::VMIN)), count(libc::VTIME).into()))
}

/// Makes a call on an OS thread in the caller's place.
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

/// As `readv`, for anything but sockets, pipes and files; `plainly` is the original call.
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
    // `tcgetattr` fails on a device that is no terminal, and must not change errno.
    let terminal = if sort == Sort::Device { raw_terminal(fd) } else { None };
    super::set_errno(before);
    if let Some((least, tenths)) = terminal {
        // SAFETY: the caller guarantees `count` vectors.
        let len = unsafe { fd::vectors_of(vectors, count as usize) }
            .iter()
            .map(|vector| vector.iov_len)
            .sum();
        return read_raw(hub, fd, len, least, tenths, plainly);
    }
    Call::new(hub, fd, Direction::Read, "read").attempt(false, || {
        // Generated files get no `RWF_NOWAIT`: for them poll decides, as below.
        if sort != Sort::Synthetic {
            // SAFETY: the caller guarantees `count` vectors of writable bytes.
            let got = unsafe { libc::preadv2(fd, vectors, count, -1, libc::RWF_NOWAIT) };
            if got >= 0 || errno() != libc::EOPNOTSUPP {
                return got;
            }
        }
        read_if_ready(fd, before, &plainly)
    })
}

/// Makes the original call if there is something to read, and fails with `EAGAIN` if not.
fn read_if_ready(fd: c_int, before: c_int, plainly: &impl Fn() -> ssize_t) -> ssize_t {
    if !ready::is_ready(fd, libc::POLLIN) {
        return fail(libc::EAGAIN) as ssize_t;
    }
    super::set_errno(before);
    plainly()
}

/// Makes the original call once there is something to read.
pub(super) fn read_when_ready(hub: &'static Hub, fd: c_int, plainly: impl Fn() -> ssize_t) -> ssize_t {
    let before = errno();
    Call::new(hub, fd, Direction::Read, "read").attempt(false, || read_if_ready(fd, before, &plainly))
}

/// A read of a terminal that is not in line mode: it returns at least `least` bytes, or fewer if none comes for
/// `tenths` of a second.
fn read_raw(
    hub: &'static Hub,
    fd: c_int,
    len: usize,
    least: usize,
    tenths: u64,
    plainly: impl Fn() -> ssize_t,
) -> ssize_t {
    if least == 0 {
        // With `VMIN` 0, the time runs from the call, and the read may return without a byte.
        let time = Duration::from_millis(100 * tenths);
        let is_over = time.is_zero() || ready::is_ready(fd, libc::POLLIN);
        return if is_over {
            plainly()
        } else {
            read_within(hub, fd, time, plainly)
        };
    }
    if len < least {
        // The read returns when `len` bytes have come, but poll reports the terminal only from `least` bytes on.
        return apart(plainly);
    }
    let before = errno();
    Call::new(hub, fd, Direction::Read, "read").attempt(false, || {
        if least > 1 && tenths > 0 && ready::is_ready(fd, libc::POLLIN) {
            // After the first byte, the read waits up to `VTIME` for each further byte, so it may block.
            return apart(&plainly);
        }
        read_if_ready(fd, before, &plainly)
    })
}

/// Reads what comes within a time; returns 0 if nothing does.
fn read_within(hub: &'static Hub, fd: c_int, time: Duration, plainly: impl Fn() -> ssize_t) -> ssize_t {
    let deadline = hub.deadline_in(time);
    loop {
        // SAFETY: `fd` is a terminal's descriptor, so it is not -1, and a close ends the wait.
        let waited = fd::wait(hub, unsafe { fd::borrow(fd) }, Direction::Read, Some(deadline), "read");
        match waited {
            Ok(Ok(())) if ready::is_ready(fd, libc::POLLIN) => return plainly(),
            Ok(Ok(())) => {}
            Ok(Err(Cut::TimedOut)) => return 0,
            Ok(Err(Cut::Interrupted(error))) | Err(error) => return fail(error) as ssize_t,
        }
    }
}

/// As `writev`, for anything but sockets, pipes and files; `plainly` is the original call.
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
        // SAFETY: no pointers are involved.
        Sort::Device => unsafe { libc::isatty(fd) == 1 },
        Sort::Anonymous => is_eventfd(fd),
        _ => false,
    };
    super::set_errno(before);
    // Writes to other devices and anonymous files are made as they are: none is known to wait.
    if !waits || fd::is_nonblocking(fd) {
        return plainly();
    }
    // SAFETY: the caller guarantees `count` vectors of readable bytes.
    let is_small = sort == Sort::Anonymous && unsafe { is_small(fd::vectors_of(vectors, count as usize)) };
    Call::new(hub, fd, Direction::Write, "write").attempt(false, || {
        // `EAGAIN` makes `attempt` wait until there is room.
        if !ready::is_ready(fd, libc::POLLOUT) {
            return fail(libc::EAGAIN) as ssize_t;
        }
        super::set_errno(before);
        if is_small {
            return plainly();
        }
        // poll says that there is some room, which may be too little for this write: it may block.
        apart(&plainly)
    })
}

/// Waits until a terminal has sent its output, on an OS thread if there is any.
unsafe fn tcdrain_green(_hub: &'static Hub, fd: c_int) -> c_int {
    // SAFETY: no pointers are involved.
    let drain = || unsafe { original::tcdrain(fd) };
    let before = errno();
    let mut left: c_int = 0;
    // SAFETY: `TIOCOUTQ` writes an integer to the address of a local.
    let asked = unsafe { libc::ioctl(fd, libc::TIOCOUTQ, &raw mut left) };
    super::set_errno(before);
    // No terminal, or nothing left to send: the call returns at once.
    if asked != 0 || left == 0 {
        return drain();
    }
    names::apart(drain).unwrap_or_else(|| fail(libc::ENOMEM))
}

/// As `writev` on a FIFO, in pieces of at most `PIPE_BUF` bytes: when poll reports a FIFO, it has room for such a
/// piece.
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
        // Cut the remaining vectors down to `PIPE_BUF` bytes.
        let mut room = libc::PIPE_BUF;
        piece.retain_mut(|vector| {
            vector.iov_len = vector.iov_len.min(room);
            room -= vector.iov_len;
            vector.iov_len > 0
        });
        // SAFETY: `piece` lists parts of the caller's buffers that are not yet written.
        unsafe { fd::original::writev(fd, piece.as_ptr(), piece.len() as c_int) }
    };
    call.attempt_all(|| fd::total_of(vectors), step)
}

/// Whether it is an eventfd, the only anonymous file on which a write may wait.
fn is_eventfd(fd: c_int) -> bool {
    let path = format!("/proc/self/fd/{fd}");
    std::fs::read_link(path).is_ok_and(|to| to.as_os_str() == "anon_inode:[eventfd]")
}

/// Whether a write adds at most `u32::MAX` to an eventfd's counter. Then a counter that poll reports as writable has
/// room for it, except within that distance of its maximum, 2^64 - 2.
///
/// # Safety
/// The vectors' bytes are readable.
unsafe fn is_small(vectors: &[iovec]) -> bool {
    match vectors {
        // SAFETY: the vector has at least eight bytes, which are readable as the caller guarantees.
        [one] if one.iov_len >= 8 => unsafe { one.iov_base.cast::<u64>().read_unaligned() <= u32::MAX.into() },
        _ => false,
    }
}
