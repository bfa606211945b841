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
//! What other OS threads may do is in [`Handle`]. To run a hub inside a foreign event loop, see [`as_fd`],
//! [`next_deadline`] and [`turn`]. The states, the wake protocol and its invariants are described in
//! `src/hub/README.md`.
//!
//! The hub waits with `epoll` itself, in one system call. With `GREEN_LOOP=polling` in the environment it uses the
//! portable interface of the crate `polling` instead, which takes five system calls. Everything above behaves the same.
//!
//! # After its end
//! The hub ends with its OS thread, as a destructor of a thread-local. Destructors of thread-locals that were used
//! before the hub run after its end (on the main thread, after `main` has returned). This is what they may expect of
//! this crate:
//!
//! | what | after the hub's end |
//! |---|---|
//! | [`sleep`](crate::sleep()), `sleep_until`, `sleep_async`, [`Interval`](crate::time::Interval), [`yield_now`](crate::yield_now), [`idle`], [`stop`] | return at once |
//! | every wait with a deadline: `recv_timeout`, `lock_timeout`, `wait_timeout`, `get_timeout`, `join_timeout`, `park_timeout`, `select!` with `after` … | takes what is there; else its time is over at once |
//! | a wait without a deadline: a lock, a permit, a message, `block_on`, `join` of another hub's, `iwait` | takes what is there; else panics (`join`: an error with [`is_interrupted`](crate::thread::JoinError::is_interrupted)) |
//! | [`join`](crate::JoinHandle::join) of this hub's green threads | [`is_lost`](crate::thread::JoinError::is_lost), because they are lost; `on_exit` calls its function at once |
//! | [`timeout`](crate::timeout), [`Timeout`](crate::time::Timeout) | runs its closure; the time-out never expires ([`remaining`](crate::time::Timeout::remaining) is `Duration::MAX`) |
//! | [`shield`](crate::thread::shield), [`catch_kill`](crate::thread::catch_kill), [`unblock`](crate::threadpool::unblock) | run their closure, here |
//! | what gives an `io::Result`: sockets, [`Async`](crate::io::Async), `connect`, `accept`, `wait_readable`, [`Builder::spawn`](crate::thread::Builder::spawn), servers' `start`, [`as_fd`], [`Builder::install`] | does what the kernel does at once; else `NotConnected` |
//! | [`Handle`] | `NotConnected` |
//! | [`shutdown`], [`live`], [`next_deadline`] | as with no green thread left |
//! | [`Promise::on_set`](crate::sync::Promise::on_set), [`PoolFuture::on_done_soon`](crate::threadpool::PoolFuture::on_done_soon) | never call their function |
//! | [`ReentrantLock`](crate::sync::ReentrantLock), `Once`, `OnceLock`, `LazyLock` | work as before |
//! | [`spawn`](crate::spawn()), `spawn_local`, [`run`](crate::run), [`scope`](crate::scope()), [`future::spawn`](crate::future::spawn), [`thread::current`](crate::thread::current), `park`, [`handle`], [`call_soon`], [`run_forever`], [`turn`], [`set_hook`], [`dump`](crate::debug::dump), `green_local!`, `channel::{after, at, tick}`, [`aio`](crate::aio)'s loop, `ThreadPool::shutdown` that has to wait | panic: "the hub of this OS thread has ended" |
//!
//! A panic in a destructor of a thread-local aborts the process: catch it there, or drop such values before. If a
//! generator or greenlet is kept in such a thread-local, its destructor may resume it wherever it has stopped.
//!
//! # What it says on stderr
//! The hub reports a panic that no `join` receives, a failed handler of a server, and a [`LoopExit`]. Each is one line,
//! which begins with `greenthread: `. No hub waits for stderr: an OS thread writes what stderr does not take at once,
//! up to 256 KiB, and gets 200 ms more for that at the end of the process. There are at most 32 lines a second of each
//! kind, and a line says how many were left out. std's own message of a panic is written by std, in the green thread
//! that panics, unless you call [`write_panics_aside`].
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
mod here;
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
pub(crate) mod stuck;
pub(crate) mod task;
mod timer;
mod wakers;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::panic::{Location, resume_unwind};
use std::time::Duration;

use end::{AFTER_END, End};
pub(crate) use end::{deadline_at, deadline_in, ended, is_past, who};
use here::HUB;
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
    /// Runs a callback.
    Call(Box<Box<dyn FnOnce()>>),
}

