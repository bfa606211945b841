//! All integration tests in one binary; what must have a process of its own runs as a child of it.

mod child;
mod crash;
mod crawl;
mod future_block_on;
mod hub_handle;
mod hub_turn;
mod layering;
mod thread_builder;
mod thread_fresh;
mod thread_join;
mod thread_kill;
mod thread_local;
mod thread_many;
mod thread_park;
mod thread_scope;
mod tidy;
mod time_sleep;
mod time_timeout;
