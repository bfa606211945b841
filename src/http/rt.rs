//! What hyper asks of a runtime besides sockets: to spawn, and to sleep.
#![forbid(unsafe_code)]

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use hyper::rt;

use crate::sys::inside::Mutex;
use crate::sys::poison::IgnorePoison;
use crate::{future, time};

/// Spawns on the hub of the caller, as [`future::spawn`]: the future need not be `Send`, and may block.
///
/// ```
/// use greenthread::{future::block_on, http::Executor, sync::Promise};
/// use hyper::rt::Executor as _;
///
/// let answer = Promise::new();
/// let theirs = answer.clone();
/// Executor.execute(async move { theirs.set(42) });
/// assert_eq!(block_on(answer.wait_async()), &42);
/// ```
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
        // A time too far to add is replaced by a century.
        self.sleep_until(
            now.checked_add(duration)
                .unwrap_or(now + 100 * 365 * Duration::from_secs(86_400)),
        )
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn rt::Sleep>> {
        Box::pin(Sleep {
            alarm: Some(Alarm::set(deadline)),
            deadline,
            home: None,
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

/// A timer of the hub, and the time at which it rings.
struct Alarm {
    sleep: time::Sleep,
    rings: Instant,
}

impl Alarm {
    fn set(deadline: Instant) -> Alarm {
        Alarm {
            sleep: time::sleep_until_async(deadline),
            rings: deadline,
        }
    }
}

/// A sleep with a deadline that can be put off. Its alarm then still rings at the old time, and is set anew. A server
/// puts its time-outs off with each request, and few of them ever ring.
struct Sleep {
    alarm: Option<Alarm>,
    deadline: Instant,
    /// Where the alarm is kept for the next sleep when this is dropped.
    home: Option<Arc<Mutex<Option<Alarm>>>>,
}

impl Sleep {
    fn reset(&mut self, deadline: Instant) {
        self.deadline = deadline;
        if self.alarm.as_ref().is_some_and(|alarm| deadline < alarm.rings) {
            self.alarm = None;
        }
    }
}

impl rt::Sleep for Sleep {}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        loop {
            let deadline = self.deadline;
            let alarm = self.alarm.get_or_insert_with(|| Alarm::set(deadline));
            ready!(Pin::new(&mut alarm.sleep).poll(context));
            if alarm.rings >= deadline {
                return Poll::Ready(());
            }
            self.alarm = None;
        }
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let (Some(home), Some(alarm)) = (&self.home, self.alarm.take()) {
            let before = home.lock().ignore_poison().replace(alarm);
            // The old alarm holds the waker of its last poll, which is the user's: not dropped under the lock.
            drop(before);
        }
    }
}

/// The timer of one connection. Its time-outs come one after the other, each for a later moment, so all of them use one
/// alarm.
#[derive(Clone, Default)]
pub(super) struct OneAlarm {
    spare: Arc<Mutex<Option<Alarm>>>,
}

impl rt::Timer for OneAlarm {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn rt::Sleep>> {
        Timer.sleep(duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn rt::Sleep>> {
        let spare = self.spare.lock().ignore_poison().take();
        Box::pin(Sleep {
            alarm: spare.filter(|alarm| alarm.rings <= deadline),
            deadline,
            home: Some(self.spare.clone()),
        })
    }

    fn now(&self) -> Instant {
        time::now()
    }
}
