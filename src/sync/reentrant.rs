//! A lock that its holder may take again.
//!
//! # Invariants
//! - **R1** `owner` is the number of who holds `core`'s lock, and 0 otherwise. Only the holder writes it, while it
//!   holds the lock; so whoever reads its own number there has the lock, in whatever order others see the writes.
//! - **R2** `count` is how many guards there are. A guard stays on the OS thread that it was made on, so all who change
//!   `count` are on the OS thread that has the lock.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::mutex::{Acquire, Lock};
use super::wait::{Core, Until};
use crate::hub::park::Why;

static REENTRANT_LOCK: &str = "a ReentrantLock";

/// A lock that the green thread which holds it may take again, as std's of this name: who waits for it lets others run,
/// and gets it in the order of coming.
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
/// As there may be many guards at a time, they give `&T` and not `&mut T`. The lock is free when all are dropped. It
/// belongs to a green thread with all of its greenlets and generators, or to the native stack of an OS thread; a
/// callback of a hub is somebody else. It has no poison, and no form for an `async` function: a future is polled by
/// anybody, so it cannot be said who has it.
///
/// # Coming from Python
/// `gevent.lock.RLock`, `threading.RLock`.
pub struct ReentrantLock<T: ?Sized> {
    core: Core<Lock>,
    owner: AtomicU64,
    count: AtomicUsize,
    value: T,
}

// SAFETY: only those on the OS thread that has the lock refer to the value (R2), and it may go to another after them.
unsafe impl<T: ?Sized + Send> Sync for ReentrantLock<T> {}

/// One of the holds on a [`ReentrantLock`], which ends as it is dropped.
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
    /// R2.
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
    /// Waits for the lock, unless the caller has it.
    ///
    /// # Panics
    /// With `usize::MAX` guards.
    ///
    /// # Blocking and cancellation
    /// Parks if another has it, and gets it after all who came before. A kill or time-out unwinds here, and the lock
    /// goes to the next in line.
    #[inline]
    #[track_caller]
    pub fn lock(&self) -> ReentrantLockGuard<'_, T> {
        let me = crate::hub::who();
        self.again(me).unwrap_or_else(|| {
            self.core.block(&mut Acquire, Until::Ever, Why::new(&REENTRANT_LOCK, 0));
            self.first(me)
        })
    }

    /// The lock, if the caller has it, or it is free and nobody waits for it.
    ///
    /// # Panics
    /// As [`lock`](Self::lock).
    #[track_caller]
    pub fn try_lock(&self) -> Option<ReentrantLockGuard<'_, T>> {
        let me = crate::hub::who();
        self.again(me)
            .or_else(|| self.core.attempt(&mut Acquire).map(|()| self.first(me)))
    }

    /// Waits for the lock for at most `timeout`, unless the caller has it.
    ///
    /// # Panics
    /// As [`lock`](Self::lock).
    #[track_caller]
    pub fn lock_timeout(&self, timeout: Duration) -> Option<ReentrantLockGuard<'_, T>> {
        self.lock_until(Until::After(timeout))
    }

    /// Waits for the lock until `deadline`, unless the caller has it.
    ///
    /// # Panics
    /// As [`lock`](Self::lock).
    #[track_caller]
    pub fn lock_deadline(&self, deadline: Instant) -> Option<ReentrantLockGuard<'_, T>> {
        self.lock_until(Until::At(deadline))
    }

    #[track_caller]
    fn lock_until(&self, until: Until) -> Option<ReentrantLockGuard<'_, T>> {
        let me = crate::hub::who();
        self.again(me).or_else(|| {
            let locked = self.core.block(&mut Acquire, until, Why::new(&REENTRANT_LOCK, 0));
            locked.map(|()| self.first(me))
        })
    }

    /// One guard more, if `me` has some.
    #[track_caller]
    fn again(&self, me: u64) -> Option<ReentrantLockGuard<'_, T>> {
        if self.owner.load(Ordering::Relaxed) != me {
            return None;
        }
        let Some(count) = self.count.load(Ordering::Relaxed).checked_add(1) else {
            panic!("a ReentrantLock was locked too often by one thread")
        };
        self.count.store(count, Ordering::Relaxed);
        Some(self.guard())
    }

    /// The first guard of `me`, which has just got the lock.
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

    /// The value, which nobody else can have.
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
