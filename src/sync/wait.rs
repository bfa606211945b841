//! How anything waits for a primitive, in both faces: [`Core::block`] parks, [`Core::future`] is polled. Both drive one
//! [`Op`], under the primitive's lock.
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
        match self.attempt(op) {
            Some(done) => Some(done),
            None => self.wait(op, until, why, || ()),
        }
    }

    /// Waits, and does `then` once that is certain: who changes the state from then on wakes it.
    #[track_caller]
    pub(super) fn wait<O: Op<S>>(&self, op: &mut O, until: Until, why: Why, then: impl FnOnce()) -> Option<O::Output> {
        let mut then = Some(then);
        let deadline = until.on(Hub::current());
        let mut mode = if std::thread::panicking() {
            Mode::Must
        } else {
            Mode::Cancel
        };
        let mut key = None;
        loop {
            let parker = Parker::new();
            let mut woken = Woken::default();
            let mut stale = None;
            let done = self
                .spin
                .with(|state| self.step(state, op, &mut key, parker.waiter(), &mut stale, &mut woken));
            drop(stale);
            woken.wake();
            if done.is_some() {
                return done;
            }
            if let Some(then) = then.take() {
                then();
            }
            match parker.park_here(deadline, mode, why) {
                Wake::Ready => {}
                Wake::TimedOut => return self.leave(op, key.take(), true),
                Wake::Interrupted => {
                    self.leave(op, key.take(), false);
                    interrupt::raise();
                    // A `panic = "abort"` build, or one that unwinds already: it waits for what it came for.
                    mode = Mode::Must;
                }
            }
        }
    }

    /// One look under the lock: takes what was granted, or can be had; or (again) waits.
    fn step<O: Op<S>>(
        &self,
        state: &mut S,
        op: &mut O,
        key: &mut Option<Key>,
        waiter: Waiter,
        stale: &mut Option<Waiter>,
        woken: &mut Woken,
    ) -> Option<O::Output> {
        let granted = match *key {
            Some(at) => match op.waiters(state).replace(at, waiter) {
                Ok(before) => {
                    *stale = before;
                    return None;
                }
                Err(unused) => {
                    *stale = Some(unused);
                    op.waiters(state).remove(at);
                    *key = None;
                    true
                }
            },
            None => {
                *stale = Some(waiter);
                false
            }
        };
        let done = op.attempt(state, granted, woken);
        if done.is_some() {
            state.settle(woken);
        } else if let Some(waiter) = stale.take() {
            let at = op.waiters(state).push(waiter, op.wants());
            op.waits(state, at);
            // What it brought may be what somebody waits for.
            state.settle(woken);
            *key = Some(at);
        }
        done
    }

    /// Waits no more. With `takes` it takes what it was granted meanwhile (W4).
    fn leave<O: Op<S>>(&self, op: &mut O, key: Option<Key>, takes: bool) -> Option<O::Output> {
        let key = key?;
        let mut woken = Woken::default();
        let mut stale = None;
        let done = self.spin.with(|state| {
            let (granted, waiter) = op.waiters(state).remove(key);
            stale = waiter;
            let done = match (granted, takes) {
                (true, true) => op.attempt(state, true, &mut woken),
                (true, false) => {
                    op.gives_back(state);
                    None
                }
                (false, _) => {
                    op.gives_up(state, key);
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

    /// The same as a future.
    pub(super) fn future<O: Op<S>>(&self, op: O) -> Wait<'_, S, O> {
        Wait {
            core: self,
            op,
            key: None,
        }
    }
}

/// Resolves when the operation is done. Dropped, it waits no more, and what it was granted goes to the next.
#[must_use = "a future does nothing unless it is polled"]
pub(super) struct Wait<'a, S: State, O: Op<S>> {
    core: &'a Core<S>,
    op: O,
    key: Option<Key>,
}

impl<S: State, O: Op<S> + Unpin> Future for Wait<'_, S, O> {
    type Output = O::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<O::Output> {
        let this = &mut *self;
        let waiter = Waiter::Waker(context.waker().clone());
        let mut woken = Woken::default();
        let mut stale = None;
        let core = this.core;
        let done = core
            .spin
            .with(|state| core.step(state, &mut this.op, &mut this.key, waiter, &mut stale, &mut woken));
        drop(stale);
        woken.wake();
        match done {
            Some(done) => Poll::Ready(done),
            None => Poll::Pending,
        }
    }
}

impl<S: State, O: Op<S>> Drop for Wait<'_, S, O> {
    fn drop(&mut self) {
        let key = self.key.take();
        self.core.leave(&mut self.op, key, false);
    }
}
