//! The one word of a `select!`: which of its branches was granted, so that no other is.
//!
//! The head of `sync/select.rs` has the protocol, of which this is the word:
//!
//! ```text
//!            claim(i): a granter                          begin: the select, for one branch
//!   Taken(i) ◄────────────────── Open ─────────────────────────► Trying ──► (Trying for good: that branch won)
//!      │    release: the granter  ▲ ▲         end: it is not ready  │
//!      ├──────────────────────────┘ └───────────────────────────────┘
//!      └─ collected: the select has what was granted ──────────────► Trying
//! ```
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::sync::Arc;
#[cfg(not(all(test, loom)))]
use std::sync::atomic::AtomicU32;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Waker;

#[cfg(all(test, loom))]
use loom::sync::atomic::AtomicU32;

use super::park::is_lost;
use super::spin::Spin;
use super::wakers;

/// All branches wait, and any one may be granted.
const OPEN: u32 = 0;
/// The select polls a branch, or has its winner: none may be granted.
const TRYING: u32 = 1;
/// From here on: this less is the number of the branch that was granted.
const TAKEN: u32 = 2;

/// The number of no branch: of what waits without a choice, or may be granted whichever branch wins.
pub(crate) const NO_BRANCH: u32 = u32::MAX;

#[cfg(not(all(test, loom)))]
thread_local! {
    /// The choice of the wait whose code holds the lock of a primitive on this OS thread.
    static ENTERED: Cell<usize> = const { Cell::new(0) };
}

#[cfg(all(test, loom))]
loom::thread_local! {
    static ENTERED: Cell<usize> = Cell::new(0);
}

/// One wait for the first of several.
pub(crate) struct Choice {
    word: AtomicU32,
    /// Which branch is polled. Written by the select, and read by what it polls.
    branch: std::sync::atomic::AtomicU32,
    /// The branch has not taken a step since it was begun with: the select has paid for the first.
    is_paid: AtomicBool,
    /// Of the task that selects; taken by the first wake.
    waker: Spin<Option<Waker>>,
    /// There is such a task, woken or not.
    is_waited_for: AtomicBool,
}

/// What came of a granter's try to have a choice for its branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// It is the branch of what was tried, and of no other.
    Won,
    /// It has another branch, or is looking itself: it is to be passed over, and then woken.
    Lost,
    /// The granter is one of its own branches.
    Own,
}

impl Choice {
    pub(crate) fn new() -> Choice {
        Choice {
            word: AtomicU32::new(OPEN),
            branch: std::sync::atomic::AtomicU32::new(NO_BRANCH),
            is_paid: AtomicBool::new(false),
            waker: Spin::new(None),
            is_waited_for: AtomicBool::new(false),
        }
    }

    pub(crate) fn into_waker(self: Arc<Choice>) -> Waker {
        wakers::waker(self)
    }

    /// The choice that `waker` is of, if it is of one.
    #[inline]
    pub(crate) fn of(waker: &Waker) -> Option<&Choice> {
        wakers::of(waker)
    }

    /// By a granter, under the lock of what the branch waits for.
    pub(crate) fn claim(&self, branch: u32) -> Claim {
        if branch == NO_BRANCH {
            return Claim::Won;
        }
        if ENTERED.with(Cell::get) == self.address() {
            return Claim::Own;
        }
        let taken = TAKEN + branch;
        match self
            .word
            .compare_exchange(OPEN, taken, Ordering::AcqRel, Ordering::Relaxed)
        {
            Ok(_) => Claim::Won,
            Err(_) => Claim::Lost,
        }
    }

    /// By a granter that has claimed it and cannot grant, still under the same lock.
    pub(crate) fn release(&self, branch: u32) {
        // It may have been collected by a select that polls again and again; that sees for itself.
        let _ = self
            .word
            .compare_exchange(TAKEN + branch, OPEN, Ordering::AcqRel, Ordering::Relaxed);
    }

    /// By the select, before it polls `branch`; or the branch that was granted meanwhile.
    pub(crate) fn begin(&self, branch: u32) -> Result<(), u32> {
        self.branch.store(branch, Ordering::Relaxed);
        self.is_paid.store(true, Ordering::Relaxed);
        match self
            .word
            .compare_exchange(OPEN, TRYING, Ordering::AcqRel, Ordering::Acquire)
        {
            Ok(_) | Err(TRYING) => Ok(()),
            Err(taken) => {
                self.branch.store(taken - TAKEN, Ordering::Relaxed);
                Err(taken - TAKEN)
            }
        }
    }

    /// By the select: the branch that it began with is not ready, and all wait again.
    pub(crate) fn end(&self) {
        self.word.store(OPEN, Ordering::Release);
    }

    /// By the select, after it has polled the branch that was granted, and that is not ready after all.
    pub(crate) fn reopen(&self, branch: u32) {
        let is_open = |closed| {
            let opened = self
                .word
                .compare_exchange(closed, OPEN, Ordering::AcqRel, Ordering::Relaxed);
            opened.is_ok()
        };
        // Collected, or not. It may be open already: a granter has released it.
        let _ = is_open(TRYING) || is_open(TAKEN + branch);
    }

    /// By a branch that takes what it was granted.
    pub(crate) fn collected(&self) {
        if self.word.load(Ordering::Relaxed) >= TAKEN {
            self.word.store(TRYING, Ordering::Release);
        }
    }

    /// Whether `branch` has been granted and is not collected.
    pub(crate) fn is_taken_by(&self, branch: u32) -> bool {
        self.word.load(Ordering::Acquire) == TAKEN + branch
    }

    /// Whether the branch that is polled takes its first step, which the select has paid for. A future of several steps
    /// has a budget for the others.
    pub(crate) fn takes_paid(&self) -> bool {
        self.is_paid.swap(false, Ordering::Relaxed)
    }

    /// The branch that is polled.
    pub(crate) fn branch(&self) -> u32 {
        self.branch.load(Ordering::Relaxed)
    }

    /// The code that runs holds the lock of a primitive until what this gives is dropped.
    pub(crate) fn enter(&self) -> Entered {
        ENTERED.with(|entered| entered.set(self.address()));
        Entered(())
    }

    fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// Whom to wake from now on.
    pub(crate) fn set_waker(&self, waker: &Waker) {
        self.is_waited_for.store(true, Ordering::Relaxed);
        let stands = self.waker.lock().as_ref().is_some_and(|left| left.will_wake(waker));
        if !stands {
            // The user's code, outside of the lock.
            let waker = Some(waker.clone());
            let stale = std::mem::replace(&mut *self.waker.lock(), waker);
            drop(stale);
        }
    }

    pub(crate) fn take_waker(&self) -> Option<Waker> {
        self.waker.lock().take()
    }

    /// A waker of it was called.
    pub(super) fn notify(&self) {
        if let Some(waker) = self.take_waker() {
            waker.wake();
        }
    }

    /// Whether nobody is woken by it: it is polled once, and not again.
    pub(crate) fn is_noop(&self) -> bool {
        !self.is_waited_for.load(Ordering::Relaxed)
    }

    /// Whether the task that selects can never run again.
    pub(super) fn is_lost(&self) -> bool {
        self.waker.lock().as_ref().is_some_and(is_lost)
    }

    /// As new, for another select: nobody else may have it.
    pub(crate) fn reset(&self) {
        self.word.store(OPEN, Ordering::Relaxed);
        self.is_waited_for.store(false, Ordering::Relaxed);
    }
}

/// See [`Choice::enter`].
pub(crate) struct Entered(());

impl Drop for Entered {
    fn drop(&mut self) {
        ENTERED.with(|entered| entered.set(0));
    }
}
