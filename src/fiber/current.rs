//! What runs on this OS thread now: the chain of fibers, innermost first, down to the *root*.
//!
//! ```text
//!  TOP ─► generator ─► greenlet ─► null        the root: a green thread's base, or the native stack
//! ```
//!
//! Every fiber but a root has a [`Link`] on its own stack (F1 of [`fiber`](super)). Who the root is only the scheduler
//! knows: it leaves a function here.

use std::cell::Cell;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};

/// One fiber on the chain.
#[derive(Debug)]
pub(crate) struct Link {
    prev: Cell<*const Link>,
    /// Zero until somebody asks.
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

    /// A number that no other link has, ever.
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
    /// How many fibers above a root have begun and not ended: what they hold may be used again.
    static BEGUN: Cell<usize> = const { Cell::new(0) };
    static NATIVE: Cell<u64> = const { Cell::new(0) };
    static GREEN: Cell<Option<fn() -> u64>> = const { Cell::new(None) };
}

/// Whether `link` is running here: on the chain from the innermost fiber down to the root.
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
        // SAFETY: links on the chain belong to running fibers, whose frames are there (F1).
        at = unsafe { (*at).prev.get() };
    }
    true
}

/// Counts a fiber until its end.
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

/// Whether there are fibers above a root of this context that have begun and not ended, suspended for good perhaps.
pub(crate) fn any_begun() -> bool {
    BEGUN.get() > 0
}

/// Puts the native stack's chain aside while the hub runs on it; [`restore`] brings it back.
pub(crate) fn set_aside() -> *const Link {
    TOP.replace(ptr::null())
}

/// The end of [`set_aside`].
pub(crate) fn restore(top: *const Link) {
    TOP.set(top);
}

/// Sets what tells the number of the running green thread, 0 for none; for this OS thread.
pub(crate) fn set_green(f: fn() -> u64) {
    GREEN.set(Some(f));
}

/// Whether the root that runs now has this number.
#[inline]
pub(crate) fn is_root(number: u64) -> bool {
    match GREEN.get().map_or(0, |green| green()) {
        0 => NATIVE.get() == number,
        id => id == number,
    }
}

/// A number for the root that runs now, never used for another: a green thread, or a native stack.
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
