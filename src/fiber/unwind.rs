//! What generators and greenlets share about raising in a body that is to end.
//!
//! It goes by `resume_unwind`, so the panic hook says nothing and destructors run as usual.

use std::any::Any;

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
