//! Stackless tasks: futures that take their turn among the green threads, and the *runners* that lend them a stack.
//!
//! A stackless task has a block like any other task: it waits in the ready queue, ends, is joined, killed and lost as a
//! green thread is. In place of a fiber the block holds a boxed future. When the task comes up, the hub resumes a
//! runner in its place: a green thread of the task's context, which polls the future once. If the future blocks, the
//! runner simply parks within the poll, and the next task gets another runner.
//!
//! ```text
//!   ready queue ─► task (STACKLESS) ─► with_stack ─► a runner that rests, or a new one ─► poll ─► the runner rests
//! ```
//!
//! A waker is the address of the block, so it costs nothing to make, clone or drop. It may outlive the task.
//!
//! # Invariants
//! - **STACKLESS-1** The field `fiber` of a block with the mark `STACKLESS` holds a [`Work`], from `start_future` until
//!   the future is dropped.
//! - **STACKLESS-2** `WOKEN` is set by a waker, and cleared by the owner before each poll. The waker that sets the bit
//!   makes sure that there is a poll: if the task waits, the waker has it queued; if the task is being polled, the
//!   owner finds the bit after the poll. A waker of an older life causes one poll too many at worst: `prepare` sets the
//!   hub of the new life and clears the bit after that, so a waker that sets the bit later sends to the hub of the new
//!   life.
//! - **STACKLESS-3** A runner is resumed for the task in `assigned`, and takes the task from there at once. If
//!   `assigned` is empty, the runner ends.
//! - **STACKLESS-4** While a runner polls a task, the runner has that task's number, shield, time-outs, locals and
//!   kill. After the poll the task has them again. So what a task keeps in them between two polls never reaches another
//!   task.
//! - **STACKLESS-5** While a stackless task is `Running`, its `near` is the runner that polls it. Otherwise `near` is
//!   the address of the future.

use std::any::Any;
use std::future::Future;
use std::io;
use std::mem::{align_of, size_of};
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context as PollContext, Poll};

use super::block::{Body, Context, DETACHED, DropResult, Ending, Near, Task, clear_woken, is_woken, prepare};
use super::body::{__rust_begin_short_backtrace, drop_slot, end_locals, install_body, store_result};
use super::exit::{end, lose, tell_empty};
use super::join::Join;
use super::marks::{Marks, State};
use super::spawn::enqueue;
use crate::hub::contexts::{Contexts, Kind};
use crate::hub::observers::Event;
use crate::hub::report::{Reporter, complain, report_panic};
use crate::hub::scheduler::Hub;
use crate::hub::slot::Ended;
use crate::hub::waiter::Why;
use crate::hub::wake::task_waker;
use crate::hub::{interrupt, payload};
use crate::stack::Stack;

static WAKE: &str = "its waker (a future)";

/// The future. It leaves its result in the slot, and returns the function that drops the result.
type Work = Pin<Box<dyn Future<Output = DropResult>>>;

const _: () = assert!(size_of::<Work>() <= size_of::<Body>() && align_of::<Work>() <= align_of::<Body>());

/// Makes a stackless task of this hub, in the context of the caller, and queues it.
#[inline]
pub(crate) fn spawn_future<F>(hub: &'static Hub, place: &'static Location<'static>, future: F) -> Join<F::Output>
where
    F: Future + 'static,
{
    let task = hub.blocks.take();
    prepare(task, hub.counters.next_id(), hub.me.shared, place, None, 0);
    start_future(hub, task, future);
    Join::new(task)
}

#[inline]
pub(super) fn start_future<F: Future + 'static>(hub: &'static Hub, task: &'static Task, future: F) {
    let work: Work = Box::pin(async move {
        let value = future.await;
        // SAFETY: TASK-3: the slot is the owner's until `DONE`, and it is empty, because the future returns only once.
        unsafe { store_result(task, value, Ended::Returned) };
        drop_slot::<F::Output> as DropResult
    });
    task.marks.set(Marks::STACKLESS, true);
    let context = Contexts::for_spawn(hub.context(), Kind::Local);
    // Counted so that the context's runner at rest ends with the last task (`end_stackless`).
    context.inspect(|context| {
        let tasks = &context.scheduler().tasks;
        tasks.set(tasks.get() + 1);
    });
    task.context.set(context);
    task.near.set(Near::future(&*work));
    // SAFETY: the block is fresh: no fiber lies there that this would overwrite, and no other code knows the block. The
    // assertion above says that a `Work` fits there (STACKLESS-1).
    unsafe { task.fiber.get().cast::<Work>().write(work) };
    enqueue(hub, task);
}

