//! Locks, semaphores, channels, queues, promises, and waits for the first of several.

mod budget;
mod choice;
mod fuzz;
mod once;
mod owned;
mod primitives;
mod promise;
mod queue;
mod queue_model;
mod reentrant;
mod reserve;
mod select;
mod shared_news;
mod turns;
mod waker;
