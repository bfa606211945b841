//! The contexts of a hub: which code runs with which thread-locals.
//!
//! The hub itself runs in the native context. A green thread is resumed in its own context, and a callback runs in the
//! context of the code that asked for it. `turn.rs` changes from one context to another.
#![forbid(unsafe_code)]

use std::cell::Cell;

use super::task::block::{Context, ContextRunners, Task};
use crate::isolation::{self, Placeholder, Pool};
use crate::stack;

/// Stands for the context of a green thread that has not run yet.
static UNLEASED: Placeholder<ContextRunners> = Placeholder::new(ContextRunners::none());

/// Which context a new green thread gets.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// That of the code that spawns it.
    Local,
    /// One of its own.
    Isolated,
}

impl Kind {
    /// The default size of the green thread's stack.
    #[inline]
    pub(crate) fn stack_size(self) -> usize {
        match self {
            Kind::Local => crate::stack::local_size(),
            Kind::Isolated => crate::stack::default_size(),
        }
    }
}

pub(super) struct Contexts {
    pub(super) pool: Pool<ContextRunners>,
    /// The context of the callback that runs.
    pub(super) of_callback: Cell<Option<&'static Context>>,
    /// This OS thread's pool of stacks, to be planted in each context.
    pub(super) stacks: Option<stack::Home>,
}

impl Contexts {
    pub(super) fn new() -> Contexts {
        Contexts {
            pool: Pool::new(),
            of_callback: Cell::new(None),
            stacks: stack::home(),
        }
    }

    /// The context of a green thread that code in the context `here` spawns.
    #[inline]
    pub(super) fn for_spawn(here: Option<&'static Context>, kind: Kind) -> Option<&'static Context> {
        match kind {
            // A member from now on, so that the context does not end before the green thread has run.
            Kind::Local => here.inspect(|context| context.join()),
            // The block is leased at the first turn: many spawned green threads that wait for it cost no blocks.
            Kind::Isolated if isolation::status().is_ok() => Some(UNLEASED.get()),
            Kind::Isolated => None,
        }
    }

    /// The context of a task, leased if this is its first turn (then `true`). `None`: the task runs in the native
    /// context.
    #[inline(always)]
    pub(super) fn lease(&self, task: &'static Task) -> Option<(&'static Context, bool)> {
        let context = task.context.get()?;
        if std::ptr::eq(context, UNLEASED.get()) {
            return Some((self.lease_new(task)?, true));
        }
        Some((context, false))
    }

    /// `None`: there is no memory, or isolation was turned off since the spawn. Then the task runs in the native
    /// context, as one that is spawned without isolation does.
    #[inline(never)]
    fn lease_new(&self, task: &'static Task) -> Option<&'static Context> {
        let context = self.pool.take(task.id());
        task.context.set(context);
        context
    }

    /// A member has left. After the last one the context goes back to the pool.
    pub(super) fn left(&self, context: &'static Context) {
        if context.has_ended() {
            self.pool.give(context);
        }
    }
}
