//! The budget of a resume and the time limit of a turn: they keep one busy green thread from stopping the others.
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
//! - **U1** A step is taken *before* the attempt. So an interrupt that `spend` delivers finds the caller without a
//!   byte, a permit or a message in hand.
//! - **U2** No interrupt is delivered with [`Mode::Must`], in a shield, while unwinding, or in destructors of
//!   thread-locals. Callbacks never give way. Neither does a local green thread that unwinds, because other tasks would
//!   see its `panicking()`.
//! - **U3** A future cannot give way itself. It wakes its own task and returns `Pending`. With a waker that wakes
//!   nothing it goes on instead, because the caller would take that `Pending` for the answer.
//! - **U4** Operations that never wait (`try_…`, `set`, an unlock, a send without a bound) take no step: local code
//!   holds borrows over them.
//! - **U5** A turn resumes at most [`RESUMES`] tasks from each queue, and fewer if [`SLICE`] has passed. The clock is
//!   read after a *stride* of resumes, which is 1 after a long one and doubles while they are short. It is not read
//!   while there is no timer, no descriptor and no message. The first timer or descriptor ends the current stride.
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

/// Steps in a round. Between two rounds the clock is read, if something may be late.
const STEPS: u32 = 64;

/// Rounds in a resume: a resume is worth 128 operations.
const ROUNDS: u32 = 2;

/// Each `CHUNK` bytes that an operation moves count as one more step: at most 2 MiB in a resume.
const CHUNK: usize = 16 * 1024;

/// How long green threads run before timers and descriptors are looked at again, in nanoseconds.
const SLICE: u64 = 1_000_000;

/// Resumes from one queue, before the turn goes on to the other one, and then to timers and descriptors.
const RESUMES: u32 = 128;

/// The longest stride, in resumes.
const STRIDE: u32 = 32;

/// What the callbacks of a turn may take of it, and what its messages may: half a slice each. With a virtual clock there is no
/// limit, so that the order does not depend on the machine.
#[derive(Default)]
pub(super) struct Share {
    began: Option<u64>,
}

impl Share {
    /// Whether the share is used up before step `n`. The clock is read after the first step, which is often the only one, and
    /// then less and less often, down to once in a [`STRIDE`].
    pub(super) fn is_over(&mut self, hub: &Hub, n: usize) -> bool {
        let looks = n.is_power_of_two() || n > 0 && n.is_multiple_of(STRIDE as usize);
        if !looks || hub.clock.is_virtual() {
            return false;
        }
        let now = hub.clock.now();
        now - *self.began.get_or_insert(now) >= SLICE / 2
    }
}

/// What is left of the budget of the running code. A resume sets both fields with one store.
#[repr(C, align(8))]
pub(super) struct Budget {
    steps: Cell<u32>,
    rounds: Cell<u32>,
}

impl Budget {
    /// The budget of code that the hub has not resumed: its first step finds the round over.
    pub(super) const fn new() -> Budget {
        Budget {
            steps: Cell::new(0),
            rounds: Cell::new(0),
        }
    }
}

/// Begins a resume, in the thread-locals that are in use.
#[inline(always)]
pub(super) fn begin() {
    with_budget(|budget| {
        budget.steps.set(STEPS);
        budget.rounds.set(0);
    });
}

/// Takes a step; `false` if the round has none left. Then the counter has wrapped, and the caller sets it again.
#[inline(always)]
fn step() -> bool {
    with_budget(|budget| {
        let (left, is_over) = budget.steps.get().overflowing_sub(1);
        budget.steps.set(left);
        !is_over
    })
}

/// Takes a step before the attempt of an operation that may park (U1).
///
/// Gives [`Wake::Interrupted`] only with [`Mode::Cancel`], and then nothing was attempted: the caller gives back what
/// it holds, and then calls [`raise`](interrupt::raise).
#[inline(always)]
pub(crate) fn spend(mode: Mode) -> Wake {
    if step() { Wake::Ready } else { end_round(mode) }
}

/// The same for a caller that must ask the system for the mode: it does so only at the end of a round.
#[cfg(all(feature = "monkey", target_os = "linux"))]
#[inline(always)]
pub(crate) fn spend_with(mode: impl FnOnce() -> Mode) -> Wake {
    if step() { Wake::Ready } else { end_round(mode()) }
}

/// The same for the poll of a future (U3). If it gives `Pending`, it has woken the task.
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
        with_budget(|budget| {
            let steps = u32::try_from(bytes / CHUNK).unwrap_or(STEPS);
            // Not below zero: the operation is done, so the next one finds the round over.
            budget.steps.set(budget.steps.get().saturating_sub(steps));
        });
    }
}

