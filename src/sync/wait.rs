//! How anything waits for a primitive, in both faces: [`Core::block`] parks, [`Core::future`] is polled. Both drive one
//! [`Wait`], under the primitive's lock.
//!
//! ```text
//!            attempt                        granted: attempt again, which succeeds
//!   new ───────────────► done     waiting ────────────────────────────────────────► done
//!        │  not yet                 │  ▲
//!        └──────────► push ─────────┘  │ woken for nothing: another waiter in its place
//!                                   │──┘
//!                                   └──────────► left (kill, time-out, drop)
//!                                        granted? what was set aside is granted to the next
//! ```
//!
//! # Invariants
//! - **W1** What is set aside for granted waiters is nobody else's: a new attempt leaves as much as there are.
//! - **W2** After each change of the state, and after a granted waiter has left, `settle` grants what there is, to the
//!   first in line.
//! - **W3** Wakes, and drops of wakers, happen outside of the lock (S2).
//! - **W4** A time-out that finds itself granted takes what it was granted. A kill passes it on.
//! - **W5** The ticket of a parker that blocks is in one line and nowhere else: a wake with it says that it was
//!   granted. So who was handed what it came for need not look.
//! - **W6** What could wait takes a step of the [budget](crate::hub::budget) before its first attempt: so an interrupt finds
//!   it with nothing in hand. Within a select that is the select's to do, for the first step of a branch.
#![forbid(unsafe_code)]

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::AtomicBool;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::waiters::{Key, Waiters, Woken};
use crate::hub::choice::{Choice, NO_BRANCH};
use crate::hub::park::{Mode, Parker, Waiter, Wake, Why};
use crate::hub::spin::{Lock, Marked, Spin};
use crate::hub::{self, budget, interrupt};

/// What the lock of a primitive is over.
pub(super) trait State {
    /// Whether what is done to it under the lock may allocate, or free. If not, the few places that do say so themselves
    /// ([`push_back`](crate::hub::spin::push_back)); [`Waiters`] do.
    const ALLOCATES: bool = true;

    /// Whether [`settle`](Self::settle) may find anything to grant: a quick look before it.
    #[inline(always)]
    fn may_grant(&self) -> bool {
        true
    }

    /// Grants what there is to those who wait for it (W2).
    fn settle(&mut self, woken: &mut Woken);
}

/// Something that may have to wait.
pub(super) trait Op<S> {
    type Output;

    /// What it is worth if who granted it has done it as well: `settle` [hands](Waiters::hand_first) it over, so that
    /// nothing is left to do.
    const HANDED: Option<Self::Output> = None;

    /// Whether a grant takes something from others. If not, a branch of a select may be granted it in vain, and is even
    /// while the select looks at another: no pulse of an event is missed for that.
    const TAKES: bool = true;

    /// Whether it takes a step of the budget (W6): all that may wait or not.
    #[inline(always)]
    fn spends(&self) -> bool {
        true
    }

    /// Where it waits.
    fn waiters<'a>(&self, state: &'a mut S) -> &'a mut Waiters;

    /// What it wants there, as far as others must know.
    fn wants(&self) -> u32 {
        0
    }

    /// Does it, if it can be done now; certainly if it was granted.
    fn attempt(&mut self, state: &mut S, granted: bool, woken: &mut Woken) -> Option<Self::Output>;

    /// Does it where nobody is woken but by `settle`: tried before [`attempt`](Self::attempt). By default that is all of it; an
    /// operation whose attempt wakes others gives this and [`may_do`](Self::may_do).
    #[inline(always)]
    fn attempt_plain(&mut self, state: &mut S) -> Option<Self::Output> {
        let mut woken = Woken::default();
        let done = self.attempt(state, false, &mut woken);
        debug_assert!(woken.is_empty(), "an attempt that wakes others is not plain");
        done
    }

    /// Whether `attempt` may do it though `attempt_plain` did not: a quick look.
    #[inline(always)]
    fn may_do(&self, _state: &S) -> bool {
        false
    }

    /// It waits now, under this key.
    #[inline]
    fn waits(&mut self, _state: &mut S, _key: Key) {}

    /// It waits no more, and was granted nothing.
    #[inline]
    fn gives_up(&mut self, _state: &mut S, _key: Key) {}

    /// It leaves what it was granted. Only needed where the state was changed as it was granted, as in a hand-over.
    #[inline]
    fn gives_back(&mut self, _state: &mut S) {}
}

/// The state of a primitive, and all that waits for it.
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

/// Takes a step of the budget, and unwinds if it finds that an interrupt is due.
#[inline(always)]
pub(super) fn spend() {
    if budget::spend(Mode::Cancel) == Wake::Interrupted {
        interrupt::raise();
    }
}

/// Grants, unlocks, and then wakes whom that lets go on. Not inlined: mostly there is nothing to grant.
#[inline(never)]
fn settle<S: State, L: Lock>(mut state: Marked<'_, S, L>) {
    let mut woken = Woken::default();
    state.settle(&mut woken);
    drop(state);
    woken.wake();
}

