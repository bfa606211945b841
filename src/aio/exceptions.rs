//! How a task can end without a value.
#![forbid(unsafe_code)]

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::sync::Arc;

use crate::fiber::unwind;

/// Why there is no value. It is cheap to clone: all waiters for one task get the same error.
///
/// # Coming from Python
/// What `task.result()` and `await` raise: `CancelledError`, `InvalidStateError`, `TimeoutError`, or the task's own
/// exception.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum TaskError {
    /// It was cancelled, with this message if there was one.
    Cancelled(Option<Arc<str>>),
    /// It gave an error: the `Err` of a [`fallible`](super::fallible) one.
    Raised(Arc<dyn Error + Send + Sync>),
    /// It panicked, and said this.
    Panicked(Arc<str>),
    /// It is not done yet.
    InvalidState,
    /// The time allowed has passed.
    TimedOut,
    /// Ctrl-C has cancelled it.
    Interrupted,
    /// The loop was stopped, or closed, before it was done.
    Stopped,
    /// Nothing runs here that could run it.
    NoRunningLoop,
}

impl TaskError {
    /// Whether it was cancelled.
    pub fn is_cancelled(&self) -> bool {
        matches!(self, TaskError::Cancelled(_))
    }

    /// Whether the time allowed has passed.
    pub fn is_timeout(&self) -> bool {
        matches!(self, TaskError::TimedOut)
    }

    /// Whether the task itself failed, by an error or a panic, which should not go unnoticed.
    pub fn is_exception(&self) -> bool {
        matches!(self, TaskError::Raised(_) | TaskError::Panicked(_))
    }

    pub(super) fn raised<E: Into<Box<dyn Error + Send + Sync>>>(error: E) -> TaskError {
        TaskError::Raised(Arc::from(error.into()))
    }

    pub(super) fn panicked(payload: &(dyn Any + Send)) -> TaskError {
        TaskError::Panicked(unwind::message(payload).into())
    }
}

impl fmt::Display for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TaskError::Cancelled(Some(message)) => write!(f, "the task was cancelled: {message}"),
            TaskError::Cancelled(None) => f.write_str("the task was cancelled"),
            TaskError::Raised(error) => fmt::Display::fmt(error, f),
            TaskError::Panicked(message) => write!(f, "panicked: {message}"),
            TaskError::InvalidState => f.write_str("the result is not ready: wait for the task first"),
            TaskError::TimedOut => f.write_str("the time allowed has passed"),
            TaskError::Interrupted => f.write_str("interrupted by Ctrl-C"),
            TaskError::Stopped => f.write_str("the event loop was stopped before the task was done"),
            TaskError::NoRunningLoop => f.write_str("no running event loop: start with aio::run or EventLoop"),
        }
    }
}

impl Error for TaskError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            TaskError::Raised(error) => Some(&**error),
            _ => None,
        }
    }
}

/// The errors of a [`TaskGroup`](super::TaskGroup), in the order of their coming.
///
/// # Coming from Python
/// `ExceptionGroup`.
#[derive(Clone, Debug)]
pub struct ExceptionGroup {
    pub(super) errors: Vec<TaskError>,
}

impl ExceptionGroup {
    /// Each of them; there is at least one.
    pub fn errors(&self) -> &[TaskError] {
        &self.errors
    }
}

impl fmt::Display for ExceptionGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of the tasks failed:", self.errors.len())?;
        self.errors.iter().try_for_each(|error| write!(f, "\n  {error}"))
    }
}

impl Error for ExceptionGroup {}
