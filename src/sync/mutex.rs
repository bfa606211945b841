//! Mutual exclusion; the lock is handed over in order of arrival.

use std::cell::UnsafeCell;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::{LockResult, TryLockResult};
use std::time::{Duration, Instant};

use super::poison::Poison;
use super::wait::{Core, Op, State, Until};
use super::waiters::{Waiters, Woken};
use crate::hub::Why;

static MUTEX: &str = "a Mutex";

pub(super) struct Lock {
    locked: bool,
    waiters: Waiters,
}

impl Lock {
    pub(super) const fn new() -> Lock {
        Lock {
            locked: false,
            waiters: Waiters::new(),
        }
    }

    pub(super) fn release(&mut self) {
        self.locked = false;
    }
}

impl State for Lock {
    const ALLOCATES: bool = false;

    #[inline(always)]
    fn may_grant(&self) -> bool {
        self.waiters.any() && !self.locked
    }

    #[inline(always)]
    fn grant_waiters(&mut self, woken: &mut Woken) {
        if self.may_grant() {
            // Handed over while it is locked: no new attempt can take it before the waiter runs (WAIT-1). If no waiter
            // could be woken the lock is free.
            self.locked = self.waiters.hand_first(woken);
        }
    }
}

pub(super) struct Acquire;

impl Op<Lock> for Acquire {
    type Output = ();

    const HANDED: Option<()> = Some(());

    fn waiters<'a>(&self, state: &'a mut Lock) -> &'a mut Waiters {
        &mut state.waiters
    }

    #[inline]
    fn attempt(&mut self, state: &mut Lock, granted: bool, _: &mut Woken) -> Option<()> {
        // After a hand-over `locked` is set already, and stays set.
        (granted || !std::mem::replace(&mut state.locked, true)).then_some(())
    }

    fn undo_grant(&mut self, state: &mut Lock) {
        // `grant_waiters` then hands the lock to the next waiter.
        state.release();
    }
}

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
    core: Core<Lock>,
    poison: Poison,
    value: UnsafeCell<T>,
}

// SAFETY: moving the mutex moves the value, and `T` is `Send`.
unsafe impl<T: ?Sized + Send> Send for Mutex<T> {}
// SAFETY: the lock gives `&mut T` to one holder at a time, perhaps on another thread than the one before, and `T` is
// `Send`.
unsafe impl<T: ?Sized + Send> Sync for Mutex<T> {}

/// Holds the lock of a [`Mutex`] until it is dropped. A guard may be sent to another thread.
#[must_use = "dropped at once, it locks nothing"]
pub struct MutexGuard<'a, T: ?Sized> {
    pub(super) mutex: &'a Mutex<T>,
    unwound: bool,
    _value: PhantomData<&'a mut T>,
}

impl<T> Mutex<T> {
    /// A free lock over `value`.
    pub const fn new(value: T) -> Mutex<T> {
        Mutex {
            core: Core::new(Lock::new()),
            poison: Poison::new(),
            value: UnsafeCell::new(value),
        }
    }

    /// The value, without the lock.
    ///
    /// # Errors
    /// The value in an error, if the lock is poisoned.
    pub fn into_inner(self) -> LockResult<T> {
        self.poison.result(self.value.into_inner())
    }
}

impl<T: ?Sized> Mutex<T> {
    #[inline]
    fn guard(&self) -> LockResult<MutexGuard<'_, T>> {
        self.poison.result(MutexGuard {
            mutex: self,
            // A guard that is made during unwinding must not take that panic for its own.
            unwound: std::thread::panicking(),
            _value: PhantomData,
        })
    }

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
        self.core.block(&mut Acquire, Until::Ever, Why::new(&MUTEX, 0));
        self.guard()
    }

    /// The same for a caller that has waited already, and may hold a notice of a `Condvar`: it takes no step of the
    /// budget.
    #[track_caller]
    pub(super) fn relock(&self) -> LockResult<MutexGuard<'_, T>> {
        self.core.block_unspent(&mut Acquire, Until::Ever, Why::new(&MUTEX, 0));
        self.guard()
    }

    /// Takes the lock, if it is free and has no waiters.
    ///
    /// # Errors
    /// `WouldBlock`, or the guard in `Poisoned`.
    pub fn try_lock(&self) -> TryLockResult<MutexGuard<'_, T>> {
        Poison::attempted(self.core.attempt(&mut Acquire), || self.guard())
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
        let taken = self.core.block(&mut Acquire, until, Why::new(&MUTEX, 0));
        Poison::attempted(taken, || self.guard())
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
        let locked = self.core.future(Acquire);
        async move {
            locked.await;
            self.guard()
        }
    }

    /// Whether the lock is held at this moment.
    pub fn is_locked(&self) -> bool {
        self.core.look(|state| state.locked)
    }

    /// Whether a holder of the lock panicked.
    pub fn is_poisoned(&self) -> bool {
        self.poison.is_set()
    }

    /// Clears the poison: the lock counts as never poisoned.
    pub fn clear_poison(&self) {
        self.poison.clear();
    }

    /// The value, without locking: `&mut self` proves that there is no guard.
    ///
    /// # Errors
    /// The reference in an error, if the lock is poisoned.
    pub fn get_mut(&mut self) -> LockResult<&mut T> {
        self.poison.result(self.value.get_mut())
    }

    pub(super) fn unlock(&self) {
        self.core.change(Lock::release);
    }
}

impl<T: ?Sized> Deref for MutexGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the guard holds the lock, so no other guard refers to the value.
        unsafe { &*self.mutex.value.get() }
    }
}

impl<T: ?Sized> DerefMut for MutexGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the guard holds the lock, so no other guard refers to the value.
        unsafe { &mut *self.mutex.value.get() }
    }
}

impl<T: ?Sized> Drop for MutexGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        // Before the unlock, so that the next holder sees the poison.
        self.mutex.poison.guard_dropped(self.unwound);
        self.mutex.unlock();
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for MutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: ?Sized + fmt::Display> fmt::Display for MutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.poison.fmt(f, "Mutex", self.try_lock())
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
