//! A task: what runs, and the handles that share its result.
//!
//! ```text
//! Task<T> ─► TaskInner { outcome, any ─┐ }
//! AnyTask ─────────────────────────────┴─► TaskHeader: state, name, how to cancel, the waiters
//! ```
//!
//! The body holds a `Task` of its own and ends it with an outcome. A body that is dropped without that (it was killed,
//! or its future was dropped) counts as cancelled. When the last handle goes and the error was never looked at, the
//! exception handler is told.
#![forbid(unsafe_code)]

pub(super) mod wait;

use std::any::Any;
use std::cell::Cell;
use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::events::{never_retrieved, timed_poll};
use super::exceptions::TaskError;
use super::futures::{AnyTask, Current, TaskHeader, TaskResult, cancel_all, current_task};
use crate::hub::{self, interrupt};
use crate::{future, thread, time};

struct TaskInner<T> {
    /// Set once, by the `finish` that has claimed the end.
    outcome: OnceLock<TaskResult<T>>,
    any: AnyTask,
    /// Whether the outcome was looked at.
    retrieved: AtomicBool,
}

impl<T> Drop for TaskInner<T> {
    fn drop(&mut self) {
        if !self.retrieved.load(Ordering::Acquire)
            && let Some(Err(error)) = self.outcome.get()
            && error.is_exception()
        {
            never_retrieved(self.any.clone(), error.clone());
        }
    }
}

/// A piece of code that runs by itself, with a result for all its holders. A clone is the same task.
///
/// ```
/// use std::time::Duration;
/// use greenthread::aio;
///
/// aio::run(async {
///     let task = aio::create_task(async { 6 * 7 });
///     assert!(matches!(task.result(), Err(aio::TaskError::InvalidState)));
///     assert_eq!(task.clone().await.unwrap(), 42);
///     assert_eq!(task.result().unwrap(), &42);
/// })
/// .unwrap();
/// ```
///
/// In `async` code `task.await`, in green code [`task.wait()`](Self::wait). The value is cloned for each waiter, as
/// Python's is shared by reference: put what is heavy into an `Arc`, or look at it by [`result`](Self::result).
///
/// Dropping all handles does not stop the task (and it is not forgotten half way, as asyncio may). An error that was
/// never looked at by then goes to the [exception handler](super::EventLoop::set_exception_handler).
///
/// # Coming from Python
/// `asyncio.Task`, and the futures that `gather` and `shield` return.
pub struct Task<T>(Arc<TaskInner<T>>);

impl<T> Task<T> {
    /// A task without a body.
    pub(super) fn pending(kind: &str) -> Task<T> {
        Task(Arc::new(TaskInner {
            outcome: OnceLock::new(),
            any: AnyTask(TaskHeader::new(kind)),
            retrieved: AtomicBool::new(false),
        }))
    }

    /// Sets how the task is cancelled. See [`TaskHeader::set_cancel`].
    pub(super) fn set_cancel(&self, cancel: impl Fn() + Send + Sync + 'static) {
        self.header().set_cancel(cancel);
    }

    /// Has a cancel end it here and now, as cancelled.
    pub(super) fn finish_on_cancel(&self)
    where
        T: Send + Sync + 'static,
    {
        // A weak reference: the function lies in the task itself.
        let inner = Arc::downgrade(&self.0);
        self.set_cancel(move || {
            if let Some(task) = inner.upgrade().map(Task) {
                task.finish(Err(task.header().cancelled_error()));
            }
        });
    }

    /// Ends it, unless it has ended.
    pub(super) fn finish(&self, outcome: TaskResult<T>) {
        let header = self.header();
        if header.claim() {
            let cancelled = outcome.as_ref().is_err_and(TaskError::is_cancelled);
            // Cannot fail: only the one call that claimed gets here.
            let _ = self.0.outcome.set(outcome);
            header.publish(cancelled);
        }
    }

    fn header(&self) -> &TaskHeader {
        &self.0.any.0
    }

    /// The outcome, if the task is done.
    fn outcome(&self) -> Option<&TaskResult<T>> {
        if self.done() { self.0.outcome.get() } else { None }
    }

    /// The task without the type of its value.
    pub fn any(&self) -> AnyTask {
        self.0.any.clone()
    }

