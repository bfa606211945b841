//! The budget of a resume, which keeps one busy green thread from stopping the others. (`pace.rs` has the time limit of
//! a turn.)
//!
//! A green thread gives way where it parks. But an operation that succeeds at once does not park. So with a peer that
//! always has bytes to send, a channel that always has room, or a lock that is always free, a green thread would keep
//! the processor forever. Therefore every operation that *could* have parked first takes a step from a budget, and
//! gives way once the budget is used up.
//!
//! ```text
//!   resume ──► begin: 2 rounds of 64 steps
//!   operation ──► spend: a step left? ── yes ──► attempt
//!                          │ no: the round is over
//!                          ├─ a kill or time-out is due? ─────────────► Interrupted, nothing was attempted
//!                          ├─ rounds left, and no timer is late? ─────► next round, attempt
//!                          └─ give way, look for an interrupt again ──► attempt
//! ```
//!
//! # Invariants
//! - **BUDGET-1** A step is taken *before* the attempt. So an interrupt that `spend` delivers finds the caller without
//!   a byte, a permit or a message in hand.
//! - **BUDGET-2** No interrupt is delivered with [`Mode::Must`], in a shield, while unwinding, or in destructors of
//!   thread-locals. Callbacks never give way. Neither does a local green thread that unwinds, because other tasks would
//!   see its `panicking()`.
//! - **BUDGET-3** A future cannot give way itself. It wakes its own task and returns `Pending`. With a waker that wakes
//!   nothing it goes on instead, because the caller would take that `Pending` for the answer.
//! - **BUDGET-4** Operations that never wait (`try_…`, `set`, an unlock, a send without a bound) take no step: local
//!   code holds borrows over them.
//!
//! How long a turn may go on is in `pace.rs` (PACE-1). With a virtual clock only operations are counted, so that the
//! order does not depend on the machine.
#![forbid(unsafe_code)]

use std::task::{Context, Poll, Waker};
use std::thread::panicking;

use super::choice::Choice;
use super::interrupt;
use super::scheduler::{Budget, Hub};
use super::waiter::{Mode, Wake};

/// Rounds in a resume: a resume is worth 128 operations.
const ROUNDS: u32 = 2;

/// Each `CHUNK` bytes that an operation moves count as one more step: at most 2 MiB in a resume.
const CHUNK: usize = 16 * 1024;

/// Takes a step; `false` if the round has none left. Then the counter has wrapped, and the caller sets it again.
#[inline(always)]
fn step() -> bool {
    Budget::with(|budget| {
        let (left, is_over) = budget.steps.get().overflowing_sub(1);
        budget.steps.set(left);
        !is_over
    })
}

/// Takes a step before the attempt of an operation that may park (BUDGET-1).
///
/// Gives [`Wake::Interrupted`] only with [`Mode::Cancel`], and then nothing was attempted: the caller gives back what
/// it holds, and then calls [`raise`](interrupt::raise).
#[inline(always)]
pub(crate) fn spend(mode: Mode) -> Wake {
    if step() { Wake::Ready } else { end_round(mode) }
}

/// Like [`spend`], for a caller that must ask the system for the mode. `mode` is called only at the end of a round.
#[cfg(feature = "monkey")]
#[inline(always)]
pub(crate) fn spend_with(mode: impl FnOnce() -> Mode) -> Wake {
    if step() { Wake::Ready } else { end_round(mode()) }
}

/// Takes a step for the poll of a future (BUDGET-3). If this gives `Pending`, it has woken the task.
#[inline(always)]
pub(crate) fn poll(context: &Context<'_>) -> Poll<()> {
    if step() {
        Poll::Ready(())
    } else {
        poll_end_round(context)
    }
}

/// Charges an operation for the bytes that it has moved: large ones cost further steps.
#[inline(always)]
pub(crate) fn charge(bytes: usize) {
    if bytes >= CHUNK {
        Budget::with(|budget| {
            let steps = u32::try_from(bytes / CHUNK).unwrap_or(Budget::STEPS);
            // Not below zero: the operation is done, so the next one finds the round over.
            budget.steps.set(budget.steps.get().saturating_sub(steps));
        });
    }
}

/// Begins the next round with the caller's operation; gives whether the resume is over.
fn next_round(hub: &Hub) -> bool {
    Budget::with(|budget| {
        budget.steps.set(Budget::STEPS - 1);
        // A resume also ends early if a timer, a descriptor or a message may have waited for a slice.
        let rounds = budget.rounds.get() + 1;
        let is_over = rounds >= ROUNDS || hub.may_be_late() && hub.is_late();
        budget.rounds.set(if is_over { 0 } else { rounds });
        is_over
    })
}

#[cold]
#[inline(never)]
fn end_round(mode: Mode) -> Wake {
    let Some(hub) = Hub::try_current().filter(|hub| !hub.may_not_park()) else {
        // There is no hub, or this is a callback, which may not give way: begin afresh.
        Budget::begin();
        return Wake::Ready;
    };
    let is_over = next_round(hub);
    // An interrupt is delivered at the end of each round, not only at the end of the resume.
    if mode == Mode::Cancel && hub.is_interrupted() || is_over {
        hub.let_others_run(mode)
    } else {
        Wake::Ready
    }
}

#[cold]
#[inline(never)]
fn poll_end_round(context: &Context<'_>) -> Poll<()> {
    let Some(hub) = Hub::try_current() else {
        Budget::begin();
        return Poll::Ready(());
    };
    let waker = context.waker();
    if !next_round(hub) || hub.has_no_other_work() || panicking() || is_noop(waker) {
        // `Pending` would let no other task run, or would show them `panicking()`, or no poll would follow it
        // (BUDGET-3).
        return Poll::Ready(());
    }
    waker.wake_by_ref();
    Poll::Pending
}

/// Whether no other poll follows a poll with this waker. A waker without data can wake nothing in particular: such are
/// those of std and of the crate futures (`now_or_never`).
fn is_noop(waker: &Waker) -> bool {
    waker.data().is_null() || Choice::of(waker).is_some_and(Choice::is_noop)
}

impl Hub {
    /// Whether a kill or a time-out is due to the running code and may be delivered now.
    fn is_interrupted(&self) -> bool {
        let task = self.running();
        task.interrupt.get() != 0 && !panicking() && interrupt::is_due(task)
    }

    /// Gives way, for code that has not parked for long. If an interrupt is due, this delivers it instead. If an
    /// interrupt comes while other tasks run, this delivers it afterwards.
    #[cold]
    pub(super) fn let_others_run(&'static self, mode: Mode) -> Wake {
        let delivers = mode == Mode::Cancel;
        let is_due = delivers && self.is_interrupted();
        // An interrupt is delivered at once; but if it was raised before and swallowed, other tasks run first.
        let may_go_on = is_due && !interrupt::was_raised(self.running());
        // To give way would be useless if nothing else waits, and other tasks must not see `panicking()` (BUDGET-2).
        if !may_go_on && !self.has_no_other_work() && !self.would_leak() {
            self.give_way(self.running());
        }
        if is_due || delivers && self.is_interrupted() {
            Wake::Interrupted
        } else {
            Wake::Ready
        }
    }
}
