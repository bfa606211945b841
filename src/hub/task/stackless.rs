//! Stackless tasks: futures that take their turn among the green threads, and the *runners* that lend them a stack.
//!
//! A stackless task is a block like any other: it waits in the ready queue, ends, is joined, killed and lost as a green
//! thread is. Where that has its fiber it has a boxed future, and when its turn comes the hub resumes a runner in its
//! place: a green thread of the task's context that polls it once. A runner that parks within the poll, because the
//! future blocks, is simply parked; the next task gets another runner.
//!
//! ```text
//!   ready queue ─► task (STACKLESS) ─► with_stack ─► a runner that rests, or a new one ─► poll ─► the runner rests
//! ```
//!
//! A waker is the address of the block, so it costs nothing to make, to clone and to drop. It may outlive the task.
//!
//! # Invariants
//! - **K1** Of a block with the mark `STACKLESS`, `fiber` holds a [`Work`] from `start_future` until the future is dropped.
//! - **K2** `WOKEN` is set by a waker and cleared by the owner before each poll. Who sets it sees to a turn: it queues the
//!   task if that waits, and else the owner looks at it after the poll. A waker of an older life makes a poll too many at
//!   worst: `prepare` clears the bit after it has set the hub, so who sets it later sends to the right one.
//! - **K3** A runner is resumed for a task that `assigned` names, and takes it from there at once; for none, it ends.
//! - **K4** While a runner polls a task, it has that one's number, shield, time-outs, locals and kill: what a task leaves there
//!   between two polls is never the next one's.
//! - **K5** Of a stackless task whose state is `Running`, `depth` is the runner that polls it; else where its future is.

use std::future::Future;
use std::io;
use std::mem::{align_of, size_of};
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::pin::Pin;
use std::ptr;
use std::sync::atomic::Ordering;
use std::task::{Context as PollContext, Poll, RawWaker, RawWakerVTable, Waker};

use super::blocks::take_block;
use super::{
    __rust_begin_short_backtrace, AtomicU8, Body, DETACHED, Ended, Join, Marks, Reserved, Settle, State, Task, TaskRef,
    WOKEN, end, end_locals, enqueue, lay, leave, lose, prepare, settle_slot,
};
use crate::hub::context::{self, Kind};
use crate::hub::park::{Wake, Why};
use crate::hub::remote::Message;
use crate::hub::{Hub, Reporter, interrupt, report_panic};
use crate::stack::Stack;
use crate::tls::Context;

static WAKE: &str = "its waker (a future)";

/// Runners of the native context that are kept.
const RESTS: usize = 16;

/// The future, which leaves its result in the slot and tells how to drop that.
type Work = Pin<Box<dyn Future<Output = Settle>>>;

const _: () = assert!(size_of::<Work>() <= size_of::<Body>() && align_of::<Work>() <= align_of::<Body>());

/// Makes a stackless task of this hub, in the context of the caller, and queues it.
#[inline]
pub(crate) fn spawn_future<F>(hub: &'static Hub, place: &'static Location<'static>, future: F) -> Join<F::Output>
where
    F: Future + 'static,
{
    let task = take_block(hub);
    prepare(task, hub.next_id(), hub.shared, place);
    start_future(hub, task, future);
    Join {
        task,
        _value: std::marker::PhantomData,
    }
}

#[inline]
fn start_future<F: Future + 'static>(hub: &'static Hub, task: &'static Task, future: F) {
    let work: Work = Box::pin(async move {
        let value = future.await;
        // SAFETY: T3: the owner's until `DONE`, and empty.
        unsafe { leave(task, value, Ended::Returned) };
        settle_slot::<F::Output> as Settle
    });
    task.marks.set(Marks::STACKLESS, true);
    let context = context::for_spawn(hub, Kind::Local);
    context.inspect(|context| context.tasks().set(context.tasks().get() + 1));
    task.context.set(context);
    task.depth.set((&raw const *work).cast());
    // SAFETY: the block is fresh: nothing lies there, nobody else knows it, and it has room (K1).
    unsafe { task.fiber.get().cast::<Work>().write(work) };
    enqueue(hub, task);
}

impl<F: Future + 'static> Reserved<F> {
    /// Starts it as a stackless task, on its owner's OS thread.
    pub(crate) fn adopt_future(mut self, hub: &'static Hub) {
        if let Some(future) = self.body.take() {
            hub.arrivals.set(hub.arrivals.get() + 1);
            start_future(hub, self.task.0, future);
            std::mem::forget(self);
        }
    }
}

