//! What a hub keeps for its idle times: the waiters for the moment when nothing is left to do, and how long the hub may
//! sleep.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::stuck::Registered;
use super::waiter::Waiter;

/// What is to be told when a hub is empty, or when it ends.
pub(super) enum IdleWatcher {
    /// Called once no green threads are left, with the number of green threads and calls that have ever arrived from
    /// other OS threads. Dropped if the hub ends first.
    Empty(Box<dyn FnOnce(u64)>),
    /// Dropped when the hub ends.
    #[expect(dead_code, reason = "only its drop matters")]
    End(Box<dyn Send>),
}

pub(super) struct Sleep {
    /// How long the next sleep without hope may last; `None`: the shortest time.
    pub(super) patience: Cell<Option<Duration>>,
    /// How much work of this hub other OS threads are doing. They send a message when it is done.
    offloaded: Cell<usize>,
    /// The waiters of `idle`.
    pub(super) idlers: RefCell<VecDeque<Waiter>>,
    /// The waiters of `run_forever`.
    pub(super) forever: RefCell<Vec<Waiter>>,
    /// Whether a foreign event loop sleeps in the hub's place.
    pub(super) embedded: Cell<bool>,
    pub(super) idle_watchers: RefCell<Vec<IdleWatcher>>,
    /// Tells other hubs whether this OS thread rests.
    pub(super) registered: Registered,
    /// When the current period of `leisure.rs` ends.
    pub(super) period_end: Cell<Option<Instant>>,
    /// How many sets of thread-locals were freed since the heap was trimmed.
    pub(super) freed: Cell<usize>,
}

impl Sleep {
    pub(super) fn new(registered: Registered) -> Sleep {
        Sleep {
            patience: Cell::new(None),
            offloaded: Cell::new(0),
            idlers: RefCell::default(),
            forever: RefCell::default(),
            embedded: Cell::new(false),
            idle_watchers: RefCell::default(),
            registered,
            period_end: Cell::new(None),
            freed: Cell::new(0),
        }
    }

    /// Another OS thread begins work of this hub.
    pub(super) fn begin_offload(&self) {
        self.offloaded.set(self.offloaded.get() + 1);
    }

    /// That work is done.
    pub(super) fn end_offload(&self) {
        self.offloaded.set(self.offloaded.get() - 1);
    }

    #[inline]
    pub(super) fn has_offloaded(&self) -> bool {
        self.offloaded.get() > 0
    }

    /// Whether one of the cells is borrowed (HUB-14).
    #[cfg(feature = "monkey")]
    pub(super) fn is_borrowed(&self) -> bool {
        let waiters = self.idlers.try_borrow_mut().is_err() || self.forever.try_borrow_mut().is_err();
        waiters || self.idle_watchers.try_borrow_mut().is_err()
    }
}
