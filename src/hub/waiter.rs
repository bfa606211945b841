//! Waiters, each of which is the right to wake one park or one future. And the reasons for which a park ends.
#![forbid(unsafe_code)]

use std::task::Waker;

use super::task::block::{Task, TaskRef};

/// Why a park ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wake {
    /// The waiter was woken.
    Ready,
    /// The park did not take place: a wake or another park has moved the ticket before, or another task runs on this
    /// stack by now. Only [`Parker::park_here`](super::park::Parker::park_here) gives this; `park` gives `Ready` in its
    /// place.
    Early,
    /// The deadline passed first.
    TimedOut,
    /// A kill or an expired [`Timeout`](crate::time::Timeout) is due, or the stack unwinds and the wait can fail. The
    /// caller gives back what it holds, and then calls [`raise`](super::interrupt::raise).
    Interrupted,
}

/// What may end a park besides a wake and the deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// A kill or an expired `Timeout` ends the park too. A task whose stack unwinds does not park, with two exceptions.
    /// A task that is alone in its context parks as with `Must`. And if another parked task shows its `panicking()` to
    /// this one (`panicking_exposed`), this one is not taken to unwind.
    Cancel,
    /// Nothing else ends the park: for a wait that cannot fail. (A `LoopExit` still unwinds the native stack out of
    /// it.)
    Must,
}

/// What a task waits for, in words for [`dump`](crate::debug::dump).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Why {
    pub(crate) what: &'static &'static str,
    pub(crate) with: usize,
}

impl Why {
    pub(crate) const NOTHING: Why = Why {
        what: &"nothing",
        with: 0,
    };

    pub(crate) const fn new(what: &'static &'static str, with: usize) -> Why {
        Why { what, with }
    }
}

/// The right to wake one park or one future, once, from any OS thread.
pub(crate) enum Waiter {
    /// A green thread or a native stack: (task, ticket).
    Task(TaskRef, u64),
    /// A future's waker.
    Waker(Waker),
}

impl Waiter {
    /// A second waiter for the same park; `None` for a waker.
    #[cfg(feature = "monkey")]
    pub(crate) fn copy(&self) -> Option<Waiter> {
        match self {
            Waiter::Task(task, ticket) => Some(Waiter::Task(*task, *ticket)),
            Waiter::Waker(_) => None,
        }
    }

    /// Whether the waiter is that of `task`.
    pub(super) fn is_of(&self, task: &Task) -> bool {
        matches!(self, Waiter::Task(mine, _) if mine.is(task))
    }
}

impl std::fmt::Debug for Waiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Waiter::Task(task, ticket) => write!(f, "Task({:#x}, {ticket})", task.address()),
            Waiter::Waker(_) => write!(f, "Waker"),
        }
    }
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.what)?;
        if self.with != 0 {
            write!(f, " {}", self.with)
        } else {
            Ok(())
        }
    }
}
