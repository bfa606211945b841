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
//! - **W2** After each change of the state, and after a granted waiter has left, `settle` grants what there is, to the first
//!   in line.
//! - **W3** Wakes, and drops of wakers, happen outside of the lock (S2).
//! - **W4** A time-out that finds itself granted takes what it was granted. A kill passes it on.
#![forbid(unsafe_code)]

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::spin::Spin;
use super::waiters::{Key, Waiters, Woken};
use crate::hub::park::{Mode, Parker, Waiter, Wake, Why};
use crate::hub::{Hub, interrupt};

/// What the lock of a primitive is over.
pub(super) trait State {
    /// Grants what there is to those who wait for it (W2).
    fn settle(&mut self, woken: &mut Woken);
}

/// Something that may have to wait.
pub(super) trait Op<S> {
    type Output;

    /// Where it waits.
    fn waiters<'a>(&self, state: &'a mut S) -> &'a mut Waiters;

    /// What it wants there, as far as others must know.
    fn wants(&self) -> u32 {
        0
    }

    /// Does it, if it can be done now; certainly if it was granted.
    fn attempt(&mut self, state: &mut S, granted: bool, woken: &mut Woken) -> Option<Self::Output>;

    /// It waits now, under this key.
    #[inline]
    fn waits(&mut self, _state: &mut S, _key: Key) {}

    /// It waits no more, and was granted nothing.
    #[inline]
    fn gives_up(&mut self, _state: &mut S, _key: Key) {}

    /// It leaves what it was granted. Only needed where the state was changed as it was granted.
    #[inline]
    fn gives_back(&mut self, _state: &mut S) {}
}

/// The state of a primitive, and all that waits for it.
pub(super) struct Core<S> {
    spin: Spin<S>,
}

/// When a wait ends.
#[derive(Clone, Copy)]
pub(super) enum Until {
    Ever,
    After(Duration),
    At(Instant),
}

impl Until {
    fn on(self, hub: &Hub) -> Option<u64> {
        match self {
            Until::Ever => None,
            Until::After(duration) => Some(hub.after(duration)),
            Until::At(deadline) => Some(hub.clock.nanos(deadline)),
        }
    }
}

impl<S: State> Core<S> {
    pub(super) const fn new(state: S) -> Core<S> {
        Core { spin: Spin::new(state) }
    }

    /// Looks at the state, without a change that others wait for.
    #[inline]
    pub(super) fn look<R>(&self, f: impl FnOnce(&S) -> R) -> R {
        self.spin.with(|state| f(state))
    }

    /// Changes the state, and wakes whom that lets go on.
    #[inline]
    pub(super) fn change<R>(&self, f: impl FnOnce(&mut S) -> R) -> R {
        let mut woken = Woken::default();
        let result = self.spin.with(|state| {
            let result = f(state);
            state.settle(&mut woken);
            result
        });
        woken.wake();
        result
    }

    /// Does it now, or not at all.
    #[inline]
    pub(super) fn attempt<O: Op<S>>(&self, op: &mut O) -> Option<O::Output> {
        let mut woken = Woken::default();
        let done = self.spin.with(|state| {
            let done = op.attempt(state, false, &mut woken)?;
            state.settle(&mut woken);
            Some(done)
        })?;
        woken.wake();
        Some(done)
    }

    /// Does it, as soon as it can be done; `None`: `until` came first.
    #[inline]
    #[track_caller]
    pub(super) fn block<O: Op<S>>(&self, op: &mut O, until: Until, why: Why) -> Option<O::Output> {
        let mut line = self.future(op);
        let mut parker = None;
        match line.begin(&mut parker) {
            Some(done) => Some(done),
            None => line.park(parker, until, why, || ()),
        }
    }

    /// Waits, and does `then` once that is certain: who changes the state from then on wakes it.
    #[track_caller]
    pub(super) fn wait<O: Op<S>>(&self, op: &mut O, until: Until, why: Why, then: impl FnOnce()) -> Option<O::Output> {
        self.future(op).park(None, until, why, then)
    }

    /// The operation as a future.
    #[inline]
    pub(super) fn future<O: Op<S>>(&self, op: O) -> Wait<'_, S, O> {
        Wait {
            core: self,
            op,
            key: None,
        }
    }
}

impl<S, O: Op<S>> Op<S> for &mut O {
    type Output = O::Output;

