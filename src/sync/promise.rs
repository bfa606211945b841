//! A value that is set later.
#![forbid(unsafe_code)]

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::event::Event;
use super::wait::Until;
use crate::hub::{Hub, Reporter, Why, call_user, report_panic};
use crate::sys::inside::{Mutex, MutexGuard};
use crate::sys::poison::IgnorePoison;

static PROMISE: &str = "a Promise";

/// Arranges for a user's function to be called with the value.
type Callback<T> = Box<dyn FnOnce(&Promise<T>) + Send>;

struct Shared<T> {
    value: OnceLock<T>,
    is_set: Event,
    /// `None` once the value was set.
    callbacks: Mutex<Option<Vec<Callback<T>>>>,
}

/// A value that is set once, later; any number of tasks may wait for it. A clone is the same promise.
///
/// ```
/// use greenthread::{spawn, sync::Promise};
///
/// let promise = Promise::new();
/// let theirs = promise.clone();
/// spawn(move || theirs.set(42).unwrap());
/// assert_eq!(*promise.wait(), 42);
/// assert_eq!(promise.set(43), Err(43)); // once only
/// ```
///
/// A result that may be an error is a `Promise<Result<T, E>>`. If nothing is left that could set it, a wait in `main`
/// gets [`LoopExit`](crate::hub::LoopExit), as any wait does that cannot end.
///
/// # Coming from Python
/// `gevent.event.AsyncResult`, `asyncio.Future`. Setting it twice is an error, as in asyncio.
#[doc(alias = "oneshot")]
pub struct Promise<T>(Arc<Shared<T>>);

impl<T> Promise<T> {
    /// A promise that is not set.
    pub fn new() -> Promise<T> {
        Promise(Arc::new(Shared {
            value: OnceLock::new(),
            is_set: Event::new(),
            callbacks: Mutex::new(Some(Vec::new())),
        }))
    }

    /// Sets the value: all waiters continue.
    ///
    /// # Errors
    /// The value, if the promise was set before.
    pub fn set(&self, value: T) -> Result<(), T> {
        // The value first: a task that the event wakes, or that finds the callbacks taken, must find it.
        self.0.value.set(value)?;
        self.0.is_set.set();
        // From here on `on_set` calls its function itself: none is missed, and none called twice.
        let callbacks = self.callbacks().take();
        for callback in callbacks.into_iter().flatten() {
            // A callback for a hub that has ended drops the user's function here, and that may panic. The other
            // callbacks must run all the same.
            if let Err(payload) = call_user(|| callback(self)) {
                report_panic(&Reporter::callback(), payload);
            }
        }
        Ok(())
    }

    fn callbacks(&self) -> MutexGuard<'_, Option<Vec<Callback<T>>>> {
        self.0.callbacks.lock().ignore_poison()
    }

    /// The value, if it is set.
    pub fn get(&self) -> Option<&T> {
        self.0.value.get()
    }

    /// Whether it is set.
    pub fn is_set(&self) -> bool {
        self.get().is_some()
    }

    /// Takes the value, if it is set and this is the only handle of the promise.
    ///
    /// # Errors
    /// The promise, unchanged.
    pub fn into_inner(self) -> Result<T, Promise<T>> {
        if !self.is_set() {
            return Err(self);
        }
        let mut shared = Arc::try_unwrap(self.0).map_err(Promise)?;
        shared.value.take().ok_or_else(|| Promise(Arc::new(shared)))
    }

    /// Waits until it is set.
    ///
    /// # Blocking and cancellation
    /// Parks unless it is set. A kill or time-out unwinds here.
    #[track_caller]
    pub fn wait(&self) -> &T {
        loop {
            self.0.is_set.wait_for(Until::Ever, Why::new(&PROMISE, 0));
            if let Some(value) = self.get() {
                return value;
            }
        }
    }

    /// Waits until it is set for at most `timeout`.
    #[track_caller]
    pub fn wait_timeout(&self, timeout: Duration) -> Option<&T> {
        self.0.is_set.wait_for(Until::After(timeout), Why::new(&PROMISE, 0));
        self.get()
    }

    /// Waits until it is set, or until `deadline`.
    #[track_caller]
    pub fn wait_deadline(&self, deadline: Instant) -> Option<&T> {
        self.0.is_set.wait_for(Until::At(deadline), Why::new(&PROMISE, 0));
        self.get()
    }

    /// Like [`wait`](Self::wait), for an `async` function.
    pub async fn wait_async(&self) -> &T {
        loop {
            self.0.is_set.wait_async().await;
            if let Some(value) = self.get() {
                return value;
            }
        }
    }

    /// Calls `f` with the value once it is set, or soon if it is set already.
    ///
    /// The call is made on the caller's hub, in its next turn. Several functions are called in the order in which they
    /// were added.
    ///
    /// ```
    /// use greenthread::{hub, sync::Promise};
    ///
    /// let promise = Promise::new();
    /// promise.on_set(|n| println!("{n}"));
    /// promise.set(42).unwrap();
    /// hub::idle(); // 42
    /// ```
    ///
    /// `f` may not block (that panics, and the panic is reported): spawn a green thread for that. If the caller's hub
    /// has ended by then, `f` is not called.
    ///
    /// # Coming from Python
    /// `Future.add_done_callback`, `AsyncResult.rawlink`.
    #[track_caller]
    pub fn on_set<F>(&self, f: F)
    where
        F: FnOnce(&T) + Send + 'static,
        T: Send + Sync + 'static,
    {
        if Hub::has_ended() {
            return;
        }
        let hub = crate::hub::handle();
        let callback = move |promise: &Promise<T>| {
            let promise = promise.clone();
            let call = move || {
                if let Some(value) = promise.get() {
                    f(value);
                }
            };
            // Fails if that hub has ended: then `f` is not called.
            let _ = hub.call_soon(call);
        };
        let mut callbacks = self.callbacks();
        match &mut *callbacks {
            Some(callbacks) => callbacks.push(Box::new(callback)),
            None => {
                // The value was set already. Unlock before `callback`, which may run the user's code.
                drop(callbacks);
                callback(self);
            }
        }
    }
}

impl<T> Clone for Promise<T> {
    fn clone(&self) -> Promise<T> {
        Promise(self.0.clone())
    }
}

impl<T> Default for Promise<T> {
    fn default() -> Promise<T> {
        Promise::new()
    }
}

impl<T: fmt::Debug> fmt::Debug for Promise<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.get() {
            Some(value) => f.debug_tuple("Promise").field(value).finish(),
            None => f.write_str("Promise(<not set>)"),
        }
    }
}