/// The timers, in a cell. No code of the user runs while the cell is borrowed.
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
        // The borrow has ended: dropping the callback runs code of the user, which may set a timer.
        if let Some(Due::Call(f)) = due {
            discard(f);
        }
    }

    #[inline]
    fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    /// Drops all timers that are left: the hub has ended.
    fn end(&self) {
        let mut left = Vec::new();
        self.0.borrow_mut().expire(u64::MAX, &mut |_, due| left.push(due));
        left.into_iter().for_each(discard);
    }

    /// When to look again: exactly at the next deadline, or at a moment when several timers may be served at once.
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

/// The scheduler of one OS thread.
pub(crate) struct Hub {
    pub(crate) shared: &'static Shared,
    ready: ready::Ready,
    /// Tasks woken by a timer or a descriptor. They go before `ready`, so that a burst of spawns does not make them
    /// late.
    due: ready::Ready,
    /// Tasks that wait by asking again and again. They become ready once the turn has looked at timers and descriptors.
    later: ready::Ready,
    /// Whether the turn is looking at timers and descriptors now.
    looking: Cell<bool>,
    /// When the turn last did so, by the hub's clock; `None` if that is not known.
    looked: Cell<Option<u64>>,
    /// The number of resumes between two looks at the clock; how many are left until the next look, and how many of the
    /// batch after that.
    stride: Cell<u32>,
    in_stride: Cell<u32>,
    in_batch: Cell<u32>,
    /// How many turns in a row ended because the native task came up.
    natives: Cell<u32>,
    /// The green thread that runs; `None` while the native stack runs.
    current: Cell<Option<&'static Task>>,
    native: &'static Task,
    pumping: Cell<bool>,
    /// The context of the callback that runs.
    callback_context: Cell<Option<&'static Context>>,
    pub(crate) contexts: tls::Pool,
    stacks: Option<crate::stack::Home>,
    /// How many callbacks have not returned. [`is_in_callback`](Hub::is_in_callback) says whether the running code is
    /// in one.
    in_callback: Cell<usize>,
    frames: RefCell<Vec<callback::Frame>>,
    live: Cell<usize>,
    free: Cell<Option<&'static Task>>,
    /// The stackless task that the runner which is being resumed is to poll.
    assigned: Cell<Option<&'static Task>>,
    /// Runners of the native context that have nothing to poll, and how many there are.
    resting: Cell<Option<&'static Task>>,
    rests: Cell<usize>,
    ids: Cell<(u64, u64)>,
    guards: Cell<u64>,
    pub(crate) timers: Timers,
    leisure: leisure::Leisure,
    pub(crate) clock: Clock,
    pub(crate) reactor: reactor::Reactor,
    /// Used by patched calls.
    #[cfg(all(feature = "monkey", target_os = "linux"))]
    pub(crate) accepts: crate::sys::uring::Accepts,
    callbacks: RefCell<VecDeque<Callback>>,
    taken: RefCell<VecDeque<Message>>,
    idlers: RefCell<VecDeque<Waiter>>,
    /// The waiters of `run_forever`.
    forever: RefCell<Vec<Waiter>>,
    /// Functions to call once no green threads are left.
    emptied: RefCell<Vec<hubs::Told>>,
    /// How many green threads and calls other OS threads have sent here so far.
    arrivals: Cell<u64>,
    /// 1 while a task is suspended although its stack unwinds, so that others of its context see `panicking()`; and how
    /// often that has happened.
    panicking_exposed: Cell<usize>,
    leaked: Cell<usize>,
    /// How much work of this hub other OS threads are doing. They send a message when it is done.
    pub(crate) offloaded: Cell<usize>,
    patience: Cell<Option<Duration>>,
    embedded: Cell<bool>,
    /// How many scopes run on the native stack. Leaving one early would free what its children borrow.
    pub(crate) scopes: Cell<usize>,
    /// How many children of scopes run here.
    pub(crate) scoped: Cell<usize>,
    observed: Cell<bool>,
    hook: RefCell<Option<hooks::Hook>>,
    /// This crate's own observer.
    watch: RefCell<Option<hooks::Watch>>,
    /// Events that happened while `looking`. The observer has not been told of them yet.
    deferred_events: RefCell<Vec<Event>>,
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

/// The result of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turned {
    Again,
    /// The native task was woken: its code goes on.
    Native,
    /// Nothing can ever wake a task any more.
    Stuck,
}

/// Whether a turn may sleep.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sleep {
    No,
    Yes,
}

thread_local! {
    static ENDED: Cell<bool> = const { Cell::new(false) };
    static END: End = const { End(Cell::new(None)) };
}

