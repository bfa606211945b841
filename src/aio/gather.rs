//! Several tasks as one, and a task that a cancel does not reach: [`gather`], [`shield`].
//!
//! Both make a task without a body: callbacks of the given tasks end it.
#![forbid(unsafe_code)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::spawn::ensure_future;
use super::tasks::{Outcome, cancel_all};
use super::{IntoTask, Task, TaskError};

/// Runs all of them, and gives their values in the order given.
///
/// ```
/// use greenthread::aio;
///
/// let squares = aio::run(async { aio::gather((1..=3).map(|n| async move { n * n })).await }).unwrap();
/// assert_eq!(squares.unwrap(), [1, 4, 9]);
/// ```
///
/// The first error is that of the whole, at once; **the others go on**. A task that was cancelled counts as an error.
/// To cancel the whole is to cancel each; it ends when they all have. A task given twice runs once. For futures of
/// different types, box them, or make tasks of one type of value.
///
/// # Coming from Python
/// `asyncio.gather(*aws)`.
#[track_caller]
pub fn gather<I>(items: I) -> Task<Vec<<I::Item as IntoTask>::Output>>
where
    I: IntoIterator<Item: IntoTask<Output: Clone>>,
{
    gathered(items, true, |tasks| tasks.iter().map(Task::value).collect())
}

/// As [`gather`], but waits for all, and gives each one's own outcome.
///
/// ```
/// use greenthread::aio;
///
/// let outcomes = aio::run(async {
///     let bodies = ["1", "x"].map(|text| aio::fallible(async { text.parse::<i32>() }));
///     aio::gather_exceptions(bodies).await.unwrap()
/// })
/// .unwrap();
/// assert_eq!(outcomes[0].as_ref().unwrap(), &1);
/// assert!(outcomes[1].is_err());
/// ```
///
/// # Coming from Python
/// `asyncio.gather(*aws, return_exceptions=True)`.
#[track_caller]
pub fn gather_exceptions<I>(items: I) -> Task<Vec<Result<<I::Item as IntoTask>::Output, TaskError>>>
where
    I: IntoIterator<Item: IntoTask<Output: Clone>>,
{
    gathered(items, false, |tasks| Ok(tasks.iter().map(Task::value).collect()))
}

#[track_caller]
fn gathered<I, T, R>(items: I, at_once: bool, sum: fn(&[Task<T>]) -> Outcome<R>) -> Task<R>
where
    I: IntoIterator<Item: IntoTask<Output = T>>,
    T: Clone + Send + Sync + 'static,
    R: Send + Sync + 'static,
{
    let tasks: Arc<[Task<T>]> = items.into_iter().map(ensure_future).collect();
    let whole = Task::pending("Gather");
    if tasks.is_empty() {
        whole.finish(sum(&[]));
        return whole;
    }
    let children: Vec<_> = tasks.iter().map(Task::any).collect();
    whole.cancel_by(move || cancel_all(&children));
    let left = Arc::new(AtomicUsize::new(tasks.len()));
    for task in tasks.iter() {
        let (whole, tasks, left) = (whole.clone(), tasks.clone(), left.clone());
        task.add_done_callback(move |task| {
            let was_cancelled = whole.cancelling() > 0;
            if at_once
                && !was_cancelled
                && let Err(error) = task.result()
            {
                whole.finish(Err(error));
            }
            if left.fetch_sub(1, Ordering::AcqRel) == 1 {
                whole.finish(if was_cancelled {
                    Err(whole.any().0.cancelled())
                } else {
                    sum(&tasks)
                });
            }
        });
    }
    whole
}

/// A task that ends as `item` does, and that can be cancelled without it.
///
/// ```
/// use std::time::Duration;
/// use greenthread::aio;
///
/// aio::run(async {
///     let save = aio::create_task(async {
///         aio::sleep(Duration::from_millis(5)).await;
///         "saved"
///     });
///     let waited = aio::wait_for_async(aio::shield(save.clone()), Duration::from_millis(1)).await;
///     assert!(waited.unwrap_err().is_timeout());
///     assert_eq!(save.await.unwrap(), "saved");
/// })
/// .unwrap();
/// ```
///
/// To defer a cancel *within* green code, there is [`thread::shield`](crate::thread::shield()).
///
/// # Coming from Python
/// `asyncio.shield`.
#[track_caller]
pub fn shield<I: IntoTask<Output: Clone>>(item: I) -> Task<I::Output> {
    let inner = ensure_future(item);
    let outer = Task::pending("Shield");
    outer.end_by_cancel();
    let ended = outer.clone();
    inner.add_done_callback(move |inner| {
        // If `outer` was cancelled, do not read the outcome: an error then counts as never looked at, and is reported.
        if !ended.done() {
            ended.finish(inner.value());
        }
    });
    outer
}
