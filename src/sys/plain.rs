//! This crate's own system calls, which no patch may touch.
//!
//! rustix and polling call the system without libc, unless the program turns on rustix's feature `use-libc`. Then their
//! calls go through libc's symbols, which are the patched ones. A patched call may give way to another green thread,
//! and this crate makes such calls while it holds locks and borrows cells. So each call of rustix's or polling's that
//! has a patched symbol, and is made where green threads run, is made in [`plainly`].
#![forbid(unsafe_code)]

#[cfg(feature = "monkey")]
mod depth {
    use std::cell::Cell;

    thread_local! {
        /// How many nested calls of `plainly` the running context is in.
        static DEPTH: Cell<u32> = const { Cell::new(0) };
    }

    struct Leave;

    impl Drop for Leave {
        #[inline]
        fn drop(&mut self) {
            DEPTH.set(DEPTH.get() - 1);
        }
    }

    /// Runs `f` with unpatched system calls. `f` must not park.
    #[inline]
    pub(crate) fn plainly<R>(f: impl FnOnce() -> R) -> R {
        DEPTH.set(DEPTH.get() + 1);
        let _leave = Leave;
        f()
    }

    /// Whether the caller is in [`plainly`].
    #[inline]
    pub(crate) fn is_plain() -> bool {
        DEPTH.get() > 0
    }
}

#[cfg(feature = "monkey")]
pub(crate) use depth::{is_plain, plainly};

/// Runs `f`. Nothing is patched without the feature `monkey`.
#[cfg(not(feature = "monkey"))]
#[inline(always)]
pub(crate) fn plainly<R>(f: impl FnOnce() -> R) -> R {
    f()
}
