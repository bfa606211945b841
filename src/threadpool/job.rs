//! One job: what is to be run, what came of it, and who wants to know. Its pool and its future share it.
//!
//! ```text
//!   Pending ──a worker takes `work`──► Running ──► Finished
//!      └─────cancel takes `work`─────► Cancelled
//! ```
//!
//! Whoever takes `work` completes the job: it calls the callbacks, with no lock held, and then sets `done`. Under the lock
//! there is no code of the user, not even a drop.
#![forbid(unsafe_code)]

use std::fmt;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::error::JobError;
use super::locked;
use crate::hub::park::Waiter;
use crate::hub::{Reporter, discard, report_panic};
use crate::sync::channel::Sender;
use crate::sys::fork::fork_epoch;
use crate::sys::inside::{Mutex, MutexGuard};

pub(crate) type Outcome<T> = Result<T, JobError>;
type Work<T> = Box<dyn FnOnce() -> Outcome<T> + Send>;
pub(super) type Callback<T> = Box<dyn FnOnce(Result<&T, &JobError>) + Send>;

/// How far a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// It waits for a worker.
    Pending,
    /// A worker runs it.
    Running,
    /// It has run: there is a value, or an error.
    Finished,
    /// It was cancelled before it ran.
    Cancelled,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            State::Pending => "pending",
            State::Running => "running",
            State::Finished => "finished",
            State::Cancelled => "cancelled",
        })
    }
}

/// Who gets the outcome, or hears of it.
pub(super) enum Next<T> {
    Nobody,
    /// The one that waits on the future.
    Wake(Waiter),
    /// One that waits for several: this is the number of this one.
    Tell(Sender<usize>, usize),
    /// It takes the outcome.
    Give(Box<dyn FnOnce(Outcome<T>) + Send>),
    /// The future was dropped.
    Gone,
}

struct Slot<T> {
    state: State,
    /// Whether the outcome is there, or was.
    done: bool,
    work: Option<Work<T>>,
    outcome: Option<Outcome<T>>,
    next: Next<T>,
    callbacks: Vec<Callback<T>>,
}

pub(super) struct Job<T> {
    slot: Mutex<Slot<T>>,
    fork_epoch: u64,
}

/// What a pool does with a job.
pub(super) trait Run: Send + Sync {
    /// Runs it, unless it was cancelled.
    fn run(&self);

    /// Completes it with this error instead; `false` if it runs or has run.
    fn fail(&self, error: JobError) -> bool;
}

impl<T> Job<T> {
    pub(super) fn new(work: impl FnOnce() -> Outcome<T> + Send + 'static) -> Job<T> {
        Job {
            slot: Mutex::new(Slot {
                state: State::Pending,
                done: false,
                work: Some(Box::new(work)),
                outcome: None,
                next: Next::Nobody,
                callbacks: Vec::new(),
            }),
            fork_epoch: fork_epoch(),
        }
    }