/// One attempt, not inlined: what only few operations come to.
#[inline(never)]
fn attempt<S: State, O: Op<S>, L: Lock>(op: &mut O, mut state: Marked<'_, S, L>) -> Option<O::Output> {
    let mut woken = Woken::default();
    let done = op.attempt(&mut state, false, &mut woken);
    if done.is_some() {
        state.settle(&mut woken);
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

    /// Looks at the state, without a change that others wait for.
    #[inline]
    pub(super) fn look<R>(&self, f: impl FnOnce(&S) -> R) -> R {
        f(&self.locked())
    }

    /// Changes the state, and wakes whom that lets go on.
    #[inline(always)]
    pub(super) fn change<R>(&self, f: impl FnOnce(&mut S) -> R) -> R {
        let mut state = self.locked();
        let result = f(&mut state);
        if state.may_grant() {
            settle(state);
        }
        result
    }

    /// Does it now, or not at all.
    #[inline]
    pub(super) fn attempt<O: Op<S>>(&self, op: &mut O) -> Option<O::Output> {
        let mut state = self.locked();
        if let Some(done) = op.attempt_plain(&mut state) {
            if state.may_grant() {
                settle(state);
            }
            return Some(done);
        }
        if op.may_do(&state) {
            return attempt(op, state);
        }
        None
    }

    /// Does it, as soon as it can be done; `None`: `until` came first. A step of the budget is taken first (W6).
    #[inline(always)]
    #[track_caller]
    pub(super) fn block<O: Op<S>>(&self, op: &mut O, until: Until, why: Why) -> Option<O::Output> {
        if op.spends() {
            spend();
        }
        self.block_unspent(op, until, why)
    }

    /// The same without that, for what never waits, or has waited already.
    ///
    /// Inlined down to the switch, for the sake of the processor's prediction; see [`park::yield_now`].
    #[inline(always)]
    #[track_caller]
    pub(super) fn block_unspent<O: Op<S>>(&self, op: &mut O, until: Until, why: Why) -> Option<O::Output> {
        let mut state = self.locked();
        if let Some(done) = op.attempt_plain(&mut state) {
            if state.may_grant() {
                settle(state);
            }
            return Some(done);
        }
        if op.may_do(&state) {
            if let Some(done) = attempt(op, state) {
                return Some(done);
            }
            let mut line = self.future(op);
            return line.go_on(None, until.deadline(), why);
        }
        let parker = Parker::at_once();
        let mut key = None;
        if let Some(parker) = &parker {
            let place = op.waiters(&mut state).push(parker.waiter(), op.wants());
            op.waits(&mut state, place);
            key = Some(place);
        }
        if state.may_grant() {
            // That it waits may be what somebody waits for.
            settle(state);
        } else {
            drop(state);
        }
        let mut line = Wait { core: self, op, key };
        let deadline = until.deadline();
        match parker {
            Some(parker) => line.park(parker, deadline, why),
            None => line.go_on(None, deadline, why),
        }
    }

    /// Waits, and does `then` once that is certain: who changes the state from then on wakes it.
    #[track_caller]
    pub(super) fn wait<O: Op<S>>(&self, op: &mut O, until: Until, why: Why, then: impl FnOnce()) -> Option<O::Output> {
        let deadline = until.deadline();
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
    fn may_do(&self, state: &S) -> bool {
        (**self).may_do(state)
    }

    fn waits(&mut self, state: &mut S, key: Key) {
        (**self).waits(state, key);
    }

    fn gives_up(&mut self, state: &mut S, key: Key) {
        (**self).gives_up(state, key);
    }

    fn gives_back(&mut self, state: &mut S) {
        (**self).gives_back(state);
    }
}

/// An operation under way. As a future it resolves when the operation is done. Dropped, it waits no more, and what it
/// was granted goes to the next.
#[must_use = "a future does nothing unless it is polled"]
pub(super) struct Wait<'a, S: State, O: Op<S>, L: Lock = AtomicBool> {
    core: &'a Core<S, L>,
    op: O,
    /// Its place in the line, while it has one.
    key: Option<Key>,
}

impl<S: State, O: Op<S>, L: Lock> Wait<'_, S, O, L> {
    /// In line with `parker`: parks once, and has been granted it when it is back, unless something else came.
    #[inline(always)]
    #[track_caller]
    fn park(&mut self, parker: Parker, deadline: Option<u64>, why: Why) -> Option<O::Output> {
        let mode = if std::thread::panicking() {
            Mode::Must
        } else {
            Mode::Cancel
        };
        let wake = parker.park_here(deadline, mode, why);
        if wake == Wake::Ready {
            // Nobody else had this ticket: it was granted (W5).
            if let Some(handed) = O::HANDED {
                let key = self.key.take();
                debug_assert!(key.is_some_and(|key| self.op.waiters(&mut self.core.locked()).is_granted(key)));
                return Some(handed);
            }
            if let Some(done) = self.collect() {
                return Some(done);
            }
        }
        self.go_on(Some(wake), deadline, why)
    }

    /// All that is not the rule: it could not get in line at once, or was woken by something else than what it waits
    /// for.
    #[cold]
    #[inline(never)]
    #[track_caller]
    fn go_on(&mut self, mut wake: Option<Wake>, deadline: Option<u64>, why: Why) -> Option<O::Output> {
        let mut mode = Mode::Cancel;
        loop {
            match wake {
                Some(Wake::TimedOut) => return self.leave(true),
                Some(Wake::Interrupted) => {
                    self.leave(false);
                    interrupt::raise();
                    // A `panic = "abort"` build, or one that unwinds already: it waits for what it came for.
                    mode = Mode::Must;
                }
                Some(Wake::Ready | Wake::Early) | None => {}
            }
            if std::thread::panicking() {
                mode = Mode::Must;
            }
            if hub::is_past(deadline) {
                return self.leave(true);
            }
            let parker = Parker::new();
            if let Some(done) = self.step(parker.waiter(), None) {
                return Some(done);
            }
            wake = Some(parker.park(deadline, mode, why));
        }
    }

    /// Takes what was granted, if it was.
    #[inline]
    fn collect(&mut self) -> Option<O::Output> {
        let key = self.key?;
        let mut woken = Woken::default();
        let mut state = self.core.locked();
        if !self.op.waiters(&mut state).is_granted(key) {
            return None;
        }
        let done = self.take(&mut state, &mut woken);
        state.settle(&mut woken);
        drop(state);
        woken.wake();
        done
    }

    /// It was granted.
    #[inline]
    fn take(&mut self, state: &mut S, woken: &mut Woken) -> Option<O::Output> {
        self.key = None;
        if O::HANDED.is_none() {
            self.op.waiters(state).remove_granted();
        }
        self.op.attempt(state, true, woken)
    }

    /// One look under the lock: takes what was granted, or can be had; or waits (again), with `waiter`, as a branch of the
    /// choice if there is one.
    fn step(&mut self, waiter: Waiter, choice: Option<&Choice>) -> Option<O::Output> {
        let branch = choice.filter(|_| O::TAKES).map_or(NO_BRANCH, Choice::branch);
        let mut woken = Woken::default();
        let mut state = self.core.locked();
        let entered = choice.map(Choice::enter);
        if let Some(key) = self.key
            && self.op.waiters(&mut state).was_passed(key)
        {
            // Out of the line, with nothing: it begins anew.
            self.key = None;
            self.op.gives_up(&mut state, key);
        }
        let waiters = self.op.waiters(&mut state);
        let done = match self.key {
            Some(key) if !waiters.is_granted(key) => {
                let stale = waiters.replace(key, waiter, branch);
                // The one before may be the user's to drop: not under the lock.
                drop(entered);
                drop(state);
                drop(stale);
                return None;
            }
            Some(_) => {
                choice.filter(|_| O::TAKES).into_iter().for_each(Choice::collected);
                self.take(&mut state, &mut woken)
            }
            None => self.op.attempt(&mut state, false, &mut woken),
        };
        let mut unused = Some(waiter);
        if done.is_none()
            && let Some(waiter) = unused.take()
        {
            let wants = self.op.wants();
            let key = self.op.waiters(&mut state).push_branch(waiter, wants, branch);
            self.op.waits(&mut state, key);
            self.key = Some(key);
        }
        state.settle(&mut woken);
        drop(entered);
        drop(state);
        drop(unused);
        woken.wake();
        done
    }

    /// Waits no more. With `takes` it takes what it was granted meanwhile (W4).
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
            done = self.take(&mut state, &mut woken);
        } else if granted {
            if O::HANDED.is_none() {
                waiters.remove_granted();
            }
            self.op.gives_back(&mut state);
        } else {
            stale = waiters.remove(key);
            self.op.gives_up(&mut state, key);
        }
        self.key = None;
        state.settle(&mut woken);
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
            // W6
            std::task::ready!(budget::poll(context));
        }
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

    /// A lock that loom sees through.
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

    /// Permits, granted and then taken; or handed over.
    struct Permits {
        free: usize,
        hands: bool,
        waiters: Waiters,
    }

    impl State for Permits {
        fn settle(&mut self, woken: &mut Woken) {
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

        fn gives_back(&mut self, state: &mut Permits) {
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

    /// One permit, two that want it for a moment, and one that gives up half way: in the end it is free, and everybody
    /// has had it.
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

    /// What one select waits for: each grants what it has, and counts that.
    struct Gifts {
        free: usize,
        given: usize,
        waiters: Waiters,
    }

    impl State for Gifts {
        fn settle(&mut self, woken: &mut Woken) {
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

    /// A place where one that gives and one that takes meet.
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
        fn settle(&mut self, _: &mut Woken) {}
    }

    /// To meet one of the other side.
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

        fn may_do(&self, _: &Meeting) -> bool {
            true
        }
    }

    fn core<S: State>(state: S) -> Arc<Core<S, Seen>> {
        let seen = Seen(Mutex::new(false), Condvar::new());
        Arc::new(Core {
            spin: Spin::with_lock(state, seen),
        })
    }

    /// A select of one branch at each core; which one it was.
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
