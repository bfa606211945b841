//! Code of the user that runs where it may not park: callbacks and observers.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use super::task::Task;
use super::{Callback, Hub, Reporter, budget, call_user, report_panic};
use crate::fiber::current;

/// A bit that tells the number of a callback from that of a green thread.
const CALLBACK: u64 = 1 << 62;

/// A callback that has not returned.
pub(super) struct Frame {
    number: u64,
    /// The number under which it owns locks; 0 until it is needed.
    who: Cell<u64>,
    root: &'static Task,
    /// The fiber above the root on which it runs; null if it runs on the root itself.
    top: *const current::Link,
}

impl Hub {
    /// Runs `f` as a callback: code that it calls may not park.
    pub(crate) fn as_callback<R>(&self, f: impl FnOnce() -> R) -> R {
        let number = self.guard_id();
        self.frames.borrow_mut().push(Frame {
            number,
            who: Cell::new(0),
            root: self.running(),
            top: current::TOP.get(),
        });
        self.in_callback.set(self.in_callback.get() + 1);
        // Caught, so that the frame is removed if `f` panics.
        let result = catch_unwind(AssertUnwindSafe(f));
        // Usually the last frame. Not if a callback was suspended by a switch to another fiber and came back later.
        self.frames.borrow_mut().retain(|frame| frame.number != number);
        self.in_callback.set(self.in_callback.get() - 1);
        result.unwrap_or_else(|payload| resume_unwind(payload))
    }

    /// Whether the running code is called by a callback. A callback that has switched to another greenlet lies on a
    /// stack that does not run, and does not count.
    #[inline(always)]
    pub(crate) fn is_in_callback(&self) -> bool {
        self.in_callback.get() > 0 && self.is_above_callback()
    }

    /// Whether the running code is the hub's own: a turn is under way on the native stack. Code of the user that the
    /// turn calls is a callback (I11).
    #[inline(always)]
    pub(super) fn is_on_own_stack(&self) -> bool {
        self.current.get().is_none() && self.pumping.get()
    }

    /// Whether the running code may not park.
    #[inline(always)]
    pub(super) fn may_not_park(&self) -> bool {
        self.is_on_own_stack() || self.is_in_callback()
    }

    #[cold]
    fn is_above_callback(&self) -> bool {
        self.frames.borrow().iter().any(|frame| self.runs(frame))
    }

    fn runs(&self, frame: &Frame) -> bool {
        let is_root = frame.top.is_null();
        // All code of a root lies above the root itself. Code above a fiber has that fiber on its chain; code on
        // another fiber of the same root does not.
        if is_root {
            std::ptr::eq(frame.root, self.running())
        } else {
            current::is_on_chain(frame.top)
        }
    }

    /// The number of the running code as an owner of locks: that of the green thread or native stack, or of a callback
    /// on it. Each callback has its own number, so a lock that it fails to release never seems to belong to a later
    /// one.
    #[inline]
    pub(crate) fn who(&self) -> u64 {
        if self.in_callback.get() > 0
            && let Some(who) = self.which_callback()
        {
            return who;
        }
        self.running().id()
    }

    #[cold]
    fn which_callback(&self) -> Option<u64> {
        let frames = self.frames.borrow();
        // The innermost one, if callbacks are nested.
        let frame = frames.iter().rev().find(|frame| self.runs(frame))?;
        if frame.who.get() == 0 {
            frame.who.set(self.next_id() | CALLBACK);
        }
        Some(frame.who.get())
    }

    /// Has `f` called where the turn runs callbacks.
    pub(crate) fn call(&self, f: Callback) {
        self.callbacks.borrow_mut().push_back(f);
    }

    /// Runs the callbacks; the only place for code of the user on the hub's own stack. Callbacks that are added
    /// meanwhile wait for the next turn. So do the remaining ones once those of this turn have taken half a slice:
    /// green threads get the other half.
    pub(super) fn run_callbacks(&'static self) {
        let count = self.callbacks.borrow().len();
        let mut share = budget::Share::default();
        for n in 0..count {
            if share.is_over(self, n) {
                return;
            }
            // The borrow ends before the call, which may add callbacks.
            let Some(f) = self.callbacks.borrow_mut().pop_front() else {
                return;
            };
            if let Err(payload) = call_user(f) {
                report_panic(&Reporter::callback(), payload);
            }
        }
    }
}
