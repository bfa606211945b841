//! A condition that is waited for under a lock.
#![forbid(unsafe_code)]

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::{LockResult, PoisonError};
use std::time::{Duration, Instant};

use super::mutex::{Mutex, MutexGuard};
use super::wait::{Core, Op, State, Until};
use super::waiters::{Waiters, Woken};
use crate::hub::park::Why;

static CONDVAR: &str = "a Condvar";

struct Notices {
    /// How many were given to those who wait, and not taken yet.
    owed: usize,
    waiters: Waiters,
}

impl State for Notices {
    fn settle(&mut self, woken: &mut Woken) {
        while self.owed > self.waiters.granted() && self.waiters.any() {
            self.waiters.grant_first(woken);
        }
        // Of one that was passed on, and nobody waits for it.
        self.owed = self.owed.min(self.waiters.granted());
    }
}

struct Notice;

impl Op<Notices> for Notice {
    type Output = ();

    // One that finds its select at another branch would be nobody's.
    const TAKES: bool = false;

    #[inline(always)]
    fn spends(&self) -> bool {
        // It always waits; and is in line once it was polled.
        false
    }

    fn waiters<'a>(&self, state: &'a mut Notices) -> &'a mut Waiters {
        &mut state.waiters
    }

    fn attempt(&mut self, state: &mut Notices, granted: bool, _: &mut Woken) -> Option<()> {
        granted.then(|| state.owed -= 1)
    }
}

/// Waits until another says that something has changed, as [`std::sync::Condvar`].
///
/// ```
/// use std::sync::Arc;
/// use greenthread::{spawn, sync::{Condvar, Mutex}};
///
/// let pair = Arc::new((Mutex::new(false), Condvar::new()));
/// let theirs = pair.clone();
/// spawn(move || {
///     *theirs.0.lock().unwrap() = true;
///     theirs.1.notify_one();
/// });
/// let ready = pair.1.wait_while(pair.0.lock().unwrap(), |ready| !*ready).unwrap();
/// assert!(*ready);
/// ```
///
/// Notices go to those who wait in the order of coming. One that was on its way to somebody who is killed or timed out
/// goes to the next.
///
/// # Coming from Python
/// `asyncio.Condition`, `threading.Condition`.
pub struct Condvar {
    core: Core<Notices>,
}

/// A notice whose taker has no lock yet: if it never gets that, the notice is the next one's.
struct Owed<'a>(&'a Condvar);

impl Drop for Owed<'_> {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

/// Whether a wait for a [`Condvar`] ended because its time was over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitTimeoutResult(bool);

impl WaitTimeoutResult {
    /// Whether the time was over.
    pub fn timed_out(&self) -> bool {
        self.0
    }
}

impl Condvar {
    /// One that nobody waits for.
    pub const fn new() -> Condvar {
        Condvar {
            core: Core::new(Notices {
                owed: 0,
                waiters: Waiters::new(),
            }),
        }
    }

