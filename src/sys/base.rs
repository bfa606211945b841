//! The fs base: which set of thread-locals the processor uses.
//!
//! # Invariants
//! - **B1** A base is the address of a thread control block of this OS thread: the native one, or one that
//!   [`glibc`](super::glibc) made. Its first and third word are its own address.
//! - **B2** A function that changes the base uses no thread-local and is never inlined: the compiler takes the base for a
//!   constant, and may read it as early as the function begins.

use std::arch::{asm, global_asm};
use std::cell::Cell;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

const UNKNOWN: u8 = 0;
const INSTRUCTION: u8 = 1;
const CALL: u8 = 2;

/// How the base is changed here.
static HOW: AtomicU8 = AtomicU8::new(UNKNOWN);

/// The name of the thread-local that has the native base, in a context of another; 0 in the native one.
///
/// It is made by hand, so that it lies at a fixed place from the base in libraries too: a look at it is then a load and
/// no call, and leaves all registers alone.
macro_rules! native_symbol {
    () => {
        concat!(
            "greenthread_native_base_",
            env!("CARGO_PKG_VERSION_MAJOR"),
            "_",
            env!("CARGO_PKG_VERSION_MINOR"),
            "_",
            env!("CARGO_PKG_VERSION_PATCH")
        )
    };
}

global_asm!(
    concat!(".pushsection .tbss.", native_symbol!(), ",\"awT\",@nobits"),
    concat!(".hidden ", native_symbol!()),
    concat!(".globl ", native_symbol!()),
    concat!(".type ", native_symbol!(), ",@object"),
    concat!(".size ", native_symbol!(), ", 8"),
    ".p2align 3",
    concat!(native_symbol!(), ":"),
    ".zero 8",
    ".popsection",
);

thread_local! {
    /// Of the native context: the base that a fork under way is to come back to.
    static FORKING: Cell<usize> = const { Cell::new(0) };
}

/// How far below a base `malloc` keeps its words; 0: no more of them. They are the OS thread's, and travel with whoever
/// runs: its arenas count the threads that use them, of which there is one.
static MALLOC: [AtomicUsize; 4] = [const { AtomicUsize::new(0) }; 4];

/// Sets what travels.
pub(crate) fn set_malloc(below: [usize; 4]) {
    for (place, below) in MALLOC.iter().zip(below) {
        place.store(below, Ordering::Relaxed);
    }
}

/// Takes `malloc`'s words along from one base to another.
///
/// # Safety
/// B1, for both.
#[inline(always)]
pub(crate) unsafe fn carry(from: usize, to: usize) {
    let [one, two, three, _] = &MALLOC;
    let (one, two) = (one.load(Ordering::Relaxed), two.load(Ordering::Relaxed));
    if two == 0 || three.load(Ordering::Relaxed) != 0 {
        // SAFETY: the caller's.
        return unsafe { carry_all(from, to) };
    }
    // As glibc has it: two.
    // SAFETY: words of libc's image in both blocks.
    unsafe {
        *((to - one) as *mut usize) = *((from - one) as *const usize);
        *((to - two) as *mut usize) = *((from - two) as *const usize);
    }
}

/// # Safety
/// As for [`carry`].
#[cold]
#[inline(never)]
unsafe fn carry_all(from: usize, to: usize) {
    let places = MALLOC.iter().map(|place| place.load(Ordering::Relaxed));
    for below in places.take_while(|below| *below != 0) {
        // SAFETY: a word of libc's image in both blocks.
        unsafe { *((to - below) as *mut usize) = *((from - below) as *const usize) };
    }
}

/// The native base, if another is in use; else 0.
#[inline(always)]
pub(crate) fn native() -> usize {
    let native: usize;
    // SAFETY: reads the thread-local of the block that runs, wherever the linker has put it.
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

/// Whether the native base is in use.
#[cfg(feature = "monkey")]
#[inline(always)]
pub(crate) fn is_native() -> bool {
    native() == 0
}

/// Says in a fresh block which base is the native one.
pub(crate) fn plant(native: usize) {
    // SAFETY: writes the same thread-local.
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
        unsafe {
            carry(base, native);
            set(native);
        }
        swap_forking(base);
    }
}

/// The end of [`before_fork`], in the parent and in the child.
#[inline(never)]
pub(crate) fn after_fork() {
    let base = swap_forking(0);
    if base != 0 {
        // SAFETY: as above: the base that the fork was called with.
        unsafe {
            carry(get(), base);
            set(base);
        }
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
        carry(back, base);
        set(base);
        f(argument);
        carry(base, back);
        set(back);
    }
}

/// Calls `f` with the native base, for what libc does with the OS thread's own block.
pub(crate) fn natively<R>(f: impl FnOnce() -> R) -> R {
    struct Job<F, R>(Option<F>, Option<R>);

    /// Not to be inlined: B2.
    #[inline(never)]
    unsafe fn run<F: FnOnce() -> R, R>(job: *mut ()) {
        // SAFETY: what `natively` hands over.
        let job = unsafe { &mut *job.cast::<Job<F, R>>() };
        job.1 = job.0.take().map(|f| f());
    }

    fn job<F: FnOnce() -> R, R>(f: F) -> (Job<F, R>, unsafe fn(*mut ())) {
        (Job(Some(f), None), run::<F, R>)
    }

    let native = native();
    if native == 0 {
        return f();
    }
    let (mut job, run) = job(f);
    // SAFETY: B1: this OS thread's native base; `f` is a call of libc's, which does not unwind.
    unsafe { call(native, get(), run, (&raw mut job).cast()) };
    job.1.unwrap_or_else(|| unreachable!("it ran"))
}