/// Who is to be resumed for a task that has come up: itself, or a runner. `None`: there is no memory for one.
#[inline(always)]
pub(in crate::hub) fn with_stack(hub: &'static Hub, task: &'static Task) -> Option<&'static Task> {
    if task.marks.get(Marks::STACKLESS) {
        runner_for(hub, task)
    } else {
        Some(task)
    }
}

/// The same, if nothing need be made for it; uses no thread-local.
#[inline(always)]
pub(in crate::hub) fn stack_at_hand(hub: &'static Hub, task: &'static Task) -> Option<&'static Task> {
    if task.marks.get(Marks::STACKLESS) {
        take_resting(hub, task.context.get()).map(|runner| assign(hub, runner, task))
    } else {
        Some(task)
    }
}

#[inline(always)]
fn assign(hub: &Hub, runner: &'static Task, task: &'static Task) -> &'static Task {
    runner.place.set(task.place());
    runner.id.set(task.id());
    hub.assigned.set(Some(task));
    runner
}

#[inline(never)]
fn runner_for(hub: &'static Hub, task: &'static Task) -> Option<&'static Task> {
    let context = task.context.get();
    let runner = match take_resting(hub, context) {
        Some(runner) => runner,
        None => match new_runner(hub, context) {
            Ok(runner) => runner,
            Err(error) => {
                crate::hub::complain(format_args!("no stack to run a future on, which is lost: {error}"));
                lose(task);
                hub.live.set(hub.live.get() - 1);
                if hub.live.get() == 0 {
                    hub.emptied();
                }
                return None;
            }
        },
    };
    Some(assign(hub, runner, task))
}

/// One that rests in this context, ready to be resumed.
#[inline]
fn take_resting(hub: &Hub, context: Option<&'static Context>) -> Option<&'static Task> {
    let runner = match context {
        None => {
            let runner = hub.resting.get()?;
            hub.resting.set(runner.next.take());
            hub.rests.set(hub.rests.get() - 1);
            runner
        }
        // SAFETY: null or what `rest` put there: blocks are never freed, and this one rests.
        Some(context) => unsafe { context.rest().replace(ptr::null()).cast::<Task>().as_ref() }?,
    };
    runner.marks.clear();
    Some(runner)
}

/// Lays a runner to rest, if it may: in its own context while there are tasks, for it is a member and keeps that alive.
#[inline]
fn rest(hub: &Hub, runner: &'static Task) -> bool {
    match runner.context.get() {
        None if hub.rests.get() == RESTS => return false,
        None => {
            runner.next.set(hub.resting.replace(Some(runner)));
            hub.rests.set(hub.rests.get() + 1);
        }
        Some(context) if context.tasks().get() == 0 || !context.rest().get().is_null() => return false,
        Some(context) => context.rest().set(ptr::from_ref(runner).cast()),
    }
    runner.marks.set(Marks::RESTS, true);
    runner.state.set(State::Idle);
    true
}

/// The runners of the native context end, with the stacks that they keep: the OS thread does.
pub(in crate::hub) fn end_runners(hub: &'static Hub) {
    let chain = crate::fiber::current::set_aside();
    while let Some(runner) = take_resting(hub, None) {
        // With nothing assigned.
        super::resume(hub, runner);
    }
    crate::fiber::current::restore(chain);
}

/// Nobody joins it, and it does not count as live: the task that it polls does.
#[cold]
fn new_runner(hub: &'static Hub, context: Option<&'static Context>) -> io::Result<&'static Task> {
    let stack = Stack::new(crate::stack::default_size())?;
    let runner = take_block(hub);
    prepare(runner, hub.next_id(), hub.shared, Location::caller());
    runner.join.store(DETACHED, Ordering::Release);
    runner.context.set(context.inspect(|context| context.join()));
    let own = runner.id();
    lay(runner, stack, move || run_assigned(hub, runner, own));
    runner.state.set(State::New);
    hub.emit(|| crate::hub::Event::Spawn(runner.id()));
    Ok(runner)
}

