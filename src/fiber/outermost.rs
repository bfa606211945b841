//! The outermost frame of a green thread, where every unwinder stops.
//!
//! Its tables say that it has no caller, and its frame pointer is null ([`frame`]; where the platform has no such frame,
//! it is one like any other). So a backtrace, a debugger and a profiler see
//! what a green thread called, and nothing of the hub. They need not cross from one stack to another: for that, the
//! tables at the base of a coroutine must read what a switch that is under way has not written yet.
//!
//! Nothing unwinds through this frame: panics are caught above it, and one that is not caught aborts.

use std::mem::ManuallyDrop;

use crate::sys::frame;

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
