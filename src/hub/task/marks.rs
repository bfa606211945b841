//! What the owner notes about a task, a bit each.
#![forbid(unsafe_code)]

use std::cell::Cell;

/// Marks of a task, in one byte.
#[derive(Default)]
pub(crate) struct Marks(Cell<u8>);

impl Marks {
    /// An `unpark` came before its `park`.
    pub(crate) const TOKEN: u8 = 1;
    /// It is to look at its own stack and to park again.
    pub(crate) const PROBE: u8 = 2;
    /// It is a future, which a runner polls.
    pub(crate) const STACKLESS: u8 = 4;
    /// A runner that has nothing to poll.
    pub(crate) const RESTS: u8 = 8;

    pub(crate) fn get(&self, mark: u8) -> bool {
        self.0.get() & mark != 0
    }

    pub(crate) fn set(&self, mark: u8, on: bool) {
        self.0.set(if on { self.0.get() | mark } else { self.0.get() & !mark });
    }

    pub(super) fn clear(&self) {
        self.0.set(0);
    }
}
