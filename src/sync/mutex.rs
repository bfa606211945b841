//! Mutual exclusion, handed over in order.

use std::cell::UnsafeCell;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{LockResult, PoisonError, TryLockError, TryLockResult};
use std::time::{Duration, Instant};

use super::wait::{Core, Op, State, Until};
use super::waiters::{Waiters, Woken};
use crate::hub::interrupt;
use crate::hub::park::Why;

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
    fn settle(&mut self, woken: &mut Woken) {
        if self.may_grant() {
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
        (granted || !std::mem::replace(&mut state.locked, true)).then_some(())
    }

    fn gives_back(&mut self, state: &mut Lock) {
        state.release();
    }
}

/// Whether a panic went through a lock that was held.
pub(super) struct Poison(AtomicBool);

impl Poison {
    pub(super) const fn new() -> Poison {
        Poison(AtomicBool::new(false))
    }

    #[inline]
    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn clear(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    /// A guard that was made while the thread unwound (or not) goes.
    #[inline]
    pub(super) fn left(&self, unwound: bool) {
        if !unwound && std::thread::panicking() && !interrupt::unwinds() {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    pub(super) fn result<T>(&self, value: T) -> LockResult<T> {
        if self.is_set() {
            Err(PoisonError::new(value))
        } else {
            Ok(value)
        }
    }
}

/// A lock over a value, as [`std::sync::Mutex`]: who waits for it lets others run, and gets it in the order of coming.
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
/// poisons it, as in std; a kill or a time-out does not, which unwinds through it too.
///
/// # Coming from Python
/// `gevent.lock.BoundedSemaphore(1)` and `asyncio.Lock`, with the value inside.
pub struct Mutex<T: ?Sized> {
    core: Core<Lock>,
    poison: Poison,
    value: UnsafeCell<T>,
}

// SAFETY: it gives `&mut T` to one holder at a time, which may be another thread than the one before.
unsafe impl<T: ?Sized + Send> Send for Mutex<T> {}
// SAFETY: as above.
unsafe impl<T: ?Sized + Send> Sync for Mutex<T> {}

/// Holds the lock of a [`Mutex`] until it is dropped. It may go to another thread meanwhile.
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
        let poisoned = self.poison.is_set();
        let value = self.value.into_inner();
        if poisoned {
            Err(PoisonError::new(value))
        } else {
            Ok(value)
        }
    }
}

impl<T: ?Sized> Mutex<T> {
    #[inline]
    fn guard(&self) -> LockResult<MutexGuard<'_, T>> {
        self.poison.result(MutexGuard {
            mutex: self,
            unwound: std::thread::panicking(),
            _value: PhantomData,
        })
    }

    /// Waits for the lock.
    ///
    /// # Errors
    /// The guard in an error, if somebody panicked while holding the lock.
    ///
    /// # Blocking and cancellation
    /// Parks if it is held, and gets it after all who came before. A kill or time-out unwinds here, and the lock goes
    /// to the next in line. In a destructor that runs while unwinding it waits to the end.
    #[inline]
    #[track_caller]
    pub fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        self.core.block(&mut Acquire, Until::Ever, Why::new(&MUTEX, 0));
        self.guard()
    }

    /// The same for who has waited already, and may hold a notice: it takes no step of the budget.
    #[track_caller]
    pub(super) fn relock(&self) -> LockResult<MutexGuard<'_, T>> {
        self.core.block_unspent(&mut Acquire, Until::Ever, Why::new(&MUTEX, 0));
        self.guard()
    }

    /// The lock, if it is free and nobody waits for it.
    ///
    /// # Errors
    /// `WouldBlock`, or the guard in `Poisoned`.
    pub fn try_lock(&self) -> TryLockResult<MutexGuard<'_, T>> {
        match self.core.attempt(&mut Acquire) {
            Some(()) => Ok(self.guard()?),
            None => Err(TryLockError::WouldBlock),
        }
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
        match self.core.block(&mut Acquire, until, Why::new(&MUTEX, 0)) {
            Some(()) => Ok(self.guard()?),
            None => Err(TryLockError::WouldBlock),
        }
    }

    /// As [`lock`](Self::lock), for an `async` function. Dropped before it is ready, it is out of the line.
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

    /// Whether somebody holds it at this moment.
    pub fn is_locked(&self) -> bool {
        self.core.look(|state| state.locked)
    }

    /// Whether somebody panicked while holding it.
    pub fn is_poisoned(&self) -> bool {
        self.poison.is_set()
    }

    /// Forgets that somebody panicked.
    pub fn clear_poison(&self) {
        self.poison.clear();
    }

    /// The value, which nobody else can have.
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
        // SAFETY: the lock is held.
        unsafe { &*self.mutex.value.get() }
    }
}

impl<T: ?Sized> DerefMut for MutexGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the lock is held.
        unsafe { &mut *self.mutex.value.get() }
    }
}

impl<T: ?Sized> Drop for MutexGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.mutex.poison.left(self.unwound);
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
        let mut out = f.debug_struct("Mutex");
        match self.try_lock() {
            Ok(guard) => out.field("data", &&*guard),
            Err(TryLockError::Poisoned(error)) => out.field("data", &&**error.get_ref()),
            Err(TryLockError::WouldBlock) => out.field("data", &format_args!("<locked>")),
        };
        out.field("poisoned", &self.is_poisoned()).finish_non_exhaustive()
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
