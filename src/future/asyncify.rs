//! Blocking code as a future: a closure on a stack of its own, that awaits from however deep a call.
//!
//! The stack is a generator's: it yields whenever the future that it awaits is pending, and the poll then returns
//! `Pending`. A list has the bodies that are being polled on this OS thread. An [`await_`] belongs to the innermost of
//! them that it runs in.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::block_on;
use crate::generator::{Generator, KeptYielder, State, Yielder};
use crate::hub::{Handle, interrupt};
use crate::thread::{JoinError, JoinHandle, shield};
use crate::time::Sleep;

/// What a body and its polls share.
struct Polled {
    yielder: Cell<Option<KeptYielder<()>>>,
    waker: RefCell<Waker>,
    /// The future is being dropped: the body will not be polled again.
    ends: Cell<bool>,
}

/// The outcome of a poll in the body.
enum Step<T> {
    Ready(T),
    Pending(KeptYielder<()>),
    /// The body may not yield: it is not polled any more, or it is unwinding, and the code that polls would see
    /// `panicking()`.
    Alone,
}

thread_local! {
    static POLLED: RefCell<Vec<Rc<Polled>>> = const { RefCell::new(Vec::new()) };
}

impl Polled {
    /// The innermost polled body that the caller runs in, on its stack.
    fn innermost() -> Option<Rc<Polled>> {
        let is_here = |polled: &&Rc<Polled>| polled.yielder.get().is_some_and(KeptYielder::is_here);
        let find = |all: &RefCell<Vec<Rc<Polled>>>| all.borrow().iter().rev().find(is_here).cloned();
        POLLED.try_with(find).ok().flatten()
    }

    /// Polls a future in the body, with the waker of the body's own poll.
    fn step<F: Future>(&self, future: Pin<&mut F>) -> Step<F::Output> {
        let Some(yielder) = self
            .yielder
            .get()
            .filter(|_| !self.ends.get() && !interrupt::is_unwinding())
        else {
            return Step::Alone;
        };
        let waker = self.waker.borrow().clone();
        match future.poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => Step::Ready(output),
            Poll::Pending => Step::Pending(yielder),
        }
    }

    /// Has the body polled when its next time-out expires; false if that has expired.
    fn set_alarm(&self, alarm: &mut Option<(u64, Sleep)>) -> bool {
        let Some(deadline) = interrupt::next_deadline().filter(|deadline| *deadline != u64::MAX) else {
            *alarm = None;
            return true;
        };
        alarm.take_if(|(at, _)| *at != deadline);
        let (_, sleep) = alarm.get_or_insert_with(|| (deadline, Sleep::at(deadline)));
        let waker = self.waker.borrow().clone();
        Pin::new(sleep).poll(&mut Context::from_waker(&waker)).is_pending()
    }

    /// Runs `f`, which resumes the body.
    fn enter<R>(self: &Rc<Polled>, f: impl FnOnce() -> R) -> R {
        struct Leave<'a>(&'a Rc<Polled>);
        impl Drop for Leave<'_> {
            fn drop(&mut self) {
                // Mostly the last entry. But a poll that blocks lets other polls begin and end, in any order.
                let _ = POLLED.try_with(|all| {
                    let mut all = all.borrow_mut();
                    let at = all.iter().rposition(|polled| Rc::ptr_eq(polled, self.0));
                    at.map(|at| all.remove(at))
                });
            }
        }
        // In a destructor of a thread-local the list may be gone already: then nothing in the body can await.
        let _ = POLLED.try_with(|all| all.borrow_mut().push(self.clone()));
        let _leave = Leave(self);
        f()
    }
}

