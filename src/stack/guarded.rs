//! [`Stack`], the warmest free one of each kind, and the way to the pool of an OS thread. The labels of the invariants
//! are those of [`stack`](super).

use std::cell::{Cell, RefCell};
use std::io;
use std::marker::PhantomData;
use std::ptr::NonNull;

use corosensei::stack::StackPointer;

use super::GUARD_SIZE;
use super::pool::{self, Pool};
use super::size::{PAGE, end, stride};
use crate::sys::mem;

/// A slot of address space to run on.
pub(crate) struct Stack {
    pub(super) base: usize,
    pub(super) limit: usize,
    _not_send: PhantomData<*const ()>,
}

// SAFETY: STACK-2. The limit is page-aligned, the base is aligned, and at least `size::LEAST` bytes lie between base
// and guard. The pool keeps a slot that is in use mapped and as it is (STACK-1, POOL-1).
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
            give(before, its_slot);
        }
    }
}

/// Moves the warmest stacks to the pool.
pub(crate) fn flush() {
    for (base, slot) in take_warmest() {
        give(base, slot);
    }
}

/// Gives a free stack, which was a warmest one, to the pool.
fn give(base: usize, slot: usize) {
    if pool::give(base, slot).is_none() {
        // The OS thread is ending. The slab has outlived the pool, because this stack was in use then (POOL-1). It is
        // leaked, but its memory is given back.
        // SAFETY: STACK-1: the mapping stays. The stack is free, so no code runs on it and nothing in it is needed.
        unsafe { mem::discard(end(base) - stride(slot) + GUARD_SIZE, stride(slot) - GUARD_SIZE) };
    }
}

pub(super) fn take_warmest() -> impl Iterator<Item = (usize, usize)> {
    let both = WARMEST.with(|both| both.each_ref().map(|one| (one.base.replace(0), one.slot.get())));
    both.into_iter().filter(|(base, _)| *base != 0)
}

thread_local! {
    static POOL: RefCell<Pool> = const { RefCell::new(Pool::NEW) };
    /// In a context other than the native one: the native context's pool.
    static NATIVE: Cell<Option<Home>> = const { Cell::new(None) };
}

/// The pool of an OS thread, as its other contexts refer to it.
#[derive(Clone, Copy)]
pub(crate) struct Home(NonNull<RefCell<Pool>>);

/// The pool of this OS thread. `None` if it has ended.
pub(crate) fn home() -> Option<Home> {
    NATIVE
        .get()
        .or_else(|| POOL.try_with(|pool| Home(NonNull::from(pool))).ok())
}

/// Makes the running context use the pool of the native one.
///
/// # Safety
/// `home` belongs to this OS thread. The native thread-locals end only after the last code of this context has run.
pub(crate) unsafe fn plant(home: Option<Home>) {
    NATIVE.set(home);
}

/// Calls `f` with the pool of this OS thread. `None` if it has ended.
pub(super) fn with<R>(f: impl FnOnce(&RefCell<Pool>) -> R) -> Option<R> {
    match NATIVE.get() {
        // SAFETY: the caller of `plant` guarantees that the native thread-locals outlive the code of this context.
        Some(home) => Some(f(unsafe { home.0.as_ref() })),
        None => POOL.try_with(f).ok(),
    }
}
