//! A place where some number of threads meet.
#![forbid(unsafe_code)]

use std::fmt;
use std::future::Future;

use super::wait::{Core, Op, State, Until};
use super::waiters::{Waiters, Woken};
use crate::hub::park::Why;

static BARRIER: &str = "a Barrier";

struct Meeting {
    most: usize,
    waiters: Waiters,
}

impl State for Meeting {
    // The last to come grants it to all.
    fn settle(&mut self, _: &mut Woken) {}
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
        let have_come = others == 0 || state.waiters.grant_all(others, woken);
        have_come.then_some(BarrierWaitResult(true))
    }

    fn attempt_plain(&mut self, _: &mut Meeting) -> Option<BarrierWaitResult> {
        None
    }

    fn may_do(&self, state: &Meeting) -> bool {
        state.waiters.waiting() + 1 >= state.most
    }
}

/// Lets threads go on when so many have come, again and again, as [`std::sync::Barrier`].
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
/// One that is killed or timed out while it waits has not come: the others wait for another.
///
/// # Coming from Python
/// `asyncio.Barrier`, but that it is never broken.
pub struct Barrier {
    core: Core<Meeting>,
}

/// Whether the caller was the last to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BarrierWaitResult(bool);

impl BarrierWaitResult {
    /// True for the last to come, of each meeting one.
    pub fn is_leader(&self) -> bool {
        self.0
    }
}

impl Barrier {
    /// One where `count` meet; of 0 and 1 each alone.
    pub const fn new(count: usize) -> Barrier {
        Barrier {
            core: Core::new(Meeting {
                most: count,
                waiters: Waiters::new(),
            }),
        }
    }

    /// Waits for the others.
    ///
    /// # Blocking and cancellation
    /// Parks, except for the last to come. A kill or time-out unwinds here.
    #[track_caller]
    pub fn wait(&self) -> BarrierWaitResult {
        let met = self.core.block(&mut Arrive, Until::Ever, Why::new(&BARRIER, 0));
        met.unwrap_or(BarrierWaitResult(false))
    }

    /// As [`wait`](Self::wait), for an `async` function.
    pub fn wait_async(&self) -> impl Future<Output = BarrierWaitResult> + use<'_> {
        self.core.future(Arrive)
    }
}

impl fmt::Debug for Barrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Barrier").finish_non_exhaustive()
    }
}
