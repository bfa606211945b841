//! aarch64: the instructions that read and change the base, and the header of a thread control block.
//!
//! The base is the register `tpidr_el0`, which a program may read and write. `struct pthread` lies below it and ends at
//! it. The header, of two words, begins at it, and the thread-locals lie above the header. The canary and the pointer
//! guard are variables of the process, so no header has a copy of them.
//!
//! The compiler takes a read of `tpidr_el0` for a constant, and moves it over calls (llvm-project#98479). BASE-2 is
//! therefore of more weight here than on x86-64; tests/long/base.sh looks at the machine code.

use std::arch::asm;

use super::{native_symbol, word};

/// Where the pointer to the table of modules is, from the base on.
pub(super) const DTV: isize = 0;
/// Whether libc's `fork` sets `errno` through a base that it has read before the handlers changed it, so that the error
/// would be the native context's.
pub(super) const FORK_KEEPS_BASE: bool = true;
/// The size of the header.
const HEADER: isize = 16;

/// The native base if another base is in use, else 0.
#[inline(always)]
pub(crate) fn native() -> usize {
    let native: usize;
    // SAFETY: reads a thread-local of the running block, at the offset that the linker stored.
    unsafe {
        asm!(
            concat!("adrp {0}, :gottprel:", native_symbol!()),
            concat!("ldr {0}, [{0}, :gottprel_lo12:", native_symbol!(), "]"),
            "mrs {1}, tpidr_el0",
            "ldr {0}, [{1}, {0}]",
            out(reg) native,
            out(reg) _,
            options(nostack, readonly, preserves_flags),
        );
    }
    native
}

/// Tells a fresh context, from inside, which base is the native one.
pub(crate) fn plant(native: usize) {
    // SAFETY: writes the thread-local that `native` reads, in the running block.
    unsafe {
        asm!(
            concat!("adrp {0}, :gottprel:", native_symbol!()),
            concat!("ldr {0}, [{0}, :gottprel_lo12:", native_symbol!(), "]"),
            "mrs {1}, tpidr_el0",
            "str {2}, [{1}, {0}]",
            out(reg) _,
            out(reg) _,
            in(reg) native,
            options(nostack, preserves_flags),
        );
    }
}

/// The base that is in use.
#[inline(always)]
pub(crate) fn get() -> usize {
    let base: usize;
    // SAFETY: reads a register. Not `pure`: a change of the base is in between two reads, and they may not be merged.
    unsafe { asm!("mrs {}, tpidr_el0", out(reg) base, options(nostack, readonly, preserves_flags)) };
    base
}

/// Changes the base.
///
/// # Safety
/// `base` satisfies BASE-1, and the calling function BASE-2.
#[inline(always)]
pub(crate) unsafe fn set(base: usize) {
    // SAFETY: a program may write this register. The caller guarantees that `base` satisfies BASE-1.
    unsafe { asm!("msr tpidr_el0, {}", in(reg) base, options(nostack, preserves_flags)) };
}

/// There is nothing to find out: each processor and each kernel allows the instruction.
pub(crate) fn prepare() {}

/// Where `struct pthread`, of this size, begins, from the base on.
pub(super) fn thread_at(size: usize) -> isize {
    -size.cast_signed()
}

/// Whether `len` bytes at this offset from the base may be static images of thread-locals, which take `area` bytes with
/// the header.
pub(super) fn is_static(offset: isize, len: usize, area: usize) -> bool {
    offset >= HEADER && offset.unsigned_abs() <= area && len <= area - offset.unsigned_abs()
}

/// Where the area of static images ends, from the base on, if its last image ends at `last`.
pub(super) fn images_end(last: isize) -> isize {
    last
}

/// The part of an area of this size, with images up to `end`, that libraries get which are loaded later.
///
/// All code here finds its thread-locals by descriptors, so glibc puts those of any library there if there is room. It
/// lays the image in the blocks that it knows, and those of this crate are not among them. Memory that was never
/// written would hold anything; cleared, it is right for all thread-locals that begin as 0.
pub(super) fn spare(end: isize, area: usize) -> (isize, usize) {
    (end, (area.cast_signed() - end).max(0).unsigned_abs())
}

/// Whether the header of a native block is as this file expects.
///
/// # Safety
/// BASE-1: `native` is the native base of this OS thread.
pub(super) unsafe fn is_header_known(native: usize, thread: isize) -> bool {
    // The header does not name its own block. So look at the table of modules to which it points: before its first
    // entry stands its length.
    // SAFETY: the caller guarantees that this is the header of this OS thread's block.
    let table = unsafe { word(native.wrapping_add_signed(DTV)) };
    table != 0 && table % align_of::<usize>() == 0 && thread < 0 && thread % 16 == 0
}

/// Fills the header of a new block with what it shares with the native one: nothing. `_dl_allocate_tls` has set the
/// pointer to the table of modules.
///
/// # Safety
/// `block` was just made by `_dl_allocate_tls`, and BASE-1: `native` is the native base of this OS thread.
pub(super) unsafe fn lay_header(_block: usize, _native: usize, _thread: isize) {}
