//! Why a job has no value, and why it was not taken.
#![forbid(unsafe_code)]

use std::any::Any;
use std::fmt;
use std::sync::Mutex;

use crate::sys::poison::IgnorePoison;

/// Why a job of a pool has no value.
///
/// ```
/// use greenthread::threadpool;
/// let error = threadpool::to_thread(|| panic!("no")).wait().unwrap_err();
/// assert!(error.is_panic());
/// assert_eq!(error.to_string(), "the job panicked: no");
/// ```
pub struct JobError {
    /// Boxed, so that a `Result` with it stays small.
    repr: Box<Repr>,
}

enum Repr {
    /// The lock only makes the payload `Sync`.
    Panic(String, Mutex<Box<dyn Any + Send>>),
    Cancelled,
    Broken(String),
    #[cfg(feature = "process-pool")]
    Encoding(String),
    Lost,
    Interrupted,
    TimedOut,
    Taken,
}

impl JobError {
    fn new(repr: Repr) -> JobError {
        JobError { repr: Box::new(repr) }
    }

    pub(crate) fn panicked(payload: Box<dyn Any + Send>) -> JobError {
        let text = String::from(crate::fiber::unwind::message(&*payload));
        JobError::new(Repr::Panic(text, Mutex::new(payload)))
    }

    pub(crate) fn cancelled() -> JobError {
        JobError::new(Repr::Cancelled)
    }

    pub(crate) fn broken(why: impl Into<String>) -> JobError {
        JobError::new(Repr::Broken(why.into()))
    }

    #[cfg(feature = "process-pool")]
    pub(crate) fn encoding(why: impl Into<String>) -> JobError {
        JobError::new(Repr::Encoding(why.into()))
    }

    pub(crate) fn lost() -> JobError {
        JobError::new(Repr::Lost)
    }

    pub(crate) fn interrupted() -> JobError {
        JobError::new(Repr::Interrupted)
    }

    pub(crate) fn timed_out() -> JobError {
        JobError::new(Repr::TimedOut)
    }

    pub(crate) fn taken() -> JobError {
        JobError::new(Repr::Taken)
    }

    /// Whether the job panicked.
    pub fn is_panic(&self) -> bool {
        matches!(*self.repr, Repr::Panic(..))
    }

    /// Whether the job was cancelled before it ran: by [`PoolFuture::cancel`](super::PoolFuture::cancel), or because
    /// its pool was shut down.
    pub fn is_cancelled(&self) -> bool {
        matches!(*self.repr, Repr::Cancelled)
    }

    /// Whether the job's worker broke: the initializer of an OS thread panicked, or the process died.
    pub fn is_broken(&self) -> bool {
        matches!(*self.repr, Repr::Broken(_))
    }

    /// Whether the job's argument or value could not be sent to another process.
    #[cfg(feature = "process-pool")]
    pub fn is_encoding(&self) -> bool {
        matches!(*self.repr, Repr::Encoding(_))
    }

    /// Whether the outcome cannot be known: this process is a forked child, and the job is its parent's; or the wait
    /// came after the hub's end.
    pub fn is_lost(&self) -> bool {
        matches!(*self.repr, Repr::Lost)
    }

    /// Whether the caller could not wait: it was unwinding, or was killed in a `panic = "abort"` build. This says
    /// nothing about the job.
    pub fn is_interrupted(&self) -> bool {
        matches!(*self.repr, Repr::Interrupted)
    }

    /// Whether the deadline of a [`Map`](super::Map) has passed.
    pub fn is_timed_out(&self) -> bool {
        matches!(*self.repr, Repr::TimedOut)
    }

    /// Whether the value was returned before, for example by
    /// [`PoolFuture::wait_timeout`](super::PoolFuture::wait_timeout).
    pub fn is_taken(&self) -> bool {
        matches!(*self.repr, Repr::Taken)
    }

    /// The panic's payload.
    ///
    /// # Panics
    /// If the error is not a panic.
    #[track_caller]
    pub fn into_panic(self) -> Box<dyn Any + Send> {
        match self.try_into_panic() {
            Ok(payload) => payload,
            Err(error) => panic!("into_panic needs a panic, but this JobError is none: {error}"),
        }
    }

    /// The panic's payload, or the error itself.
    ///
    /// # Errors
    /// The error itself, if it is not a panic.
    pub fn try_into_panic(self) -> Result<Box<dyn Any + Send>, JobError> {
        match *self.repr {
            Repr::Panic(_, payload) => Ok(payload.into_inner().ignore_poison()),
            repr => Err(JobError::new(repr)),
        }
    }
}

impl fmt::Display for JobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.repr {
            Repr::Panic(text, _) => write!(f, "the job panicked: {text}"),
            Repr::Cancelled => f.write_str("the job was cancelled before it ran"),
            Repr::Broken(why) => write!(f, "the job's worker failed: {why}"),
            #[cfg(feature = "process-pool")]
            Repr::Encoding(why) => write!(f, "the job did not pass between the processes: {why}"),
            Repr::Lost => {
                f.write_str("the job was lost: it was submitted before a fork, or the caller's hub has ended")
            }
            Repr::Interrupted => {
                f.write_str("the wait for the job was cut short: the caller is unwinding or was killed")
            }
            Repr::TimedOut => f.write_str("the job was not done in time"),
            Repr::Taken => f.write_str("the value of the job was taken before"),
        }
    }
}

impl fmt::Debug for JobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JobError({self})")
    }
}

impl std::error::Error for JobError {}

/// The pool was shut down, and takes no more jobs. The job that was to run has been dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShutDown;

impl fmt::Display for ShutDown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the pool was shut down and takes no more jobs")
    }
}

impl std::error::Error for ShutDown {}
