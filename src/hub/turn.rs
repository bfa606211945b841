//! The turn: what the native stack runs while it waits. The one loop that resumes green threads is [`Hub::run`].
//!
//! ```text
//!   inbox ─► callbacks ─► due queue, ready queue (128 resumes each, or 1 ms) ─► timers ─► poll, or sleep
//! ```
//!
//! The hub itself runs in the native context, and a green thread is resumed in its own. The labels of the invariants
//! are those of [`isolation`](crate::isolation) (ISO) and [`base`] (BASE).

use std::collections::VecDeque;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use super::callbacks::Callback;
use super::contexts::Kind;
use super::inbox;
use super::interrupt;
use super::observers::Event;
use super::pace::Share;
use super::report::{Reporter, call_user, complain, lines, report_panic};
use super::run_queue::List;
use super::scheduler::{Budget, Hub, running_id};
use super::shared::Message;
use super::stuck::{self, LoopExit};
use super::task::block::{Context, Stop, Stopped, Task, enter};
use super::task::body::with_own_locals;
use super::task::exit::end_green_thread;
use super::task::marks::{Marks, State};
use super::task::spawn::{Options, spawn};
use super::task::stackless::{runner_at_hand, runner_for};
use super::timers::Due;
use super::waiter::{Waiter, Wake};
use super::wake::unpark_here;
use crate::fiber::current;
use crate::sys::base;
use crate::sys::report::last_words;

/// The result of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turned {
    Again,
    /// The native task was woken: its code goes on.
    Native,
    /// Nothing can ever wake a task any more.
    Stuck,
}

/// Whether a turn may sleep.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum MaySleep {
    No,
    Yes,
}

impl Hub {
    /// Runs turns until the native task is woken.
    pub(super) fn pump(&'static self) {
        // From here on the code on the native stack is the hub's own, and may not park (HUB-11).
        self.queue.pumping.set(true);
        // The fibers of the native stack are not on the chain of the green threads that the turns resume (FIBER-2).
        let chain = current::set_aside();
        let turned = loop {
            match self.turn(MaySleep::Yes) {
                Turned::Again => {}
                end => break end,
            }
        };
        current::restore(chain);
        self.queue.pumping.set(false);
        // The native task's wait is over. Its code begins with a fresh budget, as after any resume.
        self.queue.native.state.set(State::Running);
        Budget::begin();
        if self.sleep.embedded.get() {
            // The foreign loop sleeps in the hub's place from here on, so senders must ring. A message that came
            // meanwhile shows in `next_deadline`.
            self.me.shared.inbox().fall_asleep(inbox::POLLING);
        }
        // Nothing may unwind out of a turn, so the panic is raised here.
        if turned == Turned::Stuck {
            self.give_up();
        }
    }

    /// Ends the park of the native stack by a panic, because nothing can wake it.
    #[cold]
    fn give_up(&'static self) -> ! {
        let mut report = format!(
            "this operation would block forever: nothing is ready, and no timer, descriptor or other thread can wake \
             the native stack, which waits for {}",
            self.queue.native.why()
        );
        for line in lines(self) {
            report.push_str("\n  ");
            report.push_str(&line);
        }
        let exit = LoopExit::new(report);
        // The park is over: waiters that were left for it are stale.
        self.queue.native.invalidate_ticket();
        complain(format_args!("{exit}"));
        // Unwinding would leave the scope and free what its children borrow, while they still run.
        if self.counters.scopes.get() > 0 {
            last_words(format_args!(
                "a scope on the native stack cannot be left while its green threads run: the process aborts"
            ));
            std::process::abort();
        }
        resume_unwind(Box::new(exit))
    }

