//! Permits that are handed out and given back.
#![forbid(unsafe_code)]

use std::fmt;
use std::future::Future;
use std::time::{Duration, Instant};

use super::wait::{Core, Op, State, Until};
use super::waiters::{Waiters, Woken};
use crate::hub::Why;

static SEMAPHORE: &str = "a Semaphore";

struct Permits {
    free: usize,
    /// The upper limit of `free`.
    most: usize,
    waiters: Waiters,
}

impl State for Permits {
    const ALLOCATES: bool = false;

    #[inline(always)]
    fn may_grant(&self) -> bool {
        self.waiters.any() && self.free > 0
    }

    #[inline]
    fn grant_waiters(&mut self, woken: &mut Woken) {
        while self.may_grant() && self.waiters.hand_first(woken) {
            // The permit is taken for the waiter here, before it runs (WAIT-1).
            self.free -= 1;
        }
    }
}

struct Acquire;

impl Op<Permits> for Acquire {
    type Output = ();

    const HANDED: Option<()> = Some(());

    fn waiters<'a>(&self, state: &'a mut Permits) -> &'a mut Waiters {
        &mut state.waiters
    }

    #[inline]
    fn attempt(&mut self, state: &mut Permits, granted: bool, _: &mut Woken) -> Option<()> {
        // After a hand-over `free` was lowered already.
        if !granted {
            state.free = state.free.checked_sub(1)?;
        }
        Some(())
    }

    fn undo_grant(&mut self, state: &mut Permits) {
        // Permits may have been added since this one was handed over, so keep the limit.
        state.free = state.free.saturating_add(1).min(state.most);
    }
}

/// A number of permits. [`acquire`](Self::acquire) takes one, and waits while there is none, in order of arrival.
///
/// ```
/// use std::sync::Arc;
/// use greenthread::{sync::Semaphore, spawn, yield_now};
///
/// let two = Arc::new(Semaphore::new(2));
/// let workers: Vec<_> = (0..10)
///     .map(|_| {
///         let two = two.clone();
///         spawn(move || {
///             let _permit = two.acquire(); // given back when it is dropped
///             assert!(two.available() < 2);
///             yield_now();
///         })
///     })
///     .collect();
/// workers.into_iter().for_each(|worker| worker.join().unwrap());
/// assert_eq!(two.available(), 2);
/// ```
///
/// # Coming from Python
/// `gevent.lock.Semaphore` and `asyncio.Semaphore`; [`add`](Self::add) is their `release` by a caller that holds no
/// permit.
pub struct Semaphore {
    core: Core<Permits>,
}

/// A permit of a [`Semaphore`], given back when it is dropped.
#[must_use = "dropped at once, it is given back"]
#[derive(Debug)]
pub struct Permit<'a>(&'a Semaphore);

impl Permit<'_> {
    /// Keeps the permit for good: the semaphore has one permit less.
    pub fn forget(self) {
        std::mem::forget(self);
    }
}

impl Drop for Permit<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.add(1);
    }
}

impl Semaphore {
    /// A semaphore with `permits` permits.
    pub const fn new(permits: usize) -> Semaphore {
        Semaphore::with(permits, usize::MAX)
    }

    const fn with(free: usize, most: usize) -> Semaphore {
        let waiters = Waiters::new();
        Semaphore {
            core: Core::new(Permits { free, most, waiters }),
        }
    }

