//! A lock that is held for a few instructions. The state of every primitive lies under one.
//!
//! # Invariants
//! - **SPIN-1** The value is touched only between an exchange of the lock that found it free and the store that frees
//!   it again.
//! - **SPIN-2** While it is held there is no park, no wake, no code of the user (such as a waker's clone or drop), and
//!   nothing that panics. So its holder goes on to the unlock unless the kernel takes the processor away. Code that
//!   allocates under the lock marks it: by [`locked`](Spin::locked) for the whole time, or by [`Spins`] where it
//!   allocates. An allocator that has to wait then blocks the OS thread instead of parking the green thread.
//!
//! # Rejected
//! A lock biased to the first hub that takes it. That hub then needs no exchange, and the first other hub takes the
//! lock away with a barrier on all OS threads (`membarrier`). It was correct (loom), and not faster: a store that is
//! read again at once costs as much here as an exchange.

use std::cell::UnsafeCell;
use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};
#[cfg(feature = "monkey")]
use std::sync::atomic::AtomicU32;
use std::sync::atomic::{AtomicBool, Ordering};

#[cfg(feature = "monkey")]
use super::fork::InChild;
use super::inside::Spins;

/// The lock of a [`Spin`]: an `AtomicBool`; another one in loom's tests, because loom cannot run a loop that only
/// loads.
pub(crate) trait Lock {
    fn lock(&self);
    fn unlock(&self);
}

pub(crate) struct Spin<T, L = AtomicBool> {
    lock: L,
    value: UnsafeCell<T>,
}

// SAFETY: SPIN-1: one OS thread at a time accesses the value. The acquire of its lock sees what the release of the last
// unlock left.
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
    /// Locks the value until the returned guard is dropped. The caller allocates and frees nothing meanwhile.
    #[inline(always)]
    pub(crate) fn lock(&self) -> Locked<'_, T, L> {
        self.lock.lock();
        Locked(self)
    }

    /// The same for a caller that allocates meanwhile (`allocates`), or marks the places where it does itself.
    #[inline(always)]
    pub(crate) fn locked(&self, allocates: bool) -> Marked<'_, T, L> {
        let locked = self.lock();
        Marked {
            _spins: allocates.then(Spins::begin),
            locked,
        }
    }
}

#[cfg(feature = "monkey")]
impl<T, L: Lock> Spin<T, L> {
    /// Frees the lock in a forked child, over a fresh value. The one before may be half changed, and is leaked.
    pub(crate) fn renew(&self, value: T, _: &InChild) {
        // SAFETY: SPIN-1: this is the only thread of the process (`InChild`), and it does not fork while it holds the
        // lock (SPIN-2). So a guard that exists is of a thread of the parent, and is never used again.
        unsafe { self.value.get().write(value) };
        self.lock.unlock();
    }
}

/// The locked value.
pub(crate) struct Locked<'a, T, L: Lock>(&'a Spin<T, L>);

/// The same. If the holder allocates, it counts as inside (HUB-14).
pub(crate) struct Marked<'a, T, L: Lock> {
    // In this order: the mark is put back first, and the lock is released last.
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
        // SAFETY: SPIN-1: this guard exists, so the lock is held, and no other guard refers to the value.
        unsafe { &*self.0.value.get() }
    }
}

impl<T, L: Lock> DerefMut for Locked<'_, T, L> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: SPIN-1: this guard exists, so the lock is held, and no other guard refers to the value; `&mut self`
        // excludes references through this one.
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
            wait_for(self);
        }
    }

    #[inline(always)]
    fn unlock(&self) {
        self.store(false, Ordering::Release);
    }
}

/// The lock of a [`Spin`] that knows its holder.
#[cfg(feature = "monkey")]
pub(crate) struct ByThread(AtomicU32);

#[cfg(feature = "monkey")]
impl ByThread {
    pub(crate) const fn new() -> ByThread {
        ByThread(AtomicU32::new(0))
    }

    fn lock_as(&self, me: u32) {
        let try_it = || {
            self.0
                .compare_exchange_weak(0, me, Ordering::Acquire, Ordering::Relaxed)
                .is_ok()
        };
        if !try_it() {
            wait(|| self.0.load(Ordering::Relaxed) != 0, try_it);
        }
    }
}

#[cfg(feature = "monkey")]
impl Lock for ByThread {
    fn lock(&self) {
        self.lock_as(super::thread::id() as u32);
    }

    fn unlock(&self) {
        self.0.store(0, Ordering::Release);
    }
}

#[cfg(feature = "monkey")]
impl<T> Spin<T, ByThread> {
    /// Locks the value. `None` if the running OS thread holds the lock: the caller is a signal handler that has
    /// interrupted the holder, and would wait for ever.
    pub(crate) fn lock_unless_mine(&self) -> Option<Locked<'_, T, ByThread>> {
        let me = super::thread::id() as u32;
        if self.lock.0.load(Ordering::Relaxed) == me {
            return None;
        }
        self.lock.lock_as(me);
        Some(Locked(self))
    }
}

/// [`VecDeque::push_back`] under a lock of this kind: marks the allocation, if there is one.
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
fn wait_for(lock: &AtomicBool) {
    wait(|| lock.load(Ordering::Relaxed), || !lock.swap(true, Ordering::Acquire));
}

/// Waits until `is_taken` returns false and `try_it` takes the lock.
fn wait(is_taken: impl Fn() -> bool, try_it: impl Fn() -> bool) {
    let mut tries = 0_u32;
    loop {
        // Spin on a load: an exchange in each round would take the cache line away from the holder.
        while is_taken() {
            tries += 1;
            if tries.is_multiple_of(64) {
                // The kernel has probably taken the processor from the holder: let it run.
                super::thread::give_way();
            }
            std::hint::spin_loop();
        }
        if try_it() {
            return;
        }
    }
}

#[cfg(all(test, feature = "monkey", not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_lock_by_thread_is_refused_to_its_holder_and_waited_for_by_others() {
        static LOCK: Spin<u32, ByThread> = Spin::with_lock(0, ByThread::new());
        let mut held = LOCK.lock_unless_mine().expect("it is free");
        assert!(LOCK.lock_unless_mine().is_none());
        let other = std::thread::spawn(|| *LOCK.lock_unless_mine().expect("another thread's"));
        std::thread::sleep(std::time::Duration::from_millis(5));
        *held = 7;
        drop(held);
        assert_eq!(other.join().unwrap(), 7);
        assert_eq!(*LOCK.lock(), 7);
    }
}
