//! How an operation waits for a primitive, with two entry points: [`Core::block`] parks the calling task,
//! [`Core::future`] is polled. Both drive one [`Wait`], under the primitive's lock.
//!
//! ```text
//!            attempt            granted: attempt again, which succeeds; handed over: at once
//!   new ───────────────► done     waiting ────────────────────────────────────────► done
//!        │  not yet                 │  ▲
//!        └──────────► push ─────────┘  │ woken without a grant: a new waiter in the same place
//!                                   │──┘
//!                                   └──────────► left (deadline, kill, expired Timeout, drop)
//!                                        granted? the deadline takes it; otherwise the next waiter is granted it
//! ```
//!
//! # Invariants
//! - **WAIT-1** What is set aside for granted waiters belongs to them: a new attempt must leave enough for all of them.
//! - **WAIT-2** After each change of the state, and after a granted waiter has left, `grant_waiters` grants what is
//!   available, to the first waiters in line.
//! - **WAIT-3** Waiters are woken, and wakers are dropped, outside the lock (SPIN-2).
//! - **WAIT-4** If the deadline of a wait passes after the wait was granted, the operation takes what was granted and
//!   succeeds, although late. An interrupt (a kill, or an expired `Timeout`) and a drop undo the grant instead, because
//!   an operation that unwinds or is dropped cannot return a result. `grant_waiters` then grants it to the next waiter.
//! - **WAIT-5** The waiter of a blocking wait, (task, ticket), is put into one line and nowhere else. So if the park
//!   returns `Ready`, a granter took the waiter out of that line and granted the operation. (The timer of the deadline
//!   and an interrupt know the ticket as well, but they wake with another reason.) Therefore a waiter that was handed
//!   its result need not lock the state to check. `Early` proves nothing: the park did not take place.
//! - **WAIT-6** An operation that could wait takes a step of the [budget](crate::hub::budget) before its first attempt,
//!   so that an interrupt delivered there finds it holding nothing. For a branch of a select, the select pays for the
//!   first step.
#![forbid(unsafe_code)]

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::AtomicBool;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::waiters::{Key, Waiters, Woken};
use crate::hub::{self, Choice, Mode, NO_BRANCH, Parker, Waiter, Wake, Why, budget, interrupt};
use crate::sys::spin::{Lock, Marked, Spin};

/// The state of a primitive, which its lock protects.
pub(super) trait State {
    /// Whether operations on the state under the lock may allocate or free. If `false`, the few places that do allocate
    /// mark themselves ([`push_back`](crate::sys::spin::push_back)); [`Waiters`] does so.
    const ALLOCATES: bool = true;

    /// Whether [`grant_waiters`](Self::grant_waiters) may find anything to grant; a cheap check before calling it.
    #[inline(always)]
    fn may_grant(&self) -> bool {
        true
    }

    /// Grants what is available to the tasks and futures that wait for it (WAIT-2).
    fn grant_waiters(&mut self, woken: &mut Woken);
}

/// An operation that may have to wait.
pub(super) trait Op<S> {
    type Output;

    /// The operation's result, if a grant completes the operation. `grant_waiters` then [hands it
    /// over](Waiters::hand_first) by changing the state itself, and the woken waiter has nothing left to do under the
    /// lock.
    const HANDED: Option<Self::Output> = None;

    /// Whether a grant takes something away from other waiters. If not, a branch of a select may be granted although
    /// another branch wins, and is granted even while the select polls another branch, so that a pulse of an event (set
    /// and cleared at once) is not missed.
    const TAKES: bool = true;

    /// Whether the operation takes a step of the budget (WAIT-6). Operations that may or may not have to wait do.
    #[inline(always)]
    fn spends(&self) -> bool {
        true
    }

