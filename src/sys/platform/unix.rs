//! What the systems other than Linux share.

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::SocketAddr;
use std::ptr;

use rustix::event::kqueue::{self, EventFilter, EventFlags, ProcessEvents};
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::net::SocketAddrUnix;
use rustix::process::Pid;

use super::{Advice, Pages};

pub(crate) fn is_main_thread() -> bool {
    // SAFETY: asks about the caller.
    unsafe { libc::pthread_main_np() != 0 }
}

pub(crate) const MAP_FLAGS: c_int = libc::MAP_PRIVATE | libc::MAP_ANON;

/// # Safety
/// None: it does nothing.
pub(crate) unsafe fn avoid_huge_pages(_at: usize, _len: usize) {}

/// # Safety
/// None: it does nothing.
pub(crate) unsafe fn install_marker(_at: usize, _len: usize) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

pub(crate) const WITHOUT_MARKERS: &str = "each stack takes two mappings, whose number the system may limit";

/// # Safety
/// None: it does nothing.
pub(crate) unsafe fn advise_all(_ranges: impl Iterator<Item = Pages>, _advice: Advice) -> bool {
    false
}

/// Guards are mappings without access here, and a new mapping would take their place.
pub(crate) const DISCARD_KEEPS_GUARDS: bool = false;

/// Advice may be ignored here. A new mapping in place of the old one is not.
///
/// # Safety
/// The pages belong to a mapping of the caller's, have no guard, and their contents are not needed any more.
pub(crate) unsafe fn discard(at: usize, len: usize) {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: the caller guarantees that these pages are its own, and that nothing in them is needed. `mprotect` gives
    // them the protection that they have.
    let lost = unsafe {
        let new = libc::mmap(at as *mut _, len, protection, MAP_FLAGS | libc::MAP_FIXED, -1, 0);
        new == libc::MAP_FAILED && libc::mprotect(at as *mut _, len, protection) != 0
    };
    if lost {
        // POSIX lets a call that fails unmap the pages. Another mapping may take their place, and they would be written
        // to.
        crate::sys::signal::write_stderr(b"greenthread: fatal: the system lost pages that were to be given back\n");
        crate::sys::signal::abort();
    }
}

/// The most descriptors that a process may have, whatever its hard limit says. Apple's systems refuse a larger number,
/// and FreeBSD takes this one instead.
pub(crate) fn most_files() -> Option<u64> {
    let mut most: c_int = 0;
    let mut len = size_of::<c_int>();
    // SAFETY: a whole name, and room for the `len` bytes of an integer; nothing is set.
    let asked = unsafe {
        libc::sysctlbyname(
            c"kern.maxfilesperproc".as_ptr(),
            (&raw mut most).cast(),
            &raw mut len,
            ptr::null_mut(),
            0,
        )
    };
    u64::try_from(most).ok().filter(|_| asked == 0)
}

/// A kqueue accepts a file as well, and then has no event when a read would find the file's end: so files are told by
/// `fstat`.
pub(crate) fn is_watched_file(fd: BorrowedFd<'_>) -> bool {
    // SAFETY: `fstat` writes to a local `stat`, for which all-zero is valid.
    unsafe {
        let mut stat: libc::stat = std::mem::zeroed();
        libc::fstat(fd.as_raw_fd(), &raw mut stat) == 0 && stat.st_mode & libc::S_IFMT == libc::S_IFREG
    }
}

pub(crate) fn abstract_address(_address: &SocketAddr) -> Option<rustix::io::Result<SocketAddrUnix>> {
    None
}

pub(crate) fn is_read_shut<T: AsFd>(_socket: &T) -> bool {
    false
}

pub(crate) const CAN_WRITE_NOW: bool = false;

pub(crate) fn write_now(_file: BorrowedFd<'_>, _bytes: &[u8]) -> rustix::io::Result<usize> {
    Err(Errno::OPNOTSUPP)
}

/// A kqueue that gets an event when the process ends, and is readable as long as that is not taken out. A process that
/// has ended has an event at once, or is an error (`ESRCH`, on Apple's systems).
pub(crate) fn open_process(pid: Pid) -> Result<OwnedFd, Errno> {
    let queue = kqueue::kqueue()?;
    fcntl_setfd(&queue, FdFlags::CLOEXEC)?;
    let filter = EventFilter::Proc {
        pid,
        flags: ProcessEvents::EXIT,
    };
    let change = kqueue::Event::new(filter, EventFlags::ADD, ptr::null_mut());
    let mut no_room: [kqueue::Event; 0] = [];
    // SAFETY: the event is of a process, and no descriptor is registered. Without room for events the call does not
    // wait, and a change that fails is its error.
    unsafe { kqueue::kevent_timespec(&queue, &[change], &mut no_room[..], None)? };
    Ok(queue)
}