    fn waiters<'a>(&self, state: &'a mut S) -> &'a mut Waiters {
        (**self).waiters(state)
    }

    fn wants(&self) -> u32 {
        (**self).wants()
    }

    #[inline]
    fn attempt(&mut self, state: &mut S, granted: bool, woken: &mut Woken) -> Option<O::Output> {
        (**self).attempt(state, granted, woken)
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

/// An operation under way. As a future it resolves when the operation is done. Dropped, it waits no more, and what it was
/// granted goes to the next.
#[must_use = "a future does nothing unless it is polled"]
pub(super) struct Wait<'a, S: State, O: Op<S>> {
    core: &'a Core<S>,
    op: O,
    /// Its place in the line, while it has one.
    key: Option<Key>,
}

impl<S: State, O: Op<S>> Wait<'_, S, O> {
    /// The first try; if it has to wait, and can do so without more ado, it is in line with `parker`.
    #[inline]
    fn begin(&mut self, parker: &mut Option<Parker>) -> Option<O::Output> {
        let mut woken = Woken::default();
        let done = self.core.spin.with(|state| {
            let done = self.op.attempt(state, false, &mut woken);
            if done.is_none() {
                *parker = Parker::at_once();
                let waiter = parker.as_ref()?.waiter();
                let key = self.op.waiters(state).push(waiter, self.op.wants());
                self.op.waits(state, key);
                self.key = Some(key);
            }
            // What it did, or brought, may be what somebody waits for.
            state.settle(&mut woken);
            done
        });
        woken.wake();
        done
    }

    #[track_caller]
    fn park(&mut self, mut parker: Option<Parker>, until: Until, why: Why, then: impl FnOnce()) -> Option<O::Output> {
        let mut then = Some(then);
        let deadline = until.on(Hub::current());
        let mut mode = if std::thread::panicking() {
            Mode::Must
        } else {
            Mode::Cancel
        };
        loop {
            let parker = match parker.take() {
                Some(parker) => parker,
                None => {
                    let parker = Parker::new();
                    if let Some(done) = self.step(Some(parker.waiter())) {
                        return Some(done);
                    }
                    parker
                }
            };
            if let Some(then) = then.take() {
                then();
            }
            match parker.park_here(deadline, mode, why) {
                Wake::Ready => {
                    if let Some(done) = self.step(None) {
                        return Some(done);
                    }
                }
                Wake::TimedOut => return self.leave(true),
                Wake::Interrupted => {
                    self.leave(false);
                    interrupt::raise();
                    // A `panic = "abort"` build, or one that unwinds already: it waits for what it came for.
                    mode = Mode::Must;
                }
            }
        }
    }

    /// One look under the lock: takes what was granted, or can be had; or waits (again), with `waiter`.
    #[inline]
    fn step(&mut self, mut waiter: Option<Waiter>) -> Option<O::Output> {
        let mut woken = Woken::default();
        let done = self.core.spin.with(|state| {
            let waiters = self.op.waiters(state);
            let granted = match self.key {
                Some(key) if waiters.is_granted(key) => {
                    waiters.remove(key);
                    self.key = None;
                    true
                }
                Some(key) => {
                    // Given back as the one to drop, outside of the lock.
                    waiter = waiter.take().and_then(|waiter| waiters.replace(key, waiter));
                    return None;
                }
                None => false,
            };
            let done = self.op.attempt(state, granted, &mut woken);
            if done.is_none()
                && let Some(waiter) = waiter.take()
            {
                let key = self.op.waiters(state).push(waiter, self.op.wants());
                self.op.waits(state, key);
                self.key = Some(key);
            }
            state.settle(&mut woken);
            done
        });
        drop(waiter);
        woken.wake();
        done
    }

    /// Waits no more. With `takes` it takes what it was granted meanwhile (W4).
    fn leave(&mut self, takes: bool) -> Option<O::Output> {
        let key = self.key.take()?;
        let mut woken = Woken::default();
        let mut stale = None;
        let done = self.core.spin.with(|state| {
            let (granted, waiter) = self.op.waiters(state).remove(key);
            stale = waiter;
            let done = match (granted, takes) {
                (true, true) => self.op.attempt(state, true, &mut woken),
                (true, false) => {
                    self.op.gives_back(state);
                    None
                }
                (false, _) => {
                    self.op.gives_up(state, key);
                    None
                }
            };
            state.settle(&mut woken);
            done
        });
        drop(stale);
        woken.wake();
        done
    }
}

impl<S: State, O: Op<S> + Unpin> Future for Wait<'_, S, O> {
    type Output = O::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<O::Output> {
        match self.step(Some(Waiter::Waker(context.waker().clone()))) {
            Some(done) => Poll::Ready(done),
            None => Poll::Pending,
        }
    }
}

impl<S: State, O: Op<S>> Drop for Wait<'_, S, O> {
    #[inline]
    fn drop(&mut self) {
        if self.key.is_some() {
            self.leave(false);
        }
    }
}
