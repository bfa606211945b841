//! A flag that many may wait for.
#![forbid(unsafe_code)]

use std::fmt;
use std::future::Future;
use std::time::{Duration, Instant};

use super::wait::{Core, Op, State, Until};
use super::waiters::{Waiters, Woken};
use crate::hub::park::Why;

static EVENT: &str = "an Event";

struct Flag {
    is_set: bool,
    waiters: Waiters,
}

impl State for Flag {
    #[inline]
    fn settle(&mut self, woken: &mut Woken) {
        while self.is_set && self.waiters.hand_first(woken) {}
    }
}

struct IsSet;

impl Op<Flag> for IsSet {
    type Output = ();

    const HANDED: Option<()> = Some(());

    const TAKES: bool = false;

    fn waiters<'a>(&self, state: &'a mut Flag) -> &'a mut Waiters {
        &mut state.waiters
    }

    #[inline]
    fn attempt(&mut self, state: &mut Flag, granted: bool, _: &mut Woken) -> Option<()> {
        (granted || state.is_set).then_some(())
    }
}

/// A flag, at first not set: [`wait`](Self::wait) waits until somebody sets it, and all go on.
///
/// ```
/// use std::sync::Arc;
/// use greenthread::{sync::Event, spawn};
///
/// let ready = Arc::new(Event::new());
/// let waiters: Vec<_> = (0..3)
///     .map(|_| {
///         let ready = ready.clone();
///         spawn(move || ready.wait())
///     })
///     .collect();
/// ready.set();
/// waiters.into_iter().for_each(|waiter| waiter.join().unwrap());
/// ```
///
/// Whoever waited when it was set goes on, even if it is cleared before it runs.
///
/// # Coming from Python
/// `gevent.event.Event`, `asyncio.Event`.
pub struct Event {
    core: Core<Flag>,
}

impl Event {
    /// Not set.
    pub const fn new() -> Event {
        Event {
            core: Core::new(Flag {
                is_set: false,
                waiters: Waiters::new(),
            }),
        }
    }

    /// Sets it: all who wait go on.
    pub fn set(&self) {
        self.core.change(|state| state.is_set = true);
    }

    /// Clears it: who comes now waits.
    pub fn clear(&self) {
        self.core.change(|state| state.is_set = false);
    }

    /// Whether it is set.
    pub fn is_set(&self) -> bool {
        self.core.look(|state| state.is_set)
    }

    /// Waits until it is set.
    ///
    /// # Blocking and cancellation
    /// Parks unless it is set. A kill or time-out unwinds here.
    #[track_caller]
    pub fn wait(&self) {
        self.core.block(&mut IsSet, Until::Ever, Why::new(&EVENT, 0));
    }

    /// Waits until it is set for at most `timeout`; whether it was.
    #[track_caller]
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        self.wait_until(Until::After(timeout))
    }

    /// Waits until it is set, or until `deadline`; whether it was.
    #[track_caller]
    pub fn wait_deadline(&self, deadline: Instant) -> bool {
        self.wait_until(Until::At(deadline))
    }

    #[track_caller]
    fn wait_until(&self, until: Until) -> bool {
        self.wait_for(until, Why::new(&EVENT, 0))
    }

    /// For what is built on it, under its own name.
    #[track_caller]
    pub(crate) fn wait_for(&self, until: Until, why: Why) -> bool {
        self.core.block(&mut IsSet, until, why).is_some()
    }

    /// As [`wait`](Self::wait), for an `async` function.
    pub fn wait_async(&self) -> impl Future<Output = ()> + use<'_> {
        self.core.future(IsSet)
    }
}

impl Default for Event {
    fn default() -> Event {
        Event::new()
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event")
            .field("is_set", &self.is_set())
            .finish_non_exhaustive()
    }
}
