//! Stackless tasks: futures that take their turn among the green threads, and the *runners* that lend them a stack.
//!
//! A stackless task is a block like any other: it waits in the ready queue, ends, is joined, killed and lost as a green
//! thread is. In place of a fiber it has a boxed future. When its turn comes, the hub resumes a runner in its place: a
//! green thread of the task's context, which polls it once. If the future blocks, the runner simply parks within the
//! poll, and the next task gets another runner.
//!
//! ```text
//!   ready queue ─► task (STACKLESS) ─► with_stack ─► a runner that rests, or a new one ─► poll ─► the runner rests
//! ```
//!
//! A waker is the address of the block, so it costs nothing to make, clone or drop. It may outlive the task.
//!
//! # Invariants
//! - **K1** The field `fiber` of a block with the mark `STACKLESS` holds a [`Work`], from `start_future` until the
//!   future is dropped.
//! - **K2** `WOKEN` is set by a waker, and cleared by the owner before each poll. The waker that sets the bit makes
//!   sure that there is a poll: it queues the task if the task waits, and otherwise the owner finds the bit after the
//!   poll. A waker of an older life causes one poll too many at worst: `prepare` clears the bit after it has set the
//!   hub, so a waker that sets the bit later sends to the hub of this life.
//! - **K3** A runner is resumed for the task in `assigned`, and takes it from there at once. If there is none, the
//!   runner ends.
//! - **K4** While a runner polls a task, it has that task's number, shield, time-outs, locals and kill. So what a task
//!   leaves there between two polls never reaches another task.
//! - **K5** While a stackless task is `Running`, its `depth` is the runner that polls it. Otherwise `depth` is the
//!   address of the future.

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
    __rust_begin_short_backtrace, AtomicU8, Body, DETACHED, Ended, Join, Marks, RemoteSpawn, Settle, State, Task,
    TaskRef, WOKEN, end, end_locals, enqueue, lay, leave, lose, prepare, settle_slot,
};
use crate::hub::context::{self, Kind};
use crate::hub::park::{Wake, Why};
use crate::hub::remote::Message;
use crate::hub::{Hub, Reporter, interrupt, report_panic};
use crate::stack::Stack;
use crate::tls::Context;

static WAKE: &str = "its waker (a future)";

/// How many runners of the native context are kept at rest.
const RESTS: usize = 16;

/// The future. It leaves its result in the slot, and returns the function that drops the result.
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
        // SAFETY: T3: the slot is the owner's until `DONE`, and it is empty, because the future returns only once.
        unsafe { leave(task, value, Ended::Returned) };
        settle_slot::<F::Output> as Settle
    });
    task.marks.set(Marks::STACKLESS, true);
    let context = context::for_spawn(hub, Kind::Local);
    // Counted so that the context's runner at rest ends with the last task (`finish`).
    context.inspect(|context| context.tasks().set(context.tasks().get() + 1));
    task.context.set(context);
    task.depth.set((&raw const *work).cast());
    // SAFETY: the block is fresh: no fiber lies there that this would overwrite, and no other code knows the block. The
    // assertion above says that a `Work` fits there (K1).
    unsafe { task.fiber.get().cast::<Work>().write(work) };
    enqueue(hub, task);
}

impl<F: Future + 'static> RemoteSpawn<F> {
    /// Starts the future as a stackless task, on its owner's OS thread.
    pub(crate) fn adopt_future(mut self, hub: &'static Hub) {
        if let Some(future) = self.body.take() {
            hub.arrivals.set(hub.arrivals.get() + 1);
            start_future(hub, self.task.0, future);
            std::mem::forget(self);
        }
    }
}

/// The task to resume for one that has come up: itself if it has a stack, or else a runner. `None`: there is no memory
/// for a runner, and the task is lost.
#[inline(always)]
pub(in crate::hub) fn with_stack(hub: &'static Hub, task: &'static Task) -> Option<&'static Task> {
    if task.marks.get(Marks::STACKLESS) {
        runner_for(hub, task)
    } else {
        Some(task)
    }
}

/// The same if no runner has to be made for it. Uses no thread-local.
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
    // The runner goes by the task's number and place while it polls it (K4).
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
                // This is the end of the task as in `end`, but the future is leaked: its drop is code of the user, and
                // wants a stack.
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