impl Hub {
    /// This OS thread's hub; makes one if there is none.
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
        // In this order: the end of the hub gives its stacks back to the pool, which must still be there.
        let _ = crate::stack::home();
        END.with(|_| ());
        // In each forked child the hub is forgotten: it is the parent's.
        crate::sys::fork::on_fork(crate::sys::fork::Child::Hub, forked);
        crate::stack::set_describe(name::describe);
        crate::stack::set_trim(leisure::trim);
        name::announce_panics();
        crate::sys::signal::ensure_alt_stack();
        current::set_green(green);
        let shared = Shared::take();
        let native = task::native(shared, Location::caller());
        let (keep, hub) = task::OwnedHub::new(Hub::blank(shared, native, clock));
        END.with(|end| end.0.set(Some(keep)));
        if let Some(seed) = seed {
            hub.ready.set_seed(seed);
        }
        // Published last: the hub is complete.
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
            callback_context: Cell::new(None),
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
            panicking_exposed: Cell::new(0),
            leaked: Cell::new(0),
            offloaded: Cell::new(0),
            patience: Cell::new(None),
            embedded: Cell::new(false),
            scopes: Cell::new(0),
            scoped: Cell::new(0),
            observed: Cell::new(false),
            hook: RefCell::default(),
            watch: RefCell::default(),
            deferred_events: RefCell::default(),
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
            // So far nothing could be late, and the turn need not read the clock. From now on a long stride would delay
            // the timer.
            self.watches_clock();
        }
        self.timers.insert(at, due)
    }

    /// Has `f` called when the hub's clock says `at`.
    pub(crate) fn call_at(&self, at: u64, f: Callback) {
        self.insert_timer(at, Due::Call(Box::new(f)));
    }

    /// Whether code of a foreign loop runs, which the hub is embedded in. A wake must then ring the hub's descriptor,
    /// because the loop does not ask for the hub's next turn otherwise.
    #[inline]
    fn is_among_others(&self) -> bool {
        self.embedded.get() && !self.pumping.get()
    }

    /// Runs turns until the native task is woken.
    fn pump(&'static self) {
        // From here on the code on the native stack is the hub's own, and may not park (I11).
        self.pumping.set(true);
        // The fibers of the native stack are not on the chain of the green threads that the turns resume (F2).
        let chain = current::set_aside();
        let turned = loop {
            match self.turn(Sleep::Yes) {
                Turned::Again => {}
                end => break end,
            }
        };
        current::restore(chain);
        self.pumping.set(false);
        // The native task's wait is over. Its code begins with a fresh budget, as after any resume.
        self.native.state.set(State::Running);
        budget::begin();
        if self.embedded.get() {
            // The foreign loop sleeps in the hub's place from here on, so senders must ring. A message that came
            // meanwhile shows in `next_deadline`.
            self.shared.inbox().fall_asleep(inbox::POLLING);
        }
        // Nothing may unwind out of a turn, so the panic is raised here.
        if turned == Turned::Stuck {
            self.give_up();
        }
    }

    /// Ends the park of the native stack by a panic, because nothing can wake it.
    #[cold]
    fn give_up(&'static self) -> ! {
        let exit = LoopExit::new(self);
        // The park is over: waiters that were left for it are stale.
        self.native.invalidate_ticket();
        complain(format_args!("{exit}"));
        // Unwinding would leave the scope and free what its children borrow, while they still run.
        if self.scopes.get() > 0 {
            last_words(format_args!(
                "a scope on the native stack would be left while its green threads run: abort"
            ));
            std::process::abort();
        }
        resume_unwind(Box::new(exit))
    }

    fn turn(&'static self, sleep: Sleep) -> Turned {
        // I11: nothing may unwind out of a turn. Below it lie the frames of the code that pumps.
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
        // Messages and callbacks first: the tasks that they wake run in this turn.
        if self.shared.inbox().is_pending() {
            self.take_messages();
        }
        self.run_callbacks();
        // Tasks that wait by asking get their next turn, behind the tasks that are ready.
        while let Some(task) = self.later.pop() {
            self.ready.push(task);
        }
        self.ready.shuffle();
        // Tasks woken by a timer or a descriptor go first. If the native task comes up, the turn ends at once, and the
        // other tasks stay in their queues.
        if self.run(&self.due) || self.run(&self.ready) {
            self.native_came_up();
            return Turned::Native;
        }
        // While a task is ready the turn only looks at timers and descriptors. Otherwise it may sleep until there is an
        // event.
        let idle = self.is_quiet() && self.callbacks.borrow().is_empty();
        if !idle || sleep == Sleep::No {
            self.look_around();
            if !self.later.is_empty() && self.is_quiet_but_for_askers() && !self.shared.inbox().is_pending() {
                // Only tasks that wait by asking are left. What they ask for can only come from another OS thread, or
                // with time: let another OS thread run.
                crate::sys::thread::give_way();
            }
            return Turned::Again;
        }
        self.wait()
    }

    /// Whether no task is ready and no callback waits.
    #[inline]
    fn is_quiet(&self) -> bool {
        self.later.is_empty() && self.is_quiet_but_for_askers()
    }

    /// The same, without regard to tasks that wait by asking.
    #[inline]
    fn is_quiet_but_for_askers(&self) -> bool {
        self.ready.is_empty() && self.due.is_empty() && self.callbacks.borrow().is_empty()
    }

    /// The native task came up, and the turn ended early. A native stack that yields in a loop would keep the turn from
    /// timers and descriptors, so look at them here now and then.
    fn native_came_up(&'static self) {
        const TURNS: u32 = 16;
        self.natives.set(self.natives.get() + 1);
        // The clock is read as rarely as between resumes (U5). After `TURNS` such turns the look comes in any case.
        let asks = self.natives.get() >= self.stride.get().min(TURNS);
        if self.natives.get() >= TURNS || asks && self.may_be_late() && self.is_late() {
            self.look_around();
        }
    }

    /// Resumes the tasks of a queue in order, at most a batch; `true` if the native task comes up.
    #[inline]
    fn run(&'static self, queue: &ready::Ready) -> bool {
        self.begin_batch();
        let mut next = None;
        while let Some(task) = next.take().or_else(|| queue.pop_within(self)) {
            if std::ptr::eq(task, self.native) {
                return true;
            }
            // A stackless task runs on a runner. If there is no memory for one, the task is lost.
            let Some(task) = task::with_stack(self, task) else {
                continue;
            };
            self.emit(|| Event::Resume(task.id()));
            if task.context.get().is_some() {
                // This also resumes the tasks behind it that have contexts, and returns the first that it cannot run.
                next = context::run(self, task, queue);
            } else {
                task::resume(self, task);
            }
        }
        false
    }

    /// Fires the timers that are due and handles the descriptors that are ready, without sleeping.
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
            // The epoll descriptor itself is broken (closed by other code, for example): nothing can be waited for.
            panic!("the hub's poller failed: {error}");
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
            Due::Call(f) => self.call(*f),
        };
        // The timers are borrowed meanwhile: `fire` only queues tasks and callbacks (I3).
        self.look(|| self.timers.0.borrow_mut().expire(now, &mut fire));
        Some(now)
    }

    /// Handles messages of other OS threads, for half a slice at most. The messages that are left come first in the next
    /// turn.
    fn take_messages(&'static self) {
        let mut messages = self.taken.take();
        // The inbox is drained only when all messages taken before have been handled, so their order is kept.
        if messages.is_empty() {
            let mut fresh = Vec::from(messages);
            self.shared.inbox().drain(&mut fresh);
            messages = VecDeque::from(fresh);
        }
        let mut share = budget::Share::default();
        for n in 0.. {
            if share.is_over(self, n) {
                break;
            }
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
        // The inbox counts as pending, so that the hub does not sleep before it has handled the messages that are left.
        if !messages.is_empty() {
            self.shared.inbox().remind();
        }
        self.taken.replace(messages);
        // A caught signal is not a message: its handler only marks the inbox as pending.
        #[cfg(feature = "monkey")]
        self.look_at_signals();
    }

    fn stop(&'static self) {
        for waiter in self.forever.take() {
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
            && self.offloaded.get() == 0
            // The hub's own handles send messages too, which come before any later time.
            && !self.shared.inbox().is_pending()
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
        let hopeless = timeout.is_none() && !self.reactor.is_waited_for() && self.offloaded.get() == 0;
        let timeout = match self.until_tidy() {
            // A hub without hope wakes now and then anyway, to look whether all others are idle.
            Some(tidy) if at_leisure && !hopeless => Some(timeout.map_or(tidy, |timeout| timeout.min(tidy))),
            _ => timeout,
        };
        self.sleep(timeout, hopeless)
    }

    fn sleep(&'static self, timeout: Option<Duration>, hopeless: bool) -> Turned {
        let by_poller = self.reactor.has_poller();
        let how = if by_poller { inbox::POLLING } else { inbox::PARKED };
        // From here on a sender rings. If a message came before that, do not sleep (I7).
        if !self.shared.inbox().fall_asleep(how) {
            // Messages that keep coming keep the hub from sleeping, and only in its sleep would it look at the
            // descriptors.
            if self.reactor.is_waited_for() && self.is_late() {
                self.looks(None);
                self.poll(Some(Duration::ZERO));
            }
            return Turned::Again;
        }
        // Only a message or the hub's own patience ends this sleep: other hubs may count this OS thread as idle
        // (`stuck.rs`).
        if hopeless {
            self.registered.rest();
        }
        // `run_forever` may wait for a `stop` for as long as it likes: no `LoopExit`.
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
        // Senders need not ring any more: the next turn looks at the inbox.
        self.shared.inbox().wake_up();
        // The kernel was asked just now, but the clock was not read. The slice begins at the next look at the clock.
        self.looks(None);
        self.stride.set(1);
        let quiet = self.is_quiet() && !self.shared.inbox().is_pending();
        if let Some(patience) = patience
            && quiet
        {
            // This hub's own inbox last: a message that a resting OS thread sent here before it rested has arrived.
            if stuck::all_others_idle() && !self.shared.inbox().is_pending() {
                self.registered.rise();
                return Turned::Stuck;
            }
            // Another OS thread is busy, and may hold the other end of the wait: look again, less and less often.
            self.patience.set(Some((patience * 2).min(Duration::from_secs(2))));
        } else {
            self.patience.set(None);
        }
        // Before the next turn takes a message: the proof in `stuck.rs` needs this order.
        self.registered.rise();
        Turned::Again
    }

    fn wake_idlers(&'static self) -> bool {
        let waiter = self.idlers.borrow_mut().pop_front();
        waiter.map(|waiter| self.wake(waiter)).is_some()
    }

    /// A green thread's body has returned. If it forked the process, this is the child: its only OS thread, and so the
    /// process, ends here, because the pump below is the parent's.
    #[inline]
    pub(super) fn check_fork(task: &'static Task) {
        if crate::sys::fork::fork_epoch() != 0 && !HUB.get().is_some_and(|hub| hub.owns(task)) {
            std::process::exit(0);
        }
    }

    fn owns(&self, task: &Task) -> bool {
        task.shared().is_some_and(|shared| std::ptr::eq(shared, self.shared))
    }

    /// The task, if its block belongs to this hub (T5). The block may have been recycled for another hub since.
    pub(crate) fn own(&self, task: TaskRef) -> Option<&'static Task> {
        // In this order: an ended task's block may pass to another hub at any moment, but only its owner can end it. So
        // a task that had not ended and has this hub as its owner stays here. A new life publishes its hub before its
        // bits, so the bits of that life come with the right hub.
        if task.is_finished() {
            return None;
        }
        let shared = task.shared()?;
        std::ptr::eq(shared, self.shared).then(|| task.get())
    }

    /// Whether the native stack runs, not a green thread.
    pub(crate) fn is_native(&self) -> bool {
        self.current.get().is_none()
    }

    /// The next number of the seed, if the hub has a seed: for choices that may go either way.
    pub(crate) fn seeded(&'static self) -> Option<u64> {
        self.ready.seeded()
    }

    /// A number for a time-out or a callback, which is never used again on this OS thread.
    pub(crate) fn guard_id(&self) -> u64 {
        self.guards.set(self.guards.get() + 1);
        self.guards.get()
    }
}

