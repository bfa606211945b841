//! A value that is set once.
//!
//! The value lies in std's cell, which is never contended, because only the owner of the claim sets it. So a read is
//! one load as in std, and no OS thread ever waits in that cell.
#![forbid(unsafe_code)]

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::sync::OnceLock as Cell;
use std::time::{Duration, Instant};

use super::once_core::{ClaimGuard, OnceCore};
use super::wait::Until;

static ONCE_LOCK: &str = "a OnceLock";

/// A value that is set once, like [`std::sync::OnceLock`]. Callers that come while another makes the value wait, and
/// let others run.
///
/// ```
/// use std::time::Duration;
/// use greenthread::{sleep, spawn, sync::OnceLock};
///
/// static CONFIG: OnceLock<String> = OnceLock::new();
/// let config = || {
///     CONFIG.get_or_init(|| {
///         sleep(Duration::from_millis(1)); // one of them; the other waits for it
///         String::from("read once")
///     })
/// };
/// let (one, two) = (spawn(config), spawn(config));
/// assert!(std::ptr::eq(one.join().unwrap(), two.join().unwrap()));
/// ```
///
/// A caller that panics, is killed, is timed out or is dropped while it makes the value leaves that to the next in
/// line: there is no poison. The type is named `OnceCell`, too.
#[doc(alias = "SetOnce")]
pub struct OnceLock<T> {
    value: Cell<T>,
    once: OnceCore,
}

impl<T> OnceLock<T> {
    /// A cell without a value.
    pub const fn new() -> OnceLock<T> {
        OnceLock {
            value: Cell::new(),
            once: OnceCore::new(),
        }
    }

    /// The value, if it is set. This does not wait.
    #[inline]
    pub fn get(&self) -> Option<&T> {
        self.value.get()
    }

    /// The value, if it is set.
    pub fn get_mut(&mut self) -> Option<&mut T> {
        self.value.get_mut()
    }

    /// Sets the value.
    ///
    /// # Errors
    /// The value, if another was set.
    ///
    /// # Panics
    /// If called by the function that makes the value of this cell.
    ///
    /// # Blocking and cancellation
    /// Parks while another caller makes the value, as in std. A kill or time-out unwinds here.
    #[track_caller]
    pub fn set(&self, value: T) -> Result<(), T> {
        if self.get().is_some() {
            return Err(value);
        }
        match self.once.begin(&ONCE_LOCK) {
            Some(claim) => self.fill(claim, value),
            None => Err(value),
        }
    }

    /// Sets the value, and then ends the claim.
    fn fill(&self, claim: ClaimGuard<'_>, value: T) -> Result<(), T> {
        let set = self.value.set(value);
        // The value first: waiters that continue after this must find it.
        claim.finish();
        set
    }

    /// The value, made by `f` if it is not set; waits while another caller makes it.
    ///
    /// # Panics
    /// If `f` does; the next in line makes the value then. If `f` asks for the value of this cell itself.
    ///
    /// # Blocking and cancellation
    /// Parks while another caller makes the value. A kill or time-out unwinds there, or in `f` where that parks; then
    /// the next in line makes it.
    #[inline]
    #[track_caller]
    pub fn get_or_init(&self, f: impl FnOnce() -> T) -> &T {
        match self.get_or_try_init(|| Ok::<T, Infallible>(f())) {
            Ok(value) => value,
            Err(never) => match never {},
        }
    }

    /// The same for a function that may fail.
    ///
    /// ```
    /// use greenthread::sync::OnceLock;
    ///
    /// let port = OnceLock::new();
    /// assert!(port.get_or_try_init(|| "http".parse::<u16>()).is_err());
    /// assert_eq!(port.get_or_try_init(|| "80".parse::<u16>()), Ok(&80));
    /// ```
    ///
    /// # Errors
    /// The error of `f`; the next in line makes the value then.
    ///
    /// # Panics
    /// As [`get_or_init`](Self::get_or_init).
    #[inline]
    #[track_caller]
    pub fn get_or_try_init<E>(&self, f: impl FnOnce() -> Result<T, E>) -> Result<&T, E> {
        match self.get() {
            Some(value) => Ok(value),
            None => self.init(f),
        }
    }

    #[cold]
    #[track_caller]
    fn init<E>(&self, f: impl FnOnce() -> Result<T, E>) -> Result<&T, E> {
        // An error drops the claim unfinished, and the next in line makes the value.
        if let Some(claim) = self.once.begin(&ONCE_LOCK) {
            let _ = self.fill(claim, f()?);
        }
        // Set by now, here or by the caller that had the claim: std's `wait` returns at once.
        Ok(self.value.wait())
    }

