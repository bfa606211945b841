//! OS threads for what cannot be made non-blocking: [`unblock`].
//!
//! The pool grows to [`MAX`] OS threads as they are needed, and they go after ten idle seconds. Names are looked up here.
#![forbid(unsafe_code)]

pub(crate) mod watch;

use std::any::Any;
use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::hub::park::{self, Mode, Parker, Waiter, Wake, Why};
use crate::hub::{Hub, interrupt, stuck};
use crate::sys::thread::fork_epoch;

/// The most OS threads that the pool has at once.
pub const MAX: usize = 32;

const IDLE: Duration = Duration::from_secs(10);
static POOL_JOB: &str = "a call on the thread pool (unblock)";

type Job = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Pool {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
    fork_epoch: u64,
}

static POOL: Mutex<Option<Pool>> = Mutex::new(None);
static WORK: Condvar = Condvar::new();

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Queues a job, with an OS thread for it if none is idle. With no OS thread to be had it waits for one that is busy;
/// with none at all it runs here.
fn submit(job: Job) {
    let mut pool = locked(&POOL);
    let pool_ref = pool.get_or_insert_default();
    if pool_ref.fork_epoch != fork_epoch() {
        // A forked child: the OS threads are the parent's, and so are the jobs.
        *pool_ref = Pool {
            fork_epoch: fork_epoch(),
            ..Pool::default()
        };
    }
    pool_ref.jobs.push_back(job);
    if pool_ref.idle >= pool_ref.jobs.len() || pool_ref.threads >= MAX {
        WORK.notify_one();
        return;
    }
    pool_ref.threads += 1;
    if start(work).is_err() {
        pool_ref.threads -= 1;
        let alone = if pool_ref.threads == 0 {
            pool_ref.jobs.pop_back()
        } else {
            None
        };
        drop(pool);
        if let Some(job) = alone {
            job();
        }
    }
}

fn start(f: impl FnOnce() + Send + 'static) -> io::Result<()> {
    crate::sys::thread::start("greenthread-pool", f)
}

/// Starts an OS thread for one job; the pool does it if there is none to be had.
#[cfg(feature = "monkey")]
fn submit_apart(job: Job) {
    let job = Arc::new(Mutex::new(Some(job)));
    let theirs = job.clone();
    let run = move || {
        let job = locked(&theirs).take();
        job.into_iter().for_each(|job| job());
    };
    if start(run).is_err()
        && let Some(job) = locked(&job).take()
    {
        submit(job);
    }
}

/// What each OS thread of the pool does.
fn work() {
    let quiet = Arc::new(AtomicBool::new(false));
    let _registered = stuck::Registered::new(quiet.clone());
    let mut pool = locked(&POOL);
    loop {
        let job = pool.as_mut().and_then(|pool| pool.jobs.pop_front());
        if let Some(job) = job {
            quiet.store(false, Ordering::SeqCst);
            drop(pool);
            // What it gives back may panic as it is dropped, if nobody waits for it any more.
            crate::hub::discard(catch_unwind(AssertUnwindSafe(job)));
            pool = locked(&POOL);
            continue;
        }
        quiet.store(true, Ordering::SeqCst);
        count(&mut pool, |pool| pool.idle += 1);
        let (again, waited) = WORK.wait_timeout(pool, IDLE).unwrap_or_else(PoisonError::into_inner);
        pool = again;
        count(&mut pool, |pool| pool.idle -= 1);
        let is_empty = pool.as_ref().is_none_or(|pool| pool.jobs.is_empty());
        if waited.timed_out() && is_empty {
            count(&mut pool, |pool| pool.threads -= 1);
            return;
        }
    }
}

fn count(pool: &mut MutexGuard<'_, Option<Pool>>, f: impl FnOnce(&mut Pool)) {
    if let Some(pool) = pool.as_mut() {
        f(pool);
    }
}

/// Where a job leaves its result.
struct Slot<T> {
    result: Option<Result<T, Box<dyn Any + Send>>>,
    waiter: Option<Waiter>,
}

/// Counts a job of this hub that another OS thread does.
struct Abroad(&'static Hub);

impl Abroad {
    fn new(hub: &'static Hub) -> Abroad {
        hub.abroad.set(hub.abroad.get() + 1);
        Abroad(hub)
    }
}

impl Drop for Abroad {
    fn drop(&mut self) {
        self.0.abroad.set(self.0.abroad.get() - 1);
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
/// `f` runs outside of the caller's hub. What it spawns, and each socket that it waits for, belongs to a hub of the pool's
/// OS thread, which runs only while `f` itself blocks in this crate and ends with that OS thread: do not spawn there. To
/// spawn on the caller's hub, take a [`hub::handle`](crate::hub::handle) along. Nor does `f` see the caller's thread-locals
/// or green locals.
///
/// # Panics
/// If `f` panics, with the same payload.
///
/// # Blocking and cancellation
/// Parks. If the caller is killed or timed out, `f` runs on and its result is dropped. With [`MAX`] calls under way, the next
/// waits for its turn.
///
/// # Coming from Python
/// `gevent.get_hub().threadpool.apply(f)`, `asyncio.to_thread(f)`.
#[track_caller]
pub fn unblock<F, T>(f: F) -> T
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    wait_for(f, submit)
}

/// As [`unblock`], for what may last as long as it likes: on an OS thread of its own, so that the pool's stay free.
#[cfg(feature = "monkey")]
#[track_caller]
pub(crate) fn unblock_apart<F, T>(f: F) -> T
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    wait_for(f, submit_apart)
}

/// Has `submit` run `f` elsewhere, and waits for its result.
#[track_caller]
fn wait_for<F, T>(f: F, submit: impl FnOnce(Job)) -> T
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    crate::hub::check_can_park();
    let slot = Arc::new(Mutex::new(Slot {
        result: None,
        waiter: None,
    }));
    let theirs = slot.clone();
    submit(Box::new(move || {
        let result = catch_unwind(AssertUnwindSafe(f));
        let waiter = {
            let mut slot = locked(&theirs);
            slot.result = Some(result);
            slot.waiter.take()
        };
        // Before the wake: if the caller has gone, its result dies here and now.
        drop(theirs);
        if let Some(waiter) = waiter {
            waiter.wake();
        }
    }));
    let _abroad = Abroad::new(Hub::current());
    let mut mode = if std::thread::panicking() {
        Mode::Must
    } else {
        Mode::Cancel
    };
    let mut parked = false;
    loop {
        let parker = Parker::new();
        let done = {
            let mut slot = locked(&slot);
            slot.waiter = Some(parker.waiter());
            slot.result.take()
        };
        if let Some(done) = done {
            drop(parker);
            if !parked && mode == Mode::Cancel {
                // The pool was quicker than we: others run all the same, or one who calls again and again would keep them
                // out. A kill that is told here comes again at the next park.
                park::yield_now();
            }
            return done.unwrap_or_else(|payload| resume_unwind(payload));
        }
        parked = true;
        if parker.park(None, mode, Why::new(&POOL_JOB, 0)) == Wake::Interrupted {
            interrupt::raise();
            // A `panic = "abort"` build: there is no value to give but the job's, so the kill waits for the next park.
            mode = Mode::Must;
        }
    }
}
