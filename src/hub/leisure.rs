//! Memory of ended green threads that a hub gives back when it has nothing else to do.
//!
//! Stacks, sets of thread-locals and control blocks that were not needed for a whole *period* are surplus. The hub
//! frees a few at a time, and looks for events and messages in between. While there is
//! memory that may become surplus, a sleeping hub wakes at the end of the period to free it.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use super::scheduler::Hub;
use super::task::blocks;

/// How long a piece of memory must be unused before it is surplus.
const PERIOD: Duration = Duration::from_secs(1);

/// How many stacks, and how many sets of thread-locals, are freed between two looks for events and messages.
const TIDY: usize = 256;

/// After so many freed sets of thread-locals it is worthwhile to retire control blocks and trim the heap.
const MANY: usize = 1024;

impl Hub {
    /// Frees some surplus; `true` if there may be more.
    pub(super) fn tidy(&self) -> bool {
        // A new period begins: what was unused throughout the last one is surplus from now on.
        let now = Instant::now();
        if self.sleep.period_end.get().is_none_or(|end| end <= now) {
            self.sleep.period_end.set(Some(now + PERIOD));
            crate::stack::end_period();
            self.contexts.pool.end_period();
        }
        // A limited number, so that what comes meanwhile does not wait for long.
        let more = crate::stack::tidy(TIDY);
        let freed = self.contexts.pool.tidy(TIDY);
        self.sleep.freed.set(self.sleep.freed.get() + freed);
        if more || freed > 0 {
            return true;
        }
        // Both look at all there is, so only after a peak, and once it has been freed.
        if self.sleep.freed.get() >= MANY {
            self.sleep.freed.set(0);
            blocks::retire(&self.blocks);
            crate::sys::mem::trim_heap();
        }
        false
    }

    /// How long the hub may sleep until there may be surplus again; `None` if there is nothing to free.
    pub(super) fn until_tidy(&self) -> Option<Duration> {
        if self.clock.is_virtual() || !(crate::stack::has_free() || self.contexts.pool.has_free()) {
            return None;
        }
        let end = self.sleep.period_end.get()?;
        Some(end.saturating_duration_since(Instant::now()))
    }
}

/// Frees what [`stack::trim`](crate::stack::trim) is to free besides stacks.
pub(super) fn trim() {
    let Some(hub) = Hub::try_current() else { return };
    hub.contexts.pool.trim();
    blocks::retire(&hub.blocks);
    crate::sys::mem::trim_heap();
}
