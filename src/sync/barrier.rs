//! A place where a number of threads meet.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::fmt;
use std::future::Future;
use std::time::{Duration, Instant};

use super::wait::{Core, Op, State, Until};
use super::waiters::{Key, Waiters, Woken};
use crate::hub::Why;

static BARRIER: &str = "a Barrier";

struct Meeting {
    most: usize,
    is_broken: bool,
    /// All in line are to be told that the barrier is broken.
    breaks: bool,
    /// How often it broke. One that arrived before and finds another number was told, although a select that polled
    /// another branch at that moment was passed over in line (SELECT-2).
    broken: u64,
    waiters: Waiters,
    /// Waiters that were granted because the barrier is broken, and have not run since.
    told: BTreeSet<Key>,
}

impl State for Meeting {
    #[inline]
    fn may_grant(&self) -> bool {
        self.breaks
    }

    // A meeting needs nothing here: the last to arrive grants all others in its attempt.
    fn grant_waiters(&mut self, woken: &mut Woken) {
        while self.breaks
            && let Some(key) = self.waiters.grant_any(woken)
        {
            self.told.insert(key);
        }
        self.breaks = false;
    }
}

/// Arrives, and waits for the others.
#[derive(Default)]
struct Arrive {
    key: Option<Key>,
    /// How often the barrier had broken when this arrived.
    since: Option<u64>,
}

/// The barrier was [aborted](Barrier::abort), or [reset](Barrier::reset) while the caller waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BrokenBarrier;

impl fmt::Display for BrokenBarrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the Barrier is broken: it was aborted, or reset during the wait")
    }
}

impl std::error::Error for BrokenBarrier {}

impl Op<Meeting> for Arrive {
    type Output = Result<BarrierWaitResult, BrokenBarrier>;

    fn waiters<'a>(&self, state: &'a mut Meeting) -> &'a mut Waiters {
        &mut state.waiters
    }

    fn attempt(&mut self, state: &mut Meeting, granted: bool, woken: &mut Woken) -> Option<Self::Output> {
        if granted {
            let was_told = self.key.is_some_and(|key| state.told.remove(&key));
            return Some(if was_told {
                Err(BrokenBarrier)
            } else {
                Ok(BarrierWaitResult(false))
            });
        }
        if state.is_broken || self.since.is_some_and(|since| since != state.broken) {
            return Some(Err(BrokenBarrier));
        }
        let others = state.most.saturating_sub(1);
        // All or none (SELECT-6). If too few of those in line can be had, this one waits with them.
        let have_come = others == 0 || state.waiters.grant_all(others, woken);
        have_come.then_some(Ok(BarrierWaitResult(true)))
    }

    fn attempt_plain(&mut self, state: &mut Meeting) -> Option<Self::Output> {
        // An attempt that completes a meeting wakes the others itself, so it is not plain.
        state.is_broken.then_some(Err(BrokenBarrier))
    }

    fn may_attempt(&self, state: &Meeting) -> bool {
        // A cheap check: not all of them may be available.
        state.waiters.waiting() + 1 >= state.most
    }

    fn on_enqueue(&mut self, state: &mut Meeting, key: Key) {
        self.key = Some(key);
        self.since.get_or_insert(state.broken);
    }

    fn undo_grant(&mut self, state: &mut Meeting) {
        if let Some(key) = self.key {
            state.told.remove(&key);
        }
    }
}

/// Lets threads continue once a number of them have arrived, again and again, like [`std::sync::Barrier`].
///
/// ```
/// use std::sync::Arc;
/// use greenthread::{spawn, sync::Barrier};
///
/// let barrier = Arc::new(Barrier::new(3));
/// let threads: Vec<_> = (0..3)
///     .map(|_| {
///         let barrier = barrier.clone();
///         spawn(move || barrier.wait().is_leader())
///     })
///     .collect();
/// let leaders = threads.into_iter().map(|thread| thread.join().unwrap());
/// assert_eq!(leaders.filter(|leader| *leader).count(), 1);
/// ```
///
/// A thread that is killed or timed out while it waits does not count as arrived: the others wait for another one.
///
/// # Coming from Python
/// `asyncio.Barrier`; [`checked_wait`](Self::checked_wait) is its `wait`, which raises `BrokenBarrierError`.
pub struct Barrier {
    core: Core<Meeting>,
}

/// Whether the caller was the last to arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BarrierWaitResult(bool);

