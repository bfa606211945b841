//! A request to cancel that many share.
//!
//! # Invariants
//! - **TOKEN-1** A token is cancelled once, and for good. Its listeners are called by that cancel, or at once if they
//!   come later: the flag and the list are under one lock.
//! - **TOKEN-2** Listeners are called, and dropped, without the lock: they wake waiters.
//! - **TOKEN-3** A child is cancelled after its parent, by the same call. A child keeps its parent alive, not the other
//!   way round.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::task::Poll;
use std::time::{Duration, Instant};

use crate::sync::Event;
use crate::sys::inside::Mutex;
use crate::sys::poison::IgnorePoison;
use crate::time::Timeout;

/// A request to cancel, which any number of green threads, futures and OS threads share. A clone is the same token.
///
/// ```
/// use std::time::Duration;
/// use greenthread::{select, sleep, spawn, thread::CancelToken};
///
/// let token = CancelToken::new();
/// let child = token.child(); // is cancelled with `token`, but not the other way round
/// let sleeper = spawn(move || child.run(|| sleep(Duration::from_secs(60))));
/// let other = token.clone();
/// let waiter = spawn(move || select! {
///     wait(other) => "cancelled",
///     after(Duration::from_secs(60)) => "late",
/// });
/// token.cancel();
/// assert!(sleeper.join().unwrap().is_err());
/// assert_eq!(waiter.join().unwrap(), "cancelled");
/// ```
///
/// # Coming from Python
/// trio's cancel scopes. In Go this is the `Done` of a `Context`.
#[doc(alias("CancellationToken", "CancelScope", "Context"))]
#[derive(Clone)]
pub struct CancelToken(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    /// Set when the token is cancelled.
    cancelled: Event,
    /// The parent, and this token's number among its listeners.
    parent: Option<(CancelToken, u64)>,
}

#[derive(Default)]
struct State {
    is_cancelled: bool,
    /// How many listeners there ever were.
    added: u64,
    listeners: BTreeMap<u64, Listener>,
}

/// What is told of the cancel.
enum Listener {
    Child(Weak<Inner>),
    Call(Box<dyn FnOnce() + Send>),
}

/// A [`CancelToken`] was cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cancelled;

impl fmt::Display for Cancelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cancelled by its CancelToken")
    }
}

impl std::error::Error for Cancelled {}

impl From<Cancelled> for std::io::Error {
    /// An error of the kind `Other`: callers try again after one of the kind `Interrupted`.
    fn from(cancelled: Cancelled) -> std::io::Error {
        std::io::Error::other(cancelled)
    }
}

impl CancelToken {
    /// A token that is not cancelled.
    pub fn new() -> CancelToken {
        CancelToken::with(None)
    }

    fn with(parent: Option<(CancelToken, u64)>) -> CancelToken {
        CancelToken(Arc::new(Inner {
            state: Mutex::default(),
            cancelled: Event::new(),
            parent,
        }))
    }

    /// A token that is cancelled with this one, or alone.
    pub fn child(&self) -> CancelToken {
        let mut state = self.0.state.lock().ignore_poison();
        state.added += 1;
        let number = state.added;
        let is_cancelled = state.is_cancelled;
        let child = CancelToken::with(Some((self.clone(), number)));
        if !is_cancelled {
            state
                .listeners
                .insert(number, Listener::Child(Arc::downgrade(&child.0)));
        }
        drop(state);
        if is_cancelled {
            child.cancel();
        }
        child
    }

    /// Cancels the token and its children, for good.
    pub fn cancel(&self) {
        let mut calls = Vec::new();
        // Not by recursion: a chain of children may be long.
        let mut tokens = vec![self.clone()];
        while let Some(token) = tokens.pop() {
            let mut state = token.0.state.lock().ignore_poison();
            state.is_cancelled = true;
            let listeners = std::mem::take(&mut state.listeners);
            drop(state);
            token.0.cancelled.set();
            for listener in listeners.into_values() {
                match listener {
                    Listener::Child(child) => tokens.extend(child.upgrade().map(CancelToken)),
                    Listener::Call(call) => calls.push(call),
                }
            }
        }
        calls.into_iter().for_each(|call| call());
    }

