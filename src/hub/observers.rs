//! The observers of a hub, and the events that they are told of. `hooks.rs` calls them.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// An event of a green thread, which is given by its number ([`ThreadId`](crate::thread::ThreadId)).
///
/// The number of a native stack has the highest bit set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// It was spawned, and is in the ready queue.
    Spawn(u64),
    /// The turn resumes it.
    Resume(u64),
    /// It parks.
    Park(u64),
    /// Something woke it: it is in the ready queue.
    Wake(u64),
    /// It ended.
    Exit(u64),
    /// The hub begins a turn.
    Turn,
}

pub(super) type Hook = Rc<dyn Fn(Event) + Send + Sync>;
/// An observer of this crate's own. It uses no thread-local of the user's code, so it need not be `Send` and `Sync`.
pub(crate) type Watch = Rc<dyn Fn(Event)>;

#[derive(Default)]
pub(super) struct Observers {
    /// Whether there is an observer.
    pub(super) any: Cell<bool>,
    /// The user's observer, and this crate's own.
    hook: RefCell<Option<Hook>>,
    watch: RefCell<Option<Watch>>,
    /// Events that happened while the turn was looking at timers and descriptors. The observers have not been told of
    /// them yet.
    pub(super) deferred: RefCell<Vec<Event>>,
}

impl Observers {
    /// The observers. They are cloned out of the cells, because an observer may set another one.
    pub(super) fn all(&self) -> impl Iterator<Item = Watch> {
        let (watch, hook) = (self.watch.borrow().clone(), self.hook.borrow().clone());
        [watch, hook.map(|hook| hook as Watch)].into_iter().flatten()
    }

    /// Sets the user's observer, and returns the one before.
    pub(super) fn set_hook(&self, hook: Option<Hook>) -> Option<Hook> {
        let before = self.hook.replace(hook);
        self.look();
        before
    }

    /// Sets this crate's own observer, and returns the one before.
    pub(super) fn set_watch(&self, watch: Option<Watch>) -> Option<Watch> {
        let before = self.watch.replace(watch);
        self.look();
        before
    }

    fn look(&self) {
        self.any
            .set(self.watch.borrow().is_some() || self.hook.borrow().is_some());
    }

    /// Whether one of the cells is borrowed (HUB-14).
    #[cfg(feature = "monkey")]
    pub(super) fn is_borrowed(&self) -> bool {
        let set = self.hook.try_borrow_mut().is_err() || self.watch.try_borrow_mut().is_err();
        set || self.deferred.try_borrow_mut().is_err()
    }
}