/// Takes a runner that rests in this context; it is ready to be resumed.
#[inline]
fn take_resting(hub: &Hub, context: Option<&'static Context>) -> Option<&'static Task> {
    let runner = match context {
        None => {
            let runner = hub.resting.get()?;
            hub.resting.set(runner.next.take());
            hub.rests.set(hub.rests.get() - 1);
            runner
        }
        // SAFETY: the pointer is null, or `rest` put the address of a block there. Blocks are never freed.
        Some(context) => unsafe { context.rest().replace(ptr::null()).cast::<Task>().as_ref() }?,
    };
    runner.marks.clear();
    Some(runner)
}

/// Lays a runner to rest; `false` if the runner is to end instead. In a context other than the native one a runner
/// rests only while there are stackless tasks, because it is a member and keeps the context alive.
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

/// Ends the runners of the native context with their stacks, because the OS thread ends.
pub(in crate::hub) fn end_runners(hub: &'static Hub) {
    let chain = crate::fiber::current::set_aside();
    while let Some(runner) = take_resting(hub, None) {
        // Nothing is assigned, so the runner ends (K3).
        super::resume(hub, runner);
    }
    crate::fiber::current::restore(chain);
}

/// Makes a runner. It has no join, and it does not count as live: the task that it polls does.
#[cold]
fn new_runner(hub: &'static Hub, context: Option<&'static Context>) -> io::Result<&'static Task> {
    let stack = Stack::new(crate::stack::default_size())?;
    let runner = take_block(hub);
    prepare(runner, hub.next_id(), hub.shared, Location::caller());
    // No join will look at its result: the runner's block is recycled at its end.
    runner.join.store(DETACHED, Ordering::Release);
    // A member: the context stays as long as its runner does, so a task is never the last to leave (`finish`).
    runner.context.set(context.inspect(|context| context.join()));
    let own = runner.id();
    lay(runner, stack, move || run_assigned(hub, runner, own));
    runner.state.set(State::New);
    hub.emit(|| crate::hub::Event::Spawn(runner.id()));
    Ok(runner)
}

/// The body of a runner with the number `own`: polls the tasks that it is assigned, one after the other.
fn run_assigned(hub: &'static Hub, runner: &'static Task, own: u64) {
    /// Counts the runner as live just before its end, which takes one off.
    struct Counts(&'static Hub);
    impl Drop for Counts {
        fn drop(&mut self) {
            self.0.live.set(self.0.live.get() + 1);
        }
    }
    let _counts = Counts(hub);
    while let Some(task) = hub.assigned.take() {
        poll_once(hub, runner, task);
        // From here on the runner goes by its own number again.
        runner.id.set(own);
        if !rest(hub, runner) {
            return;
        }
        // The turn resumes the runner with its next task in `assigned`, or with none.
        runner.suspend();
    }
}

/// Polls a stackless task once, on the stack of its runner.
fn poll_once(hub: &'static Hub, runner: &'static Task, task: &'static Task) {
    task.state.set(State::Running);
    // K5, and then K4: from here on a kill goes to the runner, see `interrupt_target`.
    let depth = task.depth.replace(ptr::from_ref(runner).cast());
    swap_task_state(runner, task);
    // A kill that came while the task waited ends it without another poll.
    let result = if interrupt::is_killed(runner) {
        Err(interrupt::killed_payload())
    } else {
        // Before the poll: a wake that comes from here on sets the bit again, and the future is polled once more.
        clear_woken(&task.join);
        catch_unwind(AssertUnwindSafe(|| {
            // SAFETY: K1: the future is there. Only the runner that was assigned this task comes here, and the task is
            // in no queue meanwhile, so this is the only reference.
            let work = unsafe { &mut *task.fiber.get().cast::<Work>() };
            let waker = waker(task);
            __rust_begin_short_backtrace(|| work.as_mut().poll(&mut PollContext::from_waker(&waker)))
        }))
    };
    match result {
        Ok(Poll::Pending) if !interrupt::is_killed(runner) => {
            // Back from K4 and K5, before the task may be queued and polled by another runner.
            swap_task_state(runner, task);
            task.depth.set(depth);
            wait(hub, task);
        }
        // A kill came during the poll, and the future has not unwound for it: the task ends now.
        Ok(Poll::Pending) => finish(hub, runner, task, Err(interrupt::killed_payload())),
        Ok(Poll::Ready(settle)) if interrupt::is_told_kill(runner) => {
            // A patched call told the future of its kill, and the future has returned. As for a green thread the task
            // counts as killed. The value is dropped, because it need not be `Send`.
            settle(task);
            finish(hub, runner, task, Err(interrupt::killed_payload()));
        }
        Ok(Poll::Ready(settle)) => finish(hub, runner, task, Ok(settle)),
        Err(payload) => finish(hub, runner, task, Err(payload)),
    }
}

/// The task that takes the kill of `task`: itself, or its runner if it is stackless and being polled (K4).
#[inline]
pub(in crate::hub) fn interrupt_target(task: &'static Task) -> &'static Task {
    if task.marks.get(Marks::STACKLESS) && task.state.get() == State::Running {
        // SAFETY: K5: the pointer is null or the address of the runner's block, and blocks are never freed.
        unsafe { task.depth.get().cast::<Task>().as_ref() }.unwrap_or(task)
    } else {
        task
    }
}

/// Exchanges the fields that code in a poll may read or change (K4): the runner gets those of the task, or its own
/// again.
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

/// Called by the owner before a poll (K2). Acquires what was done before the wakes that set the bit.
#[inline(always)]
fn clear_woken(join: &AtomicU8) {
    if is_woken(join) {
        join.fetch_and(!WOKEN, Ordering::AcqRel);
    }
}

/// Looked at by the owner after a poll, once the task counts as waiting (K2).
#[inline(always)]
fn is_woken(join: &AtomicU8) -> bool {
    join.load(Ordering::Acquire) & WOKEN != 0
}

/// Called by a waker (K2). `true` if the bit was not set before, so that the caller is to cause a poll. Releases what
/// was done before the wake, even if the bit was set already.
#[inline(always)]
fn set_woken(join: &AtomicU8) -> bool {
    join.fetch_or(WOKEN, Ordering::AcqRel) & WOKEN == 0
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
    // From here on no kill or time-out is delivered to this task.
    runner.shield.set(u8::MAX / 2);
    // SAFETY: K1: the future is there. It is read only here, and the block's copy is never used again.
    let work = unsafe { task.fiber.get().cast::<Work>().read() };
    // Dropped on the runner's stack and in the task's context, as code of the user must be.
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
            // SAFETY: T3: the slot is the owner's until `DONE`, and it is empty, because the future has not returned.
            unsafe { leave(task, payload, Ended::Panicked) };
            settle_slot::<()> as Settle
        }
    };
    if runner.has_cold() {
        end_locals(runner);
    }
    // No join will take the result: drop it here, not on the hub's own stack.
    if task.join.load(Ordering::Acquire) & DETACHED != 0 {
        settle(task);
    }
    // The task is over: the runner gets its own fields back (K4).
    swap_task_state(runner, task);
    if let Some(context) = task.context.get() {
        // This is never the last member, because the runner is one.
        context.leave();
        context.tasks().set(context.tasks().get() - 1);
        if context.tasks().get() == 0
            && let Some(runner) = take_resting(hub, Some(context))
        {
            // No stackless task is left in this context. The runner at rest ends, because nothing is assigned to it: as
            // a member it would keep the context forever.
            runner.state.set(State::Ready);
            hub.ready.push(runner);
        }
    }
    end(hub, task, Some(settle));
}

