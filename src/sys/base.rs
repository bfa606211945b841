//! The fs base: which set of thread-locals the processor uses.
//!
//! # Invariants
//! - **B1** A base is the address of a thread control block of this OS thread: the native one, or one that
//!   [`glibc`](super::glibc) made. Its first and third word are its own address.
//! - **B2** A function that changes the base uses no thread-local and is never inlined: the compiler takes the base for a
//!   constant, and may read it as early as the function begins.

use std::arch::asm;
use std::cell::Cell;
use std::sync::atomic::{AtomicU8, Ordering};

const UNKNOWN: u8 = 0;
const INSTRUCTION: u8 = 1;
const CALL: u8 = 2;

/// How the base is changed here.
static HOW: AtomicU8 = AtomicU8::new(UNKNOWN);

thread_local! {
    /// The native base, in a context of another; 0 in the native one.
    static NATIVE: Cell<usize> = const { Cell::new(0) };
    /// Of the native context: the base that a fork under way is to come back to.
    static FORKING: Cell<usize> = const { Cell::new(0) };
}

/// The native base, if another is in use; else 0.
#[inline(never)]
pub(crate) fn native() -> usize {
    NATIVE.get()
}

/// Whether the native base is in use.
#[cfg(feature = "monkey")]
#[inline(always)]
pub(crate) fn is_native() -> bool {
    NATIVE.get() == 0
}

/// Says in a fresh block which base is the native one.
#[inline(never)]
pub(crate) fn plant(native: usize) {
    NATIVE.set(native);
}

#[inline(never)]
fn swap_forking(base: usize) -> usize {
    FORKING.replace(base)
}

/// Goes to the native base for the time of a fork, in which glibc sets right the block of the only OS thread of the
/// child; and the same block must be the native one.
#[inline(never)]
pub(crate) fn before_fork() {
    let native = native();
    if native != 0 {
        let base = get();
        // SAFETY: B1; this function uses no thread-local itself (B2).
        unsafe { set(native) };
        swap_forking(base);
    }
}

/// The end of [`before_fork`], in the parent and in the child.
#[inline(never)]
pub(crate) fn after_fork() {
    let base = swap_forking(0);
    if base != 0 {
        // SAFETY: as above: the base that the fork was called with.
        unsafe { set(base) };
    }
}

/// The base now.
#[inline(always)]
pub(crate) fn get() -> usize {
    let base: usize;
    // SAFETY: reads the block's pointer to itself (B1).
    unsafe { asm!("mov {}, fs:0", out(reg) base, options(nostack, readonly, preserves_flags)) };
    base
}

/// Changes the base.
///
/// # Safety
/// B1 and B2.
#[inline(always)]
pub(crate) unsafe fn set(base: usize) {
    if HOW.load(Ordering::Relaxed) == INSTRUCTION {
        // SAFETY: the kernel allows the instruction; the rest is the caller's.
        unsafe { asm!("wrfsbase {}", in(reg) base, options(nostack, preserves_flags)) };
    } else {
        // SAFETY: the caller's.
        unsafe { set_by_call(base) };
    }
}

#[cold]
unsafe fn set_by_call(base: usize) {
    const ARCH_SET_FS: usize = 0x1002;
    // SAFETY: `arch_prctl`, which touches nothing else; the libc wrapper would write errno of one block or the other.
    unsafe {
        asm!("syscall", inlateout("rax") libc::SYS_arch_prctl => _, in("rdi") ARCH_SET_FS, in("rsi") base,
            out("rcx") _, out("r11") _, options(nostack));
    }
}

/// Finds out how to change it; before the first [`set`] that matters for speed.
pub(crate) fn prepare() {
    const AT_HWCAP2: libc::c_ulong = 26;
    const FSGSBASE: libc::c_ulong = 2;
    // SAFETY: asks a number.
    let allowed = unsafe { libc::getauxval(AT_HWCAP2) } & FSGSBASE != 0;
    let how = if allowed && !super::mem::under_valgrind() {
        INSTRUCTION
    } else {
        CALL
    };
    HOW.store(how, Ordering::Relaxed);
}

/// Calls `f` with another base and comes back to this one.
///
/// # Safety
/// `base` and `back` as B1 says, `back` being the base now; `f` does not unwind, and returns with the base that it got.
#[inline(never)]
pub(crate) unsafe fn call(base: usize, back: usize, f: unsafe fn(*mut ()), argument: *mut ()) {
    // SAFETY: the caller's; this function uses no thread-local (B2), and what `f` is the compiler does not know.
    unsafe {
        set(base);
        f(argument);
        set(back);
    }
}
