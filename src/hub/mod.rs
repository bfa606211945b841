//! The hub: one per OS thread, made when something first needs it. It runs green threads, fires timers, waits for
//! descriptors and takes messages from other OS threads, one *turn* after another.
//!
//! There is no hub to start: whenever the native stack (`main`, say) blocks in this crate, it *pumps*: it runs turns
//! until its own wait is over.
//!
//! ```
//! use greenthread::{hub, spawn};
//!
//! let answer = spawn(|| 6 * 7);           // queued, not yet run
//! assert_eq!(answer.join().unwrap(), 42); // main blocks here, and so the hub turns
//! assert!(!hub::is_running());
//! ```
//!
//! What other OS threads may do is in [`Handle`]. A hub inside a foreign loop: [`as_fd`], [`next_deadline`], [`turn`].
//! The states, the wake protocol and its invariants are told in `src/hub/README.md`.
//!
//! It waits with `epoll` itself, in one system call. With `GREEN_LOOP=polling` in the environment it goes through the portable
//! interface of the crate `polling` instead, which takes five, and is the same to everybody above.
//!
//! # After its end
//! The hub ends with its OS thread, as a destructor of a thread-local. Those of thread-locals that were used before it run
//! after that (and for main, after `main` has returned). What they may expect of this crate:
//!
//! | what | after the hub's end |
//! |---|---|
//! | [`sleep`](crate::sleep()), `sleep_until`, `sleep_async`, [`Interval`](crate::time::Interval), [`yield_now`](crate::yield_now), [`idle`], [`stop`] | return at once |
//! | every wait with a deadline: `recv_timeout`, `lock_timeout`, `wait_timeout`, `get_timeout`, `join_timeout`, `park_timeout`, `select!` with `after` … | takes what is there; else its time is over at once |
//! | a wait without one: a lock, a permit, a message, `block_on`, `join` of another hub's, `iwait` | takes what is there; else panics (`join`: an error with [`is_interrupted`](crate::thread::JoinError::is_interrupted)) |
//! | [`join`](crate::JoinHandle::join) of this hub's green threads | [`is_lost`](crate::thread::JoinError::is_lost), as they are; `on_exit` calls here and now |
//! | [`timeout`](crate::timeout), [`Timeout`](crate::time::Timeout) | runs its closure; the time never comes ([`remaining`](crate::time::Timeout::remaining) is `Duration::MAX`) |
//! | [`shield`](crate::thread::shield), [`catch_kill`](crate::thread::catch_kill), [`unblock`](crate::threadpool::unblock) | run their closure, here |
//! | what gives an `io::Result`: sockets, [`Async`](crate::io::Async), `connect`, `accept`, `wait_readable`, [`Builder::spawn`](crate::thread::Builder::spawn), servers' `start`, [`as_fd`], [`Builder::install`] | does what the kernel does at once; else `NotConnected` |
//! | [`Handle`] | `NotConnected` |
//! | [`shutdown`], [`live`], [`next_deadline`] | nobody is left |
//! | [`Promise::on_set`](crate::sync::Promise::on_set), [`PoolFuture::on_done_soon`](crate::threadpool::PoolFuture::on_done_soon) | call nobody |
//! | [`ReentrantLock`](crate::sync::ReentrantLock), `Once`, `OnceLock`, `LazyLock` | as before |
//! | [`spawn`](crate::spawn()), `spawn_local`, [`run`](crate::run), [`scope`](crate::scope()), [`future::spawn`](crate::future::spawn), [`thread::current`](crate::thread::current), `park`, [`handle`], [`call_soon`], [`run_forever`], [`turn`], [`set_hook`], [`dump`](crate::debug::dump), `green_local!`, `channel::{after, at, tick}`, [`aio`](crate::aio)'s loop, `ThreadPool::shutdown` that has to wait | panic: "the hub of this OS thread has ended" |
//!
//! A panic in a destructor of a thread-local aborts the process: catch it there, or drop such things before. A generator or
//! greenlet that is kept in such a thread-local may go on in its destructor, wherever it has stopped.
//!
//! # What it says on stderr
//! A panic that nobody joins for, a handler of a server that failed, a [`LoopExit`]: a line each, which begins with
//! `greenthread: `. No hub waits for stderr: what it does not take at once an OS thread writes, up to 256 KiB, and at the end
//! of the process it has 200 ms more. Of one kind there are at most 32 lines a second; how many were left out is told. std's
//! own message of a panic is written as std does it, in the green thread that panics, unless you call
//! [`write_panics_aside`].
//!
//! # One turn
//! ```text
//!   inbox ─► callbacks ─► ready queue (128 resumes, or 1 ms) ─► timers ─► poll, sleeping if nothing is ready
//! ```

