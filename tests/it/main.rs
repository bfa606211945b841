//! All integration tests in one binary; what must have a process of its own runs as a child of it.

mod aio;
#[cfg(not(lean))]
mod examples;
mod future;
mod greenlet;
mod hub;
mod io;
mod net;
mod process;
mod repo;
mod server;
mod support;
mod sync;
mod thread;
mod threadpool;
mod time;
