//! The outermost frame of a green thread, where every unwinder stops.
//!
//! Its tables say that there is no caller, and its frame pointer is null. So a backtrace, a debugger and a profiler see
//! what a green thread called and nothing of the hub, and need not cross from one stack to another, for which the tables
//! of the base of a coroutine must read what a switch under way has not yet written.
//!
//! Nothing unwinds through it: panics are caught above, and one that is not aborts.

use std::mem::ManuallyDrop;

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod frame {
    use std::arch::global_asm;

    /// The symbol's name: of this version alone, for there may be others in the program.
    macro_rules! name {
        () => {
            concat!(
                "greenthread_outermost_",
                env!("CARGO_PKG_VERSION_MAJOR"),
                "_",
                env!("CARGO_PKG_VERSION_MINOR"),
                "_",
                env!("CARGO_PKG_VERSION_PATCH")
            )
        };
    }

    global_asm!(
        concat!(".pushsection .text.", name!(), ",\"ax\",@progbits"),
        ".p2align 4",
        concat!(".hidden ", name!()),
        concat!(".globl ", name!()),
        concat!(".type ", name!(), ",@function"),
        concat!(name!(), ":"),
        ".cfi_startproc",
        ".cfi_undefined rip",
        "push rbp",
        ".cfi_def_cfa_offset 16",
        "xor ebp, ebp",
        "call rsi",
        "pop rbp",
        ".cfi_def_cfa_offset 8",
        "ret",
        ".cfi_endproc",
        concat!(".size ", name!(), ", . - ", name!()),
        ".popsection",
    );

    unsafe extern "C-unwind" {
        #[link_name = concat!("greenthread_outermost_", env!("CARGO_PKG_VERSION_MAJOR"), "_",
            env!("CARGO_PKG_VERSION_MINOR"), "_", env!("CARGO_PKG_VERSION_PATCH"))]
        pub(super) fn outermost(job: *mut (), f: unsafe extern "C" fn(*mut ()));
    }
}

/// Elsewhere a frame like any other.
#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
mod frame {
    pub(super) unsafe fn outermost(job: *mut (), f: unsafe extern "C" fn(*mut ())) {
        // SAFETY: the caller's.
        unsafe { f(job) };
    }
}

/// Calls `f`, which does not unwind, from the outermost frame.
#[inline(always)]
pub(super) fn call<F: FnOnce()>(f: F) {
    unsafe extern "C" fn run<F: FnOnce()>(f: *mut ()) {
        // SAFETY: what `call` hands over, once.
        unsafe { f.cast::<F>().read()() };
    }

    let mut f = ManuallyDrop::new(f);
    // SAFETY: `run` is what `f` is for.
    unsafe { frame::outermost((&raw mut f).cast(), run::<F>) };
}