/// A runner for the task, if one is at rest in its context. Uses no thread-local.
#[inline(always)]
pub(in crate::hub) fn runner_at_hand(hub: &Hub, task: &'static Task) -> Option<&'static Task> {
    let runner = hub.runners.take_resting(task.context.get())?;
    Some(hub.runners.assign(runner, task))
}

/// A runner for the task. `None`: there is no memory for one, and the task is lost.
#[inline(never)]
pub(in crate::hub) fn runner_for(hub: &'static Hub, task: &'static Task) -> Option<&'static Task> {
    let context = task.context.get();
    let runner = match hub.runners.take_resting(context) {
        Some(runner) => runner,
        None => match new_runner(hub, context) {
            Ok(runner) => runner,
            Err(error) => {
                complain(format_args!(
                    "a future is lost, for there is no stack to poll it on: {error}"
                ));
                // This is the end of the task as in `end`, but the future is leaked: its drop is code of the user, and
                // wants a stack.
                lose(task);
                hub.counters.live.set(hub.counters.live.get() - 1);
                if hub.counters.live.get() == 0 {
                    tell_empty(hub);
                }
                return None;
            }
        },
    };
    Some(hub.runners.assign(runner, task))
}

/// Makes a runner. It has no join, and it does not count as live: the task that it polls does.
#[cold]
fn new_runner(hub: &'static Hub, context: Option<&'static Context>) -> io::Result<&'static Task> {
    let stack = Stack::new(crate::stack::default_size())?;
    let runner = hub.blocks.take();
    prepare(
        runner,
        hub.counters.next_id(),
        hub.me.shared,
        Location::caller(),
        None,
        0,
    );
    // No join will look at its result: the runner's block is recycled at its end.
    runner.join.store(DETACHED, Ordering::Release);
    // A member: the context stays as long as its runner does, so a task is never the last to leave (`end_stackless`).
    runner.context.set(context.inspect(|context| context.join()));
    let own = runner.id();
    install_body(runner, stack, move || run_assigned(hub, runner, own));
    runner.state.set(State::New);
    hub.emit(|| Event::Spawn(runner.id()));
    Ok(runner)
}

