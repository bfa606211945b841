//! A lock for many readers or one writer, granted in order of arrival.
#![forbid(unsafe_code)]

use std::fmt;
use std::future::Future;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, LockResult, TryLockResult};
use std::time::{Duration, Instant};

use super::held::{Guarded, Held, Holders, Read, Write, guards};
use super::poison::Poison;
use super::wait::Until;
use crate::hub::Why;

static READ: &str = "an RwLock (read)";
static WRITE: &str = "an RwLock (write)";

/// A lock that many may read under at once, or one may write under, like [`std::sync::RwLock`].
///
/// ```
/// use greenthread::sync::RwLock;
///
/// let names = RwLock::new(vec!["a"]);
/// {
///     let (one, two) = (names.read().unwrap(), names.read().unwrap());
///     assert_eq!((one.len(), two.len()), (1, 1));
///     assert!(names.try_write().is_err());
/// }
/// names.write().unwrap().push("b");
/// ```
///
/// Readers that come while a writer waits get in line behind it. A green thread that holds the lock for reading must
/// therefore not read it again: with a writer waiting in between, neither could continue. A panic while the lock is
/// held for writing poisons it.
///
/// # Coming from Python
/// gevent and asyncio have none.
pub struct RwLock<T: ?Sized> {
    pub(super) lock: Guarded<Holders, T>,
}

/// Holds an [`RwLock`] for reading until it is dropped.
#[must_use = "dropped at once, it locks nothing"]
pub struct RwLockReadGuard<'a, T: ?Sized> {
    held: Held<&'a Guarded<Holders, T>, Read>,
}

/// Holds an [`RwLock`] for writing until it is dropped.
#[must_use = "dropped at once, it locks nothing"]
pub struct RwLockWriteGuard<'a, T: ?Sized> {
    held: Held<&'a Guarded<Holders, T>, Write>,
    unwound: bool,
}

/// Like an [`RwLockReadGuard`], but it owns its lock, so that it may outlive the caller's.
///
/// ```
/// use std::sync::Arc;
/// use greenthread::{spawn, sync::RwLock};
///
/// let names = Arc::new(RwLock::new(vec!["a"]));
/// let readers = [(); 2].map(|()| names.read_owned().unwrap());
/// let counts = readers.map(|held| spawn(move || held.len()));
/// assert_eq!(counts.map(|count| count.join().unwrap()), [1, 1]);
/// ```
#[must_use = "dropped at once, it locks nothing"]
pub struct OwnedRwLockReadGuard<T: ?Sized> {
    held: Held<Arc<RwLock<T>>, Read>,
}

/// Like an [`RwLockWriteGuard`], but it owns its lock, so that it may outlive the caller's.
///
/// ```
/// use std::sync::Arc;
/// use greenthread::{spawn, sync::RwLock};
///
/// let names = Arc::new(RwLock::new(vec!["a"]));
/// let mut held = names.write_owned().unwrap();
/// let adder = spawn(move || held.push("b"));
/// assert_eq!(*names.read().unwrap(), ["a", "b"]);
/// adder.join().unwrap();
/// ```
#[must_use = "dropped at once, it locks nothing"]
pub struct OwnedRwLockWriteGuard<T: ?Sized> {
    held: Held<Arc<RwLock<T>>, Write>,
    unwound: bool,
}

impl<'a, T: ?Sized> RwLockReadGuard<'a, T> {
    fn new(held: Held<&'a Guarded<Holders, T>, Read>) -> LockResult<RwLockReadGuard<'a, T>> {
        held.keeper().poison.result(RwLockReadGuard { held })
    }
}

impl<'a, T: ?Sized> RwLockWriteGuard<'a, T> {
    fn new(held: Held<&'a Guarded<Holders, T>, Write>) -> LockResult<RwLockWriteGuard<'a, T>> {
        held.keeper().poison.result(RwLockWriteGuard {
            held,
            unwound: std::thread::panicking(),
        })
    }
}

impl<T: ?Sized> OwnedRwLockReadGuard<T> {
    fn new(held: Held<Arc<RwLock<T>>, Read>) -> LockResult<OwnedRwLockReadGuard<T>> {
        let is_poisoned = held.poison().is_set();
        Poison::result_if(is_poisoned, OwnedRwLockReadGuard { held })
    }

    /// The lock that the guard holds.
    pub fn rwlock(guard: &Self) -> &Arc<RwLock<T>> {
        guard.held.keeper()
    }
}

impl<T: ?Sized> OwnedRwLockWriteGuard<T> {
    fn new(held: Held<Arc<RwLock<T>>, Write>) -> LockResult<OwnedRwLockWriteGuard<T>> {
        let is_poisoned = held.poison().is_set();
        let guard = OwnedRwLockWriteGuard {
            held,
            unwound: std::thread::panicking(),
        };
        Poison::result_if(is_poisoned, guard)
    }

