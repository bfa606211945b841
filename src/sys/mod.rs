//! All use of libc: memory, signals, OS threads, and what glibc keeps for each thread. (Only `monkey` uses libc as
//! well.)

pub(crate) mod attr;
#[cfg(all(target_arch = "x86_64", target_os = "linux", target_env = "gnu"))]
pub(crate) mod base;
#[cfg(all(target_arch = "x86_64", target_os = "linux", target_env = "gnu"))]
pub(crate) mod glibc;
pub(crate) mod ctrl_c;
pub(crate) mod fork;
pub(crate) mod last;
pub(crate) mod inside;
pub(crate) mod mem;
pub(crate) mod plain;
pub(crate) mod poison;
pub(crate) mod poll;
pub(crate) mod report;
pub(crate) mod signal;
pub(crate) mod spin;
pub(crate) mod thread;
#[cfg(all(feature = "monkey", target_os = "linux"))]
pub(crate) mod probe;
#[cfg(all(feature = "monkey", target_os = "linux"))]
pub(crate) mod uring;
