//! The one blocking primitive. Every wait (sleep, join, lock, read, `block_on`) ends in [`Parker::park`].
//!
//! ```text
//!   let parker = Parker::new();               a ticket for this park
//!   queue.push(parker.waiter());              the queue's other side may wake it, once
//!   match parker.park(deadline, mode, why) { Ready | TimedOut | Interrupted }
//!   queue.remove(..)                          take the waiter back if it is still in line (after `Ready` too, for the
//!                                             park may not have taken place), or pass on what it was granted
//! ```
//!
//! # Invariants
//! - **PARK-1** Four things suspend a green thread: [`Parker::park`], [`yield_now`], `stand_back` (a patched
//!   `sched_yield`), and an operation that finds its [budget](super::budget) used up. A runner of stackless tasks also
//!   suspends when it rests (`task/stackless.rs`). Only the hub's turn resumes a green thread; the end of the hub
//!   resumes only runners at rest, which then end.
//! - **PARK-2** The waiter of a park is (task, ticket). A wake with another ticket than the task's current one does
//!   nothing. A wake that matches consumes the ticket (it counts the ticket up), so the first wake wins, and every
//!   later wake of this park is stale.
//! - **PARK-3** A wake that comes before the park is not lost: the wake has consumed the ticket, and the park returns
//!   at once. The park also returns at once if code of the user ran between the ticket and the park, and parked itself:
//!   each park takes a new ticket, so the older ticket has moved as well.
//! - **PARK-4** A park, a yield and the end of a round of the budget deliver a kill or an expired `Timeout` to code
//!   that runs, and nothing else does. (`await_` also raises what is due by then, because the poll that would park may
//!   not come.) They deliver none in a shield, in a wait that cannot fail ([`Mode::Must`]), once the body has returned,
//!   or while the stack unwinds: there the interrupt stays due. While the stack unwinds, a wait that can fail reports
//!   `Interrupted` even if nothing is due, and `raise` then does nothing. Code that does not run yet is not begun: a
//!   green thread that is killed before its first resume drops its closure, and a stackless task that is killed while
//!   it waits is not polled again.
//! - **PARK-5** No borrow, lock or reference to a thread-local of this crate is held over a park.

#![forbid(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::panic::Location;
use std::sync::atomic::Ordering;
use std::thread::panicking;

use super::interrupt;
use super::observers::Event;
use super::scheduler::{Hub, ended};
use super::sources::{Direction, Key, Reactor, Slot};
use super::task::block::{Task, TaskRef};
use super::task::marks::{Marks, State};
use super::timers::Due;
use super::waiter::{Mode, Waiter, Wake, Why};

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

    /// The hub, for a call that gives an `io::Result` and is about to park: an error after the hub's end.
    ///
    /// # Panics
    /// In a hub callback, which cannot park.
    #[inline]
    #[track_caller]
    pub(crate) fn hub_for_io() -> io::Result<&'static Hub> {
        if Hub::has_ended() {
            return Err(ended());
        }
        let hub = Hub::current();
        hub.check_can_park();
        Ok(hub)
    }

    /// Takes a ticket like [`new`](Self::new). Gives `None` if there is no hub here, or if the caller may not park: so
    /// this neither makes a hub nor panics.
    #[inline]
    pub(crate) fn try_new() -> Option<Parker> {
        let hub = Hub::try_current().filter(|hub| !hub.may_not_park())?;
        Some(Parker::of(hub))
    }

    /// Takes a ticket that no park of this task had before. Between the ticket and the park code of the user may run (a
    /// waker, a switch of greenlets), and may park itself. If both parks had one ticket, the inner park would take the
    /// outer park's wake for its own.
    #[inline(always)]
    pub(crate) fn of(hub: &'static Hub) -> Parker {
        let task = hub.running();
        task.invalidate_ticket();
        Parker {
            hub,
            task,
            ticket: task.ticket.load(Ordering::Relaxed),
        }
    }

    /// The park by its (task, ticket).
    #[cfg(feature = "monkey")]
    pub(crate) fn named(&self) -> (&'static Task, u64) {
        (self.task, self.ticket)
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

    /// Like [`park`](Self::park), but gives [`Wake::Early`] if the park did not take place. Inlined to help the
    /// processor's return prediction; see [`yield_now`].
    #[inline(always)]
    pub(crate) fn park_here(self, deadline: Option<u64>, mode: Mode, why: Why) -> Wake {
        let Parker { hub, task, ticket } = self;
        // The parker's drop would consume the ticket.
        std::mem::forget(self);
        hub.emit(|| Event::Park(task.id()));
        if !std::ptr::eq(hub.running(), task) {
            // Code of the user ran since the ticket was taken, and has moved this stack to another root (a generator
            // that was resumed there), or the hub has ended. Another task must not park in place of this one: the
            // caller looks again, with a parker of the new root.
            return Wake::Early;
        }
        // Has the wake come first? From here to the switch nothing can wake the task: a wake by another OS thread is a
        // message, which only a turn takes, and no turn runs.
        if task.ticket.load(Ordering::Relaxed) != ticket {
            return Wake::Early; // PARK-3
        }
        let (state, exposes_panicking) = match parked_state(hub, task, mode) {
            Ok(parked) => parked,
            Err(wake) => {
                // No wake has consumed the ticket, so this does: from here on the waiters of this park are stale.
                task.invalidate_ticket();
                // This interrupt was raised before and swallowed. Let other tasks run, so that code which retries in a
                // loop does not keep the processor.
                if interrupt::was_raised(task) && !panicking() {
                    hub.give_way(task);
                }
                return wake;
            }
        };
        // From here on a wake queues the task, and a kill or an expired `Timeout` also ends a park in state `Parked`.
        task.why.set(why);
        task.state.set(state);
        let timer = deadline.map(|at| hub.insert_timer(at, Due::Park(TaskRef::new(task), ticket)));
        let exposed = Exposed(exposes_panicking.then_some(hub));
        hub.switch_away(task);
        drop(exposed);
        // Resumed: the wake that consumed the ticket has left its reason.
        let wake = task.woken_by.get();
        // A timer that has fired is gone already. A timer that has not fired is removed, so that the wheel does not
        // fill with stale timers.
        if let (Some(key), true) = (timer, wake != Wake::TimedOut) {
            hub.remove_timer(key);
        }
        wake
    }
}

