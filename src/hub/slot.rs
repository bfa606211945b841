//! How a green thread ended, and the slot for its result: three words in the block, or a box where they are too few.

use std::any::Any;
use std::cell::UnsafeCell;
use std::mem::{MaybeUninit, align_of, size_of};

/// How a body ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// No result in the slot: not ended, or taken.
    Empty,
    /// The value is in the slot.
    Returned,
    /// The panic's payload is in the slot.
    Panicked,
    /// A time-out has unwound all of it: `outcome` says `Panicked`.
    TimedOut,
    /// It was killed.
    Killed,
    /// It was told that it is killed, and returned all the same: the value is in the slot, as a [`Late`].
    Late,
    /// Its hub ended before it did.
    Lost,
}

/// A result as it leaves the slot.
pub(crate) enum Exit<T> {
    Returned(T),
    Panicked(Box<dyn Any + Send>),
    /// With the [`Late`] value, if there is one.
    Killed(Option<Box<dyn Any + Send>>),
    Lost,
}

/// The value of a green thread that returned although it was told of its kill.
pub(crate) struct Late<T>(pub(crate) T);

// SAFETY: made only by `task::leave_late`, of values that are `Send`.
unsafe impl<T> Send for Late<T> {}

type Words = [MaybeUninit<u64>; 3];

/// Room for one value, of a type that only those who use it know.
pub(super) struct Slot(UnsafeCell<Words>);

impl Slot {
    pub(super) fn empty() -> Slot {
        Slot(UnsafeCell::new([MaybeUninit::uninit(); 3]))
    }

    /// Whether a `V` lies in the slot itself, not in a box.
    const fn fits<V>() -> bool {
        size_of::<V>() <= size_of::<Words>() && align_of::<V>() <= align_of::<Words>()
    }

    /// # Safety
    /// The slot is empty, and the caller's alone.
    #[inline]
    pub(super) unsafe fn put<V>(&self, value: V) {
        let words = self.0.get();
        if Self::fits::<V>() {
            // SAFETY: it fits, and the caller owns the empty slot.
            unsafe { words.cast::<V>().write(value) };
        } else {
            // SAFETY: a pointer fits.
            unsafe { words.cast::<Box<V>>().write(Box::new(value)) };
        }
    }

    /// # Safety
    /// A `V` lies in the slot, which is the caller's alone, and which it regards as empty from now on.
    #[inline]
    pub(super) unsafe fn take<V>(&self) -> V {
        let words = self.0.get();
        if Self::fits::<V>() {
            // SAFETY: the caller's.
            unsafe { words.cast::<V>().read() }
        } else {
            // SAFETY: the caller's.
            unsafe { *words.cast::<Box<V>>().read() }
        }
    }
}
