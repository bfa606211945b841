//! One job: its work, its outcome, and what is told of the outcome. Its pool and its future share it.
//!
//! ```text
//!   Pending ──a worker takes `work`──► Running ──► Finished
//!      └─────cancel takes `work`─────► Cancelled
//! ```
//!
//! The code that takes `work` completes the job: it calls the callbacks, without the lock, and then sets `done`. No
//! code of the user runs under the lock, not even a destructor.
#![forbid(unsafe_code)]

use std::fmt;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::error::JobError;
use super::locked;
use crate::hub::{Reporter, Waiter, discard, report_panic};
use crate::sync::channel::Sender;
use crate::sys::fork::fork_epoch;
use crate::sys::inside::{Mutex, MutexGuard};

pub(crate) type Outcome<T> = Result<T, JobError>;
type Work<T> = Box<dyn FnOnce() -> Outcome<T> + Send>;
pub(super) type Callback<T> = Box<dyn FnOnce(Result<&T, &JobError>) + Send>;

/// The state of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// The job waits for a worker.
    Pending,
    /// A worker runs the job.
    Running,
    /// The job has run: there is a value, or an error.
    Finished,
    /// The job was cancelled before it ran.
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

/// What gets the outcome, or is told of it.
pub(super) enum Next<T> {
    Nobody,
    /// The waiter on the future.
    Wake(Waiter),
    /// A waiter on several futures; the number is that of this future.
    Tell(Sender<usize>, usize),
    /// A function that takes the outcome.
    Give(Box<dyn FnOnce(Outcome<T>) + Send>),
    /// The future was dropped.
    Gone,
}

struct Slot<T> {
    state: State,
    /// Whether the outcome is there, or was there and has been taken.
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

/// A job as its pool sees it.
pub(super) trait Run: Send + Sync {
    /// Runs the job, unless it was cancelled.
    fn run(&self);

    /// Completes the job with this error instead. `false` if it runs or has run.
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

    /// The locked slot. `None` in a forked child if an OS thread of the parent was about to change it at the fork: then
    /// its contents cannot be trusted.
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

    /// Whether the outcome is there and is an error other than a cancel.
    pub(super) fn has_failed(&self) -> bool {
        let slot = self.slot();
        slot.is_some_and(|slot| matches!(&slot.outcome, Some(Err(error)) if !error.is_cancelled()))
    }

    /// Whether the job will never be done, because the OS thread that would run it belongs to the parent process.
    pub(super) fn is_of_parent(&self) -> bool {
        self.fork_epoch != fork_epoch()
    }

    /// Takes the outcome, once. `None` before it is there.
    pub(super) fn take(&self) -> Option<Outcome<T>> {
        let mut slot = self.slot()?;
        slot.done
            .then(|| slot.outcome.take().unwrap_or_else(|| Err(JobError::taken())))
    }

    /// Puts back what [`take`](Self::take) returned.
    pub(super) fn put_back(&self, outcome: Outcome<T>) {
        if let Some(mut slot) = self.slot() {
            slot.outcome = Some(outcome);
        }
    }

    /// Sets what gets the outcome, in place of what was set before. If the job is done already, nothing changes, and
    /// `next` is given back.
    pub(super) fn set_next(&self, next: Next<T>) -> Result<(), Next<T>> {
        let Some(mut slot) = self.slot() else {
            return Ok(());
        };
        if slot.done {
            return Err(next);
        }
        let before = mem::replace(&mut slot.next, next);
        // Without the lock: a waker's drop is code of the user.
        drop(slot);
        drop(before);
        Ok(())
    }

    /// Has `callback` called when the job completes. If the job is done already, nothing changes, and the callback is
    /// given back.
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

    /// Takes the work, if no other code has. The code that gets it must call [`complete`](Self::complete).
    fn begin(&self, state: State) -> Option<Work<T>> {
        let mut slot = self.slot()?;
        let work = slot.work.take()?;
        slot.state = state;
        Some(work)
    }

    /// Completes the job; to be called by the code that took `work`.
    fn complete(&self, outcome: Outcome<T>) {
        let next = loop {
            let mut slot = locked(&self.slot);
            // `done` is set under the lock under which no callback was left. So a later `push` is refused, and none is
            // forgotten.
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
                    // The future is gone, so no waiter wants the outcome.
                    _ => settle(outcome),
                };
            }
            // Without the lock, and with the outcome still here. Callbacks that are pushed meanwhile get the next
            // round.
            let callbacks = mem::take(&mut slot.callbacks);
            drop(slot);
            for callback in callbacks {
                guarded(|| callback(outcome.as_ref()));
            }
        };
        match next {
            // Wakes it directly. This OS thread may have a hub, made by a job, that never turns again to run a
            // callback.
            Next::Wake(waiter) => guarded(|| waiter.wake_directly()),
            // The send fails if the receiver is gone: then nothing waits.
            Next::Tell(sender, number) => drop(sender.send(number)),
            _ => {}
        }
    }

    /// Cancels the job, unless it runs or has run. Says whether it is cancelled.
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

/// Drops a value that was not taken. If its destructor panics, that is reported.
pub(super) fn settle<T>(value: T) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(value))) {
        let who = String::from("the destructor of the value of a pool's job");
        report_panic(&Reporter { name: who }, payload);
    }
}

/// Calls code of the user. If it panics, that is reported, and goes no further.
pub(super) fn guarded(f: impl FnOnce()) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(f)) {
        let who = String::from("a callback of a pool's job");
        report_panic(&Reporter { name: who }, payload);
    }
}
