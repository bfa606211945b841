//! OS threads for work that cannot be made non-blocking.
//!
//! | you want | use |
//! |---|---|
//! | the value of one call that blocks, here and now | [`unblock`] |
//! | the same, later: to wait for it, to await it | [`to_thread`] |
//! | a limited number of jobs at once, and an end to wait for | [`ThreadPool`] |
//! | jobs that may crash without harm to other jobs | `processpool` (feature `process-pool`) |
//!
//! [`unblock`] and [`to_thread`] share the default pool: it grows to [`MAX`] OS threads as they are needed, and they
//! end after ten idle seconds. Files ([`fs`](crate::fs)) and name look-ups ([`dns`](crate::dns)) have such a pool each,
//! so that slow jobs do not keep them waiting.
//!
//! ```
//! use greenthread::threadpool::{self, ThreadPool};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let text = threadpool::unblock(|| std::fs::read_to_string("Cargo.toml"))?;
//! let pool = ThreadPool::new(2);
//! let lengths = pool.map(["Cargo.toml", "README.md"], |name| std::fs::metadata(name).map(|data| data.len()))?;
//! let lengths = lengths.map(|job| Ok(job??)).collect::<Result<Vec<_>, Box<dyn std::error::Error>>>()?;
//! assert_eq!(lengths[0], text.len() as u64);
//! # Ok(())
//! # }
//! ```
//!
//! # Coming from Python
//! `concurrent.futures`, `gevent.threadpool`, and `asyncio`'s executors.
#![forbid(unsafe_code)]

mod error;
mod future;
mod job;
mod many;
mod pool;
pub(crate) mod watch;
mod worker;

use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::Duration;

pub use error::{JobError, ShutDown};
pub use future::PoolFuture;
pub use job::State;
pub use many::{AsCompleted, Map, ReturnWhen, as_completed, wait};
pub use pool::{Builder, ThreadPool};

#[cfg(feature = "process-pool")]
pub(crate) use job::Outcome;

use once_cell::race::OnceBox;

use crate::hub::{self, Hub, Mode, Why};
use crate::sync::Promise;
use crate::sys::inside::{Mutex, MutexGuard};
use crate::sys::poison::IgnorePoison;
use worker::{Config, Pool};

/// The most OS threads that the default pool has at once; those of files and of name look-ups have as many each.
pub const MAX: usize = 32;

const IDLE: Duration = Duration::from_secs(10);
const NAME: &str = "greenthread-pool";
static UNBLOCK: &str = "a call on the thread pool (unblock)";

/// A pool of the whole process. It is made without a lock, see `sys/fork.rs`.
struct Common {
    made: OnceBox<Arc<Pool>>,
    name: &'static str,
}

impl Common {
    const fn new(name: &'static str) -> Common {
        let made = OnceBox::new();
        Common { made, name }
    }

    fn get(&self) -> &Arc<Pool> {
        self.made.get_or_init(|| {
            let config = Config {
                name: String::from(self.name),
                numbered: false,
                idle: IDLE,
                set_up: None,
                tear_down: None,
            };
            Box::new(Pool::new(config, MAX))
        })
    }

    fn submit<F, T>(&self, f: F) -> PoolFuture<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        match self.get().submit(move || Ok(f())) {
            Some(future) => future,
            None => unreachable!("the pools of the process are never shut down"),
        }
    }
}

/// The user's jobs.
static JOBS: Common = Common::new(NAME);
/// Files. The user's jobs may take long, and must not keep files waiting.
static FILES: Common = Common::new("greenthread-files");
/// Name look-ups, for the same reason: a server that does not answer occupies an OS thread for half a minute.
static NAMES: Common = Common::new("greenthread-names");

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().ignore_poison()
}

/// Counts work of this hub that another OS thread is doing, as long as it lives.
struct Offload(&'static Hub);

impl Offload {
    /// `None` after the hub's end, when nothing waits there.
    #[track_caller]
    fn new() -> Option<Offload> {
        if Hub::has_ended() {
            return None;
        }
        let hub = Hub::current();
        hub.begin_offload();
        Some(Offload(hub))
    }
}

impl Drop for Offload {
    fn drop(&mut self) {
        self.0.end_offload();
    }
}

/// Runs `f` on an OS thread of the pool and waits for it; other green threads run meanwhile.
///
/// ```
/// use greenthread::threadpool::unblock;
/// let text = unblock(|| std::fs::read_to_string("Cargo.toml")).unwrap();
/// assert!(text.contains("greenthread"));
/// ```
///
/// `f` runs outside of the caller's hub. What it spawns, and each socket that it waits for, belongs to a hub of the
/// pool's OS thread. That hub runs only while `f` itself blocks in this crate, and ends with the OS thread, so do not
/// spawn there. To spawn on the caller's hub, pass a [`hub::handle`] to `f`. `f` does not see the
/// caller's thread-locals or green locals.
///
/// # Panics
/// If `f` panics, with the same payload.
///
/// # Blocking and cancellation
/// Parks. If the caller is killed or timed out, `f` runs on and its result is dropped. With [`MAX`] calls under way,
/// the next call waits for its turn. After the end of the caller's hub, `f` runs on the caller's own OS thread, which
/// no green thread needs any more.
///
/// # Coming from Python
/// `gevent.get_hub().threadpool.apply(f)`, `asyncio.to_thread(f)`.
#[doc(alias("spawn_blocking", "block_in_place"))]
#[track_caller]
pub fn unblock<F, T>(f: F) -> T
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    if Hub::has_ended() {
        return f();
    }
    crate::hub::check_can_park();
    value_of(to_thread(f))
}

