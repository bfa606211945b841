//! A value that changes, and receivers that see the newest one.
//!
//! ```
//! use greenthread::{spawn, sync::watch};
//!
//! let (sender, mut receiver) = watch::channel(1);
//! let watcher = spawn(move || {
//!     let mut seen = vec![*receiver.get()];
//!     while receiver.changed().is_ok() {
//!         seen.push(*receiver.get());
//!     }
//!     seen
//! });
//! greenthread::yield_now();
//! sender.send(2).unwrap();
//! sender.send(3).unwrap(); // the watcher has not run meanwhile, and never sees the 2
//! drop(sender);
//! assert_eq!(watcher.join().unwrap(), [1, 3]);
//! ```
//!
//! Both ends may be cloned, and sent to other OS threads and to futures. A value is in an [`Arc`]: a receiver that
//! looks at one does not hold up the sender.
//!
//! # Coming from tokio
//! `tokio::sync::watch`. [`Receiver::get`] is `borrow_and_update`, and gives an `Arc` in place of a guard.
#![forbid(unsafe_code)]

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use std::sync::mpsc::{RecvError, RecvTimeoutError, SendError};

use super::wait::{Core, Op, State, Until};
use super::waiters::{Waiters, Woken};
use crate::hub::Why;

static CHANGE: &str = "a change of a watched value";
static CLOSED: &str = "the end of a watched value's receivers";

struct Watched<T> {
    value: Arc<T>,
    /// The number of the value. A receiver remembers which it has seen.
    version: u64,
    /// The receivers in line are to be told: the value has changed since they got in line.
    tells: bool,
    senders: usize,
    receivers: usize,
    waiting: Waiters,
    /// Senders that wait for the last receiver to go.
    closing: Waiters,
}

impl<T> Watched<T> {
    fn put(&mut self, value: Arc<T>) -> Arc<T> {
        self.version += 1;
        self.tells = self.waiting.any();
        std::mem::replace(&mut self.value, value)
    }
}

impl<T> State for Watched<T> {
    #[inline]
    fn may_grant(&self) -> bool {
        self.waiting.any() && (self.tells || self.senders == 0) || self.closing.any() && self.receivers == 0
    }

    fn grant_waiters(&mut self, woken: &mut Woken) {
        // A receiver gets in line only if it has seen the value, so a change concerns all in line.
        while (self.tells || self.senders == 0) && self.waiting.grant_first(woken) {}
        self.tells = false;
        while self.receivers == 0 && self.closing.hand_first(woken) {}
    }
}

/// Waits for a value that was not seen.
struct Changed<'a> {
    seen: &'a mut u64,
}

impl<T> Op<Watched<T>> for Changed<'_> {
    type Output = Result<(), RecvError>;

    // A change is not used up, so a select is granted even while it polls another branch (SELECT-7).
    const TAKES: bool = false;

    fn waiters<'a>(&self, state: &'a mut Watched<T>) -> &'a mut Waiters {
        &mut state.waiting
    }

    fn attempt(&mut self, state: &mut Watched<T>, _: bool, _: &mut Woken) -> Option<Result<(), RecvError>> {
        if std::mem::replace(self.seen, state.version) != state.version {
            return Some(Ok(()));
        }
        (state.senders == 0).then_some(Err(RecvError))
    }
}

/// Waits for the last receiver to go.
struct Closed;

impl<T> Op<Watched<T>> for Closed {
    type Output = ();

    const HANDED: Option<()> = Some(());

    const TAKES: bool = false;

    fn waiters<'a>(&self, state: &'a mut Watched<T>) -> &'a mut Waiters {
        &mut state.closing
    }

    fn attempt(&mut self, state: &mut Watched<T>, granted: bool, _: &mut Woken) -> Option<()> {
        (granted || state.receivers == 0).then_some(())
    }
}

/// A value to watch, with its first sender and its first receiver. The receiver has seen `value`.
pub fn channel<T>(value: T) -> (Sender<T>, Receiver<T>) {
    let core = Arc::new(Core::new(Watched {
        value: Arc::new(value),
        version: 0,
        tells: false,
        senders: 1,
        receivers: 1,
        waiting: Waiters::new(),
        closing: Waiters::new(),
    }));
    let sender = Sender { core: core.clone() };
    (sender, Receiver { core, seen: 0 })
}

/// Changes the value. When the last sender is dropped, waits of receivers end with [`RecvError`].
pub struct Sender<T> {
    core: Arc<Core<Watched<T>>>,
}

impl<T> Sender<T> {
    /// Changes the value, and wakes the receivers that wait.
    ///
    /// # Errors
    /// The value, if there is no receiver. [`replace`](Self::replace) changes it all the same.
    pub fn send(&self, value: T) -> Result<(), SendError<T>> {
        if self.receiver_count() == 0 {
            return Err(SendError(value));
        }
        self.replace(value);
        Ok(())
    }

    /// Changes the value, and returns the one before.
    #[doc(alias = "send_replace")]
    pub fn replace(&self, value: T) -> Arc<T> {
        let value = Arc::new(value);
        self.core.change(|state| state.put(value))
    }

    /// Changes a copy of the value, which becomes the value.
    ///
    /// ```
    /// use greenthread::sync::watch;
    /// let (sender, mut receiver) = watch::channel(vec![1]);
    /// sender.modify(|list| list.push(2));
    /// assert_eq!(*receiver.get(), [1, 2]);
    /// ```
    ///
    /// If two senders modify it at once, one waits for the other by trying again, and its `f` may run more than once.
    #[doc(alias = "send_modify")]
    pub fn modify(&self, mut f: impl FnMut(&mut T))
    where
        T: Clone,
    {
        loop {
            let (mut value, version) = self.core.look(|state| (state.value.clone(), state.version));
            // The user's code: not under the lock.
            f(Arc::make_mut(&mut value));
            // A value that comes too late stays here: it is the user's, and is dropped without the lock.
            let mut new = Some(value);
            let old = self
                .core
                .change(|state| new.take_if(|_| state.version == version).map(|value| state.put(value)));
            if old.is_some() {
                return;
            }
        }
    }

