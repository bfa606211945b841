//! The one blocking primitive. Every wait (sleep, join, lock, read, `block_on`) ends in [`Parker::park`].
//!
//! ```text
//!   let parker = Parker::new("join", ..);     a ticket for this park
//!   queue.push(parker.waiter());              the queue's other side may wake it, once
//!   match parker.park(deadline, mode) { Ready | TimedOut | Interrupted }
//!   queue.remove(..)                          unless Ready: take the waiter back, pass on what it was granted
//! ```
//!
//! # Invariants
//! - **P1** Only [`Parker::park`], [`yield_now`], `stand_back` (a patched `sched_yield`) and a used-up
//!   [budget](super::budget) suspend a green thread, besides a runner that rests (`task/stackless.rs`). Only the hub's
//!   turn resumes one.
//! - **P2** A waiter is (task, ticket). A wake with another ticket than the task's current one does nothing. A wake
//!   that matches consumes the ticket, so the first wake wins and every later one is stale.
//! - **P3** A wake that comes before the park is not lost: it has consumed the ticket, and the park returns at once.
//!   The park also returns at once if the task has parked elsewhere since it took the ticket, because each park has a
//!   ticket of its own.
//! - **P4** Kill and time-out are delivered here, at the end of a budget, and nowhere else. They are not delivered in a
//!   shield, after the body has returned, or to a task that unwinds.
//! - **P5** No borrow, lock or reference to a thread-local of this crate is held over a park.

use std::panic::Location;
use std::sync::atomic::Ordering;
use std::task::Waker;
use std::thread::panicking;

use super::choice::Choice;
use super::polled::Signal;
use super::remote::Shared;
use super::task::{Marks, State, Task, TaskRef};
use super::{Due, Hub, interrupt};
use crate::sys::fork::fork_epoch;

/// Why a park ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wake {
    /// The waiter was woken.
    Ready,
    /// The task did not park: a wake came before, or the stack belongs to another root by now. Only
    /// [`Parker::park_here`] tells this from `Ready`.
    Early,
    /// The deadline passed first.
    TimedOut,
    /// A kill or an expired [`Timeout`](crate::time::Timeout) is due, or the stack unwinds and the wait can fail. The
    /// caller gives back what it holds, and then calls [`raise`](interrupt::raise).
    Interrupted,
}

/// What may end a park besides a wake and the deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// A kill or a time-out ends it too. A stack that unwinds does not park, unless it is alone in its context.
    Cancel,
    /// Nothing else: for a wait that cannot fail.
    Must,
}

/// What a task waits for, in words for [`dump`](crate::debug::dump).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Why {
    pub(crate) what: &'static &'static str,
    pub(crate) with: usize,
}

impl Why {
    pub(crate) const NOTHING: Why = Why {
        what: &"nothing",
        with: 0,
    };

    pub(crate) const fn new(what: &'static &'static str, with: usize) -> Why {
        Why { what, with }
    }
}

/// The right to wake one park or one future, once, from any OS thread.
pub(crate) enum Waiter {
    /// A green thread or a native stack: (task, ticket).
    Task(TaskRef, u64),
    /// A future's waker.
    Waker(Waker),
}

impl Waiter {
    /// A second waiter for the same park; `None` for a waker.
    #[cfg(feature = "monkey")]
    pub(crate) fn copy(&self) -> Option<Waiter> {
        match self {
            Waiter::Task(task, ticket) => Some(Waiter::Task(*task, *ticket)),
            Waiter::Waker(_) => None,
        }
    }

    /// Whether the waiter can never run again: its hub ended while it was parked, or this is a forked child and the hub
    /// is the parent's.
    #[inline]
    pub(crate) fn is_dead(&self) -> bool {
        match self {
            Waiter::Task(task, _) => {
                task.is_finished() || fork_epoch() != 0 && task.shared().is_some_and(Shared::is_of_parent)
            }
            Waiter::Waker(waker) => is_lost(waker),
        }
    }

    /// Whether the waiter is that of `task`.
    pub(super) fn is_of(&self, task: &Task) -> bool {
        matches!(self, Waiter::Task(mine, _) if mine.is(task))
    }

