//! The right to a green thread's result, and how it can fail to come.
#![forbid(unsafe_code)]

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use super::Thread;
use crate::hub::park::{Mode, Parker, Waiter, Wake, Why};
use crate::hub::task::{Ended, Exit, Join};
use crate::hub::{Hub, interrupt};

static JOIN: &str = "the end of green thread";

/// Owns the result of a green thread. Dropping it detaches the green thread.
///
/// It is a `Future` too, so any executor can wait for a green thread.
///
/// ```
/// use greenthread::spawn;
/// assert_eq!(spawn(|| 1 + 1).join().unwrap(), 2);
/// assert!(spawn(|| panic!("no")).join().unwrap_err().is_panic());
/// ```
///
/// # Coming from Python
/// The `Greenlet` that `gevent.spawn` returns; `join` is its `get`.
pub struct JoinHandle<T> {
    join: Join<T>,
}

impl<T> JoinHandle<T> {
    pub(crate) fn new(join: Join<T>) -> JoinHandle<T> {
        JoinHandle { join }
    }

    /// Waits for the end and gives the result.
    ///
    /// # Errors
    /// [`JoinError`]: it panicked, was killed, is the caller itself, or its hub ended first.
    ///
    /// # Blocking and cancellation
    /// Parks. If the caller is killed or timed out meanwhile, the handle goes and the green thread is detached.
    #[inline(always)]
    #[track_caller]
    pub fn join(mut self) -> Result<T, JoinError> {
        match self.wait(None, Mode::Cancel) {
            Some(result) => result,
            // A deadline of never does not pass.
            None => Err(JoinError {
                repr: Repr::Interrupted,
            }),
        }
    }

    /// Waits for the end for at most `timeout`. `None`: not yet, and the handle is as good as before.
    ///
    /// After it has given the result once, every later wait says [`JoinError::is_lost`].
    ///
    /// ```
    /// use std::time::Duration;
    /// use greenthread::{sleep, spawn};
    /// let mut slow = spawn(|| { sleep(Duration::from_millis(50)); 7 });
    /// assert!(slow.join_timeout(Duration::from_millis(1)).is_none());
    /// assert_eq!(slow.join().unwrap(), 7);
    /// ```
    #[track_caller]
    pub fn join_timeout(&mut self, timeout: Duration) -> Option<Result<T, JoinError>> {
        let deadline = Hub::current().after(timeout);
        self.wait(Some(deadline), Mode::Cancel)
    }

    #[inline(always)]
    #[track_caller]
    pub(super) fn wait(&mut self, deadline: Option<u64>, mode: Mode) -> Option<Result<T, JoinError>> {
        while !self.join.is_finished() {
            if Hub::has_ended() {
                return Some(Err(JoinError { repr: Repr::Lost }));
            }
            let parker = Parker::new();
            if self.join.task().is(parker.task) {
                return Some(Err(JoinError { repr: Repr::Itself }));
            }
            if !self.join.register(parker.waiter()) {
                break;
            }
            let wake = parker.park_here(deadline, mode, Why::new(&JOIN, self.join.id() as usize));
            if wake == Wake::Ready {
                continue;
            }
            self.join.unregister();
            if wake == Wake::TimedOut {
                return if self.join.is_finished() { self.take() } else { None };
            }
            interrupt::raise();
            return Some(Err(JoinError {
                repr: Repr::Interrupted,
            }));
        }
        self.take()
    }

    #[inline]
    fn take(&mut self) -> Option<Result<T, JoinError>> {
        Some(match self.join.try_take() {
            Some(Exit::Returned(value)) => Ok(value),
            Some(Exit::Panicked(payload)) => Err(JoinError {
                repr: Repr::Panic(payload),
            }),
            Some(Exit::Killed) => Err(JoinError { repr: Repr::Killed }),
            Some(Exit::Lost) => Err(JoinError { repr: Repr::Lost }),
            None => Err(JoinError { repr: Repr::Taken }),
        })
    }

    /// Whether it has ended; its result waits here.
    #[inline]
    pub fn is_finished(&self) -> bool {
        self.join.is_finished()
    }

    /// Asks it to die: it unwinds at its next park, and one that never ran drops its closure.
    ///
    /// This only asks. `join` tells when it is dead, and whether it died of that.
    ///
    /// ```
    /// use greenthread::{spawn, thread};
    /// let sleeper = spawn(thread::park);
    /// sleeper.kill();
    /// assert!(sleeper.join().unwrap_err().is_killed());
    /// ```
    ///
    /// # Coming from Python
    /// `greenlet.kill(block=False)`; asyncio's `task.cancel()`.
    pub fn kill(&self) {
        self.thread().kill();
    }

