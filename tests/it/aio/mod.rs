//! The names of asyncio: loops, tasks, waits, transports.

mod cancel;
mod event_loop;
mod group;
mod task;
mod transport;
mod wait;
mod with_async;