    /// The lock that the guard holds.
    pub fn rwlock(guard: &Self) -> &Arc<RwLock<T>> {
        guard.held.keeper()
    }
}

impl<T> RwLock<T> {
    /// A free lock over `value`.
    pub const fn new(value: T) -> RwLock<T> {
        RwLock {
            lock: Guarded::holders(value),
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

impl<T: ?Sized> RwLock<T> {
    /// Waits to read.
    ///
    /// # Errors
    /// The guard in an error, if a writer panicked.
    ///
    /// # Blocking and cancellation
    /// Parks while the lock is held for writing, or a writer waits. A kill or time-out unwinds here.
    #[track_caller]
    pub fn read(&self) -> LockResult<RwLockReadGuard<'_, T>> {
        RwLockReadGuard::new(Held::wait(&self.lock, Why::new(&READ, 0)))
    }

    /// Reads, if the lock is not held for writing and has no waiters.
    ///
    /// # Errors
    /// `WouldBlock`, or the guard in `Poisoned`.
    pub fn try_read(&self) -> TryLockResult<RwLockReadGuard<'_, T>> {
        Poison::attempted(Held::attempt(&self.lock), RwLockReadGuard::new)
    }

    /// Waits to read for at most `timeout`.
    ///
    /// # Errors
    /// `WouldBlock` when the time is over, or the guard in `Poisoned`.
    #[track_caller]
    pub fn read_timeout(&self, timeout: Duration) -> TryLockResult<RwLockReadGuard<'_, T>> {
        self.read_until(Until::After(timeout))
    }

    /// Waits to read until `deadline`.
    ///
    /// # Errors
    /// As [`read_timeout`](Self::read_timeout).
    #[track_caller]
    pub fn read_deadline(&self, deadline: Instant) -> TryLockResult<RwLockReadGuard<'_, T>> {
        self.read_until(Until::At(deadline))
    }

    #[track_caller]
    fn read_until(&self, until: Until) -> TryLockResult<RwLockReadGuard<'_, T>> {
        let taken = Held::wait_until(&self.lock, until, Why::new(&READ, 0));
        Poison::attempted(taken, RwLockReadGuard::new)
    }

    /// Like [`read`](Self::read), for an `async` function.
    pub fn read_async(&self) -> impl Future<Output = LockResult<RwLockReadGuard<'_, T>>> + use<'_, T> {
        let held = Held::future(&self.lock);
        async move { RwLockReadGuard::new(held.await) }
    }

    /// Like [`read`](Self::read), for a guard that owns the lock.
    ///
    /// # Errors
    /// The guard in an error, if a writer panicked.
    ///
    /// # Blocking and cancellation
    /// As [`read`](Self::read).
    #[track_caller]
    pub fn read_owned(self: &Arc<Self>) -> LockResult<OwnedRwLockReadGuard<T>> {
        OwnedRwLockReadGuard::new(Held::wait(self.clone(), Why::new(&READ, 0)))
    }

    /// Like [`try_read`](Self::try_read), for a guard that owns the lock.
    ///
    /// # Errors
    /// `WouldBlock`, or the guard in `Poisoned`.
    pub fn try_read_owned(self: &Arc<Self>) -> TryLockResult<OwnedRwLockReadGuard<T>> {
        Poison::attempted(Held::attempt(self.clone()), OwnedRwLockReadGuard::new)
    }

    /// Like [`read_timeout`](Self::read_timeout), for a guard that owns the lock.
    ///
    /// # Errors
    /// `WouldBlock` when the time is over, or the guard in `Poisoned`.
    #[track_caller]
    pub fn read_owned_timeout(self: &Arc<Self>, timeout: Duration) -> TryLockResult<OwnedRwLockReadGuard<T>> {
        let taken = Held::wait_until(self.clone(), Until::After(timeout), Why::new(&READ, 0));
        Poison::attempted(taken, OwnedRwLockReadGuard::new)
    }

    /// Like [`read_async`](Self::read_async), for a guard that owns the lock. The future owns it too.
    ///
    /// # Errors
    /// The guard in an error, if a writer panicked.
    pub fn read_owned_async(self: &Arc<Self>) -> impl Future<Output = LockResult<OwnedRwLockReadGuard<T>>> + use<T> {
        let held = Held::future(self.clone());
        async move { OwnedRwLockReadGuard::new(held.await) }
    }

