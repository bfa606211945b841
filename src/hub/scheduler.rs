//! The hub itself: its parts, and which hub runs here.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::io;

use super::callbacks::{Callback, Callbacks};
use super::clock::Clock;
use super::contexts::Contexts;
use super::counters::Counters;
use super::observers::Observers;
use super::pace::Pace;
#[cfg(feature = "monkey")]
use super::patched::Patched;
use super::run_queue::RunQueue;
use super::runners::Runners;
use super::shared::{Message, Shared};
use super::sleep::Sleep;
use super::sources::Reactor;
use super::stuck::Registered;
use super::task::block::{Context, Task, TaskRef};
use super::task::blocks::Blocks;
use super::timer::Key;
use super::timers::{Due, Timers};
use crate::sys::fork::fork_epoch;

/// The scheduler of one OS thread.
pub(crate) struct Hub {
    pub(super) me: HubRef,
    pub(super) queue: RunQueue,
    pub(super) pace: Pace,
    pub(super) callbacks: Callbacks,
    pub(super) observers: Observers,
    pub(crate) counters: Counters,
    pub(super) contexts: Contexts,
    pub(super) runners: Runners,
    pub(super) blocks: Blocks,
    pub(super) timers: Timers,
    pub(crate) clock: Clock,
    pub(crate) reactor: Reactor,
    pub(super) sleep: Sleep,
    /// Used by patched calls.
    #[cfg(feature = "monkey")]
    pub(crate) patched: Patched,
}

/// Names one hub, for any OS thread. It never names another one: a hub that gets the same block of memory has another
/// generation, and a forked child is in another epoch.
#[derive(Clone, Copy)]
pub(crate) struct HubRef {
    pub(super) shared: &'static Shared,
    pub(super) generation: u64,
    /// The fork epoch of the process in which the hub was made.
    fork_epoch: u64,
}

impl HubRef {
    pub(super) fn new(shared: &'static Shared) -> HubRef {
        HubRef {
            shared,
            generation: shared.generation(),
            fork_epoch: fork_epoch(),
        }
    }

    /// Whether the hub has not ended, and is not that of a forked child's parent.
    pub(crate) fn is_alive(self) -> bool {
        self.shared.generation() == self.generation && self.is_of_this_process()
    }

    /// Whether this process has not been forked since the hub was made.
    pub(crate) fn is_of_this_process(self) -> bool {
        self.fork_epoch == fork_epoch()
    }

    /// Whether this names `hub`.
    #[inline]
    pub(crate) fn is(self, hub: &Hub) -> bool {
        std::ptr::eq(self.shared, hub.me.shared)
            && self.generation == hub.me.generation
            && self.fork_epoch == hub.me.fork_epoch
    }

    /// The hub, on its own OS thread.
    #[inline]
    pub(crate) fn here(self) -> Option<&'static Hub> {
        Hub::try_current().filter(|hub| self.is(hub))
    }

    /// Sends a message; gives it back if the hub has ended.
    pub(super) fn send(self, message: Message) -> Result<(), Message> {
        self.shared.send_if(message, || self.is_alive())
    }
}

impl TaskRef {
    /// Calls `here` if this is the OS thread of the task's hub, else sends that hub a message.
    pub(super) fn on_its_hub(self, here: impl FnOnce(&'static Hub), message: impl FnOnce() -> Message) {
        match (self.shared(), Hub::try_current()) {
            (Some(shared), Some(hub)) if std::ptr::eq(shared, hub.me.shared) && !hub.is_among_others() => here(hub),
            // Another OS thread, or code of a foreign loop that the message rings.
            (Some(shared), _) => shared.send(message()),
            // The block is free: the task has ended.
            (None, _) => {}
        }
    }
}

thread_local! {
    static HERE: Here = const { Here { hub: Cell::new(None), budget: Budget::new() } };
    /// Whether the hub of this OS thread has ended.
    static ENDED: Cell<bool> = const { Cell::new(false) };
}

/// The hub and the budget, in one line of the cache: each isolated green thread has a set of thread-locals of its own,
/// so each further line costs every one of them a miss.
#[repr(align(16))]
struct Here {
    /// The hub that is planted in the thread-locals in use.
    hub: Cell<Option<&'static Hub>>,
    budget: Budget,
}

/// What is left of the budget of the running code, see `budget.rs`. A resume sets both fields with one store.
#[repr(C, align(8))]
pub(super) struct Budget {
    pub(super) steps: Cell<u32>,
    pub(super) rounds: Cell<u32>,
}

impl Budget {
    /// Steps in a round. Between two rounds the clock is read, if something may be late.
    pub(super) const STEPS: u32 = 64;