/// Like [`unblock`], for a call on a file.
#[track_caller]
pub(crate) fn unblock_file<F, T>(f: F) -> T
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    crate::hub::check_can_park();
    value_of(submit_file(f))
}

/// The same without the wait.
pub(crate) fn submit_file<F, T>(f: F) -> PoolFuture<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    FILES.submit(f)
}

/// Like [`unblock`], for the look-up of a name.
#[track_caller]
pub(crate) fn unblock_name<F, T>(f: F) -> T
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    crate::hub::check_can_park();
    value_of(NAMES.submit(f))
}

/// Like [`unblock`], for calls that may last without limit: on an OS thread of its own, so that the pool's stay free.
/// If the system gives none, the pool runs `f`.
#[track_caller]
pub(crate) fn unblock_apart<F, T>(f: F) -> T
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    crate::hub::check_can_park();
    value_of(submit_apart(f))
}

/// The same without the wait.
pub(crate) fn submit_apart<F, T>(f: F) -> PoolFuture<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    use job::Run;
    let job = Arc::new(job::Job::new(move || Ok(f())));
    let theirs = job.clone();
    if crate::sys::thread::start(NAME, move || theirs.run()).is_err() {
        JOBS.get().queue(job.clone());
    }
    PoolFuture::new(job)
}

/// Waits for a job that no other code can cancel.
#[track_caller]
fn value_of<T>(mut future: PoolFuture<T>) -> T {
    let mut mode = if std::thread::panicking() {
        Mode::Must
    } else {
        Mode::Cancel
    };
    if future.is_done() && mode == Mode::Cancel {
        // The job was done before the caller looked. Yield all the same, because a caller that calls again and again
        // would keep other tasks from running. A kill that this yield reports comes again at the next park.
        hub::yield_now();
    }
    loop {
        match future.wait_until(None, mode, Why::new(&UNBLOCK, 0)) {
            Some(Ok(value)) => return value,
            // A `panic = "abort"` build, which cannot unwind. There is no value to return but the job's, so wait for
            // it: the kill stays due until the next park.
            Some(Err(error)) if error.is_interrupted() => mode = Mode::Must,
            Some(Err(error)) => match error.try_into_panic() {
                Ok(payload) => resume_unwind(payload),
                Err(error) => panic!("unblock has no value to return: {error}"),
            },
            None => {}
        }
    }
}

/// Runs `f` on an OS thread of the default pool, and returns a future of its value.
///
/// ```
/// use greenthread::{future::block_on, threadpool::to_thread};
///
/// let text = to_thread(|| std::fs::read_to_string("Cargo.toml"));
/// let more = to_thread(|| 6 * 7);
/// assert_eq!(more.wait().unwrap(), 42);
/// assert!(block_on(text).unwrap().unwrap().contains("greenthread"));
/// ```
///
/// `f` begins at once, whether or not it is waited for. If the system gives no OS thread and the pool has none, `f`
/// runs in this call.
///
/// # Coming from Python
/// `asyncio.to_thread(f)`, which begins only when it is awaited.
#[doc(alias("spawn_blocking"))]
pub fn to_thread<F, T>(f: F) -> PoolFuture<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    JOBS.submit(f)
}

/// Runs `f` on this pool, or on the default one.
///
/// ```
/// use greenthread::threadpool::{ThreadPool, run_in_executor};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let pool = ThreadPool::new(1);
/// assert_eq!(run_in_executor(None, || "default")?.wait()?, "default");
/// assert_eq!(run_in_executor(&pool, || "custom")?.wait()?, "custom");
/// # Ok(())
/// # }
/// ```
///
/// A pool of processes takes no closures, see `ProcessPool::submit`; that returns a [`PoolFuture`] as well.
///
/// # Errors
/// [`ShutDown`], if the pool was shut down.
///
/// # Coming from Python
/// `loop.run_in_executor(executor, f)`. asyncio must wrap the future of the executor; a [`PoolFuture`] can be awaited
/// as it is.
pub fn run_in_executor<'a, F, T>(pool: impl Into<Option<&'a ThreadPool>>, f: F) -> Result<PoolFuture<T>, ShutDown>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    match pool.into() {
        Some(pool) => pool.submit(f),
        None => Ok(to_thread(f)),
    }
}

/// Makes a promise of a job's outcome, for any number of waiters.
///
/// ```
/// use greenthread::{spawn, threadpool};
///
/// let promise = threadpool::wrap_future(threadpool::to_thread(|| 42));
/// let theirs = promise.clone();
/// let other = spawn(move || *theirs.wait().as_ref().unwrap());
/// assert_eq!(*promise.wait().as_ref().unwrap(), other.join().unwrap());
/// ```
///
/// A single waiter needs no promise: a [`PoolFuture`] can be waited for and awaited as it is.
///
/// # Coming from Python
/// `asyncio.wrap_future(future)`.
pub fn wrap_future<T: Send + Sync + 'static>(future: PoolFuture<T>) -> Promise<Result<T, JobError>> {
    let promise = Promise::new();
    let theirs = promise.clone();
    future.give(move |outcome| {
        // The promise is set only here, so this cannot fail.
        let _ = theirs.set(outcome);
    });
    promise
}