    /// Wakes the waiter, from any OS thread.
    pub(crate) fn wake(self) {
        match Hub::try_current() {
            Some(hub) => hub.wake(self),
            None => self.wake_from_outside(),
        }
    }

    /// Wakes the waiter from code of the user, where a foreign waker may be called at once. A callback might come too
    /// late for it: this OS thread may be about to block before the hub's next turn.
    #[inline]
    pub(crate) fn wake_here(self) {
        match self {
            Waiter::Waker(waker) => waker.wake(),
            Waiter::Task(task, ticket) => wake_task(task, ticket),
        }
    }

    /// Wakes the waiter from an OS thread without a hub.
    pub(super) fn wake_from_outside(self) {
        match self {
            Waiter::Waker(waker) => waker.wake(),
            Waiter::Task(task, ticket) => {
                if let Some(shared) = task.shared() {
                    shared.send(super::remote::Message::Wake(task, ticket));
                }
            }
        }
    }
}

/// The same as [`Waiter::wake`] for a task in registers, from any OS thread. A waiter that was written to memory just
/// now would be read back from there, and the read would stall on the stores.
#[inline(never)]
pub(crate) fn wake_task(task: TaskRef, ticket: u64) {
    match Hub::try_current() {
        Some(hub) => hub.wake_task(task, ticket),
        None => Waiter::Task(task, ticket).wake_from_outside(),
    }
}

/// Calls its waker when it is dropped: so the waker is called even if the hub ends before the callback that holds this
/// has run.
struct Wakes(Option<Waker>);

impl Drop for Wakes {
    fn drop(&mut self) {
        if let Some(waker) = self.0.take() {
            waker.wake();
        }
    }
}

/// Whether a waker is this crate's and its task can never run again. `false` for a foreign waker, because nothing is
/// known about it; also if it wraps one of this crate's, as those of a combinator do that polls its futures with its
/// own wakers.
pub(super) fn is_lost(waker: &Waker) -> bool {
    if let Some(task) = super::task::of_waker(waker) {
        task.is_lost()
    } else if let Some(signal) = Signal::of(waker) {
        signal.is_lost()
    } else {
        Choice::of(waker).is_some_and(Choice::is_lost)
    }
}

impl std::fmt::Debug for Waiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Waiter::Task(task, ticket) => write!(f, "Task({:#x}, {ticket})", task.address()),
            Waiter::Waker(_) => write!(f, "Waker"),
        }
    }
}

impl Hub {
    /// Wakes a waiter: a task of this hub at once, a task of another hub by a message, a foreign waker by a callback.
    #[inline]
    pub(crate) fn wake(&'static self, waiter: Waiter) {
        match waiter {
            Waiter::Task(task, ticket) => self.wake_task(task, ticket),
            // These wakers are this crate's: calling one runs no code of the user.
            Waiter::Waker(waker) if super::task::is_ours(&waker) || Signal::of(&waker).is_some() => waker.wake(),
            Waiter::Waker(waker) => match Choice::of(&waker) {
                // The waker inside of a `Choice` may be of any kind, a foreign one too.
                Some(choice) => choice
                    .take_waker()
                    .into_iter()
                    .for_each(|own| self.wake(Waiter::Waker(own))),
                // A foreign waker is code of the user, so it runs as a callback.
                None => {
                    let wakes = Wakes(Some(waker));
                    self.call(Box::new(move || drop(wakes)));
                }
            },
        }
    }

    #[inline(always)]
    pub(super) fn wake_task(&self, task: TaskRef, ticket: u64) {
        match task.shared() {
            Some(shared) if std::ptr::eq(shared, self.shared) && !self.is_among_others() => {
                // Both hubs are this one, and no foreign loop would have to be rung for its turn: no message is needed.
                self.wake_local(task.get(), ticket, Wake::Ready);
            }
            // The task's hub compares the tickets when it takes the message. The task may have ended by then; its
            // ticket has moved in that case.
            Some(shared) => shared.send(super::remote::Message::Wake(task, ticket)),
            // The block is free: the task has ended, and the waiter is stale.
            None => {}
        }
    }

