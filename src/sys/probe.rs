//! Questions to the kernel about a descriptor, and a few calls of patched libc on one: safe for any number, and none of
//! them waits (but [`accept_next`]).

use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::time::Duration;

use libc::{c_int, pollfd, sockaddr_storage, socklen_t, timeval};

/// The errno of the call that has just failed.
fn errno() -> c_int {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}

/// Asks what one descriptor is ready for, without waiting: a system call, because libc's symbol is patched. Returns
/// what libc's `poll` does, and leaves the events in `one`.
#[inline]
fn ask_one(one: &mut libc::pollfd) -> libc::c_long {
    let count: libc::c_long = 1;
    // SAFETY: `poll` gets one `pollfd`, and a time-out of 0.
    #[cfg(target_arch = "x86_64")]
    let result = unsafe { libc::syscall(libc::SYS_poll, ptr::from_mut(one), count, 0 as libc::c_long) };
    // Newer processors have no `poll`.
    // SAFETY: `ppoll` gets one `pollfd`, a time-out of 0, and no signal mask.
    #[cfg(not(target_arch = "x86_64"))]
    let result = unsafe {
        let timeout: libc::timespec = zeroed();
        let no_mask = ptr::null::<libc::sigset_t>();
        libc::syscall(
            libc::SYS_ppoll,
            ptr::from_mut(one),
            count,
            &raw const timeout,
            no_mask,
            0_usize,
        )
    };
    result
}

/// The events that one descriptor has now, of `events`; errors are always among them. An error if it cannot be asked
/// for.
fn events_of(fd: RawFd, events: i16) -> Result<i16, c_int> {
    let mut one = pollfd { fd, events, revents: 0 };
    if ask_one(&mut one) < 0 {
        Err(errno())
    } else {
        Ok(one.revents)
    }
}

/// Whether one descriptor has one of these events now, or an error.
pub(crate) fn is_ready(fd: RawFd, events: i16) -> bool {
    events_of(fd, events) != Ok(0)
}

/// Whether an error is pending, which the next call on the descriptor would report.
pub(crate) fn has_error(fd: RawFd) -> bool {
    events_of(fd, 0).is_ok_and(|events| events & libc::POLLERR != 0)
}

/// Whether it is a descriptor.
pub(crate) fn is_open(fd: RawFd) -> bool {
    // SAFETY: `F_GETFD` only reads flags, and fails if `fd` is not open.
    unsafe { libc::fcntl(fd, libc::F_GETFD) >= 0 }
}

/// Whether the open file was opened for this access, `O_RDONLY` or `O_WRONLY`, or for both.
pub(crate) fn allows(fd: RawFd, access: c_int) -> bool {
    // SAFETY: `F_GETFL` only reads flags. If `fd` is not open, the result stands for no access mode.
    let mode = unsafe { libc::fcntl(fd, libc::F_GETFL) } & libc::O_ACCMODE;
    mode == access || mode == libc::O_RDWR
}

/// The kind of a descriptor, as far as waiting is concerned.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sort {
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

fn stat_of(fd: RawFd) -> Option<libc::stat> {
    // SAFETY: `fstat` writes to a local `stat`, for which all-zero is valid.
    unsafe {
        let mut stat: libc::stat = zeroed();
        (libc::fstat(fd, &raw mut stat) == 0).then_some(stat)
    }
}

/// The inode of an open file.
pub(crate) fn inode_of(fd: RawFd) -> Option<u64> {
    Some(stat_of(fd)?.st_ino)
}

/// Finds out the kind of a descriptor.
pub(crate) fn sort(fd: RawFd) -> Sort {
    let Some(stat) = stat_of(fd) else {
        return Sort::File;
    };
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

/// The kind of a descriptor, as far as reading and writing are concerned.
#[derive(PartialEq, Eq)]
pub(crate) enum File {
    Pipe,
    Socket,
    /// A file, a terminal, a device.
    Other,
}

pub(crate) fn kind(fd: c_int) -> File {
    match sort(fd) {
        Sort::Pipe => File::Pipe,
        Sort::Socket => File::Socket,
        _ => File::Other,
    }
}

/// The value of an integer socket option; `None` if it cannot be asked for.
pub(crate) fn option(fd: RawFd, name: c_int) -> Option<c_int> {
    let (mut value, mut len) = (0, size_of::<c_int>() as socklen_t);
    // SAFETY: `getsockopt` writes at most `len` bytes to a local integer.
    let result = unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, name, (&raw mut value).cast(), &raw mut len) };
    (result == 0).then_some(value)
}

/// The value of a socket option that is a time. 0 on anything but a socket.
pub(crate) fn time_option(fd: RawFd, name: c_int) -> Duration {
    // SAFETY: `getsockopt` writes at most `len` bytes to a local `timeval`, for which all-zero is valid.
    let time = unsafe {
        let mut time: timeval = zeroed();
        let mut len = size_of::<timeval>() as socklen_t;
        libc::getsockopt(fd, libc::SOL_SOCKET, name, (&raw mut time).cast(), &raw mut len);
        time
    };
    Duration::new(
        time.tv_sec.max(0) as u64,
        (time.tv_usec.clamp(0, 999_999) * 1000) as u32,
    )
}

/// Whether it is a stream socket.
pub(crate) fn is_stream(fd: RawFd) -> bool {
    option(fd, libc::SO_TYPE) == Some(libc::SOCK_STREAM)
}

/// The inode of a descriptor that is a listening socket; `None` for any other.
pub(crate) fn listener(fd: RawFd) -> Option<u64> {
    let listens = option(fd, libc::SO_ACCEPTCONN) == Some(1);
    listens.then(|| inode_of(fd)).flatten()
}

