//! The right to a green thread's result, from any OS thread. The bits of `join` are described in [`task`](super).

use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::panic::Location;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::block::{DETACHED, DONE, JOINER, LINKED, LOST, RELEASED, SCOPED, Task, TaskRef};
use super::blocks::recycle;
use super::body::{drop_rest, take_exit};
use crate::hub::links::{self, ExitLink, Runs};
use crate::hub::scheduler::Hub;
use crate::hub::slot::{Ended, Exit};
use crate::hub::waiter::Waiter;

/// The right to a green thread's result; there is one for each green thread.
pub(crate) struct Join<T> {
    task: &'static Task,
    _value: PhantomData<T>,
}

// SAFETY: TASK-3: a join passes a `T` from the owner's OS thread to its own, which `T: Send` allows. Everything else
// that it accesses is atomic, or was written before it existed (TASK-2).
unsafe impl<T: Send> Send for Join<T> {}
// SAFETY: through `&Join` only atomics and fields that do not change (TASK-2) are read.
unsafe impl<T: Send> Sync for Join<T> {}

impl<T> Join<T> {
    /// The join of a task that was prepared just now.
    pub(super) fn new(task: &'static Task) -> Join<T> {
        Join {
            task,
            _value: PhantomData,
        }
    }

    pub(crate) fn task(&self) -> TaskRef {
        TaskRef::new(self.task)
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

    /// Marks the green thread as the child of a scope.
    pub(crate) fn mark_scoped(&self) {
        self.task.join.fetch_or(SCOPED, Ordering::Relaxed);
    }

    /// Leaves an exit link. If the green thread has ended already, gives the link back, with how it ended.
    pub(crate) fn link(&self, runs: Runs, link: ExitLink) -> Result<(), (ExitLink, Ended)> {
        if !self.is_finished() {
            // The link is in the register before the bit is set: an owner that finds the bit finds the link.
            let number = links::add(self.task(), self.id(), self.place(), runs, link);
            if self.task.join.fetch_or(LINKED, Ordering::AcqRel) & DONE == 0 {
                return Ok(());
            }
            // The end came between the two. If it found the bit of an earlier link, it has run this one as well.
            let Some(left) = links::take_back(self.task(), number) else {
                return Ok(());
            };
            return Err((left, self.task.ended.get()));
        }
        // `ended` was written before `DONE`, which was acquired, and does not change while there is a join.
        Err((link, self.task.ended.get()))
    }

    /// Leaves a waiter to be woken at the end; `false` if the green thread has ended already.
    #[inline]
    pub(crate) fn register(&mut self, waiter: Waiter) -> bool {
        // A waiter left before is taken back, so that `joiner` belongs to the join again.
        self.unregister();
        if self.is_finished() {
            return false;
        }
        // SAFETY: TASK-4: `JOINER` is clear, so the cell belongs to the join.
        unsafe { *self.task.joiner.get() = Some(waiter) };
        // Either this sees `DONE`, or the owner sees `JOINER` when it sets `DONE`: so no wake is lost.
        if self.task.join.fetch_or(JOINER, Ordering::AcqRel) & DONE == 0 {
            return true;
        }
        // The end came first and saw no `JOINER`, so it will not take the waiter. Take it back, and clear the bit: with
        // `DONE` it would mean that the owner is about to release (TASK-4).
        // SAFETY: TASK-4: the owner set `DONE` without `JOINER`, so the cell still belongs to the join.
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
        // `DONE` with `JOINER` gives the waiter to the owner: clear `JOINER` only if it is not set at that very moment.
        while bits & JOINER != 0 && bits & DONE == 0 {
            match self
                .task
                .join
                .compare_exchange_weak(bits, bits & !JOINER, Ordering::AcqRel, Ordering::Acquire)
            {
                // SAFETY: TASK-4: `JOINER` was cleared before `DONE` was set, so the cell belongs to the join again.
                Ok(_) => return unsafe { *self.task.joiner.get() = None },
                Err(now) => bits = now,
            }
        }
    }

    /// Takes the result, if the green thread has ended and it was not taken before.
    #[inline]
    pub(crate) fn try_take(&mut self) -> Option<Exit<T>> {
        if !self.is_finished() {
            return None;
        }
        // SAFETY: TASK-3: `DONE` was acquired, so the slot belongs to the join. `T` is the type that the spawn was
        // given.
        unsafe { take_exit::<T>(self.task) }
    }
}

impl<T> Join<T> {
    /// Drops a join that has taken the value: without the questions that a drop of any other join asks.
    #[inline(always)]
    pub(crate) fn end_taken(self) {
        let join = ManuallyDrop::new(self);
        let before = join.task.join.fetch_or(DETACHED, Ordering::AcqRel);
        join.end(before);
    }

    /// The last step, once `DETACHED` is set: the green thread has ended, and its slot is empty.
    #[inline(always)]
    fn end(&self, before: u8) {
        if before & (JOINER | RELEASED) == JOINER {
            return; // The owner is about to release, and recycles.
        }
        // Both sides are finished, so the join recycles the block (TASK-1); but a lost block stays with its leaked
        // stack.
        if before & LOST == 0 {
            // SAFETY: `DETACHED` was set here, and the bits before it say that the owner is finished with this life.
            unsafe { recycle(self.task, Hub::blocks_here()) };
        }
    }
}

impl<T> Drop for Join<T> {
    #[inline]
    fn drop(&mut self) {
        if !self.is_finished() {
            self.unregister();
        }
        // Asked again: the end may have come before the waiter was taken back, and then the owner has the waiter.
        let was_finished = self.is_finished();
        if was_finished {
            // Dropped before `DETACHED` is set: after that an owner which is about to release may recycle the block at
            // any moment.
            drop_rest::<T>(self.task);
        }
        let before = self.task.join.fetch_or(DETACHED, Ordering::AcqRel);
        if before & DONE == 0 {
            return; // The owner drops the result and recycles.
        }
        // The end came after the question above, so the result is still there.
        if !was_finished && before & (JOINER | RELEASED) != JOINER {
            drop_rest::<T>(self.task);
        }
        self.end(before);
    }
}
