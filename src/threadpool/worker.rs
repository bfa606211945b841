//! The queue of a pool, and the OS threads that empty it. Every pool of this module is made of these.
//!
//! ```text
//!   submit ─► jobs ─► a thread that is idle, or a new one while there are fewer than `most`
//!   a thread: set up ─► job, job, .. ─► idle for too long, one too many, or shut and no job left ─► tear down
//! ```
//!
//! # Invariants
//! - **WORKER-1** Code that finds jobs and a free slot starts an OS thread. An OS thread gives its slot back under the
//!   same lock under which it found nothing to do. So no job waits for an OS thread that has decided to end.
//! - **WORKER-2** `ended` is set once the pool is shut, and every OS thread has given back its slot and torn down.
//! - **WORKER-3** No code of the user runs under the lock, and no value of the user's is dropped under it.
//! - **WORKER-4** A forked child begins with no OS threads, no jobs, and a lock of its own: the parent's lock may have
//!   been held at the fork. So what must be the same in the child stands beside the lock: `most`, `shut`.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar};
use std::time::Duration;

use super::error::JobError;
use super::job::{Job, Outcome, Run};
use super::{PoolFuture, locked};
use crate::hub::{Registered, Reporter, Waiting, discard, report_panic};
use crate::sync::Event;
use crate::sys::fork::{PerProcess, fork_epoch};
use crate::sys::inside::{Mutex, MutexGuard};
use crate::sys::poison::IgnorePoison;
use crate::sys::thread::id;

type Call = Arc<dyn Fn() + Send + Sync>;

pub(super) struct Config {
    pub(super) name: String,
    /// Whether the OS threads' names end in numbers.
    pub(super) numbered: bool,
    /// How long an OS thread may be idle.
    pub(super) idle: Duration,
    pub(super) set_up: Option<Call>,
    pub(super) tear_down: Option<fn()>,
}

pub(super) struct Pool {
    config: Config,
    /// How many slots there may be. Changed under the lock.
    most: AtomicUsize,
    /// Whether the pool is shut down. Changed under the lock.
    shut: AtomicBool,
    here: PerProcess<Here>,
}

/// The part of a pool that each process has for itself (WORKER-4).
struct Here {
    state: Mutex<State>,
    work: Condvar,
    ended: Event,
    fork_epoch: u64,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<(Arc<dyn Run>, Waiting)>,
    /// How many slots are in use.
    threads: usize,
    idle: usize,
    /// How many OS threads have given back their slots, and tear down.
    leaving: usize,
    /// How many OS threads were ever started.
    started: usize,
    /// The kernel's numbers of the OS threads.
    members: Vec<u64>,
}

impl Here {
    fn new() -> Here {
        Here {
            state: Mutex::default(),
            work: Condvar::new(),
            ended: Event::new(),
            fork_epoch: fork_epoch(),
        }
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        if self.fork_epoch != fork_epoch() {
            // In a child, the parent's jobs are neither run nor dropped.
            let state = self.state.get_mut().ignore_poison();
            mem::forget(mem::take(&mut state.jobs));
        }
    }
}

impl State {
    fn wants_thread(&self, most: usize) -> bool {
        self.idle < self.jobs.len() && self.threads < most
    }

    fn leave(&mut self) {
        // The count may be 0: if a job has forked and this is the child, no OS thread was counted there.
        self.threads = self.threads.saturating_sub(1);
        self.leaving += 1;
    }

    fn is_empty(&self) -> bool {
        self.threads == 0 && self.leaving == 0
    }
}

impl Pool {
    pub(super) fn new(config: Config, most: usize) -> Arc<Pool> {
        Arc::new(Pool {
            config,
            most: AtomicUsize::new(most),
            shut: AtomicBool::new(false),
            here: PerProcess::new(Here::new),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.here.get().state)
    }

    fn is_shut(&self) -> bool {
        self.shut.load(Ordering::Acquire)
    }

    /// Queues a job. `None` if the pool was shut down.
    pub(super) fn submit<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce() -> Outcome<T> + Send + 'static,
    ) -> Option<PoolFuture<T>> {
        let job = Arc::new(Job::new(work));
        self.queue(job.clone()).then(|| PoolFuture::new(job))
    }

    /// Queues a job, and starts an OS thread for it if none is idle.
    ///
    /// If the system gives no OS thread, the job waits for one that is busy; if the pool has none at all, the job runs
    /// here. `false` if the pool was shut down.
    pub(super) fn queue(self: &Arc<Self>, job: Arc<dyn Run>) -> bool {
        let mut state = self.state();
        if self.is_shut() {
            return false;
        }
        state.jobs.push_back((job, Waiting::new()));
        drop(self.grow(state));
        true
    }

    /// Makes sure that there are OS threads for the jobs (WORKER-1). The last job was pushed just now.
    fn grow<'a>(self: &'a Arc<Self>, mut state: MutexGuard<'a, State>) -> Option<MutexGuard<'a, State>> {
        if !state.wants_thread(self.most()) {
            self.here.get().work.notify_one();
            return Some(state);
        }
        // The slot is taken before the start: the new OS thread gives it back itself.
        state.threads += 1;
        if self.start(&mut state).is_ok() {
            return Some(state);
        }
        state.threads -= 1;
        if state.threads > 0 {
            return Some(state);
        }
        // No OS thread would ever take the job. Run it here, without the lock (WORKER-3).
        let alone = state.jobs.pop_back();
        drop(state);
        if let Some((job, waiting)) = alone {
            drop(waiting);
            job.run();
        }
        None
    }

