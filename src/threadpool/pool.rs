//! A pool of OS threads that the user makes.
#![forbid(unsafe_code)]

use std::fmt;
use std::sync::Arc;
use std::thread::panicking;
use std::time::Duration;

use super::error::ShutDown;
use super::job::Outcome;
use super::many::Map;
use super::worker::{Config, Pool};
use super::{IDLE, Offload, PoolFuture};
use crate::hub::Hub;

/// A pool of OS threads, each of which runs one job after another.
///
/// It starts an OS thread only when a job comes and none is idle, up to a limit. An OS thread ends after ten idle
/// seconds. Dropping the pool waits for all jobs, as [`shutdown(true, false)`](Self::shutdown) does.
///
/// ```
/// use greenthread::threadpool::ThreadPool;
///
/// let pool = ThreadPool::new(4);
/// let sum = pool.submit(|| 1 + 1).unwrap();
/// let squares = pool.map(1..=3, |n| n * n).unwrap();
/// assert_eq!(squares.map(Result::unwrap).collect::<Vec<_>>(), [1, 4, 9]);
/// assert_eq!(sum.wait().unwrap(), 2);
/// ```
///
/// Jobs run outside of the program's hubs, as in [`unblock`](super::unblock). A job that waits for another job of the
/// same pool keeps its OS thread meanwhile: if all jobs do so, none goes on.
///
/// # Blocking and cancellation
/// Dropping the pool parks until its jobs are done. A kill or time-out unwinds there, and the jobs run on. The drop
/// does not wait in a hub callback, while the caller unwinds, or on an OS thread of the pool itself.
///
/// # Coming from Python
/// `concurrent.futures.ThreadPoolExecutor`, `gevent.threadpool.ThreadPool`. The drop is the end of the `with` block.
pub struct ThreadPool {
    pool: Arc<Pool>,
}

impl ThreadPool {
    /// A pool of at most `threads` OS threads. It starts none yet.
    ///
    /// # Panics
    /// If `threads` is 0.
    #[track_caller]
    pub fn new(threads: usize) -> ThreadPool {
        Builder::new().threads(threads).build()
    }

    /// Runs `f` on an OS thread of the pool; jobs begin in the order in which they were submitted.
    ///
    /// If the system gives no OS thread and the pool has none, `f` runs in this call.
    ///
    /// # Errors
    /// [`ShutDown`]; `f` is dropped.
    ///
    /// # Coming from Python
    /// `executor.submit(f, *args)`.
    pub fn submit<F, T>(&self, f: F) -> Result<PoolFuture<T>, ShutDown>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.submit_outcome(move || Ok(f()))
    }

    /// Like `submit`, for a job that returns its own errors.
    pub(crate) fn submit_outcome<F, T>(&self, f: F) -> Result<PoolFuture<T>, ShutDown>
    where
        F: FnOnce() -> Outcome<T> + Send + 'static,
        T: Send + 'static,
    {
        self.pool.submit(f).ok_or(ShutDown)
    }

    /// Submits `f` of each item, all at once; the iterator returns the values in the order of the items.
    ///
    /// See [`Map`] for its deadline. Dropping the iterator cancels the jobs that have not begun.
    ///
    /// # Errors
    /// [`ShutDown`]; jobs that this call has submitted before are cancelled.
    ///
    /// # Coming from Python
    /// `executor.map(f, items)`.
    pub fn map<I, F, T>(&self, items: I, f: F) -> Result<Map<T>, ShutDown>
    where
        I: IntoIterator<Item: Send + 'static>,
        F: Fn(I::Item) -> T + Send + Sync + 'static,
        T: Send + 'static,
    {
        let f = Arc::new(f);
        Map::collect(items.into_iter().map(|item| {
            let f = f.clone();
            self.submit(move || f(item))
        }))
    }

    /// Takes no more jobs from now on.
    ///
    /// With `cancel`, jobs that have not begun are cancelled. With `wait`, it waits until all other jobs are done and
    /// the OS threads have ended.
    ///
    /// ```
    /// use greenthread::threadpool::{ShutDown, ThreadPool};
    ///
    /// let pool = ThreadPool::new(2);
    /// let last = pool.submit(|| 7).unwrap();
    /// pool.shutdown(true, false);
    /// assert!(last.is_done());
    /// assert_eq!(pool.submit(|| 8).unwrap_err(), ShutDown);
    /// ```
    ///
    /// # Panics
    /// With `wait`, in a hub callback, if there is something to wait for.
    ///
    /// # Blocking and cancellation
    /// Parks with `wait`, unless it is called on an OS thread of the pool, which cannot wait for itself. A kill or
    /// time-out unwinds there; the pool is shut down all the same.
    ///
    /// # Coming from Python
    /// `executor.shutdown(wait=True, cancel_futures=False)`.
    #[track_caller]
    pub fn shutdown(&self, wait: bool, cancel: bool) {
        self.pool.shut_down(cancel);
        if wait {
            self.wait();
        }
    }

    #[track_caller]
    fn wait(&self) {
        if !self.pool.ended().is_set() && !self.pool.is_member() {
            let _abroad = Offload::new();
            self.pool.ended().wait();
        }
    }

    /// How many OS threads the pool has.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// How many of the pool's OS threads are idle.
    pub fn idle(&self) -> usize {
        self.pool.idle()
    }

    /// How many OS threads the pool may have.
    pub fn max_threads(&self) -> usize {
        self.pool.most()
    }

    /// How many jobs wait for an OS thread; cancelled ones count.
    pub fn pending(&self) -> usize {
        self.pool.pending()
    }

    /// Sets how many OS threads the pool may have from now on. Those above the limit end as they become free.
    ///
    /// # Panics
    /// If `threads` is 0.
    ///
    /// # Coming from Python
    /// `gevent.threadpool.ThreadPool.maxsize`.
    #[track_caller]
    pub fn set_max_threads(&self, threads: usize) {
        self.pool.resize(at_least_one(threads));
    }
}

