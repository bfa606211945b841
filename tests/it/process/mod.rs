//! Child processes, pools of processes, signals.

mod communicate;
#[cfg(feature = "process-pool")]
mod pool;
mod signal;
pub(crate) mod wait;
