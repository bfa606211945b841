//! Wakers that this crate makes around a value of its own. They can be told from other wakers, and their value can be
//! read.
//!
//! # Invariants
//! - **V1** The data of a waker with the vtable of `W` is a pointer that [`Arc::into_raw`] gave for an `Arc<W>`, and
//!   each such waker owns one reference count of that `Arc`. There is one vtable for each type, a static, and only this
//!   file names it.

use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::task::{RawWaker, RawWakerVTable, Waker};

use super::choice::Choice;
use super::polled::Signal;

/// A value that wakers are made around.
pub(crate) trait Own: Send + Sync + 'static {
    fn vtable() -> &'static RawWakerVTable;

    /// A waker of this value was called.
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

/// Makes a waker of `own`.
pub(super) fn waker<W: Own>(own: Arc<W>) -> Waker {
    // SAFETY: V1: the data and the vtable are those of one type, `W`, and each function of the vtable keeps the
    // reference count right.
    unsafe { Waker::from_raw(RawWaker::new(Arc::into_raw(own).cast(), W::vtable())) }
}

/// The value that the waker was made around, if that is a `W`.
#[inline]
pub(super) fn of<W: Own>(waker: &Waker) -> Option<&W> {
    // SAFETY: V1: the vtable says that the data points to a `W`, and the borrowed waker owns a reference count, so the
    // `W` lives as long as the borrow.
    std::ptr::eq(waker.vtable(), W::vtable()).then(|| unsafe { &*waker.data().cast::<W>() })
}

const fn vtable<W: Own>() -> RawWakerVTable {
    RawWakerVTable::new(clone::<W>, wake::<W>, wake_by_ref::<W>, release::<W>)
}

/// # Safety
/// `data` is that of a waker with the vtable of `W` (V1), which is borrowed.
unsafe fn clone<W: Own>(data: *const ()) -> RawWaker {
    // SAFETY: the caller guarantees that `data` came from `into_raw` of an `Arc<W>`, and the borrowed waker owns a
    // count of it.
    unsafe { Arc::increment_strong_count(data.cast::<W>()) };
    RawWaker::new(data, W::vtable())
}

/// # Safety
/// `data` is that of a waker with the vtable of `W` (V1), which is used up by the call.
unsafe fn wake<W: Own>(data: *const ()) {
    // SAFETY: the caller guarantees that `data` came from `into_raw` of an `Arc<W>`, and gives up the waker: its count
    // passes to the `Arc` made here.
    unsafe { Arc::from_raw(data.cast::<W>()) }.call();
}

/// # Safety
/// `data` is that of a waker with the vtable of `W` (V1), which is borrowed.
unsafe fn wake_by_ref<W: Own>(data: *const ()) {
    // SAFETY: the caller guarantees that `data` came from `into_raw` of an `Arc<W>`. The borrowed waker owns a count
    // during the call, and `ManuallyDrop` leaves that count with it.
    unsafe { ManuallyDrop::new(Arc::from_raw(data.cast::<W>())) }.call();
}

/// # Safety
/// `data` is that of a waker with the vtable of `W` (V1), which is used up by the call.
unsafe fn release<W: Own>(data: *const ()) {
    // SAFETY: the caller guarantees that `data` came from `into_raw` of an `Arc<W>`, and gives up the waker: its count
    // is dropped here.
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
