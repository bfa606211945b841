//! Sleeps and time-outs.

mod future;
mod sleep;
mod timeout;