impl Hub {
    /// Queues a stackless task of which a waker was called.
    pub(in crate::hub) fn wake_stackless(&self, task: TaskRef) {
        // The waker may be of an older life, so look at what the block is now.
        if let Some(task) = self.own(task)
            && task.marks.get(Marks::STACKLESS)
            && task.state.get() == State::Parked
        {
            // A task that runs is not queued: its owner looks at `WOKEN` after the poll (`wait`).
            self.wake_local(task, task.ticket.load(Ordering::Relaxed), Wake::Ready);
        }
    }
}

static VTABLE: RawWakerVTable = RawWakerVTable::new(|task| RawWaker::new(task, &VTABLE), wake, wake, |_| ());

#[inline]
fn waker(task: &'static Task) -> Waker {
    // SAFETY: blocks are never freed, so the address is valid forever. The functions of the vtable may run on any OS
    // thread, because they use atomics alone until they are on the owner's (T5).
    unsafe { Waker::from_raw(RawWaker::new(ptr::from_ref(task).cast(), &VTABLE)) }
}

/// Whether a waker is that of a stackless task, so that calling it runs no code of the user.
#[inline]
pub(in crate::hub) fn is_ours(waker: &Waker) -> bool {
    ptr::eq(waker.vtable(), &VTABLE)
}

/// The task of a waker, if it is a stackless one. The task may have ended, and its block may serve another.
#[inline]
pub(in crate::hub) fn of_waker(waker: &Waker) -> Option<TaskRef> {
    // SAFETY: the vtable says that `waker` made this, so the data is the address of a block. Blocks are never freed.
    is_ours(waker).then(|| TaskRef(unsafe { &*waker.data().cast::<Task>() }))
}

/// # Safety
/// `task` is the data of a waker made by [`waker`].
unsafe fn wake(task: *const ()) {
    // SAFETY: the caller guarantees that `task` is the address of a block. Blocks are never freed.
    let task: &'static Task = unsafe { &*task.cast::<Task>() };
    // If the bit was set already, its setter causes the poll, and that poll will see what this caller has done.
    if !set_woken(&task.join) {
        return;
    }
    match (task.shared(), Hub::try_current()) {
        // The hub is read after the bit was set: so it is the hub of the life in which the bit counts (K2).
        (Some(shared), Some(hub)) if ptr::eq(shared, hub.shared) && !hub.is_among_others() => {
            hub.wake_stackless(TaskRef(task));
        }
        (Some(shared), _) => shared.send(Message::Poll(TaskRef(task))),
        // The block is free: the task has ended.
        (None, _) => {}
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::hub::inbox::{AWAKE, Inbox, PARKED};
    use loom::sync::{Arc, Condvar, Mutex, atomic::AtomicBool};

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

        /// Polls until all flags are set; gives the number of polls.
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
