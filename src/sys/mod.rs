//! The room that knows libc: memory, signals, threads, and what glibc keeps for each of them. (`monkey` knows it too.)

pub(crate) mod attr;
#[cfg(all(target_arch = "x86_64", target_os = "linux", target_env = "gnu"))]
pub(crate) mod base;
#[cfg(all(target_arch = "x86_64", target_os = "linux", target_env = "gnu"))]
pub(crate) mod glibc;
#[cfg(all(target_arch = "x86_64", target_os = "linux", target_env = "gnu"))]
mod ids;
pub(crate) mod ctrl_c;
pub(crate) mod mem;
pub(crate) mod poll;
pub(crate) mod signal;
pub(crate) mod thread;
#[cfg(all(feature = "monkey", target_os = "linux"))]
pub(crate) mod uring;
