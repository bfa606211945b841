//! What a hub counts, and the numbers that it gives out.
#![forbid(unsafe_code)]

use std::cell::Cell;

use super::shared;

#[derive(Default)]
pub(crate) struct Counters {
    /// The green threads that have not ended.
    pub(super) live: Cell<usize>,
    /// How many green threads and calls other OS threads have sent here so far.
    pub(super) arrivals: Cell<u64>,
    /// 1 while a task is suspended although its stack unwinds, so that others of its context see `panicking()`; and how
    /// often that has happened.
    pub(super) panicking_exposed: Cell<usize>,
    pub(super) panicking_exposed_total: Cell<usize>,
    /// How many scopes run on the native stack. Leaving one early would free what its children borrow.
    pub(crate) scopes: Cell<usize>,
    /// How many children of scopes run here.
    pub(crate) scoped: Cell<usize>,
    /// The next number for a green thread, and the end of the block of numbers that this hub has taken.
    ids: Cell<(u64, u64)>,
    guards: Cell<u64>,
}

impl Counters {
    /// A number for a new green thread.
    #[inline]
    pub(super) fn next_id(&self) -> u64 {
        let (next, end) = self.ids.get();
        if next < end {
            self.ids.set((next + 1, end));
            return next;
        }
        self.more_ids()
    }

    #[cold]
    fn more_ids(&self) -> u64 {
        const BLOCK: u64 = 1024;
        let first = shared::take_ids(BLOCK);
        self.ids.set((first + 1, first + BLOCK));
        first
    }

    /// A number for a time-out or a callback, which is never used again on this OS thread.
    pub(crate) fn guard_id(&self) -> u64 {
        self.guards.set(self.guards.get() + 1);
        self.guards.get()
    }

    /// Notes that a task suspends although its stack unwinds.
    pub(super) fn expose_panicking(&self) {
        self.panicking_exposed.set(1);
        self.panicking_exposed_total.set(self.panicking_exposed_total.get() + 1);
    }
}
