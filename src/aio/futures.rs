//! What all tasks have, whatever the type of their value: a state, and requests to cancel. Also which task runs.
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
//! Questions load the word with `Acquire`, so the outcome is there for each that sees `done`. A task that has requests
//! and is not done is called *cancelling*. A request to an `ending` task is counted, but it changes nothing: the
//! outcome is fixed. `publish` is followed by the setting of `finished`, which wakes the waiters and calls the
//! callbacks. No question reads `finished`.
#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use super::exceptions::TaskError;
use crate::hub::{self, Hub, interrupt};
use crate::sync::Promise;
use crate::sys::fork::{Global, Order};
use crate::sys::inside::{Mutex, MutexGuard};
use crate::sys::poison::IgnorePoison;

/// How a task ended.
pub(super) type TaskResult<T> = Result<T, TaskError>;

/// A `finish` has claimed the end; it alone goes on.
const CLAIMED: u32 = 1;
/// The outcome is stored.
const DONE: u32 = 2;
/// The outcome is a cancel.
const CANCELLED: u32 = 4;
/// One request to cancel: the bits from here on are their number.
const REQUEST: u32 = 8;

/// The state of a task. The head of this file has the protocol.
struct TaskState(AtomicU32);

impl TaskState {
    #[inline]
    fn is_done(&self) -> bool {
        self.0.load(Ordering::Acquire) & DONE != 0
    }

    #[inline]
    fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Acquire) & CANCELLED != 0
    }

    /// As `Debug` shows it.
    fn name(&self) -> &'static str {
        match self.0.load(Ordering::Acquire) {
            word if word & CANCELLED != 0 => "cancelled",
            word if word & DONE != 0 => "finished",
            word if word < REQUEST => "pending",
            _ => "cancelling",
        }
    }

    #[inline]
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

    #[inline]
    fn claim(&self) -> bool {
        self.0.fetch_or(CLAIMED, Ordering::AcqRel) & CLAIMED == 0
    }

    #[inline]
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
    pub(super) hub: hub::Handle,
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
    pub(super) fn new(kind: &str) -> Arc<TaskHeader> {
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
    pub(super) fn cancelled_error(&self) -> TaskError {
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
    pub(super) fn overridden_by_cancel<T>(&self, outcome: TaskResult<T>) -> TaskResult<T> {
        outcome.and_then(|_| Err(self.cancelled_error()))
    }

    /// Sets how the task is cancelled, and does it at once if a cancel was requested already.
    pub(super) fn set_cancel(&self, cancel: impl Fn() + Send + Sync + 'static) {
        let cancel = self.cancel.get_or_init(|| Box::new(cancel));
        // A request that came before the function was set found nothing to call; one that comes now may call it twice
        // (a second kill changes nothing).
        if self.state.requests() > 0 {
            cancel();
        }
    }

    /// Whether the caller is the first that ends the task. Then it stores the outcome and calls `publish`.
    #[inline]
    pub(super) fn claim(&self) -> bool {
        self.state.claim()
    }

    /// The outcome is stored: the task is done.
    pub(super) fn publish(&self, cancelled: bool) {
        self.state.publish(cancelled);
        // Cannot fail: only the one call that claimed gets here.
        let _ = self.finished.set(());
    }

    /// What is set a moment after the task is done.
    pub(super) fn finished(&self) -> &Promise<()> {
        &self.finished
    }
}

/// A task of whatever type: what [`current_task`] and [`all_tasks`] give.
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
    #[inline]
    pub fn done(&self) -> bool {
        self.0.state.is_done()
    }

    /// Whether it has ended by a cancel.
    #[inline]
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

    /// Has [`all_tasks`] give it, until `unlist`.
    pub(super) fn list(&self) {
        ALL.lock().insert(self.0.id, self.clone());
    }

    pub(super) fn unlist(&self) {
        let listed = ALL.lock().remove(&self.0.id);
        // After the lock: this may be the last handle, and what it drops is the user's.
        drop(listed);
    }

    /// This task was waiting for `task`, which is now cancelled. If this task's own future is being dropped, the task
    /// is to end after `task`.
    pub(super) fn end_after(&self, task: &AnyTask) {
        // Two tasks that are to end after each other would never end.
        if self != task
            && !task.0.ends_after(&self.0)
            && let Some(awaited) = &mut *locked(&self.0.awaited)
        {
            awaited.push(task.clone());
        }
    }

    /// Asks it to end; `false` if it has. See [`Task::cancel`](super::Task::cancel).
    pub fn cancel(&self) -> bool {
        self.request(None)
    }

    pub(super) fn request(&self, message: Option<&str>) -> bool {
        if self.done() {
            return false;
        }
        // Before the request: a body that sees the request and ends has this message in its error. If the task is done
        // meanwhile, its error stands already.
        *locked(&self.0.message) = message.map(Into::into);
        if !self.0.state.request() {
            return false;
        }
        if let Some(cancel) = self.0.cancel.get() {
            cancel();
        }
        true
    }

    /// How many requests to cancel it there are, less those taken back.
    #[inline]
    pub fn cancelling(&self) -> u32 {
        self.0.state.requests()
    }

    /// Takes one request back, and says how many are left. See [`Task::uncancel`](super::Task::uncancel).
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
        write!(f, "<Task {} name='{}'>", self.0.state.name(), self.name())
    }
}

/// Cancels those of `tasks` that have not ended.
pub(super) fn cancel_all(tasks: &[AnyTask]) {
    for task in tasks {
        task.cancel();
    }
}

crate::green_local! {
    static CURRENT: RefCell<Option<AnyTask>> = RefCell::new(None);
}

/// The tasks of all hubs that have not ended, in the order of their making.
static ALL: Global<BTreeMap<u64, AnyTask>> = Global::new(Order::Tasks, BTreeMap::new());

/// Makes `task` the current one, and gives the one that was.
pub(super) fn make_current(task: Option<AnyTask>) -> Option<AnyTask> {
    CURRENT.with(|current| current.replace(task))
}

/// Makes a task the current one, until this is dropped.
pub(super) struct Current(Option<AnyTask>);

impl Current {
    pub(super) fn new(task: &AnyTask) -> Current {
        Current(make_current(Some(task.clone())))
    }
}

impl Drop for Current {
    fn drop(&mut self) {
        make_current(self.0.take());
    }
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
    ALL.lock().values().filter(|task| task.0.hub == here).cloned().collect()
}

/// A value that is to come: a [`Promise`], which is asyncio's `Future`.
///
/// ```
/// use std::time::Duration;
/// use greenthread::aio::{self, EventLoop};
///
/// let event_loop = EventLoop::new();
/// let (answer, theirs) = (aio::create_future(), aio::create_future());
/// let set = answer.clone();
/// event_loop.call_later(Duration::from_millis(1), move || drop(set.set(42)));
/// answer.on_set(move |n| drop(theirs.set(n + 1))); // its done callback
/// assert_eq!(event_loop.run_until_complete(async move { *answer.wait_async().await }).unwrap(), 42);
/// ```
///
/// A value that may fail is a `Result`: `set(Err(error))` is `set_exception`, and a cancel is an error of your own.
///
/// # Coming from Python
/// `loop.create_future`.
pub fn create_future<T>() -> Promise<T> {
    Promise::new()
}
