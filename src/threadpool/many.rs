//! Several jobs at once: their values in order, or as the jobs end.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::fmt;
use std::iter::FusedIterator;
use std::time::{Duration, Instant};

use super::Offload;
use super::error::{JobError, ShutDown};
use super::future::PoolFuture;
use super::job::Next;
use crate::hub::{Mode, Why};
use crate::sync::channel::{Receiver, unbounded};

static MAPPED: &str = "a job of a pool (map)";

/// The values of a [`map`](super::ThreadPool::map), in the order of its items. An error takes the place of its value.
///
/// ```
/// use std::time::Duration;
/// use greenthread::threadpool::ThreadPool;
///
/// let pool = ThreadPool::new(1);
/// let (tell, told) = std::sync::mpsc::channel::<()>();
/// let jobs: [Box<dyn FnOnce() -> u32 + Send>; 2] = [Box::new(|| 1), Box::new(move || told.recv().map_or(2, |()| 3))];
/// let mut map = pool.map(jobs, |job| job()).unwrap().timeout(Duration::from_millis(10));
/// assert_eq!(map.next().unwrap().unwrap(), 1);
/// assert!(map.next().unwrap().unwrap_err().is_timed_out());
/// assert!(map.next().is_none());
/// drop(tell);
/// ```
///
/// Dropping it cancels the jobs that have not begun, and so does its deadline. Jobs that run go on to their end.
///
/// # Blocking and cancellation
/// Each `next` parks. If the caller is killed or timed out there, it unwinds, and the value that it waited for is lost.
#[must_use = "dropping it cancels the jobs that have not begun"]
pub struct Map<T> {
    futures: VecDeque<PoolFuture<T>>,
    /// In the time of the hub's clock on which it was set.
    deadline: Option<Instant>,
}

impl<T> Map<T> {
    pub(crate) fn collect(
        futures: impl IntoIterator<Item = Result<PoolFuture<T>, ShutDown>>,
    ) -> Result<Map<T>, ShutDown> {
        let mut map = Map {
            futures: VecDeque::new(),
            deadline: None,
        };
        for future in futures {
            map.futures.push_back(future?);
        }
        Ok(map)
    }

    /// Sets a time limit for all values, from now on.
    ///
    /// If a value is not there in time, its place has an error with [`JobError::is_timed_out`], which is the last item.
    ///
    /// # Coming from Python
    /// `executor.map(.., timeout=..)`.
    #[track_caller]
    pub fn timeout(mut self, timeout: Duration) -> Map<T> {
        self.deadline = crate::time::after(timeout);
        self
    }

    /// Sets a deadline for all values; otherwise like [`timeout`](Self::timeout).
    pub fn deadline(mut self, deadline: Instant) -> Map<T> {
        self.deadline = Some(deadline);
        self
    }

    fn cancel(&mut self) {
        for future in self.futures.drain(..) {
            future.cancel();
        }
    }
}

impl<T> Iterator for Map<T> {
    type Item = Result<T, JobError>;

    #[track_caller]
    fn next(&mut self) -> Option<Self::Item> {
        let mut future = self.futures.pop_front()?;
        let deadline = self.deadline.map(crate::hub::deadline_at);
        let outcome = future.wait_until(deadline, Mode::Cancel, Why::new(&MAPPED, 0));
        Some(outcome.unwrap_or_else(|| {
            self.futures.push_back(future);
            self.cancel();
            Err(JobError::timed_out())
        }))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.futures.len()))
    }
}

impl<T> FusedIterator for Map<T> {}

impl<T> Drop for Map<T> {
    fn drop(&mut self) {
        self.cancel();
    }
}

impl<T> fmt::Debug for Map<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Map").field(&self.futures).finish()
    }
}

/// When a [`wait`] returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReturnWhen {
    /// When all jobs are done.
    All,
    /// When one job is done, or was cancelled.
    First,
    /// When one job has failed, or all are done. A cancelled job has not failed.
    FirstError,
}

