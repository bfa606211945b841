//! Spawning a green thread on this OS thread's hub.
#![forbid(unsafe_code)]

use std::io;
use std::panic::Location;
use std::rc::Rc;
use std::sync::Arc;

use super::block::{Inherited, LocalSet, Task, prepare};
use super::body::install_body;
use super::join::Join;
use super::marks::State;
use crate::hub::contexts::{Contexts, Kind};
use crate::hub::observers::Event;
use crate::hub::scheduler::Hub;
use crate::stack::Stack;

/// What the caller of a spawn may choose.
#[derive(Default)]
pub(crate) struct Options {
    pub(crate) name: Option<Arc<Box<str>>>,
    /// `None`: the default size of the green thread's [`Kind`].
    pub(crate) stack_size: Option<usize>,
    /// `None`: what it inherits from the running task.
    pub(crate) locals: Option<Rc<dyn LocalSet>>,
    /// It inherits nothing.
    pub(crate) is_bare: bool,
}

impl Options {
    /// Only a stack size.
    pub(crate) fn of_size(bytes: usize) -> Options {
        Options {
            stack_size: Some(bytes),
            ..Options::default()
        }
    }
}

impl Hub {
    /// What a task inherits that the running task spawns.
    #[inline]
    pub(in crate::hub) fn inherited(&self) -> Option<Inherited> {
        let task = self.running();
        if !task.has_cold() {
            return None;
        }
        // The set is copied outside `with_cold`, because the clones are code of the user.
        task.with_cold(|cold| cold.locals.clone())?.inherited()
    }
}

/// Makes a green thread of this hub and queues it.
#[inline]
pub(crate) fn spawn<F, T>(
    hub: &'static Hub,
    kind: Kind,
    options: Option<Options>,
    place: &'static Location<'static>,
    body: F,
) -> io::Result<Join<T>>
where
    F: FnOnce() -> T + 'static,
    T: 'static,
{
    let Options {
        name,
        stack_size: size,
        locals,
        is_bare,
    } = options.unwrap_or_default();
    // First, because the clones are code of the user, which may panic.
    let locals = match locals {
        None if !is_bare => hub.inherited().map(|make| make()),
        locals => locals,
    };
    // Before the block is taken: if there is no memory for a stack, there is nothing to give back.
    let stack = Stack::new(size.unwrap_or_else(|| kind.stack_size()))?;
    let task = hub.blocks.take();
    prepare(task, hub.counters.next_id(), hub.me.shared, place, name, 0);
    if locals.is_some() {
        task.with_cold(|cold| cold.locals = locals);
    }
    start(hub, kind, task, stack, body);
    Ok(Join::new(task))
}

#[inline]
pub(super) fn start<F, T>(hub: &'static Hub, kind: Kind, task: &'static Task, stack: Stack, body: F)
where
    F: FnOnce() -> T + 'static,
    T: 'static,
{
    task.context.set(Contexts::for_spawn(hub.context(), kind));
    install_body(task, stack, body);
    enqueue(hub, task);
}

#[inline]
pub(super) fn enqueue(hub: &'static Hub, task: &'static Task) {
    task.state.set(State::New);
    hub.counters.live.set(hub.counters.live.get() + 1);
    hub.emit(|| Event::Spawn(task.id()));
    hub.queue.ready.push(task);
}