    /// Waits to write.
    ///
    /// # Errors
    /// The guard in an error, if a writer panicked.
    ///
    /// # Blocking and cancellation
    /// Parks while the lock is held, or others wait for it. A kill or time-out unwinds here.
    #[track_caller]
    pub fn write(&self) -> LockResult<RwLockWriteGuard<'_, T>> {
        RwLockWriteGuard::new(Held::wait(&self.lock, Why::new(&WRITE, 0)))
    }

    /// Writes, if the lock is free and has no waiters.
    ///
    /// # Errors
    /// `WouldBlock`, or the guard in `Poisoned`.
    pub fn try_write(&self) -> TryLockResult<RwLockWriteGuard<'_, T>> {
        Poison::attempted(Held::attempt(&self.lock), RwLockWriteGuard::new)
    }

    /// Waits to write for at most `timeout`.
    ///
    /// # Errors
    /// `WouldBlock` when the time is over, or the guard in `Poisoned`.
    #[track_caller]
    pub fn write_timeout(&self, timeout: Duration) -> TryLockResult<RwLockWriteGuard<'_, T>> {
        self.write_until(Until::After(timeout))
    }

    /// Waits to write until `deadline`.
    ///
    /// # Errors
    /// As [`write_timeout`](Self::write_timeout).
    #[track_caller]
    pub fn write_deadline(&self, deadline: Instant) -> TryLockResult<RwLockWriteGuard<'_, T>> {
        self.write_until(Until::At(deadline))
    }

    #[track_caller]
    fn write_until(&self, until: Until) -> TryLockResult<RwLockWriteGuard<'_, T>> {
        let taken = Held::wait_until(&self.lock, until, Why::new(&WRITE, 0));
        Poison::attempted(taken, RwLockWriteGuard::new)
    }

    /// Like [`write`](Self::write), for an `async` function.
    pub fn write_async(&self) -> impl Future<Output = LockResult<RwLockWriteGuard<'_, T>>> + use<'_, T> {
        let held = Held::future(&self.lock);
        async move { RwLockWriteGuard::new(held.await) }
    }

    /// Like [`write`](Self::write), for a guard that owns the lock.
    ///
    /// # Errors
    /// The guard in an error, if a writer panicked.
    ///
    /// # Blocking and cancellation
    /// As [`write`](Self::write).
    #[track_caller]
    pub fn write_owned(self: &Arc<Self>) -> LockResult<OwnedRwLockWriteGuard<T>> {
        OwnedRwLockWriteGuard::new(Held::wait(self.clone(), Why::new(&WRITE, 0)))
    }

    /// Like [`try_write`](Self::try_write), for a guard that owns the lock.
    ///
    /// # Errors
    /// `WouldBlock`, or the guard in `Poisoned`.
    pub fn try_write_owned(self: &Arc<Self>) -> TryLockResult<OwnedRwLockWriteGuard<T>> {
        Poison::attempted(Held::attempt(self.clone()), OwnedRwLockWriteGuard::new)
    }

    /// Like [`write_timeout`](Self::write_timeout), for a guard that owns the lock.
    ///
    /// # Errors
    /// `WouldBlock` when the time is over, or the guard in `Poisoned`.
    #[track_caller]
    pub fn write_owned_timeout(self: &Arc<Self>, timeout: Duration) -> TryLockResult<OwnedRwLockWriteGuard<T>> {
        let taken = Held::wait_until(self.clone(), Until::After(timeout), Why::new(&WRITE, 0));
        Poison::attempted(taken, OwnedRwLockWriteGuard::new)
    }

    /// Like [`write_async`](Self::write_async), for a guard that owns the lock. The future owns it too.
    ///
    /// # Errors
    /// The guard in an error, if a writer panicked.
    pub fn write_owned_async(self: &Arc<Self>) -> impl Future<Output = LockResult<OwnedRwLockWriteGuard<T>>> + use<T> {
        let held = Held::future(self.clone());
        async move { OwnedRwLockWriteGuard::new(held.await) }
    }

    /// Whether a writer panicked.
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

guards!(RwLockReadGuard<'a, T>);
guards!(RwLockWriteGuard<'a, T>: mut);
guards!(OwnedRwLockReadGuard<T>);
guards!(OwnedRwLockWriteGuard<T>: mut);

impl<T: ?Sized + fmt::Debug> fmt::Debug for RwLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lock.poison.fmt(f, "RwLock", self.try_read())
    }
}

impl<T: Default> Default for RwLock<T> {
    fn default() -> RwLock<T> {
        RwLock::new(T::default())
    }
}

impl<T> From<T> for RwLock<T> {
    fn from(value: T) -> RwLock<T> {
        RwLock::new(value)
    }
}
