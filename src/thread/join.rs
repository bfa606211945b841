//! The right to a green thread's result, and the errors of a join.
#![forbid(unsafe_code)]

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use super::Thread;
use crate::hub::{self, Ended, Exit, Hub, Join, Late, Mode, Name, Parker, Runs, Waiter, Wake, Why, budget, interrupt};

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
#[doc(alias("Greenlet", "AbortHandle"))]
pub struct JoinHandle<T> {
    join: Join<T>,
}

impl<T> JoinHandle<T> {
    pub(crate) fn new(join: Join<T>) -> JoinHandle<T> {
        JoinHandle { join }
    }

    /// Waits for the end and returns the result.
    ///
    /// A panic comes back as a [`JoinError`], which says more than std's bare payload. To let the panic go on here:
    ///
    /// ```
    /// use greenthread::spawn;
    /// use std::panic::resume_unwind;
    ///
    /// let value = match spawn(|| 7).join() {
    ///     Ok(value) => value,
    ///     Err(error) => resume_unwind(error.into_panic()), // with std: resume_unwind(error)
    /// };
    /// assert_eq!(value, 7);
    ///
    /// let payload = spawn(|| panic!("no")).join().unwrap_err().into_panic();
    /// assert_eq!(payload.downcast_ref(), Some(&"no"));
    /// ```
    ///
    /// # Errors
    /// [`JoinError`]: the green thread panicked, was killed, is the caller itself, has given its result already, or its
    /// hub ended first.
    ///
    /// # Blocking and cancellation
    /// Parks. If the caller is killed or timed out meanwhile, the handle is dropped, so the green thread is detached.
    ///
    /// In a destructor, while a local green thread or a native stack unwinds, it does not wait. If the result is not
    /// there, it returns an error with [`JoinError::is_interrupted`], and the green thread is detached. An isolated
    /// green thread (see [`is_isolated`](super::is_isolated)) that shares its thread-locals with no local green thread
    /// does wait.
    #[inline(always)]
    #[track_caller]
    pub fn join(mut self) -> Result<T, JoinError> {
        let result = self.join_mut();
        if result.is_ok() {
            self.join.end_taken();
        }
        result
    }

    /// The green thread's number.
    #[cfg(feature = "monkey")]
    pub(super) fn number(&self) -> u64 {
        self.join.id()
    }

    #[inline(always)]
    #[track_caller]
    pub(super) fn join_mut(&mut self) -> Result<T, JoinError> {
        match self.wait(None) {
            Some(result) => result,
            // Without a deadline, `wait` always has a result.
            None => Err(self.error(Repr::Interrupted)),
        }
    }

    /// Waits for the end for at most `timeout`. It returns `None` if the green thread has not ended; the handle can
    /// still be used.
    ///
    /// Once the result was returned, every later wait is an error with [`JoinError::is_taken`].
    ///
    /// ```
    /// use std::time::{Duration, Instant};
    /// use greenthread::{sleep, spawn};
    /// let mut slow = spawn(|| { sleep(Duration::from_millis(50)); 7 });
    /// assert!(slow.join_timeout(Duration::from_millis(1)).is_none());
    /// assert_eq!(slow.join().unwrap(), 7);
    /// ```
    #[track_caller]
    pub fn join_timeout(&mut self, timeout: Duration) -> Option<Result<T, JoinError>> {
        let deadline = hub::deadline_in(timeout);
        self.wait(Some(deadline))
    }

    /// Waits for the end until `deadline`; see [`join_timeout`](Self::join_timeout).
    #[track_caller]
    pub fn join_deadline(&mut self, deadline: Instant) -> Option<Result<T, JoinError>> {
        let deadline = hub::deadline_at(deadline);
        self.wait(Some(deadline))
    }

