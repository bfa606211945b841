//! Permits that are handed out and given back.
#![forbid(unsafe_code)]

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::wait::{Core, Op, State, Until};
use super::waiters::{Waiters, Woken};
use crate::hub::Why;

static SEMAPHORE: &str = "a Semaphore";

struct Permits {
    free: usize,
    /// The upper limit of `free`.
    most: usize,
    /// Permits that were handed out although they were not free, because the semaphore is closed. They come back at
    /// once.
    owed: usize,
    is_closed: bool,
    waiters: Waiters,
}

impl Permits {
    fn add(&mut self, permits: usize) {
        let paid = permits.min(self.owed);
        self.owed -= paid;
        self.free = self.free.saturating_add(permits - paid).min(self.most);
    }
}

impl State for Permits {
    const ALLOCATES: bool = false;

    #[inline(always)]
    fn may_grant(&self) -> bool {
        self.waiters.any() && (self.free > 0 || self.is_closed)
    }

    #[inline]
    fn grant_waiters(&mut self, woken: &mut Woken) {
        // All go on, and then find the semaphore closed.
        while self.is_closed
            && let Some(permits) = self.waiters.hand_first_if(woken, |_| true)
        {
            self.owed += permits as usize;
        }
        // The permits are taken for the waiter here, before it runs (WAIT-1).
        while let Some(permits) = self.waiters.hand_first_if(woken, |wants| wants as usize <= self.free) {
            self.free -= permits as usize;
        }
    }
}

/// The semaphore is closed: [`Semaphore::close`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Closed;

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the Semaphore was closed")
    }
}

impl std::error::Error for Closed {}

/// Acquires this many permits, all at once.
struct Acquire(u32);

impl Op<Permits> for Acquire {
    type Output = ();

    const HANDED: Option<()> = Some(());

    fn waiters<'a>(&self, state: &'a mut Permits) -> &'a mut Waiters {
        &mut state.waiters
    }

    fn wants(&self) -> u32 {
        self.0
    }

    #[inline]
    fn attempt(&mut self, state: &mut Permits, granted: bool, _: &mut Woken) -> Option<()> {
        // After a hand-over `free` was lowered already.
        if !granted && state.is_closed {
            state.owed += self.0 as usize;
        } else if !granted {
            // Not past a waiter in line, or one that wants many would starve.
            if state.waiters.any() {
                return None;
            }
            state.free = state.free.checked_sub(self.0 as usize)?;
        }
        Some(())
    }

    fn undo_grant(&mut self, state: &mut Permits) {
        // Permits may have been added since these were handed over, so keep the limit.
        state.add(self.0 as usize);
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
#[doc(alias("Semphore", "CapacityLimiter"))]
pub struct Semaphore {
    core: Core<Permits>,
    /// Set before the waiters are told.
    closed: AtomicBool,
}

/// Permits of a [`Semaphore`], given back when this is dropped.
#[doc(alias("SemaphorePermit"))]
#[must_use = "dropped at once, it is given back"]
#[derive(Debug)]
pub struct Permit<'a> {
    semaphore: &'a Semaphore,
    count: u32,
}

impl Permit<'_> {
    /// Keeps the permits for good: the semaphore has that many less.
    pub fn forget(self) {
        std::mem::forget(self);
    }

    /// How many permits it holds; one, unless they come from [`acquire_many`](Semaphore::acquire_many).
    pub fn count(&self) -> u32 {
        self.count
    }
}

impl Drop for Permit<'_> {
    #[inline]
    fn drop(&mut self) {
        self.semaphore.add(self.count as usize);
    }
}

/// Like a [`Permit`], but it owns its semaphore, so that it may go to another green thread.
///
/// ```
/// use std::sync::Arc;
/// use greenthread::{spawn, sync::Semaphore};
///
/// let ten = Arc::new(Semaphore::new(10));
/// let workers: Vec<_> = (0..100)
///     .map(|_| {
///         let permit = ten.acquire_owned(); // at most ten run
///         spawn(move || drop(permit))
///     })
///     .collect();
/// workers.into_iter().for_each(|worker| worker.join().unwrap());
/// assert_eq!(ten.available(), 10);
/// ```
#[doc(alias("OwnedSemaphorePermit"))]
#[must_use = "dropped at once, it is given back"]
#[derive(Debug)]
pub struct OwnedPermit {
    semaphore: Arc<Semaphore>,
    count: u32,
}

