//! Sleeping, deadlines and time-outs, on the hub's clock.
//!
//! ```
//! use std::time::Duration;
//! use greenthread::time::{self, Timeout};
//!
//! let slow = || time::sleep(Duration::from_secs(60));
//! assert!(time::timeout(Duration::from_millis(5), slow).is_err());
//!
//! // Nested: each catches its own.
//! let outer = Timeout::new(Duration::from_millis(5));
//! let result = outer.run(|| time::timeout(Duration::from_secs(1), slow));
//! assert!(result.is_err()); // the outer one's
//! ```
//!
//! A sleep never ends early, but after the hub's end and while the caller unwinds it returns at once. The timer wheel
//! makes it end at most 66 µs late, and a busy hub makes it end later.
#![forbid(unsafe_code)]

use std::any::Any;
use std::fmt;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::hub::{self, Due, Guard, Hub, HubRef, Mode, Parker, TaskRef, Wake, Why, interrupt};

mod limit;
mod sleep;

pub use limit::{timeout_async, timeout_at_async};
pub use sleep::Sleep;

static SLEEP: &str = "time to pass (sleep)";

/// Sleeps for at least `duration`. Zero yields.
///
/// ```
/// greenthread::sleep(std::time::Duration::from_millis(1));
/// ```
///
/// # Blocking and cancellation
/// Parks. A kill or time-out unwinds here. While the caller is already unwinding, it returns at once.
///
/// # Coming from Python
/// `gevent.sleep(seconds)`.
#[track_caller]
pub fn sleep(duration: Duration) {
    if duration.is_zero() {
        return give_way();
    }
    sleep_to(hub::deadline_in(duration));
}

/// Sleeps until `deadline`; returns at once (after a yield) if that has passed.
///
/// # Blocking and cancellation
/// As [`sleep`].
#[track_caller]
pub fn sleep_until(deadline: Instant) {
    let at = hub::deadline_at(deadline);
    if at <= Hub::try_current().map_or(0, |hub| hub.clock.now()) {
        return give_way();
    }
    sleep_to(at);
}

#[track_caller]
fn give_way() {
    if hub::yield_now() == Wake::Interrupted {
        interrupt::raise();
    }
}

#[track_caller]
fn sleep_to(at: u64) {
    if hub::is_past(Some(at)) {
        return;
    }
    if Parker::new().park(Some(at), Mode::Cancel, Why::new(&SLEEP, 0)) == Wake::Interrupted {
        interrupt::raise();
    }
}

/// A future that is ready after at least `duration`, by the clock of the hub of the OS thread that calls.
///
/// ```
/// use std::time::Duration;
/// use greenthread::{future::block_on, time::sleep_async};
/// block_on(sleep_async(Duration::from_millis(1)));
/// ```
///
/// It may move to another OS thread, and wakes the executor there. But its timer belongs to the caller's hub, and fires
/// only when that hub runs. If that hub ends first, the sleep continues on the hub of the OS thread that polls it. When
/// dropped, it leaves nothing behind.
#[track_caller]
pub fn sleep_async(duration: Duration) -> Sleep {
    Sleep::at(hub::deadline_in(duration))
}

/// A future that is ready at `deadline`; see [`sleep_async`].
#[track_caller]
pub fn sleep_until_async(deadline: Instant) -> Sleep {
    Sleep::at(hub::deadline_at(deadline))
}

/// The time by the hub's clock: `Instant::now()`, or a virtual time that a test set up.
#[track_caller]
pub fn now() -> Instant {
    if Hub::has_ended() {
        return Instant::now();
    }
    Hub::current().clock.instant()
}

/// The moment that is `timeout` from now; `None` if that is too far away.
#[track_caller]
pub(crate) fn after(timeout: Duration) -> Option<Instant> {
    now().checked_add(timeout)
}

/// Runs `f` for at most `duration`.
///
/// ```
/// use std::time::Duration;
/// use greenthread::{sleep, timeout};
///
/// assert_eq!(timeout(Duration::from_secs(10), || 42).unwrap(), 42);
/// assert!(timeout(Duration::from_millis(1), || sleep(Duration::from_secs(10))).is_err());
/// ```
///
/// # Errors
/// [`Elapsed`], if the time passed and cut a wait of `f` short. A wait of this crate unwinds `f`. A patched call of
/// libc's (feature `monkey`) cannot unwind: it fails with `ETIMEDOUT`, and a sleep ends early. Then `f` goes on and may
/// return, so it *may have completed*. Its value is dropped here; [`timeout_or_late`] returns it. If no wait was cut
/// short, the value is returned, however late it is.
///
/// # Blocking and cancellation
/// `f` unwinds at its next park, so its destructors run. Code that does not park, or is in a
/// [`shield`](crate::thread::shield), is not cut short. A [`scope`](crate::scope()) or
/// [`nursery`](crate::thread::nursery()) in `f` kills its children and unwinds when they have ended. Other green
/// threads that `f` spawned run on.
///
/// # Coming from Python
/// `gevent.with_timeout`, `asyncio.timeout`.
#[doc(alias("wait_for", "with_timeout", "fail_after"))]
#[track_caller]
pub fn timeout<F: FnOnce() -> T, T>(duration: Duration, f: F) -> Result<T, Elapsed> {
    Timeout::new(duration).run(f)
}

