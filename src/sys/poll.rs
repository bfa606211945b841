//! Descriptors and the crate polling.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

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
