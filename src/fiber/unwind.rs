//! What generators and greenlets share about ending a body by raising a payload in it.
//!
//! The payload is raised by `resume_unwind`, so the panic hook does not report it, and destructors run as usual.

use std::any::Any;

/// How often a body that must end may catch the unwinding and suspend again, before it is leaked.
pub(crate) const TRIES: u32 = 16;

/// The text of a panic payload, as std prints it.
pub(crate) fn message(payload: &(dyn Any + Send)) -> &str {
    if let Some(text) = payload.downcast_ref::<&'static str>() {
        text
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text
    } else {
        "Box<dyn Any>"
    }
}