impl BarrierWaitResult {
    /// True for the last thread to arrive, so for one thread of each meeting.
    pub fn is_leader(&self) -> bool {
        self.0
    }
}

impl Barrier {
    /// A barrier for `count` threads; with 0 or 1 no thread waits.
    pub const fn new(count: usize) -> Barrier {
        Barrier {
            core: Core::new(Meeting {
                most: count,
                is_broken: false,
                breaks: false,
                broken: 0,
                waiters: Waiters::new(),
                told: BTreeSet::new(),
            }),
        }
    }

    /// Waits until all others have arrived.
    ///
    /// # Panics
    /// If the barrier is [broken](Self::abort); [`checked_wait`](Self::checked_wait) gives an error.
    ///
    /// # Blocking and cancellation
    /// Parks, except in the last thread to arrive. A kill or time-out unwinds here.
    #[track_caller]
    pub fn wait(&self) -> BarrierWaitResult {
        match self.checked_wait() {
            Ok(met) => met,
            Err(broken) => panic!("wait: {broken}; `checked_wait` gives this as an error"),
        }
    }

    /// Like [`wait`](Self::wait), for a barrier that may be broken.
    ///
    /// # Errors
    /// [`BrokenBarrier`].
    #[track_caller]
    pub fn checked_wait(&self) -> Result<BarrierWaitResult, BrokenBarrier> {
        let met = self
            .core
            .block(&mut Arrive::default(), Until::Ever, Why::new(&BARRIER, 0));
        met.unwrap_or(Err(BrokenBarrier))
    }

    /// Like [`checked_wait`](Self::checked_wait), but for at most `timeout`. `None` if the time is over: the caller
    /// then does not count as arrived.
    ///
    /// # Errors
    /// [`BrokenBarrier`], inside.
    #[track_caller]
    pub fn wait_timeout(&self, timeout: Duration) -> Option<Result<BarrierWaitResult, BrokenBarrier>> {
        self.core
            .block(&mut Arrive::default(), Until::After(timeout), Why::new(&BARRIER, 0))
    }

    /// Like [`wait_timeout`](Self::wait_timeout), but until `deadline`.
    ///
    /// # Errors
    /// [`BrokenBarrier`], inside.
    #[track_caller]
    pub fn wait_deadline(&self, deadline: Instant) -> Option<Result<BarrierWaitResult, BrokenBarrier>> {
        self.core
            .block(&mut Arrive::default(), Until::At(deadline), Why::new(&BARRIER, 0))
    }

    /// Like [`wait`](Self::wait), for an `async` function.
    pub fn wait_async(&self) -> impl Future<Output = BarrierWaitResult> + use<'_> {
        let met = self.core.future(Arrive::default());
        async move {
            match met.await {
                Ok(met) => met,
                Err(broken) => panic!("wait_async: {broken}; `checked_wait_async` gives this as an error"),
            }
        }
    }

    /// Like [`checked_wait`](Self::checked_wait), for an `async` function.
    ///
    /// # Errors
    /// [`BrokenBarrier`].
    pub fn checked_wait_async(&self) -> impl Future<Output = Result<BarrierWaitResult, BrokenBarrier>> + use<'_> {
        self.core.future(Arrive::default())
    }

    /// Breaks the barrier: all that wait are told so, and so is each that comes later, until a [`reset`](Self::reset).
    ///
    /// ```
    /// use std::sync::Arc;
    /// use greenthread::{spawn, sync::Barrier, yield_now};
    /// let two = Arc::new(Barrier::new(2));
    /// let other = two.clone();
    /// let waiter = spawn(move || other.checked_wait().is_err());
    /// yield_now();
    /// two.abort(); // the second will never come
    /// assert!(waiter.join().unwrap() && two.is_broken());
    /// ```
    ///
    /// # Coming from Python
    /// `asyncio.Barrier.abort`.
    pub fn abort(&self) {
        self.breaks(true);
    }

    /// Makes the barrier as new. Those that wait now are told that it is broken.
    ///
    /// # Coming from Python
    /// `asyncio.Barrier.reset`.
    pub fn reset(&self) {
        self.breaks(false);
    }

    fn breaks(&self, stays: bool) {
        self.core.change(|state| {
            (state.is_broken, state.breaks) = (stays, true);
            state.broken += 1;
        });
    }

    /// Whether it was [aborted](Self::abort).
    pub fn is_broken(&self) -> bool {
        self.core.look(|state| state.is_broken)
    }
}

impl fmt::Debug for Barrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Barrier").finish_non_exhaustive()
    }
}
