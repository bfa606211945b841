//! Bodies of tasks that are no futures: [`green`] code, and bodies that are [`fallible`].
#![forbid(unsafe_code)]

use std::error::Error;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::events::EventLoop;
use super::exceptions::TaskError;
use super::futures::{TaskResult, make_current};
use super::tasks::{IntoTask, Task, register, start_future};
use crate::hub::{Hub, interrupt};
use crate::thread;

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

#[track_caller]
fn start_green<F, T>(stack_size: Option<usize>, f: F) -> Task<T>
where
    F: FnOnce() -> TaskResult<T> + Send + 'static,
    T: Send + Sync + 'static,
{
    let (task, guard) = register();
    let body = move || {
        let any = guard.task();
        make_current(Some(any.clone()));
        let outcome = catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|payload| {
            Err(if interrupt::is_kill(&*payload) {
                any.0.cancelled_error()
            } else {
                TaskError::panicked(&*payload)
            })
        });
        let runs = Hub::current().running();
        // A cancel that has not unwound the body, or that a patched call has reported as an error, still counts.
        let is_due = any.cancelling() > 0 && interrupt::is_undelivered(runs);
        guard.finish(if is_due || interrupt::is_told_kill(runs) {
            any.0.overridden_by_cancel(outcome)
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
    task.set_cancel(move || thread.kill());
    task
}
