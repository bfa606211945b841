//! Mutual exclusion; the lock is handed over in order of arrival.
#![forbid(unsafe_code)]

use std::fmt;
use std::future::Future;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, LockResult, TryLockResult};
use std::time::{Duration, Instant};

use super::held::{Acquire, Guarded, Held, Lock, guards};
use super::poison::Poison;
use super::wait::Until;
use crate::hub::Why;

static MUTEX: &str = "a Mutex";

/// A lock over a value, like [`std::sync::Mutex`]. Waiting for it lets others run, and waiters get it in order of
/// arrival.
///
/// ```
/// use std::sync::Arc;
/// use greenthread::{sync::Mutex, spawn, yield_now};
///
/// let total = Arc::new(Mutex::new(0));
/// let adders: Vec<_> = (0..10)
///     .map(|_| {
///         let total = total.clone();
///         spawn(move || {
///             let mut total = total.lock().unwrap();
///             let before = *total;
///             yield_now(); // others run, and wait for the lock
///             *total = before + 1;
///         })
///     })
///     .collect();
/// adders.into_iter().for_each(|adder| adder.join().unwrap());
/// assert_eq!(*total.lock().unwrap(), 10);
/// ```
///
/// It may be shared with green threads of other OS threads, plain OS threads and futures. A panic while it is held
/// poisons it, as in std; a kill or a time-out unwinds too but does not poison it.
///
/// # Coming from Python
/// `gevent.lock.BoundedSemaphore(1)` and `asyncio.Lock`, with the value inside.
pub struct Mutex<T: ?Sized> {
    pub(super) lock: Guarded<Lock, T>,
}

/// Holds the lock of a [`Mutex`] until it is dropped. A guard may be sent to another thread.
#[must_use = "dropped at once, it locks nothing"]
pub struct MutexGuard<'a, T: ?Sized> {
    held: Held<&'a Guarded<Lock, T>, Acquire>,
    unwound: bool,
}

/// Like a [`MutexGuard`], but it owns its mutex, so that it may outlive the caller's.
///
/// ```
/// use std::sync::Arc;
/// use greenthread::{spawn, sync::Mutex};
///
/// let names = Arc::new(Mutex::new(vec!["a"]));
/// let mut held = names.lock_owned().unwrap();
/// let adder = spawn(move || held.push("b")); // unlocked at the end of the green thread
/// assert_eq!(*names.lock().unwrap(), ["a", "b"]);
/// adder.join().unwrap();
/// ```
#[must_use = "dropped at once, it locks nothing"]
pub struct OwnedMutexGuard<T: ?Sized> {
    held: Held<Arc<Mutex<T>>, Acquire>,
    unwound: bool,
}

/// Waits for the lock of a guard that a `Condvar` has dropped. The waiter may hold a notice, so this takes no step of
/// the budget.
#[track_caller]
pub(super) fn relock<T: ?Sized>(lock: &Guarded<Lock, T>) -> LockResult<MutexGuard<'_, T>> {
    MutexGuard::new(Held::wait_again(lock, Why::new(&MUTEX, 0)))
}

/// As [`relock`], in a future.
pub(super) async fn relock_async<T: ?Sized>(lock: &Guarded<Lock, T>) -> LockResult<MutexGuard<'_, T>> {
    MutexGuard::new(Held::future(lock).await)
}

impl<'a, T: ?Sized> MutexGuard<'a, T> {
    #[inline]
    fn new(held: Held<&'a Guarded<Lock, T>, Acquire>) -> LockResult<MutexGuard<'a, T>> {
        held.keeper().poison.result(MutexGuard {
            held,
            // A guard that is made during unwinding must not take that panic for its own.
            unwound: std::thread::panicking(),
        })
    }

    /// The lock, for [`relock`].
    pub(super) fn lock_of(guard: &Self) -> &'a Guarded<Lock, T> {
        guard.held.keeper()
    }
}

impl<T: ?Sized> OwnedMutexGuard<T> {
    fn new(held: Held<Arc<Mutex<T>>, Acquire>) -> LockResult<OwnedMutexGuard<T>> {
        let is_poisoned = held.poison().is_set();
        let guard = OwnedMutexGuard {
            held,
            unwound: std::thread::panicking(),
        };
        Poison::result_if(is_poisoned, guard)
    }

    /// The mutex that the guard holds.
    pub fn mutex(guard: &Self) -> &Arc<Mutex<T>> {
        guard.held.keeper()
    }
}

impl<T> Mutex<T> {
    /// A free lock over `value`.
    pub const fn new(value: T) -> Mutex<T> {
        Mutex {
            lock: Guarded::lock(value),
        }
    }

    /// The value, without the lock.
    ///
    /// # Errors
    /// The value in an error, if the lock is poisoned.
    pub fn into_inner(self) -> LockResult<T> {
        self.lock.into_inner()
    }
}

