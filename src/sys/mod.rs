//! All use of libc: memory, signals, OS threads, and what glibc keeps for each thread. (Only `monkey` uses libc as
//! well.)

pub(crate) mod attr;
pub(crate) mod ctrl_c;
pub(crate) mod fork;
pub(crate) mod last;
pub(crate) mod inside;
pub(crate) mod mem;
pub(crate) mod plain;
mod platform;
pub(crate) mod poison;
pub(crate) mod poll;
pub(crate) mod report;
pub(crate) mod signal;
pub(crate) mod spin;
pub(crate) mod thread;
#[cfg(all(feature = "monkey", target_os = "linux"))]
pub(crate) mod uring;

pub(crate) use platform::{base, glibc};

/// Has `f` called when the process exits normally. `f` must not unwind.
pub(crate) fn at_exit(f: fn()) {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static CALLED: AtomicUsize = AtomicUsize::new(0);
    extern "C" fn call() {
        let f = CALLED.load(Ordering::Acquire);
        // SAFETY: `at_exit` stored a `fn()` before it registered this function.
        let f: fn() = unsafe { std::mem::transmute::<usize, fn()>(f) };
        f();
    }
    CALLED.store(f as usize, Ordering::Release);
    // SAFETY: a function of the right type, which lives as long as the program.
    unsafe { libc::atexit(call) };
}
