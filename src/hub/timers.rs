//! The timers of a hub, and what each does when it is due.
#![forbid(unsafe_code)]

use std::cell::RefCell;

use super::callbacks::Callback;
use super::task::block::TaskRef;
use super::timer::{self, Key};

/// What a timer does when it is due.
pub(crate) enum Due {
    /// Ends the park (task, ticket).
    Park(TaskRef, u64),
    /// Expires guard `id` of the task.
    Guard(TaskRef, u64),
    /// Runs a callback.
    Call(Box<Callback>),
}

/// The timers, in a cell. No code of the user runs while the cell is borrowed: a caller that takes out a `Due` drops it
/// after the borrow.
pub(super) struct Timers(RefCell<timer::Wheel<Due>>);

impl Timers {
    pub(super) fn new(now: u64) -> Timers {
        Timers(RefCell::new(timer::Wheel::new(now)))
    }

    #[cfg(feature = "monkey")]
    pub(super) fn is_borrowed(&self) -> bool {
        self.0.try_borrow_mut().is_err()
    }

    #[inline]
    pub(super) fn insert(&self, deadline: u64, due: Due) -> Key {
        self.0.borrow_mut().insert(deadline, due)
    }

    #[inline]
    pub(super) fn remove(&self, key: Key) -> Option<Due> {
        self.0.borrow_mut().remove(key)
    }

    /// Gives `fire` the timers that are due. The cell stays borrowed meanwhile.
    pub(super) fn expire(&self, now: u64, fire: &mut impl FnMut(u64, Due)) {
        self.0.borrow_mut().expire(now, fire);
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    /// Takes out all timers that are left.
    pub(super) fn take_all(&self) -> Vec<Due> {
        let mut left = Vec::new();
        self.expire(u64::MAX, &mut |_, due| left.push(due));
        left
    }

    /// When to look again: exactly at the next deadline, or at a moment when several timers may be served at once.
    pub(super) fn next(&self, exactly: bool) -> Option<u64> {
        let wheel = self.0.borrow();
        if exactly {
            wheel.next_deadline()
        } else {
            wheel.next_wake()
        }
    }
}