/// The body of a runner with the number `own`: polls the tasks that it is assigned, one after the other.
fn run_assigned(hub: &'static Hub, runner: &'static Task, own: u64) {
    /// Counts the runner as live just before its end, which takes one off.
    struct Counts(&'static Hub);
    impl Drop for Counts {
        fn drop(&mut self) {
            let live = &self.0.counters.live;
            live.set(live.get() + 1);
        }
    }
    let _counts = Counts(hub);
    while let Some(task) = hub.runners.take_assigned() {
        poll_once(hub, runner, task);
        // From here on the runner goes by its own number again.
        runner.id.set(own);
        if !hub.runners.rest(runner) {
            return;
        }
        // The turn resumes the runner with its next task in `assigned`, or with none.
        runner.suspend();
    }
}

/// Polls a stackless task once, on the stack of its runner.
fn poll_once(hub: &'static Hub, runner: &'static Task, task: &'static Task) {
    task.state.set(State::Running);
    // STACKLESS-5, and then STACKLESS-4: from here on a kill goes to the runner, see `interrupt_target`.
    let near = task.near.replace(Near::runner(runner));
    swap_task_state(runner, task);
    // A kill that came while the task waited ends it without another poll.
    let result = if interrupt::is_kill_due(runner) {
        Err(payload::killed())
    } else {
        // Before the poll: a wake that comes from here on sets the bit again, and the future is polled once more.
        clear_woken(&task.join);
        catch_unwind(AssertUnwindSafe(|| {
            // SAFETY: STACKLESS-1: the future is there. Only the runner that was assigned this task comes here, and the
            // task is in no queue meanwhile, so this is the only reference.
            let work = unsafe { &mut *task.fiber.get().cast::<Work>() };
            let waker = task_waker(task);
            __rust_begin_short_backtrace(|| work.as_mut().poll(&mut PollContext::from_waker(&waker)))
        }))
    };
    match result {
        Ok(Poll::Pending) if !interrupt::is_kill_due(runner) => {
            // Back from STACKLESS-4 and STACKLESS-5, before the task may be queued and polled by another runner.
            swap_task_state(runner, task);
            task.near.set(near);
            wait(hub, task);
        }
        // A kill came during the poll, and the future has not unwound for it: the task ends now.
        Ok(Poll::Pending) => end_stackless(hub, runner, task, Err(payload::killed())),
        Ok(Poll::Ready(drop_result)) if interrupt::is_told_kill(runner) => {
            // A patched call told the future of its kill, and the future has returned. As for a green thread the task
            // counts as killed. The value is dropped, because it need not be `Send`.
            // SAFETY: TASK-3: the slot is the owner's until `DONE`. The future itself has named the type.
            unsafe { drop_result(task) };
            end_stackless(hub, runner, task, Err(payload::killed()));
        }
        Ok(Poll::Ready(drop_result)) => end_stackless(hub, runner, task, Ok(drop_result)),
        Err(payload) => end_stackless(hub, runner, task, Err(payload)),
    }
}

/// Exchanges the fields that code in a poll may read or change (STACKLESS-4): the runner gets those of the task, or its
/// own again.
#[inline]
fn swap_task_state(runner: &Task, task: &Task) {
    // Usually there is nothing to exchange.
    if [runner, task]
        .iter()
        .any(|side| side.shield.get() | side.interrupt.get() != 0)
    {
        runner.shield.swap(&task.shield);
        runner.interrupt.swap(&task.interrupt);
    }
    if runner.has_cold() || task.has_cold() {
        runner.swap_cold(task);
    }
}

/// Lets the task wait until its waker is called, or queues it at once if that happened during the poll.
#[inline]
fn wait(hub: &Hub, task: &'static Task) {
    task.why.set(Why::new(&WAKE, 0));
    task.state.set(State::Parked);
    // Looked at after the state was set. A wake on this OS thread that came before found the task running, and only set
    // the bit. The message of a wake on another one may have been taken during the poll, without effect.
    if is_woken(&task.join) {
        task.state.set(State::Ready);
        hub.queue.ready.push(task);
    }
}

#[inline]
fn end_stackless(
    hub: &'static Hub,
    runner: &'static Task,
    task: &'static Task,
    result: Result<DropResult, Box<dyn Any + Send>>,
) {
    // From here on no kill or time-out is delivered to this task.
    runner.shield.set(u8::MAX / 2);
    // SAFETY: STACKLESS-1: the future is there. It is read only here, and the block's copy is never used again.
    let work = unsafe { task.fiber.get().cast::<Work>().read() };
    // Dropped on the runner's stack and in the task's context, as code of the user must be.
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(work))) {
        report_panic(&Reporter::of(task), payload);
    }
    let drop_result = match result {
        Ok(drop_result) => drop_result,
        Err(payload) if interrupt::is_kill(&*payload) => {
            task.in_slot.set(Ended::Killed);
            task.ended.set(Ended::Killed);
            drop_slot::<()> as DropResult
        }
        Err(payload) => {
            // SAFETY: TASK-3: the slot is the owner's until `DONE`, and it is empty, because the future has not
            // returned.
            unsafe { store_result(task, payload, Ended::Panicked) };
            drop_slot::<()> as DropResult
        }
    };
    if runner.has_cold() {
        end_locals(runner);
    }
    // No join will take the result: drop it here, not on the hub's own stack.
    if task.join.load(Ordering::Acquire) & DETACHED != 0 {
        // SAFETY: TASK-3: the slot is the owner's until `DONE`. The type is that of the result, or the task has none.
        unsafe { drop_result(task) };
    }
    // The task is over: the runner gets its own fields back (STACKLESS-4).
    swap_task_state(runner, task);
    if let Some(context) = task.context.get() {
        // This is never the last member, because the runner is one.
        context.release();
        let tasks = &context.scheduler().tasks;
        tasks.set(tasks.get() - 1);
        if tasks.get() == 0
            && let Some(runner) = hub.runners.take_resting(Some(context))
        {
            // No stackless task is left in this context. The runner at rest ends, because nothing is assigned to it: as
            // a member it would keep the context forever.
            runner.state.set(State::Ready);
            hub.queue.ready.push(runner);
        }
    }
    // SAFETY: the future has ended, and was dropped above. A stackless task ends only here, and only once: it is in no
    // queue any more. (`runner_for` loses a task that was never polled again.)
    end(hub, unsafe { Ending::of_future(task, drop_result) });
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::super::block::set_woken;
    use super::*;
    use crate::hub::inbox::{AWAKE, Inbox, PARKED};
    use loom::sync::atomic::{AtomicBool, AtomicU8};
    use loom::sync::{Arc, Condvar, Mutex};

    /// The parts of a task and its hub that a waker on another OS thread uses: the bits, the inbox, the hub's sleep.
    struct World {
        join: AtomicU8,
        inbox: Inbox<()>,
        bed: (Mutex<bool>, Condvar),
        /// What the future waits for, one flag for each waker. Relaxed: only the wakes order the flags.
        came: [AtomicBool; 2],
    }

    impl World {
        fn wake(&self) {
            if set_woken(&self.join) && self.inbox.send((), || true).unwrap() != AWAKE {
                *self.bed.0.lock().unwrap() = true;
                self.bed.1.notify_one();
            }
        }

        /// Whether there was a message.
        fn take_messages(&self) -> bool {
            let mut messages = Vec::new();
            if self.inbox.is_pending() {
                self.inbox.drain(&mut messages);
            }
            !messages.is_empty()
        }

        fn sleep(&self) {
            if self.inbox.fall_asleep(PARKED) {
                let mut woken = self.bed.0.lock().unwrap();
                while !*woken {
                    woken = self.bed.1.wait(woken).unwrap();
                }
                *woken = false;
                self.inbox.wake_up();
            }
        }

        /// Polls until all flags are set; returns the number of polls.
        fn run(&self) -> usize {
            for polls in 1.. {
                clear_woken(&self.join);
                if self.came.iter().all(|came| came.load(Ordering::Relaxed)) {
                    return polls;
                }
                // The poll may block. A message that the hub takes meanwhile finds the task running, and has no effect.
                self.take_messages();
                if is_woken(&self.join) {
                    continue;
                }
                while !self.take_messages() {
                    self.sleep();
                }
            }
            unreachable!("loom gives up long before")
        }
    }

    #[test]
    fn loom_every_wake_makes_a_poll_that_sees_what_was_done_before() {
        let mut model = loom::model::Builder::new();
        // Enough to find a planted bug, wakes without an order.
        model.preemption_bound = Some(2);
        model.check(|| {
            let world = Arc::new(World {
                join: AtomicU8::new(0),
                inbox: Inbox::new(),
                bed: (Mutex::new(false), Condvar::new()),
                came: [AtomicBool::new(false), AtomicBool::new(false)],
            });
            world.inbox.open();
            let wakers: Vec<_> = (0..2)
                .map(|n| {
                    let world = world.clone();
                    loom::thread::spawn(move || {
                        world.came[n].store(true, Ordering::Relaxed);
                        world.wake();
                    })
                })
                .collect();
            // A wake causes two polls at most: one because of the bit, and one by its message, which comes late.
            assert!(world.run() <= 5);
            wakers.into_iter().for_each(|waker| waker.join().unwrap());
        });
    }
}