    /// Asks it to end by a cancel; `false` if it has ended.
    ///
    /// Green code unwinds at its next park, and may catch that by [`catch_kill`](crate::thread::catch_kill): it then
    /// goes on, and should call [`uncancel`](Self::uncancel). A future is dropped where it stands, with all that it
    /// holds: `async` code in Rust cannot catch it, only `Drop` sees it. Where it blocks in a poll it unwinds, as green
    /// code does. A task that never ran does not begin.
    ///
    /// ```
    /// use greenthread::{aio, thread};
    ///
    /// aio::run(async {
    ///     let stubborn = aio::create_task(aio::green(|| {
    ///         let caught = thread::catch_kill(thread::park).is_err();
    ///         aio::current_task().unwrap().uncancel();
    ///         caught
    ///     }));
    ///     aio::sleep(std::time::Duration::ZERO).await;
    ///     assert!(stubborn.cancel());
    ///     assert_eq!(stubborn.clone().await.unwrap(), true);
    ///     assert!(!stubborn.cancelled() && !stubborn.cancel());
    /// })
    /// .unwrap();
    /// ```
    pub fn cancel(&self) -> bool {
        self.0.any.cancel()
    }

    /// As [`cancel`](Self::cancel), with a message that the [`TaskError`] shows.
    pub fn cancel_with(&self, message: &str) -> bool {
        self.0.any.request(Some(message))
    }

    /// How many requests to cancel it there are, less those taken back.
    pub fn cancelling(&self) -> u32 {
        self.0.any.cancelling()
    }

    /// Takes one request to cancel back, and says how many are left.
    ///
    /// Code that has caught a cancel and goes on should call this.
    ///
    /// ```
    /// use std::time::Duration;
    /// use greenthread::{aio, sleep};
    ///
    /// let tough = aio::green(|| {
    ///     let me = aio::current_task().unwrap();
    ///     me.cancel();
    ///     assert_eq!((me.cancelling(), me.uncancel()), (1, 0));
    ///     sleep(Duration::from_millis(1)); // not cut short
    ///     "alive"
    /// });
    /// assert_eq!(aio::run(tough).unwrap(), "alive");
    /// ```
    ///
    /// Green code that takes its own last request back before it has parked is not cancelled at all. A future is.
    pub fn uncancel(&self) -> u32 {
        self.0.any.uncancel()
    }

    /// Whether it has ended by a cancel.
    pub fn cancelled(&self) -> bool {
        self.0.any.cancelled()
    }

    /// Whether it has ended, in whatever way.
    pub fn done(&self) -> bool {
        self.0.any.done()
    }

    /// The value.
    ///
    /// # Errors
    /// How else it ended, or [`TaskError::InvalidState`] if it has not.
    pub fn result(&self) -> Result<&T, TaskError> {
        let outcome = self.outcome().ok_or(TaskError::InvalidState)?;
        self.0.retrieved.store(true, Ordering::Release);
        outcome.as_ref().map_err(TaskError::clone)
    }

    /// What it failed with; `None` if it has a value.
    ///
    /// # Errors
    /// It was cancelled, or has not ended.
    pub fn exception(&self) -> Result<Option<TaskError>, TaskError> {
        match self.result() {
            Ok(_) => Ok(None),
            Err(error) if error.is_exception() => Ok(Some(error)),
            Err(error) => Err(error),
        }
    }

    /// Its name: `Task-N` unless [`set_name`](Self::set_name) was called.
    pub fn name(&self) -> Arc<str> {
        self.0.any.name()
    }

    /// Names it.
    pub fn set_name(&self, name: &str) {
        self.0.any.set_name(name);
    }
}

impl<T: Clone> Task<T> {
    /// Waits for its end.
    ///
    /// # Errors
    /// How else it ended.
    ///
    /// # Blocking and cancellation
    /// Parks. A caller that is cancelled or timed out while it waits cancels the task as well. It unwinds further when
    /// the task has ended, as `await task` does in Python: to leave the task running, wait for a
    /// [`shield`] of it.
    #[track_caller]
    pub fn wait(&self) -> Result<T, TaskError> {
        self.wait_propagating_cancel(|| self.0.any.wait_finished());
        self.value()
    }

