//! THE blocking verb. Everything that waits (sleep, join, lock, read, `block_on`) ends in [`Parker::park`].
//!
//! ```text
//!   let parker = Parker::new("join", ..);     a ticket for this park
//!   queue.push(parker.waiter());              whoever holds it may wake, once
//!   match parker.park(deadline, mode) { Ready | TimedOut | Interrupted }
//!   queue.remove(..)                          on all but Ready: take it back, pass on what was handed over
//! ```
//!
//! # Invariants
//! - **P1** Only [`Parker::park`], [`yield_now`], `stand_back` (a patched `sched_yield`) and a used-up [budget](super::budget) suspend a green thread (and a runner
//!   that rests, see `task/stackless.rs`), and only the hub's turn resumes one.
//! - **P2** A waiter is (task, ticket). A wake with another ticket than the task's does nothing; one that matches takes
//!   the ticket away, so that the first wake wins and every later one is stale.
//! - **P3** A wake that comes before the park is not lost: the ticket is gone, and the park returns at once. So it does if
//!   another park came between, for each has a ticket of its own.
//! - **P4** Kill and time-out are delivered here, at the end of a budget, and nowhere else: not in a shield, not once the
//!   body has returned, and not to a task that unwinds.
//! - **P5** No borrow, lock or reference to a thread-local of ours is held over a park.

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
    /// Somebody woke the waiter.
    Ready,
    /// It did not park at all: maybe somebody woke the waiter before. Only [`Parker::park_here`] tells that from `Ready`.
    Early,
    /// The deadline passed first.
    TimedOut,
    /// A kill or an expired [`Timeout`](crate::time::Timeout) is due: give back what you hold, then
    /// [`raise`](interrupt::raise).
    Interrupted,
}

/// What a park allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Kill and time-out end it; who unwinds is not parked at all.
    Cancel,
    /// Nothing but a wake ends it.
    Must,
}

/// What somebody waits for, in words for [`dump`](crate::debug::dump).
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

/// Who is to be woken, by whoever holds it, from any OS thread, once.
pub(crate) enum Waiter {
    /// A green thread or a native stack: (task, ticket).
    Task(TaskRef, u64),
    /// A future's waker.
    Waker(Waker),
}

impl Waiter {
    /// Another of the same, for a task.
    #[cfg(feature = "monkey")]
    pub(crate) fn copy(&self) -> Option<Waiter> {
        match self {
            Waiter::Task(task, ticket) => Some(Waiter::Task(*task, *ticket)),
            Waiter::Waker(_) => None,
        }
    }

    /// Whether it can never run again: its hub ended while it was parked, or is the parent's and this a forked child.
    #[inline]
    pub(crate) fn is_dead(&self) -> bool {
        match self {
            Waiter::Task(task, _) => {
                task.is_finished() || fork_epoch() != 0 && task.shared().is_some_and(Shared::is_of_parent)
            }
            Waiter::Waker(waker) => is_lost(waker),
        }
    }

    /// Whether it is this green thread's, or this native stack's.
    pub(super) fn is_of(&self, task: &Task) -> bool {
        matches!(self, Waiter::Task(mine, _) if mine.is(task))
    }

    /// Wakes, from wherever this runs.
    pub(crate) fn wake(self) {
        match Hub::try_current() {
            Some(hub) => hub.wake(self),
            None => self.wake_from_outside(),
        }
    }

    /// Wakes from code of the user's, where a waker may run here and now: its executor may be elsewhere, and this OS thread
    /// about to block.
    #[inline]
    pub(crate) fn wake_here(self) {
        match self {
            Waiter::Waker(waker) => waker.wake(),
            Waiter::Task(task, ticket) => wake_task(task, ticket),
        }
    }

