//! `async with`: a block with an exit that may wait.
#![forbid(unsafe_code)]

use std::future::Future;
use std::panic::resume_unwind;

use super::tasks::caught;
use crate::future;

/// Something that is entered and left by code that waits; see [`with_async`].
///
/// # Coming from Python
/// `__aenter__` and `__aexit__`.
pub trait AsyncContext {
    /// What the body gets.
    type Value;

    /// Enters.
    fn enter(&mut self) -> impl Future<Output = Self::Value>;

    /// Leaves; called once for each `enter` that has ended.
    fn exit(&mut self) -> impl Future<Output = ()>;
}

/// Leaves when dropped, by a task of its own because a drop cannot await.
struct Exit<C: AsyncContext + 'static>(Option<C>);

impl<C: AsyncContext + 'static> Drop for Exit<C> {
    fn drop(&mut self) {
        if let Some(mut context) = self.0.take() {
            drop(future::spawn(async move { context.exit().await }));
        }
    }
}

/// Enters `context`, runs `body` with the value that gives, and leaves again, also if `body` panics.
///
/// ```
/// use greenthread::aio::{self, AsyncContext};
///
/// struct Connection;
///
/// impl AsyncContext for Connection {
///     type Value = u32;
///     async fn enter(&mut self) -> u32 {
///         aio::sleep(std::time::Duration::from_millis(1)).await;
///         666
///     }
///     async fn exit(&mut self) {
///         println!("closed");
///     }
/// }
///
/// let value = aio::run(async { aio::with_async(Connection, async |value| value).await });
/// assert_eq!(value.unwrap(), 666);
/// ```
///
/// If this future is dropped within `body` (a cancel, a time-out), a task of its own leaves, soon. If it is dropped
/// while it leaves, the exit is not completed. Green code needs no such thing: the destructor of a guard may wait.
///
/// # Coming from Python
/// `async with context as value`.
pub async fn with_async<C, F, T>(mut context: C, body: F) -> T
where
    C: AsyncContext + 'static,
    F: AsyncFnOnce(C::Value) -> T,
{
    let value = context.enter().await;
    let mut exit = Exit(Some(context));
    let outcome = caught(body(value)).await;
    if let Some(mut context) = exit.0.take() {
        context.exit().await;
    }
    outcome.unwrap_or_else(|payload| resume_unwind(payload))
}
