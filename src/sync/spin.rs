//! A lock for a few instructions: what every primitive's state lies under.
//!
//! # Invariants
//! - **S1** The value is touched only between a `swap` of `locked` that found it false and the store that sets it false
//!   again.
//! - **S2** Under it there is no park, no wake, no code of the user (a waker's clone or drop, say), and nothing that panics:
//!   its holder goes on to the end unless the kernel takes the processor away.

use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicBool, Ordering};

pub(super) struct Spin<T> {
    locked: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: S1: one thread at a time has the value, and what it leaves the next one sees (acquire, release).
unsafe impl<T: Send> Sync for Spin<T> {}

impl<T> Spin<T> {
    pub(super) const fn new(value: T) -> Spin<T> {
        Spin {
            locked: AtomicBool::new(false),
            value: UnsafeCell::new(value),
        }
    }

    /// Runs `f` with the value.
    #[inline(always)]
    pub(super) fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        if self.locked.swap(true, Ordering::Acquire) {
            self.wait();
        }
        let _unlock = Unlock(&self.locked);
        // SAFETY: S1.
        f(unsafe { &mut *self.value.get() })
    }

    #[cold]
    fn wait(&self) {
        let mut tries = 0_u32;
        loop {
            while self.locked.load(Ordering::Relaxed) {
                tries += 1;
                if tries.is_multiple_of(64) {
                    // Its holder has lost the processor.
                    std::thread::yield_now();
                }
                std::hint::spin_loop();
            }
            if !self.locked.swap(true, Ordering::Acquire) {
                return;
            }
        }
    }
}

struct Unlock<'a>(&'a AtomicBool);

impl Drop for Unlock<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}
