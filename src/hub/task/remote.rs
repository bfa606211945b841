//! Spawning on the hub of another OS thread: the block and its join are made at once, by the code that spawns, and the
//! owner starts the task when it takes the message.
#![forbid(unsafe_code)]

use std::panic::Location;

use super::block::{Inherited, TaskRef, prepare};
use super::blocks::take_common;
use super::exit::lose;
use super::join::Join;
use super::marks::Marks;
use super::spawn::start;
use super::stackless::start_future;
use crate::hub::contexts::Kind;
use crate::hub::report::{complain, discard};
use crate::hub::scheduler::Hub;
use crate::hub::shared::{self, Shared};
use crate::stack::Stack;

/// Takes a block for a green thread that another OS thread spawns on `shared`. The owner starts it with
/// [`adopt`](RemoteSpawn::adopt).
pub(in crate::hub) fn reserve<T: Send + 'static>(
    shared: &'static Shared,
    place: &'static Location<'static>,
) -> Join<T> {
    let task = take_common();
    prepare(task, shared::next_id(), shared, place, None, Marks::COMMON);
    Join::new(task)
}

/// A reserved green thread on its way to its owner. If this is dropped on the way, the green thread is lost.
pub(in crate::hub) struct RemoteSpawn<F> {
    task: TaskRef,
    body: Option<F>,
    stack_size: Option<usize>,
    locals: Option<Inherited>,
}

impl<F> RemoteSpawn<F> {
    pub(in crate::hub) fn new(
        task: TaskRef,
        body: F,
        stack_size: Option<usize>,
        locals: Option<Inherited>,
    ) -> RemoteSpawn<F> {
        RemoteSpawn {
            task,
            body: Some(body),
            stack_size,
            locals,
        }
    }

    /// Starts the green thread, on its owner's OS thread.
    pub(in crate::hub) fn adopt<T: 'static>(mut self, hub: &'static Hub)
    where
        F: FnOnce() -> T + 'static,
    {
        let size = self.stack_size.unwrap_or_else(|| Kind::Isolated.stack_size());
        let stack = match Stack::new(size) {
            Ok(stack) => stack,
            // The drop of `self` marks the green thread as lost.
            Err(error) => {
                return complain(format_args!(
                    "a green thread that another OS thread has spawned is lost, for there is no stack for it: {error}"
                ));
            }
        };
        if let Some(body) = self.body.take() {
            hub.counters.arrivals.set(hub.counters.arrivals.get() + 1);
            if let Some(make) = self.locals.take() {
                let locals = make();
                self.task.get().with_cold(|cold| cold.locals = Some(locals));
            }
            start(hub, Kind::Isolated, self.task.get(), stack, body);
            std::mem::forget(self);
        }
    }
}

impl<F> Drop for RemoteSpawn<F> {
    fn drop(&mut self) {
        discard(self.body.take());
        discard(self.locals.take());
        lose(self.task.get());
    }
}

impl<F: Future + 'static> RemoteSpawn<F> {
    /// Starts the future as a stackless task, on its owner's OS thread.
    pub(in crate::hub) fn adopt_future(mut self, hub: &'static Hub) {
        if let Some(future) = self.body.take() {
            hub.counters.arrivals.set(hub.counters.arrivals.get() + 1);
            start_future(hub, self.task.get(), future);
            std::mem::forget(self);
        }
    }
}