    /// Wakes from an OS thread that is not the waiter's.
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

/// Wakes a task from wherever this runs: [`Waiter::wake`] for what is in registers. A waiter that was written to memory just
/// now would be copied from there, and the copy would wait for the stores.
#[inline(never)]
pub(crate) fn wake_task(task: TaskRef, ticket: u64) {
    match Hub::try_current() {
        Some(hub) => hub.wake_task(task, ticket),
        None => Waiter::Task(task, ticket).wake_from_outside(),
    }
}

/// Wakes as it goes: also if the hub ends before the callback that it is for has run.
struct Wakes(Option<Waker>);

impl Drop for Wakes {
    fn drop(&mut self) {
        if let Some(waker) = self.0.take() {
            waker.wake();
        }
    }
}

/// Whether a waker is one of ours whose task can never run again. Of others nothing is known; neither is of ours within
/// one of others, as a combinator has them that polls its futures with wakers of its own.
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
    /// Wakes a waiter: at once if it is ours, by message if it is another hub's, by callback if it is a waker.
    #[inline]
    pub(crate) fn wake(&'static self, waiter: Waiter) {
        match waiter {
            Waiter::Task(task, ticket) => self.wake_task(task, ticket),
            Waiter::Waker(waker) if super::task::is_ours(&waker) || Signal::of(&waker).is_some() => waker.wake(),
            Waiter::Waker(waker) => match Choice::of(&waker) {
                // Its own waker may be any.
                Some(choice) => choice
                    .take_waker()
                    .into_iter()
                    .for_each(|own| self.wake(Waiter::Waker(own))),
                // A waker is the user's code.
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
                self.wake_local(task.get(), ticket, Wake::Ready);
            }
            Some(shared) => shared.send(super::remote::Message::Wake(task, ticket)),
            None => {}
        }
    }

    /// P2 and P3, for a task of this hub.
    #[inline]
    pub(super) fn wake_local(&self, task: &'static Task, ticket: u64, reason: Wake) -> bool {
        if task.ticket.load(Ordering::Relaxed) != ticket {
            return false;
        }
        task.bump();
        task.wake.set(reason);
        if task.state.get().is_parked() {
            task.state.set(State::Ready);
            self.emit(|| super::hooks::Event::Wake(task.id()));
            if self.looking.get() {
                self.due.push(task)
            } else {
                self.ready.push(task)
            }
        }
        true
    }

    /// The task whose code runs: a green thread, or the native stack.
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
    /// A ticket for the code that runs.
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

    /// The same, if the caller has a hub and may park: so this makes nothing, and does not panic.
    #[inline]
    pub(crate) fn at_once() -> Option<Parker> {
        let hub = Hub::try_current().filter(|hub| !hub.may_not_park())?;
        Some(Parker::of(hub))
    }

    /// With a ticket that nobody has had. Between a ticket and its park there may be code of the user (a waker, a switch)
    /// that parks itself: with the same ticket, it would take the outer wake for its own.
    #[inline(always)]
    fn of(hub: &'static Hub) -> Parker {
        let task = hub.running();
        task.bump();
        Parker {
            hub,
            task,
            ticket: task.ticket.load(Ordering::Relaxed),
        }
    }

    /// The park, for who ends it by [`wake_local`](Hub::wake_local).
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

    /// The same, inlined for the sake of the processor's prediction; see [`yield_now`].
    #[inline(always)]
    pub(crate) fn park_here(self, deadline: Option<u64>, mode: Mode, why: Why) -> Wake {
        let Parker { hub, task, ticket } = self;
        std::mem::forget(self);
        hub.emit(|| super::hooks::Event::Park(task.id()));
        if !std::ptr::eq(hub.running(), task) {
            // Code of the user ran since the ticket was taken, and has moved this stack to another root (a generator that
            // was sent on): whoever waits looks again, with a parker of that root.
            return Wake::Early;
        }
        if task.ticket.load(Ordering::Relaxed) != ticket {
            return Wake::Early; // P3
        }
        let mut leaks = false;
        let unwinding = panicking();
        let mode = if unwinding && task.is_alone() { Mode::Must } else { mode };
        if mode == Mode::Cancel {
            if task.interrupt.get() != 0 && interrupt::is_due(task) {
                task.bump();
                if interrupt::was_raised(task) && !unwinding {
                    hub.give_way(task);
                }
                return Wake::Interrupted;
            }
            if unwinding && hub.leaks.get() == 0 {
                // Whoever can fail fails now.
                task.bump();
                return Wake::Interrupted;
            }
        } else if unwinding && hub.leaks.get() == 0 && !task.is_alone() {
            // It has no error value: let `panicking()` leak to the others of this context meanwhile.
            leaks = true;
            hub.leaks.set(1);
            hub.leaked.set(hub.leaked.get() + 1);
        }
        task.why.set(why);
        task.state.set(if mode == Mode::Cancel {
            State::Parked
        } else {
            State::Held
        });
        let timer = deadline.map(|at| hub.insert_timer(at, Due::Park(TaskRef::new(task), ticket)));
        hub.switch_away(task);
        let wake = task.wake.get();
        if let (Some(key), true) = (timer, wake != Wake::TimedOut) {
            hub.timers.remove(key);
        }
        if leaks {
            hub.leaks.set(0);
        }
        wake
    }
}