    /// Has `f` called when it ends, in a fresh local green thread of its hub; if it has ended, soon and here.
    ///
    /// `f` is told how: `Ok(())` if it returned. If its hub ends first, `f` is called on the ending OS thread.
    ///
    /// # Coming from Python
    /// `greenlet.link(callback)`.
    #[track_caller]
    pub fn on_exit<F>(&self, f: F)
    where
        F: FnOnce(Result<(), JoinError>) + Send + 'static,
    {
        if let Err((link, ended)) = self.join.link(Box::new(move |ended| f(told(ended)))) {
            drop(super::spawn(move || link(ended)));
        }
    }

    /// The green thread, to name, unpark or kill.
    pub fn thread(&self) -> Thread {
        Thread::new(self.join.task(), self.join.id(), self.join.name())
    }

    /// Where it was spawned.
    pub fn spawned_at(&self) -> &'static std::panic::Location<'static> {
        self.join.place()
    }

    /// Leaves a waiter for its end; `false` if it has ended.
    pub(super) fn watch(&mut self, waiter: Waiter) -> bool {
        self.join.register(waiter)
    }

    pub(super) fn unwatch(&mut self) {
        self.join.unregister();
    }
}

fn told(ended: Ended) -> Result<(), JoinError> {
    let repr = match ended {
        Ended::Returned | Ended::Empty => return Ok(()),
        Ended::Panicked => Repr::Panic(Box::new("a green thread panicked; its handle has the payload")),
        Ended::Killed => Repr::Killed,
        Ended::Lost => Repr::Lost,
    };
    Err(JoinError { repr })
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if !self.join.is_finished() && self.join.register(Waiter::Waker(context.waker().clone())) {
            return Poll::Pending;
        }
        match self.take() {
            Some(result) => Poll::Ready(result),
            None => Poll::Pending,
        }
    }
}

// Nothing is pinned: the result lies elsewhere.
impl<T> Unpin for JoinHandle<T> {}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.thread(), f)
    }
}

/// Why a join has no value.
pub struct JoinError {
    repr: Repr,
}

enum Repr {
    Panic(Box<dyn Any + Send>),
    Killed,
    Lost,
    Itself,
    Interrupted,
    Taken,
}

impl JoinError {
    /// Whether the green thread panicked.
    pub fn is_panic(&self) -> bool {
        matches!(self.repr, Repr::Panic(_))
    }

    /// Whether it was killed.
    pub fn is_killed(&self) -> bool {
        matches!(self.repr, Repr::Killed)
    }

    /// Whether it can no longer end: its hub ended with its OS thread; or whether its result was given before.
    pub fn is_lost(&self) -> bool {
        matches!(self.repr, Repr::Lost | Repr::Taken)
    }

    /// Whether the caller tried to join itself.
    pub fn is_self_join(&self) -> bool {
        matches!(self.repr, Repr::Itself)
    }

    /// The panic's payload.
    ///
    /// # Panics
    /// If it is not a panic.
    #[track_caller]
    pub fn into_panic(self) -> Box<dyn Any + Send> {
        match self.try_into_panic() {
            Ok(payload) => payload,
            Err(error) => panic!("into_panic on a JoinError that is not a panic: {error}"),
        }
    }

    /// The panic's payload, or the error itself.
    pub fn try_into_panic(self) -> Result<Box<dyn Any + Send>, JoinError> {
        match self.repr {
            Repr::Panic(payload) => Ok(payload),
            repr => Err(JoinError { repr }),
        }
    }
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.repr {
            Repr::Panic(payload) => write!(
                f,
                "green thread panicked: {}",
                crate::fiber::unwind::message(&**payload)
            ),
            Repr::Killed => f.write_str("green thread was killed"),
            Repr::Lost => f.write_str("green thread was lost: its hub ended with its OS thread"),
            Repr::Itself => f.write_str("a green thread cannot join itself: it would wait for ever"),
            Repr::Interrupted => f.write_str("the wait was cut short: the caller is unwinding or was killed"),
            Repr::Taken => f.write_str("the result was given before"),
        }
    }
}

impl fmt::Debug for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinError({self})")
    }
}

impl std::error::Error for JoinError {}