    fn start(self: &Arc<Self>, state: &mut State) -> io::Result<()> {
        let mut name = self.config.name.clone();
        if self.config.numbered {
            name.push_str(&format!("-{}", state.started));
        }
        let pool = self.clone();
        crate::sys::thread::start(&name, move || pool.work())?;
        state.started += 1;
        Ok(())
    }

    /// The body of each OS thread.
    fn work(&self) {
        let registered = Registered::new();
        self.state().members.push(id());
        if self.set_up() {
            while let Some(job) = self.next(&registered) {
                // The value may panic in its destructor, if its future is gone.
                discard(catch_unwind(AssertUnwindSafe(move || job.run())));
            }
            if let Some(tear_down) = self.config.tear_down {
                discard(catch_unwind(tear_down));
            }
        }
        let mut state = self.state();
        state.leaving = state.leaving.saturating_sub(1);
        state.members.retain(|member| *member != id());
        let ended = self.is_shut() && state.is_empty();
        drop(state);
        if ended {
            self.ended().set();
        }
    }

    /// Runs the initializer on a new OS thread. `false` if the OS thread cannot be used, and has given back its slot.
    ///
    /// Each failure also fails one job, because there may be no other OS thread to run it.
    fn set_up(&self) -> bool {
        let Some(set_up) = &self.config.set_up else {
            return true;
        };
        loop {
            let Err(payload) = catch_unwind(AssertUnwindSafe(|| set_up())) else {
                return true;
            };
            let mut state = self.state();
            // With no job left to fail, the OS thread leaves, under the same lock (WORKER-1).
            let job = state.jobs.pop_front();
            let leaves = state.jobs.is_empty();
            if leaves {
                state.leave();
            }
            drop(state);
            let text = crate::fiber::unwind::message(&*payload);
            let error = JobError::broken(format!("its initializer panicked: {text}"));
            if job.is_some_and(|(job, _)| job.fail(error)) {
                discard(payload);
            } else {
                let who = String::from("the initializer of a thread pool");
                report_panic(&Reporter { name: who }, payload);
            }
            if leaves {
                return false;
            }
        }
    }

    /// The next job. `None` if the OS thread has given back its slot.
    fn next(&self, registered: &Registered) -> Option<Arc<dyn Run>> {
        let mut state = self.state();
        loop {
            if state.threads > self.most() {
                break;
            }
            // Before it takes the job. Otherwise the `LoopExit` check of a hub could see neither a queued job nor a
            // busy OS thread.
            registered.rise();
            if let Some((job, _)) = state.jobs.pop_front() {
                return Some(job);
            }
            if self.is_shut() {
                break;
            }
            registered.rest();
            // Counted under the lock that `wait_timeout` releases, so that a submit either sees it idle or is seen by
            // it.
            state.idle += 1;
            let (again, is_late) = state.wait_timeout(&self.here.get().work, self.config.idle);
            state = again;
            state.idle = state.idle.saturating_sub(1);
            if is_late && state.jobs.is_empty() {
                break;
            }
        }
        registered.rise();
        state.leave();
        if !state.jobs.is_empty() {
            // The notification for one of these jobs may have come to this OS thread. Pass it on.
            self.here.get().work.notify_one();
        }
        None
    }

    /// Sets how many OS threads there may be from now on.
    pub(super) fn resize(self: &Arc<Self>, most: usize) {
        let mut state = self.state();
        self.most.store(most, Ordering::Release);
        self.here.get().work.notify_all();
        // One OS thread for each job that no idle one takes.
        for _ in state.idle..state.jobs.len() {
            if !state.wants_thread(most) {
                return;
            }
            match self.grow(state) {
                Some(again) => state = again,
                None => return,
            }
        }
    }

    pub(super) fn threads(&self) -> usize {
        self.state().threads
    }

    pub(super) fn idle(&self) -> usize {
        self.state().idle
    }

    pub(super) fn most(&self) -> usize {
        self.most.load(Ordering::Acquire)
    }

    pub(super) fn pending(&self) -> usize {
        self.state().jobs.len()
    }

    /// Takes no more jobs. With `cancel`, those that wait are cancelled.
    pub(super) fn shut_down(&self, cancel: bool) {
        let mut state = self.state();
        self.shut.store(true, Ordering::Release);
        let jobs = if cancel {
            mem::take(&mut state.jobs)
        } else {
            VecDeque::new()
        };
        let ended = state.is_empty();
        drop(state);
        self.here.get().work.notify_all();
        if ended {
            self.ended().set();
        }
        // Without the lock: this runs callbacks and destructors of the user (WORKER-3).
        for (job, _) in jobs {
            job.fail(JobError::cancelled());
        }
    }

    /// Set when the pool was shut down, and all its OS threads have ended.
    pub(super) fn ended(&self) -> &Event {
        &self.here.get().ended
    }

    /// Whether the caller runs on an OS thread of the pool.
    pub(super) fn is_member(&self) -> bool {
        self.state().members.contains(&id())
    }
}
