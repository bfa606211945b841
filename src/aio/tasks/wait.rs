//! Waiting for tasks: [`wait`], [`wait_for`], [`as_completed`], each for green code and as `…_async`.
//!
//! The green form blocks on the `async` one. A cancel of the caller drops that future, so both forms clean up in the
//! same way.
#![forbid(unsafe_code)]

use std::fmt;
use std::future::{Future, IntoFuture, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::{Duration, Instant};

use super::{IntoTask, Task, ensure_future};
use crate::aio::exceptions::TaskError;
use crate::future::block_on;
use crate::sync::channel::{Receiver, unbounded};
use crate::time;

/// What [`wait`] waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReturnWhen {
    /// All have ended.
    #[default]
    AllCompleted,
    /// One has ended, in whatever way.
    FirstCompleted,
    /// One has failed; or all have ended.
    FirstException,
}

impl ReturnWhen {
    fn is_met<T>(self, tasks: &[Task<T>]) -> bool {
        let failed = |task: &Task<T>| task.done() && !task.cancelled() && task.result().is_err();
        let any = match self {
            ReturnWhen::AllCompleted => false,
            ReturnWhen::FirstCompleted => tasks.iter().any(Task::done),
            ReturnWhen::FirstException => tasks.iter().any(failed),
        };
        any || tasks.iter().all(Task::done)
    }
}

/// The output of `future`, or `None` if the deadline comes first. With a deadline that has passed, `future` is polled
/// once.
async fn limit<F: Future + Unpin>(deadline: Option<Instant>, mut future: F) -> Option<F::Output> {
    let mut sleep = None;
    poll_fn(|context| {
        if let Poll::Ready(output) = Pin::new(&mut future).poll(context) {
            return Poll::Ready(Some(output));
        }
        let Some(deadline) = deadline else {
            return Poll::Pending;
        };
        if deadline <= time::now() {
            return Poll::Ready(None);
        }
        let sleep = sleep.get_or_insert_with(|| Box::pin(time::sleep_until_async(deadline)));
        sleep.as_mut().poll(context).map(|()| None)
    })
    .await
}

/// Waits until enough of `tasks` have ended, or for `timeout`.
///
/// It gives those that have ended and those that have not, each in the order given.
///
/// ```
/// use std::time::Duration;
/// use greenthread::{aio::{self, ReturnWhen}, sleep};
///
/// aio::run(aio::green(|| {
///     let tasks = [1, 60].map(|n| aio::create_task(aio::green(move || sleep(Duration::from_millis(n)))));
///     let (done, pending) = aio::wait(&tasks, None, ReturnWhen::FirstCompleted);
///     assert_eq!((done, pending), (vec![tasks[0].clone()], vec![tasks[1].clone()]));
/// }))
/// .unwrap();
/// ```
///
/// A time-out is no error, and nothing is ever cancelled.
///
/// # Panics
/// If there are no tasks: it would wait for nothing.
///
/// # Coming from Python
/// `asyncio.wait(tasks, timeout=.., return_when=..)`.
#[track_caller]
pub fn wait<T>(tasks: &[Task<T>], timeout: Option<Duration>, when: ReturnWhen) -> (Vec<Task<T>>, Vec<Task<T>>) {
    block_on(wait_async(tasks, timeout, when))
}

/// As [`wait`], for an `async` function.
///
/// # Panics
/// If there are no tasks.
pub async fn wait_async<T>(
    tasks: &[Task<T>],
    timeout: Option<Duration>,
    when: ReturnWhen,
) -> (Vec<Task<T>>, Vec<Task<T>>) {
    assert!(!tasks.is_empty(), "aio::wait on no tasks");
    let mut ends: Vec<_> = tasks.iter().map(|task| Some(Box::pin(task.any().finished()))).collect();
    let enough = poll_fn(|context| {
        for end in &mut ends {
            if end.as_mut().is_some_and(|end| end.as_mut().poll(context).is_ready()) {
                *end = None;
            }
        }
        if when.is_met(tasks) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    });
    limit(timeout.and_then(time::after), enough).await;
    tasks.iter().cloned().partition(Task::done)
}

/// Waits for `item` for at most `timeout`; then cancels it, and **waits until that is through**.
///
/// ```
/// use std::time::Duration;
/// use greenthread::{aio, thread};
///
/// aio::run(aio::green(|| {
///     let late = aio::wait_for(aio::green(thread::park), Duration::from_millis(1));
///     assert!(late.unwrap_err().is_timeout());
/// }))
/// .unwrap();
/// ```
///
/// If the task gives a value all the same (it caught the cancel, or was done just then), the value is returned.
///
/// # Errors
/// [`TaskError::TimedOut`], or its own.
///
/// # Coming from Python
/// `asyncio.wait_for`. A caller that is cancelled in here cancels the task, and waits for its end too.
#[track_caller]
pub fn wait_for<I: IntoTask<Output: Clone>>(item: I, timeout: Duration) -> Result<I::Output, TaskError> {
    let task = ensure_future(item);
    task.wait_propagating_cancel(|| {
        if !task.is_finished_by(time::after(timeout)) {
            task.cancel();
            task.is_finished_by(None);
            return as_timeout(task.value());
        }
        task.value()
    })
}