    /// Like [`get_or_init`](Self::get_or_init), for an `async` function. If the future is dropped while it makes the
    /// value, it leaves that to the next in line.
    ///
    /// ```
    /// use greenthread::{future::block_on, sync::OnceLock};
    ///
    /// let cell = OnceLock::new();
    /// assert_eq!(block_on(cell.get_or_init_async(|| async { 42 })), &42);
    /// ```
    ///
    /// A future that asks for the value of the cell that it is making waits forever: one future cannot be told from
    /// another.
    pub async fn get_or_init_async<F, R>(&self, f: F) -> &T
    where
        F: FnOnce() -> R,
        R: Future<Output = T>,
    {
        match self
            .get_or_try_init_async(|| async { Ok::<T, Infallible>(f().await) })
            .await
        {
            Ok(value) => value,
            Err(never) => match never {},
        }
    }

    /// Like [`get_or_try_init`](Self::get_or_try_init), for an `async` function.
    ///
    /// # Errors
    /// The error of `f`'s future; the next in line makes the value then.
    pub async fn get_or_try_init_async<F, R, E>(&self, f: F) -> Result<&T, E>
    where
        F: FnOnce() -> R,
        R: Future<Output = Result<T, E>>,
    {
        if let Some(value) = self.get() {
            // As in `init`: an error, or a drop of this future, drops the claim unfinished.
            return Ok(value);
        }
        if let Some(claim) = self.once.begin_async().await {
            let _ = self.fill(claim, f().await?);
        }
        Ok(self.value.wait())
    }

    /// Waits until the value is set.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use greenthread::{spawn, sync::OnceLock};
    ///
    /// let answer = Arc::new(OnceLock::new());
    /// let theirs = answer.clone();
    /// spawn(move || theirs.set(42));
    /// assert_eq!(answer.wait(), &42);
    /// ```
    ///
    /// # Blocking and cancellation
    /// Parks until then. A kill or time-out unwinds here.
    #[track_caller]
    pub fn wait(&self) -> &T {
        if self.get().is_none() {
            self.once.wait(Until::Ever, &ONCE_LOCK);
        }
        // Set by now: std's `wait` returns at once, and does not block the OS thread.
        self.value.wait()
    }

    /// Waits until the value is set for at most `timeout`.
    #[track_caller]
    pub fn wait_timeout(&self, timeout: Duration) -> Option<&T> {
        self.wait_until(Until::After(timeout))
    }

    /// Waits until the value is set, or until `deadline`.
    #[track_caller]
    pub fn wait_deadline(&self, deadline: Instant) -> Option<&T> {
        self.wait_until(Until::At(deadline))
    }

    #[track_caller]
    fn wait_until(&self, until: Until) -> Option<&T> {
        if self.get().is_none() {
            self.once.wait(until, &ONCE_LOCK);
        }
        self.get()
    }

    /// Like [`wait`](Self::wait), for an `async` function.
    pub async fn wait_async(&self) -> &T {
        if self.get().is_none() {
            self.once.wait_async().await;
        }
        self.value.wait()
    }

    /// The value, if it was set.
    pub fn into_inner(self) -> Option<T> {
        self.value.into_inner()
    }

    /// Takes the value out, if it was set, so that another value can be set.
    pub fn take(&mut self) -> Option<T> {
        std::mem::take(self).into_inner()
    }
}

impl<T> Default for OnceLock<T> {
    fn default() -> OnceLock<T> {
        OnceLock::new()
    }
}

impl<T> From<T> for OnceLock<T> {
    fn from(value: T) -> OnceLock<T> {
        let cell = OnceLock::new();
        let _ = cell.set(value);
        cell
    }
}

impl<T: Clone> Clone for OnceLock<T> {
    fn clone(&self) -> OnceLock<T> {
        self.get().cloned().map_or_else(OnceLock::new, OnceLock::from)
    }
}

impl<T: PartialEq> PartialEq for OnceLock<T> {
    fn eq(&self, other: &OnceLock<T>) -> bool {
        self.get() == other.get()
    }
}

impl<T: Eq> Eq for OnceLock<T> {}

impl<T: fmt::Debug> fmt::Debug for OnceLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_tuple("OnceLock");
        match self.get() {
            Some(value) => out.field(value),
            None => out.field(&format_args!("<uninit>")),
        };
        out.finish()
    }
}
