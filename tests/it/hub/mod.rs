//! The hub: turns, handles, fairness, values that it has to drop, several hubs, its end.

pub(crate) mod drops;
mod ends;
mod fairness;
mod guarded;
mod handle;
pub(crate) mod several;
mod stackless;
pub(crate) mod turn;
