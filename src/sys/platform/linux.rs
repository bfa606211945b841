//! Linux: see the table in [`platform`](super).

use std::ffi::c_int;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::SocketAddr;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, ReadWriteFlags};
use rustix::net::{AddressFamily, SendFlags, SocketAddrAny, SocketAddrUnix, SocketFlags, SocketType, sockopt};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::{Advice, Pages, RANGES};

pub(crate) fn thread_id() -> u64 {
    rustix::thread::gettid().as_raw_nonzero().get() as u64
}

pub(crate) fn is_main_thread() -> bool {
    thread_id() == u64::from(std::process::id())
}

pub(crate) fn threads() -> Option<Vec<u64>> {
    let entries = std::fs::read_dir("/proc/self/task").ok()?;
    entries
        .map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect()
}

pub(crate) const MAP_FLAGS: c_int = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;

/// # Safety
/// The range is a mapping of the caller's.
pub(crate) unsafe fn avoid_huge_pages(at: usize, len: usize) {
    // SAFETY: the caller guarantees the mapping. The call fails where there are no huge pages, which is as good.
    unsafe { libc::madvise(at as *mut _, len, libc::MADV_NOHUGEPAGE) };
}

/// `MADV_GUARD_INSTALL` of Linux 6.13: pages that fault, without splitting the mapping.
const MADV_GUARD_INSTALL: c_int = 102;

/// # Safety
/// The pages belong to a mapping of the caller's, and nothing refers to them.
pub(crate) unsafe fn install_marker(at: usize, len: usize) -> io::Result<()> {
    // SAFETY: the caller guarantees the pages, and that nothing refers to them.
    match unsafe { libc::madvise(at as *mut _, len, MADV_GUARD_INSTALL) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Why stacks run out early where there are no markers.
pub(crate) const WITHOUT_MARKERS: &str = "each stack takes two of the mappings that vm.max_map_count allows, because this \
    kernel has no MADV_GUARD_INSTALL (Linux 6.13), or a filter or mlockall forbids it";

/// # Safety
/// The advice may be given for these pages. There are at most [`RANGES`] ranges.
pub(crate) unsafe fn advise_all(ranges: impl Iterator<Item = Pages>, advice: Advice) -> bool {
    const PIDFD_SELF: c_int = -10_000;
    /// The kernel is older than Linux 6.14, or a filter forbids the call.
    static REFUSED: AtomicBool = AtomicBool::new(false);
    if REFUSED.load(Ordering::Relaxed) || crate::sys::mem::under_valgrind() {
        return false;
    }
    let advice = match advice {
        Advice::Guard => MADV_GUARD_INSTALL,
        Advice::Populate => libc::MADV_POPULATE_WRITE,
    };
    let mut vectors = [libc::iovec {
        iov_base: ptr::null_mut(),
        iov_len: 0,
    }; RANGES];
    let (mut count, mut total) = (0, 0);
    for (vector, (at, len)) in vectors.iter_mut().zip(ranges) {
        *vector = libc::iovec {
            iov_base: at as *mut _,
            iov_len: len,
        };
        count += 1;
        total += len;
    }
    // SAFETY: `count` whole vectors, of pages for which the caller may give this advice.
    let done = unsafe {
        libc::syscall(
            libc::SYS_process_madvise,
            PIDFD_SELF,
            &raw const vectors,
            count,
            advice,
            0,
        )
    };
    // A shortage or an interruption concerns this call only. After any other error the call is not tried again.
    if done < 0
        && !matches!(
            io::Error::last_os_error().raw_os_error(),
            Some(libc::ENOMEM | libc::EINTR | libc::EAGAIN)
        )
    {
        REFUSED.store(true, Ordering::Relaxed);
    }
    usize::try_from(done) == Ok(total)
}

/// `MADV_DONTNEED` leaves guards of either kind alone.
pub(crate) const DISCARD_KEEPS_GUARDS: bool = true;

/// # Safety
/// The pages belong to a mapping of the caller's, and their contents are not needed any more.
pub(crate) unsafe fn discard(at: usize, len: usize) {
    // SAFETY: the caller guarantees the pages, and that their contents are not needed.
    unsafe { libc::madvise(at as *mut _, len, libc::MADV_DONTNEED) };
}

/// `None`: on Linux the hard limit says how many.
pub(crate) fn most_files() -> Option<u64> {
    None
}

/// `false`: epoll refuses files, so no file is ever watched.
#[inline(always)]
pub(crate) fn is_watched_file(_fd: BorrowedFd<'_>) -> bool {
    false
}

pub(crate) fn accept<T: AsFd>(listener: &T) -> rustix::io::Result<(OwnedFd, Option<SocketAddrAny>)> {
    rustix::net::acceptfrom_with(listener.as_fd(), SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)
}

pub(crate) fn socket(family: AddressFamily, kind: SocketType) -> rustix::io::Result<OwnedFd> {
    rustix::net::socket_with(family, kind, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC, None)
}

pub(crate) fn share_port(socket: &OwnedFd) -> rustix::io::Result<()> {
    sockopt::set_socket_reuseport(socket, true)
}

pub(crate) fn pipe() -> rustix::io::Result<(OwnedFd, OwnedFd)> {
    pipe_with(PipeFlags::CLOEXEC)
}

pub(crate) const NO_SIGPIPE: SendFlags = SendFlags::NOSIGNAL;

pub(crate) fn abstract_address(address: &SocketAddr) -> Option<rustix::io::Result<SocketAddrUnix>> {
    address.as_abstract_name().map(SocketAddrUnix::new_abstract_name)
}

pub(crate) fn is_read_shut<T: AsFd>(socket: &T) -> bool {
    let mut socket = [PollFd::new(socket, PollFlags::RDHUP)];
    poll(&mut socket, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
}

pub(crate) const CAN_WRITE_NOW: bool = true;

pub(crate) fn write_now(file: BorrowedFd<'_>, bytes: &[u8]) -> rustix::io::Result<usize> {
    // The offset -1 means the position that the file has. A pipe has none, and takes no other offset.
    rustix::io::pwritev2(file, &[IoSlice::new(bytes)], u64::MAX, ReadWriteFlags::NOWAIT)
}

pub(crate) fn open_process(pid: Pid) -> Result<OwnedFd, Errno> {
    pidfd_open(pid, PidfdFlags::empty())
}
