//! The wakers that this crate makes around a value of its own: they can be told from others, and looked into.
//!
//! # Invariants
//! - **V1** The data of a waker with the vtable of `W` is what [`Arc::into_raw`] gave for an `Arc<W>`, and each such waker
//!   has one count of it. Vtables are statics, one a type, and named in this file only.

use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::task::{RawWaker, RawWakerVTable, Waker};

use super::choice::Choice;
use super::polled::Signal;

/// What wakers are made around.
pub(crate) trait Own: Send + Sync + 'static {
    fn vtable() -> &'static RawWakerVTable;

    /// A waker of it was called.
    fn call(&self);
}

static SIGNAL: RawWakerVTable = vtable::<Signal>();
static CHOICE: RawWakerVTable = vtable::<Choice>();

impl Own for Signal {
    #[inline]
    fn vtable() -> &'static RawWakerVTable {
        &SIGNAL
    }

    fn call(&self) {
        self.notify();
    }
}

impl Own for Choice {
    #[inline]
    fn vtable() -> &'static RawWakerVTable {
        &CHOICE
    }

    fn call(&self) {
        self.notify();
    }
}

/// A waker of `own`.
pub(super) fn waker<W: Own>(own: Arc<W>) -> Waker {
    // SAFETY: V1: made of the one and the other of a type, and all functions of the vtable keep the count.
    unsafe { Waker::from_raw(RawWaker::new(Arc::into_raw(own).cast(), W::vtable())) }
}

/// What the waker was made around, if that is a `W`.
#[inline]
pub(super) fn of<W: Own>(waker: &Waker) -> Option<&W> {
    // SAFETY: V1: the vtable says what the data is, and the waker that is lent has a count of it.
    std::ptr::eq(waker.vtable(), W::vtable()).then(|| unsafe { &*waker.data().cast::<W>() })
}

const fn vtable<W: Own>() -> RawWakerVTable {
    RawWakerVTable::new(clone::<W>, wake::<W>, wake_by_ref::<W>, release::<W>)
}

/// # Safety
/// V1, of a waker that is lent.
unsafe fn clone<W: Own>(data: *const ()) -> RawWaker {
    // SAFETY: the caller's: it came from `into_raw`, and is counted.
    unsafe { Arc::increment_strong_count(data.cast::<W>()) };
    RawWaker::new(data, W::vtable())
}

/// # Safety
/// V1, of a waker that is used up.
unsafe fn wake<W: Own>(data: *const ()) {
    // SAFETY: the caller's: the count of this waker goes over to the `Arc`.
    unsafe { Arc::from_raw(data.cast::<W>()) }.call();
}

/// # Safety
/// V1, of a waker that is lent.
unsafe fn wake_by_ref<W: Own>(data: *const ()) {
    // SAFETY: the caller's: it is counted meanwhile, and the count stays the waker's.
    unsafe { ManuallyDrop::new(Arc::from_raw(data.cast::<W>())) }.call();
}

/// # Safety
/// V1, of a waker that is used up.
unsafe fn release<W: Own>(data: *const ()) {
    // SAFETY: as in `wake`.
    drop(unsafe { Arc::from_raw(data.cast::<W>()) });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::choice::Choice;

    #[test]
    fn a_waker_is_known_again_and_keeps_its_count() {
        let choice = Arc::new(Choice::new());
        let one = waker(choice.clone());
        let other = one.clone();
        assert!(of::<Choice>(&other).is_some_and(|it| std::ptr::eq(it, &*choice)));
        assert!(of::<Signal>(&one).is_none() && of::<Choice>(Waker::noop()).is_none());
        assert_eq!(Arc::strong_count(&choice), 3);
        one.wake_by_ref();
        one.wake();
        drop(other);
        assert_eq!(Arc::strong_count(&choice), 1);
    }
}