/// The body of a runner, whose own number is `own`: polls what it is assigned, one after the other.
fn run_assigned(hub: &'static Hub, runner: &'static Task, own: u64) {
    /// It counts again: its end takes it off.
    struct Counts(&'static Hub);
    impl Drop for Counts {
        fn drop(&mut self) {
            self.0.live.set(self.0.live.get() + 1);
        }
    }
    let _counts = Counts(hub);
    while let Some(task) = hub.assigned.take() {
        poll_once(hub, runner, task);
        runner.id.set(own);
        if !rest(hub, runner) {
            return;
        }
        runner.suspend();
    }
}

/// One turn of a stackless task, on the stack of its runner.
fn poll_once(hub: &'static Hub, runner: &'static Task, task: &'static Task) {
    task.state.set(State::Running);
    let depth = task.depth.replace(ptr::from_ref(runner).cast());
    trade(runner, task);
    let result = if interrupt::is_killed(runner) {
        Err(interrupt::killed_payload())
    } else {
        clear_woken(&task.join);
        catch_unwind(AssertUnwindSafe(|| {
            // SAFETY: K1; only the runner that was assigned this task comes here, and it is in no queue meanwhile.
            let work = unsafe { &mut *task.fiber.get().cast::<Work>() };
            let waker = waker(task);
            __rust_begin_short_backtrace(|| work.as_mut().poll(&mut PollContext::from_waker(&waker)))
        }))
    };
    match result {
        Ok(Poll::Pending) if !interrupt::is_killed(runner) => {
            trade(runner, task);
            task.depth.set(depth);
            wait(hub, task);
        }
        Ok(Poll::Pending) => finish(hub, runner, task, Err(interrupt::killed_payload())),
        Ok(Poll::Ready(settle)) if interrupt::is_told_kill(runner) => {
            // It was told, and has returned: as a green thread that does, but its value need not be `Send`.
            settle(task);
            finish(hub, runner, task, Err(interrupt::killed_payload()));
        }
        Ok(Poll::Ready(settle)) => finish(hub, runner, task, Ok(settle)),
        Err(payload) => finish(hub, runner, task, Err(payload)),
    }
}

/// Who has the kill of a task: itself, or, if it is stackless and polled right now, its runner (K4).
#[inline]
pub(in crate::hub) fn face(task: &'static Task) -> &'static Task {
    if task.marks.get(Marks::STACKLESS) && task.state.get() == State::Running {
        // SAFETY: K5; blocks are never freed, and null is none.
        unsafe { task.depth.get().cast::<Task>().as_ref() }.unwrap_or(task)
    } else {
        task
    }
}

/// The runner becomes the task, or itself again, in what code that it runs may ask or leave (K4).
#[inline]
fn trade(runner: &Task, task: &Task) {
    // Mostly there is nothing to trade.
    if [runner, task]
        .iter()
        .any(|side| side.shield.get() | side.interrupt.get() != 0)
    {
        runner.shield.swap(&task.shield);
        runner.interrupt.swap(&task.interrupt);
    }
    if runner.has_extra() || task.has_extra() {
        runner.trade_extra(task);
    }
}

/// Before a poll (K2). Acquires what was done before the wakes that the bit stands for.
#[inline(always)]
fn clear_woken(join: &AtomicU8) {
    if is_woken(join) {
        join.fetch_and(!WOKEN, Ordering::AcqRel);
    }
}

/// After a poll, and once it counts as waiting (K2).
#[inline(always)]
fn is_woken(join: &AtomicU8) -> bool {
    join.load(Ordering::Acquire) & WOKEN != 0
}

/// By a waker (K2); whether it was not set, so that a turn is the caller's to see to. Releases what was done before, also
/// where it was set already.
#[inline(always)]
fn set_woken(join: &AtomicU8) -> bool {
    join.fetch_or(WOKEN, Ordering::AcqRel) & WOKEN == 0
}

/// Until its waker is called, or was meanwhile.
#[inline]
fn wait(hub: &Hub, task: &'static Task) {
    task.why.set(Why::new(&WAKE, 0));
    task.state.set(State::Parked);
    if is_woken(&task.join) {
        task.state.set(State::Ready);
        hub.ready.push(task);
    }
}

#[inline]
fn finish(
    hub: &'static Hub,
    runner: &'static Task,
    task: &'static Task,
    result: Result<Settle, Box<dyn std::any::Any + Send>>,
) {
    // From here on no kill is due to it.
    runner.shield.set(u8::MAX / 2);
    // SAFETY: K1: read once, and the block forgets it.
    let work = unsafe { task.fiber.get().cast::<Work>().read() };
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(work))) {
        report_panic(&Reporter::of(task), payload);
    }
    let settle = match result {
        Ok(settle) => settle,
        Err(payload) if interrupt::is_kill(&*payload) => {
            task.outcome.set(Ended::Killed);
            task.ended.set(Ended::Killed);
            settle_slot::<()> as Settle
        }
        Err(payload) => {
            // SAFETY: T3: the future has not returned, so the slot is empty, and the owner's until `DONE`.
            unsafe { leave(task, payload, Ended::Panicked) };
            settle_slot::<()> as Settle
        }
    };
    if runner.has_extra() {
        end_locals(runner);
    }
    if task.join.load(Ordering::Acquire) & DETACHED != 0 {
        settle(task);
    }
    trade(runner, task);
    if let Some(context) = task.context.get() {
        // Never the last member: the runner is one.
        context.leave();
        context.tasks().set(context.tasks().get() - 1);
        if context.tasks().get() == 0
            && let Some(runner) = take_resting(hub, Some(context))
        {
            // It ends, with nothing assigned, lest the context live for ever.
            runner.state.set(State::Ready);
            hub.ready.push(runner);
        }
    }
    end(hub, task, Some(settle));
}

