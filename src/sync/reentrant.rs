//! A lock that its holder may take again.
#![forbid(unsafe_code)]

use std::fmt;
use std::ops::Deref;
use std::time::{Duration, Instant};

use super::held::{HeldAgain, Reentrant};
use super::wait::Until;
use crate::hub::Why;

static REENTRANT_LOCK: &str = "a ReentrantLock";

/// A lock that the green thread that holds it may take again, like std's lock of this name. Waiting for it lets others
/// run, and waiters get it in order of arrival.
///
/// ```
/// use std::cell::Cell;
/// use greenthread::sync::ReentrantLock;
///
/// let total = ReentrantLock::new(Cell::new(0));
/// let add = |n| {
///     let total = total.lock();
///     total.set(total.get() + n);
/// };
/// let held = total.lock();
/// add(1);
/// add(2);
/// assert_eq!(held.get(), 3);
/// ```
///
/// There may be many guards at a time, so they give `&T` and not `&mut T`. The lock is free when all guards are
/// dropped. It belongs to a green thread with all of its greenlets and generators, or to the native stack of an OS
/// thread; a callback of a hub is an owner of its own. The lock has no poison, and no form for an `async` function: a
/// future may be polled by any task, so its owner is not known.
///
/// # Coming from Python
/// `gevent.lock.RLock`, `threading.RLock`.
#[doc(alias("RLock", "ReentrantMutex"))]
pub struct ReentrantLock<T: ?Sized> {
    lock: Reentrant<T>,
}

/// One hold on a [`ReentrantLock`], which ends when the guard is dropped.
///
/// It stays on its OS thread:
///
/// ```compile_fail
/// let lock = greenthread::sync::ReentrantLock::new(1);
/// let held = lock.lock();
/// std::thread::scope(|scope| drop(scope.spawn(move || drop(held))));
/// ```
#[must_use = "dropped at once, it locks nothing"]
pub struct ReentrantLockGuard<'a, T: ?Sized> {
    held: HeldAgain<'a, T>,
}

impl<T> ReentrantLock<T> {
    /// A free lock over `value`.
    pub const fn new(value: T) -> ReentrantLock<T> {
        ReentrantLock {
            lock: Reentrant::new(value),
        }
    }

    /// The value, without the lock.
    pub fn into_inner(self) -> T {
        self.lock.into_inner()
    }
}

impl<T: ?Sized> ReentrantLock<T> {
    /// Waits for the lock, unless the caller holds it.
    ///
    /// # Panics
    /// If there are `usize::MAX` guards.
    ///
    /// # Blocking and cancellation
    /// Parks if another holder has the lock, and gets it after all waiters that came before. A kill or time-out unwinds
    /// here, and the lock goes to the next in line.
    #[inline]
    #[track_caller]
    pub fn lock(&self) -> ReentrantLockGuard<'_, T> {
        match self.lock_until(Until::Ever) {
            Some(guard) => guard,
            None => unreachable!("a wait without an end has ended without the lock"),
        }
    }

    /// Takes the lock, if the caller holds it, or it is free and has no waiters.
    ///
    /// # Panics
    /// As [`lock`](Self::lock).
    #[track_caller]
    pub fn try_lock(&self) -> Option<ReentrantLockGuard<'_, T>> {
        self.lock.try_hold().map(|held| ReentrantLockGuard { held })
    }

    /// Waits for the lock for at most `timeout`, unless the caller holds it.
    ///
    /// # Panics
    /// As [`lock`](Self::lock).
    #[track_caller]
    pub fn lock_timeout(&self, timeout: Duration) -> Option<ReentrantLockGuard<'_, T>> {
        self.lock_until(Until::After(timeout))
    }

    /// Waits for the lock until `deadline`, unless the caller holds it.
    ///
    /// # Panics
    /// As [`lock`](Self::lock).
    #[track_caller]
    pub fn lock_deadline(&self, deadline: Instant) -> Option<ReentrantLockGuard<'_, T>> {
        self.lock_until(Until::At(deadline))
    }

    #[inline]
    #[track_caller]
    fn lock_until(&self, until: Until) -> Option<ReentrantLockGuard<'_, T>> {
        let held = self.lock.hold_until(until, Why::new(&REENTRANT_LOCK, 0))?;
        Some(ReentrantLockGuard { held })
    }

    /// The value, without locking: `&mut self` proves that there is no guard.
    pub fn get_mut(&mut self) -> &mut T {
        self.lock.get_mut()
    }
}

impl<T: ?Sized> Deref for ReentrantLockGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.held
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for ReentrantLockGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: ?Sized + fmt::Display> fmt::Display for ReentrantLockGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for ReentrantLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("ReentrantLock");
        match self.try_lock() {
            Some(guard) => out.field("data", &&*guard),
            None => out.field("data", &format_args!("<locked>")),
        };
        out.finish_non_exhaustive()
    }
}

impl<T: Default> Default for ReentrantLock<T> {
    fn default() -> ReentrantLock<T> {
        ReentrantLock::new(T::default())
    }
}

impl<T> From<T> for ReentrantLock<T> {
    fn from(value: T) -> ReentrantLock<T> {
        ReentrantLock::new(value)
    }
}