#[track_caller]
fn at_least_one(threads: usize) -> usize {
    assert!(
        threads > 0,
        "a pool of 0 OS threads could not run any job: give at least 1"
    );
    threads
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        self.pool.shut_down(false);
        let in_callback = || Hub::try_current().is_some_and(Hub::is_in_callback);
        if !panicking() && !Hub::has_ended() && !in_callback() {
            self.wait();
        }
    }
}

impl fmt::Debug for ThreadPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThreadPool")
            .field("threads", &self.threads())
            .field("idle", &self.idle())
            .field("max_threads", &self.max_threads())
            .field("pending", &self.pending())
            .finish_non_exhaustive()
    }
}

/// Makes a [`ThreadPool`] with settings of its own.
///
/// ```
/// use greenthread::threadpool::Builder;
///
/// let pool = Builder::new().threads(2).name("reader").build();
/// let name = pool.submit(|| std::thread::current().name().map(String::from)).unwrap();
/// assert_eq!(name.wait().unwrap().as_deref(), Some("reader-0"));
/// ```
#[must_use = "no pool is made until `build` is called"]
pub struct Builder {
    threads: usize,
    config: Config,
}

impl Builder {
    /// A builder for as many OS threads as there are processors, plus four.
    pub fn new() -> Builder {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Builder {
            threads: processors + 4,
            config: Config {
                name: String::from("greenthread-pool"),
                numbered: true,
                idle: IDLE,
                set_up: None,
                tear_down: None,
            },
        }
    }

    /// Sets how many OS threads the pool may have.
    ///
    /// # Panics
    /// If `threads` is 0.
    #[track_caller]
    pub fn threads(mut self, threads: usize) -> Builder {
        self.threads = at_least_one(threads);
        self
    }

    /// Sets the prefix of the names of the OS threads; a dash and a number follow.
    pub fn name(mut self, prefix: impl Into<String>) -> Builder {
        self.config.name = prefix.into();
        self
    }

    /// Sets how long an OS thread may be idle before it ends.
    pub fn idle_timeout(mut self, idle: Duration) -> Builder {
        self.config.idle = idle;
        self
    }

    /// Sets a function that is called on each new OS thread, before its first job.
    ///
    /// If it panics, the job that the OS thread was to run fails with [`is_broken`](super::JobError::is_broken); it is
    /// called again for the next job.
    ///
    /// # Coming from Python
    /// `ThreadPoolExecutor(initializer=..)`, but one failure does not break the whole pool.
    pub fn initializer<F: Fn() + Send + Sync + 'static>(mut self, f: F) -> Builder {
        self.config.set_up = Some(Arc::new(f));
        self
    }

    /// Sets a function that is called on each OS thread before it ends.
    #[cfg(feature = "process-pool")]
    pub(crate) fn finalizer(mut self, f: fn()) -> Builder {
        self.config.tear_down = Some(f);
        self
    }

    /// Makes the pool.
    pub fn build(self) -> ThreadPool {
        ThreadPool {
            pool: Pool::new(self.config, self.threads),
        }
    }
}

impl Default for Builder {
    fn default() -> Builder {
        Builder::new()
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("threads", &self.threads)
            .field("name", &self.config.name)
            .finish_non_exhaustive()
    }
}
