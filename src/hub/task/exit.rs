//! The end of a task: the owner's last steps. The bits of `join` are described in [`task`](super).

use std::sync::atomic::Ordering;

use super::block::{ColdState, DETACHED, DONE, DropResult, JOINER, LINKED, LOST, RELEASED, Stop, Task, TaskRef};
use super::blocks::recycle;
use super::marks::State;
use super::spawn::spawn;
use crate::fiber::Outcome;
use crate::hub::contexts::Kind;
use crate::hub::links::{self, Left, Runs};
use crate::hub::observers::Event;
use crate::hub::report::{Reporter, call_user, complain, discard, report_panic};
use crate::hub::scheduler::Hub;
use crate::hub::sleep::IdleWatcher;
use crate::hub::slot::Ended;
use crate::hub::waiter::Waiter;

/// Handles a green thread that has suspended or ended.
#[inline(always)]
pub(in crate::hub) fn on_stop(hub: &'static Hub, task: &'static Task, stop: Stop) {
    match stop {
        Outcome::Yielded(()) => {}
        Outcome::Returned(drop_result) => end_green_thread(hub, task, Some(drop_result)),
        // A root gives no panic (FIBER-5 of `fiber`): one that unwinds out of its body aborts.
        Outcome::Panicked(_) => end_green_thread(hub, task, None),
    }
}

/// Ends a green thread: the owner's last step (see the bits of `join` in [`task`](super)).
#[inline]
fn end_green_thread(hub: &'static Hub, task: &'static Task, drop_result: Option<DropResult>) {
    // SAFETY: `install_body` wrote the fiber, which has ended and is not used again: its stack goes back to the pool.
    unsafe { (*task.fiber.get()).assume_init_drop() };
    end(hub, task, drop_result);
}

/// The rest of the end, for green threads and stackless tasks alike.
#[inline]
pub(super) fn end(hub: &'static Hub, task: &'static Task, drop_result: Option<DropResult>) {
    task.state.set(State::Idle);
    hub.counters.live.set(hub.counters.live.get() - 1);
    if hub.counters.live.get() == 0 {
        tell_empty(hub);
    }
    hub.emit(|| Event::Exit(task.id()));
    let cold = task.take_cold();
    if let Some(cold) = cold {
        end_cold(hub, *cold);
    }
    // If the task was the last member, its context goes back to the pool.
    if let Some(context) = task.context.take() {
        hub.contexts.left(context);
    }
    // Waiters that are left of this life are stale from here on.
    task.invalidate_ticket();
    // Read before `DONE` is set: after that the join may recycle the block.
    let (name, ended) = (TaskRef::new(task), task.ended.get());
    let id = task.id.get();
    // This publishes the result to the join, and acquires the waiter and the links that the join has left. The bits
    // found here decide what is left to do for the owner.
    let before = task.join.fetch_or(DONE, Ordering::AcqRel);
    if before & LINKED != 0 {
        run_links(hub, name, id, ended);
    }
    // If neither bit was set, the join recycles the block, and may have done so already: do not touch the task.
    if before & DETACHED != 0 {
        end_detached(hub, task, drop_result);
    } else if before & JOINER != 0 {
        release(hub, task);
    }
}

#[inline(never)]
fn end_detached(hub: &'static Hub, task: &'static Task, drop_result: Option<DropResult>) {
    // There is a result only in the rare case that the join was dropped after the last look, in `clear`.
    if let Some(drop_result) = drop_result.filter(|_| task.in_slot.get() != Ended::Empty) {
        // On the hub's own stack code of the user must run as a callback (HUB-11).
        hub.as_callback(|| drop_result(task));
    }
    // SAFETY: `DETACHED` was found set at or after `DONE`, so the join is gone, and this is the owner's last step.
    unsafe { recycle(task, Hub::blocks_here()) };
}

/// Ends the rarely used fields of a green thread that has ended.
#[cold]
fn end_cold(hub: &'static Hub, cold: ColdState) {
    for guard in cold.guards {
        if let Some(key) = guard.timer {
            hub.remove_timer(key);
        }
    }
    hub.as_callback(|| discard(cold.locals));
}

