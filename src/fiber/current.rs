//! What runs on this OS thread now: the chain of fibers, innermost first, down to the *root*.
//!
//! ```text
//!  TOP ─► generator ─► greenlet ─► null        the root: a green thread's base, or the native stack
//! ```
//!
//! Every fiber but a root has a [`Link`] on its own stack (FIBER-1 of [`fiber`](super)): the chain is walked where the
//! fibers are. Only the scheduler knows which root runs: it leaves a function here that tells.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

pub(crate) use super::coroutine::{Link, is_on_chain, restore, set_aside, top};

thread_local! {
    /// How many fibers above a root of this context have begun and not ended: they may go on to use what they hold.
    static BEGUN: Cell<usize> = const { Cell::new(0) };
    static NATIVE: Cell<u64> = const { Cell::new(0) };
    static GREEN: Cell<Option<fn() -> u64>> = const { Cell::new(None) };
}

/// Counts a fiber from its beginning to its end.
pub(super) struct Begun(());

impl Begun {
    pub(super) fn new() -> Begun {
        BEGUN.set(BEGUN.get() + 1);
        Begun(())
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        BEGUN.set(BEGUN.get() - 1);
    }
}

/// Whether fibers above a root of this context have begun and not ended. They may be suspended for good.
pub(crate) fn any_begun() -> bool {
    BEGUN.get() > 0
}

/// Sets the function that tells the number of the running green thread on this OS thread; 0 for none.
pub(crate) fn set_green(f: fn() -> u64) {
    GREEN.set(Some(f));
}

/// Whether the running root has this number.
#[inline]
pub(crate) fn is_root(number: u64) -> bool {
    match GREEN.get().map_or(0, |green| green()) {
        0 => NATIVE.get() == number,
        id => id == number,
    }
}

/// The number of the running root, a green thread or a native stack. It is never used for another root.
pub(crate) fn root() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1 << 63);
    match GREEN.get().map_or(0, |green| green()) {
        0 if NATIVE.get() == 0 => {
            NATIVE.set(NEXT.fetch_add(1, Ordering::Relaxed));
            NATIVE.get()
        }
        0 => NATIVE.get(),
        id => id,
    }
}
