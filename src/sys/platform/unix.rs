//! What the systems other than Linux share.

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::SocketAddr;

use rustix::io::Errno;
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
    // SAFETY: the caller guarantees that these pages are its own, and that nothing in them is needed.
    unsafe { libc::mmap(at as *mut _, len, protection, MAP_FLAGS | libc::MAP_FIXED, -1, 0) };
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

pub(crate) fn open_process(_pid: Pid) -> Result<OwnedFd, Errno> {
    Err(Errno::NOSYS)
}
