//! What can become a [`Task`]: futures, green closures, and either of them with errors.
#![forbid(unsafe_code)]

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::error::Error;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::{Context, Poll};

use super::events::EventLoop;
use super::tasks::{AnyTask, Outcome, Task};
use super::{TaskError, slow};
use crate::hub::{self, Hub, interrupt};
use crate::sys::fork::{Global, Order};
use crate::sys::inside::MutexGuard;
use crate::{future, thread};

crate::green_local! {
    static CURRENT: RefCell<Option<AnyTask>> = RefCell::new(None);
}

/// The tasks of all hubs that have not ended, in the order of their making.
static ALL: Global<BTreeMap<u64, AnyTask>> = Global::new(Order::Tasks, BTreeMap::new());

fn all() -> MutexGuard<'static, BTreeMap<u64, AnyTask>> {
    ALL.lock()
}

/// What can become a [`Task`]: any future, [`green`] code, either of them if [`fallible`], and a task itself.
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

/// A closure that blocks, as a task's body; what [`green`] makes.
#[derive(Clone, Copy, Debug)]
pub struct Green<F> {
    f: F,
    stack_size: Option<usize>,
}

impl<F> Green<F> {
    /// The size of its stack in bytes that it can use; otherwise it is that of [`spawn`](crate::spawn).
    ///
    /// ```
    /// use greenthread::aio;
    /// let deep = aio::green(|| [1_u8; 4 << 20].len()).stack_size(8 << 20);
    /// assert_eq!(aio::run(deep).unwrap(), 4 << 20);
    /// ```
    #[must_use]
    pub fn stack_size(mut self, bytes: usize) -> Green<F> {
        self.stack_size = Some(bytes);
        self
    }
}

/// Green code as the body of a task: it runs in a green thread of its own, and blocks as it likes.
///
/// ```
/// use std::time::Duration;
/// use greenthread::{aio, sleep};
///
/// let nap = aio::green(|| {
///     sleep(Duration::from_millis(1));
///     "rested"
/// });
/// assert_eq!(aio::run(nap).unwrap(), "rested");
/// ```
///
/// # Coming from Python
/// A coroutine function's call: it does nothing until a task is made of it.
pub fn green<F: FnOnce() -> T + Send + 'static, T>(f: F) -> Green<F> {
    Green { f, stack_size: None }
}

impl<F, T> IntoTask for Green<F>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + Sync + 'static,
{
    type Output = T;

    #[track_caller]
    fn into_task(self) -> Task<T> {
        start_green(self.stack_size, || Ok((self.f)()))
    }
}

/// A body that gives a `Result`: its `Err` is the task's exception. Made by [`fallible`].
#[derive(Clone, Copy, Debug)]
pub struct Fallible<B>(B);

/// Makes the `Err` of a body that gives a `Result` its task's exception: [`TaskError::Raised`].
///
/// Without it a `Result` is a value as any other, and only a panic is an exception.
///
/// ```
/// use greenthread::aio::{self, TaskError};
///
/// let body = async { "x".parse::<i32>() };
/// let error = aio::run(aio::fallible(body)).unwrap_err();
/// assert!(matches!(error, TaskError::Raised(_)));
/// assert_eq!(error.to_string(), "invalid digit found in string");
/// ```
pub fn fallible<B>(body: B) -> Fallible<B> {
    Fallible(body)
}

impl<F, T, E> IntoTask for Fallible<F>
where
    F: Future<Output = Result<T, E>> + 'static,
    T: Send + Sync + 'static,
    E: Into<Box<dyn Error + Send + Sync>> + 'static,
{
    type Output = T;

    #[track_caller]
    fn into_task(self) -> Task<T> {
        start_future(async { self.0.await.map_err(TaskError::raised) })
    }
}

impl<F, T, E> IntoTask for Fallible<Green<F>>
where
    F: FnOnce() -> Result<T, E> + Send + 'static,
    T: Send + Sync + 'static,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    type Output = T;

    #[track_caller]
    fn into_task(self) -> Task<T> {
        start_green(self.0.stack_size, || (self.0.f)().map_err(TaskError::raised))
    }
}

impl<T: Send + Sync + 'static> IntoTask for Task<T> {
    type Output = T;

    fn into_task(self) -> Task<T> {
        self
    }
}

/// Ends its task with an outcome, or as cancelled if it is dropped without one; the latter only after the tasks that
/// this one was waiting for.
struct End<T: Send + Sync + 'static>(Task<T>);

impl<T: Send + Sync + 'static> End<T> {
    fn with(self, outcome: Outcome<T>) {
        self.0.finish(outcome);
    }
}