    /// What lies in it. `None` in a forked child, if an OS thread of the parent was about to change it: then nobody can tell.
    fn slot(&self) -> Option<MutexGuard<'_, Slot<T>>> {
        if !self.is_of_parent() {
            return Some(locked(&self.slot));
        }
        self.slot.try_lock()
    }

    pub(super) fn state(&self) -> State {
        self.slot().map_or(State::Running, |slot| slot.state)
    }

    pub(super) fn is_done(&self) -> bool {
        self.slot().is_some_and(|slot| slot.done)
    }

    /// Whether its outcome is there and is an error, other than a cancel.
    pub(super) fn has_failed(&self) -> bool {
        let slot = self.slot();
        slot.is_some_and(|slot| matches!(&slot.outcome, Some(Err(error)) if !error.is_cancelled()))
    }

    /// Whether it will never be done: the OS thread that would do it is the parent process's.
    pub(super) fn is_of_parent(&self) -> bool {
        self.fork_epoch != fork_epoch()
    }

    /// The outcome, once; `None` before it is there.
    pub(super) fn take(&self) -> Option<Outcome<T>> {
        let mut slot = self.slot()?;
        slot.done
            .then(|| slot.outcome.take().unwrap_or_else(|| Err(JobError::taken())))
    }

    /// Gives back what [`take`](Self::take) gave.
    pub(super) fn put_back(&self, outcome: Outcome<T>) {
        if let Some(mut slot) = self.slot() {
            slot.outcome = Some(outcome);
        }
    }

    /// Says who is next, in the place of whom was; if it is done already this does nothing, and gives it back.
    pub(super) fn set_next(&self, next: Next<T>) -> Result<(), Next<T>> {
        let Some(mut slot) = self.slot() else {
            return Ok(());
        };
        if slot.done {
            return Err(next);
        }
        let before = mem::replace(&mut slot.next, next);
        drop(slot);
        drop(before);
        Ok(())
    }

    /// Has it called as it completes; if it is done already this does nothing, and gives it back.
    pub(super) fn push(&self, callback: Callback<T>) -> Result<(), Callback<T>> {
        let Some(mut slot) = self.slot() else {
            return Ok(());
        };
        if slot.done {
            return Err(callback);
        }
        slot.callbacks.push(callback);
        Ok(())
    }

    fn begin(&self, state: State) -> Option<Work<T>> {
        let mut slot = self.slot()?;
        let work = slot.work.take()?;
        slot.state = state;
        Some(work)
    }

    /// What the one that took `work` does in the end.
    fn complete(&self, outcome: Outcome<T>) {
        let next = loop {
            let mut slot = locked(&self.slot);
            if slot.callbacks.is_empty() {
                slot.done = true;
                if slot.state == State::Running {
                    slot.state = State::Finished;
                }
                let next = mem::replace(&mut slot.next, Next::Nobody);
                if !matches!(next, Next::Give(_) | Next::Gone) {
                    slot.outcome = Some(outcome);
                    break next;
                }
                drop(slot);
                return match next {
                    Next::Give(taker) => guarded(|| taker(outcome)),
                    // Nobody waits for it any more.
                    _ => settle(outcome),
                };
            }
            let callbacks = mem::take(&mut slot.callbacks);
            drop(slot);
            for callback in callbacks {
                guarded(|| callback(outcome.as_ref()));
            }
        };
        match next {
            // Here and now: this OS thread may have a hub, of a job's, that never turns again.
            Next::Wake(waiter) => guarded(|| waiter.wake_here()),
            // If nobody receives it, nobody waits.
            Next::Tell(sender, number) => drop(sender.send(number)),
            _ => {}
        }
    }

    /// Completes it as cancelled, unless it runs or has run; whether it is cancelled.
    pub(super) fn cancel(&self) -> bool {
        let Some(work) = self.begin(State::Cancelled) else {
            return self.state() == State::Cancelled;
        };
        discard(work);
        self.complete(Err(JobError::cancelled()));
        true
    }
}

impl<T: Send> Run for Job<T> {
    fn run(&self) {
        if let Some(work) = self.begin(State::Running) {
            let result = catch_unwind(AssertUnwindSafe(work));
            self.complete(result.unwrap_or_else(|payload| Err(JobError::panicked(payload))));
        }
    }

    fn fail(&self, error: JobError) -> bool {
        if error.is_cancelled() {
            return self.cancel();
        }
        let Some(work) = self.begin(State::Running) else {
            return false;
        };
        discard(work);
        self.complete(Err(error));
        true
    }
}

/// Drops a value that nobody has taken: its destructor may panic, which is reported.
pub(super) fn settle<T>(value: T) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(value))) {
        let who = String::from("the value of a pool's job, as it was dropped,");
        report_panic(&Reporter { who }, payload);
    }
}

/// Calls code of the user that nobody waits for: its panic is reported, and goes no further.
pub(super) fn guarded(f: impl FnOnce()) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(f)) {
        let who = String::from("a callback of a pool's job");
        report_panic(&Reporter { who }, payload);
    }
}
