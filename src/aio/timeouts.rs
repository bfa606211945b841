//! A block with a deadline that can be moved.
//!
//! In green code it is a [`time::Timeout`]; around a future, a sleep that is polled beside it.
#![forbid(unsafe_code)]

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::exceptions::TaskError;
use crate::sys::inside::{Mutex, MutexGuard};
use crate::sys::poison::IgnorePoison;
use crate::time::{self, Rearm, Sleep};

/// What runs within the time-out now.
enum Inside {
    Nothing,
    Green(Rearm),
    Future(Waker),
}

struct TimeoutState {
    when: Option<Instant>,
    expired: bool,
    inside: Inside,
}

/// A deadline for a block: [`run`](Self::run) for green code, [`run_async`](Self::run_async) for a future. Made by
/// [`timeout`] and [`timeout_at`]; a clone is a handle to the same deadline.
///
/// ```
/// use std::time::Duration;
/// use greenthread::{aio, sleep, time};
///
/// aio::run(aio::green(|| {
///     let limit = aio::timeout(Some(Duration::from_secs(60)));
///     let result = limit.run(|| {
///         limit.reschedule(Some(time::now() + Duration::from_millis(1)));
///         sleep(Duration::from_secs(60));
///     });
///     assert!(result.unwrap_err().is_timeout() && limit.expired());
/// }))
/// .unwrap();
/// ```
///
/// If time-outs are nested, each ends its own block. A block that ends well although its time is over keeps its value.
/// One time-out runs one block at a time, on the OS thread that made it.
///
/// # Coming from Python
/// `async with asyncio.timeout(delay) as limit`. The task's cancel count is not touched: a time-out is no cancel here.
#[derive(Clone)]
pub struct Timeout(Arc<Mutex<TimeoutState>>);

/// A block that may take this long; with `None` it has no deadline until it is rescheduled.
///
/// ```
/// use std::time::Duration;
/// use greenthread::{aio, time};
///
/// aio::run(async {
///     let limit = aio::timeout(Some(Duration::from_millis(1)));
///     assert!(limit.run_async(std::future::pending::<()>()).await.unwrap_err().is_timeout());
///     let limit = aio::timeout_at(Some(time::now() + Duration::from_secs(60)));
///     assert_eq!(limit.run_async(async { 42 }).await.unwrap(), 42);
/// })
/// .unwrap();
/// ```
///
/// # Coming from Python
/// `asyncio.timeout`.
#[track_caller]
pub fn timeout(delay: Option<Duration>) -> Timeout {
    timeout_at(delay.and_then(time::after))
}

/// A block that must end by `when`. See [`timeout`].
///
/// # Coming from Python
/// `asyncio.timeout_at`.
pub fn timeout_at(when: Option<Instant>) -> Timeout {
    Timeout(Arc::new(Mutex::new(TimeoutState {
        when,
        expired: false,
        inside: Inside::Nothing,
    })))
}

/// Takes out what was inside, however the block ends.
struct LeaveOnDrop<'a>(&'a Timeout);

impl Drop for LeaveOnDrop<'_> {
    fn drop(&mut self) {
        self.0.enter(Inside::Nothing);
    }
}

impl Timeout {
    /// Stores what runs inside from now on. The waker that was there before is the user's: it is dropped without the
    /// lock.
    fn enter(&self, what: Inside) {
        let before = std::mem::replace(&mut self.state().inside, what);
        drop(before);
    }

    fn state(&self) -> MutexGuard<'_, TimeoutState> {
        self.0.lock().ignore_poison()
    }

    /// The deadline.
    pub fn when(&self) -> Option<Instant> {
        self.state().when
    }

    /// Moves the deadline; `None` takes it away. A time-out that has expired stays expired.
    pub fn reschedule(&self, when: Option<Instant>) {
        let mut state = self.state();
        if state.expired {
            return;
        }
        state.when = when;
        // Green code stays inside. A future's waker is used up: its next poll stores another and looks at the new
        // deadline.
        match std::mem::replace(&mut state.inside, Inside::Nothing) {
            Inside::Nothing => {}
            Inside::Green(rearm) => {
                state.inside = Inside::Green(rearm);
                drop(state);
                rearm.at(when);
            }
            Inside::Future(waker) => {
                drop(state);
                waker.wake();
            }
        }
    }

    /// Whether it has ended a block.
    pub fn expired(&self) -> bool {
        self.state().expired
    }

    /// Runs green code within it, which unwinds at its next park when the time is over.
    ///
    /// # Errors
    /// [`TaskError::TimedOut`].
    #[track_caller]
    pub fn run<F: FnOnce() -> T, T>(&self, f: F) -> Result<T, TaskError> {
        let guard = time::Timeout::never();
        let rearm = guard.rearm();
        let when = self.when();
        self.enter(Inside::Green(rearm));
        let _leave = LeaveOnDrop(self);
        let result = guard.run(|| {
            if when.is_some() {
                rearm.at(when);
            }
            f()
        });
        result.map_err(|_| {
            self.state().expired = true;
            TaskError::TimedOut
        })
    }

    /// Runs a future within it, which is dropped when the time is over; if it blocks in a poll, after that.
    ///
    /// Without a task's kind of error: [`timeout_async`](crate::time::timeout_async).
    ///
    /// # Errors
    /// [`TaskError::TimedOut`].
    pub async fn run_async<F: Future>(&self, future: F) -> Result<F::Output, TaskError> {
        let mut future = pin!(future);
        let _leave = LeaveOnDrop(self);
        let mut sleep = None;
        poll_fn(|context| {
            if let Poll::Ready(value) = future.as_mut().poll(context) {
                return Poll::Ready(Ok(value));
            }
            // Before the look at the deadline: a `reschedule` that comes after that look finds this waker.
            self.enter(Inside::Future(context.waker().clone()));
            self.poll_time(&mut sleep, context)
        })
        .await
    }

    /// Ready when the time is over. The deadline may have been moved since `sleep` was made: then it is made again.
    fn poll_time<T>(
        &self,
        sleep: &mut Option<(Instant, std::pin::Pin<Box<Sleep>>)>,
        context: &mut Context<'_>,
    ) -> Poll<Result<T, TaskError>> {
        let Some(when) = self.when() else {
            *sleep = None;
            return Poll::Pending;
        };
        if sleep.as_ref().is_none_or(|(made_for, _)| *made_for != when) {
            *sleep = Some((when, Box::pin(time::sleep_until_async(when))));
        }
        let rings = |(_, sleep): &mut (Instant, std::pin::Pin<Box<Sleep>>)| sleep.as_mut().poll(context).is_ready();
        if when <= time::now() || sleep.as_mut().is_some_and(rings) {
            self.state().expired = true;
            return Poll::Ready(Err(TaskError::TimedOut));
        }
        Poll::Pending
    }
}

impl fmt::Debug for Timeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        f.debug_struct("Timeout")
            .field("when", &state.when)
            .field("expired", &state.expired)
            .finish_non_exhaustive()
    }
}
