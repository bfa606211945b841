//! Tells the observers of a hub what it does. Without an observer the cost is one predictable branch.
#![forbid(unsafe_code)]

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::observers::Event;
use super::report::{Reporter, discard, report_panic};
use super::scheduler::Hub;

impl Hub {
    /// Tells the observers, if there are any.
    #[inline]
    pub(super) fn emit(&self, event: impl FnOnce() -> Event) {
        if self.observers.any.get() {
            self.tell(event());
        }
    }

    #[cold]
    pub(super) fn tell(&self, event: Event) {
        // Timers or sources are borrowed now, and an observer may use the hub: the turn tells it afterwards.
        if self.queue.looking.get() {
            return self.observers.deferred.borrow_mut().push(event);
        }
        for hook in self.observers.all() {
            // The observer runs on the stack on which the event happens, and must not park there.
            let told = catch_unwind(AssertUnwindSafe(|| self.as_callback(|| hook(event))));
            // This is the last reference if the observer has replaced itself; its drop runs the user's code.
            self.as_callback(|| discard(hook));
            if let Err(payload) = told {
                report_panic(&Reporter::callback(), payload);
            }
        }
    }
}
