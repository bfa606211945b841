//! [`Stack`], and the warmest free one of each kind. The labels of the invariants are those of [`stack`](super).

use std::cell::Cell;
use std::io;
use std::marker::PhantomData;

use corosensei::stack::StackPointer;

use super::size::{PAGE, end, stride};
use super::{GUARD_SIZE, pool};

/// A slot of address space to run on.
pub(crate) struct Stack {
    pub(super) base: usize,
    pub(super) limit: usize,
    _not_send: PhantomData<*const ()>,
}

// SAFETY: STACK-2. The limit is page-aligned, the base is aligned, and at least `size::LEAST` bytes lie between base
// and guard.
unsafe impl corosensei::stack::Stack for Stack {
    #[inline]
    fn base(&self) -> StackPointer {
        // SAFETY: the high end of a mapping is not null.
        unsafe { StackPointer::new_unchecked(self.base) }
    }

    #[inline]
    fn limit(&self) -> StackPointer {
        // SAFETY: the low end of a mapping is not null: the kernel maps nothing at 0.
        unsafe { StackPointer::new_unchecked(self.limit) }
    }
}

/// The warmest free stack of its kind: a spawn takes it, and the end of a green thread leaves it.
pub(super) struct Warmest {
    pub(super) base: Cell<usize>,
    slot: Cell<usize>,
}

thread_local! {
    /// One for small slots (local green threads), one for large slots (isolated ones).
    pub(super) static WARMEST: [Warmest; 2] = const { [Warmest::none(), Warmest::none()] };
}

impl Warmest {
    const fn none() -> Warmest {
        Warmest {
            base: Cell::new(0),
            slot: Cell::new(0),
        }
    }

    /// Which of the two is for slots of this size.
    #[inline(always)]
    const fn index(slot: usize) -> usize {
        (slot > 512 * 1024) as usize
    }
}

impl Stack {
    /// A stack of `size` usable bytes, rounded up.
    ///
    /// # Errors
    /// A size of zero or of more than 64 GiB; no memory for it.
    #[inline]
    pub(crate) fn new(size: usize) -> io::Result<Stack> {
        let slot = size.wrapping_add(GUARD_SIZE);
        // Three sources, the fastest first: the warmest stack, then the pool's warm ones, then any that `take` can get.
        let base = WARMEST.with(|both| {
            let warmest = &both[Warmest::index(slot)];
            if warmest.slot.get() == slot {
                warmest.base.replace(0)
            } else {
                0
            }
        });
        let base = if base == 0 { pool::take_warm(size) } else { base };
        if base != 0 {
            return Ok(Stack::at(base, slot));
        }
        pool::take(size).map(|(base, slot)| Stack::at(base, slot))
    }

    /// The high end of the stack.
    #[inline]
    pub(crate) fn top(&self) -> *const u8 {
        self.base as *const u8
    }

    #[inline]
    fn at(base: usize, slot: usize) -> Stack {
        Stack {
            base,
            limit: end(base) - stride(slot),
            _not_send: PhantomData,
        }
    }
}

impl Drop for Stack {
    #[inline]
    fn drop(&mut self) {
        let slot = end(self.base) - self.limit - PAGE;
        let (before, its_slot) = WARMEST.with(|both| {
            let warmest = &both[Warmest::index(slot)];
            (warmest.base.replace(self.base), warmest.slot.replace(slot))
        });
        if before != 0 {
            pool::give(before, its_slot);
        }
    }
}

/// Moves the warmest stacks to the pool.
pub(crate) fn flush() {
    for (base, slot) in take_warmest() {
        pool::give(base, slot);
    }
}

pub(super) fn take_warmest() -> impl Iterator<Item = (usize, usize)> {
    let both = WARMEST.with(|both| both.each_ref().map(|one| (one.base.replace(0), one.slot.get())));
    both.into_iter().filter(|(base, _)| *base != 0)
}