impl<T: ?Sized> Mutex<T> {
    /// Waits for the lock.
    ///
    /// # Errors
    /// The guard in an error, if a holder of the lock panicked.
    ///
    /// # Blocking and cancellation
    /// Parks if the lock is held, and gets it after all waiters that came before. A kill or time-out unwinds here, and
    /// the lock goes to the next in line. In a destructor that runs during unwinding neither ends the wait.
    #[inline]
    #[track_caller]
    pub fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        MutexGuard::new(Held::wait(&self.lock, Why::new(&MUTEX, 0)))
    }

    /// Takes the lock, if it is free and has no waiters.
    ///
    /// # Errors
    /// `WouldBlock`, or the guard in `Poisoned`.
    pub fn try_lock(&self) -> TryLockResult<MutexGuard<'_, T>> {
        Poison::attempted(Held::attempt(&self.lock), MutexGuard::new)
    }

    /// Waits for the lock for at most `timeout`.
    ///
    /// # Errors
    /// `WouldBlock` when the time is over, or the guard in `Poisoned`.
    #[track_caller]
    pub fn lock_timeout(&self, timeout: Duration) -> TryLockResult<MutexGuard<'_, T>> {
        self.lock_until(Until::After(timeout))
    }

    /// Waits for the lock until `deadline`.
    ///
    /// # Errors
    /// As [`lock_timeout`](Self::lock_timeout).
    #[track_caller]
    pub fn lock_deadline(&self, deadline: Instant) -> TryLockResult<MutexGuard<'_, T>> {
        self.lock_until(Until::At(deadline))
    }

    #[track_caller]
    fn lock_until(&self, until: Until) -> TryLockResult<MutexGuard<'_, T>> {
        let taken = Held::wait_until(&self.lock, until, Why::new(&MUTEX, 0));
        Poison::attempted(taken, MutexGuard::new)
    }

    /// Like [`lock`](Self::lock), for an `async` function. If the future is dropped before it is ready, it leaves the
    /// line.
    ///
    /// ```
    /// use greenthread::{future::block_on, sync::Mutex, time::sleep_async};
    /// use std::time::Duration;
    ///
    /// let count = Mutex::new(0);
    /// let add = async || {
    ///     let mut count = count.lock_async().await.unwrap();
    ///     sleep_async(Duration::from_millis(1)).await; // it may be held meanwhile
    ///     *count += 1;
    /// };
    /// block_on(futures::future::join(add(), add()));
    /// assert_eq!(count.into_inner().unwrap(), 2);
    /// ```
    pub fn lock_async(&self) -> impl Future<Output = LockResult<MutexGuard<'_, T>>> + use<'_, T> {
        relock_async(&self.lock)
    }

    /// Like [`lock`](Self::lock), for a guard that owns the mutex.
    ///
    /// # Errors
    /// The guard in an error, if a holder of the lock panicked.
    ///
    /// # Blocking and cancellation
    /// As [`lock`](Self::lock).
    #[track_caller]
    pub fn lock_owned(self: &Arc<Self>) -> LockResult<OwnedMutexGuard<T>> {
        OwnedMutexGuard::new(Held::wait(self.clone(), Why::new(&MUTEX, 0)))
    }

    /// Like [`try_lock`](Self::try_lock), for a guard that owns the mutex.
    ///
    /// # Errors
    /// `WouldBlock`, or the guard in `Poisoned`.
    pub fn try_lock_owned(self: &Arc<Self>) -> TryLockResult<OwnedMutexGuard<T>> {
        Poison::attempted(Held::attempt(self.clone()), OwnedMutexGuard::new)
    }

    /// Like [`lock_timeout`](Self::lock_timeout), for a guard that owns the mutex.
    ///
    /// # Errors
    /// `WouldBlock` when the time is over, or the guard in `Poisoned`.
    #[track_caller]
    pub fn lock_owned_timeout(self: &Arc<Self>, timeout: Duration) -> TryLockResult<OwnedMutexGuard<T>> {
        let taken = Held::wait_until(self.clone(), Until::After(timeout), Why::new(&MUTEX, 0));
        Poison::attempted(taken, OwnedMutexGuard::new)
    }

    /// Like [`lock_async`](Self::lock_async), for a guard that owns the mutex. The future owns it too.
    ///
    /// # Errors
    /// The guard in an error, if a holder of the lock panicked.
    pub fn lock_owned_async(self: &Arc<Self>) -> impl Future<Output = LockResult<OwnedMutexGuard<T>>> + use<T> {
        let held = Held::future(self.clone());
        async move { OwnedMutexGuard::new(held.await) }
    }

    /// Whether the lock is held at this moment.
    pub fn is_locked(&self) -> bool {
        self.lock.is_locked()
    }

    /// Whether a holder of the lock panicked.
    pub fn is_poisoned(&self) -> bool {
        self.lock.poison.is_set()
    }

    /// Clears the poison: the lock counts as never poisoned.
    pub fn clear_poison(&self) {
        self.lock.poison.clear();
    }

    /// The value, without locking: `&mut self` proves that there is no guard.
    ///
    /// # Errors
    /// The reference in an error, if the lock is poisoned.
    pub fn get_mut(&mut self) -> LockResult<&mut T> {
        self.lock.get_mut()
    }
}

guards!(MutexGuard<'a, T>: mut);
guards!(OwnedMutexGuard<T>: mut);

impl<T: ?Sized + fmt::Debug> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lock.poison.fmt(f, "Mutex", self.try_lock())
    }
}

impl<T: Default> Default for Mutex<T> {
    fn default() -> Mutex<T> {
        Mutex::new(T::default())
    }
}

impl<T> From<T> for Mutex<T> {
    fn from(value: T) -> Mutex<T> {
        Mutex::new(value)
    }
}
