//! The budget of a resume, and the time limit of a turn: what keeps one busy green thread from stopping the others.
//!
//! A green thread gives way where it parks. An operation that succeeds at once does not park, so a peer that is never
//! short of bytes, a channel that always has room or a free lock would keep the processor for ever. Therefore every
//! operation that *could* have parked takes a step from a budget first, and gives way when that is used up.
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
//! - **U1** A step is taken *before* the attempt. So an interrupt that `spend` delivers finds the caller without a byte, a
//!   permit or a message in hand.
//! - **U2** With [`Mode::Must`], in a shield, while unwinding and in the destructors of thread-locals nothing is delivered.
//!   Callbacks never give way, and neither does a local green thread that unwinds: others would see its `panicking()`.
//! - **U3** A future cannot give way itself. It wakes its own task and is `Pending`; with a waker that does nothing it goes
//!   on, for a `Pending` would then be an answer, and a wrong one.
//! - **U4** Operations that never wait (`try_…`, `set`, an unlock, a send without a bound) take no step: local code holds
//!   borrows over them.
//! - **U5** A turn resumes at most [`RESUMES`] from each queue, and stops earlier once [`SLICE`] has passed. The clock is
//!   read after a *stride* of resumes, which is 1 after a long one and doubles while they are short. While there is no timer,
//!   no descriptor and no message it is not read; the first timer or descriptor ends the stride that is under way.
//!
//! With a virtual clock only operations and resumes are counted, so that the order does not depend on the machine.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::task::{Context, Poll, Waker};
use std::thread::panicking;

use super::choice::Choice;
use super::here::with_budget;
use super::park::{Mode, Wake};
use super::{Hub, interrupt};

/// Steps of a round. Between two rounds the clock is read, if something may be late.
const STEPS: u32 = 64;

/// Rounds of a resume, so that it is worth 128 operations.
const ROUNDS: u32 = 2;

/// So many bytes count as a step of their own: 2 MiB at most in one resume.
const CHUNK: usize = 16 * 1024;

/// How long green threads run before timers and descriptors are looked at again, in nanoseconds.
pub(super) const SLICE: u64 = 1_000_000;

/// Resumes from one queue before the turn goes on to the other, and then to timers and descriptors.
const RESUMES: u32 = 128;

/// Messages of other OS threads that a turn handles.
pub(super) const MESSAGES: usize = 1024;

/// The longest stride.
const STRIDE: u32 = 32;

/// Whether the clock is read before step `n` of a loop of unknown steps: after the first, and then ever more seldom, up to once
/// in a [`STRIDE`].
pub(super) fn is_look(n: usize) -> bool {
    n.is_power_of_two() || n.is_multiple_of(STRIDE as usize)
}

/// What is left to the code that runs. One store sets both at each resume.
#[repr(C, align(8))]
pub(super) struct Budget {
    steps: Cell<u32>,
    rounds: Cell<u32>,
}

impl Budget {
    /// Of code that the hub has not resumed: its first step finds the round over.
    pub(super) const fn new() -> Budget {
        Budget {
            steps: Cell::new(0),
            rounds: Cell::new(0),
        }
    }
}

/// A resume begins, in the thread-locals that are in use.
#[inline(always)]
pub(super) fn begin() {
    with_budget(|budget| {
        budget.steps.set(STEPS);
        budget.rounds.set(0);
    });
}

/// Takes a step; whether the round has one. If not, the counter wraps, and the caller sets it again.
#[inline(always)]
fn step() -> bool {
    with_budget(|budget| {
        let (left, is_over) = budget.steps.get().overflowing_sub(1);
        budget.steps.set(left);
        !is_over
    })
}

/// Before the attempt of an operation that may park (U1).
///
/// [`Wake::Interrupted`], with [`Mode::Cancel`] only: nothing was attempted. The caller gives back what it holds and then
/// calls [`raise`](interrupt::raise).
#[inline(always)]
pub(crate) fn spend(mode: Mode) -> Wake {
    if step() { Wake::Ready } else { end_round(mode) }
}

/// The same where the mode is not known without asking the system.
#[cfg(all(feature = "monkey", target_os = "linux"))]
#[inline(always)]
pub(crate) fn spend_with(mode: impl FnOnce() -> Mode) -> Wake {
    if step() { Wake::Ready } else { end_round(mode()) }
}

/// The same for the poll of a future (U3): `Pending` has woken the task.
#[inline(always)]
pub(crate) fn poll(context: &Context<'_>) -> Poll<()> {
    if step() {
        Poll::Ready(())
    } else {
        poll_end_round(context)
    }
}

/// An operation has moved so many bytes: large ones count more.
#[inline(always)]
pub(crate) fn charge(bytes: usize) {
    if bytes >= CHUNK {
        with_budget(|budget| {
            let steps = u32::try_from(bytes / CHUNK).unwrap_or(STEPS);
            budget.steps.set(budget.steps.get().saturating_sub(steps));
        });
    }
}