    /// Runs `wait`, which waits for this task. If the caller is cut short in it, the task is cancelled, and the caller
    /// waits for its end.
    #[track_caller]
    pub(super) fn wait_propagating_cancel<R>(&self, wait: impl FnOnce() -> R) -> R {
        let payload = match catch_unwind(AssertUnwindSafe(wait)) {
            Ok(result) => return result,
            Err(payload) => payload,
        };
        // The tasks of a hub that has ended never end: do not wait for them.
        if interrupt::is_ours(&*payload) && self.cancel() && self.header().hub.is_alive() {
            thread::shield(|| self.0.any.wait_finished());
        }
        resume_unwind(payload)
    }

    /// Waits for the end for at most `timeout`. `None`: the task has not ended, and goes on.
    #[track_caller]
    pub fn wait_timeout(&self, timeout: Duration) -> Option<Result<T, TaskError>> {
        self.is_finished_by(time::after(timeout)).then(|| self.value())
    }

    /// Waits for its end, or until `deadline`.
    #[track_caller]
    pub fn wait_deadline(&self, deadline: Instant) -> Option<Result<T, TaskError>> {
        self.is_finished_by(Some(deadline)).then(|| self.value())
    }

    /// Waits for its end, or until `deadline`; whether it has ended.
    #[track_caller]
    pub(super) fn is_finished_by(&self, deadline: Option<Instant>) -> bool {
        let finished = self.header().finished();
        match deadline {
            Some(deadline) => finished.wait_deadline(deadline),
            None => Some(finished.wait()),
        };
        // `finished` is set a moment after the state, which alone decides.
        self.done()
    }

    pub(super) fn value(&self) -> Result<T, TaskError> {
        self.result().cloned()
    }
}

impl<T: Send + Sync + 'static> Task<T> {
    /// Calls `f` with the task when it has ended, or soon if it has.
    ///
    /// The calls are made on the hub of the caller, in the order in which they were added.
    ///
    /// ```
    /// use greenthread::aio;
    ///
    /// aio::run(async {
    ///     let tea = aio::create_task(async { "green tea" });
    ///     tea.add_done_callback(|tea| println!("The {} is made.", tea.result().unwrap()));
    ///     tea.await
    /// })
    /// .unwrap()
    /// .unwrap();
    /// ```
    ///
    /// `f` may not block. Python's `remove_done_callback` is the handle's `cancel`.
    #[track_caller]
    pub fn add_done_callback<F: FnOnce(&Task<T>) + Send + 'static>(&self, f: F) -> DoneCallback {
        let callback = DoneCallback::default();
        let (task, removed) = (self.clone(), callback.removed.clone());
        self.header().finished().on_set(move |()| {
            if !removed.load(Ordering::Acquire) {
                f(&task);
            }
        });
        callback
    }
}

/// A callback that was added to a task.
#[derive(Clone, Debug, Default)]
pub struct DoneCallback {
    removed: Arc<AtomicBool>,
}

impl DoneCallback {
    /// Cancels the call, unless it was made.
    pub fn cancel(&self) {
        self.removed.store(true, Ordering::Release);
    }
}

impl<T> Clone for Task<T> {
    fn clone(&self) -> Task<T> {
        Task(self.0.clone())
    }
}

impl<T> PartialEq for Task<T> {
    fn eq(&self, other: &Task<T>) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl<T> Eq for Task<T> {}

impl<T: fmt::Debug> fmt::Debug for Task<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.outcome() {
            Some(Ok(value)) => write!(f, "<Task finished name='{}' result={value:?}>", self.name()),
            Some(Err(error)) if error.is_exception() => {
                write!(f, "<Task finished name='{}' exception={error}>", self.name())
            }
            _ => fmt::Debug::fmt(&self.0.any, f),
        }
    }
}

impl<T: Clone + Send + Sync + 'static> IntoFuture for Task<T> {
    type Output = Result<T, TaskError>;
    type IntoFuture = Waiting<T>;

    fn into_future(self) -> Waiting<T> {
        Waiting::of(self)
    }
}

/// The wait for a task in `async` code: what `task.await` makes. Dropped before the end, it cancels the task.
#[must_use = "a future does nothing unless it is awaited"]
pub struct Waiting<T> {
    task: Task<T>,
    ended: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl<T> Waiting<T> {
    fn of(task: Task<T>) -> Waiting<T> {
        Waiting { task, ended: None }
    }
}

impl<T: Clone + Send + Sync + 'static> Future for Waiting<T> {
    type Output = Result<T, TaskError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let ended = this.ended.get_or_insert_with(|| Box::pin(this.task.any().finished()));
        ended.as_mut().poll(context).map(|()| this.task.value())
    }
}