    /// The value.
    pub fn get(&self) -> Arc<T> {
        self.core.look(|state| state.value.clone())
    }

    /// A new receiver. It has seen the current value.
    pub fn subscribe(&self) -> Receiver<T> {
        let version = self.core.change(|state| {
            state.receivers += 1;
            state.version
        });
        Receiver {
            core: self.core.clone(),
            seen: version,
        }
    }

    /// How many receivers there are.
    pub fn receiver_count(&self) -> usize {
        self.core.look(|state| state.receivers)
    }

    /// Waits until there is no receiver.
    ///
    /// # Blocking and cancellation
    /// Parks. A kill or time-out unwinds here.
    #[track_caller]
    pub fn closed(&self) {
        self.core.block(&mut Closed, Until::Ever, Why::new(&CLOSED, 0));
    }

    /// Like [`closed`](Self::closed), for an `async` function.
    pub fn closed_async(&self) -> impl Future<Output = ()> + use<'_, T> {
        self.core.future(Closed)
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Sender<T> {
        self.core.change(|state| state.senders += 1);
        Sender {
            core: self.core.clone(),
        }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.core.change(|state| state.senders -= 1);
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("watch::Sender")
            .field("receivers", &self.receiver_count())
            .finish_non_exhaustive()
    }
}

/// Sees the newest value, and waits for the next. A clone has seen what this one has seen.
pub struct Receiver<T> {
    core: Arc<Core<Watched<T>>>,
    /// The number of the value that was seen last.
    seen: u64,
}

impl<T> Receiver<T> {
    /// The value, which counts as seen from now on.
    #[doc(alias = "borrow_and_update")]
    pub fn get(&mut self) -> Arc<T> {
        let (value, version) = self.core.look(|state| (state.value.clone(), state.version));
        self.seen = version;
        value
    }

    /// The value. A value that was not seen before still counts as a change.
    #[doc(alias = "borrow")]
    pub fn peek(&self) -> Arc<T> {
        self.core.look(|state| state.value.clone())
    }

    /// Whether there is a value that was not seen.
    pub fn has_changed(&self) -> bool {
        self.core.look(|state| state.version != self.seen)
    }

    /// Waits for a value that was not seen, which then counts as seen.
    ///
    /// # Errors
    /// If all senders are gone, and the value was seen.
    ///
    /// # Blocking and cancellation
    /// Parks unless there is one. A kill or time-out unwinds here, and the change is still to be seen.
    #[track_caller]
    pub fn changed(&mut self) -> Result<(), RecvError> {
        let mut op = Changed { seen: &mut self.seen };
        self.core
            .block(&mut op, Until::Ever, Why::new(&CHANGE, 0))
            .unwrap_or(Err(RecvError))
    }

    /// Like [`changed`](Self::changed), but waits for at most `timeout`.
    ///
    /// # Errors
    /// Also when the time is over.
    #[track_caller]
    pub fn changed_timeout(&mut self, timeout: Duration) -> Result<(), RecvTimeoutError> {
        self.changed_until(Until::After(timeout))
    }

    /// Like [`changed`](Self::changed), but waits until `deadline`.
    ///
    /// # Errors
    /// Also when the time is over.
    #[track_caller]
    pub fn changed_deadline(&mut self, deadline: Instant) -> Result<(), RecvTimeoutError> {
        self.changed_until(Until::At(deadline))
    }

    #[track_caller]
    fn changed_until(&mut self, until: Until) -> Result<(), RecvTimeoutError> {
        let mut op = Changed { seen: &mut self.seen };
        let changed = self.core.block(&mut op, until, Why::new(&CHANGE, 0));
        changed
            .ok_or(RecvTimeoutError::Timeout)?
            .map_err(RecvTimeoutError::from)
    }

    /// Like [`changed`](Self::changed), for an `async` function, and for `select!`, as
    /// `future(receiver.changed_async())`.
    ///
    /// # Errors
    /// As there.
    pub fn changed_async(&mut self) -> impl Future<Output = Result<(), RecvError>> + use<'_, T> {
        self.core.future(Changed { seen: &mut self.seen })
    }

    /// Waits for a value that `f` accepts: the current one, or a later one. Values that come and go meanwhile may be
    /// missed.
    ///
    /// ```
    /// use greenthread::{spawn, sync::watch};
    /// let (sender, mut receiver) = watch::channel(0);
    /// let big = spawn(move || *receiver.wait_for(|value| *value > 9).unwrap());
    /// sender.send(5).unwrap();
    /// greenthread::yield_now();
    /// sender.send(10).unwrap();
    /// assert_eq!(big.join().unwrap(), 10);
    /// ```
    ///
    /// # Errors
    /// If all senders are gone first.
    ///
    /// # Blocking and cancellation
    /// As [`changed`](Self::changed).
    #[track_caller]
    pub fn wait_for(&mut self, mut f: impl FnMut(&T) -> bool) -> Result<Arc<T>, RecvError> {
        loop {
            let value = self.get();
            if f(&value) {
                return Ok(value);
            }
            self.changed()?;
        }
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Receiver<T> {
        self.core.change(|state| state.receivers += 1);
        Receiver {
            core: self.core.clone(),
            seen: self.seen,
        }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.core.change(|state| state.receivers -= 1);
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("watch::Receiver")
            .field("has_changed", &self.has_changed())
            .finish_non_exhaustive()
    }
}
