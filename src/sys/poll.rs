//! Descriptors and the crate polling.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
#[cfg(all(feature = "monkey", target_os = "linux"))]
use std::ptr;

/// What a descriptor is ready for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Readiness {
    pub(crate) read: bool,
    pub(crate) write: bool,
    /// Hung up, shut down (at least one direction) or in error. All waiters are to be woken: there may be no later
    /// edge.
    pub(crate) closed: bool,
}

/// Adds a descriptor to the poller.
pub(crate) fn add(
    poller: &polling::Poller,
    fd: BorrowedFd<'_>,
    event: polling::Event,
    mode: polling::PollMode,
) -> io::Result<()> {
    // SAFETY: polling asks that a descriptor is deleted before it is closed, because a later descriptor of the same
    // number might get its events. `hub::reactor` deletes this crate's own descriptors before it closes them. When a
    // foreign descriptor is closed without notice, the kernel removes it, and an event for its old key is dropped
    // because each key carries a generation.
    unsafe { poller.add_with_mode(fd.as_raw_fd(), event, mode) }
}

/// Asks what one descriptor is ready for, without waiting: a system call, because libc's symbol is patched. Returns what
/// libc's `poll` does, and leaves the events in `one`.
#[cfg(all(feature = "monkey", target_os = "linux"))]
#[inline]
pub(crate) fn ask_one(one: &mut libc::pollfd) -> libc::c_long {
    let count: libc::c_long = 1;
    // SAFETY: `poll` gets one `pollfd`, and a time-out of 0.
    #[cfg(target_arch = "x86_64")]
    let result = unsafe { libc::syscall(libc::SYS_poll, ptr::from_mut(one), count, 0 as libc::c_long) };
    // Newer processors have no `poll`.
    // SAFETY: `ppoll` gets one `pollfd`, a time-out of 0, and no signal mask.
    #[cfg(not(target_arch = "x86_64"))]
    let result = unsafe {
        let timeout: libc::timespec = std::mem::zeroed();
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