    /// Gives the lock away and waits for a notice, then for the lock.
    ///
    /// # Errors
    /// The guard in an error, if the lock is poisoned.
    ///
    /// # Blocking and cancellation
    /// Parks. A kill or time-out unwinds here, without the lock.
    #[track_caller]
    pub fn wait<'a, T: ?Sized>(&self, guard: MutexGuard<'a, T>) -> LockResult<MutexGuard<'a, T>> {
        self.wait_until(guard, Until::Ever).0
    }

    /// Waits as long as `condition` holds, which is looked at under the lock.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    #[track_caller]
    pub fn wait_while<'a, T: ?Sized>(
        &self,
        mut guard: MutexGuard<'a, T>,
        mut condition: impl FnMut(&mut T) -> bool,
    ) -> LockResult<MutexGuard<'a, T>> {
        while condition(&mut *guard) {
            guard = self.wait(guard)?;
        }
        Ok(guard)
    }

    /// Waits for a notice for at most `timeout`, then for the lock.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    #[track_caller]
    pub fn wait_timeout<'a, T: ?Sized>(
        &self,
        guard: MutexGuard<'a, T>,
        timeout: Duration,
    ) -> LockResult<(MutexGuard<'a, T>, WaitTimeoutResult)> {
        both(self.wait_until(guard, Until::After(timeout)))
    }

    /// Waits for a notice until `deadline`, then for the lock.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    #[track_caller]
    pub fn wait_deadline<'a, T: ?Sized>(
        &self,
        guard: MutexGuard<'a, T>,
        deadline: Instant,
    ) -> LockResult<(MutexGuard<'a, T>, WaitTimeoutResult)> {
        both(self.wait_until(guard, Until::At(deadline)))
    }

    /// Waits as long as `condition` holds, for at most `timeout`.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    #[track_caller]
    pub fn wait_timeout_while<'a, T: ?Sized>(
        &self,
        mut guard: MutexGuard<'a, T>,
        timeout: Duration,
        mut condition: impl FnMut(&mut T) -> bool,
    ) -> LockResult<(MutexGuard<'a, T>, WaitTimeoutResult)> {
        let deadline = crate::time::after(timeout);
        loop {
            if !condition(&mut *guard) {
                return Ok((guard, WaitTimeoutResult(false)));
            }
            let until = deadline.map_or(Until::Ever, Until::At);
            let (again, timed_out) = both(self.wait_until(guard, until))?;
            guard = again;
            if timed_out.0 {
                let still = condition(&mut *guard);
                return Ok((guard, WaitTimeoutResult(still)));
            }
        }
    }

    #[track_caller]
    fn wait_until<'a, T: ?Sized>(
        &self,
        guard: MutexGuard<'a, T>,
        until: Until,
    ) -> (LockResult<MutexGuard<'a, T>>, WaitTimeoutResult) {
        let mutex = guard.mutex;
        let noticed = self
            .core
            .wait(&mut Notice, until, Why::new(&CONDVAR, 0), || drop(guard));
        let owed = noticed.map(|()| Owed(self));
        let guard = mutex.relock();
        std::mem::forget(owed);
        (guard, WaitTimeoutResult(noticed.is_none()))
    }

    /// As [`wait`](Self::wait), for an `async` function. Dropped before it is ready, it has given the lock away, and
    /// a notice that it got goes to the next.
    pub fn wait_async<'a, T: ?Sized>(
        &self,
        guard: MutexGuard<'a, T>,
    ) -> impl Future<Output = LockResult<MutexGuard<'a, T>>> + use<'_, 'a, T> {
        let mutex: &'a Mutex<T> = guard.mutex;
        let noticed = self.core.future(Notice);
        async move {
            let (mut noticed, mut guard) = (pin!(noticed), Some(guard));
            poll_fn(|context| {
                let polled = noticed.as_mut().poll(context);
                // In line now: who changes something from here on gives notice.
                drop(guard.take());
                polled
            })
            .await;
            let owed = Owed(self);
            let guard = mutex.lock_async().await;
            std::mem::forget(owed);
            guard
        }
    }

    /// Lets the one who has waited longest go on.
    pub fn notify_one(&self) {
        self.notify(1);
    }

    /// Lets all who wait go on.
    pub fn notify_all(&self) {
        self.notify(usize::MAX);
    }

    /// Lets up to `count` who wait go on.
    pub fn notify(&self, count: usize) {
        self.core.change(|state| {
            state.owed = state.waiters.granted() + state.waiters.waiting().min(count);
        });
    }
}

fn both<'a, T: ?Sized>(
    (locked, timed_out): (LockResult<MutexGuard<'a, T>>, WaitTimeoutResult),
) -> LockResult<(MutexGuard<'a, T>, WaitTimeoutResult)> {
    match locked {
        Ok(guard) => Ok((guard, timed_out)),
        Err(poisoned) => Err(PoisonError::new((poisoned.into_inner(), timed_out))),
    }
}

impl Default for Condvar {
    fn default() -> Condvar {
        Condvar::new()
    }
}

impl fmt::Debug for Condvar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Condvar").finish_non_exhaustive()
    }
}
