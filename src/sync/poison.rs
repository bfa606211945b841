//! What the locks that a panic poisons have in common: `Mutex` and `RwLock`.
#![forbid(unsafe_code)]

use std::fmt;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{LockResult, PoisonError, TryLockError, TryLockResult};

use crate::hub::interrupt;

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

    /// Called when a guard is dropped. `unwound`: whether its OS thread was unwinding when the guard was made.
    #[inline]
    pub(super) fn guard_dropped(&self, unwound: bool) {
        // Only a panic that began under the guard poisons. A kill and a time-out unwind too, but do not poison.
        if !unwound && std::thread::panicking() && !interrupt::unwinds() {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    pub(super) fn result<T>(&self, value: T) -> LockResult<T> {
        Poison::result_if(self.is_set(), value)
    }

    /// The same for a value that owns the poison.
    pub(super) fn result_if<T>(is_set: bool, value: T) -> LockResult<T> {
        if is_set {
            Err(PoisonError::new(value))
        } else {
            Ok(value)
        }
    }

    /// What an attempt returns: a guard if the lock was taken, else `WouldBlock`.
    #[inline]
    pub(super) fn attempted<H, G>(taken: Option<H>, guard: impl FnOnce(H) -> LockResult<G>) -> TryLockResult<G> {
        match taken {
            Some(held) => Ok(guard(held)?),
            None => Err(TryLockError::WouldBlock),
        }
    }

    /// `Debug` of a lock, by what an attempt has returned.
    pub(super) fn fmt<G: Deref<Target: fmt::Debug>>(
        &self,
        f: &mut fmt::Formatter<'_>,
        name: &str,
        attempted: TryLockResult<G>,
    ) -> fmt::Result {
        let mut out = f.debug_struct(name);
        match attempted {
            Ok(guard) => out.field("data", &&*guard),
            Err(TryLockError::Poisoned(error)) => out.field("data", &&**error.get_ref()),
            Err(TryLockError::WouldBlock) => out.field("data", &format_args!("<locked>")),
        };
        out.field("poisoned", &self.is_set()).finish_non_exhaustive()
    }
}
