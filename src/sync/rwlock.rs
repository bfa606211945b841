//! A lock for many readers or one writer, granted in order of arrival.

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

static READ: &str = "an RwLock (read)";
static WRITE: &str = "an RwLock (write)";

const READS: u32 = 0;
const WRITES: u32 = 1;

/// The readers or the writer that hold the lock. A waiter counts as a holder from its grant on, before it runs.
struct Holders {
    readers: usize,
    writes: bool,
    waiters: Waiters,
}

impl State for Holders {
    const ALLOCATES: bool = false;

    fn grant_waiters(&mut self, woken: &mut Woken) {
        loop {
            // The first in line decides: readers up to the next writer, or one writer. Nothing behind a waiting writer
            // overtakes it.
            let (readers, writes) = (self.readers, self.writes);
            let is_free = |wants| !writes && (wants != WRITES || readers == 0);
            match self.waiters.hand_first_if(woken, is_free) {
                Some(WRITES) => self.writes = true,
                Some(_) => self.readers += 1,
                None => return,
            }
        }
    }
}

struct Read;

impl Op<Holders> for Read {
    type Output = ();

    const HANDED: Option<()> = Some(());

    fn waiters<'a>(&self, state: &'a mut Holders) -> &'a mut Waiters {
        &mut state.waiters
    }

    fn wants(&self) -> u32 {
        READS
    }

    #[inline]
    fn attempt(&mut self, state: &mut Holders, granted: bool, _: &mut Woken) -> Option<()> {
        // After a hand-over this reader is counted already.
        if granted {
            return Some(());
        }
        // Queue behind a waiting writer, so that a stream of readers cannot starve it.
        (!state.writes && state.waiters.waiting() == 0).then(|| state.readers += 1)
    }

    fn undo_grant(&mut self, state: &mut Holders) {
        // `grant_waiters` then grants the next waiters.
        state.readers -= 1;
    }
}

struct Write;

impl Op<Holders> for Write {
    type Output = ();

    const HANDED: Option<()> = Some(());

    fn waiters<'a>(&self, state: &'a mut Holders) -> &'a mut Waiters {
        &mut state.waiters
    }

    fn wants(&self) -> u32 {
        WRITES
    }

    #[inline]
    fn attempt(&mut self, state: &mut Holders, granted: bool, _: &mut Woken) -> Option<()> {
        // After a hand-over `writes` is set already.
        if granted {
            return Some(());
        }
        let is_free = !state.writes && state.readers == 0 && state.waiters.waiting() == 0;
        // Not while others wait: those that came first are granted first.
        is_free.then(|| state.writes = true)
    }

    fn undo_grant(&mut self, state: &mut Holders) {
        state.writes = false;
    }
}

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
    core: Core<Holders>,
    poison: Poison,
    value: UnsafeCell<T>,
}

// SAFETY: moving the lock moves the value, and `T` is `Send`.
unsafe impl<T: ?Sized + Send> Send for RwLock<T> {}
// SAFETY: the lock gives `&T` to several threads at once, or `&mut T` to one; `T` is `Send` and `Sync`.
unsafe impl<T: ?Sized + Send + Sync> Sync for RwLock<T> {}

/// Holds an [`RwLock`] for reading until it is dropped.
#[must_use = "dropped at once, it locks nothing"]
pub struct RwLockReadGuard<'a, T: ?Sized> {
    lock: &'a RwLock<T>,
    _value: PhantomData<&'a T>,
}

/// Holds an [`RwLock`] for writing until it is dropped.
#[must_use = "dropped at once, it locks nothing"]
pub struct RwLockWriteGuard<'a, T: ?Sized> {
    lock: &'a RwLock<T>,
    unwound: bool,
    _value: PhantomData<&'a mut T>,
}

impl<T> RwLock<T> {
    /// A free lock over `value`.
    pub const fn new(value: T) -> RwLock<T> {
        RwLock {
            core: Core::new(Holders {
                readers: 0,
                writes: false,
                waiters: Waiters::new(),
            }),
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

impl<T: ?Sized> RwLock<T> {
    fn reads(&self) -> LockResult<RwLockReadGuard<'_, T>> {
        self.poison.result(RwLockReadGuard {
            lock: self,
            _value: PhantomData,
        })
    }

    fn writes(&self) -> LockResult<RwLockWriteGuard<'_, T>> {
        self.poison.result(RwLockWriteGuard {
            lock: self,
            unwound: std::thread::panicking(),
            _value: PhantomData,
        })
    }

    /// Waits to read.
    ///
    /// # Errors
    /// The guard in an error, if a writer panicked.
    ///
    /// # Blocking and cancellation
    /// Parks while the lock is held for writing, or a writer waits. A kill or time-out unwinds here.
    #[track_caller]
    pub fn read(&self) -> LockResult<RwLockReadGuard<'_, T>> {
        self.core.block(&mut Read, Until::Ever, Why::new(&READ, 0));
        self.reads()
    }

    /// Reads, if the lock is not held for writing and has no waiters.
    ///
    /// # Errors
    /// `WouldBlock`, or the guard in `Poisoned`.
    pub fn try_read(&self) -> TryLockResult<RwLockReadGuard<'_, T>> {
        Poison::attempted(self.core.attempt(&mut Read), || self.reads())
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
        let taken = self.core.block(&mut Read, until, Why::new(&READ, 0));
        Poison::attempted(taken, || self.reads())
    }

    /// Like [`read`](Self::read), for an `async` function.
    pub fn read_async(&self) -> impl Future<Output = LockResult<RwLockReadGuard<'_, T>>> + use<'_, T> {
        let locked = self.core.future(Read);
        async move {
            locked.await;
            self.reads()
        }
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
        self.core.block(&mut Write, Until::Ever, Why::new(&WRITE, 0));
        self.writes()
    }

    /// Writes, if the lock is free and has no waiters.
    ///
    /// # Errors
    /// `WouldBlock`, or the guard in `Poisoned`.
    pub fn try_write(&self) -> TryLockResult<RwLockWriteGuard<'_, T>> {
        Poison::attempted(self.core.attempt(&mut Write), || self.writes())
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
        let taken = self.core.block(&mut Write, until, Why::new(&WRITE, 0));
        Poison::attempted(taken, || self.writes())
    }

    /// Like [`write`](Self::write), for an `async` function.
    pub fn write_async(&self) -> impl Future<Output = LockResult<RwLockWriteGuard<'_, T>>> + use<'_, T> {
        let locked = self.core.future(Write);
        async move {
            locked.await;
            self.writes()
        }
    }

    /// Whether a writer panicked.
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
}

impl<T: ?Sized> Deref for RwLockReadGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the guard holds the lock for reading, so there is no writer.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T: ?Sized> Drop for RwLockReadGuard<'_, T> {
    fn drop(&mut self) {
        // After the last reader `grant_waiters` grants a waiting writer.
        self.lock.core.change(|state| state.readers -= 1);
    }
}

impl<T: ?Sized> Deref for RwLockWriteGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the guard holds the lock for writing, so there is no other holder.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T: ?Sized> DerefMut for RwLockWriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the guard holds the lock for writing, so there is no other holder.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T: ?Sized> Drop for RwLockWriteGuard<'_, T> {
    fn drop(&mut self) {
        // Before the unlock, so that the next holder sees the poison.
        self.lock.poison.guard_dropped(self.unwound);
        self.lock.core.change(|state| state.writes = false);
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for RwLockReadGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for RwLockWriteGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for RwLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.poison.fmt(f, "RwLock", self.try_read())
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
