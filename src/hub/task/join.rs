//! The right to a green thread's result, from any OS thread; the bits of `join` are told in [`task`](super).

use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::panic::Location;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::blocks::recycle;
use super::{DETACHED, DONE, JOINER, LINKED, LOST, RELEASED, SCOPED, Task, TaskRef, settle_rest, take_exit};
use crate::hub::links::{self, ExitLink, Runs};
use crate::hub::park::Waiter;
use crate::hub::slot::{Ended, Exit};

/// The one right to a green thread's result.
pub(crate) struct Join<T> {
    pub(super) task: &'static Task,
    pub(super) _value: PhantomData<T>,
}

// SAFETY: T3: it hands a `T` from the owner's thread to this one; what else it touches is atomic or T2.
unsafe impl<T: Send> Send for Join<T> {}
// SAFETY: through `&Join` only atomics and T2's fields are read.
unsafe impl<T: Send> Sync for Join<T> {}

impl<T> Join<T> {
    pub(crate) fn task(&self) -> TaskRef {
        TaskRef(self.task)
    }

    pub(crate) fn id(&self) -> u64 {
        self.task.id()
    }

    pub(crate) fn name(&self) -> Option<Arc<Box<str>>> {
        self.task.name()
    }

    pub(crate) fn place(&self) -> &'static Location<'static> {
        self.task.place()
    }

    #[inline]
    pub(crate) fn is_finished(&self) -> bool {
        self.task.is_finished()
    }

    /// Says that it is the child of a scope.
    pub(crate) fn mark_scoped(&self) {
        self.task.join.fetch_or(SCOPED, Ordering::Relaxed);
    }

    /// Leaves an exit link. If it has ended already the link comes back, with how.
    pub(crate) fn link(&self, runs: Runs, link: ExitLink) -> Result<(), (ExitLink, Ended)> {
        if !self.is_finished() {
            let number = links::leave(self.task(), self.id(), self.place(), runs, link);
            if self.task.join.fetch_or(LINKED, Ordering::AcqRel) & DONE == 0 {
                return Ok(());
            }
            // The end came between: it has run the link only if it saw that of another `on_exit`.
            let Some(left) = links::take_back(self.task(), number) else {
                return Ok(());
            };
            return Err((left, self.task.ended.get()));
        }
        // Written before `DONE`, which was acquired, and left alone while there is a join.
        Err((link, self.task.ended.get()))
    }

    /// Leaves a waiter to be woken at the end; `false` if it has ended already.
    #[inline]
    pub(crate) fn register(&mut self, waiter: Waiter) -> bool {
        self.unregister();
        if self.is_finished() {
            return false;
        }
        // SAFETY: T4: `JOINER` is clear, so the cell is ours.
        unsafe { *self.task.joiner.get() = Some(waiter) };
        if self.task.join.fetch_or(JOINER, Ordering::AcqRel) & DONE == 0 {
            return true;
        }
        // The end came first and saw no `JOINER`: the waiter is still ours, and so must the bit look (T4).
        // SAFETY: as above.
        unsafe { *self.task.joiner.get() = None };
        self.task.join.fetch_and(!JOINER, Ordering::AcqRel);
        false
    }

    /// Takes the waiter back, unless the end has it.
    #[inline]
    pub(crate) fn unregister(&mut self) {
        if self.task.join.load(Ordering::Acquire) & (JOINER | DONE) == JOINER {
            self.take_back();
        }
    }

    #[cold]
    #[inline(never)]
    fn take_back(&mut self) {
        let mut bits = self.task.join.load(Ordering::Acquire);
        while bits & JOINER != 0 && bits & DONE == 0 {
            match self
                .task
                .join
                .compare_exchange_weak(bits, bits & !JOINER, Ordering::AcqRel, Ordering::Acquire)
            {
                // SAFETY: T4: cleared before `DONE`, so it is ours again.
                Ok(_) => return unsafe { *self.task.joiner.get() = None },
                Err(now) => bits = now,
            }
        }
    }

    /// The result, if it has ended and was not taken before.
    #[inline]
    pub(crate) fn try_take(&mut self) -> Option<Exit<T>> {
        if !self.is_finished() {
            return None;
        }
        // SAFETY: T3: `DONE` was acquired, and `T` is what `spawn` was asked for.
        unsafe { take_exit::<T>(self.task) }
    }
}

impl<T> Join<T> {
    /// As a drop, of one that has given the value.
    #[inline(always)]
    pub(crate) fn end_taken(self) {
        let join = ManuallyDrop::new(self);
        let before = join.task.join.fetch_or(DETACHED, Ordering::AcqRel);
        join.end(before);
    }

    /// The last step, when `DETACHED` is set: the green thread has ended, and its slot is empty.
    #[inline(always)]
    fn end(&self, before: u8) {
        if before & (JOINER | RELEASED) == JOINER {
            return; // The owner is about to release, and recycles.
        }
        if before & LOST == 0 {
            recycle(self.task);
        }
    }
}

impl<T> Drop for Join<T> {
    #[inline]
    fn drop(&mut self) {
        if !self.is_finished() {
            self.unregister();
        }
        // Looked at once more: the end may have come before the waiter was taken back, and then it is not taken back.
        let was_finished = self.is_finished();
        if was_finished {
            settle_rest::<T>(self.task);
        }
        let before = self.task.join.fetch_or(DETACHED, Ordering::AcqRel);
        if before & DONE == 0 {
            return; // The owner drops the result and recycles.
        }
        if !was_finished && before & (JOINER | RELEASED) != JOINER {
            settle_rest::<T>(self.task);
        }
        self.end(before);
    }
}
