//! What a hub gives back when it has nothing else to do: the memory of green threads that are no more.
//!
//! What was not needed for a whole *period* is surplus: stacks, sets of thread-locals, control blocks. It goes a little at a
//! time, and what comes meanwhile is looked at in between. A hub that sleeps wakes once more for that, as long as there is
//! something that the next period may find unused.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::time::{Duration, Instant};

use super::{Hub, task};

/// How long something must not have been needed.
const PERIOD: Duration = Duration::from_secs(1);

/// Stacks, or sets of thread-locals, that are given back between two looks at what has come.
const TIDY: usize = 256;

/// Sets of thread-locals that were freed, from which on it is worthwhile to look for what else there is.
const MANY: usize = 1024;

#[derive(Default)]
pub(super) struct Leisure {
    /// When the period ends.
    end: Cell<Option<Instant>>,
    /// How many sets of thread-locals were freed since the heap was trimmed.
    freed: Cell<usize>,
}

impl Hub {
    /// Gives some back; whether there is more.
    pub(super) fn tidy(&self) -> bool {
        let now = Instant::now();
        if self.leisure.end.get().is_none_or(|end| end <= now) {
            self.leisure.end.set(Some(now + PERIOD));
            crate::stack::end_period();
            self.contexts.end_period();
        }
        let more = crate::stack::tidy(TIDY);
        let freed = self.contexts.tidy(TIDY);
        self.leisure.freed.set(self.leisure.freed.get() + freed);
        if more || freed > 0 {
            return true;
        }
        if self.leisure.freed.get() >= MANY {
            self.leisure.freed.set(0);
            task::retire(self);
            crate::sys::mem::trim_heap();
        }
        false
    }

    /// How long it may sleep until there may be something to give back again.
    pub(super) fn until_tidy(&self) -> Option<Duration> {
        if self.clock.is_virtual() || !(crate::stack::has_free() || self.contexts.has_free()) {
            return None;
        }
        let end = self.leisure.end.get()?;
        Some(end.saturating_duration_since(Instant::now()))
    }
}

/// What [`stack::trim`](crate::stack::trim) gives back beside stacks.
pub(super) fn trim() {
    let Some(hub) = Hub::try_current() else { return };
    hub.contexts.trim();
    task::retire(hub);
    crate::sys::mem::trim_heap();
}
