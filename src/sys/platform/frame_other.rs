//! The outermost frame of a green thread, where it is a frame like any other.

/// Calls `f`.
///
/// # Safety
/// `f` may be called with `job`, and does not unwind.
pub(crate) unsafe fn outermost(job: *mut (), f: unsafe extern "C" fn(*mut ())) {
    // SAFETY: the caller guarantees that `f` may be called with `job`.
    unsafe { f(job) };
}
