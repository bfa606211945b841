//! Locks of this crate's own state do not care for poison: nothing panics while one is held, or what is under it is whole
//! at every point.
#![forbid(unsafe_code)]

use std::sync::{LockResult, PoisonError};

pub(crate) trait IgnorePoison<T> {
    /// What the lock guards, also after a panic of another holder.
    fn ignore_poison(self) -> T;
}

impl<T> IgnorePoison<T> for LockResult<T> {
    #[inline(always)]
    fn ignore_poison(self) -> T {
        self.unwrap_or_else(PoisonError::into_inner)
    }
}
