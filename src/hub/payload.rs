//! What unwinds a stack for a kill or a time-out.
#![forbid(unsafe_code)]

use std::any::Any;

/// What a report says of a green thread that a time-out has unwound to its base.
pub(crate) const OUTSIDE: &str = "was ended by a time-out that expired outside of its Timeout::run";

struct Kill;
struct Expired(u64);

pub(super) fn killed() -> Box<dyn Any + Send> {
    Box::new(Kill)
}

/// Whether a payload is that of a kill.
pub(crate) fn is_kill(payload: &(dyn Any + Send)) -> bool {
    payload.is::<Kill>()
}

/// Whether a payload is that of guard `id`.
pub(crate) fn is_expired(payload: &(dyn Any + Send), id: u64) -> bool {
    payload.downcast_ref::<Expired>().is_some_and(|expired| expired.0 == id)
}

/// Whether a payload is that of a kill or a time-out, not of a panic.
pub(crate) fn is_ours(payload: &(dyn Any + Send)) -> bool {
    is_kill(payload) || payload.is::<Expired>()
}

/// The payload of guard `id`.
pub(super) fn expired(id: u64) -> Box<dyn Any + Send> {
    Box::new(Expired(id))
}