impl<T> Drop for Waiting<T> {
    fn drop(&mut self) {
        if !self.task.done() {
            self.task.cancel();
            if let Some(current) = current_task() {
                current.end_after(&self.task.0.any);
            }
        }
    }
}

impl<T> Unpin for Waiting<T> {}

impl<T> fmt::Debug for Waiting<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Waiting").field(&self.task.0.any).finish()
    }
}

/// What can become a [`Task`]: any future, [`green`](super::green) code, either of them if
/// [`fallible`](super::fallible), and a task itself.
///
/// A value is shared by all holders of the task, so it is `Send` and `Sync`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot become a task",
    label = "neither a future nor green code",
    note = "a closure that blocks is made a task's body by `aio::green`"
)]
pub trait IntoTask {
    /// The task's value.
    type Output: Send + Sync + 'static;

    /// Starts it, unless it is a task already.
    #[doc(hidden)]
    fn into_task(self) -> Task<Self::Output>;
}

impl<F> IntoTask for F
where
    F: Future + 'static,
    F::Output: Send + Sync + 'static,
{
    type Output = F::Output;

    #[track_caller]
    fn into_task(self) -> Task<F::Output> {
        start_future(async { Ok(self.await) })
    }
}

impl<T: Send + Sync + 'static> IntoTask for Task<T> {
    type Output = T;

    fn into_task(self) -> Task<T> {
        self
    }
}

/// Ends its task with an outcome. If the guard is dropped without an outcome, the task ends as cancelled, but only
/// after the tasks that it was waiting for.
pub(super) struct FinishGuard<T: Send + Sync + 'static>(Task<T>);

impl<T: Send + Sync + 'static> FinishGuard<T> {
    pub(super) fn task(&self) -> AnyTask {
        self.0.any()
    }

    pub(super) fn finish(self, outcome: TaskResult<T>) {
        self.0.finish(outcome);
    }
}

impl<T: Send + Sync + 'static> Drop for FinishGuard<T> {
    fn drop(&mut self) {
        let cancel = CancelOnDrop(self.0.clone());
        let awaited = self.task().0.awaited();
        if awaited.is_empty() || self.0.done() {
            return;
        }
        // The drop cannot wait, so a stackless task does: it ends this task when those in `awaited` have ended.
        let wait = async move {
            for task in awaited {
                task.finished().await;
            }
            drop(cancel);
        };
        drop(future::spawn(wait));
    }
}

/// Ends a task when dropped: as cancelled, if it has not ended.
struct CancelOnDrop<T>(Task<T>);

impl<T> Drop for CancelOnDrop<T> {
    fn drop(&mut self) {
        self.0.0.any.unlist();
        self.0.finish(Err(self.0.header().cancelled_error()));
    }
}

/// A task that is about to run, and the guard that ends it.
pub(super) fn register<T: Send + Sync + 'static>() -> (Task<T>, FinishGuard<T>) {
    let task = Task::pending("Task");
    task.0.any.list();
    (task.clone(), FinishGuard(task))
}

#[track_caller]
pub(super) fn start_future<F, T>(future: F) -> Task<T>
where
    F: Future<Output = TaskResult<T>> + 'static,
    T: Send + Sync + 'static,
{
    let (task, guard) = register();
    let any = task.any();
    let body = async move {
        let outcome = caught(as_current(any.clone(), future)).await;
        let outcome = outcome.unwrap_or_else(|payload| Err(TaskError::panicked(&*payload)));
        // A cancel came in the last poll. `async` code cannot have caught it, so it counts.
        guard.finish(if any.cancelling() > 0 {
            any.0.overridden_by_cancel(outcome)
        } else {
            outcome
        });
    };
    let thread = future::spawn(body).thread();
    task.set_cancel(move || thread.kill());
    task
}

