//! A lock for a few instructions: what every primitive's state lies under.
//!
//! # Invariants
//! - **S1** The value is touched only between a `swap` of the lock that found it false and the store that sets it false
//!   again.
//! - **S2** Under it there is no park, no wake, no code of the user (a waker's clone or drop, say), and nothing that
//!   panics: its holder goes on to the end unless the kernel takes the processor away. What allocates under it says so, by
//!   [`locked`](Spin::locked) for all of it or by [`Spins`] where it does, and an allocator that waits then does so with the
//!   OS thread.
//!
//! # Rejected
//! A lock that belongs to the first hub that takes it, which then needs no exchange, and is taken from it with a
//! barrier on all OS threads (`membarrier`) by the first other: right (loom), and not quicker. A store that is read
//! again at once costs here what an exchange does.

use std::cell::UnsafeCell;
use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::sys::inside::Spins;

/// The lock of a [`Spin`]: an `AtomicBool`, but for loom's tests, to which a loop that only looks means nothing.
pub(crate) trait Lock {
    fn lock(&self);
    fn unlock(&self);
}

pub(crate) struct Spin<T, L = AtomicBool> {
    lock: L,
    value: UnsafeCell<T>,
}

// SAFETY: S1: one thread at a time has the value, and what it leaves the next one sees (acquire, release).
unsafe impl<T: Send, L: Sync> Sync for Spin<T, L> {}

impl<T> Spin<T> {
    pub(crate) const fn new(value: T) -> Spin<T> {
        Spin::with_lock(value, AtomicBool::new(false))
    }
}

impl<T, L> Spin<T, L> {
    pub(crate) const fn with_lock(value: T, lock: L) -> Spin<T, L> {
        Spin {
            lock,
            value: UnsafeCell::new(value),
        }
    }
}

impl<T, L: Lock> Spin<T, L> {
    /// The value, until what is given is dropped. Nothing is allocated or freed meanwhile.
    #[inline(always)]
    pub(crate) fn lock(&self) -> Locked<'_, T, L> {
        self.lock.lock();
        Locked(self)
    }

    /// The value, for code that `allocates`, or marks the places where it does itself.
    #[inline(always)]
    pub(crate) fn locked(&self, allocates: bool) -> Marked<'_, T, L> {
        let locked = self.lock();
        Marked {
            _spins: allocates.then(Spins::begin),
            locked,
        }
    }
}

/// The value, locked.
pub(crate) struct Locked<'a, T, L: Lock>(&'a Spin<T, L>);

/// The same, and the code that runs is inside if it allocates.
pub(crate) struct Marked<'a, T, L: Lock> {
    // In this order: unlocked last.
    _spins: Option<Spins>,
    locked: Locked<'a, T, L>,
}

impl<T, L: Lock> Deref for Marked<'_, T, L> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        &self.locked
    }
}

impl<T, L: Lock> DerefMut for Marked<'_, T, L> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.locked
    }
}

impl<T, L: Lock> Deref for Locked<'_, T, L> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: S1.
        unsafe { &*self.0.value.get() }
    }
}

impl<T, L: Lock> DerefMut for Locked<'_, T, L> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: S1.
        unsafe { &mut *self.0.value.get() }
    }
}

impl<T, L: Lock> Drop for Locked<'_, T, L> {
    #[inline(always)]
    fn drop(&mut self) {
        self.0.lock.unlock();
    }
}

impl Lock for AtomicBool {
    #[inline(always)]
    fn lock(&self) {
        if self.swap(true, Ordering::Acquire) {
            wait(self);
        }
    }

    #[inline(always)]
    fn unlock(&self) {
        self.store(false, Ordering::Release);
    }
}

/// [`VecDeque::push_back`] under a lock of this kind.
#[inline(always)]
pub(crate) fn push_back<T>(list: &mut VecDeque<T>, value: T) {
    if list.len() == list.capacity() {
        grow(list);
    }
    list.push_back(value);
}

#[cold]
#[inline(never)]
fn grow<T>(list: &mut VecDeque<T>) {
    let _spins = Spins::begin();
    list.reserve(1);
}

#[cold]
fn wait(locked: &AtomicBool) {
    let mut tries = 0_u32;
    loop {
        while locked.load(Ordering::Relaxed) {
            tries += 1;
            if tries.is_multiple_of(64) {
                // Its holder has lost the processor.
                crate::sys::thread::give_way();
            }
            std::hint::spin_loop();
        }
        if !locked.swap(true, Ordering::Acquire) {
            return;
        }
    }
}
