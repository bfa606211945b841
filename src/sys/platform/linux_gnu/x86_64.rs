//! x86-64: the instructions that read and change the base, and the header of a thread control block.
//!
//! The base is that of the segment register `fs`. The thread-locals lie below it, and `struct pthread` begins at it.
//! Its first and third word are the base itself.

use std::arch::asm;
use std::ffi::c_int;
use std::sync::atomic::{AtomicU8, Ordering};

use super::{native_symbol, set_word, word};

/// Where the pointer to the table of modules is, from the base on.
pub(super) const DTV: isize = 8;
/// Whether libc's `fork` sets `errno` through a base that it has read before the handlers changed it.
pub(super) const FORK_KEEPS_BASE: bool = false;
const SELF: usize = 0;
const SELF_TOO: usize = 16;
const MULTIPLE_THREADS: usize = 0x18;
const CANARY: usize = 0x28;
const POINTER_GUARD: usize = 0x30;

const UNKNOWN: u8 = 0;
const INSTRUCTION: u8 = 1;
const CALL: u8 = 2;

/// How the base is changed here.
static HOW: AtomicU8 = AtomicU8::new(UNKNOWN);

/// The native base if another base is in use, else 0.
#[inline(always)]
pub(crate) fn native() -> usize {
    let native: usize;
    // SAFETY: reads a thread-local of the running block, at the offset that the linker stored.
    unsafe {
        asm!(
            concat!("mov {0}, qword ptr [rip + ", native_symbol!(), "@GOTTPOFF]"),
            "mov {0}, qword ptr fs:[{0}]",
            out(reg) native,
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
            concat!("mov {0}, qword ptr [rip + ", native_symbol!(), "@GOTTPOFF]"),
            "mov qword ptr fs:[{0}], {1}",
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
    // SAFETY: BASE-1 and the head of this file: the first word of a block is the block's own address.
    unsafe { asm!("mov {}, fs:0", out(reg) base, options(nostack, readonly, preserves_flags)) };
    base
}

/// Changes the base.
///
/// # Safety
/// `base` satisfies BASE-1, and the calling function BASE-2.
#[inline(always)]
pub(crate) unsafe fn set(base: usize) {
    if HOW.load(Ordering::Relaxed) == INSTRUCTION {
        // SAFETY: the kernel allows the instruction. The caller guarantees that `base` satisfies BASE-1.
        unsafe { asm!("wrfsbase {}", in(reg) base, options(nostack, preserves_flags)) };
    } else {
        // SAFETY: the caller guarantees that `base` satisfies BASE-1.
        unsafe { set_by_call(base) };
    }
}

#[cold]
unsafe fn set_by_call(base: usize) {
    const ARCH_SET_FS: usize = 0x1002;
    // SAFETY: `arch_prctl` changes nothing but the base. libc's wrapper would write `errno`, in one block or the other.
    unsafe {
        asm!("syscall", inlateout("rax") libc::SYS_arch_prctl => _, in("rdi") ARCH_SET_FS, in("rsi") base,
            out("rcx") _, out("r11") _, options(nostack));
    }
}

/// Finds out how the base can be changed. Until then [`set`] uses the slow system call.
pub(crate) fn prepare() {
    const AT_HWCAP2: libc::c_ulong = 26;
    const FSGSBASE: libc::c_ulong = 2;
    // SAFETY: reads a number from the auxiliary vector.
    let allowed = unsafe { libc::getauxval(AT_HWCAP2) } & FSGSBASE != 0;
    // valgrind does not know the instruction.
    let how = if allowed && !crate::sys::mem::under_valgrind() {
        INSTRUCTION
    } else {
        CALL
    };
    HOW.store(how, Ordering::Relaxed);
}

/// Where `struct pthread`, of this size, begins, from the base on.
pub(super) fn thread_at(_size: usize) -> isize {
    0
}

/// Whether `len` bytes at this offset from the base may be static images of thread-locals, which take `area` bytes.
pub(super) fn is_static(offset: isize, len: usize, area: usize) -> bool {
    offset < 0 && len <= offset.unsigned_abs() && offset.unsigned_abs() <= area
}

/// Where the area of static images ends, from the base on, if its last image ends at `last`.
pub(super) fn images_end(_last: isize) -> isize {
    0
}

/// The part of an area of this size, with images up to `end`, that libraries get which are loaded later: none here
/// unless they are built for it (initial-exec).
pub(super) fn spare(_end: isize, _area: usize) -> (isize, usize) {
    (0, 0)
}

/// Whether the header of a native block is as this file expects.
///
/// # Safety
/// BASE-1: `native` is the native base of this OS thread.
pub(super) unsafe fn is_header_known(native: usize, _thread: isize) -> bool {
    // SAFETY: the caller guarantees that these are words of the header of this OS thread's block.
    unsafe { word(native + SELF) == native && word(native + SELF_TOO) == native }
}

/// Fills the header of a new block with what it shares with the native one.
///
/// # Safety
/// `block` was just made by `_dl_allocate_tls`, and BASE-1: `native` is the native base of this OS thread.
pub(super) unsafe fn lay_header(block: usize, native: usize, _thread: isize) {
    // SAFETY: the caller guarantees that these are words of the headers of a new block, which has no other user, and of
    // the native block.
    unsafe {
        // Compiled code and glibc expect the block's own address in both words.
        set_word(block + SELF, block);
        set_word(block + SELF_TOO, block);
        // A stack may hold a canary, and libc mangled pointers, that were made in the native context.
        for at in [CANARY, POINTER_GUARD] {
            set_word(block + at, word(native + at));
        }
        // With 0, malloc would leave out its lock instructions, although there may be other OS threads.
        *((block + MULTIPLE_THREADS) as *mut c_int) = 1;
        *((native + MULTIPLE_THREADS) as *mut c_int) = 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_over_an_end_of_the_images_is_not_static() {
        for (offset, len, is) in [
            (-64, 32, true),
            (-32, 32, true),
            (-31, 32, false),
            (-65, 32, false),
            (0, 0, false),
        ] {
            assert_eq!(is_static(offset, len, 64), is, "{offset}");
        }
    }
}
