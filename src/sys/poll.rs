//! polling's way to register a descriptor.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Registers a descriptor.
pub(crate) fn add(
    poller: &polling::Poller,
    fd: BorrowedFd<'_>,
    event: polling::Event,
    mode: polling::PollMode,
) -> io::Result<()> {
    // SAFETY: polling wants it deleted before it is closed, because another descriptor might get its events. Ours are
    // (`hub::reactor`); of one that is not ours and is closed behind our back, the kernel takes it out itself, and an event
    // for its old key is dropped, as every key carries a generation.
    unsafe { poller.add_with_mode(fd.as_raw_fd(), event, mode) }
}
