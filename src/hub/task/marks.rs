//! Notes about a task: the kind of its id, its state, and its marks (a bit each).
#![forbid(unsafe_code)]

use std::cell::Cell;

/// This bit is set in the id of every native stack.
pub(super) const NATIVE: u64 = 1 << 63;

/// Whether an id is that of a native stack.
pub(crate) fn is_native(id: u64) -> bool {
    id & NATIVE != 0
}

/// The id of a native stack without that bit: its number among the native stacks.
pub(crate) fn without_native(id: u64) -> u64 {
    id & !NATIVE
}

/// What a task is doing, as its owner knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// In no queue: the block is free, the task has ended, or the task is a runner at rest.
    Idle,
    /// Spawned, not yet run.
    New,
    /// In a queue: ready, due or later.
    Ready,
    /// The task's code runs.
    Running,
    /// Waiting for a wake with its ticket, for its deadline, for a kill or for the expiry of a `Timeout`.
    Parked,
    /// Waiting for a wake with its ticket or for its deadline, and nothing else.
    ParkedUninterruptible,
}

impl State {
    pub(crate) fn is_parked(self) -> bool {
        matches!(self, State::Parked | State::ParkedUninterruptible)
    }
}

/// The marks of a task, in one byte.
#[derive(Default)]
pub(crate) struct Marks(Cell<u8>);

impl Marks {
    /// An `unpark` has come that no `park` has taken yet. An `unpark` of a task in `park` sets this too.
    pub(crate) const TOKEN: u8 = 1;
    /// The task is to capture a backtrace of its own stack and then park again.
    pub(crate) const PROBE: u8 = 2;
    /// The task is a future, which a runner polls.
    pub(crate) const STACKLESS: u8 = 4;
    /// The task is a runner that has nothing to poll.
    pub(crate) const RESTS: u8 = 8;
    /// The block came from the common list, because another OS thread spawned the task, and goes back there.
    pub(in crate::hub) const COMMON: u8 = 16;

    pub(crate) fn get(&self, mark: u8) -> bool {
        self.0.get() & mark != 0
    }

    pub(crate) fn set(&self, mark: u8, on: bool) {
        self.0.set(if on { self.0.get() | mark } else { self.0.get() & !mark });
    }

    pub(in crate::hub) fn clear(&self) {
        self.0.set(0);
    }
}
