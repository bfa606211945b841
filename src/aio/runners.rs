//! The way in: [`run`], [`Runner`].
#![forbid(unsafe_code)]

use super::ctrl_c::CtrlC;
use super::events::{EventLoop, set_event_loop};
use super::spawn::all_tasks;
use super::tasks::cancel_all;
use super::{IntoTask, TaskError};
use crate::hub;

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