    /// Wakes a task of this hub if `ticket` is its current one (P2, P3); gives whether it was.
    #[inline]
    pub(super) fn wake_local(&self, task: &'static Task, ticket: u64, reason: Wake) -> bool {
        if task.ticket.load(Ordering::Relaxed) != ticket {
            return false;
        }
        // The ticket is consumed first, so that every other waiter of this park is stale from here on.
        task.invalidate_ticket();
        task.wake.set(reason);
        // A task that is not parked is between its ticket and its park, or being probed: it finds the ticket moved.
        if task.state.get().is_parked() {
            task.state.set(State::Ready);
            self.emit(|| super::hooks::Event::Wake(task.id()));
            // The turn is looking at timers and descriptors: a task woken by one goes before the ready tasks.
            if self.looking.get() {
                self.due.push(task)
            } else {
                self.ready.push(task)
            }
        }
        true
    }

    /// The task that runs: a green thread, or the native task.
    #[inline]
    pub(crate) fn running(&self) -> &'static Task {
        self.current.get().unwrap_or(self.native)
    }
}

/// One park that is about to happen.
pub(crate) struct Parker {
    pub(crate) hub: &'static Hub,
    pub(crate) task: &'static Task,
    ticket: u64,
}

impl Parker {
    /// Takes a ticket for the task that runs.
    ///
    /// # Panics
    /// In a hub callback, which cannot park.
    #[inline]
    #[track_caller]
    pub(crate) fn new() -> Parker {
        let hub = Hub::current();
        hub.check_can_park();
        Parker::of(hub)
    }

    /// The same if the caller has a hub and may park, and `None` if not: so this neither makes a hub nor panics.
    #[inline]
    pub(crate) fn at_once() -> Option<Parker> {
        let hub = Hub::try_current().filter(|hub| !hub.may_not_park())?;
        Some(Parker::of(hub))
    }

    /// Takes a ticket that no park had before. Between the ticket and its park code of the user may run (a waker, a
    /// switch) and park itself: with the same ticket, that inner park would take the outer park's wake for its own.
    #[inline(always)]
    fn of(hub: &'static Hub) -> Parker {
        let task = hub.running();
        task.invalidate_ticket();
        Parker {
            hub,
            task,
            ticket: task.ticket.load(Ordering::Relaxed),
        }
    }

    /// The park by its (task, ticket), for a caller that ends it by [`wake_local`](Hub::wake_local).
    #[cfg(feature = "monkey")]
    pub(super) fn named(&self) -> (TaskRef, u64) {
        (TaskRef::new(self.task), self.ticket)
    }

    #[inline]
    pub(crate) fn waiter(&self) -> Waiter {
        Waiter::Task(TaskRef::new(self.task), self.ticket)
    }

    /// Waits for a wake with this parker's ticket, until `deadline` (nanoseconds of the hub's clock).
    pub(crate) fn park(self, deadline: Option<u64>, mode: Mode, why: Why) -> Wake {
        match self.park_here(deadline, mode, why) {
            Wake::Early => Wake::Ready,
            wake => wake,
        }
    }

