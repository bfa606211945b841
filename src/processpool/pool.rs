//! A pool of processes: a pool of OS threads, each with a worker process of its own.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::link::{self, Plan};
use super::{Reply, Workers};
use crate::threadpool::{self, JobError, Map, Outcome, PoolFuture, ShutDown, ThreadPool};

/// A pool of processes, each of which runs one job after another.
///
/// It starts a process only when a job comes and none is idle, up to the limit; a process ends after ten idle seconds.
/// The drop waits for all jobs. See [the module](super) for an example.
///
/// A worker that dies fails its job with [`JobError::is_broken`], and the next job gets another. A panic in a job is an
/// error with [`JobError::is_panic`] and the text of the panic as its payload; the worker lives on.
///
/// # Blocking and cancellation
/// As [`ThreadPool`]. A job that runs is not stopped by anything but the death of its worker.
///
/// # Coming from Python
/// `concurrent.futures.ProcessPoolExecutor`.
pub struct ProcessPool {
    plan: Arc<Plan>,
    threads: ThreadPool,
}

impl ProcessPool {
    /// A pool of at most `processes` workers; it starts none yet.
    ///
    /// # Panics
    /// If `processes` is 0.
    #[track_caller]
    pub fn new(workers: &Workers, processes: usize) -> ProcessPool {
        Builder::new(workers).processes(processes).build()
    }

    /// Has a worker run `f` of this argument.
    ///
    /// # Errors
    /// [`ShutDown`]. The future gives the job's own errors: [`JobError::is_encoding`] if serde refuses the argument or
    /// the value.
    ///
    /// # Panics
    /// If `f` was not given to [`Functions::with`](super::Functions::with).
    ///
    /// # Coming from Python
    /// `executor.submit(f, argument)`.
    #[track_caller]
    pub fn submit<F, A, R>(&self, f: F, argument: A) -> Result<PoolFuture<R>, ShutDown>
    where
        F: Fn(A) -> R + 'static,
        A: Serialize,
        R: DeserializeOwned + Send + 'static,
    {
        // Only the type of `f` is needed: it names the function.
        drop(f);
        self.send(self.plan.workers.number::<F>(), &argument)
    }

    fn send<R>(&self, number: u32, argument: &impl Serialize) -> Result<PoolFuture<R>, ShutDown>
    where
        R: DeserializeOwned + Send + 'static,
    {
        let argument = postcard::to_stdvec(argument);
        let plan = self.plan.clone();
        self.threads.submit_outcome(move || {
            let argument =
                argument.map_err(|error| JobError::encoding(format!("its argument cannot be encoded: {error}")))?;
            value(link::call(&plan, number, &argument)?)
        })
    }

    /// Submits `f` of each item, all at once; the iterator gives the values in the order of the items.
    ///
    /// # Errors
    /// [`ShutDown`]; what was submitted before that is cancelled.
    ///
    /// # Panics
    /// As [`submit`](Self::submit).
    ///
    /// # Coming from Python
    /// `executor.map(f, items)`.
    #[track_caller]
    pub fn map<I, F, R>(&self, items: I, f: F) -> Result<Map<R>, ShutDown>
    where
        I: IntoIterator<Item: Serialize>,
        F: Fn(I::Item) -> R + 'static,
        R: DeserializeOwned + Send + 'static,
    {
        drop(f);
        let number = self.plan.workers.number::<F>();
        Map::collect(items.into_iter().map(|item| self.send(number, &item)))
    }

    /// Takes no more jobs; as [`ThreadPool::shutdown`]. With `wait`, the processes have ended when it returns.
    ///
    /// # Panics
    /// With `wait`, in a hub callback, if there is something to wait for.
    #[track_caller]
    pub fn shutdown(&self, wait: bool, cancel: bool) {
        self.threads.shutdown(wait, cancel);
    }
}

fn value<R: DeserializeOwned>(reply: Reply) -> Outcome<R> {
    match reply {
        Reply::Value(bytes) => postcard::from_bytes(&bytes)
            .map_err(|error| JobError::encoding(format!("its value cannot be decoded: {error}"))),
        Reply::Panic(text) => Err(JobError::panicked(Box::new(text))),
        Reply::Encoding(text) => Err(JobError::encoding(text)),
    }
}

impl fmt::Debug for ProcessPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessPool")
            .field("processes", &self.threads.threads())
            .field("max_processes", &self.threads.max_threads())
            .field("pending", &self.threads.pending())
            .finish_non_exhaustive()
    }
}

/// A [`ProcessPool`] with other settings.
#[must_use = "no pool is made until `build` is called"]
pub struct Builder {
    workers: Workers,
    args: Option<Vec<OsString>>,
    max_tasks: usize,
    threads: threadpool::Builder,
}

impl Builder {
    /// A pool of as many workers as there are processors.
    pub fn new(workers: &Workers) -> Builder {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Builder {
            workers: workers.clone(),
            args: None,
            max_tasks: usize::MAX,
            threads: threadpool::Builder::new()
                .threads(processors)
                .name("greenthread-process"),
        }
    }

    /// How many workers it may have.
    ///
    /// # Panics
    /// If `processes` is 0.
    #[track_caller]
    pub fn processes(mut self, processes: usize) -> Builder {
        assert!(
            processes > 0,
            "a pool of 0 processes could not run any job: give at least 1"
        );
        self.threads = self.threads.threads(processes);
        self
    }

    /// How many jobs a worker runs before another takes its place: that frees what a worker has leaked.
    ///
    /// # Panics
    /// If `tasks` is 0.
    #[track_caller]
    pub fn max_tasks_per_child(mut self, tasks: usize) -> Builder {
        assert!(
            tasks > 0,
            "a worker with a limit of 0 jobs could not run any: give at least 1"
        );
        self.max_tasks = tasks;
        self
    }

    /// How long a worker may be idle before it ends.
    pub fn idle_timeout(mut self, idle: Duration) -> Builder {
        self.threads = self.threads.idle_timeout(idle);
        self
    }

    /// The arguments of the workers, in the place of the program's own.
    pub fn args(mut self, args: impl IntoIterator<Item = impl Into<OsString>>) -> Builder {
        self.args = Some(args.into_iter().map(Into::into).collect());
        self
    }

    /// Makes the pool.
    pub fn build(self) -> ProcessPool {
        let args = self.args.unwrap_or_else(|| std::env::args_os().skip(1).collect());
        ProcessPool {
            plan: Arc::new(Plan {
                workers: self.workers,
                args,
                max_tasks: self.max_tasks,
            }),
            threads: self.threads.finalizer(link::end).build(),
        }
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("workers", &self.workers)
            .field("threads", &self.threads)
            .finish_non_exhaustive()
    }
}
