//! Catching and deferring a kill.
#![forbid(unsafe_code)]

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use crate::hub::{Hub, interrupt};

/// A kill that was caught.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Killed;

impl fmt::Display for Killed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("green thread was killed")
    }
}

impl std::error::Error for Killed {}

/// Runs `f`, and catches a kill that is delivered in it. The kill is then spent: the green thread lives on.
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
/// [`Killed`]. Panics and time-outs pass through.
///
/// # Coming from Python
/// `except GreenletExit:`, `except asyncio.CancelledError:` with `uncancel()`.
pub fn catch_kill<F: FnOnce() -> T, T>(f: F) -> Result<T, Killed> {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(value) => Ok(value),
        Err(payload) if interrupt::is_kill(&*payload) => {
            interrupt::clear_kill(Hub::current().running());
            Err(Killed)
        }
        Err(payload) => resume_unwind(payload),
    }
}

/// Runs `f` with kill and time-out deferred: they are delivered at the first park after it.
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
    interrupt::shield(f)
}