/// The outcome of a task that was cancelled because its time was over.
fn as_timeout<T>(outcome: Result<T, TaskError>) -> Result<T, TaskError> {
    match outcome {
        Err(TaskError::Cancelled(_)) => Err(TaskError::TimedOut),
        outcome => outcome,
    }
}

/// As [`wait_for`], for an `async` function.
///
/// Dropped, it cancels the task. A task that is cancelled while it awaits this ends after `item`'s task.
///
/// A future that blocks in a poll, as by the methods of an [`io::Reader`](crate::io::Reader), is cut short there.
///
/// ```
/// use std::{io::BufRead, time::Duration};
/// use greenthread::{aio, net::TcpListener};
///
/// # fn main() -> std::io::Result<()> {
/// let silent = TcpListener::bind("127.0.0.1:0")?;
/// let (mut reader, _writer) = aio::open_connection(silent.local_addr()?)?;
/// let line = aio::run(async {
///     let read = async move {
///         let mut line = String::new();
///         reader.read_line(&mut line).map(|_| line) // blocks, but only this task waits
///     };
///     aio::wait_for_async(aio::fallible(read), Duration::from_millis(5)).await
/// });
/// assert!(line.unwrap().unwrap_err().is_timeout());
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`TaskError::TimedOut`], or its own.
pub async fn wait_for_async<I: IntoTask<Output: Clone>>(item: I, timeout: Duration) -> Result<I::Output, TaskError> {
    let task = ensure_future(item);
    let mut waiting = pin!(task.clone().into_future());
    if let Some(outcome) = limit(time::after(timeout), waiting.as_mut()).await {
        return outcome;
    }
    task.cancel();
    as_timeout(waiting.await)
}

/// Gives the tasks of `items` in the order of their ends.
///
/// ```
/// use std::time::Duration;
/// use greenthread::{aio, sleep};
///
/// aio::run(aio::green(|| {
///     let naps = [9, 1, 5].map(|n| aio::green(move || { sleep(Duration::from_millis(n)); n }));
///     let ends: Vec<_> = aio::as_completed(naps, None).map(|task| task.unwrap().wait().unwrap()).collect();
///     assert_eq!(ends, [1, 5, 9]);
/// }))
/// .unwrap();
/// ```
///
/// After `timeout` (for all of them together) it gives [`TaskError::TimedOut`] once, and ends; nothing is cancelled.
///
/// # Coming from Python
/// `asyncio.as_completed`, which gives the tasks themselves since 3.13. In `async` code:
/// `while let Some(task) = tasks.next_async().await`.
#[track_caller]
pub fn as_completed<I>(items: I, timeout: Option<Duration>) -> AsCompleted<<I::Item as IntoTask>::Output>
where
    I: IntoIterator<Item: IntoTask>,
{
    let (sender, ended) = unbounded();
    let mut left = 0;
    for item in items {
        let sender = sender.clone();
        left += 1;
        // The send fails if the `AsCompleted` was dropped: then nothing waits for the task.
        ensure_future(item).add_done_callback(move |task| drop(sender.send(task.clone())));
    }
    AsCompleted {
        ended,
        left,
        deadline: timeout.and_then(time::after),
    }
}

/// The tasks of an [`as_completed`], in the order of their ends.
pub struct AsCompleted<T> {
    ended: Receiver<Task<T>>,
    left: usize,
    deadline: Option<Instant>,
}

impl<T> AsCompleted<T> {
    /// The next that ends, for an `async` function.
    pub async fn next_async(&mut self) -> Option<Result<Task<T>, TaskError>> {
        if self.left == 0 {
            return None;
        }
        match limit(self.deadline, pin!(self.ended.recv_async())).await {
            Some(Ok(task)) => {
                self.left -= 1;
                Some(Ok(task))
            }
            Some(Err(_)) => None,
            None => {
                self.left = 0;
                Some(Err(TaskError::TimedOut))
            }
        }
    }
}

impl<T> Iterator for AsCompleted<T> {
    type Item = Result<Task<T>, TaskError>;

    #[track_caller]
    fn next(&mut self) -> Option<Self::Item> {
        block_on(self.next_async())
    }
}

impl<T> fmt::Debug for AsCompleted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsCompleted")
            .field("left", &self.left)
            .finish_non_exhaustive()
    }
}
