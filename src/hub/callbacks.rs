//! Callbacks: code of the user that may not park. The turn calls most of them on the hub's own stack.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use super::shared::Message;
use super::task::block::Task;
use crate::fiber::current;

/// A bit that tells the number of a callback from that of a green thread.
const CALLBACK: u64 = 1 << 62;

pub(crate) type Callback = Box<dyn FnOnce()>;

#[derive(Default)]
pub(super) struct Callbacks {
    /// What the next turn is to call.
    pub(super) queue: RefCell<VecDeque<Callback>>,
    /// The messages that the turn has taken from the inbox and not handled yet.
    pub(super) messages: RefCell<VecDeque<Message>>,
    /// How many callbacks have not returned. [`is_above`](Self::is_above) says whether the running code is in one.
    pub(super) depth: Cell<usize>,
    frames: RefCell<Vec<Frame>>,
}

/// A callback that has not returned.
struct Frame {
    number: u64,
    /// The number under which the callback owns locks; 0 until that number is needed.
    owner: Cell<u64>,
    root: &'static Task,
    /// The fiber above the root on which the callback runs; null if it runs on the root itself.
    top: *const current::Link,
}

impl Callbacks {
    /// Runs `f` on the stack of `root` as a callback: code that it calls may not park. `number` is used for no other
    /// callback.
    pub(super) fn run<R>(&self, number: u64, root: &'static Task, f: impl FnOnce() -> R) -> R {
        self.frames.borrow_mut().push(Frame {
            number,
            owner: Cell::new(0),
            root,
            top: current::top(),
        });
        self.depth.set(self.depth.get() + 1);
        // Caught, so that the frame is removed if `f` panics.
        let result = catch_unwind(AssertUnwindSafe(f));
        // Usually the last frame. Not if a callback was suspended by a switch to another fiber and came back later.
        self.frames.borrow_mut().retain(|frame| frame.number != number);
        self.depth.set(self.depth.get() - 1);
        result.unwrap_or_else(|payload| resume_unwind(payload))
    }

    /// Whether the code that runs, on the stack of `running`, is called by a callback. A callback that has switched to
    /// another greenlet lies on a stack that does not run, and does not count.
    #[cold]
    pub(super) fn is_above(&self, running: &Task) -> bool {
        self.frames.borrow().iter().any(|frame| frame.runs(running))
    }

    /// The number under which the running callback owns locks; `None` if no callback runs. A callback that has no such
    /// number yet gets it from `next`.
    #[cold]
    pub(super) fn owner(&self, running: &Task, next: impl FnOnce() -> u64) -> Option<u64> {
        let frames = self.frames.borrow();
        // The innermost one, if callbacks are nested.
        let frame = frames.iter().rev().find(|frame| frame.runs(running))?;
        if frame.owner.get() == 0 {
            frame.owner.set(next() | CALLBACK);
        }
        Some(frame.owner.get())
    }

    pub(super) fn push(&self, f: Callback) {
        self.queue.borrow_mut().push_back(f);
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.queue.borrow().is_empty()
    }

    /// Whether one of the cells is borrowed (HUB-14).
    #[cfg(feature = "monkey")]
    pub(super) fn is_borrowed(&self) -> bool {
        let lists = self.queue.try_borrow_mut().is_err() || self.messages.try_borrow_mut().is_err();
        lists || self.frames.try_borrow_mut().is_err()
    }
}

impl Frame {
    fn runs(&self, running: &Task) -> bool {
        // All code of a root lies above the root itself. Code above a fiber has that fiber on its chain; code on
        // another fiber of the same root does not.
        if self.top.is_null() {
            std::ptr::eq(self.root, running)
        } else {
            current::is_on_chain(self.top)
        }
    }
}