/// Like [`timeout`](fn@timeout), but if a patched call reported the time-out and `f` still returned, the error carries
/// the value of `f`.
///
/// ```
/// use std::time::Duration;
/// use greenthread::{sleep, time::timeout_or_late};
///
/// assert_eq!(timeout_or_late(Duration::from_secs(10), || 42).unwrap(), 42);
/// let (_elapsed, value) = timeout_or_late(Duration::from_millis(1), || sleep(Duration::from_secs(10))).unwrap_err();
/// assert_eq!(value, None); // unwound: there is none
/// ```
///
/// # Errors
/// [`Elapsed`], as [`timeout`](fn@timeout), with the value if there is one.
///
/// # Blocking and cancellation
/// As [`timeout`](fn@timeout).
#[track_caller]
pub fn timeout_or_late<F: FnOnce() -> T, T>(duration: Duration, f: F) -> Result<T, (Elapsed, Option<T>)> {
    Timeout::new(duration).run_or_late(f)
}

/// A deadline for whatever the calling green thread does until it is dropped.
///
/// It is armed from [`new`](Self::new) on. When it expires, the green thread unwinds at its next park, up to this
/// guard's own [`run`](Self::run): the `run` of another guard does not catch it.
///
/// ```
/// use std::time::Duration;
/// use greenthread::{sleep, time::Timeout};
///
/// // One deadline over several steps.
/// let limit = Timeout::new(Duration::from_millis(20)); // counts from here on
/// let result = limit.run(|| {
///     sleep(Duration::from_millis(1));
///     sleep(Duration::from_secs(60)); // unwinds here
/// });
/// assert!(result.is_err());
/// ```
///
/// # Outside its run
/// If it expires between `new` and `run`, the first park there unwinds, and no `run` catches that. The green thread
/// ends, and its join returns an error with [`is_timed_out`](crate::thread::JoinError::is_timed_out). On the native
/// stack a line on stderr says so, and `main` ends. So call `run` right after `new`. A guard that is dropped or
/// [`cancel`](Self::cancel)led without `run` is disarmed.
///
/// # Coming from Python
/// `gevent.Timeout(seconds)` with `start`; `run` is its `with` block.
#[must_use = "a Timeout that is dropped is disarmed: call `run`, or keep it"]
pub struct Timeout {
    id: u64,
    deadline: u64,
    /// The green thread that armed it; `None` after the hub's end, when no time-out expires any more.
    task: Option<TaskRef>,
    disarmed: bool,
    /// It belongs to the green thread that made it, and so to its OS thread.
    _not_send: PhantomData<*const ()>,
}

/// A time-out that expired.
#[doc(alias("TimeoutError"))]
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Elapsed {
    id: u64,
}

impl Timeout {
    /// Arms one for `duration` from now.
    #[track_caller]
    pub fn new(duration: Duration) -> Timeout {
        Timeout::arm(hub::deadline_in(duration))
    }

    /// Arms one for `deadline`.
    #[track_caller]
    pub fn at(deadline: Instant) -> Timeout {
        Timeout::arm(hub::deadline_at(deadline))
    }

    /// A time-out that only [`Rearm`] can make expire.
    pub(crate) fn never() -> Timeout {
        Timeout::arm(u64::MAX)
    }

    /// A handle that moves the deadline.
    pub(crate) fn rearm(&self) -> Rearm {
        Rearm {
            armed: self.task.zip(Hub::try_current().map(Hub::reference)),
            id: self.id,
        }
    }

    #[track_caller]
    fn arm(deadline: u64) -> Timeout {
        if Hub::has_ended() {
            return Timeout {
                id: 0,
                deadline: u64::MAX,
                task: None,
                disarmed: true,
                _not_send: PhantomData,
            };
        }
        let hub = Hub::current();
        let task = hub.running();
        let id = hub.counters.guard_id();
        let timer = (deadline != u64::MAX).then(|| hub.insert_timer(deadline, Due::Guard(TaskRef::new(task), id)));
        task.with_cold(|extra| {
            extra.guards.push(Guard {
                id,
                deadline,
                expired: false,
                caught: false,
                told: false,
                #[cfg(feature = "monkey")]
                cut: false,
                timer,
            })
        });
        Timeout {
            id,
            deadline,
            task: Some(TaskRef::new(task)),
            disarmed: false,
            _not_send: PhantomData,
        }
    }

