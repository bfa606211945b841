//! The ways in: [`run`], [`Runner`], a loop's [`run_until_complete`](EventLoop::run_until_complete); and Ctrl-C, which
//! cancels the main task of a [`Runner`].
//!
//! A dedicated OS thread, not the hub, reads the byte that the handler of Ctrl-C's signal writes. A hub that waits for
//! no descriptor need not ask the kernel for events, and it can detect that nothing will ever wake it; a registered
//! pipe would cost both.
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::OwnedFd;

use super::events::{EventLoop, set_event_loop};
use super::exceptions::TaskError;
use super::futures::{AnyTask, all_tasks, cancel_all};
use super::tasks::{IntoTask, Task};
use crate::hub::{self, Registered};
use crate::sys::fork::{Global, Order, fork_epoch};
use crate::sys::inside::MutexGuard;
use crate::sys::socket;
use crate::sys::{signal, thread};

/// Runs `main` to its end; then cancels the tasks that are left, and waits for them.
///
/// ```
/// use std::time::Duration;
/// use greenthread::aio;
///
/// let answer = aio::run(async {
///     aio::sleep(Duration::from_millis(1)).await;
///     42
/// });
/// assert_eq!(answer.unwrap(), 42);
/// ```
///
/// The value is cloned, which an `io::Error` cannot be. So a `main` that gives a `Result` is run as a
/// [`fallible`](super::fallible) one, and its error is the error of `run`.
///
/// ```
/// use greenthread::aio::{self, TaskError};
///
/// async fn program() -> std::io::Result<usize> {
///     Ok(std::fs::read("Cargo.toml")?.len())
/// }
///
/// fn main() -> Result<(), TaskError> {
///     println!("{} bytes", aio::run(aio::fallible(program()))?);
///     Ok(())
/// }
/// ```
///
/// # Ctrl-C
/// The first Ctrl-C cancels `main`, so that it can clean up; the result is then [`TaskError::Interrupted`], after which
/// a program ends with status 130. If `main` goes on all the same, its value counts. The second ends the program at
/// once. This holds on the first OS thread of the process, unless the program has its own handler for SIGINT.
///
/// ```no_run
/// use std::process::ExitCode;
/// use greenthread::aio::{self, TaskError};
///
/// fn main() -> ExitCode {
///     match aio::run(std::future::pending::<()>()) {
///         Err(TaskError::Interrupted) => ExitCode::from(130),
///         _ => ExitCode::SUCCESS,
///     }
/// }
/// ```
///
/// # Errors
/// How else `main` ended.
///
/// # Panics
/// Where a loop runs already: there, [`create_task`](super::create_task) or `.await`.
///
/// # Coming from Python
/// `asyncio.run`; `TaskError::Interrupted` is its `KeyboardInterrupt`.
#[track_caller]
pub fn run<I: IntoTask<Output: Clone>>(main: I) -> Result<I::Output, TaskError> {
    Runner::new().run(main)
}

/// As [`run`], several times on one loop.
///
/// Tasks that are left after a run go on in the next. When the runner is dropped, or [closed](Self::close), it cancels
/// them, waits for them, and closes the loop.
///
/// ```
/// use greenthread::aio::Runner;
///
/// let runner = Runner::new();
/// let one = runner.run(async { 1 }).unwrap();
/// assert_eq!(runner.run(async move { one + 1 }).unwrap(), 2);
/// ```
///
/// # Coming from Python
/// `asyncio.Runner`.
#[derive(Debug, Default)]
pub struct Runner {
    event_loop: EventLoop,
}

impl Runner {
    /// One with a loop of its own.
    pub fn new() -> Runner {
        Runner::default()
    }

    /// The loop.
    pub fn get_loop(&self) -> EventLoop {
        self.event_loop.clone()
    }

    /// Runs `main` to its end. Ctrl-C is caught as [`run`] says.
    ///
    /// # Errors
    /// How else `main` ended.
    ///
    /// # Panics
    /// Where a loop runs already.
    #[track_caller]
    pub fn run<I: IntoTask<Output: Clone>>(&self, main: I) -> Result<I::Output, TaskError> {
        assert!(
            !hub::is_running(),
            "aio::run where an event loop runs already: use create_task"
        );
        set_event_loop(&self.event_loop);
        let task = main.into_task();
        let ctrl_c = CtrlC::cancels(task.any());
        match self.event_loop.run_until_complete(task.clone()) {
            // Take back Ctrl-C's own request. If others remain, the program cancelled the task as well, and that counts
            // more.
            Err(TaskError::Cancelled(_)) if ctrl_c.came() && task.uncancel() == 0 => Err(TaskError::Interrupted),
            result => result,
        }
    }