/// While it lives, other tasks of the caller's context see `panicking()` of a stack that is parked. A drop ends that,
/// also when a `LoopExit` unwinds the native stack out of its park.
struct Exposed(Option<&'static Hub>);

impl Drop for Exposed {
    #[inline]
    fn drop(&mut self) {
        if let Some(hub) = self.0 {
            hub.counters.panicking_exposed.set(0);
        }
    }
}

/// The state in which a task parks, and whether the other tasks of its context see its `panicking()` meanwhile. An
/// error says that the park ends at once.
#[inline(always)]
fn parked_state(hub: &'static Hub, task: &Task, mode: Mode) -> Result<(State, bool), Wake> {
    // `panicking()` reads a thread-local count. A task that is alone in its context shows the count to no other task,
    // so it may park while its stack unwinds. But nothing can interrupt that park.
    let unwinding = panicking();
    let is_alone = unwinding && task.is_alone_in_context();
    if mode == Mode::Must || is_alone {
        // This wait cannot fail (a lock, a scope's join), so the task parks also while its stack unwinds. Until the
        // task is resumed, the other tasks of this context see `panicking() == true`. The counter `panicking_exposed`
        // tells them not to trust that.
        let exposes = unwinding && !is_alone && hub.counters.panicking_exposed.get() == 0;
        if exposes {
            hub.counters.expose_panicking();
        }
        return Ok((State::ParkedUninterruptible, exposes));
    }
    if task.interrupt.get() != 0 && interrupt::is_due(task) {
        return Err(Wake::Interrupted);
    }
    if unwinding && hub.counters.panicking_exposed.get() == 0 {
        // The stack unwinds, and this wait can report a failure: fail at once rather than leak `panicking()`.
        return Err(Wake::Interrupted);
    }
    Ok((State::Parked, false))
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

/// Waiting for a descriptor.
impl Reactor {
    /// Waits until a registered source may be ready; then the caller tries again.
    #[inline]
    pub(crate) fn wait(&self, parker: Parker, key: Key, direction: Direction, deadline: Option<u64>, why: Why) -> Wake {
        let number = self.next_number();
        let waiter = parker.waiter();
        let hub = parker.hub;
        let queued = self.with(key, |source| {
            let slot = &mut source.slots[direction as usize];
            // An edge has come since the caller's `EAGAIN`: try again at once. Only this OS thread's turns dispatch
            // events, so no edge can come between this look and the park.
            if slot.ready {
                return false;
            }
            slot.push(number, waiter);
            true
        });
        if queued != Some(true) {
            // Ready, or the key is stale: the caller's next attempt finds out which.
            return Wake::Ready;
        }
        self.begins_to_wait(&hub.pace);
        let wake = parker.park_here(deadline, Mode::Cancel, why);
        self.ends_to_wait();
        if wake != Wake::Ready {
            // The park ended by its deadline or an interrupt, or did not take place: leave the line. A stale waiter
            // that stayed there would use up the next edge.
            let mine = self.with(key, |source| source.slots[direction as usize].remove(number));
            if mine == Some(false) {
                // An edge took this waiter out of the line, but something else had consumed the ticket before. The
                // caller may not use that edge: wake the next waiter as well.
                self.wake_next(hub, key, direction);
            }
        }
        if wake == Wake::Early { Wake::Ready } else { wake }
    }

    /// Waits until a foreign descriptor is ready. `is_closed` says whether the descriptor was closed, or is about to
    /// be. It is asked after the park, because the event may have been that of another file with the same number.
    pub(crate) fn wait_foreign(
        &self,
        parker: Parker,
        fd: BorrowedFd<'_>,
        direction: Direction,
        deadline: Option<u64>,
        why: Why,
        is_closed: impl Fn() -> bool,
    ) -> io::Result<Wake> {
        let hub = parker.hub;
        let raw = fd.as_raw_fd();
        let known = self.foreign.borrow().get(&raw).copied();
        let key = known.unwrap_or_else(|| {
            let key = self.make(raw, true);
            self.foreign.borrow_mut().insert(raw, key);
            key
        });
        if known.is_none() && !self.with_poller(hub, |poller| Ok(poller.claim(fd, key.0)))? {
            // This number and open file are registered already, as one of our own sockets. Arming it would change that
            // registration, so wait for a copy of the descriptor.
            self.foreign.borrow_mut().remove(&raw);
            self.forget(key);
            let copy = fd.try_clone_to_owned()?;
            return self.wait_foreign(parker, copy.as_fd(), direction, deadline, why, is_closed);
        }
        let number = self.next_number();
        // Enter the line first: `arm` asks for the directions in which the line is not empty.
        self.with(key, |source| {
            source.slots[direction as usize].push(number, parker.waiter())
        });
        if let Err(error) = self.arm(hub, fd, key) {
            self.with(key, |source| source.slots[direction as usize].remove(number));
            self.forget_foreign(raw, key);
            // `EPERM`: epoll cannot watch this kind of file (a regular file, say), which is always ready.
            return if error.raw_os_error() == Some(rustix::io::Errno::PERM.raw_os_error()) {
                Ok(Wake::Ready)
            } else {
                Err(error)
            };
        }
        self.begins_to_wait(&hub.pace);
        let wake = parker.park(deadline, Mode::Cancel, why);
        self.ends_to_wait();
        // Needed after the deadline or an interrupt; an event has taken the waiter out already.
        self.with(key, |source| source.slots[direction as usize].remove(number));
        if self.takes_broken(number) || is_closed() {
            // The number may name another file by now: do not arm it again.
            self.forget_foreign(raw, key);
            return Err(rustix::io::Errno::BADF.into());
        }
        self.rearm_foreign(hub, key, fd);
        Ok(wake)
    }

    /// Whether the descriptor of this wait was closed meanwhile through [`close_foreign`](Self::close_foreign), or its
    /// number registered anew.
    fn takes_broken(&self, number: u64) -> bool {
        let mut broken = self.broken.borrow_mut();
        let at = broken.iter().position(|n| *n == number);
        at.map(|at| broken.swap_remove(at)).is_some()
    }

    /// Arms a foreign descriptor for one event in each direction that has waiters.
    fn arm(&self, hub: &Hub, fd: BorrowedFd<'_>, key: Key) -> io::Result<()> {
        let wants = self.with(key, |source| source.slots.each_ref().map(Slot::is_waited_for));
        let [read, write] = wants.unwrap_or_default();
        self.with_poller(hub, |poller| poller.arm(fd, key.0, read, write))
    }

    /// Arms a foreign number again for the waiters that remain. If there are none, the number stays known but unarmed,
    /// which saves the next wait two system calls. If the number names another file by then, arming it finds no
    /// registration and makes one.
    fn rearm_foreign(&self, hub: &Hub, key: Key, fd: BorrowedFd<'_>) {
        let waited = self.with(key, |source| source.slots.iter().any(Slot::is_waited_for));
        if waited == Some(true) {
            // An error is ignored: this wait is over, and the remaining waiters find out at their next event or
            // deadline.
            let _ = self.arm(hub, fd, key);
        }
    }

    /// Forgets a foreign number, unless other tasks wait for it.
    fn forget_foreign(&self, raw: RawFd, key: Key) {
        if self.with(key, |source| source.slots.iter().any(Slot::is_waited_for)) == Some(false) {
            self.foreign.borrow_mut().remove(&raw);
            self.forget(key);
        }
    }
}

impl Hub {
    /// Runs other tasks until the turn resumes this one.
    #[inline(always)]
    fn switch_away(&'static self, task: &'static Task) {
        if std::ptr::eq(task, self.queue.native) {
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
        panicking() && self.counters.panicking_exposed.get() == 0 && !self.running().is_alone_in_context()
    }

    /// Lets all ready tasks run first, although this stack unwinds: tasks of its context see `panicking()` meanwhile.
    #[cold]
    pub(super) fn give_way_unwinding(&'static self) {
        self.counters.expose_panicking();
        self.give_way(self.running());
        self.counters.panicking_exposed.set(0);
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
        self.queue.later.push(task);
        match self.queue.current.get() {
            Some(task) => task.suspend(),
            None => self.pump(),
        }
    }

    /// Lets all ready tasks run first.
    pub(super) fn give_way(&'static self, task: &'static Task) {
        task.state.set(State::Ready);
        self.queue.ready.push(task);
        match self.queue.current.get() {
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
        task.with_cold(|cold| cold.backtrace = Some(trace));
        // A wake came meanwhile: it did not queue the task, because the task was not parked. The park ends here.
        if task.ticket.load(Ordering::Relaxed) != ticket {
            return false;
        }
        // A kill or the expiry of a `Timeout` came meanwhile: only its bit was set, because the task was not parked.
        // Deliver it here.
        if parked == State::Parked && interrupt::is_due(task) {
            task.invalidate_ticket();
            task.woken_by.set(Wake::Interrupted);
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
            "the hub called code that parks, but not as a callback"
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
        && let Some(task) = hub.queue.current.get()
        && task.interrupt.get() == 0
        && hub.callbacks.depth.get() == 0
        && !panicking()
    {
        task.state.set(State::Ready);
        hub.queue.ready.push(task);
        task.suspend();
        return Wake::Ready;
    }
    yield_slowly()
}

/// [`yield_now`] on the native stack, with a callback under way, while unwinding, and where a kill may be due.
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

/// Has every parked green thread but the caller capture a backtrace of its own stack.
pub(crate) fn probe_all(hub: &'static Hub) {
    let me = hub.running();
    let parked = |task: &&'static Task| {
        let has_stack = !task.marks.get(Marks::STACKLESS);
        has_stack && task.state().is_parked() && !std::ptr::eq(*task, me)
    };
    // Each is resumed with the mark `PROBE`, and parks again after it has looked: see `Hub::probe`.
    let probed: Vec<_> = hub.tasks().into_iter().filter(parked).collect();
    for task in &probed {
        task.marks.set(Marks::PROBE, true);
        task.state.set(State::Ready);
        hub.queue.ready.push(task);
    }
    // The ready queue is in order, so every task pushed above has looked before the caller is resumed. If the hub has a
    // seed, the order is random, and the caller yields again. A caller that may not yield now does without the
    // backtraces.
    for _ in 0..=probed.len() {
        yield_now();
        if !hub.tasks().iter().any(|task| task.marks.get(Marks::PROBE)) {
            break;
        }
    }
}

/// Panics in a hub callback, with the caller's location.
#[track_caller]
pub(crate) fn check_can_park() {
    Hub::current().check_can_park();
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// A stale waiter at the head of the line would use up the next edge, and a task behind it would never wake.
    #[test]
    fn a_wait_that_does_not_park_leaves_no_waiter_behind() {
        let (reader, _writer) = std::io::pipe().unwrap();
        let hub = Hub::current();
        let (key, _) = hub.reactor.register(hub, reader.as_fd()).unwrap();
        let parker = Parker::new();
        // As if code between the ticket and the park had parked itself.
        parker.task.invalidate_ticket();
        let wake = hub.reactor.wait(parker, key, Direction::Read, None, Why::NOTHING);
        assert_eq!(wake, Wake::Ready);
        let stays = hub
            .reactor
            .with(key, |source| source.slots.iter().any(Slot::is_waited_for));
        assert_eq!(stays, Some(false));
        hub.reactor.deregister(hub, key, Some(reader.as_fd()));
    }
}