    /// The same, and tells [`Wake::Early`]. Inlined to help the processor's return prediction; see [`yield_now`].
    #[inline(always)]
    pub(crate) fn park_here(self, deadline: Option<u64>, mode: Mode, why: Why) -> Wake {
        let Parker { hub, task, ticket } = self;
        // Without its drop, which would consume the ticket.
        std::mem::forget(self);
        hub.emit(|| super::hooks::Event::Park(task.id()));
        if !std::ptr::eq(hub.running(), task) {
            // Code of the user ran since the ticket was taken, and has moved this stack to another root (a generator
            // that was resumed there), or the hub has ended. Another task must not park in place of this one: the
            // caller looks again, with a parker of the new root.
            return Wake::Early;
        }
        // Has the wake come first? From here to the switch nothing can wake the task: a wake by another OS thread is a
        // message, which only a turn takes, and no turn runs.
        if task.ticket.load(Ordering::Relaxed) != ticket {
            return Wake::Early; // P3
        }
        let mut panicking_exposed = false;
        // `panicking()` is a thread-local count. A task that is alone in its context shows it to no other task, so it
        // may park while it unwinds; but nothing can interrupt it.
        let unwinding = panicking();
        let mode = if unwinding && task.is_alone() { Mode::Must } else { mode };
        if mode == Mode::Cancel {
            if task.interrupt.get() != 0 && interrupt::is_due(task) {
                // The interrupt consumes the ticket in place of a wake: waiters that were left are stale.
                task.invalidate_ticket();
                // This interrupt was raised before and swallowed. Let other tasks run, so that code which retries in a
                // loop does not keep the processor.
                if interrupt::was_raised(task) && !unwinding {
                    hub.give_way(task);
                }
                return Wake::Interrupted;
            }
            if unwinding && hub.panicking_exposed.get() == 0 {
                // The stack unwinds, and this wait can report a failure: fail at once rather than leak `panicking()`.
                task.invalidate_ticket();
                return Wake::Interrupted;
            }
        } else if unwinding && hub.panicking_exposed.get() == 0 && !task.is_alone() {
            // This wait cannot fail (a lock, a scope's join), so the task parks while its stack unwinds. Until it is
            // resumed, the other tasks of this context see `panicking() == true`; `panicking_exposed` tells them not to
            // trust it.
            panicking_exposed = true;
            hub.panicking_exposed.set(1);
            hub.leaked.set(hub.leaked.get() + 1);
        }
        // From here on a wake queues the task, and a kill or an expired time-out also ends a park in state `Parked`.
        task.why.set(why);
        task.state.set(if mode == Mode::Cancel {
            State::Parked
        } else {
            State::Held
        });
        let timer = deadline.map(|at| hub.insert_timer(at, Due::Park(TaskRef::new(task), ticket)));
        hub.switch_away(task);
        // Resumed: the wake that consumed the ticket has left its reason.
        let wake = task.wake.get();
        // A timer that has fired is gone already. Any other is removed, so that the timers do not fill with stale ones.
        if let (Some(key), true) = (timer, wake != Wake::TimedOut) {
            hub.timers.remove(key);
        }
        if panicking_exposed {
            hub.panicking_exposed.set(0);
        }
        wake
    }
}

impl Drop for Parker {
    /// The task did not park after all: consumes the ticket, so that the waiters that were handed out are stale.
    #[inline]
    fn drop(&mut self) {
        if std::ptr::eq(self.hub.running(), self.task) && self.task.ticket.load(Ordering::Relaxed) == self.ticket {
            self.task.invalidate_ticket();
        }
    }
}

impl Hub {
    /// Runs other tasks until the turn resumes this one.
    #[inline(always)]
    fn switch_away(&'static self, task: &'static Task) {
        if std::ptr::eq(task, self.native) {
            // The native stack has no hub below it to suspend to: it runs the turns itself.
            self.pump();
            return;
        }
        let (parked, ticket) = (task.state.get(), task.ticket.load(Ordering::Relaxed));
        loop {
            task.suspend();
            // Resumed by a wake, or to capture its own backtrace. After the latter it suspends again, unless it was
            // woken or interrupted meanwhile.
            if !task.marks.get(Marks::PROBE) || !Hub::probe(task, parked, ticket) {
                return;
            }
        }
    }

    /// Whether other tasks would see this stack's `panicking()` if it gave way now.
    pub(super) fn would_leak(&self) -> bool {
        panicking() && self.panicking_exposed.get() == 0 && !self.running().is_alone()
    }

    /// Lets all ready tasks run first, although this stack unwinds: tasks of its context see `panicking()` meanwhile.
    #[cold]
    pub(super) fn give_way_unwinding(&'static self) {
        self.panicking_exposed.set(1);
        self.leaked.set(self.leaked.get() + 1);
        self.give_way(self.running());
        self.panicking_exposed.set(0);
    }

