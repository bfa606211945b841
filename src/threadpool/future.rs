//! The future of a job: the right to its outcome.
#![forbid(unsafe_code)]

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use super::Offload;
use super::error::JobError;
use super::job::{Job, Next, Outcome, State, guarded, settle};
use crate::hub::{self, Hub, Mode, Parker, Waiter, Wake, Why, budget, interrupt};

static JOB: &str = "a job of a pool";

/// Owns the outcome of a job of a pool. Dropping it does not stop the job.
///
/// Green threads and plain OS threads can wait for it. As a `Future` it can be awaited on any executor.
///
/// ```
/// use greenthread::threadpool::{State, ThreadPool};
///
/// let pool = ThreadPool::new(1);
/// let future = pool.submit(|| 6 * 7).unwrap();
/// assert_eq!(future.wait().unwrap(), 42);
///
/// let mut awaited = pool.submit(|| "async").unwrap();
/// awaited.on_done(|result| assert!(result.is_ok()));
/// assert_eq!(greenthread::future::block_on(awaited).unwrap(), "async");
/// ```
///
/// # Coming from Python
/// `concurrent.futures.Future`. It is also what `asyncio.wrap_future` makes of one; to share an outcome, see
/// [`wrap_future`](super::wrap_future).
#[must_use = "dropping it lets the job run, but its error goes unseen"]
pub struct PoolFuture<T> {
    job: Arc<Job<T>>,
    /// Whether the outcome goes to a function, see [`give`](Self::give).
    given_away: bool,
}

impl<T> PoolFuture<T> {
    pub(super) fn new(job: Arc<Job<T>>) -> PoolFuture<T> {
        PoolFuture { job, given_away: false }
    }

    /// Waits for the job and returns its value.
    ///
    /// # Errors
    /// [`JobError`]: the job panicked, was cancelled, its worker broke, or it cannot be waited for.
    ///
    /// # Blocking and cancellation
    /// Parks. If the caller is killed or timed out meanwhile, the future is dropped, and the job runs on. In a
    /// destructor, while a local green thread or a native stack unwinds, it does not wait; see
    /// [`JobError::is_interrupted`].
    ///
    /// While a task waits for a job, a virtual clock stands still, because the job takes real time.
    ///
    /// # Coming from Python
    /// `future.result()`, `future.exception()`.
    #[track_caller]
    pub fn wait(mut self) -> Result<T, JobError> {
        // Without a deadline it cannot time out.
        self.wait_until(None, Mode::Cancel, Why::new(&JOB, 0))
            .unwrap_or_else(|| Err(JobError::interrupted()))
    }

    /// Waits for the job for at most `timeout`. `None` if it is not done by then; the future can still be used.
    ///
    /// Once the value has been returned, every later wait returns [`JobError::is_taken`].
    ///
    /// ```
    /// use std::time::Duration;
    /// use greenthread::threadpool;
    ///
    /// let (tell, told) = std::sync::mpsc::channel();
    /// let mut future = threadpool::to_thread(move || told.recv().unwrap());
    /// assert!(future.wait_timeout(Duration::from_millis(1)).is_none());
    /// tell.send(7).unwrap();
    /// assert_eq!(future.wait().unwrap(), 7);
    /// ```
    #[track_caller]
    pub fn wait_timeout(&mut self, timeout: Duration) -> Option<Result<T, JobError>> {
        let deadline = hub::deadline_in(timeout);
        self.wait_until(Some(deadline), Mode::Cancel, Why::new(&JOB, 0))
    }

    /// Waits for the job until `deadline`. `None` if it is not done by then; the future can still be used.
    #[track_caller]
    pub fn wait_deadline(&mut self, deadline: Instant) -> Option<Result<T, JobError>> {
        let deadline = hub::deadline_at(deadline);
        self.wait_until(Some(deadline), Mode::Cancel, Why::new(&JOB, 0))
    }

    #[track_caller]
    pub(super) fn wait_until(&mut self, deadline: Option<u64>, mode: Mode, why: Why) -> Option<Outcome<T>> {
        if budget::spend(mode) == Wake::Interrupted {
            interrupt::raise();
            return Some(Err(JobError::interrupted()));
        }
        loop {
            if let Some(outcome) = self.job.take() {
                return Some(outcome);
            }
            if hub::is_past(deadline) {
                return None;
            }
            if self.job.is_of_parent() || Hub::has_ended() {
                return Some(Err(JobError::lost()));
            }
            // The ticket comes before `set_next`: a job that completes from here on wakes this park.
            let parker = Parker::new();
            // The job was completed in between. Take the outcome in the next round.
            if self.job.set_next(Next::Wake(parker.waiter())).is_err() {
                continue;
            }
            let wake = {
                // Counted as work elsewhere while it parks, so that this hub does not conclude that nothing can wake
                // it.
                let _abroad = Offload::new();
                parker.park(deadline, mode, why)
            };
            if wake == Wake::Ready {
                continue;
            }
            // Withdraw the waiter. If the job completed meanwhile, it has used the waiter, and the ticket is out of
            // date.
            let _ = self.job.set_next(Next::Nobody);
            // It may have completed between the time-out and here.
            if wake == Wake::TimedOut {
                return self.job.take();
            }
            interrupt::raise();
            return Some(Err(JobError::interrupted()));
        }
    }

