//! Code that runs once.
#![forbid(unsafe_code)]

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::once_core::OnceCore;
use super::wait::Until;

static ONCE: &str = "a Once";

/// Runs something once, like [`std::sync::Once`]. Callers that come meanwhile wait, and let others run.
///
/// ```
/// use greenthread::{spawn, sync::Once, yield_now};
///
/// static START: Once = Once::new();
/// let callers: Vec<_> = (0..3)
///     .map(|_| {
///         spawn(|| {
///             START.call_once(|| yield_now()); // one of them; the others wait for it
///             assert!(START.is_completed());
///         })
///     })
///     .collect();
/// callers.into_iter().for_each(|caller| caller.join().unwrap());
/// ```
///
/// A panic in the function poisons the `Once`, as in std. A kill or a time-out does not: the next caller in line runs
/// its own function.
pub struct Once {
    /// Set after the function has run. A caller that reads `true` also sees what the function did.
    is_completed: AtomicBool,
    once: OnceCore,
}

/// What [`Once::call_once_force`] tells the function that it runs.
#[derive(Debug)]
pub struct OnceState {
    is_poisoned: bool,
}

impl OnceState {
    /// Whether an earlier function panicked.
    pub fn is_poisoned(&self) -> bool {
        self.is_poisoned
    }
}

#[cold]
#[track_caller]
fn poisoned() -> ! {
    panic!("a Once was poisoned by a panic in what it ran: use `call_once_force` to try again")
}

impl Once {
    /// A `Once` for which nothing has run yet.
    pub const fn new() -> Once {
        Once {
            is_completed: AtomicBool::new(false),
            once: OnceCore::new(),
        }
    }

    /// Runs `f`, unless a function has run; waits while one runs.
    ///
    /// # Panics
    /// If `f` does, or an earlier function did. If `f` uses this `Once` itself, which would wait for itself.
    ///
    /// # Blocking and cancellation
    /// Parks while another caller runs its function. A kill or time-out unwinds there, or in `f` where that parks; then
    /// the next in line runs its own function.
    #[inline]
    #[track_caller]
    pub fn call_once(&self, f: impl FnOnce()) {
        if !self.is_completed() {
            self.call(false, |_| f());
        }
    }

    /// The same, even if an earlier function panicked.
    ///
    /// ```
    /// use greenthread::{spawn_local, sync::Once};
    ///
    /// static ONCE: Once = Once::new();
    /// let first = spawn_local(|| ONCE.call_once(|| panic!("not today")));
    /// assert!(first.join().is_err());
    /// ONCE.call_once_force(|state| assert!(state.is_poisoned()));
    /// assert!(ONCE.is_completed());
    /// ```
    ///
    /// # Panics
    /// If `f` does, or uses this `Once` itself.
    #[inline]
    #[track_caller]
    pub fn call_once_force(&self, f: impl FnOnce(&OnceState)) {
        if !self.is_completed() {
            self.call(true, f);
        }
    }

    #[cold]
    #[track_caller]
    fn call(&self, force: bool, f: impl FnOnce(&OnceState)) {
        let Some(mut claim) = self.once.begin(&ONCE) else {
            // Another caller has finished.
            return;
        };
        let is_poisoned = claim.is_poisoned;
        if is_poisoned && !force {
            // Release the claim before the panic, so that the next caller need not wait for this one to unwind.
            drop(claim);
            poisoned();
        }
        // From here on a panic is one of `f`.
        claim.poisons();
        f(&OnceState { is_poisoned });
        // `Release` pairs with the load in `is_completed`: what `f` did is visible to callers that take the fast path.
        self.is_completed.store(true, Ordering::Release);
        claim.finish();
    }

    /// Whether a function has run to its end.
    #[inline]
    pub fn is_completed(&self) -> bool {
        self.is_completed.load(Ordering::Acquire)
    }

    /// Waits until a function has run.
    ///
    /// # Panics
    /// If the `Once` is poisoned.
    ///
    /// # Blocking and cancellation
    /// Parks until then. A kill or time-out unwinds here.
    #[track_caller]
    pub fn wait(&self) {
        self.wait_until(Until::Ever);
    }

    /// Waits until a function has run, for at most `timeout`; whether one has.
    ///
    /// # Panics
    /// As [`wait`](Self::wait).
    #[track_caller]
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        self.wait_until(Until::After(timeout))
    }

    /// Waits until a function has run, or until `deadline`; whether one has.
    ///
    /// # Panics
    /// As [`wait`](Self::wait).
    #[track_caller]
    pub fn wait_deadline(&self, deadline: Instant) -> bool {
        self.wait_until(Until::At(deadline))
    }

    #[track_caller]
    fn wait_until(&self, until: Until) -> bool {
        if self.is_completed() {
            return true;
        }
        match self.once.wait(until, &ONCE) {
            Some(false) => poisoned(),
            seen => seen.is_some(),
        }
    }

    /// Like [`wait`](Self::wait), for an `async` function.
    pub async fn wait_async(&self) {
        if !self.is_completed() && !self.once.wait_async().await {
            poisoned();
        }
    }
}

impl Default for Once {
    fn default() -> Once {
        Once::new()
    }
}

impl fmt::Debug for Once {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Once")
            .field("is_completed", &self.is_completed())
            .field("is_poisoned", &self.once.is_poisoned())
            .finish_non_exhaustive()
    }
}
