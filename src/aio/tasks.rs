//! A task: what runs, and the handles that share its result.
//!
//! ```text
//! Task<T> ─► TaskInner { outcome, any ─┐ }
//! AnyTask ─────────────────────────────┴─► TaskHeader: state, name, how to cancel, the bell for waiters
//! ```
//!
//! The body holds a `Task` of its own and ends it with an outcome. A body that is dropped without that (it was killed,
//! or its future was dropped) counts as cancelled. When the last handle goes and the error was never looked at, the
//! exception handler is told.
//!
//! # The state of a task
//! All questions (`done`, `cancelled`, `cancelling`, whether there is a result) read one word, [`TaskState`]. So two
//! handles, on whatever OS threads, cannot give answers that contradict one another. The word is a phase and the number
//! of requests to cancel:
//!
//! ```text
//!            request, uncancel                request, uncancel               uncancel
//!               ┌──────┐                         ┌──────┐                     ┌──────┐
//!               │      ▼        claim            │      ▼        publish      │      ▼
//!              pending ───────────────────────► ending ──────────────────► done, or done and cancelled
//! ```
//!
//! | transition | made by | order |
//! |---|---|---|
//! | `request`: one request more | `cancel`, on any OS thread; refused once done | `AcqRel` |
//! | `take_back`: one request less | `uncancel`, on any OS thread | `AcqRel` |
//! | `claim`: pending to ending | `finish`, on any OS thread; the first call wins, the others give up | `AcqRel` |
//! | `publish`: ending to done | the `finish` that claimed, after it has stored the outcome | `Release` |
//!
//! Questions load the word with `Acquire`, so the outcome is there for each that sees `done`. A task with requests that
//! has not ended is called *cancelling*; an `ending` task is still that, or pending. After `publish`, `finished` is set:
//! that is the bell for the waiters and the callbacks, and no question asks it.
#![forbid(unsafe_code)]

pub(super) mod wait;

use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::TaskError;
use super::report;
use super::spawn::current_task;
use crate::hub::{self, Handle, Hub, interrupt};
use crate::sync::Promise;
use crate::sys::inside::{Mutex, MutexGuard};
use crate::sys::poison::IgnorePoison;
use crate::{thread, time};

/// Cancels those of `tasks` that have not ended.
pub(super) fn cancel_all(tasks: &[AnyTask]) {
    for task in tasks {
        task.cancel();
    }
}

/// How a task ended.
pub(super) type Outcome<T> = Result<T, TaskError>;

/// A `finish` has claimed the end; it alone goes on.
const CLAIMED: u32 = 1;
/// The outcome is stored.
const DONE: u32 = 2;
/// It is a cancel.
const CANCELLED: u32 = 4;
/// One request to cancel: the bits from here on are their number.
const REQUEST: u32 = 8;

/// The state of a task. The head of this file has the protocol.
struct TaskState(AtomicU32);

impl TaskState {
    fn is_done(&self) -> bool {
        self.0.load(Ordering::Acquire) & DONE != 0
    }

    fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Acquire) & CANCELLED != 0
    }

    fn requests(&self) -> u32 {
        self.0.load(Ordering::Acquire) / REQUEST
    }

    /// Adds a request to cancel; `false` if the task has ended.
    fn request(&self) -> bool {
        let more = |word: u32| (word & DONE == 0).then(|| word.checked_add(REQUEST).unwrap_or(word));
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_ok()
    }

    /// Takes a request back if there is one, and says how many there were.
    fn take_back(&self) -> u32 {
        let less = |word: u32| word.checked_sub(REQUEST);
        let before = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
        before.map_or(0, |word| word / REQUEST)
    }

    /// Whether the caller is the first that ends the task. Then it stores the outcome and calls `publish`.
    fn claim(&self) -> bool {
        self.0.fetch_or(CLAIMED, Ordering::AcqRel) & CLAIMED == 0
    }

    fn publish(&self, cancelled: bool) {
        let how = if cancelled { DONE | CANCELLED } else { DONE };
        self.0.fetch_or(how, Ordering::Release);
    }
}

/// The part of a task that does not depend on the type of its value.
pub(super) struct TaskHeader {
    /// Unique; a task made later has a higher one.
    pub(super) id: u64,
    name: Mutex<Arc<str>>,
    pub(super) hub: Handle,
    state: TaskState,
    /// The message of the last request to cancel.
    message: Mutex<Option<Arc<str>>>,
    cancel: OnceLock<Box<dyn Fn() + Send + Sync>>,
    /// `Some` while the task's future is dropped: the tasks that it was awaiting. This drop cancels them, and the task
    /// ends after they have.
    awaited: Mutex<Option<Vec<AnyTask>>>,
    /// Wakes the waiters and calls the callbacks. It is set after the state says that the task is done.
    finished: Promise<()>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().ignore_poison()
}