    /// The line that the operation waits in.
    fn waiters<'a>(&self, state: &'a mut S) -> &'a mut Waiters;

    /// What the operation wants, encoded for the primitive that grants it.
    fn wants(&self) -> u32 {
        0
    }

    /// Does the operation if it can be done now. It always can be once it was granted.
    fn attempt(&mut self, state: &mut S, granted: bool, woken: &mut Woken) -> Option<Self::Output>;

    /// Does the operation in the common case, in which only `grant_waiters` wakes others. It is tried before
    /// [`attempt`](Self::attempt), and by default is all of it. An operation that wakes others in its attempt
    /// implements this and [`may_attempt`](Self::may_attempt).
    #[inline(always)]
    fn attempt_plain(&mut self, state: &mut S) -> Option<Self::Output> {
        let mut woken = Woken::default();
        let done = self.attempt(state, false, &mut woken);
        debug_assert!(woken.is_empty(), "an attempt that wakes others is not plain");
        done
    }

    /// Whether `attempt` may succeed although `attempt_plain` did not; a cheap check.
    #[inline(always)]
    fn may_attempt(&self, _state: &S) -> bool {
        false
    }

    /// The operation now waits in line under this key.
    #[inline]
    fn on_enqueue(&mut self, _state: &mut S, _key: Key) {}

    /// The operation no longer waits, and was granted nothing.
    #[inline]
    fn on_withdraw(&mut self, _state: &mut S, _key: Key) {}

    /// The operation leaves what it was granted. Needed only where granting changed the state, as a hand-over does.
    #[inline]
    fn undo_grant(&mut self, _state: &mut S) {}
}

/// The state of a primitive, with everything that waits for it.
pub(super) struct Core<S, L = AtomicBool> {
    spin: Spin<S, L>,
}

/// When a wait ends.
#[derive(Clone, Copy)]
pub(crate) enum Until {
    Ever,
    After(Duration),
    At(Instant),
}

impl Until {
    #[inline(always)]
    #[track_caller]
    pub(super) fn deadline(self) -> Option<u64> {
        match self {
            Until::Ever => None,
            Until::After(duration) => Some(hub::deadline_in(duration)),
            Until::At(deadline) => Some(hub::deadline_at(deadline)),
        }
    }
}

/// Takes a step of the budget, and unwinds if an interrupt is due.
#[inline(always)]
pub(super) fn spend() {
    if budget::spend(Mode::Cancel) == Wake::Interrupted {
        // Nothing was attempted yet, so there is nothing to give back (WAIT-6).
        interrupt::raise();
    }
}

/// Grants what is available, unlocks, and then wakes the granted waiters. Not inlined, because there is mostly nothing
/// to grant.
#[inline(never)]
fn grant_waiters<S: State, L: Lock>(mut state: Marked<'_, S, L>) {
    let mut woken = Woken::default();
    state.grant_waiters(&mut woken);
    // WAIT-3: a waker is the user's code, and must not run under the lock.
    drop(state);
    woken.wake();
}

/// The full attempt. Not inlined, because few operations need it.
#[inline(never)]
fn attempt<S: State, O: Op<S>, L: Lock>(op: &mut O, mut state: Marked<'_, S, L>) -> Option<O::Output> {
    let mut woken = Woken::default();
    let done = op.attempt(&mut state, false, &mut woken);
    if done.is_some() {
        // WAIT-2: the attempt has changed the state.
        state.grant_waiters(&mut woken);
    }
    drop(state);
    woken.wake();
    done
}

impl<S> Core<S> {
    pub(super) const fn new(state: S) -> Core<S> {
        Core { spin: Spin::new(state) }
    }
}