/// Begins the next round with the caller's operation; gives whether the resume is over.
fn next_round(hub: &Hub) -> bool {
    with_budget(|budget| {
        budget.steps.set(STEPS - 1);
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
        begin();
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
        begin();
        return Poll::Ready(());
    };
    let waker = context.waker();
    if !next_round(hub) || hub.is_alone() || panicking() || is_noop(waker) {
        // `Pending` would let no other task run, or would show them `panicking()`, or no poll would follow it (U3).
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
    /// Begins the batch of a queue.
    #[inline]
    pub(super) fn begin_batch(&self) {
        let stride = self.stride.get();
        self.in_stride.set(stride);
        self.in_batch.set(RESUMES - stride);
    }

    /// Takes one resume from the batch; `false` if the turn has none left for this queue.
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

    /// The stride is over: begins the next one, unless the batch is over or the turn is late (U5).
    #[cold]
    #[inline(never)]
    fn begins_stride(&self) -> bool {
        if self.may_be_late() {
            return self.begins_watched_stride();
        }
        // Nothing can be late: no clock, and the longest stride.
        self.stride.set(STRIDE);
        self.takes_stride(STRIDE)
    }

    #[inline(never)]
    fn begins_watched_stride(&self) -> bool {
        // The clock is read here, once in a stride. `is_late` also sets the length of the next one.
        self.in_batch.get() > 0 && !self.is_late() && self.takes_stride(self.stride.get())
    }

    /// Takes a stride, or what is left of it, from the batch, and one resume from the stride; `false` if nothing was
    /// left.
    #[inline(always)]
    fn takes_stride(&self, stride: u32) -> bool {
        let left = self.in_batch.get();
        self.in_batch.set(left.saturating_sub(stride));
        self.in_stride.set(stride.min(left).saturating_sub(1));
        left > 0
    }

    /// Whether the running code may delay something that is bound to the clock: a timer, a descriptor or a message.
    #[inline]
    pub(super) fn may_be_late(&self) -> bool {
        !self.clock.is_virtual()
            && (!self.timers.is_empty() || self.reactor.is_waited_for() || self.shared.inbox().is_pending())
    }

    /// From now on something may be late. The current stride may be long, so it ends here.
    #[inline]
    pub(super) fn watches_clock(&self) {
        self.stride.set(1);
        self.in_stride.set(0);
    }

    /// Whether nothing at all waits for the running code to give way.
    fn is_alone(&self) -> bool {
        self.is_quiet() && self.timers.is_empty() && !self.reactor.is_waited_for() && !self.shared.inbox().is_pending()
    }

    /// Notes that timers and descriptors are looked at now.
    pub(super) fn looks(&self, now: Option<u64>) {
        self.looked.set(now);
    }

    /// Whether the last look at timers and descriptors was a slice ago. If its time is not known, the slice begins when
    /// this is first called. Also sets the stride.
    #[inline(never)]
    pub(super) fn is_late(&self) -> bool {
        let now = self.clock.now();
        let Some(looked) = self.looked.get() else {
            // After a sleep the time of the look is not known: begin the slice now.
            self.looked.set(Some(now));
            return false;
        };
        let passed = now.saturating_sub(looked);
        if passed >= SLICE {
            // The last resumes were long: read the clock after each one until they are short again.
            self.stride.set(1);
            self.in_stride.set(0);
        } else if passed < SLICE / 8 {
            self.stride.set((self.stride.get() * 2).min(STRIDE));
        }
        passed >= SLICE
    }

    /// Whether a kill or a time-out is due to the running code and may be delivered now.
    fn is_interrupted(&self) -> bool {
        let task = self.running();
        task.interrupt.get() != 0 && !panicking() && interrupt::is_due(task)
    }

    /// Gives way, for an operation that has not parked for long. An interrupt that is due is delivered instead, or
    /// after the return if it has come meanwhile.
    #[cold]
    pub(super) fn let_others_run(&'static self, mode: Mode) -> Wake {
        let delivers = mode == Mode::Cancel;
        let is_due = delivers && self.is_interrupted();
        // An interrupt is delivered at once; but if it was raised before and swallowed, other tasks run first.
        let may_go_on = is_due && !interrupt::was_raised(self.running());
        // It would be useless if nothing else waits, and other tasks must not see `panicking()` (U2).
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