    pub(super) fn turn(&'static self, sleep: MaySleep) -> Turned {
        // HUB-11: nothing may unwind out of a turn. Below it lie the frames of the code that pumps.
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                last_words(format_args!(
                    "the hub itself panicked, which is a fault of greenthread: the process aborts"
                ));
                std::process::abort();
            }
        }
        let bomb = Bomb;
        let turned = self.steps(sleep);
        std::mem::forget(bomb);
        turned
    }

    fn steps(&'static self, sleep: MaySleep) -> Turned {
        self.emit(|| Event::Turn);
        // Messages and callbacks first: the tasks that they wake run in this turn.
        if self.me.shared.inbox().is_pending() {
            self.take_messages();
        }
        self.run_callbacks();
        // Tasks that wait by asking get their next turn, behind the tasks that are ready.
        while let Some(task) = self.queue.later.pop() {
            self.queue.ready.push(task);
        }
        self.queue.ready.shuffle();
        // Tasks woken by a timer or a descriptor go first. If the native task comes up, the turn ends at once, and the
        // other tasks stay in their queues.
        if self.run(&self.queue.due) || self.run(&self.queue.ready) {
            self.native_came_up();
            return Turned::Native;
        }
        // While a task is ready the turn only looks at timers and descriptors. Otherwise it may sleep until there is an
        // event.
        if self.is_quiet() && sleep == MaySleep::Yes {
            return self.wait();
        }
        self.look_around();
        let only_askers = self.queue.is_empty_but_for_askers() && self.callbacks.is_empty();
        if !self.queue.later.is_empty() && only_askers && !self.me.shared.inbox().is_pending() {
            // Only tasks that wait by asking are left. What they ask for can only come from another OS thread, or with
            // time: let another OS thread run.
            crate::sys::thread::give_way();
        }
        Turned::Again
    }

    /// The native task came up, and the turn ended early. A native stack that yields in a loop would keep the turn from
    /// timers and descriptors, so look at them here now and then.
    fn native_came_up(&'static self) {
        let (must_look, asks) = self.pace.native_came_up();
        if must_look || asks && self.may_be_late() && self.is_late() {
            self.look_around();
        }
    }

    /// Fires the timers that are due and handles the descriptors that are ready, without sleeping.
    fn look_around(&'static self) {
        self.pace.forget_natives();
        let now = self.fire_timers();
        self.pace.looks(now);
        // A ring makes the descriptor of an embedded hub readable until the poller has looked at it: without that look
        // the foreign loop would not sleep again.
        if self.reactor.is_waited_for() || self.sleep.embedded.get() {
            self.poll(Some(Duration::ZERO));
        }
    }

    fn poll(&'static self, timeout: Option<Duration>) {
        let polled = self.looking(|| self.reactor.poll(self, timeout));
        if let Err(error) = polled {
            // The epoll descriptor itself is broken (closed by other code, for example): nothing can be waited for.
            panic!("the hub cannot wait for descriptors: {error}; was its epoll descriptor closed?");
        }
    }

    /// Fires the timers that are due. Returns the time, if the clock was read.
    fn fire_timers(&'static self) -> Option<u64> {
        if self.timers.is_empty() {
            return None;
        }
        let now = self.clock.now();
        let mut fire = |_, due| match due {
            Due::Park(task, ticket) => {
                self.wake_local(task.get(), ticket, Wake::TimedOut);
            }
            Due::Guard(task, id) => interrupt::expire(self, task, id),
            Due::Call(f) => self.queue_callback(*f),
        };
        // The timers are borrowed meanwhile: `fire` only queues tasks and callbacks (HUB-3).
        self.looking(|| self.timers.expire(now, &mut fire));
        Some(now)
    }

    /// Lets `f` look at timers and descriptors, which it borrows meanwhile. The observers are told afterwards which
    /// tasks it woke.
    fn looking<R>(&self, f: impl FnOnce() -> R) -> R {
        // The flag also puts tasks that are woken on the queue `due`.
        self.queue.looking.set(true);
        let result = f();
        self.queue.looking.set(false);
        if self.observers.any.get() {
            let deferred = self.observers.deferred.take();
            deferred.into_iter().for_each(|event| self.tell(event));
        }
        result
    }

    /// Runs the callbacks; the only place for code of the user on the hub's own stack. Callbacks that are added
    /// meanwhile wait for the next turn. So do the remaining ones once those of this turn have taken half a slice:
    /// green threads get the other half.
    fn run_callbacks(&'static self) {
        let count = self.callbacks.queue.borrow().len();
        let mut share = Share::default();
        for n in 0..count {
            if share.is_over(&self.clock, n) {
                return;
            }
            // The borrow ends before the call, which may add callbacks.
            let Some(f) = self.callbacks.queue.borrow_mut().pop_front() else {
                return;
            };
            if let Err(payload) = call_user(f) {
                report_panic(&Reporter::callback(), payload);
            }
        }
    }

    /// Handles messages of other OS threads, for half a slice at most. The messages that are left come first in the
    /// next turn.
    pub(super) fn take_messages(&'static self) {
        let mut messages = self.callbacks.messages.take();
        // The inbox is drained only when all messages taken before have been handled, so their order is kept.
        if messages.is_empty() {
            let mut fresh = Vec::from(messages);
            self.me.shared.inbox().drain(&mut fresh);
            messages = VecDeque::from(fresh);
        }
        let mut share = Share::default();
        for n in 0.. {
            if share.is_over(&self.clock, n) {
                break;
            }
            let Some(message) = messages.pop_front() else { break };
            match message {
                Message::Wake(task, ticket) => self.wake(Waiter::Task(task, ticket)),
                Message::Poll(task) => self.wake_stackless(task),
                Message::Kill(task, id) => interrupt::kill_here(self, task, id),
                Message::Unpark(task, id) => unpark_here(self, task, id),
                Message::Call(f) => {
                    self.counters.arrivals.set(self.counters.arrivals.get() + 1);
                    self.queue_callback(f);
                }
                Message::Internal(f) => f(),
                Message::Stop => self.stop(),
            }
        }
        // The inbox counts as pending, so that the hub does not sleep before it has handled the messages that are left.
        if !messages.is_empty() {
            self.me.shared.inbox().remind();
        }
        self.callbacks.messages.replace(messages);
        // A caught signal is not a message: its handler only marks the inbox as pending.
        #[cfg(feature = "monkey")]
        self.look_at_signals();
    }

    pub(super) fn stop(&'static self) {
        for waiter in self.sleep.forever.take() {
            self.wake(waiter);
        }
    }

    /// No task is ready: sleeps in the kernel until there may be something to do.
    #[cold]
    fn wait(&'static self) -> Turned {
        // What is due now runs without a sleep.
        self.fire_timers();
        if !self.is_quiet() {
            return Turned::Again;
        }
        // A virtual clock jumps below, and must not jump past events that are there already.
        if self.reactor.is_waited_for() && self.clock.is_virtual() {
            self.poll(Some(Duration::ZERO));
        }
        // One waiter of `idle` is woken at a time, and only if there is nothing else to do.
        if !self.is_quiet() || self.wake_idlers() {
            return Turned::Again;
        }
        // A virtual clock jumps to the next deadline instead of sleeping; but not while other OS threads work for this
        // hub.
        let next = self.timers.next(self.clock.is_virtual());
        if let Some(at) = next
            && !self.sleep.has_offloaded()
            // The hub's own handles send messages too, which come before any later time.
            && !self.me.shared.inbox().is_pending()
            && self.clock.jump_to(at)
        {
            self.fire_timers();
            return Turned::Again;
        }
        let timeout = next.map(|at| Duration::from_nanos(at.saturating_sub(self.clock.now())));
        // Tidying takes time: not if a timer is due soon.
        let at_leisure = timeout.is_none_or(|timeout| timeout > Duration::from_millis(2));
        if at_leisure && self.tidy() {
            // There is more to tidy: only look at what has come meanwhile, without a sleep.
            if self.reactor.has_poller() {
                self.poll(Some(Duration::ZERO));
            }
            return Turned::Again;
        }
        // No timer, no descriptor and no work elsewhere: only a message of another OS thread could wake a task.
        let hopeless = timeout.is_none() && !self.reactor.is_waited_for() && !self.sleep.has_offloaded();
        let timeout = match self.until_tidy() {
            // A hub without hope wakes now and then anyway, to look whether all others are idle.
            Some(tidy) if at_leisure && !hopeless => Some(timeout.map_or(tidy, |timeout| timeout.min(tidy))),
            _ => timeout,
        };
        self.sleep_in_kernel(timeout, hopeless)
    }

    fn sleep_in_kernel(&'static self, timeout: Option<Duration>, hopeless: bool) -> Turned {
        let by_poller = self.reactor.has_poller();
        let how = if by_poller { inbox::POLLING } else { inbox::PARKED };
        // From here on a sender rings. If a message came before that, do not sleep (HUB-7).
        if !self.me.shared.inbox().fall_asleep(how) {
            // Messages that keep coming keep the hub from sleeping, and only in its sleep would it look at the
            // descriptors.
            if self.reactor.is_waited_for() && self.is_late() {
                self.pace.looks(None);
                self.poll(Some(Duration::ZERO));
            }
            return Turned::Again;
        }
        // Only a message or the hub's own patience ends this sleep: other hubs may count this OS thread as idle
        // (`stuck.rs`).
        if hopeless {
            self.sleep.registered.rest();
        }
        // `run_forever` may wait for a `stop` for as long as it likes: no `LoopExit`.
        let waits_forever = !self.sleep.forever.borrow().is_empty();
        let patience = if hopeless && !waits_forever {
            Some(self.sleep.patience.take().unwrap_or(stuck::PATIENCE))
        } else {
            None
        };
        let timeout = timeout.or(patience);
        if by_poller {
            self.poll(timeout);
        } else {
            crate::sys::thread::park(timeout);
        }
        // Senders need not ring any more: the next turn looks at the inbox.
        self.me.shared.inbox().wake_up();
        self.pace.begin_after_sleep();
        let quiet = self.is_quiet() && !self.me.shared.inbox().is_pending();
        if let Some(patience) = patience
            && quiet
        {
            // This hub's own inbox last: a message that a resting OS thread sent here before it rested has arrived.
            if stuck::all_others_idle() && !self.me.shared.inbox().is_pending() {
                self.sleep.registered.rise();
                return Turned::Stuck;
            }
            // Another OS thread is busy, and may hold the other end of the wait: look again, less and less often.
            self.sleep
                .patience
                .set(Some((patience * 2).min(Duration::from_secs(2))));
        } else {
            self.sleep.patience.set(None);
        }
        // Before the next turn takes a message: the proof in `stuck.rs` needs this order.
        self.sleep.registered.rise();
        Turned::Again
    }

    fn wake_idlers(&'static self) -> bool {
        let waiter = self.sleep.idlers.borrow_mut().pop_front();
        waiter.map(|waiter| self.wake(waiter)).is_some()
    }
}