impl<S: State, L: Lock> Core<S, L> {
    #[inline(always)]
    fn locked(&self) -> Marked<'_, S, L> {
        self.spin.locked(S::ALLOCATES)
    }

    /// Looks at the state, without a change that could let a waiter continue.
    #[inline]
    pub(super) fn look<R>(&self, f: impl FnOnce(&S) -> R) -> R {
        f(&self.locked())
    }

    /// Changes the state, and wakes the waiters that the change lets continue.
    #[inline(always)]
    pub(super) fn change<R>(&self, f: impl FnOnce(&mut S) -> R) -> R {
        let mut state = self.locked();
        let result = f(&mut state);
        if state.may_grant() {
            grant_waiters(state);
        }
        result
    }

    /// The common case of an attempt: nothing has to wait, and only `grant_waiters` wakes others. Otherwise gives the
    /// locked state.
    #[inline(always)]
    fn attempt_plain<O: Op<S>>(&self, op: &mut O) -> Result<O::Output, Marked<'_, S, L>> {
        let mut state = self.locked();
        match op.attempt_plain(&mut state) {
            Some(done) => {
                if state.may_grant() {
                    grant_waiters(state);
                }
                Ok(done)
            }
            None => Err(state),
        }
    }

    /// Does the operation now, or not at all.
    #[inline]
    pub(super) fn attempt<O: Op<S>>(&self, op: &mut O) -> Option<O::Output> {
        let state = match self.attempt_plain(op) {
            Ok(done) => return Some(done),
            Err(state) => state,
        };
        // As in `block_unspent`: this attempt wakes others itself.
        if op.may_attempt(&state) {
            return attempt(op, state);
        }
        None
    }

    /// Does the operation as soon as it can be done; `None` if `until` came first. A step of the budget is taken first
    /// (WAIT-6).
    #[inline(always)]
    #[track_caller]
    pub(super) fn block<O: Op<S>>(&self, op: &mut O, until: Until, why: Why) -> Option<O::Output> {
        if op.spends() {
            spend();
        }
        self.block_unspent(op, until, why)
    }

    /// Like [`block`](Self::block), but without the step of the budget: for operations that never wait, or that have
    /// waited already.
    ///
    /// Inlined down to the switch, so that the processor predicts the return correctly; see [`hub::yield_now`].
    #[inline(always)]
    #[track_caller]
    pub(super) fn block_unspent<O: Op<S>>(&self, op: &mut O, until: Until, why: Why) -> Option<O::Output> {
        let mut state = match self.attempt_plain(op) {
            Ok(done) => return Some(done),
            Err(state) => state,
        };
        // The attempt wakes others itself (a rendezvous, the last arrival at a barrier). If it fails after all, the
        // slow path attempts again and gets in line.
        if op.may_attempt(&state) {
            if let Some(done) = attempt(op, state) {
                return Some(done);
            }
            let mut line = self.future(op);
            return line.wait_slow(None, until.deadline(), why);
        }
        // Take a ticket and enter the line under the same lock acquisition as the failed attempt: a change of the state
        // in between would not know of this waiter, and its wake would be lost. A missing hub is not created here,
        // because that allocates under the lock: `wait_slow` does it.
        let parker = Parker::try_new();
        let mut key = None;
        if let Some(parker) = &parker {
            let place = op.waiters(&mut state).push(parker.waiter(), op.wants());
            op.on_enqueue(&mut state, place);
            key = Some(place);
        }
        // From here on `line` owns the place: if this stack unwinds (a waker that `grant_waiters` calls may panic), its
        // drop leaves the line and passes on what was granted.
        let mut line = Wait { core: self, op, key };
        if state.may_grant() {
            // The wait itself may be what another waiter needs. What that waiter then does may even grant this wait: a
            // wake before the park is not lost (PARK-3).
            grant_waiters(state);
        } else {
            drop(state);
        }
        let deadline = until.deadline();
        match parker {
            Some(parker) => line.park(parker, deadline, why),
            None => line.wait_slow(None, deadline, why),
        }
    }

    /// Gets in line, calls `then`, and then waits: a change of the state that is made after `then` began finds this
    /// waiter.
    #[track_caller]
    pub(super) fn wait<O: Op<S>>(&self, op: &mut O, until: Until, why: Why, then: impl FnOnce()) -> Option<O::Output> {
        let deadline = until.deadline();
        // The hub of this OS thread has ended, and nothing can wait any more.
        if hub::is_past(deadline) {
            then();
            return None;
        }
        let mut line = self.future(op);
        let parker = Parker::new();
        if let Some(done) = line.step(parker.waiter(), None) {
            then();
            return Some(done);
        }
        // In line. `then` may run the user's code (a waker), which may park. That makes this ticket stale (PARK-3): the
        // park below gives `Early`, and `wait_slow` waits in the same place with a new ticket.
        then();
        line.park(parker, deadline, why)
    }

    /// The operation as a future.
    #[inline]
    pub(super) fn future<O: Op<S>>(&self, op: O) -> Wait<'_, S, O, L> {
        Wait {
            core: self,
            op,
            key: None,
        }
    }
}

impl<S, O: Op<S>> Op<S> for &mut O {
    type Output = O::Output;

    const HANDED: Option<O::Output> = O::HANDED;

    const TAKES: bool = O::TAKES;

    #[inline(always)]
    fn spends(&self) -> bool {
        (**self).spends()
    }