/// In a forked child, on the OS thread that forked: the hub is forgotten, and with it all green threads.
fn forked() {
    HUB.set(None);
    crate::sys::report::forget_all();
    stuck::forget_all();
    Shared::forget_spare();
}

/// What `thread::park` waits for. Its address tells a task in `park` from one that waits for something else.
pub(crate) static PARK: &str = "unpark";

/// Gives an unpark token to a green thread or native stack of this hub.
pub(crate) fn unpark(hub: &'static Hub, task: TaskRef, id: u64) {
    let Some(task) = hub.own(task).filter(|task| task.id() == id) else {
        return;
    };
    // A task that is resumed only to be probed would park again, so it counts as parked.
    let is_parked = (task.state().is_parked() || task.marks.get(Marks::PROBE)) && std::ptr::eq(task.why().what, &PARK);
    // The token is there before the wake: the task finds it when it is resumed. Otherwise its next `park` takes it.
    task.marks.set(Marks::TOKEN, true);
    if is_parked {
        let ticket = task.ticket.load(std::sync::atomic::Ordering::Relaxed);
        hub.wake_local(task, ticket, Wake::Ready);
    }
}

/// Panics in a hub callback, with the caller's location.
#[track_caller]
pub(crate) fn check_can_park() {
    Hub::current().check_can_park();
}