impl TaskHeader {
    fn new(kind: &str) -> Arc<TaskHeader> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Arc::new(TaskHeader {
            id,
            name: Mutex::new(format!("{kind}-{id}").into()),
            hub: hub::handle(),
            state: TaskState(AtomicU32::new(0)),
            message: Mutex::new(None),
            cancel: OnceLock::new(),
            awaited: Mutex::new(None),
            finished: Promise::new(),
        })
    }

    /// The error of a cancelled task, with the message of the last request.
    pub(super) fn cancelled(&self) -> TaskError {
        TaskError::Cancelled(locked(&self.message).clone())
    }

    /// From here on the task's future is being dropped.
    pub(super) fn begin_drop(&self) {
        *locked(&self.awaited) = Some(Vec::new());
    }

    /// The tasks that must end before this one.
    pub(super) fn awaited(&self) -> Vec<AnyTask> {
        locked(&self.awaited).clone().unwrap_or_default()
    }

    fn ends_after(&self, other: &TaskHeader) -> bool {
        let awaited = locked(&self.awaited);
        awaited.iter().flatten().any(|task| std::ptr::eq(&*task.0, other))
    }

    /// The outcome when a cancel is due that the body has not seen: the cancel replaces a value, but not an error.
    pub(super) fn instead_of<T>(&self, outcome: Outcome<T>) -> Outcome<T> {
        outcome.and_then(|_| Err(self.cancelled()))
    }
}

/// A task of whatever type: what [`current_task`](super::current_task) and [`all_tasks`](super::all_tasks) give.
#[derive(Clone)]
pub struct AnyTask(pub(super) Arc<TaskHeader>);

impl AnyTask {
    /// Its name: `Task-N` unless [`set_name`](Self::set_name) was called.
    pub fn name(&self) -> Arc<str> {
        locked(&self.0.name).clone()
    }

    /// Names it.
    pub fn set_name(&self, name: &str) {
        *locked(&self.0.name) = name.into();
    }

    /// Whether it has ended, in whatever way.
    pub fn done(&self) -> bool {
        self.0.state.is_done()
    }

    /// Whether it has ended by a cancel.
    pub fn cancelled(&self) -> bool {
        self.0.state.is_cancelled()
    }

    /// Waits for the end; it does not look at the outcome.
    #[track_caller]
    pub(super) fn wait_finished(&self) {
        self.0.finished.wait();
    }

    /// As `wait_finished`, for an `async` function.
    pub(super) async fn finished(self) {
        self.0.finished.wait_async().await;
    }

    /// This task was waiting for `task`, which is now cancelled. If this task's own future is being dropped, the task
    /// is to end after `task`.
    fn end_after(&self, task: &AnyTask) {
        // Two tasks that are to end after each other would never end.
        if self != task
            && !task.0.ends_after(&self.0)
            && let Some(awaited) = &mut *locked(&self.0.awaited)
        {
            awaited.push(task.clone());
        }
    }

    /// Asks it to end; `false` if it has. See [`Task::cancel`].
    pub fn cancel(&self) -> bool {
        self.request(None)
    }

    fn request(&self, message: Option<&str>) -> bool {
        if !self.0.state.request() {
            return false;
        }
        *locked(&self.0.message) = message.map(Into::into);
        if let Some(cancel) = self.0.cancel.get() {
            cancel();
        }
        true
    }

    /// How many requests to cancel it there are, less those taken back.
    pub fn cancelling(&self) -> u32 {
        self.0.state.requests()
    }

    /// Takes one request back, and says how many are left. See [`Task::uncancel`].
    pub fn uncancel(&self) -> u32 {
        let before = self.0.state.take_back();
        if before == 1 && current_task().as_ref() == Some(self) {
            // That was the last request to cancel, so the kill that has not been delivered goes as well.
            interrupt::clear_kill(Hub::current().running());
        }
        before.saturating_sub(1)
    }
}

impl PartialEq for AnyTask {
    fn eq(&self, other: &AnyTask) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for AnyTask {}

impl fmt::Debug for AnyTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match (self.done(), self.cancelled(), self.cancelling()) {
            (_, true, _) => "cancelled",
            (true, ..) => "finished",
            (.., 0) => "pending",
            _ => "cancelling",
        };
        write!(f, "<Task {state} name='{}'>", self.name())
    }
}

struct TaskInner<T> {
    /// Set once, by the `finish` that has claimed the end.
    outcome: OnceLock<Outcome<T>>,
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
            report::never_retrieved(self.any.clone(), error.clone());
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

    /// Sets how the task is cancelled, and does it at once if a cancel was requested already.
    pub(super) fn cancel_by(&self, cancel: impl Fn() + Send + Sync + 'static) {
        let cancel = self.header().cancel.get_or_init(|| Box::new(cancel));
        // A request that came before the function was set found nothing to call; one that comes now may call it twice
        // (a second kill changes nothing).
        if self.cancelling() > 0 {
            cancel();
        }
    }

    /// Has a cancel end it here and now, as cancelled.
    pub(super) fn end_by_cancel(&self)
    where
        T: Send + Sync + 'static,
    {
        // A weak reference: the function lies in the task itself.
        let inner = Arc::downgrade(&self.0);
        self.cancel_by(move || {
            if let Some(task) = inner.upgrade().map(Task) {
                task.finish(Err(task.header().cancelled()));
            }
        });
    }

    /// Ends it, unless it has ended.
    pub(super) fn finish(&self, outcome: Outcome<T>) {
        let header = self.header();
        if !header.state.claim() {
            return;
        }
        let cancelled = outcome.as_ref().is_err_and(TaskError::is_cancelled);
        // Neither of the two sets can fail: only the one call that claimed gets here.
        let _ = self.0.outcome.set(outcome);
        header.state.publish(cancelled);
        let _ = header.finished.set(());
    }

    fn header(&self) -> &TaskHeader {
        &self.0.any.0
    }

    /// The outcome, if the task is done.
    fn outcome(&self) -> Option<&Outcome<T>> {
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
    /// [`shield`](super::shield) of it.
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
        let finished = &self.header().finished;
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
        self.header().finished.on_set(move |()| {
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
