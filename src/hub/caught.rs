//! Signals that were caught on this OS thread: the one green thread that stands for it, the main of
//! [`run`](crate::thread::run), has its patched call interrupted.
//!
//! ```text
//!  handler (any moment)                       turn
//!  seen |= what it was                        pending? takes the messages, and looks at `seen`
//!  pending := true, rings if it sleeps        ends the park that `waits` names, and says so in `cut`
//! ```
//!
//! The handler's half touches atomics and the bell alone. A signal that comes when main does not wait in a call that
//! may be interrupted is forgotten, as libc does.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};

use super::Hub;
use super::park::{Parker, Wake};
use super::task::{Task, TaskRef};
use crate::sys::plain::plainly;

/// A handler was called.
const ANY: u8 = 1;
/// One that was installed without `SA_RESTART`.
const INTERRUPTS: u8 = 2;

/// Which handlers interrupt a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handlers {
    /// Those without `SA_RESTART`.
    NotRestarting,
    /// All.
    All,
}

/// Whether signals end a park.
#[derive(Clone, Copy)]
#[must_use]
pub(crate) struct Hears(bool);

#[derive(Default)]
pub(super) struct Caught {
    seen: AtomicU8,
    /// The number of the green thread that stands for the OS thread; 0: there is none.
    main: Cell<u64>,
    /// The park that a signal ends.
    waits: Cell<Option<(TaskRef, u64, Handlers)>>,
    /// That park was ended so.
    cut: Cell<bool>,
    /// What wakes the hub in its poller; the handler cannot take the lock of [`Shared`](super::remote::Shared)'s.
    bell: OnceLock<Arc<polling::Poller>>,
}

impl Hub {
    /// A signal handler has run on this OS thread. For a signal handler: it takes no lock and allocates nothing.
    pub(crate) fn caught(&self, interrupts: bool) {
        let what = if interrupts { ANY | INTERRUPTS } else { ANY };
        self.signals.seen.fetch_or(what, Ordering::SeqCst);
        let bell = self.signals.bell.get();
        if self.shared.inbox().nudge(bell.is_some())
            && let Some(bell) = bell
        {
            // As in `Shared::send`.
            let _ = plainly(|| bell.notify());
        }
    }

    /// Makes `id` the green thread that stands for this OS thread; the one before.
    pub(crate) fn set_main(&self, id: u64) -> u64 {
        self.signals.main.replace(id)
    }

    /// A patched call begins: a handler that has run by now does not concern it, if it is one that signals may interrupt.
    #[inline]
    pub(crate) fn forget_signals(&self) {
        if self.signals.seen.load(Ordering::Relaxed) != 0 && self.stands_for_all(self.running()) {
            self.signals.seen.store(0, Ordering::SeqCst);
        }
    }

    /// Whether this is main, or the native stack.
    fn stands_for_all(&self, task: &Task) -> bool {
        task.id() == self.signals.main.get() || std::ptr::eq(task, self.native)
    }

    /// Has signals end the park that is about to begin, if main begins it; or the native stack, where its calls park.
    /// Whether they do is for [`was_cut`](Self::was_cut).
    pub(crate) fn hear_signals(&self, parker: &Parker, which: Handlers) -> Hears {
        if !self.stands_for_all(parker.task) {
            return Hears(false);
        }
        if self.signals.bell.get().is_none() {
            // Without a descriptor for it no signal is heard.
            let Ok(poller) = self.reactor.ensure_poller(self) else {
                return Hears(false);
            };
            let _ = self.signals.bell.set(poller);
        }
        let (task, ticket) = parker.named();
        self.signals.cut.set(false);
        self.signals.waits.set(Some((task, ticket, which)));
        Hears(true)
    }

    /// Whether a signal has ended the park that [`hear_signals`](Self::hear_signals) was called for.
    pub(crate) fn was_cut(&self, hears: Hears) -> bool {
        hears.0 && self.signals.cut.take()
    }

    /// The turn's half.
    #[inline]
    pub(super) fn look_at_signals(&self) {
        if self.signals.seen.load(Ordering::Relaxed) != 0 {
            self.interrupt_main();
        }
    }

    #[cold]
    fn interrupt_main(&self) {
        let seen = self.signals.seen.swap(0, Ordering::SeqCst);
        let Some((task, ticket, which)) = self.signals.waits.get() else {
            return;
        };
        if which == Handlers::All || seen & INTERRUPTS != 0 {
            self.signals.waits.set(None);
            if let Some(task) = self.own(task)
                && self.wake_local(task, ticket, Wake::Ready)
            {
                self.signals.cut.set(true);
            }
        }
    }
}
