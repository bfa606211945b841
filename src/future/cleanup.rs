//! Clean-up that awaits.
#![forbid(unsafe_code)]

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use super::asyncify::wait_to_the_end;

/// Runs `body`, then waits for the future of `cleanup`: also when `body` panics, is killed or timed out.
///
/// A destructor can hardly wait, because its stack is unwinding and waits are cut short. This function catches the
/// unwinding first, and lets it go on after the clean-up. A kill or time-out is delivered only when the clean-up has
/// ended.
///
/// ```
/// use greenthread::{future::with_async, sleep, spawn, sync::channel, time::sleep_async};
/// use std::time::Duration;
///
/// let (said, heard) = channel::unbounded();
/// let worker = spawn(move || {
///     with_async(
///         async || {
///             sleep_async(Duration::from_millis(1)).await;
///             said.send("goodbye").unwrap();
///         },
///         || sleep(Duration::from_secs(3600)),
///     )
/// });
/// greenthread::hub::idle();
/// worker.kill();
/// assert!(worker.join().unwrap_err().is_killed());
/// assert_eq!(heard.recv(), Ok("goodbye"));
/// ```
///
/// # Panics
/// As `body` or `cleanup` do. If both do, the clean-up's panic goes on.
///
/// # Blocking and cancellation
/// Under [`asyncify`](super::asyncify) the clean-up is awaited, elsewhere blocked on. It cannot be killed or timed out;
/// if the future of `asyncify` is dropped meanwhile, the drop waits for it.
///
/// # Coming from Python
/// `async with`, around code that blocks.
#[track_caller]
pub fn with_async<C, B, Fut, T>(cleanup: C, body: B) -> T
where
    C: FnOnce() -> Fut,
    B: FnOnce() -> T,
    Fut: Future<Output = ()>,
{
    let result = catch_unwind(AssertUnwindSafe(body));
    wait_to_the_end(cleanup());
    result.unwrap_or_else(|payload| resume_unwind(payload))
}