    /// The value, if the job is done, else `None`.
    pub fn try_result(&mut self) -> Option<Result<T, JobError>> {
        self.job.take()
    }

    /// Cancels the job, unless it runs or has run. Returns whether it is cancelled.
    ///
    /// What it would have run is dropped by this call, and the job's callbacks are called by this call as well.
    ///
    /// ```
    /// use greenthread::threadpool::ThreadPool;
    ///
    /// let pool = ThreadPool::new(1);
    /// let (tell, told) = std::sync::mpsc::channel();
    /// let running = pool.submit(move || told.recv().unwrap()).unwrap();
    /// let pending = pool.submit(|| unreachable!()).unwrap();
    /// assert!(pending.cancel());
    /// tell.send(1).unwrap();
    /// assert!(pending.wait().unwrap_err().is_cancelled());
    /// assert_eq!(running.wait().unwrap(), 1);
    /// ```
    pub fn cancel(&self) -> bool {
        self.job.cancel()
    }

    /// The state of the job.
    pub fn state(&self) -> State {
        self.job.state()
    }

    /// Whether a worker runs the job.
    pub fn is_running(&self) -> bool {
        self.state() == State::Running
    }

    /// Whether a wait would return at once: the outcome is there, or the job [is lost](JobError::is_lost).
    pub fn is_done(&self) -> bool {
        self.job.is_done() || self.job.is_of_parent()
    }

    pub(super) fn has_failed(&self) -> bool {
        self.job.has_failed() || (self.job.is_of_parent() && !self.job.is_done())
    }

    /// Calls `f` with the outcome as soon as it is there.
    ///
    /// `f` runs on the OS thread that completes the job, before the waiters go on. If the job is done already, this
    /// call runs it. Callbacks are called in the order in which they were set.
    ///
    /// If `f` panics, that is reported and has no other effect. For a callback on the caller's own hub, see
    /// [`on_done_soon`](Self::on_done_soon).
    ///
    /// # Coming from Python
    /// `concurrent.futures.Future.add_done_callback`.
    pub fn on_done<F>(&mut self, f: F)
    where
        F: FnOnce(Result<&T, &JobError>) + Send + 'static,
    {
        if let Err(callback) = self.job.push(Box::new(f))
            && let Some(outcome) = self.job.take()
        {
            guarded(|| callback(outcome.as_ref()));
            self.job.put_back(outcome);
        }
    }

    /// Gives the outcome to `f` once it is there: on the caller's hub, in its next turn.
    ///
    /// ```
    /// use greenthread::{sync::Promise, threadpool};
    ///
    /// let told = Promise::new();
    /// let theirs = told.clone();
    /// threadpool::to_thread(|| 42).on_done_soon(move |result| theirs.set(result.unwrap()).unwrap());
    /// assert_eq!(*told.wait(), 42);
    /// ```
    ///
    /// `f` may not block (that panics, and the panic is reported): spawn for that. If the caller's hub has ended by
    /// then, `f` is not called.
    ///
    /// # Coming from Python
    /// `asyncio.Future.add_done_callback`.
    #[track_caller]
    pub fn on_done_soon<F>(self, f: F)
    where
        F: FnOnce(Result<T, JobError>) + Send + 'static,
        T: Send + 'static,
    {
        if Hub::has_ended() {
            return;
        }
        let hub = hub::handle();
        self.give(move |outcome| {
            // A hub that has ended drops the call.
            let _ = hub.call_soon(move || f(outcome));
        });
    }

    /// Gives the outcome to `taker`, on the OS thread that completes the job, or here if it is done.
    pub(super) fn give(mut self, taker: impl FnOnce(Outcome<T>) + Send + 'static) {
        self.given_away = true;
        if let Err(Next::Give(taker)) = self.job.set_next(Next::Give(Box::new(taker)))
            && let Some(outcome) = self.job.take()
        {
            taker(outcome);
        }
    }

    /// Sets `next`, unless the job is done; returns whether it was set.
    pub(super) fn tell(&self, next: Next<T>) -> bool {
        !self.is_done() && self.job.set_next(next).is_ok()
    }
}

impl<T> Future for PoolFuture<T> {
    type Output = Result<T, JobError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        ready!(budget::poll(context));
        if let Some(outcome) = self.job.take() {
            return Poll::Ready(outcome);
        }
        if self.job.is_of_parent() {
            return Poll::Ready(Err(JobError::lost()));
        }
        match self.job.set_next(Next::Wake(Waiter::Waker(context.waker().clone()))) {
            Ok(()) => Poll::Pending,
            Err(_) => Poll::Ready(self.job.take().unwrap_or_else(|| Err(JobError::taken()))),
        }
    }
}

// Nothing is pinned: the outcome lies in the job.
impl<T> Unpin for PoolFuture<T> {}

impl<T> Drop for PoolFuture<T> {
    fn drop(&mut self) {
        if !self.given_away && self.job.set_next(Next::Gone).is_err() {
            // The outcome is dropped here, and not by the OS thread that may hold the job for a moment longer. The
            // caller may be unwinding, for a kill, so a panic of the value's destructor is caught: two at once would
            // abort.
            settle(self.job.take());
        }
    }
}

/// Prints `<PoolFuture state=running>`, for example.
impl<T> fmt::Debug for PoolFuture<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<PoolFuture state={}>", self.state())
    }
}