    /// Lets all ready tasks run first, and then has the hub look at timers and descriptors: for code that waits by
    /// asking again and again. It delivers no interrupt, and allocates nothing because an allocator may wait in this
    /// way.
    #[cfg(feature = "monkey")]
    pub(crate) fn stand_back(&'static self) {
        let task = self.running();
        task.state.set(State::Ready);
        // In `later`, not in `ready`: the task becomes ready only after the turn's look around. Otherwise tasks that
        // only ask would keep the turn from timers and descriptors.
        self.later.push(task);
        match self.current.get() {
            Some(task) => task.suspend(),
            None => self.pump(),
        }
    }

    /// Lets all ready tasks run first.
    pub(super) fn give_way(&'static self, task: &'static Task) {
        task.state.set(State::Ready);
        self.ready.push(task);
        match self.current.get() {
            Some(task) => task.suspend(),
            None => self.pump(),
        }
    }

    /// Captures a backtrace of the task's own stack for `debug::dump`, which resumed it only for this; gives whether
    /// the task is to park again. Meanwhile the task did not count as parked: a wake only consumed the ticket, and a
    /// kill only set its bit.
    #[cold]
    #[inline(never)]
    fn probe(task: &'static Task, parked: State, ticket: u64) -> bool {
        task.marks.set(Marks::PROBE, false);
        let trace = std::backtrace::Backtrace::force_capture().to_string();
        task.with_cold(|extra| extra.backtrace = Some(trace));
        // A wake came meanwhile: it did not queue the task, because the task was not parked. The park ends here.
        if task.ticket.load(Ordering::Relaxed) != ticket {
            return false;
        }
        // The same for a kill or a time-out: only its bit was set, so it is delivered here.
        if parked == State::Parked && interrupt::is_due(task) {
            task.invalidate_ticket();
            task.wake.set(Wake::Interrupted);
            return false;
        }
        task.state.set(parked);
        true
    }

    #[cold]
    #[track_caller]
    fn refuse(&self) -> ! {
        debug_assert!(
            self.is_in_callback(),
            "a turn is under way on the native stack, and calls code that parks, but not as a callback"
        );
        let at = Location::caller();
        panic!("cannot block at {at}: this code runs in a callback of the hub; spawn a green thread for it")
    }

    #[inline]
    #[track_caller]
    pub(crate) fn check_can_park(&self) {
        if self.may_not_park() {
            self.refuse();
        }
    }
}

/// Moves the running task to the end of the ready queue.
///
/// Inlined into its caller on purpose: corosensei's suspend ends with a `ret`, which the processor predicts right only
/// if no call lies between the resume and the `ret` (6 ns instead of 25).
#[inline(always)]
#[track_caller]
pub(crate) fn yield_now() -> Wake {
    // The fast path: a green thread outside of callbacks, which does not unwind and has no interrupt to look at.
    if let Some(hub) = Hub::try_current()
        && let Some(task) = hub.current.get()
        && task.interrupt.get() == 0
        && hub.in_callback.get() == 0
        && !panicking()
    {
        task.state.set(State::Ready);
        hub.ready.push(task);
        task.suspend();
        return Wake::Ready;
    }
    yield_slowly()
}

/// The same on the native stack, with a callback under way, while unwinding, and where a kill may be due.
#[cold]
#[inline(never)]
#[track_caller]
fn yield_slowly() -> Wake {
    // In a destructor of a thread-local, after the hub's end: no other task is left.
    if Hub::has_ended() {
        return Wake::Ready;
    }
    let hub = Hub::current();
    hub.check_can_park();
    let task = hub.running();
    // A yield may do nothing. That is better than other tasks of this context seeing `panicking()`.
    if hub.would_leak() {
        return Wake::Ready;
    }
    let is_due = !panicking() && task.interrupt.get() != 0 && interrupt::is_due(task);
    // What is due is delivered at once; but if it was raised before and swallowed, other tasks run first.
    if !is_due || interrupt::was_raised(task) {
        hub.give_way(task);
    }
    if is_due { Wake::Interrupted } else { Wake::Ready }
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.what)?;
        if self.with != 0 {
            write!(f, " {}", self.with)
        } else {
            Ok(())
        }
    }
}
