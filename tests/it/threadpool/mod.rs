//! Pools of OS threads.

mod future;
mod pool;
