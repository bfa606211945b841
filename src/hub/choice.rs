//! The word that the branches of one `select!` share. It says which branch was granted, so that no other is.
//!
//! The protocol (SELECT-1 to SELECT-10) is described at the head of `sync/select.rs`. These are the states of the word:
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
#[cfg(not(all(test, loom)))]
use std::sync::atomic::AtomicU64;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::Waker;

#[cfg(all(test, loom))]
use loom::sync::atomic::AtomicU64;

use crate::sys::spin::Spin;

// The low half of the word is the state. The high half counts the claims, so that two claims of one branch differ.

/// All branches wait, and any of them may be granted.
const OPEN: u32 = 0;
/// The select polls a branch, or has its winner: no branch may be granted.
const TRYING: u32 = 1;
/// `TAKEN + i`: branch `i` was granted, or is being granted.
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

/// The number of no branch: for a wait without a choice, and for an operation that takes nothing from others and so
/// needs no claim (SELECT-7).
pub(crate) const NO_BRANCH: u32 = u32::MAX;

#[cfg(not(all(test, loom)))]
thread_local! {
    /// The address of the choice for which code on this OS thread holds the lock of a primitive; 0 if there is none.
    static ENTERED: Cell<usize> = const { Cell::new(0) };
}

#[cfg(all(test, loom))]
loom::thread_local! {
    static ENTERED: Cell<usize> = Cell::new(0);
}

/// One wait for the first of several operations.
pub(crate) struct Choice {
    word: AtomicU64,
    /// The branch that is polled now. Written by the select, and read by the operation that it polls.
    branch: AtomicU32,
    /// The branch has taken no step since `begin`. The select has paid for the first step from its own budget.
    is_paid: AtomicBool,
    /// The waker of the task that selects; the first wake takes it.
    waker: Spin<Option<Waker>>,
    /// A task waits for this choice, even if the first wake has taken its waker.
    is_waited_for: AtomicBool,
}

