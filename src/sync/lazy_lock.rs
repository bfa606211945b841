//! A value that is made at its first use.
#![forbid(unsafe_code)]

use std::fmt;
use std::ops::Deref;
use std::sync::OnceLock as Cell;

use super::once_core::OnceCore;
use crate::hub::{self, Hub};
use crate::sys::spin::Spin;

static LAZY_LOCK: &str = "a LazyLock";

/// A value that is made at its first use, like [`std::sync::LazyLock`]. Callers that come meanwhile wait, and let
/// others run.
///
/// ```
/// use std::time::Duration;
/// use greenthread::{sleep, spawn, sync::LazyLock};
///
/// static WORDS: LazyLock<Vec<&str>> = LazyLock::new(|| {
///     sleep(Duration::from_millis(1)); // as if they were fetched
///     vec!["some", "words"]
/// });
/// let readers = [spawn(|| WORDS.len()), spawn(|| WORDS.len())];
/// assert_eq!(readers.map(|reader| reader.join().unwrap()), [2, 2]);
/// ```
///
/// The function can be called only once. If it panics, every later use of the value panics. So a kill or a time-out
/// must not end it. Both are deferred, as in a [`shield`](crate::thread::shield), and are delivered at the first park
/// after the function. This also holds for a [`timeout`](crate::time::timeout) within the function. Use the time-out of
/// the operation that the function waits for, or use a [`OnceLock`](super::OnceLock), where the next in line tries
/// again.
///
/// There is no form for an `async` function, because the function blocks; use
/// [`OnceLock::get_or_init_async`](super::OnceLock::get_or_init_async).
pub struct LazyLock<T, F = fn() -> T> {
    value: Cell<T>,
    once: OnceCore,
    init: Spin<Option<F>>,
}

impl<T, F: FnOnce() -> T> LazyLock<T, F> {
    /// A value that `init` will make.
    pub const fn new(init: F) -> LazyLock<T, F> {
        LazyLock {
            value: Cell::new(),
            once: OnceCore::new(),
            init: Spin::new(Some(init)),
        }
    }

    /// The value, made now if it was not yet; the same as `&*this`.
    ///
    /// # Panics
    /// If the function does, or did. If the function uses the value itself, which would wait for itself.
    ///
    /// # Blocking and cancellation
    /// Parks while another caller makes the value. A kill or time-out unwinds there, but not in the function.
    #[inline]
    #[track_caller]
    pub fn force(this: &LazyLock<T, F>) -> &T {
        match this.value.get() {
            Some(value) => value,
            None => this.make(),
        }
    }

    #[cold]
    #[track_caller]
    fn make(&self) -> &T {
        if let Some(claim) = self.once.begin(&LAZY_LOCK) {
            // An earlier owner of the claim has taken the function and ended without a value, so the function panicked.
            let Some(init) = self.init.lock().take() else {
                panic!("a LazyLock was poisoned by a panic in its function: it has no value, and gets none")
            };
            // In the last destructors of an OS thread there is no hub, and so no kill or time-out to defer.
            let value = if Hub::has_ended() { init() } else { hub::shield(init) };
            // The value first: waiters that continue after the claim must find it.
            let _ = self.value.set(value);
            claim.finish();
        }
        self.value.wait()
    }

    /// The value, if it was made. This does not wait.
    ///
    /// ```
    /// use greenthread::sync::LazyLock;
    ///
    /// let lazy = LazyLock::new(|| 42);
    /// assert_eq!(LazyLock::get(&lazy), None);
    /// assert_eq!((*lazy, LazyLock::get(&lazy)), (42, Some(&42)));
    /// ```
    #[inline]
    pub fn get(this: &LazyLock<T, F>) -> Option<&T> {
        this.value.get()
    }
}

impl<T, F: FnOnce() -> T> Deref for LazyLock<T, F> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        LazyLock::force(self)
    }
}

impl<T: Default> Default for LazyLock<T> {
    /// Made by `T::default`.
    fn default() -> LazyLock<T> {
        LazyLock::new(T::default)
    }
}

impl<T: fmt::Debug, F> fmt::Debug for LazyLock<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_tuple("LazyLock");
        match self.value.get() {
            Some(value) => out.field(value),
            None => out.field(&format_args!("<uninit>")),
        };
        out.finish()
    }
}
