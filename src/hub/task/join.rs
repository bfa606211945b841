//! The two sides of the end of a task: the right to its result, on any OS thread, and the owner's steps once the task
//! has ended. The bits of `join`, by which the sides agree, are described in [`task`](super).

use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::panic::Location;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::block::{DETACHED, DONE, DropResult, Ending, JOINER, LINKED, LOST, RELEASED, SCOPED, Task, TaskRef};
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
            // SAFETY: TASK-3: from `DONE` on the slot is the join's, which is dropped here. `T` is the join's type.
            unsafe { drop_rest::<T>(self.task) };
        }
        let before = self.task.join.fetch_or(DETACHED, Ordering::AcqRel);
        if before & DONE == 0 {
            return; // The owner drops the result and recycles.
        }
        // The end came after the question above, so the result is still there.
        if !was_finished && before & (JOINER | RELEASED) != JOINER {
            // SAFETY: TASK-3: `DONE` was set before `DETACHED`, so the slot is the join's. `T` is the join's type.
            unsafe { drop_rest::<T>(self.task) };
        }
        self.end(before);
    }
}

/// A task whose `DONE` the owner has set: the owner's right to do the last step of this life of the block.
pub(super) struct Done {
    task: &'static Task,
    drop_result: Option<DropResult>,
    /// The bits that were set before `DONE`. They decide what the owner has to do.
    before: u8,
}

impl Ending {
    /// Sets `DONE`. This publishes the result to the join, and acquires the waiter and the links that the join has
    /// left.
    #[inline]
    pub(super) fn set_done(self) -> Done {
        let (task, drop_result) = self.into_parts();
        let before = task.join.fetch_or(DONE, Ordering::AcqRel);
        Done {
            task,
            drop_result,
            before,
        }
    }
}

impl Done {
    /// Whether the join has left exit links, which the owner must run.
    #[inline]
    pub(super) fn has_links(&self) -> bool {
        self.before & LINKED != 0
    }

    /// Wakes the joiner, and recycles the block if the join is gone. If the join is neither gone nor waiting, it
    /// recycles the block itself, and may have done so already.
    #[inline]
    pub(super) fn release(self, hub: &'static Hub) {
        if self.before & DETACHED != 0 {
            self.end_detached(hub);
        } else if self.before & (JOINER | LOST) == JOINER {
            self.wake_joiner(hub);
        }
    }

    #[inline(never)]
    fn end_detached(self, hub: &'static Hub) {
        let Done { task, drop_result, .. } = self;
        // There is a result only in the rare case that the join was dropped after the last look, in `clear`.
        if let Some(drop_result) = drop_result.filter(|_| task.in_slot.get() != Ended::Empty) {
            // On the hub's own stack code of the user must run as a callback (HUB-11).
            // SAFETY: TASK-3: `DETACHED` was found set, so the join is gone and the slot is the owner's. The body or
            // future of the task has named the type.
            hub.as_callback(|| unsafe { drop_result(task) });
        }
        if self.before & LOST == 0 {
            // SAFETY: `DETACHED` was found set at or after `DONE`, so the join is gone. There is one `Done` in a life
            // of the block, and this uses it up: it is the owner's last step.
            unsafe { recycle(task, Hub::blocks_here()) };
        }
    }

    #[inline]
    fn wake_joiner(self, hub: &'static Hub) {
        // SAFETY: TASK-4: `JOINER` was set before `DONE`, so the waiter belongs to the owner. There is one `Done` in a
        // life of the block, so this is the only reference.
        let joiner = unsafe { &mut *self.task.joiner.get() };
        if let Some(Waiter::Task(waiting, ticket)) = *joiner {
            // In two parts: reading the whole waiter back would stall on the stores that wrote it a moment ago.
            // `forget` is right because a task waiter owns nothing.
            std::mem::forget(joiner.take());
            hub.wake_task(waiting, ticket);
        } else if let Some(waiter) = joiner.take() {
            hub.wake(waiter);
        }
        // The waiter is taken, so the join may recycle the block from here on. If the join was dropped before, it has
        // left that to the owner.
        if self.task.join.fetch_or(RELEASED, Ordering::AcqRel) & DETACHED != 0 {
            // The join has dropped the result before it set `DETACHED`.
            Done {
                drop_result: None,
                ..self
            }
            .end_detached(hub);
        }
    }
}

/// A task that is about to be lost: the right to set its `DONE` in place of an end, once.
pub(super) struct Losing(&'static Task);

impl Losing {
    /// Sets `LOST`, which keeps both sides from recycling the block. `None` if the task has ended, or is lost already.
    pub(super) fn begin(task: &'static Task) -> Option<Losing> {
        let before = task.join.fetch_or(LOST, Ordering::AcqRel);
        (before & (LOST | DONE) == 0).then_some(Losing(task))
    }

    /// Sets `DONE`. Gives whether the join has left exit links, and the waiter of the join.
    pub(super) fn set_done(self) -> (bool, Option<Waiter>) {
        let Losing(task) = self;
        let before = task.join.fetch_or(DONE | LOST, Ordering::AcqRel);
        let joiner = if before & (DONE | DETACHED | JOINER) == JOINER {
            // SAFETY: TASK-4: this call has set `DONE`, after `JOINER`, so the waiter belongs to this side. There is
            // one `Losing` in a life, and `Done::release` does not touch the waiter if it finds `LOST`.
            let waiter = unsafe { (*task.joiner.get()).take() };
            task.join.fetch_or(RELEASED, Ordering::AcqRel);
            waiter
        } else {
            None
        };
        (before & (DONE | LINKED) == LINKED, joiner)
    }
}
