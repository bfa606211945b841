//! Async code and green threads together.

mod asyncify;
mod block_on;
mod drop;
mod send;
mod stream;
mod task;
mod wakes;