pub(crate) mod alarm;
pub(crate) mod budget;
mod callback;
#[cfg(feature = "monkey")]
pub(crate) mod caught;
pub(crate) mod choice;
mod clock;
pub(crate) mod context;
mod end;
mod hooks;
pub(crate) mod hubs;
mod inbox;
mod leisure;
pub(crate) mod name;
pub(crate) mod interrupt;
pub(crate) mod links;
pub(crate) mod park;
pub(crate) mod polled;
mod poller;
mod public;
pub(crate) mod reactor;
mod ready;
mod report;
pub(crate) mod remote;
mod slot;
pub(crate) mod spin;
pub(crate) mod stuck;
pub(crate) mod task;
mod timer;
mod wakers;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::panic::{Location, resume_unwind};
use std::time::Duration;

use budget::Budget;
use end::{AFTER_END, End};
pub(crate) use end::{deadline_at, deadline_in, ended, is_past, who};
pub use hooks::{Event, set_hook};
pub(crate) use hooks::{Watch, set_watch};
pub use hubs::Hubs;
pub use public::*;
pub use remote::{CallHandle, Handle};
pub use stuck::LoopExit;

use crate::fiber::current;
use clock::Clock;
use park::{Waiter, Wake};
use remote::{Message, Shared};
pub(crate) use report::{
    Reporter, call_user, complain, discard, line, lines, named, probe_all, report_panic, traced_lines,
};
use task::{Marks, State, Task, TaskRef};

use crate::sys::report::last_words;
use crate::tls::{self, Context};

/// What a timer does when it is due.
pub(crate) enum Due {
    /// Ends the park (task, ticket).
    Park(TaskRef, u64),
    /// Expires guard `id` of the task.
    Guard(TaskRef, u64),
    /// Calls back.
    Call(Box<Box<dyn FnOnce()>>),
}

/// The timers, behind a cell: nothing here runs code of others.
pub(crate) struct Timers(RefCell<timer::Wheel<Due>>);

impl Timers {
    #[cfg(feature = "monkey")]
    fn is_borrowed(&self) -> bool {
        self.0.try_borrow_mut().is_err()
    }

    #[inline]
    fn insert(&self, deadline: u64, due: Due) -> timer::Key {
        self.0.borrow_mut().insert(deadline, due)
    }

    #[inline]
    pub(crate) fn remove(&self, key: timer::Key) {
        let due = self.0.borrow_mut().remove(key);
        if let Some(Due::Call(f)) = due {
            discard(f);
        }
    }

    #[inline]
    fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    /// Drops all that are left: the hub has ended.
    fn end(&self) {
        let mut left = Vec::new();
        self.0.borrow_mut().expire(u64::MAX, &mut |_, due| left.push(due));
        left.into_iter().for_each(discard);
    }

    /// When to look again: exactly at the next deadline, or where several may be served at once.
    fn next(&self, exactly: bool) -> Option<u64> {
        let wheel = self.0.borrow();
        if exactly {
            wheel.next_deadline()
        } else {
            wheel.next_wake()
        }
    }
}

type Callback = Box<dyn FnOnce()>;