/// Waits until some jobs are done, or for at most `timeout`. Returns those that are done and the rest, each in the
/// order given.
///
/// The jobs may belong to several pools.
///
/// ```
/// use greenthread::threadpool::{self, ReturnWhen, ThreadPool};
///
/// let pool = ThreadPool::new(2);
/// let (tell, told) = std::sync::mpsc::channel();
/// let futures = vec![pool.submit(move || told.recv().unwrap()).unwrap(), threadpool::to_thread(|| 1)];
/// let (done, rest) = threadpool::wait(futures, None, ReturnWhen::First);
/// assert_eq!((done.len(), rest.len()), (1, 1));
/// tell.send(2).unwrap();
/// let (done, rest) = threadpool::wait(rest, None, ReturnWhen::All);
/// assert_eq!((done.len(), rest.len()), (1, 0));
/// ```
///
/// # Blocking and cancellation
/// Parks. If the caller is killed or timed out meanwhile, the futures are dropped and the jobs run on.
///
/// # Coming from Python
/// `concurrent.futures.wait(fs, timeout, return_when)`.
#[track_caller]
pub fn wait<T>(
    futures: Vec<PoolFuture<T>>,
    timeout: Option<Duration>,
    when: ReturnWhen,
) -> (Vec<PoolFuture<T>>, Vec<PoolFuture<T>>) {
    let deadline = timeout.and_then(crate::time::after);
    let mut waiting = as_completed(futures);
    while let Some(number) = waiting.next_number(deadline) {
        let failed = waiting.all[number].as_ref().is_some_and(PoolFuture::has_failed);
        waiting.left -= 1;
        match when {
            ReturnWhen::First => break,
            ReturnWhen::FirstError if failed => break,
            _ => {}
        }
    }
    let all = std::mem::take(&mut waiting.all);
    all.into_iter().flatten().partition(PoolFuture::is_done)
}

/// Returns the futures one by one, as their jobs end. Those that are done already come first, in the order given.
///
/// ```
/// use std::{thread::sleep, time::Duration};
/// use greenthread::threadpool::{self, ThreadPool};
///
/// let pool = ThreadPool::new(2);
/// let slow = pool.submit(|| { sleep(Duration::from_millis(50)); "slow" }).unwrap();
/// let fast = pool.submit(|| "fast").unwrap();
/// let values = threadpool::as_completed([slow, fast]).map(|future| future.wait().unwrap());
/// assert_eq!(values.collect::<Vec<_>>(), ["fast", "slow"]);
/// ```
///
/// # Blocking and cancellation
/// Each `next` parks. If the caller is killed or timed out there, it unwinds, and the iterator can still be used.
///
/// # Coming from Python
/// `concurrent.futures.as_completed(fs)`.
pub fn as_completed<T>(futures: impl IntoIterator<Item = PoolFuture<T>>) -> AsCompleted<T> {
    let all: Vec<_> = futures.into_iter().map(Some).collect();
    let (sender, receiver) = unbounded();
    for (number, future) in all.iter().flatten().enumerate() {
        if !future.tell(Next::Tell(sender.clone(), number)) {
            // The job is done. The receiver exists, so the send cannot fail.
            let _ = sender.send(number);
        }
    }
    AsCompleted {
        left: all.len(),
        all,
        done: receiver,
    }
}

/// The iterator of [`as_completed`].
#[must_use = "it waits for no job until it is asked for an item"]
pub struct AsCompleted<T> {
    /// Indexed by number. Futures that were returned are taken out.
    all: Vec<Option<PoolFuture<T>>>,
    left: usize,
    done: Receiver<usize>,
}

impl<T> AsCompleted<T> {
    /// How many futures have not been returned yet.
    pub fn remaining(&self) -> usize {
        self.left
    }

    /// The next future that is done within `timeout`. `None` if none was, or if none [remains](Self::remaining).
    #[track_caller]
    pub fn next_timeout(&mut self, timeout: Duration) -> Option<PoolFuture<T>> {
        let deadline = crate::time::after(timeout);
        self.next_until(deadline)
    }

    /// The next future that is done by `deadline`. `None` if none was, or if none [remains](Self::remaining).
    #[track_caller]
    pub fn next_deadline(&mut self, deadline: Instant) -> Option<PoolFuture<T>> {
        self.next_until(Some(deadline))
    }

    #[track_caller]
    fn next_until(&mut self, deadline: Option<Instant>) -> Option<PoolFuture<T>> {
        let number = self.next_number(deadline)?;
        self.left -= 1;
        self.all[number].take()
    }

    #[track_caller]
    fn next_number(&mut self, deadline: Option<Instant>) -> Option<usize> {
        if self.left == 0 {
            return None;
        }
        let _abroad = Offload::new();
        match deadline {
            None => self.done.recv().ok(),
            Some(deadline) => self.done.recv_deadline(deadline).ok(),
        }
    }
}

impl<T> Iterator for AsCompleted<T> {
    type Item = PoolFuture<T>;

    #[track_caller]
    fn next(&mut self) -> Option<PoolFuture<T>> {
        self.next_until(None)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.left))
    }
}

impl<T> FusedIterator for AsCompleted<T> {}

impl<T> fmt::Debug for AsCompleted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.all.iter().flatten()).finish()
    }
}