/// Whether it is a socket with a peer.
pub(crate) fn is_connected(fd: RawFd) -> bool {
    // SAFETY: `getpeername` writes at most `len` bytes to a local address, for which all-zero is valid.
    unsafe {
        let mut address: libc::sockaddr_storage = zeroed();
        let mut len = size_of::<libc::sockaddr_storage>() as socklen_t;
        libc::getpeername(fd, (&raw mut address).cast(), &raw mut len) == 0
    }
}

/// `VMIN` and `VTIME` of a terminal that is not in line mode: the least number of bytes that a read waits for, and how
/// long it waits for each, in tenths of a second. `None` in line mode, and if it is no terminal.
pub(crate) fn raw_terminal(fd: RawFd) -> Option<(usize, u64)> {
    // SAFETY: `tcgetattr` writes to a local `termios`, for which all-zero is valid.
    let modes = unsafe {
        let mut modes: libc::termios = zeroed();
        (libc::tcgetattr(fd, &raw mut modes) == 0).then_some(modes)
    }?;
    let count = |which: usize| modes.c_cc.get(which).copied().unwrap_or_default();
    (modes.c_lflag & libc::ICANON == 0).then(|| (usize::from(count(libc::VMIN)), count(libc::VTIME).into()))
}

pub(crate) fn is_terminal(fd: RawFd) -> bool {
    // SAFETY: no pointers are involved.
    unsafe { libc::isatty(fd) == 1 }
}

/// Whether a terminal still has output to send.
pub(crate) fn has_output(fd: RawFd) -> bool {
    let mut left: c_int = 0;
    // SAFETY: `TIOCOUTQ` writes an integer to the address of a local.
    unsafe { libc::ioctl(fd, libc::TIOCOUTQ, &raw mut left) == 0 && left != 0 }
}

/// Whether it is an eventfd, the only anonymous file on which a write may wait.
pub(crate) fn is_eventfd(fd: RawFd) -> bool {
    let path = format!("/proc/self/fd/{fd}");
    std::fs::read_link(path).is_ok_and(|to| to.as_os_str() == "anon_inode:[eventfd]")
}

/// How many bytes a pipe takes without waiting for certain. `None`: no descriptor reads from it, or it is closed.
pub(crate) fn room_of(pipe: RawFd) -> Option<usize> {
    let events = events_of(pipe, libc::POLLOUT).unwrap_or_default();
    if events & (libc::POLLERR | libc::POLLNVAL) != 0 {
        return None;
    }
    if events & libc::POLLOUT == 0 {
        return Some(0);
    }
    let mut full: c_int = 0;
    // SAFETY: `FIONREAD` writes an integer to a local; `F_GETPIPE_SZ` has no argument.
    let (asked, size) = unsafe {
        let asked = libc::ioctl(pipe, libc::FIONREAD, &raw mut full);
        (asked, libc::fcntl(pipe, libc::F_GETPIPE_SZ))
    };
    // A writable pipe has at least one free page, and an empty one has its whole size.
    Some(match usize::try_from(size) {
        Ok(size) if asked == 0 && full == 0 => size,
        _ => 4096,
    })
}

/// The pipe behind a descriptor, opened once more, so that a read or a write of it does not wait: the flag `O_NONBLOCK`
/// of the descriptor's own open file belongs to the program. `None` if that cannot be had: the descriptor is
/// not for this access, or there is no `/proc`, no free descriptor, no right to open it, or no reader.
pub(crate) fn reopened(pipe: RawFd, access: c_int) -> Option<OwnedFd> {
    if !allows(pipe, access) {
        return None;
    }
    let path = std::ffi::CString::new(format!("/proc/self/fd/{pipe}")).ok()?;
    // SAFETY: `F_GETFL` only reads flags. The path is a C string. The new descriptor has no other owner.
    unsafe {
        let flags = libc::fcntl(pipe, libc::F_GETFL);
        let flags = access | libc::O_NONBLOCK | libc::O_CLOEXEC | libc::O_NOCTTY | flags & libc::O_DIRECT;
        let raw = libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path.as_ptr(), flags, 0);
        (raw >= 0).then(|| OwnedFd::from_raw_fd(raw as c_int))
    }
}

/// A second descriptor of an open file, or an errno.
pub(crate) fn duplicate(fd: RawFd) -> Result<OwnedFd, c_int> {
    // SAFETY: `F_DUPFD_CLOEXEC` makes a new descriptor, which has no other owner.
    unsafe {
        let raw = libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 0);
        if raw < 0 {
            Err(errno())
        } else {
            Ok(OwnedFd::from_raw_fd(raw))
        }
    }
}

/// Sets the flags of a descriptor as `accept4` does.
pub(crate) fn set_flags(fd: &OwnedFd, flags: c_int) {
    // SAFETY: these commands change flags, and have no pointer arguments.
    unsafe {
        if flags & libc::SOCK_CLOEXEC == 0 {
            libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, 0);
        }
        if flags & libc::SOCK_NONBLOCK != 0 {
            libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK);
        }
    }
}

/// A connection, or the errno of `accept4`, and the peer's address. Blocks the OS thread.
pub(crate) fn accept_next(listener: &OwnedFd) -> (Result<OwnedFd, c_int>, sockaddr_storage, socklen_t) {
    // SAFETY: `accept4` writes to a local address, for which all-zero is valid; the new descriptor has no other owner.
    unsafe {
        let mut address: sockaddr_storage = zeroed();
        let mut len = size_of::<sockaddr_storage>() as socklen_t;
        let place = (&raw mut address).cast();
        let raw = libc::accept4(listener.as_raw_fd(), place, &raw mut len, libc::SOCK_CLOEXEC);
        let accepted = if raw < 0 {
            Err(errno())
        } else {
            Ok(OwnedFd::from_raw_fd(raw))
        };
        (accepted, address, len)
    }
}