/// A round is over, and this operation is the first of the next one; whether the resume is over too.
fn next_round(hub: &Hub) -> bool {
    with_budget(|budget| {
        budget.steps.set(STEPS - 1);
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
        begin();
        return Wake::Ready;
    };
    let is_over = next_round(hub);
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
        begin();
        return Poll::Ready(());
    };
    let waker = context.waker();
    if !next_round(hub) || hub.is_alone() || panicking() || is_noop(waker) {
        return Poll::Ready(());
    }
    waker.wake_by_ref();
    Poll::Pending
}

/// Whether a poll with this waker is not followed by another. One without data wakes nothing in particular: so are those
/// of std and of the crate futures (`now_or_never`).
fn is_noop(waker: &Waker) -> bool {
    waker.data().is_null() || Choice::of(waker).is_some_and(Choice::is_noop)
}

impl Hub {
    /// The turn comes to a queue.
    #[inline]
    pub(super) fn begin_batch(&self) {
        let stride = self.stride.get();
        self.in_stride.set(stride);
        self.in_batch.set(RESUMES - stride);
    }

    /// Takes one resume from the batch; whether the turn still has it.
    #[inline(always)]
    pub(super) fn takes_resume(&self) -> bool {
        match self.in_stride.get().checked_sub(1) {
            Some(left) => {
                self.in_stride.set(left);
                true
            }
            None => self.begins_stride(),
        }
    }

    /// The stride is over (U5).
    #[cold]
    #[inline(never)]
    fn begins_stride(&self) -> bool {
        if self.may_be_late() {
            return self.begins_watched_stride();
        }
        self.stride.set(STRIDE);
        self.takes_stride(STRIDE)
    }

    #[inline(never)]
    fn begins_watched_stride(&self) -> bool {
        self.in_batch.get() > 0 && !self.is_late() && self.takes_stride(self.stride.get())
    }

    /// Takes so many resumes from the batch, or what is left of it, and one of these; whether there was one.
    #[inline(always)]
    fn takes_stride(&self, stride: u32) -> bool {
        let left = self.in_batch.get();
        self.in_batch.set(left.saturating_sub(stride));
        self.in_stride.set(stride.min(left).saturating_sub(1));
        left > 0
    }

    /// Whether there is anything that the code that runs may keep waiting by the clock: a timer, a descriptor, a message.
    #[inline]
    pub(super) fn may_be_late(&self) -> bool {
        !self.clock.is_virtual()
            && (!self.timers.is_empty() || self.reactor.is_waited_for() || self.shared.inbox().is_pending())
    }

    /// From now on something may be late: the stride under way, which may be a long one, is over.
    #[inline]
    pub(super) fn watches_clock(&self) {
        self.stride.set(1);
        self.in_stride.set(0);
    }

    /// Whether nothing at all waits for the code that runs to give way.
    fn is_alone(&self) -> bool {
        self.is_quiet() && self.timers.is_empty() && !self.reactor.is_waited_for() && !self.shared.inbox().is_pending()
    }

    /// Timers and descriptors are looked at now.
    pub(super) fn looks(&self, now: Option<u64>) {
        self.looked.set(now);
    }

    /// Whether that was a slice ago; or, if it is not known when it was, a slice from the first time that this is asked.
    /// Sets the stride by the answer.
    #[inline(never)]
    pub(super) fn is_late(&self) -> bool {
        let now = self.clock.now();
        let Some(looked) = self.looked.get() else {
            self.looked.set(Some(now));
            return false;
        };
        let passed = now.saturating_sub(looked);
        if passed >= SLICE {
            self.stride.set(1);
            self.in_stride.set(0);
        } else if passed < SLICE / 8 {
            self.stride.set((self.stride.get() * 2).min(STRIDE));
        }
        passed >= SLICE
    }

    /// Whether a kill or a time-out is due to the code that runs, and may be delivered now.
    fn is_interrupted(&self) -> bool {
        let task = self.running();
        task.interrupt.get() != 0 && !panicking() && interrupt::is_due(task)
    }

    /// Gives way, for an operation that has not parked for long. An interrupt that is due is delivered instead, or
    /// afterwards if it has come meanwhile.
    #[cold]
    pub(super) fn let_others_run(&'static self, mode: Mode) -> Wake {
        let delivers = mode == Mode::Cancel;
        let is_due = delivers && self.is_interrupted();
        // What is due has the way clear, but for code that swallows it again and again.
        let may_go_on = is_due && !interrupt::was_raised(self.running());
        if !may_go_on && !self.is_alone() && !self.would_leak() {
            self.give_way(self.running());
        }
        if is_due || delivers && self.is_interrupted() {
            Wake::Interrupted
        } else {
            Wake::Ready
        }
    }
}