/// The result of a granter's attempt to claim a choice for one of its branches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// The choice is claimed for this branch: the granter must grant or release it.
    Won,
    /// The word was not `Open`. The granter must pass over the branch and wake the select (SELECT-2).
    Lost,
    /// The granter is another branch of the same select (SELECT-5).
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

    /// SELECT-1: called by a granter, under the lock of the primitive that the branch waits for, before it grants
    /// anything.
    pub(crate) fn claim(&self, branch: u32) -> Claim {
        if branch == NO_BRANCH {
            return Claim::Won;
        }
        // The granter runs inside a step of this very select (SELECT-5).
        if ENTERED.with(Cell::get) == self.address() {
            return Claim::Own;
        }
        let is_open = |word| (state(word) == OPEN).then(|| with(word, TAKEN + branch).wrapping_add(1 << 32));
        match self.word.fetch_update(Ordering::AcqRel, Ordering::Relaxed, is_open) {
            Ok(_) => Claim::Won,
            Err(_) => Claim::Lost,
        }
    }

    /// SELECT-6: called by a granter that has claimed the choice and cannot grant after all, still under the same lock.
    pub(crate) fn release(&self, branch: u32) {
        // Only if the claim still stands: the select may have polled the branch on its own initiative and changed the
        // word meanwhile. Then there is nothing to release.
        let is_taken = |word| (state(word) == TAKEN + branch).then(|| with(word, OPEN));
        let _ = self.word.fetch_update(Ordering::AcqRel, Ordering::Relaxed, is_taken);
    }

    /// SELECT-3: called by the select before it polls `branch`. An error is the branch that was granted meanwhile,
    /// which the select must poll instead.
    pub(crate) fn begin(&self, branch: u32) -> Result<(), Taken> {
        self.branch.store(branch, Ordering::Relaxed);
        self.is_paid.store(true, Ordering::Relaxed);
        let is_open = |word| (state(word) == OPEN).then(|| with(word, TRYING));
        match self.word.fetch_update(Ordering::AcqRel, Ordering::Acquire, is_open) {
            Ok(_) => Ok(()),
            // A select that must not wait keeps the word `Trying` over all its branches (SELECT-8).
            Err(word) if state(word) == TRYING => Ok(()),
            // A granter was faster, and `Acquire` makes visible what it granted.
            Err(word) => {
                let taken = Taken(word);
                self.branch.store(taken.branch(), Ordering::Relaxed);
                Err(taken)
            }
        }
    }

    /// Called by the select: the branch of the last `begin` is not ready, and all branches wait again.
    pub(crate) fn end(&self) {
        // A plain store is enough: while the word is `Trying` only the select changes it.
        let word = self.word.load(Ordering::Relaxed);
        self.word.store(with(word, OPEN), Ordering::Release);
    }

    /// Called by the select after it has polled the branch of this claim, which is not ready: only a step of the branch
    /// was granted, or its wait was dropped, or the granter has released the claim. All branches wait again, unless one
    /// of them has been claimed anew.
    pub(crate) fn reopen(&self, taken: Taken) {
        // The whole word is compared, with its count of claims: a new claim of the same branch must stand.
        let is_over = |word| (state(word) == TRYING || word == taken.0).then(|| with(word, OPEN));
        let _ = self.word.fetch_update(Ordering::AcqRel, Ordering::Relaxed, is_over);
    }

    /// Called by a branch that takes what it was granted, under the lock of its primitive.
    pub(crate) fn collected(&self) {
        // A plain store is enough: the granter has finished, as the lock is held here, and there is no new claim of a
        // word that is not `Open`.
        let word = self.word.load(Ordering::Relaxed);
        if state(word) >= TAKEN {
            self.word.store(with(word, TRYING), Ordering::Release);
        }
    }

    /// Whether the branch that is polled takes its first step, which the select has paid for. A future of several steps
    /// pays for the others from the budget.
    pub(crate) fn takes_paid(&self) -> bool {
        self.is_paid.swap(false, Ordering::Relaxed)
    }

    /// The branch that is polled.
    pub(crate) fn branch(&self) -> u32 {
        self.branch.load(Ordering::Relaxed)
    }

    /// Marks this OS thread as holding the lock of a primitive for this choice, until the result is dropped (SELECT-5).
    pub(crate) fn enter(&self) -> Entered {
        ENTERED.with(|entered| entered.set(self.address()));
        Entered(())
    }

    fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// Sets the waker of the task that selects. From now on a wake of the choice wakes that task.
    pub(crate) fn set_waker(&self, waker: &Waker) {
        self.is_waited_for.store(true, Ordering::Relaxed);
        let stands = self.waker.lock().as_ref().is_some_and(|left| left.will_wake(waker));
        if !stands {
            // The clone, and the drop of the waker that it replaces, run the user's code: outside of the lock.
            let waker = Some(waker.clone());
            let stale = std::mem::replace(&mut *self.waker.lock(), waker);
            drop(stale);
        }
    }

    pub(crate) fn take_waker(&self) -> Option<Waker> {
        self.waker.lock().take()
    }

    /// A waker that was made from this choice was called.
    pub(super) fn notify(&self) {
        if let Some(waker) = self.take_waker() {
            waker.wake();
        }
    }

    /// Whether no task waits for this choice: its select polls each branch once and does not wait (SELECT-8).
    pub(crate) fn is_noop(&self) -> bool {
        !self.is_waited_for.load(Ordering::Relaxed)
    }

    /// Calls `f` with the waker, under its lock: `f` runs no code of the user.
    pub(super) fn with_waker<R>(&self, f: impl FnOnce(Option<&Waker>) -> R) -> R {
        f(self.waker.lock().as_ref())
    }

    /// Makes it as new, for another select. The caller must have the only references, or a late granter would claim the
    /// next select.
    pub(crate) fn reset(&self) {
        self.word.store(u64::from(OPEN), Ordering::Relaxed);
        self.is_waited_for.store(false, Ordering::Relaxed);
    }
}

/// The mark that [`Choice::enter`] sets; its drop takes the mark away.
pub(crate) struct Entered(());

impl Drop for Entered {
    fn drop(&mut self) {
        ENTERED.with(|entered| entered.set(0));
    }
}