/// Runs blocking code as a future, on a stack of its own: the way into another executor.
///
/// In `f`, [`await_`] waits for a future: it suspends the stack, and the poll returns. A panic of `f` goes on in the
/// poll. When dropped, the future unwinds its stack, so that destructors run.
///
/// ```
/// use greenthread::future::{asyncify, await_};
/// use futures::{channel::oneshot, executor::LocalPool, task::LocalSpawnExt};
///
/// /// Any code, however deep, that knows nothing of `async`.
/// fn answer(question: oneshot::Receiver<u32>) -> u32 {
///     await_(question).unwrap() * 2
/// }
///
/// let mut pool = LocalPool::new();
/// let (ask, question) = oneshot::channel();
/// pool.spawner().spawn_local(async { ask.send(21).unwrap() }).unwrap();
/// assert_eq!(pool.run_until(asyncify(|| answer(question))), 42);
/// ```
///
/// It starts at the first poll, and stays on the OS thread that made it. So it needs a `LocalSet`, a `LocalExecutor`,
/// or this crate's [`spawn`](super::spawn). [`asyncify_on`] makes a future that is `Send`:
///
/// ```compile_fail
/// fn is_send<T: Send>(_: T) {}
/// is_send(greenthread::future::asyncify(|| ()));
/// ```
///
/// # Panics
/// If there is no memory for the stack.
///
/// # Blocking and cancellation
/// If `f` blocks without [`await_`], it blocks its poll: on a hub of this crate that is one green thread, elsewhere the
/// OS thread. A destructor that awaits while the future is dropped, or while a panic unwinds, blocks in the same way.
/// In the first case nothing polls the future any more. In the second, the code that polls would see
/// [`panicking`](std::thread::panicking).
///
/// # Coming from Python
/// SQLAlchemy's `greenlet_spawn`, `asyncio_gevent.greenlet_to_future`.
pub fn asyncify<F, T>(f: F) -> Asyncify<T>
where
    F: FnOnce() -> T + 'static,
    T: 'static,
{
    let polled = Rc::new(Polled {
        yielder: Cell::new(None),
        waker: RefCell::new(Waker::noop().clone()),
        ends: Cell::new(false),
    });
    let theirs = polled.clone();
    let body = move |yielder: &Yielder<'_, ()>| {
        theirs.yielder.set(Some(yielder.keep()));
        f()
    };
    Asyncify {
        body: Some(Generator::new(body)),
        polled,
    }
}

/// The future of [`asyncify`].
///
/// # Panics
/// If it is polled again after it was ready.
#[must_use = "a future does nothing unless it is polled"]
pub struct Asyncify<T: 'static> {
    /// `None` while it is dropped.
    body: Option<Generator<(), (), T>>,
    polled: Rc<Polled>,
}

impl<T> Future for Asyncify<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let this = &mut *self;
        let Some(body) = this.body.as_mut().filter(|body| !body.is_done()) else {
            panic!("an Asyncify was polled again after it had given its result")
        };
        if !this.polled.waker.borrow().will_wake(context.waker()) {
            // The old waker is the user's: its destructor must not run while the cell is borrowed.
            let stale = this.polled.waker.replace(context.waker().clone());
            drop(stale);
        }
        match this.polled.enter(|| body.resume()) {
            State::Yielded(()) => Poll::Pending,
            State::Returned(value) => Poll::Ready(value),
        }
    }
}

// The body has its own stack, so nothing in this value is pinned.
impl<T> Unpin for Asyncify<T> {}

impl<T> Drop for Asyncify<T> {
    fn drop(&mut self) {
        if let Some(body) = self.body.take_if(|body| !body.is_done()) {
            self.polled.ends.set(true);
            self.polled.enter(|| drop(body));
        }
    }
}

impl<T> fmt::Debug for Asyncify<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asyncify").field("body", &self.body).finish()
    }
}

/// Waits for a future, in code that runs under [`asyncify`].
///
/// ```
/// use greenthread::future::{asyncify, await_, block_on};
/// assert_eq!(block_on(asyncify(|| await_(async { 1 }) + await_(asyncify(|| await_(async { 2 }))))), 3);
/// ```
///
/// # Panics
/// Outside of `asyncify`: "await_ outside of asyncify". Use [`block_on`] there; [`try_await`] gives the future back.
///
/// # Blocking and cancellation
/// Suspends: the poll of the `asyncify` returns. It unwinds if the future of `asyncify` is dropped meanwhile. Like
/// every wait it also unwinds for a [`timeout`](crate::time::timeout), if the hub with its timer runs.
///
/// # Coming from Python
/// SQLAlchemy's `await_only`; outside it raises `MissingGreenlet`.
#[track_caller]
pub fn await_<F: Future>(future: F) -> F::Output {
    match try_await(future) {
        Ok(output) => output,
        Err(_) => {
            panic!("await_ outside of asyncify, where nothing polls this code: use block_on, which works anywhere")
        }
    }
}