/// Resuming.
impl Hub {
    /// Resumes the tasks of a list in order, at most a batch; `true` if the native task comes up.
    #[inline]
    fn run(&'static self, list: &List) -> bool {
        self.pace.begin_batch();
        let mut next = None;
        while let Some(task) = next.take().or_else(|| self.pop_within(list)) {
            if std::ptr::eq(task, self.queue.native) {
                return true;
            }
            // A stackless task runs on a runner. If there is no memory for a runner, the task is lost.
            let Some(task) = self.with_stack(task) else { continue };
            self.emit(|| Event::Resume(task.id()));
            if task.context.get().is_some() {
                // This also resumes the next tasks of the list that have contexts, and returns the first task that it
                // cannot run.
                next = self.run_in_contexts(task, list);
            } else {
                self.resume(task);
            }
        }
        false
    }

    /// Resumes `first` and then further tasks of the list, as long as they have contexts and the batch lasts. Returns a
    /// task that it took from the list and cannot run.
    ///
    /// From one task to the next the base is changed once, or not at all if both are in the same context.
    #[inline(never)]
    fn run_in_contexts(&'static self, first: &'static Task, list: &List) -> Option<&'static Task> {
        // BASE-2: no thread-local may be used here. The code that uses one is in functions that are never inlined.
        let mut base = Base::native(self);
        let mut task = first;
        loop {
            let Some((context, is_new)) = self.contexts.lease(task) else {
                // There is no memory for a context, or isolation was turned off since the spawn: the caller resumes the
                // task in the native context.
                return Some(task);
            };
            task.state.set(State::Running);
            self.queue.current.set(Some(task));
            // Directly from the base of the task before, not by way of the native one.
            base.change(context.base());
            let stop = if is_new {
                begin(self, task, context)
            } else {
                go_on(task)
            };
            self.queue.current.set(None);
            // The task has ended. Its end belongs to the hub, and runs in the native context (ISO-1).
            if let Stop::Ended(stopped) = stop {
                base.change(base.native);
                end(self, stopped);
            }
            // The caller tells the observer of each resume, in the native context.
            if self.observers.any.get() {
                return None;
            }
            // A task without a context, the native task or a stackless one that needs a new runner goes back to the
            // caller: making a runner uses thread-locals.
            match self.pop_within(list) {
                Some(next) if next.context.get().is_some() => match self.stack_at_hand(next) {
                    Some(next) => task = next,
                    None => return Some(next),
                },
                other => return other,
            }
        }
    }

    /// Resumes a green thread of the native context until it parks, yields or ends.
    #[inline(always)]
    pub(super) fn resume(&'static self, task: &'static Task) {
        task.state.set(State::Running);
        self.queue.current.set(Some(task));
        Budget::begin();
        // SAFETY: the task is new or suspended: the turn took it from a list, or the end of the hub from the runners at
        // rest. It runs in the native context, so its thread-locals are in use.
        let stop = unsafe { enter(task) };
        self.queue.current.set(None);
        if let Stop::Ended(stopped) = stop {
            end_green_thread(self, stopped);
        }
    }

    /// The next task, if the turn has a resume left for it.
    #[inline(always)]
    fn pop_within(&self, list: &List) -> Option<&'static Task> {
        if !list.is_empty() && (self.pace.takes_resume() || self.begins_stride()) {
            list.pop()
        } else {
            None
        }
    }

    /// The stride is over: begins the next one and takes a resume from it, unless the batch is over or the turn is
    /// late.
    #[cold]
    #[inline(never)]
    fn begins_stride(&self) -> bool {
        self.pace.begins_stride(self.may_be_late().then_some(&self.clock))
    }

    /// What to resume when `task` has come up: the task itself if it has a stack, or else a runner. `None`: there is no
    /// memory for a runner, and the task is lost.
    #[inline(always)]
    fn with_stack(&'static self, task: &'static Task) -> Option<&'static Task> {
        if task.marks.get(Marks::STACKLESS) {
            runner_for(self, task)
        } else {
            Some(task)
        }
    }

    /// Like [`with_stack`](Self::with_stack), but gives `None` if a runner would have to be made. Uses no thread-local.
    #[inline(always)]
    fn stack_at_hand(&self, task: &'static Task) -> Option<&'static Task> {
        if task.marks.get(Marks::STACKLESS) {
            runner_at_hand(self, task)
        } else {
            Some(task)
        }
    }
}