    /// Cancels the tasks that are left, waits for them, and closes the loop.
    pub fn close(self) {}
}

impl Drop for Runner {
    fn drop(&mut self) {
        if self.event_loop.is_running() {
            return;
        }
        if self.event_loop.is_here() && !std::thread::panicking() {
            end_all();
        }
        self.event_loop.close();
    }
}

/// Cancels the tasks that are left, also those that they start meanwhile, and waits until all have ended.
#[track_caller]
fn end_all() {
    loop {
        let left = all_tasks();
        if left.is_empty() {
            return;
        }
        cancel_all(&left);
        left.iter().for_each(|task| task.wait_finished());
    }
}

// Here and not in `events.rs`: tasks use that file, to report to their loop.
impl EventLoop {
    /// Makes a task, whether or not the loop runs yet.
    ///
    /// ```
    /// use greenthread::aio::EventLoop;
    ///
    /// let event_loop = EventLoop::new();
    /// let task = event_loop.create_task(async { 42 });
    /// assert_eq!(event_loop.run_until_complete(task).unwrap(), 42);
    /// ```
    ///
    /// # Panics
    /// If the loop is another OS thread's.
    #[track_caller]
    pub fn create_task<I: IntoTask>(&self, item: I) -> Task<I::Output> {
        assert!(
            self.bind() == hub::handle(),
            "create_task: the event loop is another OS thread's"
        );
        item.into_task()
    }

    /// Runs until `item` has ended, and gives its value. What else runs stays, for the next run.
    ///
    /// # Errors
    /// How else it ended; [`TaskError::Stopped`] if [`stop`](Self::stop) came first.
    ///
    /// # Panics
    /// If the loop runs, is closed, or is another OS thread's.
    #[track_caller]
    pub fn run_until_complete<I: IntoTask<Output: Clone>>(&self, item: I) -> Result<I::Output, TaskError> {
        let running = self.begin();
        let task = item.into_task();
        let event_loop = self.clone();
        task.add_done_callback(move |_| event_loop.wake());
        running.until(|| task.done())?;
        task.value()
    }
}

#[derive(Default)]
struct CtrlCState {
    /// Where the signal handler writes, with the fork epoch of the process that reads it.
    writer: Option<(u64, &'static OwnedFd)>,
    main: Option<AnyTask>,
    came: bool,
}

static STATE: Global<CtrlCState> = Global::new(
    Order::CtrlC,
    CtrlCState {
        writer: None,
        main: None,
        came: false,
    },
);

fn state() -> MutexGuard<'static, CtrlCState> {
    STATE.lock()
}

/// While this exists, the first Ctrl-C cancels the main task.
struct CtrlC(Option<signal::Caught>);

impl CtrlC {
    /// Has Ctrl-C cancel `main`; does nothing where the library does not handle Ctrl-C.
    fn cancels(main: AnyTask) -> CtrlC {
        let mut state = state();
        let caught = writer(&mut state).ok().and_then(signal::catch_ctrl_c);
        if caught.is_some() {
            (state.main, state.came) = (Some(main), false);
        }
        CtrlC(caught)
    }

    /// Whether it has come.
    fn came(&self) -> bool {
        self.0.is_some() && state().came
    }
}

impl Drop for CtrlC {
    fn drop(&mut self) {
        if self.0.take().is_some() {
            let main = state().main.take();
            drop(main);
        }
    }
}

/// The descriptor that the signal handler writes to. The first call of a process starts the OS thread that reads it.
fn writer(state: &mut CtrlCState) -> io::Result<&'static OwnedFd> {
    let epoch = fork_epoch();
    if let Some((_, writer)) = state.writer.filter(|(of, _)| *of == epoch) {
        return Ok(writer);
    }
    let (reader, writer) = socket::pipe()?;
    thread::start("ctrl-c", move || listen(&reader))?;
    // Never closed, because a signal handler writes to it.
    let writer = &*Box::leak(Box::new(writer));
    state.writer = Some((epoch, writer));
    Ok(writer)
}

fn listen(reader: &OwnedFd) {
    let registered = Registered::new();
    loop {
        // While it rests, this OS thread does not count as one that could still wake a green thread.
        registered.rest();
        let read = rustix::io::retry_on_intr(|| rustix::io::read(reader, &mut [0]));
        registered.rise();
        if read != Ok(1) {
            return;
        }
        let mut state = state();
        state.came = true;
        let main = state.main.clone();
        drop(state);
        if let Some(main) = main {
            main.cancel();
        }
    }
}