    /// The budget of code that the hub has not resumed: its first step finds the round over.
    const fn new() -> Budget {
        Budget {
            steps: Cell::new(0),
            rounds: Cell::new(0),
        }
    }

    /// Begins a resume, in the thread-locals that are in use.
    #[inline(always)]
    pub(super) fn begin() {
        Budget::with(|budget| {
            budget.steps.set(Budget::STEPS);
            budget.rounds.set(0);
        });
    }

    /// Lets `f` use the budget of the code that runs.
    #[inline(always)]
    pub(super) fn with<R>(f: impl FnOnce(&Budget) -> R) -> R {
        HERE.with(|here| f(&here.budget))
    }
}

/// The error message of a call that needs the hub, after the hub's end.
pub(super) const AFTER_END: &str = "the hub of this OS thread has ended: this runs in a destructor of a thread-local";

/// [`AFTER_END`] as an error.
#[cold]
pub(crate) fn ended() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, AFTER_END)
}

/// The number of the running green thread, or 0.
pub(super) fn running_id() -> u64 {
    Hub::try_current()
        .and_then(|hub| hub.queue.current.get())
        .map_or(0, Task::id)
}

impl Hub {
    pub(super) fn new(shared: &'static Shared, native: &'static Task, clock: Clock) -> Hub {
        Hub {
            me: HubRef::new(shared),
            queue: RunQueue::new(native),
            pace: Pace::new(),
            callbacks: Callbacks::default(),
            observers: Observers::default(),
            counters: Counters::default(),
            contexts: Contexts::new(),
            runners: Runners::default(),
            blocks: Blocks::default(),
            timers: Timers::new(clock.now()),
            clock,
            reactor: Reactor::default(),
            sleep: Sleep::new(Registered::hub(shared)),
            #[cfg(feature = "monkey")]
            patched: Patched::default(),
        }
    }

