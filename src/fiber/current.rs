//! What runs on this OS thread now: the chain of fibers, innermost first.
//!
//! ```text
//!  TOP ─► generator ─► greenlet ─► green thread's base (root)      the native stack: TOP is null at its end
//! ```
//!
//! Every fiber has a [`Link`] on its own stack (F1 of [`fiber`](super)). A green thread's base is a *root*: the chain
//! of what it runs stops there, although another stack (the native one, pumping the hub) lies below.

use std::cell::Cell;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};

/// One fiber on the chain.
#[derive(Debug)]
pub(crate) struct Link {
    prev: Cell<*const Link>,
    /// Zero until somebody asks who the root is; never zero afterwards.
    id: Cell<u64>,
    root: bool,
}

impl Link {
    #[inline]
    pub(crate) fn new(prev: *const Link, root: bool) -> Link {
        Link { prev: Cell::new(prev), id: Cell::new(0), root }
    }

    #[inline]
    pub(crate) fn set_prev(&self, prev: *const Link) {
        self.prev.set(prev);
    }
}

thread_local! {
    /// The innermost running fiber; null on the bare native stack.
    pub(crate) static TOP: Cell<*const Link> = const { Cell::new(ptr::null()) };
    static NATIVE_ID: Cell<u64> = const { Cell::new(0) };
}

/// Whether `link` is running here: on the chain from the innermost fiber down to the root.
#[inline]
pub(crate) fn is_on_chain(link: *const Link) -> bool {
    let mut at = TOP.get();
    loop {
        if at == link {
            return true;
        }
        if at.is_null() {
            return false;
        }
        // SAFETY: links on the chain belong to running fibers, whose frames are there (F1).
        let here = unsafe { &*at };
        if here.root {
            return false;
        }
        at = here.prev.get();
    }
}

/// A number for the root that runs now, never used again for another: a green thread, or a native stack.
pub(crate) fn root() -> u64 {
    let mut at = TOP.get();
    while !at.is_null() {
        // SAFETY: as in `is_on_chain`.
        let here = unsafe { &*at };
        if here.root {
            return numbered(&here.id);
        }
        at = here.prev.get();
    }
    NATIVE_ID.with(numbered)
}

fn numbered(id: &Cell<u64>) -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    if id.get() == 0 {
        id.set(NEXT.fetch_add(1, Ordering::Relaxed));
    }
    id.get()
}
