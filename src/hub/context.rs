//! Which thread-locals run what: the seam between the hub and [`tls`].
//!
//! The hub itself runs in the native context. A green thread is resumed in its own, and so is a callback; the numbers of
//! the invariants are those of [`tls`].

use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use super::task::{Kind, Task};
use super::{Callback, HUB, Hub, green};
use crate::fiber::current;
use crate::tls::{self, Context};

impl Hub {
    /// Whose thread-locals the running green thread or callback has; none: the native ones.
    #[inline]
    pub(crate) fn context(&self) -> Option<&'static Context> {
        match self.current.get() {
            Some(task) => task.context.get(),
            None => self.lent.get(),
        }
    }

    /// `f` as a callback that runs in the context of now, of which it is a member until it has run.
    pub(super) fn in_context(&'static self, f: impl FnOnce() + 'static) -> Callback {
        let Some(context) = self.context() else {
            return Box::new(f);
        };
        context.join();
        // Leaked if it never runs: when the OS thread ends, no context can be entered any more.
        let f = ManuallyDrop::new(f);
        Box::new(move || {
            let before = self.lent.replace(Some(context));
            // SAFETY: C1: the hub runs callbacks, in the native context; a panic stays inside.
            let result = unsafe {
                context.enter(|| {
                    let result = catch_unwind(AssertUnwindSafe(ManuallyDrop::into_inner(f)));
                    context.leave();
                    result
                })
            };
            self.lent.set(before);
            left(self, context);
            if let Err(payload) = result {
                resume_unwind(payload);
            }
        })
    }
}

/// The context of a green thread that is spawned now.
#[inline]
pub(super) fn for_spawn(hub: &Hub, kind: Kind) -> Option<&'static Context> {
    match kind {
        Kind::Local => hub.context().inspect(|context| context.join()),
        Kind::Isolated if tls::status().is_ok() => Some(tls::unleased()),
        Kind::Isolated => None,
    }
}

/// Resumes a green thread in a context other than the native one; leases that if this is its first turn.
#[inline(never)]
pub(super) fn enter<R>(
    hub: &'static Hub,
    task: &'static Task,
    context: &'static Context,
    resume: impl FnOnce() -> R,
) -> R {
    let is_new = std::ptr::eq(context, tls::unleased());
    let context = if is_new { hub.contexts.take() } else { Some(context) };
    task.context.set(context);
    let Some(context) = context else {
        // No memory, or isolation was turned off since: it shares the native ones, as it would have elsewhere.
        return resume();
    };
    // SAFETY: C1: the turn runs in the native context, and a fiber does not unwind (F5).
    unsafe {
        context.enter(|| {
            if is_new {
                plant(hub, context);
            }
            resume()
        })
    }
}

/// The start of a context, from inside: what is the same in all contexts of this OS thread (C4).
fn plant(hub: &'static Hub, context: &Context) {
    context.begin();
    HUB.set(Some(hub));
    current::set_green(green);
    // SAFETY: the pool ends with the native thread-locals, and the hub, which ends with them, enters no context then.
    unsafe { crate::stack::plant(hub.stacks) };
}

/// A member has left; after the last one the context is for others.
pub(super) fn left(hub: &Hub, context: &'static Context) {
    if context.has_ended() {
        hub.contexts.give(context);
    }
}
