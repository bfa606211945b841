//! A time-out around a future.
#![forbid(unsafe_code)]

use std::future::{Future, IntoFuture, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use super::{Elapsed, Sleep};
use crate::hub::{self, Hub};

/// Awaits `future` for at most `duration`, counted from the call; then drops it.
///
/// ```
/// use std::time::Duration;
/// use greenthread::{future::block_on, time::{sleep_async, timeout_async}};
///
/// block_on(async {
///     assert_eq!(timeout_async(Duration::from_secs(10), async { 42 }).await.unwrap(), 42);
///     let late = timeout_async(Duration::from_millis(1), sleep_async(Duration::from_secs(10))).await;
///     assert!(late.is_err());
/// });
/// ```
///
/// # Errors
/// [`Elapsed`], if the time passed first. If the value is there at the same poll, it is returned.
///
/// # Blocking and cancellation
/// The time is looked at between polls, so a poll that blocks is let finish. To cut that short as well, block on the
/// whole: `timeout(duration, || block_on(future))`, by [`timeout`](super::timeout()) and
/// [`block_on`](crate::future::block_on). As with [`sleep_async`](super::sleep_async()), the clock and the timer are
/// those of the hub of the OS thread that calls.
///
/// # Coming from Python
/// `asyncio.wait_for(future, timeout)`, but it makes no task; `async with asyncio.timeout(delay)`.
#[track_caller]
pub fn timeout_async<F: IntoFuture>(duration: Duration, future: F) -> impl Future<Output = Result<F::Output, Elapsed>> {
    limit(hub::deadline_in(duration), future.into_future())
}

/// Awaits `future` until `deadline`; see [`timeout_async`].
///
/// # Errors
/// As there.
#[track_caller]
pub fn timeout_at_async<F: IntoFuture>(
    deadline: Instant,
    future: F,
) -> impl Future<Output = Result<F::Output, Elapsed>> {
    limit(hub::deadline_at(deadline), future.into_future())
}

fn limit<F: Future>(deadline: u64, future: F) -> impl Future<Output = Result<F::Output, Elapsed>> + use<F> {
    let (id, sleep) = (
        Hub::try_current().map_or(0, |hub| hub.counters.guard_id()),
        Sleep::at(deadline),
    );
    async move {
        let (mut future, mut sleep) = (pin!(future), pin!(sleep));
        poll_fn(|context| match future.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Ok(output)),
            Poll::Pending => sleep.as_mut().poll(context).map(|()| Err(Elapsed { id })),
        })
        .await
    }
}
