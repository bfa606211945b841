//! Unwinding that is not a panic: the private payload that ends a dropped generator or greenlet.
//!
//! It goes by `resume_unwind`, so the panic hook says nothing and destructors run as usual.

use std::any::Any;
use std::panic::resume_unwind;

/// The payload of a forced unwind.
struct Forced;

/// The payload as the end of a body that never started.
pub(super) fn forced() -> Box<dyn Any + Send> {
    Box::new(Forced)
}

/// Unwinds the running fiber to its base.
#[cold]
pub(super) fn raise_forced() -> ! {
    resume_unwind(forced())
}

/// Whether a payload is that of a forced unwind.
pub(crate) fn is_forced(payload: &(dyn Any + Send)) -> bool {
    payload.is::<Forced>()
}

/// How often a dying body may catch its unwinding and suspend again before it is leaked.
pub(crate) const TRIES: u32 = 16;

/// What a panic payload says, as std prints it.
pub(crate) fn message(payload: &(dyn Any + Send)) -> &str {
    if let Some(text) = payload.downcast_ref::<&'static str>() {
        text
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text
    } else {
        "Box<dyn Any>"
    }
}
