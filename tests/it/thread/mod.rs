//! Green threads: spawn, join, kill, scopes, pools, locals, memory.

pub(crate) mod builder;
mod group;
// musl lets no program make sets of thread-locals.
#[cfg(not(target_env = "musl"))]
pub(crate) mod isolation;
#[cfg(not(target_env = "musl"))]
mod isolation_ends;
mod join;
mod join_error;
mod join_set;
mod kill;
mod local;
mod local_std;
mod many;
pub(crate) mod memory;
mod nursery;
pub(crate) mod overflow;
mod park;
mod pool;
mod scope;
mod token;
pub(crate) mod scope_handle;
#[cfg(target_env = "musl")]
mod shared;
#[cfg(not(target_env = "musl"))]
// It has a `dlsym` of its own, which the address sanitizer would call before it is ready.
#[cfg(not(feature = "sanitizer"))]
pub(crate) mod unknown_glibc;