    #[inline(always)]
    #[track_caller]
    fn wait(&mut self, deadline: Option<u64>) -> Option<Result<T, JoinError>> {
        if budget::spend(Mode::Cancel) == Wake::Interrupted {
            interrupt::raise();
            return Some(Err(self.error(Repr::Interrupted)));
        }
        while !self.join.is_finished() {
            if hub::is_past(deadline) {
                return None;
            }
            if Hub::has_ended() {
                return Some(Err(self.error(Repr::Interrupted)));
            }
            // The waiter is registered before the park. `register` says no if the end has come since the check above;
            // an end that comes later wakes it.
            let parker = Parker::new();
            if self.join.id() == parker.task.id() {
                return Some(Err(self.error(Repr::Itself)));
            }
            if !self.join.register(parker.waiter()) {
                break;
            }
            let wake = parker.park_here(deadline, Mode::Cancel, Why::new(&JOIN, self.join.id() as usize));
            if matches!(wake, Wake::Ready | Wake::Early) {
                continue;
            }
            // Take the waiter back before the handle is used again. If the end came at the same time as the deadline,
            // the result counts.
            self.join.unregister();
            if wake == Wake::TimedOut {
                return if self.join.is_finished() { self.take() } else { None };
            }
            interrupt::raise();
            return Some(Err(self.error(Repr::Interrupted)));
        }
        self.take()
    }

    /// The result of a green thread that has ended: neither waits nor gives way.
    pub(super) fn join_ended(mut self) -> Result<T, JoinError> {
        let ended = if self.join.is_finished() { self.take() } else { None };
        ended.unwrap_or_else(|| hub::shield(|| self.join()))
    }

    #[inline]
    fn take(&mut self) -> Option<Result<T, JoinError>> {
        Some(match self.join.try_take() {
            Some(Exit::Returned(value)) => Ok(value),
            other => self.failed(other),
        })
    }

    #[cold]
    #[inline(never)]
    fn failed(&self, exit: Option<Exit<T>>) -> Result<T, JoinError> {
        match exit {
            Some(Exit::Returned(value)) => Ok(value),
            Some(Exit::Panicked(payload)) if interrupt::is_ours(&*payload) => Err(self.error(Repr::TimedOut)),
            Some(Exit::Panicked(payload)) => Err(self.panicked(payload)),
            Some(Exit::Killed(late)) => Err(self.error(Repr::Killed(late))),
            Some(Exit::Lost) => Err(self.error(Repr::Lost)),
            None => Err(self.error(Repr::Taken)),
        }
    }

    #[cold]
    fn error(&self, repr: Repr) -> JoinError {
        self.who().error(repr)
    }

    /// The error for a panic of this green thread.
    #[cold]
    pub(super) fn panicked(&self, payload: Box<dyn Any + Send>) -> JoinError {
        self.error(Repr::Panic(payload))
    }

    fn who(&self) -> Who {
        Who {
            id: self.join.id(),
            name: self.join.name(),
            place: self.join.place(),
        }
    }

    /// Whether it has ended; its result waits here.
    #[inline]
    pub fn is_finished(&self) -> bool {
        self.join.is_finished()
    }

    /// Asks the green thread to end. It unwinds at its next park. If it never ran, it drops its closure.
    ///
    /// This only asks. `join` waits for the end, and says whether the kill caused it. A patched call of libc's (feature
    /// `monkey`) does not unwind but fails with `ECANCELED`. If the closure returns after that, `join` still reports a
    /// kill, and [`JoinError::into_value`] has the value.
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
    #[doc(alias("abort", "cancel"))]
    pub fn kill(&self) {
        self.thread().kill();
    }

    /// Has `f` called when the green thread ends, in a fresh local green thread of its hub.
    ///
    /// `f` is told how it ended: `Ok(())` if it returned. If it has ended already, `f` is called soon, on the caller's
    /// hub. If its hub ends first, `f` is called on the ending OS thread. If both it and the caller's hub have ended,
    /// `f` is called here, at once.
    ///
    /// # Coming from Python
    /// `greenlet.link(callback)`.
    #[doc(alias("link", "add_done_callback"))]
    #[track_caller]
    pub fn on_exit<F>(&self, f: F)
    where
        F: FnOnce(Result<(), JoinError>) + Send + 'static,
    {
        let who = self.who();
        let link = Box::new(move |ended| f(told(who, ended)));
        if let Err((link, ended)) = self.join.link(Runs::Apart, link) {
            if Hub::has_ended() {
                return link(ended);
            }
            drop(super::spawn(move || link(ended)));
        }
    }

