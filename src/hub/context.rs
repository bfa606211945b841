//! Which thread-locals run what: the seam between the hub and [`tls`].
//!
//! The hub itself runs in the native context. A green thread is resumed in its own, and so is a callback; the numbers of
//! the invariants are those of [`tls`].

use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use super::budget;
use super::task::{self, State, Stop, Task, enter};
use super::{Callback, HUB, Hub, complain, green};
use crate::fiber::{Outcome, current};
use crate::sys::base;
use crate::tls::{self, Context};

/// Whose thread-locals a new green thread gets.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Its maker's.
    Local,
    /// Its own.
    Isolated,
}

impl Kind {
    /// The default size of its stack.
    #[inline]
    pub(crate) fn stack_size(self) -> usize {
        match self {
            Kind::Local => crate::stack::local_size(),
            Kind::Isolated => crate::stack::default_size(),
        }
    }
}

impl Hub {
    /// Whose thread-locals the running green thread or callback has; none: the native ones.
    #[inline]
    pub(crate) fn context(&self) -> Option<&'static Context> {
        match self.current.get() {
            Some(task) => task.context.get(),
            None => self.lent.get(),
        }
    }

    /// Whether a patched call may park here: in an isolated green thread, which owns its context, and not in a callback;
    /// with `shared`, also in others and on the native stack, but where the hub itself runs on it.
    #[cfg(feature = "monkey")]
    pub(crate) fn may_park_patched(&self, shared: bool) -> bool {
        let owns = |task: &Task| task.context.get().is_some_and(|context| context.is_owned_by(task.id()));
        let may = match self.current.get() {
            Some(task) => (owns(task) || shared) && (task.is_alone() || !std::thread::panicking()),
            None => shared && !self.pumping.get() && !std::thread::panicking(),
        };
        may && !self.is_inside() && !self.is_in_callback()
    }

    /// Whether the hub is inside itself: a cell of it is borrowed, for a change that an allocation under it must not
    /// interrupt by a switch. What lies under a lock has a mark instead, see [`inside`](crate::sys::inside).
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
        hub || is_borrowed(&self.hook) || is_borrowed(&self.watch) || is_borrowed(&self.untold)
    }

    /// Whether who has this number, as C's locks know it, is of this OS thread: the native stack, or a green thread.
    #[cfg(feature = "monkey")]
    pub(crate) fn is_of_here(&self, owner: u32) -> bool {
        self.contexts.has(owner)
    }

    /// An address near the base of the stack that runs: the running green thread's, or the one of the innermost fiber
    /// above it. None: it is the native stack.
    #[cfg(feature = "monkey")]
    pub(crate) fn stack_base(&self) -> Option<usize> {
        let top = current::TOP.get();
        if top.is_null() {
            self.current.get().map(Task::base)
        } else {
            Some(top.addr())
        }
    }

    /// Counts the patched calls that have told the running green thread to end, for one and the same reason.
    #[cfg(feature = "monkey")]
    pub(crate) fn count_refusal(&self, why: u64) -> u32 {
        // Without a context of its own nobody counts: each time is as a second one.
        self.context().map_or(2, |context| context.count_refusal(why))
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
                    // Not with the locals of the native stack, whose context is another: they need not be `Send`.
                    let f = || catch_unwind(AssertUnwindSafe(ManuallyDrop::into_inner(f)));
                    let result = task::with_own_locals(self.native, f);
                    // The last member's destructors may park, so they want a stack of their own.
                    if context.is_last() && task::spawn(self, Kind::Local, None, self.native.place(), || ()).is_err() {
                        complain(format_args!("no memory to end a context: its thread-locals are leaked"));
                        context.join();
                    }
                    context.leave();
                    result
                })
            };
            self.lent.set(before);
            if let Err(payload) = result {
                resume_unwind(payload);
            }
        })
    }
}

impl Task {
    /// Whether nobody else has its thread-locals, such as the count of panics under way.
    pub(super) fn is_alone(&self) -> bool {
        self.context.get().is_some_and(Context::is_last)
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

/// Resumes green threads that have thread-locals of their own, for as long as such come up: `first`, then others of the
/// queue while the batch lasts. Returns one of the other kind that came up instead.
///
/// From one to the next the base is changed once, and not at all within one context.
#[inline(never)]
pub(super) fn run(hub: &'static Hub, first: &'static Task, queue: &super::ready::Ready) -> Option<&'static Task> {
    // No thread-local may be used here (B2): what does is in functions of their own.
    let mut base = Base::native(hub);
    let mut task = first;
    loop {
        let Some((context, is_new)) = lease(hub, task) else {
            return Some(task);
        };
        task.state.set(State::Running);
        hub.current.set(Some(task));
        base.change(context.base());
        let stop = if is_new { begin(hub, task, context) } else { go_on(task) };
        hub.current.set(None);
        if !matches!(stop, Outcome::Yielded(())) {
            base.change(base.native);
            after(hub, task, stop);
        }
        if hub.observed.get() {
            return None;
        }
        match queue.pop_within(hub) {
            Some(next) if next.context.get().is_some() => match task::stack_at_hand(hub, next) {
                Some(next) => task = next,
                None => return Some(next),
            },
            other => return other,
        }
    }
}

/// The base that is in use; the native one again in the end.
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
            // SAFETY: B1: the native base or one of a context of this hub. B2: `run`, which is never inlined, and this,
            // which always is into it, use no thread-local.
            unsafe {
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

/// The context of a task, leased if this is its first turn; none if it has to share the native ones.
#[inline(always)]
fn lease(hub: &'static Hub, task: &'static Task) -> Option<(&'static Context, bool)> {
    let context = task.context.get()?;
    if std::ptr::eq(context, tls::unleased()) {
        return Some((lease_new(hub, task)?, true));
    }
    Some((context, false))
}

/// `None`: no memory, or isolation was turned off since: then it shares the native ones, as it would have elsewhere.
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
    // SAFETY: the turn took it from the ready queue, and its context was just entered.
    unsafe { enter(task) }
}

#[inline(never)]
fn go_on(task: &'static Task) -> Stop {
    budget::begin();
    // SAFETY: as above.
    unsafe { enter(task) }
}

#[inline(never)]
fn after(hub: &'static Hub, task: &'static Task, stop: Stop) {
    task::after(hub, task, stop);
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
