//! The seam between the hub and [`tls`]: which code runs with which thread-locals.
//!
//! The hub itself runs in the native context. A green thread is resumed in its own context, and a callback runs in the
//! context of the code that asked for it. The labels of the invariants are those of [`tls`] (C) and [`base`] (B).

use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use super::budget;
use super::task::{self, State, Stop, Task, enter};
use super::{Callback, HUB, Hub, complain, green};
use crate::fiber::{Outcome, current};
use crate::sys::base;
use crate::tls::{self, Context};

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

impl Hub {
    /// The context of the running green thread or callback; `None`: the native one.
    #[inline]
    pub(crate) fn context(&self) -> Option<&'static Context> {
        match self.current.get() {
            Some(task) => task.context.get(),
            None => self.callback_context.get(),
        }
    }

    /// Whether a patched call may park here: in an isolated green thread, which owns its context; with `shared`, also
    /// in other green threads, and on the native stack unless the hub itself runs on it. It may not in a callback,
    /// inside the hub (I14), or where other tasks would see that the stack unwinds.
    #[cfg(feature = "monkey")]
    pub(crate) fn may_park_patched(&self, shared: bool) -> bool {
        let owns = |task: &Task| task.context.get().is_some_and(|context| context.is_owned_by(task.id()));
        let may = match self.current.get() {
            Some(task) => (owns(task) || shared) && (task.is_alone() || !std::thread::panicking()),
            None => shared && !self.pumping.get() && !std::thread::panicking(),
        };
        may && !self.is_inside() && !self.is_in_callback()
    }

    /// Whether the hub is inside itself: one of its cells is borrowed for a change, and an allocation during the change
    /// must not switch to another task. State under a lock has a mark instead, see [`inside`](crate::sys::inside).
    #[cfg(feature = "monkey")]
    fn is_inside(&self) -> bool {
        fn is_borrowed<T>(cell: &std::cell::RefCell<T>) -> bool {
            cell.try_borrow_mut().is_err()
        }
        let hub = crate::stack::is_borrowed()
            || self.timers.is_borrowed()
            || self.reactor.is_borrowed()
            || self.contexts.is_borrowed()
            || is_borrowed(&self.frames)
            || is_borrowed(&self.callbacks)
            || is_borrowed(&self.taken)
            || is_borrowed(&self.idlers)
            || is_borrowed(&self.forever)
            || is_borrowed(&self.emptied);
        hub || is_borrowed(&self.hook) || is_borrowed(&self.watch) || is_borrowed(&self.deferred_events)
    }

    /// Whether the owner of this number, by which C's locks know it, belongs to this OS thread: its native stack, or
    /// one of its green threads.
    #[cfg(feature = "monkey")]
    pub(crate) fn is_of_here(&self, owner: u32) -> bool {
        self.contexts.has(owner)
    }

    /// An address near the base of the running stack: that of the running green thread, or of the innermost fiber above
    /// it. `None` on the native stack.
    #[cfg(feature = "monkey")]
    pub(crate) fn stack_base(&self) -> Option<usize> {
        let top = current::TOP.get();
        if top.is_null() {
            self.current.get().map(Task::base)
        } else {
            Some(top.addr())
        }
    }

    /// Counts how many patched calls in a row have told the running green thread to end for the reason `why`.
    #[cfg(feature = "monkey")]
    pub(crate) fn count_refusal(&self, why: u64) -> u32 {
        // The native context keeps no refusal counter. Return 2 ("refused before"), so that the caller yields.
        self.context().map_or(2, |context| context.count_refusal(why))
    }

    /// Makes `f` a callback that runs in the current context. The callback is a member of the context until it has run.
    pub(super) fn in_context(&'static self, f: impl FnOnce() + 'static) -> Callback {
        let Some(context) = self.context() else {
            return Box::new(f);
        };
        // As a member from now on, the callback keeps the context from ending before it has run.
        context.join();
        // If the callback is dropped without having run, `f` is leaked: the OS thread ends, and no context can be
        // entered any more in which `f` could be dropped.
        let f = ManuallyDrop::new(f);
        Box::new(move || {
            let before = self.callback_context.replace(Some(context));
            // SAFETY: C1: the hub runs callbacks in the native context, and no panic leaves the closure.
            let result = unsafe {
                context.enter(|| {
                    // The locals of the native stack belong to another context, and need not be `Send`: `f` gets locals
                    // of its own.
                    let f = || catch_unwind(AssertUnwindSafe(ManuallyDrop::into_inner(f)));
                    let result = task::with_own_locals(self.native, f);
                    // The last member runs the context's destructors, which may park. A callback may not, so make an
                    // empty green thread the last member.
                    if context.is_last() && task::spawn(self, Kind::Local, None, self.native.place(), || ()).is_err() {
                        complain(format_args!("no memory to end a context: its thread-locals are leaked"));
                        // An extra member that never leaves: the destructors never run.
                        context.join();
                    }
                    context.leave();
                    result
                })
            };
            self.callback_context.set(before);
            // Raised again only in the native context: a panic must not cross `enter` (C1).
            if let Err(payload) = result {
                resume_unwind(payload);
            }
        })
    }
}

