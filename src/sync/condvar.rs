//! A condition variable: waiting for a change of what a lock protects.
#![forbid(unsafe_code)]

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::{LockResult, PoisonError};
use std::time::{Duration, Instant};

use super::mutex::{MutexGuard, relock, relock_async};
use super::wait::{Core, Op, State, Until};
use super::waiters::{Waiters, Woken};
use crate::hub::Why;

static CONDVAR: &str = "a Condvar";

struct Notices {
    /// How many notices were given to waiters and not taken yet.
    owed: usize,
    waiters: Waiters,
}

impl State for Notices {
    fn grant_waiters(&mut self, woken: &mut Woken) {
        // A notice that its waiter gave back (a kill, a time-out, another branch of its select) is granted to the next
        // one.
        while self.owed > self.waiters.granted() && self.waiters.any() {
            self.waiters.grant_first(woken);
        }
        // Notices that no waiter is left for are dropped: they are not kept for waiters to come.
        self.owed = self.owed.min(self.waiters.granted());
    }
}

struct Notice;

impl Op<Notices> for Notice {
    type Output = ();

    // With `true` a select that polls another branch would be passed over, and the notice lost if there is no other
    // waiter. So the branch is granted; if another branch wins, `grant_waiters` passes the notice on.
    const TAKES: bool = false;

    #[inline(always)]
    fn spends(&self) -> bool {
        // A wait always parks, so it needs no budget. The first poll must get in line and not just give way, because
        // the mutex is unlocked after it.
        false
    }

    fn waiters<'a>(&self, state: &'a mut Notices) -> &'a mut Waiters {
        &mut state.waiters
    }

    fn attempt(&mut self, state: &mut Notices, granted: bool, _: &mut Woken) -> Option<()> {
        // An attempt before the grant never succeeds: a notice is only for those that waited when it was given.
        granted.then(|| state.owed -= 1)
    }
}

/// Waits until another thread says that something has changed, like [`std::sync::Condvar`].
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
/// Notices go to waiters in order of arrival. A notice that was given to a waiter that a kill or a time-out then
/// unwinds goes to the next one.
///
/// # Coming from Python
/// `asyncio.Condition`, `threading.Condition`.
#[doc(alias("Condition"))]
pub struct Condvar {
    core: Core<Notices>,
}

/// A notice that was taken by a waiter that does not have the lock yet. If the waiter never gets the lock, the drop
/// passes the notice on.
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
    /// A condition variable without waiters.
    pub const fn new() -> Condvar {
        Condvar {
            core: Core::new(Notices {
                owed: 0,
                waiters: Waiters::new(),
            }),
        }
    }

    /// Unlocks, waits for a notice, and then waits for the lock.
    ///
    /// # Errors
    /// The guard in an error, if the lock is poisoned.
    ///
    /// # Blocking and cancellation
    /// Parks. A kill or time-out unwinds here, without the lock held.
    #[track_caller]
    pub fn wait<'a, T: ?Sized>(&self, guard: MutexGuard<'a, T>) -> LockResult<MutexGuard<'a, T>> {
        self.wait_until(guard, Until::Ever).0
    }

    /// Waits as long as `condition` holds. It is evaluated under the lock.
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
            // Each wait gets the same deadline, so a notice does not extend the time.
            let (again, timed_out) = both(self.wait_until(guard, until))?;
            guard = again;
            if timed_out.0 {
                // The time may be over and the condition have changed all the same: the condition decides.
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
        let lock = MutexGuard::lock_of(&guard);
        // The mutex is unlocked once this waiter is in line, so a change made under the mutex after that finds it.
        let noticed = self
            .core
            .wait(&mut Notice, until, Why::new(&CONDVAR, 0), || drop(guard));
        // If a kill unwinds the wait for the mutex, the notice goes to the next waiter.
        let owed = noticed.map(|()| Owed(self));
        let guard = relock(lock);
        // The lock is held: the notice has served its purpose.
        std::mem::forget(owed);
        (guard, WaitTimeoutResult(noticed.is_none()))
    }

    /// Like [`wait`](Self::wait), for an `async` function. If the future is dropped before it is ready, the lock stays
    /// released, and a notice that it was given goes to the next waiter.
    pub fn wait_async<'a, T: ?Sized>(
        &self,
        guard: MutexGuard<'a, T>,
    ) -> impl Future<Output = LockResult<MutexGuard<'a, T>>> + use<'_, 'a, T> {
        let lock = MutexGuard::lock_of(&guard);
        let noticed = self.core.future(Notice);
        async move {
            let (mut noticed, mut guard) = (pin!(noticed), Some(guard));
            poll_fn(|context| {
                let polled = noticed.as_mut().poll(context);
                // In line now. A change made after this unlock gives its notice to this waiter.
                drop(guard.take());
                polled
            })
            .await;
            // As in `wait_until`: passed on if this future is dropped while it waits for the mutex.
            let owed = Owed(self);
            let guard = relock_async(lock).await;
            std::mem::forget(owed);
            guard
        }
    }

    /// Lets the waiter that came first continue.
    pub fn notify_one(&self) {
        self.notify(1);
    }

    /// Lets all waiters continue.
    pub fn notify_all(&self) {
        self.notify(usize::MAX);
    }

    /// Lets up to `count` waiters continue.
    pub fn notify(&self, count: usize) {
        // Only for those that wait now, besides the notices that are still to be taken.
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
