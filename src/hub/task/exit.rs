//! The end of a task: the owner's last steps. The bits of `join` are described in [`task`](super).
#![forbid(unsafe_code)]

use super::block::{ColdState, Ending, Stopped, Task, TaskRef};
use super::join::Losing;
use super::marks::State;
use super::spawn::spawn;
use crate::hub::contexts::Kind;
use crate::hub::links::{self, Left, Runs};
use crate::hub::observers::Event;
use crate::hub::report::{Reporter, call_user, complain, discard, report_panic};
use crate::hub::scheduler::Hub;
use crate::hub::sleep::IdleWatcher;
use crate::hub::slot::Ended;

/// Ends a green thread (see the bits of `join` in [`task`](super)).
#[inline]
pub(in crate::hub) fn end_green_thread(hub: &'static Hub, stopped: Stopped) {
    end(hub, stopped.drop_fiber());
}

/// The owner's last steps for a task, a green thread or a stackless one.
#[inline]
pub(super) fn end(hub: &'static Hub, ending: Ending) {
    let task = ending.task();
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
    let done = ending.set_done();
    // The bits found there decide what is left to do for the owner. Do not touch the task from here on: if no bit was
    // set, the join recycles the block, and may have done so already.
    if done.has_links() {
        run_links(hub, name, id, ended);
    }
    done.release(hub);
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

/// Marks an unfinished task as lost: the hub ends, or could not start the task. The task's stack is leaked.
pub(in crate::hub) fn lose(task: &'static Task) {
    let Some(losing) = Losing::begin(task) else {
        return; // Another call was first, or the task has ended.
    };
    // `LOST` keeps the join from recycling the block. The fields are written before `DONE`, which publishes them.
    task.in_slot.set(Ended::Lost);
    task.ended.set(Ended::Lost);
    task.state.set(State::Idle);
    task.invalidate_ticket();
    let id = task.id.get();
    let (has_links, joiner) = losing.set_done();
    if has_links {
        lose_links(TaskRef::new(task), id);
    }
    // The hub may have ended: then a waker, which is the user's code, is called here at once.
    if let Some(waiter) = joiner
        && let Err(payload) = call_user(|| waiter.wake())
    {
        report_panic(&Reporter::callback(), payload);
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
