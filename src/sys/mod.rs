//! The only room that knows libc: memory, signals, descriptors and threads of the system.

pub(crate) mod mem;
pub(crate) mod signal;
pub(crate) mod thread;