/// What one OS thread's scheduler consists of.
pub(crate) struct Hub {
    pub(crate) shared: &'static Shared,
    ready: ready::Ready,
    /// Woken by a timer or a descriptor: they go before those who were ready, or a crowd would make them late.
    due: ready::Ready,
    /// Those that wait by asking again and again: ready once the turn has looked at timers and descriptors.
    later: ready::Ready,
    /// Timers and descriptors are being looked at.
    looking: Cell<bool>,
    /// When they were last looked at, by the hub's clock; none if that is not known.
    looked: Cell<Option<u64>>,
    /// Resumes between two looks at the clock; those that are left until the next look, and in the batch after that.
    stride: Cell<u32>,
    in_stride: Cell<u32>,
    in_batch: Cell<u32>,
    /// Turns in a row that ended because the native task came up.
    natives: Cell<u32>,
    /// The green thread on the processor; none while the native stack runs.
    current: Cell<Option<&'static Task>>,
    native: &'static Task,
    pumping: Cell<bool>,
    /// Whose thread-locals the callback that runs has.
    lent: Cell<Option<&'static Context>>,
    pub(crate) contexts: tls::Pool,
    stacks: Option<crate::stack::Home>,
    /// How many callbacks have not returned; [`is_in_callback`](Hub::is_in_callback) knows of whom.
    in_callback: Cell<usize>,
    frames: RefCell<Vec<callback::Frame>>,
    live: Cell<usize>,
    free: Cell<Option<&'static Task>>,
    /// The stackless task that the runner which is resumed now is to poll.
    assigned: Cell<Option<&'static Task>>,
    /// Runners of the native context that have nothing to poll, and how many.
    resting: Cell<Option<&'static Task>>,
    rests: Cell<usize>,
    ids: Cell<(u64, u64)>,
    guards: Cell<u64>,
    pub(crate) timers: Timers,
    leisure: leisure::Leisure,
    pub(crate) clock: Clock,
    pub(crate) reactor: reactor::Reactor,
    /// Of patched calls.
    #[cfg(all(feature = "monkey", target_os = "linux"))]
    pub(crate) accepts: crate::sys::uring::Accepts,
    callbacks: RefCell<VecDeque<Callback>>,
    taken: RefCell<VecDeque<Message>>,
    idlers: RefCell<VecDeque<Waiter>>,
    /// Those in `run_forever`.
    forever: RefCell<Vec<Waiter>>,
    /// To be told when there are no green threads left.
    emptied: RefCell<Vec<hubs::Told>>,
    /// Green threads and calls that other OS threads sent.
    arrivals: Cell<u64>,
    /// Parks that unwind meanwhile, and how many there ever were.
    leaks: Cell<usize>,
    leaked: Cell<usize>,
    /// Work of this hub that other OS threads do and will send word of.
    pub(crate) abroad: Cell<usize>,
    patience: Cell<Option<Duration>>,
    embedded: Cell<bool>,
    /// A scope runs on the native stack: leaving it early would free what its children borrow.
    pub(crate) scopes: Cell<usize>,
    /// Children of scopes that run here.
    pub(crate) scoped: Cell<usize>,
    observed: Cell<bool>,
    hook: RefCell<Option<hooks::Hook>>,
    /// An observer of our own.
    watch: RefCell<Option<hooks::Watch>>,
    /// What happened while `looking`.
    untold: RefCell<Vec<Event>>,
    #[cfg(feature = "monkey")]
    signals: caught::Caught,
    pub(crate) fork_epoch: u64,
    pub(crate) generation: u64,
    registered: stuck::Registered,
}

/// The number of the running green thread, or 0.
fn green() -> u64 {
    HUB.get().and_then(|hub| hub.current.get()).map_or(0, Task::id)
}

/// What came of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turned {
    Again,
    /// The native task is to go on.
    Native,
    /// Nothing can ever happen any more.
    Stuck,
}

/// How long a turn may sleep.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sleep {
    No,
    Yes,
}

thread_local! {
    static HERE: Here = const { Here { hub: Cell::new(None), budget: Budget::new() } };
    static ENDED: Cell<bool> = const { Cell::new(false) };
    static END: End = const { End(Cell::new(None)) };
}

/// What the thread-locals in use have of the hub. In one line of the cache, of which each isolated green thread has its own.
#[repr(align(16))]
struct Here {
    hub: Cell<Option<&'static Hub>>,
    budget: Budget,
}

/// The hub that is planted in the thread-locals in use.
struct Planted;

const HUB: Planted = Planted;

impl Planted {
    #[inline(always)]
    fn get(&self) -> Option<&'static Hub> {
        HERE.with(|here| here.hub.get())
    }

    #[inline(always)]
    fn set(&self, hub: Option<&'static Hub>) {
        HERE.with(|here| here.hub.set(hub));
    }
}

