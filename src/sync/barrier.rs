//! A place where a number of threads meet.
#![forbid(unsafe_code)]

use std::fmt;
use std::future::Future;

use super::wait::{Core, Op, State, Until};
use super::waiters::{Waiters, Woken};
use crate::hub::Why;

static BARRIER: &str = "a Barrier";

struct Meeting {
    most: usize,
    waiters: Waiters,
}

impl State for Meeting {
    // Nothing to do: the last to arrive grants all others in its attempt.
    fn grant_waiters(&mut self, _: &mut Woken) {}
}

struct Arrive;

impl Op<Meeting> for Arrive {
    type Output = BarrierWaitResult;

    fn waiters<'a>(&self, state: &'a mut Meeting) -> &'a mut Waiters {
        &mut state.waiters
    }

    fn attempt(&mut self, state: &mut Meeting, granted: bool, woken: &mut Woken) -> Option<BarrierWaitResult> {
        if granted {
            return Some(BarrierWaitResult(false));
        }
        let others = state.most.saturating_sub(1);
        // All or none (SELECT-6). If too few of those in line can be had, this one waits with them.
        let have_come = others == 0 || state.waiters.grant_all(others, woken);
        have_come.then_some(BarrierWaitResult(true))
    }

    fn attempt_plain(&mut self, _: &mut Meeting) -> Option<BarrierWaitResult> {
        // An attempt that succeeds wakes the others itself, so it is never plain.
        None
    }

    fn may_attempt(&self, state: &Meeting) -> bool {
        // A cheap check: not all of them may be available.
        state.waiters.waiting() + 1 >= state.most
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
/// `asyncio.Barrier`, except that this one is never broken.
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
                waiters: Waiters::new(),
            }),
        }
    }

    /// Waits until all others have arrived.
    ///
    /// # Blocking and cancellation
    /// Parks, except in the last thread to arrive. A kill or time-out unwinds here.
    #[track_caller]
    pub fn wait(&self) -> BarrierWaitResult {
        let met = self.core.block(&mut Arrive, Until::Ever, Why::new(&BARRIER, 0));
        met.unwrap_or(BarrierWaitResult(false))
    }

    /// Like [`wait`](Self::wait), for an `async` function.
    pub fn wait_async(&self) -> impl Future<Output = BarrierWaitResult> + use<'_> {
        self.core.future(Arrive)
    }
}

impl fmt::Debug for Barrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Barrier").finish_non_exhaustive()
    }
}