    /// This OS thread's hub, if there is one.
    #[inline(always)]
    pub(crate) fn try_current() -> Option<&'static Hub> {
        HERE.with(|here| here.hub.get())
    }

    /// Plants the hub in the thread-locals in use; `None` takes it away.
    #[inline(always)]
    pub(super) fn plant(hub: Option<&'static Hub>) {
        HERE.with(|here| here.hub.set(hub));
    }

    /// Whether this OS thread's hub has ended, in a destructor of a thread-local.
    #[inline]
    pub(crate) fn has_ended() -> bool {
        Hub::try_current().is_none() && ENDED.get()
    }

    /// From now on [`has_ended`](Self::has_ended) may be true.
    pub(super) fn note_end() {
        ENDED.set(true);
    }

    /// Whether this hub has ended, so that only frames of its native stack can still refer to it.
    #[cold]
    pub(super) fn is_over(&self) -> bool {
        self.me.shared.generation() != self.me.generation
    }

    /// The parts that a block is given back to (`blocks::recycle`), if this OS thread has a hub.
    #[inline]
    pub(super) fn blocks_here() -> Option<(&'static Shared, &'static Blocks)> {
        Hub::try_current().map(|hub| (hub.me.shared, &hub.blocks))
    }

    /// A name for this hub that may go to other OS threads.
    pub(crate) fn reference(&self) -> HubRef {
        self.me
    }

    /// Whether a task's block belongs to this hub.
    #[inline]
    pub(super) fn owns(&self, task: &Task) -> bool {
        task.shared().is_some_and(|shared| std::ptr::eq(shared, self.me.shared))
    }

    /// The task, if its block belongs to this hub (TASK-5). The block may have been recycled for another hub since.
    pub(crate) fn resolve_local(&self, task: TaskRef) -> Option<&'static Task> {
        // In this order: an ended task's block may pass to another hub at any moment, but only its owner can end it. So
        // a task that had not ended and has this hub as its owner stays here. A new life publishes its hub before its
        // bits, so the bits of that life come with the right hub.
        if task.is_finished() {
            return None;
        }
        let shared = task.shared()?;
        std::ptr::eq(shared, self.me.shared).then(|| task.get())
    }

    /// All unfinished green threads of this hub, in no order.
    pub(crate) fn tasks(&self) -> Vec<&'static Task> {
        self.blocks.all_of(self.me.shared)
    }

    /// The task that runs: a green thread, or the native task.
    #[inline]
    pub(crate) fn running(&self) -> &'static Task {
        self.queue.running()
    }

    /// Whether the native stack runs, not a green thread.
    pub(crate) fn is_native(&self) -> bool {
        self.queue.current.get().is_none()
    }

    /// The context of the running green thread or callback; `None`: the native one.
    #[inline]
    pub(super) fn context(&self) -> Option<&'static Context> {
        match self.queue.current.get() {
            Some(task) => task.context.get(),
            None => self.contexts.of_callback.get(),
        }
    }

    /// The next number of the seed, if the hub has a seed: for choices that may go either way.
    pub(crate) fn seeded(&'static self) -> Option<u64> {
        self.queue.ready.seeded()
    }

    /// Whether code of a foreign loop runs, which the hub is embedded in. A wake must then ring the hub's descriptor,
    /// because the loop does not ask for the hub's next turn otherwise.
    #[inline]
    pub(super) fn is_among_others(&self) -> bool {
        self.sleep.embedded.get() && !self.queue.pumping.get()
    }

    /// Another OS thread begins work of this hub, and will send a message when it is done.
    pub(crate) fn begin_offload(&self) {
        self.sleep.begin_offload();
    }

    /// That work is done.
    pub(crate) fn end_offload(&self) {
        self.sleep.end_offload();
    }
}

/// Time.
impl Hub {
    /// The hub's clock, `delay` from now; saturates.
    #[inline]
    pub(crate) fn deadline_in(&self, delay: std::time::Duration) -> u64 {
        let delay = u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX);
        self.clock.now().saturating_add(delay)
    }

    #[inline]
    pub(crate) fn insert_timer(&self, at: u64, due: Due) -> Key {
        if self.timers.is_empty() {
            // So far nothing could be late, and the turn need not read the clock. From now on a long stride would delay
            // the timer.
            self.pace.watch_clock();
        }
        self.timers.insert(at, due)
    }

    /// Has `f` called when the hub's clock says `at`.
    pub(crate) fn call_at(&self, at: u64, f: Callback) {
        self.insert_timer(at, Due::Call(Box::new(f)));
    }

    /// Whether the running code may delay something that is bound to the clock: a timer, a descriptor or a message.
    #[inline]
    pub(super) fn may_be_late(&self) -> bool {
        !self.clock.is_virtual()
            && (!self.timers.is_empty() || self.reactor.is_waited_for() || self.me.shared.inbox().is_pending())
    }

    /// Whether the last look at timers and descriptors was a slice ago.
    pub(super) fn is_late(&self) -> bool {
        self.pace.is_late(&self.clock)
    }
}

/// Where the running code is, and what it may do there.
impl Hub {
    /// Whether no task is ready, no task waits by asking, and no callback waits.
    #[inline]
    pub(super) fn is_quiet(&self) -> bool {
        self.queue.is_empty() && self.callbacks.is_empty()
    }