/// The base in use. Its drop changes back to the native one.
struct Base {
    native: usize,
    now: usize,
}

impl Base {
    #[inline(always)]
    fn native(hub: &Hub) -> Base {
        let native = hub.contexts.pool.native();
        Base { native, now: native }
    }

    #[inline(always)]
    fn change(&mut self, to: usize) {
        if to != self.now {
            // SAFETY: BASE-1: `to` is the native base, or that of a context of this hub. BASE-2: neither
            // `run_in_contexts`, which is never inlined, nor this function, which is always inlined into it, uses a
            // thread-local.
            unsafe {
                // malloc's words belong to the OS thread, so they travel with the base.
                base::carry(self.now, to);
                base::set(to);
            }
            self.now = to;
        }
    }
}

impl Drop for Base {
    #[inline(always)]
    fn drop(&mut self) {
        self.change(self.native);
    }
}

#[inline(never)]
fn begin(hub: &'static Hub, task: &'static Task, context: &Context) -> Stop {
    plant(hub, context);
    Budget::begin();
    // SAFETY: the turn took the task from a queue, and it has not run: so it is new. Its context was just entered, so
    // its thread-locals are in use.
    unsafe { enter(task) }
}

#[inline(never)]
fn go_on(task: &'static Task) -> Stop {
    Budget::begin();
    // SAFETY: the task is suspended, or new in a context that another task has begun: the turn took it from a queue, or
    // it is a runner for a stackless task from there. `run_in_contexts` has just entered its context, so its
    // thread-locals are in use.
    unsafe { enter(task) }
}