impl Hub {
    /// A waker of this task was called.
    pub(in crate::hub) fn wake_stackless(&self, task: TaskRef) {
        // One of an older life may be anything by now.
        if let Some(task) = self.own(task)
            && task.marks.get(Marks::STACKLESS)
            && task.state.get() == State::Parked
        {
            self.wake_local(task, task.ticket.load(Ordering::Relaxed), Wake::Ready);
        }
    }
}

static VTABLE: RawWakerVTable = RawWakerVTable::new(|task| RawWaker::new(task, &VTABLE), wake, wake, |_| ());

#[inline]
fn waker(task: &'static Task) -> Waker {
    // SAFETY: blocks are never freed, so the address is good for ever; the functions take it from any OS thread, for they
    // use atomics alone until they are on the owner's (T5).
    unsafe { Waker::from_raw(RawWaker::new(ptr::from_ref(task).cast(), &VTABLE)) }
}

/// Whether a waker is a stackless task's: calling it runs no code of the user.
#[inline]
pub(in crate::hub) fn is_ours(waker: &Waker) -> bool {
    ptr::eq(waker.vtable(), &VTABLE)
}

/// Whose waker it is, if a stackless task's. The task may have ended, and its block serve another.
#[inline]
pub(in crate::hub) fn of_waker(waker: &Waker) -> Option<TaskRef> {
    // SAFETY: the vtable says that `waker` made it, of the address of a block; those are never freed.
    is_ours(waker).then(|| TaskRef(unsafe { &*waker.data().cast::<Task>() }))
}

/// # Safety
/// It is the data of a waker made by [`waker`].
unsafe fn wake(task: *const ()) {
    // SAFETY: the caller's: the address of a block.
    let task: &'static Task = unsafe { &*task.cast::<Task>() };
    if !set_woken(&task.join) {
        return;
    }
    match (task.shared(), Hub::try_current()) {
        (Some(shared), Some(hub)) if ptr::eq(shared, hub.shared) && !hub.is_among_others() => {
            hub.wake_stackless(TaskRef(task));
        }
        (Some(shared), _) => shared.send(Message::Poll(TaskRef(task))),
        (None, _) => {}
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::hub::inbox::{AWAKE, Inbox, PARKED};
    use loom::sync::{Arc, Condvar, Mutex, atomic::AtomicBool};

    /// What a task, its hub's inbox and its hub's sleep are to a waker of another OS thread.
    struct World {
        join: AtomicU8,
        inbox: Inbox<()>,
        bed: (Mutex<bool>, Condvar),
        /// What the future waits for, one for each waker. Relaxed: only the wakes order it.
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

        /// Polls until all has come; how often.
        fn run(&self) -> usize {
            for polls in 1.. {
                clear_woken(&self.join);
                if self.came.iter().all(|came| came.load(Ordering::Relaxed)) {
                    return polls;
                }
                // The poll may block: what its hub takes meanwhile finds it running, and is gone.
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
        // Enough to find a planted bug: wakes that order nothing.
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
            // A wake makes two polls at most: one that the owner sees to, and one of its message, which is late.
            assert!(world.run() <= 5);
            wakers.into_iter().for_each(|waker| waker.join().unwrap());
        });
    }
}
