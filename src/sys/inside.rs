//! Whether the running code is in the middle of a change of this crate's own state. Then it must not switch.
//!
//! Such code allocates, and allocators wait: for a lock of C's, on a futex, by trying again and again. A wait of
//! patched libc would switch to another green thread, which would find the state half changed, or a lock taken by a
//! green thread that does not run. So patched calls check here first. Inside, they block the OS thread instead, for as
//! long as the allocator takes.
//!
//! This crate's own system calls are inside as well, and what a user runs [unpatched](super::plain): no patched call
//! parks in them.
//!
//! The hub's own cells need no mark, because a borrowed cell can be seen ([`Hub::is_inside`](crate::hub)). A mark is
//! for state under a lock. Without the feature `monkey` no call checks, and there are no marks.
#![forbid(unsafe_code)]

use std::marker::PhantomData;
use std::sync::{Condvar, LockResult, PoisonError, TryLockError};
use std::time::Duration;

use super::poison::IgnorePoison;

#[cfg(feature = "monkey")]
mod depth {
    use std::cell::Cell;

    thread_local! {
        /// Belongs to the running context. A green thread is not switched away from while its depth is not 0, unless
        /// the user's unpatched code calls a wait of this crate.
        static DEPTH: Cell<u32> = const { Cell::new(0) };
        /// Whether a spin lock is held. It is set and put back, which costs less than a counter: each lock would wait
        /// for the counter's last update.
        static SPINS: Cell<bool> = const { Cell::new(false) };
    }

    #[inline(always)]
    pub(super) fn spins(on: bool) -> bool {
        SPINS.replace(on)
    }

    #[inline(always)]
    pub(super) fn add() {
        DEPTH.set(DEPTH.get().wrapping_add(1));
    }

    #[inline(always)]
    pub(super) fn subtract() {
        DEPTH.set(DEPTH.get().wrapping_sub(1));
    }

    #[inline(always)]
    pub(crate) fn is_inside() -> bool {
        DEPTH.get() != 0 || SPINS.get()
    }
}

#[cfg(not(feature = "monkey"))]
mod depth {
    #[inline(always)]
    pub(super) fn add() {}

    #[inline(always)]
    pub(super) fn subtract() {}

    #[inline(always)]
    pub(super) fn spins(_: bool) -> bool {
        false
    }
}

#[cfg(feature = "monkey")]
pub(crate) use depth::is_inside;

/// While this value lives, the running code is inside.
pub(crate) struct Inside(PhantomData<*const ()>);

/// While this value lives, the running code holds a spin lock.
pub(crate) struct Spins {
    before: bool,
    _here: PhantomData<*const ()>,
}

impl Spins {
    #[inline(always)]
    pub(crate) fn begin() -> Spins {
        Spins {
            before: depth::spins(true),
            _here: PhantomData,
        }
    }
}

impl Drop for Spins {
    #[inline(always)]
    fn drop(&mut self) {
        depth::spins(self.before);
    }
}

/// Marks the running code as inside, until the returned value is dropped.
#[inline(always)]
pub(crate) fn enter() -> Inside {
    depth::add();
    Inside(PhantomData)
}

impl Drop for Inside {
    #[inline(always)]
    fn drop(&mut self) {
        depth::subtract();
    }
}

/// std's mutex, for this crate's own state. The code is inside from before the lock is taken until after it is
/// released.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(std::sync::Mutex<T>);

/// The value of a locked [`Mutex`].
pub(crate) struct MutexGuard<'a, T> {
    // The order of the fields is the order of the drops: the lock is released first.
    guard: std::sync::MutexGuard<'a, T>,
    _inside: Inside,
}

/// Locks a mutex of std's, poisoned or not. The code is inside from before that until after it is released.
pub(crate) fn lock<T>(mutex: &std::sync::Mutex<T>) -> MutexGuard<'_, T> {
    let inside = enter();
    let guard = mutex.lock().ignore_poison();
    MutexGuard { guard, _inside: inside }
}

impl<T> Mutex<T> {
    pub(crate) const fn new(value: T) -> Mutex<T> {
        Mutex(std::sync::Mutex::new(value))
    }

    /// Like std's.
    #[inline]
    pub(crate) fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        let inside = enter();
        match self.0.lock() {
            Ok(guard) => Ok(MutexGuard { guard, _inside: inside }),
            Err(poisoned) => Err(PoisonError::new(MutexGuard {
                guard: poisoned.into_inner(),
                _inside: inside,
            })),
        }
    }

    /// Like std's.
    pub(crate) fn get_mut(&mut self) -> LockResult<&mut T> {
        self.0.get_mut()
    }

    /// Locks it if it is free, poisoned or not.
    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        let inside = enter();
        let guard = match self.0.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        Some(MutexGuard { guard, _inside: inside })
    }
}

impl<T> MutexGuard<'_, T> {
    /// [`Condvar::wait_timeout`], for an OS thread of this crate's own. Also says whether the time has passed.
    pub(crate) fn wait_timeout(self, condition: &Condvar, time: Duration) -> (Self, bool) {
        let MutexGuard { guard, _inside } = self;
        let (guard, waited) = condition.wait_timeout(guard, time).ignore_poison();
        (MutexGuard { guard, _inside }, waited.timed_out())
    }
}

impl<T> std::ops::Deref for MutexGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> std::ops::DerefMut for MutexGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}
