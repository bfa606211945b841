//! Futures among green threads: each side calls the other.
//!
//! | you have | use |
//! |---|---|
//! | a future, in blocking code | [`block_on`], [`block_on_stream`] |
//! | a future that is to run on its own | [`spawn`]; from another OS thread, [`Handle::spawn_future`](crate::hub::Handle::spawn_future) |
//! | blocking code, in a program of green threads and tasks | call it: a poll may block |
//! | blocking code, on somebody else's executor | [`asyncify`], [`asyncify_on`]; within it, [`await_`] |
//! | clean-up that awaits, on the way out of blocking code | [`with_async`] |
//!
//! A [`JoinHandle`](crate::JoinHandle), the futures of [`sync`](crate::sync) and those of [`time`](crate::time) are
//! awaited on any executor.
//!
//! ```
//! use greenthread::{future, sleep, spawn, time::sleep_async};
//! use std::time::Duration;
//!
//! let answer = spawn(|| 42);
//! let task = future::spawn(async {
//!     sleep_async(Duration::from_millis(1)).await; // costs no stack meanwhile
//!     sleep(Duration::from_millis(1)); // blocks nobody else
//!     answer.await.unwrap()
//! });
//! assert_eq!(task.join().unwrap(), 42);
//! ```
//!
//! # What a drop does
//! A future that is dropped leaves every queue that it waits in, and passes on what it was handed. A future with a
//! stack ([`asyncify`]) is unwound by the drop, so its destructors run. The handle of a task or a green thread that is
//! dropped detaches it.
//!
//! # Crates that need tokio
//! They ask for its reactor and timers, not for its scheduler. *Beside*: `block_on(async_compat::Compat::new(future))`;
//! tokio runs on an OS thread of its own, and wakes come from there. The first to try. *Inside*: tokio's own `block_on`
//! in a green thread whose libc is patched (feature `monkey`); it has its own thread-locals, so each may have its
//! runtime. *Around*: the program is tokio's, and the hub lives in it: [`hub::as_fd`](crate::hub::as_fd) in an
//! `AsyncFd`, then [`hub::turn`](crate::hub::turn).
#![forbid(unsafe_code)]

mod asyncify;
mod cleanup;
mod stream;
mod task;

pub use asyncify::{Asyncify, AsyncifyOn, asyncify, asyncify_on, await_, try_await};
pub use cleanup::with_async;
pub use stream::{BlockOn, block_on_stream};
pub use task::{Task, spawn};

use std::future::Future;
use std::pin::pin;

use crate::hub::park::Why;
use crate::hub::polled::poll_until;

static FUTURE: &str = "a future (block_on)";

/// Waits for a future: in a green thread it parks that one, in main it pumps the hub.
///
/// ```
/// use greenthread::future::block_on;
/// assert_eq!(block_on(async { 1 + 1 }), 2);
/// ```
///
/// # Panics
/// In a hub callback, which cannot block.
///
/// # Blocking and cancellation
/// Parks between polls. A kill or time-out unwinds here, and drops the future; a `panic = "abort"` build, which cannot
/// unwind, waits for the future all the same.
///
/// # Coming from Python
/// `loop.run_until_complete(future)`, and `await_only` in a greenlet of SQLAlchemy's.
#[track_caller]
pub fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    loop {
        let output = poll_until(None, Why::new(&FUTURE, 0), |context| future.as_mut().poll(context));
        if let Some(output) = output {
            return output;
        }
    }
}