    /// Like [`on_exit`](Self::on_exit), but only if it returns.
    ///
    /// ```
    /// use greenthread::{spawn, sync::channel};
    /// let (sender, receiver) = channel::unbounded();
    /// for n in 0..3 {
    ///     let sender = sender.clone();
    ///     spawn(move || assert_ne!(n, 1)).on_success(move || sender.send(n).unwrap());
    /// }
    /// drop(sender);
    /// assert_eq!(receiver.iter().collect::<Vec<_>>(), [0, 2]);
    /// ```
    ///
    /// # Coming from Python
    /// `greenlet.link_value(callback)`. In gevent a killed greenlet has succeeded. Here it has failed, because it has
    /// not returned.
    #[doc(alias("link_value"))]
    #[track_caller]
    pub fn on_success<F: FnOnce() + Send + 'static>(&self, f: F) {
        self.on_exit(|ended| {
            if ended.is_ok() {
                f();
            }
        });
    }

    /// Like [`on_exit`](Self::on_exit), but only if it panics, is killed or is lost.
    ///
    /// # Coming from Python
    /// `greenlet.link_exception(callback)`.
    #[doc(alias("link_exception"))]
    #[track_caller]
    pub fn on_failure<F: FnOnce(JoinError) + Send + 'static>(&self, f: F) {
        self.on_exit(|ended| {
            if let Err(error) = ended {
                f(error);
            }
        });
    }

    /// Calls `f` when it ends, on the hub's own stack and before any joiner goes on; here and now if it has ended. `f`
    /// is this crate's, and may not park.
    pub(super) fn at_exit(&self, f: impl FnOnce(Result<(), JoinError>) + Send + 'static) {
        let who = self.who();
        let link = Box::new(move |ended| f(told(who, ended)));
        if let Err((link, ended)) = self.join.link(Runs::AtOnce, link) {
            link(ended);
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

    /// Registers a waiter for its end; `false` if it has ended.
    pub(super) fn watch(&mut self, waiter: Waiter) -> bool {
        self.join.register(waiter)
    }

    pub(super) fn unwatch(&mut self) {
        self.join.unregister();
    }
}

fn told(who: Who, ended: Ended) -> Result<(), JoinError> {
    let repr = match ended {
        Ended::Returned | Ended::Empty => return Ok(()),
        Ended::Panicked => Repr::Panic(Box::new("the payload is in its handle")),
        Ended::TimedOut => Repr::TimedOut,
        Ended::Killed | Ended::Late => Repr::Killed(None),
        Ended::Lost => Repr::Lost,
    };
    Err(who.error(repr))
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        ready!(budget::poll(context));
        if !self.join.is_finished() && self.join.register(Waiter::Waker(context.waker().clone())) {
            return Poll::Pending;
        }
        match self.take() {
            Some(result) => Poll::Ready(result),
            None => Poll::Pending,
        }
    }
}

// The result is not in the handle, so nothing in it is pinned.
impl<T> Unpin for JoinHandle<T> {}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.thread(), f)
    }
}

/// Why a join returned no value.
///
/// `Display` and `Debug` both name the green thread:
///
/// ```
/// use greenthread::thread;
/// let worker = thread::Builder::new().name("worker").spawn(|| panic!("no")).unwrap();
/// let text = worker.join().unwrap_err().to_string();
/// // green thread #1 'worker' (spawned at src/main.rs:2:58) panicked: no
/// assert!(text.contains(" 'worker' (spawned at ") && text.ends_with(") panicked: no"), "{text}");
/// ```
pub struct JoinError {
    /// Boxed, so that a `Result` with it stays small.
    parts: Box<(Who, Repr)>,
}

/// The green thread that was to be joined, for messages.
struct Who {
    id: u64,
    name: Option<Arc<Box<str>>>,
    place: &'static Location<'static>,
}

impl Who {
    fn error(self, repr: Repr) -> JoinError {
        JoinError {
            parts: Box::new((self, repr)),
        }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (id, name) = (self.id, self.name.as_deref().map(|name| &**name));
        write!(f, "{} (spawned at {})", Name { id, name }, self.place)
    }
}

enum Repr {
    Panic(Box<dyn Any + Send>),
    /// Killed; with the value, if the closure returned one all the same.
    Killed(Option<Box<dyn Any + Send>>),
    TimedOut,
    Lost,
    Itself,
    Interrupted,
    Taken,
}

impl JoinError {
    /// Whether the green thread panicked.
    pub fn is_panic(&self) -> bool {
        matches!(self.parts.1, Repr::Panic(_))
    }

    /// Whether it was killed.
    ///
    /// It *may have completed* nevertheless. A patched call of libc's (feature `monkey`) cannot unwind. It fails with
    /// `ECANCELED`, and the closure may go on to its end. [`into_value`](Self::into_value) has what it returned.
    pub fn is_killed(&self) -> bool {
        matches!(self.parts.1, Repr::Killed(_))
    }

