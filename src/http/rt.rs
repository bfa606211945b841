//! What hyper asks of a runtime besides sockets: to spawn, and to sleep.
#![forbid(unsafe_code)]

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use hyper::rt;

use crate::{future, time};

/// Spawns on the hub of whoever executes, as [`future::spawn`]: the future need not be `Send`, and may block.
#[derive(Clone, Copy, Debug, Default)]
pub struct Executor;

impl<F> rt::Executor<F> for Executor
where
    F: Future + 'static,
{
    #[track_caller]
    fn execute(&self, future: F) {
        drop(future::spawn(future));
    }
}

/// The hub's clock and timers.
///
/// ```
/// use std::time::Duration;
/// use greenthread::{future::block_on, http::Timer, time};
/// use hyper::rt::Timer as _;
///
/// let start = time::now();
/// block_on(Timer.sleep(Duration::from_millis(2)));
/// assert!(Timer.now() - start >= Duration::from_millis(2));
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Timer;

impl rt::Timer for Timer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn rt::Sleep>> {
        let now = time::now();
        // A century is for ever.
        self.sleep_until(
            now.checked_add(duration)
                .unwrap_or(now + 100 * 365 * Duration::from_secs(86_400)),
        )
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn rt::Sleep>> {
        Box::pin(Sleep {
            alarm: time::sleep_until_async(deadline),
            rings: deadline,
            deadline,
        })
    }

    fn now(&self) -> Instant {
        time::now()
    }

    fn reset(&self, sleep: &mut Pin<Box<dyn rt::Sleep>>, deadline: Instant) {
        match sleep.as_mut().downcast_mut_pin::<Sleep>() {
            Some(sleep) => sleep.get_mut().reset(deadline),
            None => *sleep = self.sleep_until(deadline),
        }
    }
}

/// One that may be put off: its alarm rings at the old time then, and is set anew. A server puts its time-outs off with
/// each request, and few of them ever ring.
struct Sleep {
    alarm: time::Sleep,
    rings: Instant,
    deadline: Instant,
}

impl Sleep {
    fn set(&mut self) {
        self.alarm = time::sleep_until_async(self.deadline);
        self.rings = self.deadline;
    }

    fn reset(&mut self, deadline: Instant) {
        self.deadline = deadline;
        if deadline < self.rings {
            self.set();
        }
    }
}

impl rt::Sleep for Sleep {}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(Pin::new(&mut self.alarm).poll(context));
            if self.rings >= self.deadline {
                return Poll::Ready(());
            }
            self.as_mut().get_mut().set();
        }
    }
}
