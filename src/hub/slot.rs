//! How a green thread ended, and the slot for its result: three words in the block, or a box if the result is larger.

use std::any::Any;
use std::cell::UnsafeCell;
use std::mem::{MaybeUninit, align_of, size_of};

/// How a green thread ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// No result is in the slot: the green thread has not ended, or the result was taken.
    Empty,
    /// The value is in the slot.
    Returned,
    /// The panic's payload is in the slot.
    Panicked,
    /// A time-out has unwound the green thread to its base. Only `ended` says so; `in_slot` says `Panicked`.
    TimedOut,
    /// It was killed.
    Killed,
    /// A patched call had told it of a kill, and it returned all the same: the value is in the slot, as a [`Late`].
    Late,
    /// Its hub ended before it did.
    Lost,
}

/// A result that was taken out of the slot.
pub(crate) enum Exit<T> {
    Returned(T),
    Panicked(Box<dyn Any + Send>),
    /// With the [`Late`] value, if there is one.
    Killed(Option<Box<dyn Any + Send>>),
    Lost,
}

/// The value of a green thread that returned although it had been told of a kill.
pub(crate) struct Late<T>(pub(crate) T);

// SAFETY: only `task::body::store_late` makes one, of the value of an isolated green thread. The spawn of that one
// required a value that is `Send`.
unsafe impl<T> Send for Late<T> {}

type Words = [MaybeUninit<u64>; 3];

/// Room for one value. The code that uses the slot knows the value's type.
pub(super) struct Slot(UnsafeCell<Words>);

impl Slot {
    pub(super) fn empty() -> Slot {
        Slot(UnsafeCell::new([MaybeUninit::uninit(); 3]))
    }

    /// Whether a `V` lies in the slot itself; otherwise in a box.
    const fn fits<V>() -> bool {
        size_of::<V>() <= size_of::<Words>() && align_of::<V>() <= align_of::<Words>()
    }

    /// # Safety
    /// The slot is empty, and belongs to the caller alone.
    #[inline]
    pub(super) unsafe fn put<V>(&self, value: V) {
        let words = self.0.get();
        if Self::fits::<V>() {
            // SAFETY: a `V` fits, and the caller guarantees that the slot is empty and belongs to it alone.
            unsafe { words.cast::<V>().write(value) };
        } else {
            // SAFETY: a box, which is one pointer, fits. The caller guarantees that the slot is empty and belongs to it
            // alone.
            unsafe { words.cast::<Box<V>>().write(Box::new(value)) };
        }
    }

    /// # Safety
    /// A `V` lies in the slot, which belongs to the caller alone. From now on the caller treats the slot as empty.
    #[inline]
    pub(super) unsafe fn take<V>(&self) -> V {
        let words = self.0.get();
        if Self::fits::<V>() {
            // SAFETY: the caller guarantees that a `V` lies here, and that it is not read again.
            unsafe { words.cast::<V>().read() }
        } else {
            // SAFETY: the caller guarantees that a `V` was put here, so its box lies in the slot, and that it is not
            // read again.
            unsafe { *words.cast::<Box<V>>().read() }
        }
    }
}