    /// What a green thread returned after a patched call had told it of a kill.
    ///
    /// The value is kept for green threads of [`spawn`](super::spawn). That of a local or a scoped green thread is
    /// dropped.
    ///
    /// ```
    /// use greenthread::{spawn, thread};
    /// let sleeper = spawn(|| { thread::park(); 7 });
    /// sleeper.kill();
    /// // Unwound where it parked, it has no value; and the error is as good as before.
    /// let error = sleeper.join().unwrap_err().into_value::<i32>().unwrap_err();
    /// assert!(error.is_killed());
    /// ```
    ///
    /// # Errors
    /// The error itself, if there is no value or it has another type.
    pub fn into_value<T: 'static>(self) -> Result<T, JoinError> {
        let (who, repr) = *self.parts;
        match repr {
            Repr::Killed(Some(late)) => match late.downcast::<Late<T>>() {
                Ok(late) => Ok(late.0),
                Err(late) => Err(who.error(Repr::Killed(Some(late)))),
            },
            repr => Err(who.error(repr)),
        }
    }

    /// Whether a time-out has ended it. This time-out expired outside of its own [`run`](crate::time::Timeout::run),
    /// where nothing catches it.
    ///
    /// ```
    /// use greenthread::{sleep, spawn, time::Timeout};
    /// use std::time::Duration;
    /// let careless = spawn(|| {
    ///     let _limit = Timeout::new(Duration::from_millis(1));
    ///     sleep(Duration::from_secs(60));
    /// });
    /// let error = careless.join().unwrap_err();
    /// assert!(error.is_timed_out() && !error.is_panic());
    /// assert!(error.to_string().contains("outside of its Timeout::run"));
    /// ```
    pub fn is_timed_out(&self) -> bool {
        matches!(self.parts.1, Repr::TimedOut)
    }

    /// Whether it was lost, because its hub ended with its OS thread.
    pub fn is_lost(&self) -> bool {
        matches!(self.parts.1, Repr::Lost)
    }

    /// Whether its result was returned before, by [`JoinHandle::join_timeout`] or by an earlier poll of the handle.
    pub fn is_taken(&self) -> bool {
        matches!(self.parts.1, Repr::Taken)
    }

    /// Whether the caller could not wait: it was unwinding, was killed in a `panic = "abort"` build, or its hub has
    /// ended (in a destructor of a thread-local). The error says nothing about the green thread.
    pub fn is_interrupted(&self) -> bool {
        matches!(self.parts.1, Repr::Interrupted)
    }

    /// Whether the caller tried to join itself.
    pub fn is_self_join(&self) -> bool {
        matches!(self.parts.1, Repr::Itself)
    }

    /// The panic's payload.
    ///
    /// # Panics
    /// If it is not a panic.
    #[track_caller]
    pub fn into_panic(self) -> Box<dyn Any + Send> {
        match self.try_into_panic() {
            Ok(payload) => payload,
            Err(error) => panic!("into_panic needs a panic, but this JoinError is none: {error}"),
        }
    }

    /// The panic's payload, or the error itself.
    ///
    /// # Errors
    /// The error, if it is not a panic.
    pub fn try_into_panic(self) -> Result<Box<dyn Any + Send>, JoinError> {
        match *self.parts {
            (_, Repr::Panic(payload)) => Ok(payload),
            (who, repr) => Err(who.error(repr)),
        }
    }
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (who, repr) = &*self.parts;
        match repr {
            Repr::Panic(payload) => write!(f, "{who} panicked: {}", crate::fiber::unwind::message(&**payload)),
            Repr::Killed(None) => write!(f, "{who} was killed"),
            Repr::Killed(Some(_)) => write!(
                f,
                "{who} was killed, but returned a value all the same: into_value has it"
            ),
            Repr::TimedOut => write!(f, "{who} {}", interrupt::OUTSIDE),
            Repr::Lost => write!(f, "{who} was lost: the OS thread that ran it has ended"),
            Repr::Itself => write!(f, "{who} cannot join itself: it would wait forever"),
            Repr::Interrupted => write!(
                f,
                "the wait for {who} was cut short: the caller is unwinding, was killed, or its hub has ended"
            ),
            Repr::Taken => write!(f, "the result of {who} was taken before"),
        }
    }
}

impl fmt::Debug for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinError({self})")
    }
}

impl std::error::Error for JoinError {}
