//! A flag that any number of tasks may wait for.
#![forbid(unsafe_code)]

use std::fmt;
use std::future::Future;
use std::time::{Duration, Instant};

use super::wait::{Core, Op, State, Until};
use super::waiters::{Waiters, Woken};
use crate::hub::Why;

static EVENT: &str = "an Event";

struct Flag {
    is_set: bool,
    waiters: Waiters,
}

impl State for Flag {
    #[inline]
    fn grant_waiters(&mut self, woken: &mut Woken) {
        // Handed over: all waiters continue, even if the flag is cleared before they run.
        while self.is_set && self.waiters.hand_first(woken) {}
    }
}

struct IsSet;

impl Op<Flag> for IsSet {
    type Output = ();

    const HANDED: Option<()> = Some(());

    // Being set is not used up, so a select is granted even while it polls another branch (SELECT-7).
    const TAKES: bool = false;

    fn waiters<'a>(&self, state: &'a mut Flag) -> &'a mut Waiters {
        &mut state.waiters
    }

    #[inline]
    fn attempt(&mut self, state: &mut Flag, granted: bool, _: &mut Woken) -> Option<()> {
        (granted || state.is_set).then_some(())
    }
}

/// A flag, at first not set. [`wait`](Self::wait) waits until it is set, and then all waiters continue.
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
/// A waiter that waited when the flag was set continues, even if the flag is cleared before the waiter runs.
///
/// # Coming from Python
/// `gevent.event.Event`, `asyncio.Event`.
#[doc(alias("SyncFlag", "ResetEvent"))]
pub struct Event {
    core: Core<Flag>,
}

impl Event {
    /// A flag that is not set.
    pub const fn new() -> Event {
        Event {
            core: Core::new(Flag {
                is_set: false,
                waiters: Waiters::new(),
            }),
        }
    }

    /// Sets the flag: all waiters continue.
    pub fn set(&self) {
        self.core.change(|state| state.is_set = true);
    }

    /// Clears the flag: tasks that wait from now on have to wait for the next `set`.
    pub fn clear(&self) {
        self.core.change(|state| state.is_set = false);
    }

    /// Whether the flag is set.
    pub fn is_set(&self) -> bool {
        self.core.look(|state| state.is_set)
    }

    /// Waits until the flag is set.
    ///
    /// # Blocking and cancellation
    /// Parks unless it is set. A kill or time-out unwinds here.
    #[track_caller]
    pub fn wait(&self) {
        self.core.block(&mut IsSet, Until::Ever, Why::new(&EVENT, 0));
    }

    /// Waits until the flag is set, for at most `timeout`; whether it was.
    #[track_caller]
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        self.wait_until(Until::After(timeout))
    }

    /// Waits until the flag is set, or until `deadline`; whether it was.
    #[track_caller]
    pub fn wait_deadline(&self, deadline: Instant) -> bool {
        self.wait_until(Until::At(deadline))
    }

    #[track_caller]
    fn wait_until(&self, until: Until) -> bool {
        self.wait_for(until, Why::new(&EVENT, 0))
    }

    /// For a primitive that is built on this one, and waits under its own name.
    #[track_caller]
    pub(crate) fn wait_for(&self, until: Until, why: Why) -> bool {
        self.core.block(&mut IsSet, until, why).is_some()
    }

    /// Like [`wait`](Self::wait), for an `async` function.
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
