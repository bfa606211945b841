//! Catching and deferring a kill.
#![forbid(unsafe_code)]

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use crate::hub::{self, Hub, interrupt};

/// A kill that was caught.
#[doc(alias("GreenletExit", "CancelledError"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Killed;

impl fmt::Display for Killed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the green thread was killed")
    }
}

impl std::error::Error for Killed {}

/// Runs `f`, and catches a kill that is delivered in it. The kill is then over, and the green thread lives on.
///
/// ```
/// use greenthread::{spawn, thread};
/// let tough = spawn(|| thread::catch_kill(thread::park).is_err());
/// greenthread::yield_now();
/// tough.kill();
/// assert_eq!(tough.join().unwrap(), true);
/// ```
///
/// # Errors
/// [`Killed`]: a wait of `f` was cut short. A patched call of libc's cannot unwind; it fails with `ECANCELED`, and a
/// sleep ends early. If `f` returns after that it may have completed, but its value is dropped. Panics and time-outs
/// pass through.
///
/// # Coming from Python
/// `except GreenletExit:`, `except asyncio.CancelledError:` with `uncancel()`.
pub fn catch_kill<F: FnOnce() -> T, T>(f: F) -> Result<T, Killed> {
    // A kill that a patched call reported before `f` is not `f`'s: set that mark aside, and put it back below unless a
    // kill is caught.
    let told_before = Hub::try_current().is_some_and(|hub| interrupt::take_told(hub.running()));
    let result = catch_unwind(AssertUnwindSafe(f));
    // Looked up again: a stackless task may have another runner by now.
    let task = Hub::try_current().map(Hub::running);
    let told = task.is_some_and(interrupt::is_told_kill);
    let killed = match &result {
        Ok(_) => told,
        Err(payload) => interrupt::is_kill(&**payload),
    };
    if let Some(task) = task {
        if killed {
            interrupt::clear_kill(task);
        } else {
            interrupt::restore_told(task, told_before);
        }
    }
    match result {
        _ if killed => Err(Killed),
        Ok(value) => Ok(value),
        Err(payload) => resume_unwind(payload),
    }
}

/// Runs `f` with kills and time-outs deferred. They are delivered at the first park after it.
///
/// ```
/// use std::time::Duration;
/// use greenthread::{sleep, spawn, thread};
/// let saver = spawn(|| {
///     thread::shield(|| sleep(Duration::from_millis(5))); // not cut short
///     thread::park();                                     // dies here
/// });
/// greenthread::yield_now();
/// saver.kill();
/// assert!(saver.join().unwrap_err().is_killed());
/// ```
///
/// # Coming from Python
/// `asyncio.shield`, for code that blocks.
pub fn shield<F: FnOnce() -> T, T>(f: F) -> T {
    hub::shield(f)
}