    fn waiters<'a>(&self, state: &'a mut S) -> &'a mut Waiters {
        (**self).waiters(state)
    }

    fn wants(&self) -> u32 {
        (**self).wants()
    }

    #[inline(always)]
    fn attempt(&mut self, state: &mut S, granted: bool, woken: &mut Woken) -> Option<O::Output> {
        (**self).attempt(state, granted, woken)
    }

    #[inline(always)]
    fn attempt_plain(&mut self, state: &mut S) -> Option<O::Output> {
        (**self).attempt_plain(state)
    }

    #[inline(always)]
    fn may_attempt(&self, state: &S) -> bool {
        (**self).may_attempt(state)
    }

    fn on_enqueue(&mut self, state: &mut S, key: Key) {
        (**self).on_enqueue(state, key);
    }

    fn on_withdraw(&mut self, state: &mut S, key: Key) {
        (**self).on_withdraw(state, key);
    }

    fn undo_grant(&mut self, state: &mut S) {
        (**self).undo_grant(state);
    }
}

/// An operation under way. As a future it resolves when the operation is done. Dropping it leaves the line, and what it
/// was granted goes to the next waiter.
#[must_use = "a future does nothing unless it is polled"]
pub(super) struct Wait<'a, S: State, O: Op<S>, L: Lock = AtomicBool> {
    core: &'a Core<S, L>,
    op: O,
    /// The operation's place in the line, while it has one.
    key: Option<Key>,
}

