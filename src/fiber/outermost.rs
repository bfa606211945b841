//! The outermost frame of a green thread, where every unwinder stops.
//!
//! Its tables say that it has no caller, and its frame pointer is null. So a backtrace, a debugger and a profiler see
//! what a green thread called, and nothing of the hub. They need not cross from one stack to another: for that, the
//! tables at the base of a coroutine must read what a switch that is under way has not written yet.
//!
//! Nothing unwinds through this frame: panics are caught above it, and one that is not caught aborts.

use std::mem::ManuallyDrop;

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod frame {
    use std::arch::global_asm;

    /// The name of the symbol. It contains the version, because a program may contain several versions of this crate.
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

/// On other systems it is a frame like any other.
#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
mod frame {
    pub(super) unsafe fn outermost(job: *mut (), f: unsafe extern "C" fn(*mut ())) {
        // SAFETY: the caller guarantees that `f` may be called with `job`.
        unsafe { f(job) };
    }
}

/// Calls `f` from the outermost frame. `f` must not unwind.
#[inline(always)]
pub(super) fn call<F: FnOnce()>(f: F) {
    unsafe extern "C" fn run<F: FnOnce()>(f: *mut ()) {
        // SAFETY: `call` passes the address of its `f`, which is read once and not dropped there.
        unsafe { f.cast::<F>().read()() };
    }

    let mut f = ManuallyDrop::new(f);
    // SAFETY: `run` expects the address of an `F`. `f` does not unwind.
    unsafe { frame::outermost((&raw mut f).cast(), run::<F>) };
}
