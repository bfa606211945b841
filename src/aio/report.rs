//! Failures that no caller gets: errors that were never looked at, and callbacks that panicked.
#![forbid(unsafe_code)]

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::events::EventLoop;
use super::slow::slow;
use super::{AnyTask, TaskError};
use crate::hub::{self, complain};

/// What an exception handler is told.
///
/// # Coming from Python
/// The `context` of `loop.call_exception_handler`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ExceptionContext {
    /// What has happened.
    pub message: String,
    /// The error.
    pub exception: Option<TaskError>,
    /// The task that failed.
    pub task: Option<AnyTask>,
}

impl fmt::Display for ExceptionContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if let Some(exception) = &self.exception {
            write!(f, ": {exception}")?;
        }
        match &self.task {
            Some(task) => write!(f, " ({task:?})"),
            None => Ok(()),
        }
    }
}

/// The last handle of a task has gone, and its error was never looked at.
pub(super) fn never_retrieved(task: AnyTask, error: TaskError) {
    let at = EventLoop::at(&task.0.hub);
    tell(
        at.as_ref(),
        &ExceptionContext {
            message: "task exception was never retrieved".into(),
            exception: Some(error),
            task: Some(task),
        },
    );
}

/// The callback that a server called for a connection has failed.
pub(super) fn callback_failed(failure: &str) {
    let context = ExceptionContext {
        message: "unhandled exception in a connection's callback".into(),
        exception: Some(TaskError::raised(failure)),
        task: None,
    };
    tell(EventLoop::at(&hub::handle()).as_ref(), &context);
}

/// Tells the loop's handler; without one, stderr.
pub(super) fn tell(event_loop: Option<&EventLoop>, context: &ExceptionContext) {
    let Some(handler) = event_loop.and_then(EventLoop::exception_handler) else {
        return complain(format_args!("{context}"));
    };
    if catch_unwind(AssertUnwindSafe(|| handler(context))).is_err() {
        complain(format_args!("the exception handler itself panicked, about: {context}"));
    }
}

/// Runs a callback: a panic goes to the handler.
pub(super) fn guarded(event_loop: &EventLoop, who: &dyn fmt::Display, f: impl FnOnce()) {
    let result = slow(Some(event_loop), who, || catch_unwind(AssertUnwindSafe(f)));
    if let Err(payload) = result {
        tell(
            Some(event_loop),
            &ExceptionContext {
                message: format!("exception in callback {who}"),
                exception: Some(TaskError::panicked(&*payload)),
                task: None,
            },
        );
    }
}