impl<S: State, O: Op<S>, L: Lock> Wait<'_, S, O, L> {
    /// Parks once, in line under `parker`'s ticket. Returns what was granted, or goes on if something else ended the
    /// park.
    #[inline(always)]
    #[track_caller]
    fn park(&mut self, parker: Parker, deadline: Option<u64>, why: Why) -> Option<O::Output> {
        // While this stack unwinds, neither a kill nor an expired `Timeout` can be delivered to it.
        let mode = if std::thread::panicking() {
            Mode::Must
        } else {
            Mode::Cancel
        };
        let wake = parker.park_here(deadline, mode, why);
        if wake == Wake::Ready {
            // Only the line had this waiter, so the operation was granted (WAIT-5). `Early` does not say that: the
            // park did not take place.
            if let Some(handed) = O::HANDED {
                // The hand-over changed the state already. Clear the key, so that dropping `self` gives nothing back.
                let key = self.key.take();
                debug_assert!(key.is_some_and(|key| self.op.waiters(&mut self.core.locked()).is_granted(key)));
                return Some(handed);
            }
            // The grant was only set aside: take it under the lock.
            if let Some(done) = self.collect() {
                return Some(done);
            }
        }
        self.wait_slow(Some(wake), deadline, why)
    }

    /// The slow path: the operation could not get in line at once, or something other than a grant ended its park.
    #[cold]
    #[inline(never)]
    #[track_caller]
    fn wait_slow(&mut self, mut wake: Option<Wake>, deadline: Option<u64>, why: Why) -> Option<O::Output> {
        let mut mode = Mode::Cancel;
        loop {
            match wake {
                // WAIT-4: a grant may have come between the end of the park and this moment.
                Some(Wake::TimedOut) => return self.leave(true),
                Some(Wake::Interrupted) => {
                    // WAIT-4: leave the line, and pass on a grant, before unwinding. Nothing is held after that.
                    self.leave(false);
                    interrupt::raise();
                    // `raise` returned: a `panic = "abort"` build, or this stack unwinds already. Wait until the
                    // operation is done.
                    mode = Mode::Must;
                }
                Some(Wake::Ready | Wake::Early) | None => {}
            }
            if std::thread::panicking() {
                mode = Mode::Must;
            }
            // The hub has ended, and a wait with a deadline is over at once.
            if hub::is_past(deadline) {
                return self.leave(true);
            }
            // A new ticket for each park: the old one may be consumed, or belong to another root. `step` puts the new
            // waiter in the old place under the lock, so that no grant is missed in between.
            let parker = Parker::new();
            if let Some(done) = self.step(parker.waiter(), None) {
                return Some(done);
            }
            wake = Some(parker.park(deadline, mode, why));
        }
    }

    /// Takes what was granted, if the operation was granted.
    #[inline]
    fn collect(&mut self) -> Option<O::Output> {
        let key = self.key?;
        let mut woken = Woken::default();
        let mut state = self.core.locked();
        if !self.op.waiters(&mut state).is_granted(key) {
            return None;
        }
        // WAIT-2: what is left may be enough for the next waiter.
        let done = self.take(&mut state, &mut woken);
        state.grant_waiters(&mut woken);
        drop(state);
        woken.wake();
        done
    }

    /// Completes an operation that was granted.
    #[inline]
    fn take(&mut self, state: &mut S, woken: &mut Woken) -> Option<O::Output> {
        self.key = None;
        // An operation that was handed its result was never counted as granted.
        if O::HANDED.is_none() {
            self.op.waiters(state).remove_granted();
        }
        self.op.attempt(state, true, woken)
    }

    /// One step under the lock: takes what was granted or is available; otherwise waits, or keeps waiting, with
    /// `waiter`. With a `choice`, the wait is one of its branches.
    fn step(&mut self, waiter: Waiter, choice: Option<&Choice>) -> Option<O::Output> {
        // A grant that takes nothing from others needs no claim on the select's word (SELECT-7).
        let branch = choice.filter(|_| O::TAKES).map_or(NO_BRANCH, Choice::branch);
        let mut woken = Woken::default();
        let mut state = self.core.locked();
        // Until `entered` is dropped, a grant from this thread recognises other branches of the same select (SELECT-5).
        let entered = choice.map(Choice::enter);
        if let Some(key) = self.key
            && self.op.waiters(&mut state).take_passed(key)
        {
            // A granter took this branch out of the line without a grant (SELECT-2). Take back what it left there, and
            // start again.
            self.key = None;
            self.op.on_withdraw(&mut state, key);
        }
        let waiters = self.op.waiters(&mut state);
        let done = match self.key {
            Some(key) if !waiters.is_granted(key) => {
                // Still waiting. Keep the place in the line, and replace only what is to be woken.
                let stale = waiters.replace(key, waiter, branch);
                // The waker that was replaced may run the user's code when it is dropped: unlock first (WAIT-3).
                drop(entered);
                drop(state);
                drop(stale);
                return None;
            }
            Some(_) => {
                // The select's word goes from `Taken` to `Trying`: nothing else is granted to it while this branch is
                // polled.
                choice.filter(|_| O::TAKES).into_iter().for_each(Choice::collected);
                self.take(&mut state, &mut woken)
            }
            None => self.op.attempt(&mut state, false, &mut woken),
        };
        let mut unused = Some(waiter);
        if done.is_none()
            && let Some(waiter) = unused.take()
        {
            // Under the same lock acquisition as the failed attempt, so that no change of the state is missed in
            // between.
            let wants = self.op.wants();
            let key = self.op.waiters(&mut state).push_branch(waiter, wants, branch);
            self.op.on_enqueue(&mut state, key);
            self.key = Some(key);
        }
        // WAIT-2: what was taken, or that this waits, may let another waiter continue.
        state.grant_waiters(&mut woken);
        drop(entered);
        drop(state);
        drop(unused);
        woken.wake();
        done
    }

    /// Leaves the line. With `takes`, it takes what it was granted meanwhile (WAIT-4).
    #[cold]
    #[inline(never)]
    fn leave(&mut self, takes: bool) -> Option<O::Output> {
        let key = self.key?;
        let mut woken = Woken::default();
        let mut state = self.core.locked();
        let waiters = self.op.waiters(&mut state);
        let granted = waiters.is_granted(key);
        let (mut stale, mut done) = (None, None);
        if granted && takes {
            // The operation succeeds although its time is over.
            done = self.take(&mut state, &mut woken);
        } else if granted {
            // Undo the grant; `grant_waiters` below gives it to the next waiter (WAIT-2).
            if O::HANDED.is_none() {
                waiters.remove_granted();
            }
            self.op.undo_grant(&mut state);
        } else {
            // Not granted: leave the line, and take back what was left there (a message, say).
            stale = waiters.remove(key);
            self.op.on_withdraw(&mut state, key);
        }
        self.key = None;
        state.grant_waiters(&mut woken);
        // WAIT-3: wakers are dropped and called outside the lock.
        drop(state);
        drop(stale);
        woken.wake();
        done
    }
}

impl<S: State, O: Op<S> + Unpin, L: Lock> Future for Wait<'_, S, O, L> {
    type Output = O::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<O::Output> {
        let choice = Choice::of(context.waker());
        if self.key.is_none() && self.op.spends() && !choice.is_some_and(Choice::takes_paid) {
            // WAIT-6, unless the select has paid for this step.
            std::task::ready!(budget::poll(context));
        }
        // The waker is cloned before the lock is taken, because its clone may be the user's code (SPIN-2).
        match self.step(Waiter::Waker(context.waker().clone()), choice) {
            Some(done) => Poll::Ready(done),
            None => Poll::Pending,
        }
    }
}

