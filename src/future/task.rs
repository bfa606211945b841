//! Stackless tasks: futures that run among the green threads.
#![forbid(unsafe_code)]

use std::fmt;
use std::future::Future;
use std::io;
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::hub::{Handle, Hub, task};
use crate::thread::{JoinError, JoinHandle, Thread, ThreadId};

/// Spawns a future as a *stackless task*: it takes turns with the green threads of this OS thread.
///
/// It costs no stack while it waits.
///
/// ```
/// use greenthread::{future, time};
/// use std::time::Duration;
///
/// let task = future::spawn(async {
///     future::spawn(async { 6 }).await.unwrap() * 7
/// });
/// assert_eq!(task.join().unwrap(), 42);
/// ```
///
/// It is first polled at the next turn, in order with green threads that were spawned. A poll may block, because it
/// runs on a green thread that is lent to the task; other tasks go on meanwhile. The task belongs to the context that
/// spawns it. So nothing in it need be `Send`, and it sees the thread-locals of that context. Its
/// [`green_local!`](crate::green_local)s are its own, and so is its number in
/// [`thread::current`](crate::thread::current). A kill by that number reaches it while it is polled. A
/// [`Timeout`](crate::time::Timeout) works only within one poll, so do not keep one over an `await`.
///
/// When the OS thread ends, a task that has not ended is neither run nor dropped, and its handle says
/// [`JoinError::is_lost`].
///
/// # Panics
/// In a destructor of a thread-local after the hub's end.
///
/// # Coming from Python
/// `asyncio.create_task(coroutine)`.
#[doc(alias("create_task", "spawn_local"))]
#[track_caller]
pub fn spawn<F>(future: F) -> Task<F::Output>
where
    F: Future + 'static,
{
    let join = task::spawn_future(Hub::current(), Location::caller(), future);
    Task(JoinHandle::new(join))
}

impl Handle {
    /// Spawns a future on that hub, as [`future::spawn`](spawn) does on the caller's.
    ///
    /// ```
    /// use greenthread::hub::Hubs;
    /// # fn main() -> std::io::Result<()> {
    /// let hubs = Hubs::new(1)?;
    /// let task = hubs.handles()[0].spawn_future(async { 6 * 7 })?;
    /// assert_eq!(futures::executor::block_on(task).unwrap(), 42);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// `NotConnected` when the hub has ended; the future is dropped.
    ///
    /// # Coming from Python
    /// `asyncio.run_coroutine_threadsafe(coroutine, loop)`.
    #[track_caller]
    pub fn spawn_future<F>(&self, future: F) -> io::Result<Task<F::Output>>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.start_future(future, Location::caller())
            .map(JoinHandle::new)
            .map(Task)
    }
}

/// Owns the result of a spawned future. Dropping it detaches the task.
///
/// Green threads [`join`](Task::join) it; as a `Future` it is awaited, on any executor. Messages name it as they do a
/// green thread: by its number, and by where it was spawned.
///
/// ```
/// use greenthread::future::{block_on, spawn};
/// assert_eq!(block_on(spawn(async { 1 })).unwrap(), 1);
/// assert!(spawn(async { panic!("no") }).join().unwrap_err().is_panic());
/// ```
///
/// # Coming from Python
/// `asyncio.Task`.
pub struct Task<T>(JoinHandle<T>);

impl<T> Task<T> {
    /// Waits for the end and returns the result.
    ///
    /// # Errors
    /// [`JoinError`]: a poll panicked, it was cancelled ([`is_killed`](JoinError::is_killed)), its result was given
    /// before, or its hub ended first.
    ///
    /// # Blocking and cancellation
    /// Parks. If the caller is killed or timed out meanwhile, the task is detached.
    #[track_caller]
    pub fn join(self) -> Result<T, JoinError> {
        self.0.join()
    }

    /// Waits for the end for at most `timeout`. `None`: it has not ended, and the handle can be used as before.
    ///
    /// After the result was given once, every later wait says [`JoinError::is_taken`].
    #[track_caller]
    pub fn join_timeout(&mut self, timeout: Duration) -> Option<Result<T, JoinError>> {
        self.0.join_timeout(timeout)
    }

    /// Waits for the end until `deadline`.
    #[track_caller]
    pub fn join_deadline(&mut self, deadline: Instant) -> Option<Result<T, JoinError>> {
        self.0.join_deadline(deadline)
    }

    /// Asks it to end: its future is dropped at its next turn, on its own hub.
    ///
    /// A poll that blocks right now unwinds where it does, as a green thread that is killed.
    ///
    /// This only asks: [`join`](Self::join) tells when it has ended.
    ///
    /// ```
    /// let task = greenthread::future::spawn(std::future::pending::<()>());
    /// task.cancel();
    /// assert!(task.join().unwrap_err().is_killed());
    /// ```
    ///
    /// # Coming from Python
    /// `task.cancel()`, but nothing is raised at an `await`: the future is dropped.
    pub fn cancel(&self) {
        self.0.kill();
    }

    /// Whether it has ended; its result waits here.
    pub fn is_finished(&self) -> bool {
        self.0.is_finished()
    }

    /// The task as a green thread: to cancel it from elsewhere.
    pub(crate) fn thread(&self) -> Thread {
        self.0.thread()
    }

    /// Its number, of the same kind as a green thread's.
    pub fn id(&self) -> ThreadId {
        self.0.thread().id()
    }

    /// Where it was spawned.
    pub fn spawned_at(&self) -> &'static Location<'static> {
        self.0.spawned_at()
    }
}

impl<T> Future for Task<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context)
    }
}

/// For everything that takes green threads: groups, [`thread::wait`](crate::thread::wait), exit links.
///
/// ```
/// use greenthread::{future, spawn, thread, JoinHandle};
/// let both: [JoinHandle<i32>; 2] = [future::spawn(async { 1 }).into(), spawn(|| 2)];
/// assert_eq!(thread::join_all(both).into_iter().map(Result::unwrap).sum::<i32>(), 3);
/// ```
impl<T> From<Task<T>> for JoinHandle<T> {
    fn from(task: Task<T>) -> JoinHandle<T> {
        task.0
    }
}

/// As `<Task #7 spawned at src/main.rs:3:5>`.
impl<T> fmt::Debug for Task<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<Task #{} spawned at {}>", self.id().as_u64(), self.spawned_at())
    }
}