impl<T: Send + Sync + 'static> Drop for End<T> {
    fn drop(&mut self) {
        let last = Last(self.0.clone());
        let any = self.0.any();
        let awaited = any.0.awaited();
        if awaited.is_empty() || any.done() {
            return;
        }
        // The drop cannot wait, so a stackless task does: it ends this task when those in `awaited` have ended.
        let wait = async move {
            for task in awaited {
                task.finished().await;
            }
            drop(last);
        };
        drop(future::spawn(wait));
    }
}

/// Ends a task when dropped: as cancelled, if it has not ended.
struct Last<T>(Task<T>);

impl<T> Drop for Last<T> {
    fn drop(&mut self) {
        let any = self.0.any();
        let listed = all().remove(&any.0.id);
        drop(listed);
        self.0.finish(Err(any.0.cancelled()));
    }
}

/// A task that is about to run, and the value that ends it.
fn begin<T: Send + Sync + 'static>() -> (Task<T>, End<T>) {
    let task = Task::pending("Task");
    let any = task.any();
    all().insert(any.0.id, any);
    (task.clone(), End(task))
}

#[track_caller]
fn start_green<F, T>(stack_size: Option<usize>, f: F) -> Task<T>
where
    F: FnOnce() -> Outcome<T> + Send + 'static,
    T: Send + Sync + 'static,
{
    let (task, end) = begin();
    let body = move || {
        let any = end.0.any();
        CURRENT.with(|current| current.replace(Some(any.clone())));
        let outcome = catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|payload| {
            Err(if interrupt::is_kill(&*payload) {
                any.0.cancelled()
            } else {
                TaskError::panicked(&*payload)
            })
        });
        let runs = Hub::current().running();
        // A cancel that has not unwound the body, or that a patched call has reported as an error, still counts.
        let is_due = any.cancelling() > 0 && interrupt::is_undelivered(runs);
        end.with(if is_due || interrupt::is_told_kill(runs) {
            any.0.instead_of(outcome)
        } else {
            outcome
        });
    };
    let thread = if stack_size.is_some() || EventLoop::any_debug() {
        let mut builder = thread::Builder::new();
        if let Some(bytes) = stack_size {
            builder = builder.stack_size(bytes);
        }
        if EventLoop::any_debug() {
            // So that the observer of slow turns can name it.
            builder = builder.name(&*task.name());
        }
        builder
            .spawn(body)
            .unwrap_or_else(|error| panic!("no green thread for a task: {error}"))
            .thread()
    } else {
        thread::spawn(body).thread()
    };
    task.cancel_by(move || thread.kill());
    task
}

#[track_caller]
fn start_future<F, T>(future: F) -> Task<T>
where
    F: Future<Output = Outcome<T>> + 'static,
    T: Send + Sync + 'static,
{
    let (task, end) = begin();
    let any = task.any();
    let body = async move {
        let outcome = caught(as_current(any.clone(), future)).await;
        let outcome = outcome.unwrap_or_else(|payload| Err(TaskError::panicked(&*payload)));
        // A cancel came in the last poll. `async` code cannot have caught it, so it counts.
        end.with(if any.cancelling() > 0 {
            any.0.instead_of(outcome)
        } else {
            outcome
        });
    };
    let thread = future::spawn(body).thread();
    task.cancel_by(move || thread.kill());
    task
}

/// Makes a task the current one, until this is dropped.
struct Current(Option<AnyTask>);

impl Current {
    fn is(any: &AnyTask) -> Current {
        Current(CURRENT.with(|current| current.replace(Some(any.clone()))))
    }
}

impl Drop for Current {
    fn drop(&mut self) {
        CURRENT.with(|current| current.replace(self.0.take()));
    }
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
            self.until.set(Some(Current::is(self.any)));
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
        let _current = Current::is(&any);
        slow::timed(&any, || future.as_mut().poll(context))
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

/// The task that runs here; `None` in a callback, in a green thread that is no task, and in `main`.
///
/// ```
/// use greenthread::aio;
///
/// assert!(aio::current_task().is_none());
/// aio::run(async {
///     let me = aio::current_task().unwrap();
///     me.set_name("main");
///     assert_eq!(aio::all_tasks(), [me]);
/// })
/// .unwrap();
/// ```
///
/// # Coming from Python
/// `asyncio.current_task`.
pub fn current_task() -> Option<AnyTask> {
    Hub::try_current()?;
    CURRENT.with(|current| current.borrow().clone())
}

/// The tasks of this OS thread's loop that have not ended, in the order of their making. See [`current_task`].
///
/// # Coming from Python
/// `asyncio.all_tasks`.
pub fn all_tasks() -> Vec<AnyTask> {
    let here = hub::handle();
    all().values().filter(|task| task.0.hub == here).cloned().collect()
}
