//! A signal that is caught on this OS thread interrupts a patched call. One green thread stands for the OS thread, the
//! main of [`run`](crate::thread::run), and only its calls are interrupted.
//!
//! ```text
//!  handler (any moment)                       turn
//!  seen |= what it was                        pending? takes the messages, and looks at `seen`
//!  pending := true, rings if it sleeps        ends the park that `waits` names, and says so in `cut`
//! ```
//!
//! The handler's half touches only atomics and the bell. A signal that comes while main is not in a call that may be
//! interrupted is forgotten, as it is with libc.
#![forbid(unsafe_code)]

use std::sync::atomic::Ordering;

use super::patched::{Handlers, Hears};
use super::scheduler::Hub;
use super::task::block::{Task, TaskRef};
use super::waiter::Wake;
use crate::sys::plain::plainly;

/// In `seen`: a handler was called.
const ANY: u8 = 1;
/// In `seen`: one of the handlers was installed without `SA_RESTART`.
const INTERRUPTS: u8 = 2;

impl Hub {
    /// A signal handler has run on this OS thread. Called from signal handlers: takes no lock and allocates nothing.
    pub(crate) fn caught(&self, interrupts: bool) {
        let what = if interrupts { ANY | INTERRUPTS } else { ANY };
        // `seen` before the nudge: the turn that it causes must find the signal.
        self.patched.signals.seen.fetch_or(what, Ordering::SeqCst);
        // Without a bell no park has asked for signals, so the hub need not wake for this one.
        let bell = self.patched.signals.bell.get();
        if self.me.shared.inbox().nudge(bell.is_some())
            && let Some(bell) = bell
        {
            // It fails only if the eventfd is closed, and then the hub has ended.
            let _ = plainly(|| bell.notify());
        }
    }

    /// Makes green thread `id` stand for this OS thread, and returns the one that did before.
    pub(crate) fn set_main(&self, id: u64) -> u64 {
        self.patched.signals.main.replace(id)
    }

    /// A patched call begins. If signals may interrupt it, it forgets those caught so far: they came before the call.
    #[inline]
    pub(crate) fn forget_signals(&self) {
        if self.patched.signals.seen.load(Ordering::Relaxed) != 0 && self.stands_for_all(self.running()) {
            self.patched.signals.seen.store(0, Ordering::SeqCst);
        }
    }

    /// Whether this task is main, or the native stack.
    fn stands_for_all(&self, task: &Task) -> bool {
        task.id() == self.patched.signals.main.get() || std::ptr::eq(task, self.queue.native)
    }

    /// Has signals end the park that is about to begin, if main begins it (or the native stack, where its patched calls
    /// park). The result is for [`was_cut`](Self::was_cut).
    pub(crate) fn hear_signals(&self, park: (&'static Task, u64), which: Handlers) -> Hears {
        if !self.stands_for_all(park.0) {
            return Hears(false);
        }
        if self.patched.signals.bell.get().is_none() {
            // No descriptor is left for a poller, so a signal could not wake the hub: go without.
            let Ok(poller) = self.reactor.ensure_poller(self) else {
                return Hears(false);
            };
            let _ = self.patched.signals.bell.set(poller);
        }
        let (task, ticket) = (TaskRef::new(park.0), park.1);
        // The ticket makes an entry that is left behind harmless: it ends no later park.
        self.patched.signals.cut.set(false);
        self.patched.signals.waits.set(Some((task, ticket, which)));
        Hears(true)
    }

    /// Whether a signal has ended the park that [`hear_signals`](Self::hear_signals) was called for.
    pub(crate) fn was_cut(&self, hears: Hears) -> bool {
        hears.0 && self.patched.signals.cut.take()
    }

    /// The turn's half: called after the messages were taken.
    #[inline]
    pub(super) fn look_at_signals(&self) {
        if self.patched.signals.seen.load(Ordering::Relaxed) != 0 {
            self.interrupt_main();
        }
    }

    #[cold]
    fn interrupt_main(&self) {
        let seen = self.patched.signals.seen.swap(0, Ordering::SeqCst);
        // No call waits that may be interrupted: the signal is forgotten.
        let Some((task, ticket, which)) = self.patched.signals.waits.get() else {
            return;
        };
        if which == Handlers::All || seen & INTERRUPTS != 0 {
            self.patched.signals.waits.set(None);
            if let Some(task) = self.resolve_local(task)
                && self.wake_local(task, ticket, Wake::Ready)
            {
                // This wake took the ticket, so the park ended by the signal and by nothing else.
                self.patched.signals.cut.set(true);
            }
        }
    }
}
