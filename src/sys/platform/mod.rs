//! What differs between platforms: one interface, and a file for each.
//!
//! # Sets of thread-locals
//! | item | what it does |
//! |---|---|
//! | [`base`]`::{get, set, native, is_native, plant, carry, call}` | which set of thread-locals is in use |
//! | [`base`]`::{before_fork, after_fork}` | the native set during a fork |
//! | [`glibc`]`::{get, own_id, Glibc}` | makes, begins, ends and frees such sets; the error of `get` says why not |
//!
//! `linux_gnu` has them for Linux with glibc, and a file for each processor; `shared` stands in elsewhere: one set for
//! each OS thread.

#[cfg(all(target_os = "linux", target_env = "gnu", target_arch = "x86_64"))]
mod linux_gnu;
#[cfg(all(target_os = "linux", target_env = "gnu", target_arch = "x86_64"))]
pub(crate) use linux_gnu::{base, glibc};

#[cfg(not(all(target_os = "linux", target_env = "gnu", target_arch = "x86_64")))]
mod shared;
#[cfg(not(all(target_os = "linux", target_env = "gnu", target_arch = "x86_64")))]
pub(crate) use shared::{base, glibc};