    /// Whether the hub has nothing else to do than the running code: no task, callback or message waits, and no timer
    /// or descriptor can wake a task.
    pub(super) fn has_no_other_work(&self) -> bool {
        let inbox = self.me.shared.inbox();
        self.is_quiet() && self.timers.is_empty() && !self.reactor.is_waited_for() && !inbox.is_pending()
    }

    /// Queues `f`: the next turn calls it where it runs callbacks.
    pub(crate) fn queue_callback(&self, f: Callback) {
        self.callbacks.push(f);
    }

    /// Runs `f` as a callback: code that it calls may not park.
    pub(crate) fn as_callback<R>(&self, f: impl FnOnce() -> R) -> R {
        self.callbacks.run(self.counters.guard_id(), self.running(), f)
    }

    /// Whether the running code is called by a callback.
    #[inline(always)]
    pub(crate) fn is_in_callback(&self) -> bool {
        self.callbacks.depth.get() > 0 && self.callbacks.is_above(self.running())
    }

    /// Whether the running code may not park.
    #[inline(always)]
    pub(super) fn may_not_park(&self) -> bool {
        self.queue.is_on_own_stack() || self.is_in_callback()
    }

    /// The number of the running code as an owner of locks: that of the green thread or native stack, or of a callback
    /// on it. Each callback has its own number, so a lock that it fails to release never seems to belong to a later
    /// one.
    #[inline]
    pub(super) fn lock_owner(&self) -> u64 {
        if self.callbacks.depth.get() > 0
            && let Some(owner) = self.callbacks.owner(self.running(), || self.counters.next_id())
        {
            return owner;
        }
        self.running().id()
    }

    /// Whether a patched call may park here: in an isolated green thread, which owns its context; with `shared`, also
    /// in other green threads, and on the native stack unless the hub itself runs on it. It may not in a callback,
    /// inside the hub (HUB-14), or where other tasks would see that the stack unwinds.
    #[cfg(feature = "monkey")]
    pub(crate) fn may_park_patched(&self, shared: bool) -> bool {
        let may = match self.queue.current.get() {
            Some(task) => (task.owns_context() || shared) && (task.is_alone_in_context() || !std::thread::panicking()),
            None => shared && !self.queue.pumping.get() && !std::thread::panicking(),
        };
        may && !self.is_inside() && !self.is_in_callback()
    }

    /// Whether the hub is inside itself: one of its cells is borrowed for a change, and an allocation during the change
    /// must not switch to another task. State under a lock has a mark instead, see [`inside`](crate::sys::inside).
    #[cfg(feature = "monkey")]
    fn is_inside(&self) -> bool {
        let memory = crate::stack::is_borrowed() || self.contexts.pool.is_borrowed();
        let events = self.timers.is_borrowed() || self.reactor.is_borrowed() || self.observers.is_borrowed();
        memory || events || self.callbacks.is_borrowed() || self.sleep.is_borrowed()
    }

    /// Whether the owner of this number, by which C's locks know it, belongs to this OS thread: its native stack, or
    /// one of its green threads.
    #[cfg(feature = "monkey")]
    pub(crate) fn is_of_here(&self, owner: u32) -> bool {
        self.contexts.pool.has(owner)
    }

    /// An address near the base of the running stack: that of the running green thread, or of the innermost fiber above
    /// it. `None` on the native stack.
    #[cfg(feature = "monkey")]
    pub(crate) fn stack_base(&self) -> Option<usize> {
        let top = crate::fiber::current::top();
        if top.is_null() {
            self.queue.current.get().map(Task::base)
        } else {
            Some(top.addr())
        }
    }

    /// Counts how many patched calls in a row have told the running green thread to end for the reason `why`.
    #[cfg(feature = "monkey")]
    pub(crate) fn count_refusal(&self, why: u64) -> u32 {
        // The native context keeps no refusal counter. Return 2 ("refused before"), so that the caller yields.
        self.context().map_or(2, |context| context.count_refusal(why))
    }
}