    /// Whether it is cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.is_set()
    }

    /// Waits until it is cancelled.
    ///
    /// # Blocking and cancellation
    /// Parks unless it is. A kill or time-out unwinds here.
    #[track_caller]
    pub fn wait(&self) {
        self.0.cancelled.wait();
    }

    /// Waits until it is cancelled, for at most `timeout`; whether it is.
    #[track_caller]
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        self.0.cancelled.wait_timeout(timeout)
    }

    /// Waits until it is cancelled, or until `deadline`; whether it is.
    #[track_caller]
    pub fn wait_deadline(&self, deadline: Instant) -> bool {
        self.0.cancelled.wait_deadline(deadline)
    }

    /// Like [`wait`](Self::wait), for an `async` function, and for `select!`.
    pub fn wait_async(&self) -> impl Future<Output = ()> + use<'_> {
        self.0.cancelled.wait_async()
    }

    /// Runs `f` until it returns or the token is cancelled.
    ///
    /// # Errors
    /// [`Cancelled`]: the token was cancelled before, and `f` was not called; or a wait of `f` was cut short by the
    /// cancel. A value that `f` has returned all the same is dropped. If no wait was cut short, the value is returned.
    ///
    /// # Blocking and cancellation
    /// `f` unwinds at its next wait, as by a [`timeout`](crate::timeout). That is deferred in a
    /// [`shield`](super::shield()). Green threads that `f` spawned run on, unless they are those of a
    /// [`scope`](super::scope()) or a [`nursery`](super::nursery()) in `f`.
    #[track_caller]
    pub fn run<F: FnOnce() -> T, T>(&self, f: F) -> Result<T, Cancelled> {
        if self.is_cancelled() {
            return Err(Cancelled);
        }
        let limit = Timeout::never();
        let rearm = limit.rearm();
        let _listening = self.on_cancel(move || rearm.expire());
        limit.run(f).map_err(|_| Cancelled)
    }

    /// Awaits `future` until it is ready or the token is cancelled; then drops it.
    ///
    /// # Errors
    /// [`Cancelled`]. If the future is ready at the same poll, its output is returned.
    pub async fn run_async<F: Future>(&self, future: F) -> Result<F::Output, Cancelled> {
        let (mut future, mut cancelled) = (pin!(future), pin!(self.wait_async()));
        poll_fn(|context| match future.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Ok(output)),
            Poll::Pending => cancelled.as_mut().poll(context).map(|()| Err(Cancelled)),
        })
        .await
    }

    /// Has `call` called by the cancel; at once if that has been. Dropping the result takes the call back. `call` may
    /// not park.
    pub(crate) fn on_cancel(&self, call: impl FnOnce() + Send + 'static) -> Listening {
        let mut state = self.0.state.lock().ignore_poison();
        state.added += 1;
        let number = state.added;
        if !state.is_cancelled {
            state.listeners.insert(number, Listener::Call(Box::new(call)));
            drop(state);
        } else {
            drop(state);
            call();
        }
        Listening {
            token: self.clone(),
            number,
        }
    }

    /// Takes a listener off the list.
    fn forget(&self, number: u64) {
        // Dropped without the lock (TOKEN-2).
        let listener = self.0.state.lock().ignore_poison().listeners.remove(&number);
        drop(listener);
    }
}

/// While it lives, a call waits for the cancel of a token.
pub(crate) struct Listening {
    token: CancelToken,
    number: u64,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.token.forget(self.number);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let mut parent = self.parent.take();
        // Not by recursion, as in `cancel`: this child may be the last that keeps its parent, and so on.
        while let Some((token, number)) = parent {
            token.forget(number);
            parent = Arc::into_inner(token.0).and_then(|mut inner| inner.parent.take());
        }
    }
}

impl Default for CancelToken {
    fn default() -> CancelToken {
        CancelToken::new()
    }
}

impl fmt::Debug for CancelToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancelToken")
            .field("is_cancelled", &self.is_cancelled())
            .finish_non_exhaustive()
    }
}