    /// Waits for a permit.
    ///
    /// # Blocking and cancellation
    /// Parks while there is no permit. A kill or time-out unwinds here; a permit that was granted already goes to the
    /// next in line.
    #[inline]
    #[track_caller]
    pub fn acquire(&self) -> Permit<'_> {
        self.core.block(&mut Acquire, Until::Ever, Why::new(&SEMAPHORE, 0));
        Permit(self)
    }

    /// Takes a permit, if one is free. It never takes one from a waiter in line.
    pub fn try_acquire(&self) -> Option<Permit<'_>> {
        self.core.attempt(&mut Acquire).map(|()| Permit(self))
    }

    /// Waits for a permit for at most `timeout`.
    #[track_caller]
    pub fn acquire_timeout(&self, timeout: Duration) -> Option<Permit<'_>> {
        self.acquire_until(Until::After(timeout))
    }

    /// Waits for a permit until `deadline`.
    #[track_caller]
    pub fn acquire_deadline(&self, deadline: Instant) -> Option<Permit<'_>> {
        self.acquire_until(Until::At(deadline))
    }

    #[track_caller]
    fn acquire_until(&self, until: Until) -> Option<Permit<'_>> {
        self.acquire_for(until, Why::new(&SEMAPHORE, 0))
    }

    /// For a primitive that is built on this one, and waits under its own name.
    #[track_caller]
    pub(crate) fn acquire_for(&self, until: Until, why: Why) -> Option<Permit<'_>> {
        self.core.block(&mut Acquire, until, why).map(|()| Permit(self))
    }

    /// Like [`acquire`](Self::acquire), for an `async` function. If the future is dropped before it is ready, it leaves
    /// the line.
    pub fn acquire_async(&self) -> impl Future<Output = Permit<'_>> + use<'_> {
        let acquired = self.core.future(Acquire);
        async move {
            acquired.await;
            Permit(self)
        }
    }

    /// Adds permits.
    #[inline]
    pub fn add(&self, permits: usize) {
        // `grant_waiters` hands the permits to waiters.
        self.core
            .change(|state| state.free = state.free.saturating_add(permits).min(state.most));
    }

    /// How many permits are free: neither held nor granted to a waiter.
    pub fn available(&self) -> usize {
        self.core.look(|state| state.free)
    }
}

impl fmt::Debug for Semaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (free, waiting) = self.core.look(|state| (state.free, state.waiters.waiting()));
        f.debug_struct("Semaphore")
            .field("available", &free)
            .field("waiting", &waiting)
            .finish_non_exhaustive()
    }
}

/// A [`Semaphore`] that detects when more permits come back than it had.
///
/// ```
/// use greenthread::sync::BoundedSemaphore;
///
/// let one = BoundedSemaphore::new(1);
/// one.acquire().forget();
/// assert!(one.release().is_ok());
/// assert!(one.release().is_err(), "nobody had it");
/// ```
///
/// # Coming from Python
/// `gevent.lock.BoundedSemaphore`, `asyncio.BoundedSemaphore`.
#[derive(Debug)]
pub struct BoundedSemaphore {
    inner: Semaphore,
}

/// More permits were released than were acquired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReleaseError;

impl fmt::Display for ReleaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a BoundedSemaphore was released more often than it was acquired")
    }
}

impl std::error::Error for ReleaseError {}

impl BoundedSemaphore {
    /// A semaphore with `permits` permits, which is also its limit.
    pub const fn new(permits: usize) -> BoundedSemaphore {
        BoundedSemaphore {
            inner: Semaphore::with(permits, permits),
        }
    }

    /// Gives back a permit that was [forgotten](Permit::forget).
    ///
    /// # Errors
    /// If all permits are there already.
    pub fn release(&self) -> Result<(), ReleaseError> {
        self.inner.core.change(|state| {
            // More would come back than were acquired.
            if state.free >= state.most {
                return Err(ReleaseError);
            }
            state.free += 1;
            Ok(())
        })
    }

    /// As [`Semaphore::acquire`].
    #[track_caller]
    pub fn acquire(&self) -> Permit<'_> {
        self.inner.acquire()
    }

    /// As [`Semaphore::try_acquire`].
    pub fn try_acquire(&self) -> Option<Permit<'_>> {
        self.inner.try_acquire()
    }

    /// As [`Semaphore::acquire_timeout`].
    #[track_caller]
    pub fn acquire_timeout(&self, timeout: Duration) -> Option<Permit<'_>> {
        self.inner.acquire_timeout(timeout)
    }

    /// As [`Semaphore::acquire_deadline`].
    #[track_caller]
    pub fn acquire_deadline(&self, deadline: Instant) -> Option<Permit<'_>> {
        self.inner.acquire_deadline(deadline)
    }

    /// As [`Semaphore::acquire_async`].
    pub fn acquire_async(&self) -> impl Future<Output = Permit<'_>> + use<'_> {
        self.inner.acquire_async()
    }

    /// As [`Semaphore::available`].
    pub fn available(&self) -> usize {
        self.inner.available()
    }
}
