//! A hook that sees each transfer of control between greenlets.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::rc::Rc;

thread_local! {
    static TRACING: Cell<bool> = const { Cell::new(false) };
    static HOOK: RefCell<Option<Hook>> = const { RefCell::new(None) };
}

/// Whether there is a hook.
#[inline(always)]
pub(super) fn is_on() -> bool {
    TRACING.get()
}

/// How control came to a greenlet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TraceKind {
    /// With a value, or with the end of a greenlet that was killed.
    Switch,
    /// With a payload that is to be raised.
    Throw,
}

/// A transfer of control, as a hook sees it; see [`set_trace`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TraceEvent {
    /// How control came to the target.
    pub kind: TraceKind,
    /// The [`id`](super::Greenlet::id) of the greenlet that control left.
    pub origin: u64,
    /// The [`id`](super::Greenlet::id) of the greenlet that control came to.
    pub target: u64,
}

/// The hook that [`set_trace`] takes.
pub type Hook = Rc<dyn Fn(&TraceEvent)>;

/// Has `hook` called after each transfer on this OS thread, on the stack that control came to; returns the hook before
/// it.
///
/// If the hook panics, tracing is turned off, and the panic is raised in place of what the switch would have returned.
/// The hook may switch itself, which calls it again.
///
/// ```
/// use greenthread::greenlet::{self, Greenlet};
/// use std::{cell::RefCell, rc::Rc};
///
/// let seen = Rc::new(RefCell::new(Vec::new()));
/// let log = seen.clone();
/// greenlet::set_trace(Some(Rc::new(move |event| log.borrow_mut().push((event.origin, event.target)))));
/// let g = Greenlet::new(|n: u32| n);
/// g.switch(1);
/// greenlet::set_trace(None);
/// let main = greenlet::current::<u32>().id();
/// assert_eq!(*seen.borrow(), [(main, g.id()), (g.id(), main)]);
/// ```
///
/// # Coming from Python
/// `greenlet.settrace(callback)`.
pub fn set_trace(hook: Option<Hook>) -> Option<Hook> {
    HOOK.try_with(|cell| {
        TRACING.set(hook.is_some());
        cell.replace(hook)
    })
    .unwrap_or_default()
}

/// The hook that [`set_trace`] set.
pub fn trace() -> Option<Hook> {
    HOOK.try_with(|cell| cell.borrow().clone()).unwrap_or_default()
}