impl<S: State, O: Op<S>, L: Lock> Drop for Wait<'_, S, O, L> {
    #[inline]
    fn drop(&mut self) {
        if self.key.is_some() {
            self.leave(false);
        }
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use std::pin::pin;
    use std::sync::Arc as StdArc;
    use std::task::Waker;

    use loom::sync::{Arc, Condvar, Mutex};

    use super::super::select::Selecting;
    use super::*;

    /// A lock with operations that loom can see.
    struct Seen(Mutex<bool>, Condvar);

    impl Lock for Seen {
        fn lock(&self) {
            let mut locked = self.0.lock().unwrap();
            while *locked {
                locked = self.1.wait(locked).unwrap();
            }
            *locked = true;
        }

        fn unlock(&self) {
            *self.0.lock().unwrap() = false;
            self.1.notify_one();
        }
    }

    /// Permits that are granted and then taken, or handed over.
    struct Permits {
        free: usize,
        hands: bool,
        waiters: Waiters,
    }

    impl State for Permits {
        fn grant_waiters(&mut self, woken: &mut Woken) {
            if self.hands {
                while self.free > 0 && self.waiters.hand_first(woken) {
                    self.free -= 1;
                }
            } else {
                while self.free > self.waiters.granted() && self.waiters.grant_first(woken) {}
            }
        }
    }

    struct Granted;
    struct Handed;

    impl Op<Permits> for Granted {
        type Output = ();

        fn waiters<'a>(&self, state: &'a mut Permits) -> &'a mut Waiters {
            &mut state.waiters
        }

        fn attempt(&mut self, state: &mut Permits, granted: bool, _: &mut Woken) -> Option<()> {
            (granted || state.free > state.waiters.granted()).then(|| state.free -= 1)
        }
    }

    impl Op<Permits> for Handed {
        type Output = ();

        const HANDED: Option<()> = Some(());

        fn waiters<'a>(&self, state: &'a mut Permits) -> &'a mut Waiters {
            &mut state.waiters
        }

        fn attempt(&mut self, state: &mut Permits, granted: bool, _: &mut Woken) -> Option<()> {
            (granted || state.free > 0).then(|| state.free -= usize::from(!granted))
        }

        fn undo_grant(&mut self, state: &mut Permits) {
            state.free += 1;
        }
    }

    /// An OS thread that sleeps until its waker is called.
    struct Bed(Mutex<bool>, Condvar);

    impl std::task::Wake for Bed {
        fn wake(self: StdArc<Self>) {
            *self.0.lock().unwrap() = true;
            self.1.notify_one();
        }
    }

    fn block_on(future: impl Future<Output = ()>) {
        let mut future = pin!(future);
        let bed = StdArc::new(Bed(Mutex::new(false), Condvar::new()));
        let waker = Waker::from(bed.clone());
        while future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
            let mut woken = bed.0.lock().unwrap();
            while !*woken {
                woken = bed.1.wait(woken).unwrap();
            }
            *woken = false;
        }
    }

    /// Three tasks want one permit for a moment, and one of them gives up half way. In the end the permit is free, and
    /// each of the other two has had it.
    fn goes_round<O: Op<Permits, Output = ()> + Unpin + 'static>(hands: bool, op: fn() -> O) {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(move || {
            let permits = Permits {
                free: 1,
                hands,
                waiters: Waiters::new(),
            };
            let core = core(permits);
            let theirs = core.clone();
            let other = loom::thread::spawn(move || {
                block_on(theirs.future(op()));
                theirs.change(|state| state.free += 1);
            });
            let theirs = core.clone();
            let fickle = loom::thread::spawn(move || {
                let mut wait = theirs.future(op());
                if Pin::new(&mut wait)
                    .poll(&mut Context::from_waker(Waker::noop()))
                    .is_ready()
                {
                    theirs.change(|state| state.free += 1);
                }
            });
            block_on(core.future(op()));
            core.change(|state| state.free += 1);
            other.join().unwrap();
            fickle.join().unwrap();
            core.look(|state| {
                assert_eq!(
                    (state.free, state.waiters.waiting(), state.waiters.granted()),
                    (1, 0, 0)
                )
            });
        });
    }

    /// A primitive that one select waits for. It grants what is free, and counts the grants.
    struct Gifts {
        free: usize,
        given: usize,
        waiters: Waiters,
    }

    impl State for Gifts {
        fn grant_waiters(&mut self, woken: &mut Woken) {
            while self.free > self.waiters.granted() && self.waiters.grant_first(woken) {
                self.given += 1;
            }
        }
    }

    struct Gift;

    impl Op<Gifts> for Gift {
        type Output = ();

        fn waiters<'a>(&self, state: &'a mut Gifts) -> &'a mut Waiters {
            &mut state.waiters
        }

        fn attempt(&mut self, state: &mut Gifts, granted: bool, _: &mut Woken) -> Option<()> {
            (granted || state.free > state.waiters.granted()).then(|| state.free -= 1)
        }
    }

    /// A rendezvous: an operation of one side completes with one of the other side.
    #[derive(Default)]
    struct Meeting {
        sides: [Side; 2],
    }

    struct Side(Waiters);

    impl Default for Side {
        fn default() -> Side {
            Side(Waiters::new())
        }
    }

    impl State for Meeting {
        fn grant_waiters(&mut self, _: &mut Woken) {}
    }

    /// Meets an operation of the other side.
    struct Meet(usize);

    impl Op<Meeting> for Meet {
        type Output = ();

        fn waiters<'a>(&self, state: &'a mut Meeting) -> &'a mut Waiters {
            &mut state.sides[self.0].0
        }

        fn attempt(&mut self, state: &mut Meeting, granted: bool, woken: &mut Woken) -> Option<()> {
            (granted || state.sides[1 - self.0].0.grant_first(woken)).then_some(())
        }

        fn attempt_plain(&mut self, _: &mut Meeting) -> Option<()> {
            None
        }

        fn may_attempt(&self, _: &Meeting) -> bool {
            true
        }
    }

    fn core<S: State>(state: S) -> Arc<Core<S, Seen>> {
        let seen = Seen(Mutex::new(false), Condvar::new());
        Arc::new(Core {
            spin: Spin::with_lock(state, seen),
        })
    }

    /// A select with one branch at each core; returns the branch that won.
    fn select<S: State, O: Op<S, Output = ()> + Unpin>(cores: &[Arc<Core<S, Seen>>; 2], op: fn() -> O) -> usize {
        let selecting = Selecting::begin();
        let mut branches = [cores[0].future(op()), cores[1].future(op())];
        let mut first = None;
        block_on(std::future::poll_fn(|context| {
            selecting.poll(context, 2, &mut |number, context| {
                let is_ready = Pin::new(&mut branches[number]).poll(context).is_ready();
                if is_ready {
                    first = Some(number);
                }
                is_ready
            })
        }));
        first.unwrap()
    }

    #[test]
    fn loom_of_a_select_one_branch_is_granted() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(|| {
            let gifts = || Gifts {
                free: 0,
                given: 0,
                waiters: Waiters::new(),
            };
            let cores = [core(gifts()), core(gifts())];
            let granters = cores
                .clone()
                .map(|core| loom::thread::spawn(move || core.change(|state| state.free += 1)));
            let first = select(&cores, || Gift);
            granters.into_iter().for_each(|granter| granter.join().unwrap());
            let given = cores.each_ref().map(|core| {
                core.look(|state| {
                    assert_eq!((state.waiters.waiting(), state.waiters.granted()), (0, 0));
                    (state.free, state.given)
                })
            });
            assert_eq!(
                (given[first].0, given[1 - first]),
                (0, (1, 0)),
                "granted to the other, too"
            );
        });
    }

    #[test]
    fn loom_two_selects_meet_at_one_place() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(2);
        model.check(|| {
            let cores = [core(Meeting::default()), core(Meeting::default())];
            let theirs = cores.clone();
            let gives = loom::thread::spawn(move || select(&theirs, || Meet(0)));
            let taken = select(&cores, || Meet(1));
            assert_eq!(gives.join().unwrap(), taken);
            for core in cores {
                core.look(|state| assert!(state.sides.iter().all(|side| !side.0.any() && side.0.granted() == 0)));
            }
        });
    }

    #[test]
    fn loom_what_is_granted_goes_round() {
        goes_round(false, || Granted);
    }

    #[test]
    fn loom_what_is_handed_over_goes_round() {
        goes_round(true, || Handed);
    }
}
