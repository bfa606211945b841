//! The thread-locals that say which hub runs here, and how much of its budget is left to the code that runs.
#![forbid(unsafe_code)]

use std::cell::Cell;

use super::Hub;
use super::budget::Budget;

thread_local! {
    static HERE: Here = const { Here { hub: Cell::new(None), budget: Budget::new() } };
}

/// Both in one line of the cache: each isolated green thread has a set of thread-locals of its own, so each further line costs
/// every one of them a miss.
#[repr(align(16))]
struct Here {
    hub: Cell<Option<&'static Hub>>,
    budget: Budget,
}

/// The hub that is planted in the thread-locals in use.
pub(super) struct Planted;

pub(super) const HUB: Planted = Planted;

impl Planted {
    #[inline(always)]
    pub(super) fn get(&self) -> Option<&'static Hub> {
        HERE.with(|here| here.hub.get())
    }

    #[inline(always)]
    pub(super) fn set(&self, hub: Option<&'static Hub>) {
        HERE.with(|here| here.hub.set(hub));
    }
}

/// Lets `f` use the budget of the code that runs.
#[inline(always)]
pub(super) fn with_budget<R>(f: impl FnOnce(&Budget) -> R) -> R {
    HERE.with(|here| f(&here.budget))
}
