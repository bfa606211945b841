//! Calls that no patch is to touch: this crate's own.
//!
//! rustix and polling call the system without libc, unless the program turns rustix's feature `use-libc` on: then their
//! calls come by libc's symbols, which are the patched ones. There a call may give way, and is attempted with locks and
//! cells of this crate in hand. So each call of theirs that has a patched symbol, and is made where green threads run, is
//! made in [`plainly`].
#![forbid(unsafe_code)]

#[cfg(feature = "monkey")]
mod depth {
    use std::cell::Cell;

    thread_local! {
        /// How deep the context that runs is in calls that are not patched.
        static DEPTH: Cell<u32> = const { Cell::new(0) };
    }

    struct Leave;

    impl Drop for Leave {
        #[inline]
        fn drop(&mut self) {
            DEPTH.set(DEPTH.get() - 1);
        }
    }

    /// Runs `f` with its calls as libc has them; it is not to park.
    #[inline]
    pub(crate) fn plainly<R>(f: impl FnOnce() -> R) -> R {
        DEPTH.set(DEPTH.get() + 1);
        let _leave = Leave;
        f()
    }

    /// Whether that is so now.
    #[inline]
    pub(crate) fn is_plain() -> bool {
        DEPTH.get() > 0
    }
}

#[cfg(feature = "monkey")]
pub(crate) use depth::{is_plain, plainly};

/// Runs `f`: nothing is patched.
#[cfg(not(feature = "monkey"))]
#[inline(always)]
pub(crate) fn plainly<R>(f: impl FnOnce() -> R) -> R {
    f()
}
