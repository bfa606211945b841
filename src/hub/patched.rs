//! What a hub keeps for patched calls. `signals.rs` uses it.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::sync::atomic::AtomicU8;
use std::sync::{Arc, OnceLock};

use super::task::block::TaskRef;

#[derive(Default)]
pub(crate) struct Patched {
    pub(super) signals: Caught,
    pub(crate) accepts: crate::sys::uring::Accepts,
}

/// The signal handlers that interrupt a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handlers {
    /// Those without `SA_RESTART`.
    NotRestarting,
    /// All.
    All,
}

/// Whether signals end a park; the result of `Hub::hear_signals`.
#[derive(Clone, Copy)]
#[must_use]
pub(crate) struct Hears(pub(super) bool);

#[derive(Default)]
pub(super) struct Caught {
    pub(super) seen: AtomicU8,
    /// The number of the green thread that stands for the OS thread; 0: there is none.
    pub(super) main: Cell<u64>,
    /// The park that a signal ends: task, ticket, and which handlers do.
    pub(super) waits: Cell<Option<(TaskRef, u64, Handlers)>>,
    /// A signal has ended that park.
    pub(super) cut: Cell<bool>,
    /// The poller that a signal handler notifies. It is kept here, because the handler cannot take the lock around the
    /// one in [`Shared`](super::shared::Shared).
    pub(super) bell: OnceLock<Arc<polling::Poller>>,
}
