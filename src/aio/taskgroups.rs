//! Tasks that end together: [`TaskGroup`].
//!
//! The body runs in a [`Timeout`] without a deadline. The first error moves the deadline to now: the body then ends at
//! its next wait as by a time-out, which leaves no cancel request behind.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use super::exceptions::{ExceptionGroup, TaskError};
use super::futures::{AnyTask, cancel_all};
use super::tasks::{IntoTask, Task, caught};
use super::timeouts::{Timeout, timeout};
use crate::hub::interrupt;
use crate::sync::Event;
use crate::sys::inside::{Mutex, MutexGuard};
use crate::sys::poison::IgnorePoison;
use crate::{thread, time};

#[derive(Default)]
struct GroupState {
    live: BTreeMap<u64, AnyTask>,
    errors: Vec<TaskError>,
    aborting: bool,
}

/// Tasks that are waited for together; the first error cancels the others. A clone is the same group.
///
/// ```
/// use std::time::Duration;
/// use greenthread::{aio::{self, TaskGroup}, sleep};
///
/// let sum = TaskGroup::run(|group| {
///     let one = group.create_task(aio::green(|| { sleep(Duration::from_millis(1)); 1 }));
///     let two = group.create_task(async { 2 });
///     one.wait().unwrap() + two.wait().unwrap()
/// });
/// assert_eq!(sum.unwrap(), 3);
///
/// let failed = TaskGroup::run(|group| {
///     group.create_task(aio::fallible(async { Err::<(), _>("no milk") }));
///     sleep(Duration::from_secs(60)); // ends here
/// });
/// assert_eq!(failed.unwrap_err().errors()[0].to_string(), "no milk");
/// ```
///
/// The block does not end before all of its tasks have. If the block is cancelled, it cancels them. (A future that is
/// dropped cannot wait: [`run_async`](Self::run_async) only cancels them then.) A task that is cancelled alone is no
/// error. While the group ends for an error, and after its end, a new task is cancelled before it begins.
///
/// # Coming from Python
/// `async with asyncio.TaskGroup() as group`. With borrows from the stack, and no cancel: [`scope`](crate::scope()).
#[derive(Clone)]
pub struct TaskGroup(Arc<GroupInner>);

struct GroupInner {
    state: Mutex<GroupState>,
    body: Timeout,
    empty: Event,
}

/// Cancels the tasks that are left, unless the block has come to its end.
struct AbortOnDrop<'a>(&'a TaskGroup);

impl Drop for AbortOnDrop<'_> {
    fn drop(&mut self) {
        if self.0.is_busy() {
            self.0.abort();
        }
    }
}

impl TaskGroup {
    fn new() -> TaskGroup {
        TaskGroup(Arc::new(GroupInner {
            state: Mutex::default(),
            body: timeout(None),
            empty: Event::new(),
        }))
    }

    fn state(&self) -> MutexGuard<'_, GroupState> {
        self.0.state.lock().ignore_poison()
    }

    fn is_busy(&self) -> bool {
        !self.state().live.is_empty()
    }

    /// Runs `f`, and waits for the tasks that it made in the group.
    ///
    /// # Errors
    /// What failed: a task, or `f` by a panic.
    ///
    /// # Blocking and cancellation
    /// Parks. A kill or time-out cancels the tasks, waits for their ends, and unwinds further.
    #[track_caller]
    pub fn run<F: FnOnce(&TaskGroup) -> T, T>(f: F) -> Result<T, ExceptionGroup> {
        let group = TaskGroup::new();
        let result = group.abort_on_unwind(|| group.0.body.run(|| f(&group)).ok());
        group.abort_on_unwind(|| {
            group.wait_empty();
            Some(())
        });
        group.finish(result)
    }

    /// Runs `f`. If it unwinds, the tasks are cancelled. A panic becomes one more error; a kill or time-out resumes
    /// when the tasks have ended.
    #[track_caller]
    fn abort_on_unwind<T>(&self, f: impl FnOnce() -> Option<T>) -> Option<T> {
        let payload = match catch_unwind(AssertUnwindSafe(f)) {
            Ok(value) => return value,
            Err(payload) => payload,
        };
        self.abort();
        if !interrupt::is_ours(&*payload) {
            self.state().errors.push(TaskError::panicked(&*payload));
            return None;
        }
        thread::shield(|| self.wait_empty());
        resume_unwind(payload)
    }

    #[track_caller]
    fn wait_empty(&self) {
        while self.is_busy() {
            self.0.empty.wait();
        }
    }

    /// As [`run`](Self::run), for an `async` function.
    ///
    /// ```
    /// use greenthread::aio::{self, TaskGroup};
    ///
    /// let sum = aio::run(async {
    ///     TaskGroup::run_async(async |group| {
    ///         let one = group.create_task(async { 1 });
    ///         one.await.unwrap() + 2
    ///     })
    ///     .await
    /// });
    /// assert_eq!(sum.unwrap().unwrap(), 3);
    /// ```
    ///
    /// # Errors
    /// What failed: a task, or `f` by a panic.
    pub async fn run_async<F: AsyncFnOnce(&TaskGroup) -> T, T>(f: F) -> Result<T, ExceptionGroup> {
        let group = TaskGroup::new();
        let _abort = AbortOnDrop(&group);
        let result = match group.0.body.run_async(caught(f(&group))).await {
            Ok(Ok(value)) => Some(value),
            Ok(Err(panic)) => {
                group.abort();
                group.state().errors.push(TaskError::panicked(&*panic));
                None
            }
            Err(_) => None,
        };
        while group.is_busy() {
            group.0.empty.wait_async().await;
        }
        group.finish(result)
    }

    fn finish<T>(&self, result: Option<T>) -> Result<T, ExceptionGroup> {
        let mut state = self.state();
        // A clone of the group can outlive this. A task made by it is cancelled at once, as nothing would wait for it.
        state.aborting = true;
        let errors = std::mem::take(&mut state.errors);
        drop(state);
        match result {
            Some(value) if errors.is_empty() => Ok(value),
            _ => Err(ExceptionGroup { errors }),
        }
    }

    /// Makes a task of the group. A task of the group may do so too.
    #[track_caller]
    pub fn create_task<I: IntoTask>(&self, item: I) -> Task<I::Output> {
        let task = item.into_task();
        let mut state = self.state();
        let any = task.any();
        state.live.insert(any.0.id, any);
        self.0.empty.clear();
        let too_late = state.aborting;
        drop(state);
        if too_late {
            task.cancel();
        }
        let group = self.clone();
        task.add_done_callback(move |task| group.ended(task));
        task
    }

    fn ended<T>(&self, task: &Task<T>) {
        let failed = task.result().err().filter(|error| !error.is_cancelled());
        let mut state = self.state();
        let listed = state.live.remove(&task.any().0.id);
        let first = failed.is_some() && !state.aborting;
        state.errors.extend(failed);
        let empty = state.live.is_empty();
        drop(state);
        drop(listed);
        if first {
            self.abort();
        }
        if empty {
            self.0.empty.set();
        }
    }

    /// Cancels all that is left, and ends the body at its next wait.
    fn abort(&self) {
        let mut state = self.state();
        state.aborting = true;
        let live: Vec<_> = state.live.values().cloned().collect();
        drop(state);
        cancel_all(&live);
        self.0.body.reschedule(Some(time::now()));
    }
}

impl fmt::Debug for TaskGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        f.debug_struct("TaskGroup")
            .field("live", &state.live.len())
            .field("errors", &state.errors.len())
            .finish_non_exhaustive()
    }
}