    /// Runs `f`, and catches this time-out and no other.
    ///
    /// # Errors
    /// [`Elapsed`] with this guard's identity: as for [`timeout`]. A value that `f` has returned all the same is
    /// dropped.
    pub fn run<F: FnOnce() -> T, T>(self, f: F) -> Result<T, Elapsed> {
        self.run_or_late(f).map_err(|(elapsed, _)| elapsed)
    }

    /// Like [`run`](Self::run), and returns the value that came late; see [`timeout_or_late`].
    ///
    /// # Errors
    /// [`Elapsed`] with this guard's identity, and what `f` has returned if it was not unwound.
    pub fn run_or_late<F: FnOnce() -> T, T>(mut self, f: F) -> Result<T, (Elapsed, Option<T>)> {
        let armed = self.task.zip(Hub::try_current());
        // Tell the hub that an expiry from here on is caught, below.
        if let Some(task) = armed.and_then(|(task, hub)| hub.resolve_local(task)) {
            interrupt::catches(task, self.id);
        }
        let result = catch_unwind(AssertUnwindSafe(f));
        let is_others =
            |payload: &(dyn Any + Send)| interrupt::is_ours(payload) && !interrupt::is_expired(payload, self.id);
        // Another guard's time-out, or a kill, passes through: `disarm` must not forget that it goes on.
        let goes_on = result.as_ref().is_err_and(|payload| is_others(&**payload));
        let was_told = self.disarm(goes_on);
        let elapsed = Elapsed { id: self.id };
        match result {
            Ok(value) if was_told => Err((elapsed, Some(value))),
            Ok(value) => Ok(value),
            Err(payload) if interrupt::is_expired(&*payload, self.id) => Err((elapsed, None)),
            Err(payload) => resume_unwind(payload),
        }
    }

    /// Disarms it. An expiry that was not delivered yet is forgotten.
    pub fn cancel(mut self) {
        self.disarm(false);
    }

    /// How long until it expires; [`Duration::MAX`] after the hub's end, when it never does.
    pub fn remaining(&self) -> Duration {
        let left = |hub: &Hub| Duration::from_nanos(self.deadline.saturating_sub(hub.clock.now()));
        Hub::try_current().map_or(Duration::MAX, left)
    }

    /// Whether it has expired, delivered or not.
    pub fn is_expired(&self) -> bool {
        self.remaining().is_zero()
    }

    fn disarm(&mut self, goes_on: bool) -> bool {
        if self.disarmed {
            return false;
        }
        self.disarmed = true;
        let armed = self.task.zip(Hub::try_current());
        armed.is_some_and(|(task, hub)| interrupt::disarm(hub, task, self.id, goes_on))
    }
}

/// Moves the deadline of a [`Timeout`], from any OS thread. A time-out that has expired or was disarmed is left alone.
#[derive(Clone, Copy)]
pub(crate) struct Rearm {
    /// The green thread that armed it, and its hub.
    armed: Option<(TaskRef, HubRef)>,
    id: u64,
}

impl Rearm {
    /// Moves the deadline; `None` is never.
    pub(crate) fn at(self, deadline: Option<Instant>) {
        self.nanos(move |hub| deadline.map_or(u64::MAX, |deadline| hub.clock.nanos(deadline)));
    }

    /// Makes it expire now.
    pub(crate) fn expire(self) {
        self.nanos(|_| 0);
    }

    fn nanos(self, deadline: impl FnOnce(&Hub) -> u64 + Send + 'static) {
        let Rearm { armed, id } = self;
        if let Some((task, hub)) = armed {
            hub.run_or_send(move |hub| interrupt::rearm(hub, task, id, deadline(hub)));
        }
    }
}

impl Drop for Timeout {
    fn drop(&mut self) {
        self.disarm(std::thread::panicking());
    }
}

impl fmt::Debug for Timeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timeout")
            .field("id", &self.id)
            .field("remaining", &self.remaining())
            .finish()
    }
}

impl Elapsed {
    /// A number that tells one time-out from another.
    pub fn id(&self) -> u64 {
        self.id
    }
}

impl fmt::Debug for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Elapsed({})", self.id)
    }
}

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the time allowed has passed")
    }
}

impl std::error::Error for Elapsed {}