#[inline(never)]
fn end(hub: &'static Hub, stopped: Stopped) {
    end_green_thread(hub, stopped);
}

/// Begins a context, from inside: plants what is the same in all contexts of this OS thread (ISO-4).
fn plant(hub: &'static Hub, context: &Context) {
    context.begin();
    Hub::plant(Some(hub));
    current::set_green(running_id);
    // SAFETY: the pool of stacks ends with the native thread-locals. The hub ends with them too, and enters no context
    // after that.
    unsafe { crate::stack::plant(hub.contexts.stacks) };
}

impl Hub {
    /// Makes `f` a callback that runs in the current context. The callback is a member of the context until it has run.
    pub(super) fn in_context(&'static self, f: impl FnOnce() + 'static) -> Callback {
        let Some(context) = self.context() else {
            return Box::new(f);
        };
        // As a member from now on, the callback keeps the context from ending before it has run.
        context.join();
        // If the callback is dropped without having run, `f` is leaked: the OS thread ends, and no context can be
        // entered any more in which `f` could be dropped.
        let f = ManuallyDrop::new(f);
        Box::new(move || {
            let before = self.contexts.of_callback.replace(Some(context));
            // SAFETY: ISO-1: the hub runs callbacks in the native context, and no panic leaves the closure.
            let result = unsafe {
                context.enter(|| {
                    // The locals of the native stack belong to another context, and need not be `Send`: `f` gets locals
                    // of its own.
                    let f = || catch_unwind(AssertUnwindSafe(ManuallyDrop::into_inner(f)));
                    let result = with_own_locals(self.queue.native, f);
                    // The last member runs the context's destructors, which may park. A callback may not, so make an
                    // empty green thread the last member.
                    let bare = Options {
                        is_bare: true,
                        ..Options::default()
                    };
                    if context.is_last()
                        && spawn(self, Kind::Local, Some(bare), self.queue.native.place(), || ()).is_err()
                    {
                        complain(format_args!(
                            "no memory to run the destructors of a green thread's thread-locals: they are leaked"
                        ));
                        // An extra member that never leaves: the destructors never run.
                        context.join();
                    }
                    context.release();
                    result
                })
            };
            self.contexts.of_callback.set(before);
            // Raised again only in the native context: a panic must not cross `enter` (ISO-1).
            if let Err(payload) = result {
                resume_unwind(payload);
            }
        })
    }
}