/// Polls `future`, and also drops it, with `any` as the current task.
async fn as_current<F: Future>(any: AnyTask, future: F) -> F::Output {
    /// Makes `any` the current task for whatever is dropped after this, until `until` is dropped.
    struct Dropped<'a> {
        any: &'a AnyTask,
        until: &'a Cell<Option<Current>>,
    }
    impl Drop for Dropped<'_> {
        fn drop(&mut self) {
            self.any.0.begin_drop();
            self.until.set(Some(Current::new(self.any)));
        }
    }
    // Locals are dropped in reverse order: `_dropped` makes `any` current, then `future` is dropped, then `until` ends
    // it.
    let until = Cell::new(None);
    let mut future = pin!(future);
    let _dropped = Dropped {
        any: &any,
        until: &until,
    };
    let poll = |context: &mut Context<'_>| {
        let _current = Current::new(&any);
        timed_poll(&any, || future.as_mut().poll(context))
    };
    poll_fn(poll).await
}

/// Catches a panic of `future`. What unwinds for a kill or a time-out passes through.
pub(super) async fn caught<F: Future>(future: F) -> Result<F::Output, Box<dyn Any + Send>> {
    let mut future = pin!(future);
    let poll = |context: &mut Context<'_>| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
        Ok(poll) => poll.map(Ok),
        Err(payload) if interrupt::is_ours(&*payload) => std::panic::resume_unwind(payload),
        Err(payload) => Poll::Ready(Err(payload)),
    };
    poll_fn(poll).await
}

/// Makes a task of what can run, for the running loop; it begins soon, not at once.
///
/// ```
/// use greenthread::aio;
///
/// aio::run(async {
///     let future = aio::create_task(async { 1 });
///     let green = aio::create_task(aio::green(|| 2));
///     assert_eq!(future.await.unwrap() + green.await.unwrap(), 3);
/// })
/// .unwrap();
/// ```
///
/// # Panics
/// If no loop runs here: in `main`, outside of [`run`](super::run). [`try_create_task`] gives an error instead, and
/// [`ensure_future`] does not mind.
///
/// # Coming from Python
/// `asyncio.create_task`. The loop keeps the task: it need not be held.
#[track_caller]
pub fn create_task<I: IntoTask>(item: I) -> Task<I::Output> {
    match try_create_task(item) {
        Ok(task) => task,
        Err(error) => panic!("create_task: {error}"),
    }
}

/// As [`create_task`], but an error if no loop runs here.
///
/// ```
/// use greenthread::aio;
/// assert!(aio::try_create_task(async {}).is_err()); // in `main`
/// ```
///
/// # Errors
/// [`TaskError::NoRunningLoop`].
#[track_caller]
pub fn try_create_task<I: IntoTask>(item: I) -> Result<Task<I::Output>, TaskError> {
    if !hub::is_running() {
        return Err(TaskError::NoRunningLoop);
    }
    Ok(item.into_task())
}

/// Makes a task of what is not one yet, and leaves a task as it is; whether or not a loop runs.
///
/// ```
/// use greenthread::aio;
///
/// let task = aio::ensure_future(async { 42 }); // begins when a loop runs
/// assert_eq!(aio::ensure_future(task.clone()), task);
/// assert_eq!(aio::run(task).unwrap(), 42);
/// ```
///
/// # Coming from Python
/// `asyncio.ensure_future`.
#[track_caller]
pub fn ensure_future<I: IntoTask>(item: I) -> Task<I::Output> {
    item.into_task()
}

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
    gather_with(items, true, |tasks| tasks.iter().map(Task::value).collect())
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
    gather_with(items, false, |tasks| Ok(tasks.iter().map(Task::value).collect()))
}

#[track_caller]
fn gather_with<I, T, R>(items: I, at_once: bool, collect: fn(&[Task<T>]) -> TaskResult<R>) -> Task<R>
where
    I: IntoIterator<Item: IntoTask<Output = T>>,
    T: Clone + Send + Sync + 'static,
    R: Send + Sync + 'static,
{
    let tasks: Arc<[Task<T>]> = items.into_iter().map(ensure_future).collect();
    let whole = Task::pending("Gather");
    if tasks.is_empty() {
        whole.finish(collect(&[]));
        return whole;
    }
    let children: Vec<_> = tasks.iter().map(Task::any).collect();
    whole.set_cancel(move || cancel_all(&children));
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
                    Err(whole.header().cancelled_error())
                } else {
                    collect(&tasks)
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
    outer.finish_on_cancel();
    let ended = outer.clone();
    inner.add_done_callback(move |inner| {
        // If `outer` was cancelled, do not read the outcome: an error then counts as never looked at, and is reported.
        if !ended.done() {
            ended.finish(inner.value());
        }
    });
    outer
}