impl From<Elapsed> for std::io::Error {
    fn from(elapsed: Elapsed) -> std::io::Error {
        std::io::Error::new(std::io::ErrorKind::TimedOut, elapsed)
    }
}

/// What an [`Interval`] does about ticks that passed without a wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[doc(alias = "MissedTickBehavior")]
pub enum MissedTick {
    /// They come one right after the other, until none is missing.
    Burst,
    /// The next one comes a period after the late one was taken, and so do all that follow.
    Delay,
    /// They are left out: the next one is the first that is still to come, in step with the first tick.
    #[default]
    Skip,
}

/// How late a tick may be without a [delay](MissedTick::Delay) of those that follow: timers are not exact.
const PUNCTUAL: u64 = 1_000_000;

/// Ticks at a steady pace. Ticks that passed without a wait are [skipped](MissedTick::Skip), unless
/// [`set_missed_tick`](Self::set_missed_tick) says otherwise.
///
/// ```
/// use std::time::Duration;
/// use greenthread::time::Interval;
/// let mut ticks = Interval::new(Duration::from_millis(2));
/// ticks.tick();
/// ticks.tick();
/// ```
#[doc(alias("interval"))]
#[derive(Debug)]
pub struct Interval {
    period: u64,
    next: u64,
    missed_tick: MissedTick,
}

impl Interval {
    /// An interval with its first tick a `period` from now.
    ///
    /// # Panics
    /// If `period` is zero.
    #[track_caller]
    pub fn new(period: Duration) -> Interval {
        assert!(
            !period.is_zero(),
            "an Interval of zero would never end: give a longer period"
        );
        let period = u64::try_from(period.as_nanos()).unwrap_or(u64::MAX);
        Interval {
            period,
            next: hub::deadline_in(Duration::ZERO).saturating_add(period),
            missed_tick: MissedTick::default(),
        }
    }

    /// Sets what becomes of ticks that pass without a wait.
    ///
    /// ```
    /// use std::time::Duration;
    /// use greenthread::{sleep, time::{self, Interval, MissedTick}};
    ///
    /// let mut ticks = Interval::new(Duration::from_millis(2));
    /// ticks.set_missed_tick(MissedTick::Burst);
    /// sleep(Duration::from_millis(7)); // three ticks have passed
    /// let start = time::now();
    /// (0..3).for_each(|_| ticks.tick());
    /// assert!(time::now() - start < Duration::from_millis(2));
    /// ```
    ///
    /// For [`MissedTick::Delay`] a tick is late from a millisecond on, or from a period on if that is shorter.
    #[doc(alias = "set_missed_tick_behavior")]
    pub fn set_missed_tick(&mut self, missed_tick: MissedTick) {
        self.missed_tick = missed_tick;
    }

    /// What becomes of ticks that pass without a wait.
    #[doc(alias = "missed_tick_behavior")]
    pub fn missed_tick(&self) -> MissedTick {
        self.missed_tick
    }

    /// Waits for the next tick.
    ///
    /// # Blocking and cancellation
    /// Parks, or yields if the tick is due already. A kill or time-out unwinds here, and the tick is still to come.
    #[track_caller]
    pub fn tick(&mut self) {
        let now = hub::deadline_in(Duration::ZERO);
        if now < self.next {
            sleep_to(self.next);
        } else {
            give_way();
        }
        self.go_on();
    }

    /// A tick was taken: finds the next one.
    fn go_on(&mut self) {
        let now = hub::deadline_in(Duration::ZERO);
        let late = now.saturating_sub(self.next);
        let ahead = match self.missed_tick {
            MissedTick::Delay if late >= PUNCTUAL.min(self.period) => late.saturating_add(self.period),
            MissedTick::Burst | MissedTick::Delay => self.period,
            MissedTick::Skip => self.period.saturating_mul(late / self.period + 1),
        };
        self.next = self.next.saturating_add(ahead);
    }

    /// Like [`tick`](Self::tick), for an `async` function. If it is dropped before it is ready, the tick is still to
    /// come.
    pub async fn tick_async(&mut self) {
        self.sleep().await;
        self.go_on();
    }

    fn sleep(&self) -> Sleep {
        Sleep::at(self.next)
    }

    /// Like [`tick`](Self::tick), for a poll; `sleep` is the wait under way.
    pub(crate) fn poll_tick(&mut self, sleep: &mut Option<Sleep>, context: &mut Context<'_>) -> Poll<()> {
        let under_way = sleep.get_or_insert_with(|| self.sleep());
        if Pin::new(under_way).poll(context).is_pending() {
            return Poll::Pending;
        }
        *sleep = None;
        self.go_on();
        Poll::Ready(())
    }
}
