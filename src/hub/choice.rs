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
use std::sync::atomic::AtomicU64;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::Waker;

#[cfg(all(test, loom))]
use loom::sync::atomic::AtomicU64;

use super::park::is_lost;
use super::spin::Spin;
use super::wakers;

// The word has a state in its low half and counts the claims in its high half: two claims of one branch differ.

/// All branches wait, and any one may be granted.
const OPEN: u32 = 0;
/// The select polls a branch, or has its winner: none may be granted.
const TRYING: u32 = 1;
/// From here on: this less is the number of the branch that was granted.
const TAKEN: u32 = 2;

/// The state in a word.
fn state(word: u64) -> u32 {
    word as u32
}

/// The same word with another state.
fn with(word: u64, state: u32) -> u64 {
    word & !u64::from(u32::MAX) | u64::from(state)
}

/// A claim that [`Choice::begin`] has found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taken(u64);

impl Taken {
    /// The branch that was claimed.
    pub(crate) fn branch(self) -> u32 {
        state(self.0) - TAKEN
    }
}

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
    word: AtomicU64,
    /// Which branch is polled. Written by the select, and read by what it polls.
    branch: AtomicU32,
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
            word: AtomicU64::new(u64::from(OPEN)),
            branch: AtomicU32::new(NO_BRANCH),
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
        let is_open = |word| (state(word) == OPEN).then(|| with(word, TAKEN + branch).wrapping_add(1 << 32));
        match self.word.fetch_update(Ordering::AcqRel, Ordering::Relaxed, is_open) {
            Ok(_) => Claim::Won,
            Err(_) => Claim::Lost,
        }
    }

    /// By a granter that has claimed it and cannot grant, still under the same lock.
    pub(crate) fn release(&self, branch: u32) {
        // It may have been collected by a select that polls again and again; that sees for itself.
        let is_taken = |word| (state(word) == TAKEN + branch).then(|| with(word, OPEN));
        let _ = self.word.fetch_update(Ordering::AcqRel, Ordering::Relaxed, is_taken);
    }

    /// By the select, before it polls `branch`; or the branch that was granted meanwhile.
    pub(crate) fn begin(&self, branch: u32) -> Result<(), Taken> {
        self.branch.store(branch, Ordering::Relaxed);
        self.is_paid.store(true, Ordering::Relaxed);
        let is_open = |word| (state(word) == OPEN).then(|| with(word, TRYING));
        match self.word.fetch_update(Ordering::AcqRel, Ordering::Acquire, is_open) {
            Ok(_) => Ok(()),
            Err(word) if state(word) == TRYING => Ok(()),
            Err(word) => {
                let taken = Taken(word);
                self.branch.store(taken.branch(), Ordering::Relaxed);
                Err(taken)
            }
        }
    }

    /// By the select: the branch that it began with is not ready, and all wait again.
    pub(crate) fn end(&self) {
        // Nobody else changes a word that says `Trying`.
        let word = self.word.load(Ordering::Relaxed);
        self.word.store(with(word, OPEN), Ordering::Release);
    }

    /// By the select, after it has polled the branch of this claim, which is not ready: a step of it was collected, or its wait was
    /// dropped, or the granter has released it. All branches wait again, unless one has been claimed anew.
    pub(crate) fn reopen(&self, taken: Taken) {
        let is_over = |word| (state(word) == TRYING || word == taken.0).then(|| with(word, OPEN));
        let _ = self.word.fetch_update(Ordering::AcqRel, Ordering::Relaxed, is_over);
    }

    /// By a branch that takes what it was granted.
    pub(crate) fn collected(&self) {
        let word = self.word.load(Ordering::Relaxed);
        if state(word) >= TAKEN {
            self.word.store(with(word, TRYING), Ordering::Release);
        }
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
        self.word.store(u64::from(OPEN), Ordering::Relaxed);
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
