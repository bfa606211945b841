//! What runs on this OS thread now: the chain of fibers, innermost first, down to the *root*.
//!
//! ```text
//!  TOP ─► generator ─► greenlet ─► null        the root: a green thread's base, or the native stack
//! ```
//!
//! Every fiber but a root has a [`Link`] on its own stack (FIBER-1 of [`fiber`](super)). Only the scheduler knows which
//! root runs: it leaves a function here that tells.

use std::cell::Cell;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};

/// One fiber on the chain.
#[derive(Debug)]
pub(crate) struct Link {
    prev: Cell<*const Link>,
    /// Zero until the number is first needed.
    number: Cell<u64>,
}

impl Link {
    #[inline]
    pub(crate) fn new(prev: *const Link) -> Link {
        Link {
            prev: Cell::new(prev),
            number: Cell::new(0),
        }
    }

    #[inline]
    pub(crate) fn set_prev(&self, prev: *const Link) {
        self.prev.set(prev);
    }

    /// A number that no other link ever has.
    #[inline]
    pub(super) fn number(&self) -> u64 {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        if self.number.get() == 0 {
            self.number.set(NEXT.fetch_add(1, Ordering::Relaxed));
        }
        self.number.get()
    }

    #[inline]
    pub(super) fn has_number(&self, number: u64) -> bool {
        self.number.get() == number
    }
}

thread_local! {
    /// The innermost running fiber above the root; null if the root itself runs.
    pub(crate) static TOP: Cell<*const Link> = const { Cell::new(ptr::null()) };
    /// How many fibers above a root of this context have begun and not ended: they may go on to use what they hold.
    static BEGUN: Cell<usize> = const { Cell::new(0) };
    static NATIVE: Cell<u64> = const { Cell::new(0) };
    static GREEN: Cell<Option<fn() -> u64>> = const { Cell::new(None) };
}

/// Whether the fiber of `link` runs here: the link is on the chain from the innermost fiber down to the root.
#[inline(always)]
pub(crate) fn is_on_chain(link: *const Link) -> bool {
    let top = TOP.get();
    top == link || is_below(top, link)
}

#[cold]
fn is_below(mut at: *const Link, link: *const Link) -> bool {
    while at != link {
        if at.is_null() {
            return false;
        }
        // SAFETY: links on the chain belong to running fibers, so the frames that hold them exist (FIBER-1).
        at = unsafe { (*at).prev.get() };
    }
    true
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

/// Sets aside the chain of the native stack while the hub runs on it; [`restore`] puts it back.
pub(crate) fn set_aside() -> *const Link {
    TOP.replace(ptr::null())
}

/// Undoes [`set_aside`].
pub(crate) fn restore(top: *const Link) {
    TOP.set(top);
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