impl Task {
    /// Whether no other task shares its thread-locals, such as the count of panics under way.
    pub(super) fn is_alone(&self) -> bool {
        self.context.get().is_some_and(Context::is_last)
    }
}

/// The context of a green thread that is being spawned.
#[inline]
pub(super) fn for_spawn(hub: &Hub, kind: Kind) -> Option<&'static Context> {
    match kind {
        // A member from now on, so that the context does not end before the green thread has run.
        Kind::Local => hub.context().inspect(|context| context.join()),
        // The block is leased at the first turn: many spawned green threads that wait for it cost no blocks.
        Kind::Isolated if tls::status().is_ok() => Some(tls::unleased()),
        Kind::Isolated => None,
    }
}

/// Resumes `first` and then further tasks of the queue, as long as they have contexts and the batch lasts. Returns a
/// task that it took from the queue and cannot run.
///
/// From one task to the next the base is changed once, or not at all if both are in the same context.
#[inline(never)]
pub(super) fn run(hub: &'static Hub, first: &'static Task, queue: &super::ready::Ready) -> Option<&'static Task> {
    // B2: no thread-local may be used here. The code that uses one is in functions that are never inlined.
    let mut base = Base::native(hub);
    let mut task = first;
    loop {
        let Some((context, is_new)) = lease(hub, task) else {
            // There is no context for it: the caller resumes it in the native one.
            return Some(task);
        };
        task.state.set(State::Running);
        hub.current.set(Some(task));
        // Directly from the base of the task before, not by way of the native one.
        base.change(context.base());
        let stop = if is_new { begin(hub, task, context) } else { go_on(task) };
        hub.current.set(None);
        // The task has ended. Its end belongs to the hub, and runs in the native context (C1).
        if !matches!(stop, Outcome::Yielded(())) {
            base.change(base.native);
            after(hub, task, stop);
        }
        // The caller tells the observer of each resume, in the native context.
        if hub.observed.get() {
            return None;
        }
        // A task without a context, the native task or a stackless one that needs a new runner goes back to the caller:
        // making a runner uses thread-locals.
        match queue.pop_within(hub) {
            Some(next) if next.context.get().is_some() => match task::stack_at_hand(hub, next) {
                Some(next) => task = next,
                None => return Some(next),
            },
            other => return other,
        }
    }
}

/// The base in use. Its drop changes back to the native one.
struct Base {
    native: usize,
    now: usize,
}

impl Base {
    #[inline(always)]
    fn native(hub: &Hub) -> Base {
        let native = hub.contexts.native();
        Base { native, now: native }
    }

    #[inline(always)]
    fn change(&mut self, to: usize) {
        if to != self.now {
            // SAFETY: B1: `to` is the native base, or that of a context of this hub. B2: neither `run`, which is never
            // inlined, nor this function, which is always inlined into it, uses a thread-local.
            unsafe {
                // malloc's words belong to the OS thread, so they travel with the base.
                base::carry(self.now, to);
                base::set(to);
            }
            self.now = to;
        }
    }
}

impl Drop for Base {
    #[inline(always)]
    fn drop(&mut self) {
        self.change(self.native);
    }
}

/// The context of a task, leased if this is its first turn (then `true`). `None`: the task runs in the native context.
#[inline(always)]
fn lease(hub: &'static Hub, task: &'static Task) -> Option<(&'static Context, bool)> {
    let context = task.context.get()?;
    if std::ptr::eq(context, tls::unleased()) {
        return Some((lease_new(hub, task)?, true));
    }
    Some((context, false))
}

/// `None`: there is no memory, or isolation was turned off since the spawn. Then the task runs in the native context,
/// as one that is spawned without isolation does.
#[inline(never)]
fn lease_new(hub: &'static Hub, task: &'static Task) -> Option<&'static Context> {
    let context = hub.contexts.take(task.id());
    task.context.set(context);
    context
}

#[inline(never)]
fn begin(hub: &'static Hub, task: &'static Task, context: &Context) -> Stop {
    plant(hub, context);
    budget::begin();
    // SAFETY: the turn took the task from a queue, and it has not run: so it is new. Its context was just entered, so
    // its thread-locals are in use.
    unsafe { enter(task) }
}

#[inline(never)]
fn go_on(task: &'static Task) -> Stop {
    budget::begin();
    // SAFETY: the task is suspended, or new in a context that another task has begun: the turn took it from a queue, or
    // it is a runner for a stackless task from there. `run` has just entered its context, so its thread-locals are in
    // use.
    unsafe { enter(task) }
}

#[inline(never)]
fn after(hub: &'static Hub, task: &'static Task, stop: Stop) {
    task::after(hub, task, stop);
}

/// Begins a context, from inside: plants what is the same in all contexts of this OS thread (C4).
fn plant(hub: &'static Hub, context: &Context) {
    context.begin();
    HUB.set(Some(hub));
    current::set_green(green);
    // SAFETY: the pool of stacks ends with the native thread-locals. The hub ends with them too, and enters no context
    // after that.
    unsafe { crate::stack::plant(hub.stacks) };
}

/// A member has left. After the last one the context goes back to the pool.
pub(super) fn left(hub: &Hub, context: &'static Context) {
    if context.has_ended() {
        hub.contexts.give(context);
    }
}