impl OwnedPermit {
    /// Keeps the permits for good, as [`Permit::forget`].
    pub fn forget(mut self) {
        self.count = 0;
    }

    /// How many permits it holds.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Whose permit it is.
    pub fn semaphore(&self) -> &Arc<Semaphore> {
        &self.semaphore
    }
}

impl Drop for OwnedPermit {
    #[inline]
    fn drop(&mut self) {
        self.semaphore.add(self.count as usize);
    }
}

impl Semaphore {
    /// A semaphore with `permits` permits.
    pub const fn new(permits: usize) -> Semaphore {
        Semaphore::with(permits, usize::MAX)
    }

    const fn with(free: usize, most: usize) -> Semaphore {
        Semaphore {
            core: Core::new(Permits {
                free,
                most,
                owed: 0,
                is_closed: false,
                waiters: Waiters::new(),
            }),
            closed: AtomicBool::new(false),
        }
    }

    /// The permits that an operation has acquired. If the semaphore was closed before this, they go back at once.
    #[inline(always)]
    fn acquired(&self, count: u32) -> Result<Permit<'_>, Closed> {
        let permit = Permit { semaphore: self, count };
        if self.is_closed() { Err(Closed) } else { Ok(permit) }
    }

    /// Waits for a permit.
    ///
    /// # Panics
    /// If the semaphore is [closed](Self::close); [`checked_acquire`](Self::checked_acquire) gives an error.
    ///
    /// # Blocking and cancellation
    /// Parks while there is no permit. A kill or time-out unwinds here; a permit that was granted already goes to the
    /// next in line.
    #[inline]
    #[track_caller]
    pub fn acquire(&self) -> Permit<'_> {
        self.acquire_many(1)
    }

    /// Waits for `count` permits, and takes them together. Those that come later wait behind this, also if they want
    /// fewer.
    ///
    /// ```
    /// use greenthread::sync::Semaphore;
    /// let megabytes = Semaphore::new(64);
    /// let big = megabytes.acquire_many(60);
    /// assert!(megabytes.try_acquire_many(5).is_none());
    /// drop(big);
    /// assert_eq!(megabytes.available(), 64);
    /// ```
    ///
    /// # Panics
    /// As [`acquire`](Self::acquire).
    #[inline]
    #[track_caller]
    pub fn acquire_many(&self, count: u32) -> Permit<'_> {
        self.core
            .block(&mut Acquire(count), Until::Ever, Why::new(&SEMAPHORE, 0));
        match self.acquired(count) {
            Ok(permit) => permit,
            Err(closed) => panic!("acquire: {closed}; `checked_acquire` gives this as an error"),
        }
    }

    /// Like [`acquire`](Self::acquire), for a semaphore that may be closed.
    ///
    /// # Errors
    /// [`Closed`], also if it is closed while this waits.
    #[track_caller]
    pub fn checked_acquire(&self) -> Result<Permit<'_>, Closed> {
        self.core.block(&mut Acquire(1), Until::Ever, Why::new(&SEMAPHORE, 0));
        self.acquired(1)
    }

    /// Like [`acquire`](Self::acquire), for a permit that goes elsewhere.
    ///
    /// # Panics
    /// As [`acquire`](Self::acquire).
    #[track_caller]
    pub fn acquire_owned(self: &Arc<Self>) -> OwnedPermit {
        self.acquire_many_owned(1)
    }

    /// Like [`acquire_many`](Self::acquire_many), for permits that go elsewhere.
    ///
    /// # Panics
    /// As [`acquire`](Self::acquire).
    #[track_caller]
    pub fn acquire_many_owned(self: &Arc<Self>, count: u32) -> OwnedPermit {
        self.own(self.acquire_many(count))
    }

    /// Turns a permit of this semaphore into an owned one.
    fn own(self: &Arc<Self>, permit: Permit<'_>) -> OwnedPermit {
        let count = permit.count;
        permit.forget();
        OwnedPermit {
            semaphore: self.clone(),
            count,
        }
    }

    /// Takes a permit, if one is free. It never takes one from a waiter in line.
    pub fn try_acquire(&self) -> Option<Permit<'_>> {
        self.try_acquire_many(1)
    }

    /// Takes `count` permits, if they are free and no waiter is in line.
    pub fn try_acquire_many(&self, count: u32) -> Option<Permit<'_>> {
        let acquired = self.core.attempt(&mut Acquire(count)).or_else(|| {
            // The line may hold only waiters of hubs that have ended. This grants what can be granted, and so takes
            // them out.
            self.core.change(|_| ());
            self.core.attempt(&mut Acquire(count))
        });
        acquired.and_then(|()| self.acquired(count).ok())
    }

    /// Like [`try_acquire`](Self::try_acquire), for a permit that goes elsewhere.
    pub fn try_acquire_owned(self: &Arc<Self>) -> Option<OwnedPermit> {
        self.try_acquire().map(|permit| self.own(permit))
    }

    /// Waits for a permit for at most `timeout`. `None` also if the semaphore is closed.
    #[track_caller]
    pub fn acquire_timeout(&self, timeout: Duration) -> Option<Permit<'_>> {
        self.acquire_until(1, Until::After(timeout))
    }

    /// Waits for a permit until `deadline`. `None` also if the semaphore is closed.
    #[track_caller]
    pub fn acquire_deadline(&self, deadline: Instant) -> Option<Permit<'_>> {
        self.acquire_until(1, Until::At(deadline))
    }

    /// Waits for `count` permits for at most `timeout`. `None` also if the semaphore is closed.
    #[track_caller]
    pub fn acquire_many_timeout(&self, count: u32, timeout: Duration) -> Option<Permit<'_>> {
        self.acquire_until(count, Until::After(timeout))
    }

    #[track_caller]
    fn acquire_until(&self, count: u32, until: Until) -> Option<Permit<'_>> {
        let done = self.core.block(&mut Acquire(count), until, Why::new(&SEMAPHORE, 0));
        done.and_then(|()| self.acquired(count).ok())
    }

    /// For a primitive that is built on this one, and waits under its own name.
    #[track_caller]
    pub(crate) fn acquire_for(&self, until: Until, why: Why) -> Option<Permit<'_>> {
        let done = self.core.block(&mut Acquire(1), until, why);
        done.and_then(|()| self.acquired(1).ok())
    }

    /// Like [`acquire`](Self::acquire), for an `async` function. If the future is dropped before it is ready, it leaves
    /// the line.
    pub fn acquire_async(&self) -> impl Future<Output = Permit<'_>> + use<'_> {
        self.acquire_many_async(1)
    }

    /// Like [`acquire_many`](Self::acquire_many), for an `async` function.
    pub fn acquire_many_async(&self, count: u32) -> impl Future<Output = Permit<'_>> + use<'_> {
        let acquired = self.core.future(Acquire(count));
        async move {
            acquired.await;
            match self.acquired(count) {
                Ok(permit) => permit,
                Err(closed) => panic!("acquire_async: {closed}; `checked_acquire_async` gives this as an error"),
            }
        }
    }

    /// Like [`checked_acquire`](Self::checked_acquire), for an `async` function.
    ///
    /// # Errors
    /// As there.
    pub fn checked_acquire_async(&self) -> impl Future<Output = Result<Permit<'_>, Closed>> + use<'_> {
        let acquired = self.core.future(Acquire(1));
        async move {
            acquired.await;
            self.acquired(1)
        }
    }

    /// Like [`acquire_owned`](Self::acquire_owned), for an `async` function.
    pub async fn acquire_owned_async(self: &Arc<Self>) -> OwnedPermit {
        self.own(self.acquire_async().await)
    }

    /// Closes the semaphore for good: no permit can be acquired any more, and tasks that wait are told so.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use greenthread::{spawn, sync::Semaphore, yield_now};
    /// let none = Arc::new(Semaphore::new(0));
    /// let waiter = none.clone();
    /// let waiter = spawn(move || waiter.checked_acquire().is_err());
    /// yield_now();
    /// none.close();
    /// assert!(waiter.join().unwrap());
    /// ```
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.core.change(|state| state.is_closed = true);
    }

    /// Whether it is closed.
    #[inline]
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Adds permits.
    #[doc(alias("release", "add_permits"))]
    #[inline]
    pub fn add(&self, permits: usize) {
        // `grant_waiters` hands the permits to waiters.
        self.core.change(|state| state.add(permits));
    }

    /// How many permits are free: neither held nor granted to a waiter.
    #[doc(alias("available_permits"))]
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