impl Drop for Parker {
    /// Not parked after all: the waiters that were handed out are stale.
    #[inline]
    fn drop(&mut self) {
        if std::ptr::eq(self.hub.running(), self.task) && self.task.ticket.load(Ordering::Relaxed) == self.ticket {
            self.task.bump();
        }
    }
}

impl Hub {
    /// Gives the processor away until the turn gives it back.
    #[inline(always)]
    fn switch_away(&'static self, task: &'static Task) {
        if std::ptr::eq(task, self.native) {
            self.pump();
            return;
        }
        let (parked, ticket) = (task.state.get(), task.ticket.load(Ordering::Relaxed));
        loop {
            task.suspend();
            if !task.marks.get(Marks::PROBE) || !Hub::probe(task, parked, ticket) {
                return;
            }
        }
    }

    /// Whether others would see that the code that runs unwinds, if it gave way now.
    pub(super) fn would_leak(&self) -> bool {
        panicking() && self.leaks.get() == 0 && !self.running().is_alone()
    }

    /// Lets all others run first, and `panicking()` leak to them meanwhile.
    #[cold]
    pub(super) fn give_way_unwinding(&'static self) {
        self.leaks.set(1);
        self.leaked.set(self.leaked.get() + 1);
        self.give_way(self.running());
        self.leaks.set(0);
    }

    /// Lets all others that are ready run first, and then has the hub look at timers and descriptors: for code that waits
    /// by asking again and again. Delivers nothing and allocates nothing, for an allocator may wait so.
    #[cfg(feature = "monkey")]
    pub(crate) fn stand_back(&'static self) {
        let task = self.running();
        task.state.set(State::Ready);
        self.later.push(task);
        match self.current.get() {
            Some(task) => task.suspend(),
            None => self.pump(),
        }
    }

    /// Lets all others that are ready run first.
    pub(super) fn give_way(&'static self, task: &'static Task) {
        task.state.set(State::Ready);
        self.ready.push(task);
        match self.current.get() {
            Some(task) => task.suspend(),
            None => self.pump(),
        }
    }

    /// Resumed only to look at its own stack, for `debug::dump`; whether it is to park again. Meanwhile it did not count
    /// as parked: a wake has taken the ticket and no more, a kill has set its bit and no more.
    #[cold]
    #[inline(never)]
    fn probe(task: &'static Task, parked: State, ticket: u64) -> bool {
        task.marks.set(Marks::PROBE, false);
        let trace = std::backtrace::Backtrace::force_capture().to_string();
        task.with_extra(|extra| extra.backtrace = Some(trace));
        if task.ticket.load(Ordering::Relaxed) != ticket {
            return false;
        }
        if parked == State::Parked && interrupt::is_due(task) {
            task.bump();
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

/// Goes to the end of the ready queue.
///
/// Inlined into its caller on purpose: corosensei's suspend ends with a `ret` that the processor predicts right only if
/// no call lies between the resume and it (6 ns instead of 25).
#[inline(always)]
#[track_caller]
pub(crate) fn yield_now() -> Wake {
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

/// The same on the native stack, and where a kill may be due.
#[cold]
#[inline(never)]
#[track_caller]
fn yield_slowly() -> Wake {
    if Hub::has_ended() {
        return Wake::Ready;
    }
    let hub = Hub::current();
    hub.check_can_park();
    let task = hub.running();
    if hub.would_leak() {
        return Wake::Ready;
    }
    let is_due = !panicking() && task.interrupt.get() != 0 && interrupt::is_due(task);
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
