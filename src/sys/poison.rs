//! Locks of this crate's own state ignore poison. Nothing panics while such a lock is held, or the state under it is
//! consistent at every point.
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