/// Wakes the joiner, and recycles the block if the join was dropped meanwhile.
#[inline]
fn release(hub: &'static Hub, task: &'static Task) {
    // SAFETY: TASK-4: `DONE` was set after `JOINER`, so the waiter belongs to the owner, and the join no longer touches
    // it.
    let joiner = unsafe { &mut *task.joiner.get() };
    if let Some(Waiter::Task(waiting, ticket)) = *joiner {
        // In two parts: reading the whole waiter back would stall on the stores that wrote it a moment ago. `forget` is
        // right because a task waiter owns nothing.
        std::mem::forget(joiner.take());
        hub.wake_task(waiting, ticket);
    } else if let Some(waiter) = joiner.take() {
        hub.wake(waiter);
    }
    // The waiter is taken, so the join may recycle the block from here on. If the join was dropped before, it has left
    // that to the owner.
    if task.join.fetch_or(RELEASED, Ordering::AcqRel) & DETACHED != 0 {
        end_detached(hub, task, None);
    }
}

/// Marks an unfinished task as lost: the hub ends, or could not start the task. The task's stack is leaked.
pub(in crate::hub) fn lose(task: &'static Task) {
    if task.join.fetch_or(LOST, Ordering::AcqRel) & (LOST | DONE) != 0 {
        return; // Another call was first, or the task has ended.
    }
    // `LOST` keeps the join from recycling the block. The fields are written before `DONE`, which publishes them.
    task.in_slot.set(Ended::Lost);
    task.ended.set(Ended::Lost);
    task.state.set(State::Idle);
    task.invalidate_ticket();
    let id = task.id.get();
    let before = task.join.fetch_or(DONE | LOST, Ordering::AcqRel);
    if before & LINKED != 0 {
        lose_links(TaskRef::new(task), id);
    }
    if before & JOINER != 0 && before & DETACHED == 0 {
        // SAFETY: TASK-4: `DONE` was set after `JOINER`, so the waiter belongs to this side, and the join no longer
        // touches it.
        if let Some(waiter) = unsafe { (*task.joiner.get()).take() }
            // The hub may have ended: then a waker, which is the user's code, is called here at once.
            && let Err(payload) = call_user(|| waiter.wake())
        {
            report_panic(&Reporter::callback(), payload);
        }
        task.join.fetch_or(RELEASED, Ordering::AcqRel);
    }
    // Frames of the leaked stack may still refer to the block, so neither side recycles it.
}

/// Runs the links of a green thread that has ended, in order.
#[cold]
fn run_links(hub: &'static Hub, task: TaskRef, id: u64, ended: Ended) {
    // By id, not by block alone: `DONE` is set, so the block may have been recycled, and its next life may have links.
    for Left { place, runs, link, .. } in links::take(task, |left| left.id == id) {
        if runs == Runs::AtOnce {
            // Even a link of this crate may call wakers, which are the user's code.
            if let Err(payload) = call_user(|| link(ended)) {
                report_panic(&Reporter::callback(), payload);
            }
            continue;
        }
        // If there is no memory for the green thread, the link is dropped inside of `call_user`.
        let spawned = call_user(|| spawn(hub, Kind::Local, None, place, move || link(ended)).is_ok());
        if !matches!(spawned, Ok(true)) {
            complain(format_args!(
                "an on_exit callback of green thread #{id} is lost, for there is no memory to run it; spawned at \
                 {place}"
            ));
            spawned.err().into_iter().for_each(discard);
        }
    }
}

/// Runs the links of a green thread that is lost: as callbacks, or here if this OS thread's hub has ended.
#[cold]
fn lose_links(task: TaskRef, id: u64) {
    for Left { link, .. } in links::take(task, |left| left.id == id) {
        let call = move || link(Ended::Lost);
        match Hub::try_current() {
            Some(hub) => hub.queue_callback(Box::new(call)),
            None => {
                if let Err(payload) = call_user(call) {
                    report_panic(&Reporter::callback(), payload);
                }
            }
        }
    }
}

impl Hub {
    /// Calls an [`Empty`](IdleWatcher::Empty) at once if there are no green threads, and keeps `watcher` for later
    /// otherwise.
    pub(in crate::hub) fn watch_idle(&'static self, watcher: IdleWatcher) {
        match watcher {
            IdleWatcher::Empty(told) if self.counters.live.get() == 0 => told(self.counters.arrivals.get()),
            watcher => self.sleep.idle_watchers.borrow_mut().push(watcher),
        }
    }
}

/// The last green thread has ended. Its exit links may spawn more, so each watcher is asked again in a callback.
#[inline]
pub(super) fn tell_empty(hub: &'static Hub) {
    if !hub.sleep.idle_watchers.borrow().is_empty() {
        tell_watchers(hub);
    }
}

#[cold]
fn tell_watchers(hub: &'static Hub) {
    // `watch_idle` keeps each that finds green threads again.
    for watcher in hub.sleep.idle_watchers.take() {
        hub.queue_callback(Box::new(move || hub.watch_idle(watcher)));
    }
}
