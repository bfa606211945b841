//! Futures in blocking code: [`block_on`].
//!
//! The other direction needs no function: a [`JoinHandle`](crate::JoinHandle) is a `Future` for any executor.
//!
//! ```
//! use greenthread::{future::block_on, spawn};
//! let answer = spawn(|| 42);
//! assert_eq!(block_on(async { answer.await.unwrap() }), 42);
//! ```
#![forbid(unsafe_code)]

mod task;

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