impl Hub {
    /// This OS thread's hub, made if need be.
    #[inline]
    #[track_caller]
    pub(crate) fn current() -> &'static Hub {
        match HUB.get() {
            Some(hub) => hub,
            None => Hub::make(Clock::real(), None),
        }
    }

    /// This OS thread's hub, if there is one.
    #[inline]
    pub(crate) fn try_current() -> Option<&'static Hub> {
        HUB.get()
    }

    #[cold]
    #[track_caller]
    fn make(clock: Clock, seed: Option<u64>) -> &'static Hub {
        assert!(!ENDED.get(), "{AFTER_END}");
        // In this order: what the hub ends gives its stacks back to a pool that is still there.
        let _ = crate::stack::home();
        END.with(|_| ());
        crate::sys::fork::on_fork(crate::sys::fork::Child::Hub, forked);
        crate::stack::set_describe(name::describe);
        crate::stack::set_trim(leisure::trim);
        name::announce_panics();
        crate::sys::signal::ensure_alt_stack();
        current::set_green(green);
        let shared = Shared::take();
        let native = task::native(shared, Location::caller());
        let (keep, hub) = task::Keep::new(Hub::blank(shared, native, clock));
        END.with(|end| end.0.set(Some(keep)));
        if let Some(seed) = seed {
            hub.ready.set_seed(seed);
        }
        HUB.set(Some(hub));
        hub
    }

    fn blank(shared: &'static Shared, native: &'static Task, clock: Clock) -> Hub {
        Hub {
            shared,
            ready: ready::Ready::default(),
            due: ready::Ready::default(),
            later: ready::Ready::default(),
            looking: Cell::new(false),
            looked: Cell::new(None),
            stride: Cell::new(1),
            in_stride: Cell::new(0),
            in_batch: Cell::new(0),
            natives: Cell::new(0),
            current: Cell::new(None),
            native,
            pumping: Cell::new(false),
            lent: Cell::new(None),
            contexts: tls::Pool::new(),
            stacks: crate::stack::home(),
            in_callback: Cell::new(0),
            frames: RefCell::default(),
            live: Cell::new(0),
            free: Cell::new(None),
            assigned: Cell::new(None),
            resting: Cell::new(None),
            rests: Cell::new(0),
            ids: Cell::new((0, 0)),
            guards: Cell::new(0),
            timers: Timers(RefCell::new(timer::Wheel::new(clock.now()))),
            leisure: leisure::Leisure::default(),
            clock,
            reactor: reactor::Reactor::default(),
            #[cfg(all(feature = "monkey", target_os = "linux"))]
            accepts: crate::sys::uring::Accepts::default(),
            callbacks: RefCell::default(),
            taken: RefCell::default(),
            idlers: RefCell::default(),
            forever: RefCell::default(),
            emptied: RefCell::default(),
            arrivals: Cell::new(0),
            leaks: Cell::new(0),
            leaked: Cell::new(0),
            abroad: Cell::new(0),
            patience: Cell::new(None),
            embedded: Cell::new(false),
            scopes: Cell::new(0),
            scoped: Cell::new(0),
            observed: Cell::new(false),
            hook: RefCell::default(),
            watch: RefCell::default(),
            untold: RefCell::default(),
            #[cfg(feature = "monkey")]
            signals: caught::Caught::default(),
            fork_epoch: crate::sys::fork::fork_epoch(),
            generation: shared.generation(),
            registered: stuck::Registered::hub(shared),
        }
    }

    /// A number for a new green thread.
    #[inline]
    fn next_id(&self) -> u64 {
        let (next, end) = self.ids.get();
        if next < end {
            self.ids.set((next + 1, end));
            return next;
        }
        self.more_ids()
    }

    #[cold]
    fn more_ids(&self) -> u64 {
        const BLOCK: u64 = 1024;
        let first = remote::take_ids(BLOCK);
        self.ids.set((first + 1, first + BLOCK));
        first
    }

    /// The hub's clock, `delay` from now; saturates.
    #[inline]
    pub(crate) fn after(&self, delay: Duration) -> u64 {
        let delay = u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX);
        self.clock.now().saturating_add(delay)
    }

    #[inline]
    pub(crate) fn insert_timer(&self, at: u64, due: Due) -> timer::Key {
        if self.timers.is_empty() {
            self.watches_clock();
        }
        self.timers.insert(at, due)
    }

    /// Has `f` called when the hub's clock says `at`.
    pub(crate) fn call_at(&self, at: u64, f: Callback) {
        self.insert_timer(at, Due::Call(Box::new(f)));
    }

    /// Whether this is code of a foreign loop that the hub lives in: it must be rung, for nobody asks when its next turn is.
    #[inline]
    fn is_among_others(&self) -> bool {
        self.embedded.get() && !self.pumping.get()
    }

    /// Runs turns until the native task is woken.
    fn pump(&'static self) {
        self.pumping.set(true);
        let chain = current::set_aside();
        let turned = loop {
            match self.turn(Sleep::Yes) {
                Turned::Again => {}
                end => break end,
            }
        };
        current::restore(chain);
        self.pumping.set(false);
        self.native.state.set(State::Running);
        budget::begin();
        if self.embedded.get() {
            // The foreign loop waits in our place from here on; what came meanwhile shows in `next_deadline`.
            self.shared.inbox().fall_asleep(inbox::POLLING);
        }
        if turned == Turned::Stuck {
            self.give_up();
        }
    }

    /// Nothing can wake the native stack: says so, at its park.
    #[cold]
    fn give_up(&'static self) -> ! {
        let exit = LoopExit::new(self);
        self.native.bump();
        complain(format_args!("{exit}"));
        if self.scopes.get() > 0 {
            last_words(format_args!(
                "a scope on the native stack would be left while its green threads run: abort"
            ));
            std::process::abort();
        }
        resume_unwind(Box::new(exit))
    }

    fn turn(&'static self, sleep: Sleep) -> Turned {
        // I11: nothing unwinds out of a turn, for below it lie the frames of whoever pumps.
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                last_words(format_args!("a panic on the hub's own stack: abort"));
                std::process::abort();
            }
        }
        let bomb = Bomb;
        let turned = self.steps(sleep);
        std::mem::forget(bomb);
        turned
    }

    fn steps(&'static self, sleep: Sleep) -> Turned {
        self.emit(|| Event::Turn);
        if self.shared.inbox().is_pending() {
            self.take_messages();
        }
        self.run_callbacks();
        while let Some(task) = self.later.pop() {
            self.ready.push(task);
        }
        self.ready.shuffle();
        if self.run(&self.due) || self.run(&self.ready) {
            self.native_came_up();
            return Turned::Native;
        }
        let idle = self.is_quiet() && self.callbacks.borrow().is_empty();
        if !idle || sleep == Sleep::No {
            self.look_around();
            if !self.later.is_empty() && self.is_quiet_but_for_askers() && !self.shared.inbox().is_pending() {
                // What they ask for can only come from another OS thread, or with time.
                crate::sys::thread::give_way();
            }
            return Turned::Again;
        }
        self.wait()
    }

    /// Nobody is ready.
    #[inline]
    fn is_quiet(&self) -> bool {
        self.later.is_empty() && self.is_quiet_but_for_askers()
    }

    #[inline]
    fn is_quiet_but_for_askers(&self) -> bool {
        self.ready.is_empty() && self.due.is_empty() && self.callbacks.borrow().is_empty()
    }

    /// The turn ends early. A native stack that only yields must not keep the timers waiting.
    fn native_came_up(&'static self) {
        const TURNS: u32 = 16;
        self.natives.set(self.natives.get() + 1);
        let asks = self.natives.get() >= self.stride.get().min(TURNS);
        if self.natives.get() >= TURNS || asks && self.may_be_late() && self.is_late() {
            self.look_around();
        }
    }

    /// Resumes those in a queue, in order; `true` if the native task comes up.
    #[inline]
    fn run(&'static self, queue: &ready::Ready) -> bool {
        self.begin_batch();
        let mut next = None;
        while let Some(task) = next.take().or_else(|| queue.pop_within(self)) {
            if std::ptr::eq(task, self.native) {
                return true;
            }
            let Some(task) = task::with_stack(self, task) else {
                continue;
            };
            self.emit(|| Event::Resume(task.id()));
            if task.context.get().is_some() {
                next = context::run(self, task, queue);
            } else {
                task::resume(self, task);
            }
        }
        false
    }

    /// Timers that are due and descriptors that are ready, without sleeping.
    fn look_around(&'static self) {
        self.natives.set(0);
        let now = self.fire_timers();
        self.looks(now);
        if self.reactor.is_waited_for() {
            self.poll(Some(Duration::ZERO));
        }
    }

    fn poll(&'static self, timeout: Option<Duration>) {
        let polled = self.look(|| self.reactor.poll(self, timeout));
        if let Err(error) = polled {
            // The epoll descriptor itself is broken (closed by somebody else, say): nothing can be waited for.
            panic!("the hub's poller failed: {error}");
        }
    }

    /// Fires the timers that are due; the time, if it was looked at.
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
            Due::Call(f) => self.call(*f),
        };
        self.look(|| self.timers.0.borrow_mut().expire(now, &mut fire));
        Some(now)
    }

    /// Handles messages of other OS threads, [`budget::MESSAGES`] of them at most: what is left comes first in the next turn.
    fn take_messages(&'static self) {
        let mut messages = self.taken.take();
        if messages.is_empty() {
            let mut fresh = Vec::from(messages);
            self.shared.inbox().drain(&mut fresh);
            messages = VecDeque::from(fresh);
        }
        for _ in 0..budget::MESSAGES {
            let Some(message) = messages.pop_front() else { break };
            match message {
                Message::Wake(task, ticket) => self.wake(Waiter::Task(task, ticket)),
                Message::Poll(task) => self.wake_stackless(task),
                Message::Kill(task, id) => interrupt::kill(self, task, id),
                Message::Unpark(task, id) => crate::hub::unpark(self, task, id),
                Message::Call(f) => {
                    self.arrivals.set(self.arrivals.get() + 1);
                    self.call(f);
                }
                Message::Internal(f) => f(self),
                Message::Stop => self.stop(),
            }
        }
        if !messages.is_empty() {
            self.shared.inbox().remind();
        }
        self.taken.replace(messages);
        #[cfg(feature = "monkey")]
        self.look_at_signals();
    }

    fn stop(&'static self) {
        for waiter in self.forever.take() {
            self.wake(waiter);
        }
    }

    /// Nothing is ready: sleeps in the kernel until something may be.
    #[cold]
    fn wait(&'static self) -> Turned {
        self.fire_timers();
        if !self.is_quiet() {
            return Turned::Again;
        }
        if self.reactor.is_waited_for() && self.clock.is_virtual() {
            self.poll(Some(Duration::ZERO));
        }
        if !self.is_quiet() || self.wake_idlers() {
            return Turned::Again;
        }
        let next = self.timers.next(self.clock.is_virtual());
        if let Some(at) = next
            && self.abroad.get() == 0
            // Its own handles send messages too, and those come before any later time.
            && !self.shared.inbox().is_pending()
            && self.clock.jump_to(at)
        {
            self.fire_timers();
            return Turned::Again;
        }
        let timeout = next.map(|at| Duration::from_nanos(at.saturating_sub(self.clock.now())));
        let at_leisure = timeout.is_none_or(|timeout| timeout > Duration::from_millis(2));
        if at_leisure && self.tidy() {
            // There is more to tidy: only a look at what has come meanwhile.
            if self.reactor.has_poller() {
                self.poll(Some(Duration::ZERO));
            }
            return Turned::Again;
        }
        let hopeless = timeout.is_none() && !self.reactor.is_waited_for() && self.abroad.get() == 0;
        let timeout = match self.until_tidy() {
            // One without hope looks around now and then anyway.
            Some(tidy) if at_leisure && !hopeless => Some(timeout.map_or(tidy, |timeout| timeout.min(tidy))),
            _ => timeout,
        };
        self.sleep(timeout, hopeless)
    }

    fn sleep(&'static self, timeout: Option<Duration>, hopeless: bool) -> Turned {
        let by_poller = self.reactor.has_poller();
        let how = if by_poller { inbox::POLLING } else { inbox::PARKED };
        if !self.shared.inbox().fall_asleep(how) {
            // Messages that keep coming keep the hub from its sleep, in which it would look at the descriptors.
            if self.reactor.is_waited_for() && self.is_late() {
                self.looks(None);
                self.poll(Some(Duration::ZERO));
            }
            return Turned::Again;
        }
        if hopeless {
            self.registered.rest();
        }
        let waits_forever = !self.forever.borrow().is_empty();
        let patience = if hopeless && !waits_forever {
            Some(self.patience.take().unwrap_or(stuck::PATIENCE))
        } else {
            None
        };
        let timeout = timeout.or(patience);
        if by_poller {
            self.poll(timeout);
        } else {
            crate::sys::thread::park(timeout);
        }
        self.shared.inbox().wake_up();
        self.looks(None);
        self.stride.set(1);
        let quiet = self.is_quiet() && !self.shared.inbox().is_pending();
        if let Some(patience) = patience
            && quiet
        {
            // Its inbox last: whatever was sent to it by those who rest is there.
            if stuck::all_others_idle() && !self.shared.inbox().is_pending() {
                self.registered.rise();
                return Turned::Stuck;
            }
            // Somebody else is busy, and may hold the other end: look again, ever more seldom.
            self.patience.set(Some((patience * 2).min(Duration::from_secs(2))));
        } else {
            self.patience.set(None);
        }
        self.registered.rise();
        Turned::Again
    }

    fn wake_idlers(&'static self) -> bool {
        let waiter = self.idlers.borrow_mut().pop_front();
        waiter.map(|waiter| self.wake(waiter)).is_some()
    }

    /// A green thread's body has returned: if the process was forked meanwhile by this very thread, then this is the
    /// child, whose only thread ends here, and so does the process.
    #[inline]
    pub(super) fn check_fork(task: &'static Task) {
        if crate::sys::fork::fork_epoch() != 0 && !HUB.get().is_some_and(|hub| hub.owns(task)) {
            std::process::exit(0);
        }
    }

    fn owns(&self, task: &Task) -> bool {
        task.shared().is_some_and(|shared| std::ptr::eq(shared, self.shared))
    }

    /// The task, if its block belongs to this hub (T5): it may have been recycled for another since.
    pub(crate) fn own(&self, task: TaskRef) -> Option<&'static Task> {
        // In this order: once it has ended, its block may pass to another hub at any moment; while it has not, only we
        // can end it. A block prepared anew publishes its hub before its bits.
        if task.is_finished() {
            return None;
        }
        let shared = task.shared()?;
        std::ptr::eq(shared, self.shared).then(|| task.get())
    }

    /// Whether the native stack runs, and not a green thread.
    pub(crate) fn is_native(&self) -> bool {
        self.current.get().is_none()
    }

    /// The next number of the seed, if the hub has one: for choices that are anybody's guess.
    pub(crate) fn seeded(&'static self) -> Option<u64> {
        self.ready.seeded()
    }

    /// A number for a time-out or a callback; never used again on this OS thread.
    pub(crate) fn guard_id(&self) -> u64 {
        self.guards.set(self.guards.get() + 1);
        self.guards.get()
    }
}

/// In a forked child, on the OS thread that forked: a fresh hub, and none of the green threads.
fn forked() {
    HUB.set(None);
    crate::sys::report::forget_all();
    stuck::forget_all();
    Shared::forget_spare();
}

/// What `thread::park` waits for; its address tells a parked thread from one that waits for something else.
pub(crate) static PARK: &str = "unpark";

/// Gives a green thread (or the native stack) of this hub an unpark token.
pub(crate) fn unpark(hub: &'static Hub, task: TaskRef, id: u64) {
    let Some(task) = hub.own(task).filter(|task| task.id() == id) else {
        return;
    };
    let is_parked = (task.state().is_parked() || task.marks.get(Marks::PROBE)) && std::ptr::eq(task.why().what, &PARK);
    task.marks.set(Marks::TOKEN, true);
    if is_parked {
        let ticket = task.ticket.load(std::sync::atomic::Ordering::Relaxed);
        hub.wake_local(task, ticket, Wake::Ready);
    }
}

/// Panics at the caller's line in a hub callback.
#[track_caller]
pub(crate) fn check_can_park() {
    Hub::current().check_can_park();
}