/// Like [`await_`], but outside of [`asyncify`] it gives the future back.
///
/// ```
/// use greenthread::future::{block_on, try_await};
/// let answer = try_await(async { 42 }).unwrap_or_else(block_on);
/// assert_eq!(answer, 42);
/// ```
///
/// # Errors
/// The future, never polled, if the calling code does not run under `asyncify`.
pub fn try_await<F: Future>(future: F) -> Result<F::Output, F> {
    let Some(polled) = Polled::innermost() else {
        return Err(future);
    };
    let mut future = pin!(future);
    let mut alarm = None;
    loop {
        match polled.step(future.as_mut()) {
            Step::Ready(output) => return Ok(output),
            Step::Pending(yielder) => {
                if polled.set_alarm(&mut alarm) {
                    yielder.yield_(());
                }
                // The body's time-out has expired: unwind now, because no poll may come for it.
                interrupt::raise_if_due();
            }
            Step::Alone => return Ok(block_on(future)),
        }
    }
}

/// Waits for a future to its end, wherever this runs. A drop of the `asyncify` future, a kill and a time-out are
/// delivered only after that.
pub(super) fn wait_to_the_end<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let Some(polled) = Polled::innermost() else {
        return shield(|| block_on(future));
    };
    loop {
        let thrown = match polled.step(future.as_mut()) {
            Step::Ready(output) => return output,
            Step::Pending(yielder) => catch_unwind(AssertUnwindSafe(|| yielder.yield_(()))),
            Step::Alone => return shield(|| block_on(future)),
        };
        // The yield has unwound (the `asyncify` is dropped, or a time-out): the body must not yield again, so block for
        // the rest.
        if let Err(payload) = thrown {
            shield(|| block_on(future));
            resume_unwind(payload);
        }
    }
}

/// Runs blocking code as a future that may go to any OS thread: `f` runs as a green thread of the hub of `handle`.
///
/// It starts at once, not at the first poll. If the future is dropped, it kills `f`'s green thread. [`await_`] works in
/// it as in [`asyncify`].
///
/// ```
/// use greenthread::{future::{asyncify_on, await_}, hub, sleep, thread};
/// use std::time::Duration;
///
/// let (tell, told) = std::sync::mpsc::channel();
/// let server = std::thread::spawn(move || {
///     tell.send(hub::handle()).unwrap();
///     hub::run_forever();
/// });
/// let handle = told.recv().unwrap();
/// let future = asyncify_on(&handle, || {
///     sleep(Duration::from_millis(1));
///     await_(async { 42 })
/// });
/// assert_eq!(futures::executor::block_on(future.unwrap()).unwrap(), 42);
/// handle.stop().unwrap();
/// server.join().unwrap();
/// ```
///
/// # Errors
/// `NotConnected` when the hub has ended; `f` is dropped.
#[track_caller]
pub fn asyncify_on<F, T>(handle: &Handle, f: F) -> io::Result<AsyncifyOn<T>>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    handle.spawn(|| block_on(asyncify(f))).map(AsyncifyOn)
}

/// The future of [`asyncify_on`]: the value of the green thread, or a [`JoinError`].
#[must_use = "dropping it kills the green thread"]
#[derive(Debug)]
pub struct AsyncifyOn<T>(JoinHandle<T>);

impl<T> Future for AsyncifyOn<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context)
    }
}

impl<T> Drop for AsyncifyOn<T> {
    fn drop(&mut self) {
        if !self.0.is_finished() {
            self.0.kill();
        }
    }
}
