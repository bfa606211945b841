//! A lock that its holder may take again.
//!
//! # Invariants
//! - **REENTRANT-1** `owner` is the number of the holder of `core`'s lock, and 0 while the lock is free. Only the
//!   holder writes it, while it holds the lock. A caller that reads its own number there therefore holds the lock, in
//!   whatever order others see the writes.
//! - **REENTRANT-2** `count` is how many guards there are. A guard stays on the OS thread that it was made on, so
//!   everything that changes `count` is on the OS thread that has the lock.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::mutex::{Acquire, Lock};
use super::wait::{Core, Until};
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
pub struct ReentrantLock<T: ?Sized> {
    core: Core<Lock>,
    owner: AtomicU64,
    count: AtomicUsize,
    value: T,
}

// SAFETY: a guard stays on its OS thread, and all guards are on the OS thread that has the lock (REENTRANT-2). So the
// value is referred to from one OS thread at a time, and moves to the next only once all guards are dropped; `T` is
// `Send`.
unsafe impl<T: ?Sized + Send> Sync for ReentrantLock<T> {}

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
    lock: &'a ReentrantLock<T>,
    /// Keeps the guard on its OS thread (REENTRANT-2).
    _stays: PhantomData<*const ()>,
}

impl<T> ReentrantLock<T> {
    /// A free lock over `value`.
    pub const fn new(value: T) -> ReentrantLock<T> {
        ReentrantLock {
            core: Core::new(Lock::new()),
            owner: AtomicU64::new(0),
            count: AtomicUsize::new(0),
            value,
        }
    }

    /// The value, without the lock.
    pub fn into_inner(self) -> T {
        self.value
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
        let me = crate::hub::lock_owner();
        // REENTRANT-1: the holder takes it again without the lock of `core`.
        self.again(me).unwrap_or_else(|| {
            self.core.block(&mut Acquire, Until::Ever, Why::new(&REENTRANT_LOCK, 0));
            self.first(me)
        })
    }

    /// Takes the lock, if the caller holds it, or it is free and has no waiters.
    ///
    /// # Panics
    /// As [`lock`](Self::lock).
    #[track_caller]
    pub fn try_lock(&self) -> Option<ReentrantLockGuard<'_, T>> {
        let me = crate::hub::lock_owner();
        self.again(me)
            .or_else(|| self.core.attempt(&mut Acquire).map(|()| self.first(me)))
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

    #[track_caller]
    fn lock_until(&self, until: Until) -> Option<ReentrantLockGuard<'_, T>> {
        let me = crate::hub::lock_owner();
        self.again(me).or_else(|| {
            let locked = self.core.block(&mut Acquire, until, Why::new(&REENTRANT_LOCK, 0));
            locked.map(|()| self.first(me))
        })
    }

    /// One more guard, if `me` holds the lock.
    #[track_caller]
    fn again(&self, me: u64) -> Option<ReentrantLockGuard<'_, T>> {
        // REENTRANT-1: a relaxed load is enough, because only `me` itself writes this number.
        if self.owner.load(Ordering::Relaxed) != me {
            return None;
        }
        let Some(count) = self.count.load(Ordering::Relaxed).checked_add(1) else {
            panic!("this green thread has locked a ReentrantLock usize::MAX times: drop some of the guards first")
        };
        self.count.store(count, Ordering::Relaxed);
        Some(self.guard())
    }

    /// The first guard of `me`, which has just taken the lock.
    fn first(&self, me: u64) -> ReentrantLockGuard<'_, T> {
        self.owner.store(me, Ordering::Relaxed);
        self.count.store(1, Ordering::Relaxed);
        self.guard()
    }

    fn guard(&self) -> ReentrantLockGuard<'_, T> {
        ReentrantLockGuard {
            lock: self,
            _stays: PhantomData,
        }
    }

    /// The value, without locking: `&mut self` proves that there is no guard.
    pub fn get_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<T: ?Sized> Deref for ReentrantLockGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.lock.value
    }
}

impl<T: ?Sized> Drop for ReentrantLockGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        let left = self.lock.count.load(Ordering::Relaxed) - 1;
        self.lock.count.store(left, Ordering::Relaxed);
        if left == 0 {
            // REENTRANT-1: while the lock is still held. The unlock makes the writes visible to the next holder.
            self.lock.owner.store(0, Ordering::Relaxed);
            self.lock.core.change(Lock::release);
        }
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
