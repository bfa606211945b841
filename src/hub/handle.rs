//! A hub as other OS threads see it: the public [`Handle`].
#![forbid(unsafe_code)]

use std::io;
use std::panic::Location;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::scheduler::{Hub, HubRef};
use super::shared::Message;
use super::task::join::Join;
use super::task::remote::{RemoteSpawn, reserve};

/// A handle to this OS thread's hub, for other OS threads.
///
/// ```
/// use std::time::Duration;
/// use greenthread::{hub, thread};
///
/// let handle = hub::handle();
/// let main = thread::current();
/// std::thread::spawn(move || {
///     let never = handle.call_later(Duration::from_secs(60), || unreachable!()).unwrap();
///     never.cancel();
///     // On the hub of main, a millisecond from now.
///     handle.call_later(Duration::from_millis(1), move || main.unpark()).unwrap();
/// });
/// thread::park();
/// assert!(hub::handle().is_alive());
/// ```
///
/// # Panics
/// In a destructor of a thread-local that runs after the hub's end.
#[track_caller]
pub fn handle() -> Handle {
    Handle::of(Hub::current())
}

/// A hub as other OS threads see it: spawns, calls, stops.
///
/// ```
/// use greenthread::hub;
///
/// let handle = hub::handle();
/// let worker = std::thread::spawn(move || {
///     // A green thread on the hub of the OS thread that made the handle.
///     handle.spawn(|| 6 * 7).unwrap().join().unwrap()
/// });
/// // Main must run its hub for that: here, until the worker has its answer.
/// assert_eq!(greenthread::threadpool::unblock(move || worker.join().unwrap()), 42);
/// ```
///
/// # Errors
/// After the hub's OS thread has ended every method gives an error of kind `NotConnected`.
///
/// # Coming from Python
/// `loop.call_soon_threadsafe` and gevent's `loop.run_callback_threadsafe`.
#[derive(Clone)]
pub struct Handle(HubRef);

fn gone() -> io::Error {
    io::Error::new(
        io::ErrorKind::NotConnected,
        "the hub has ended, because its OS thread has ended",
    )
}

impl Handle {
    pub(super) fn of(hub: &Hub) -> Handle {
        Handle(hub.reference())
    }

    fn send(&self, message: Message) -> io::Result<()> {
        self.0.send(message).map_err(|_| gone())
    }

    /// Has `f` called by one of the hub's turns, which is not a callback; drops it if the hub has ended.
    pub(super) fn on_hub(&self, f: impl FnOnce(&'static Hub) + Send + 'static) {
        let _ = self.send(self.0.call(f));
    }

    /// Whether the hub can still be reached: its OS thread has not ended, and it is not that of a forked child's
    /// parent.
    pub fn is_alive(&self) -> bool {
        self.0.is_alive()
    }

    /// Reserves a green thread on that hub, and sends its body.
    pub(crate) fn start<F, T>(
        &self,
        f: F,
        stack_size: Option<usize>,
        place: &'static Location<'static>,
    ) -> io::Result<Join<T>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        if !self.is_alive() {
            return Err(gone());
        }
        stack_size.map_or(Ok(()), crate::stack::check_size)?;
        // Before the block is taken: the clones are code of the user, which may panic.
        let locals = Hub::try_current().and_then(Hub::inherited);
        // The block and its join exist before the hub has seen the message, so that the caller need not wait for the
        // hub.
        let join = reserve::<T>(self.0.shared, place);
        let reserved = RemoteSpawn::new(join.task(), f, stack_size, locals);
        // A message that cannot be sent is dropped, and the drop of `reserved` marks the green thread as lost.
        self.send(self.0.call(move |hub| reserved.adopt(hub)))?;
        Ok(join)
    }

    /// Reserves a stackless task on that hub, and sends its future.
    pub(crate) fn start_future<F>(&self, future: F, place: &'static Location<'static>) -> io::Result<Join<F::Output>>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        if !self.is_alive() {
            return Err(gone());
        }
        // As in `start`: what cannot be sent is dropped, and so lost.
        let join = reserve::<F::Output>(self.0.shared, place);
        let reserved = RemoteSpawn::new(join.task(), future, None, None);
        self.send(self.0.call(move |hub| reserved.adopt_future(hub)))?;
        Ok(join)
    }

    /// Calls `f` on the hub's own stack, in its next turn. Calls run in the order in which they were asked for.
    ///
    /// # Blocking and cancellation
    /// `f` may not block: spawn a green thread for that.
    pub fn call_soon<F: FnOnce() + Send + 'static>(&self, f: F) -> io::Result<CallHandle> {
        let (call, f) = CallHandle::wrap(f);
        self.send(Message::Call(Box::new(f))).map(|()| call)
    }

    /// Calls `f` on the hub's own stack after `delay`.
    pub fn call_later<F: FnOnce() + Send + 'static>(&self, delay: Duration, f: F) -> io::Result<CallHandle> {
        let (call, f) = CallHandle::wrap(f);
        // The delay counts from when the hub takes the message, by the hub's own clock.
        let later = move |hub: &'static Hub| hub.call_at(hub.deadline_in(delay), Box::new(f));
        self.send(self.0.call(later)).map(|()| call)
    }

    /// Calls `f` on the hub's own stack at `when`.
    pub fn call_at<F: FnOnce() + Send + 'static>(&self, when: Instant, f: F) -> io::Result<CallHandle> {
        let (call, f) = CallHandle::wrap(f);
        let later = move |hub: &'static Hub| hub.call_at(hub.clock.nanos(when), Box::new(f));
        self.send(self.0.call(later)).map(|()| call)
    }

    /// Lets [`run_forever`](super::run_forever) return on that hub.
    pub fn stop(&self) -> io::Result<()> {
        self.send(Message::Stop)
    }
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle")
            .field("alive", &self.is_alive())
            .finish_non_exhaustive()
    }
}

impl PartialEq for Handle {
    fn eq(&self, other: &Handle) -> bool {
        std::ptr::eq(self.0.shared, other.0.shared) && self.0.generation == other.0.generation
    }
}

impl Eq for Handle {}

/// A call that has been asked for and can be cancelled until it runs.
#[derive(Clone, Debug)]
pub struct CallHandle {
    cancelled: Arc<AtomicBool>,
}

impl CallHandle {
    fn wrap<F: FnOnce() + Send + 'static>(f: F) -> (CallHandle, impl FnOnce() + Send + 'static) {
        let call = CallHandle {
            cancelled: Arc::default(),
        };
        let cancelled = call.cancelled.clone();
        let wrapped = move || {
            if !cancelled.load(Ordering::Acquire) {
                f();
            }
        };
        (call, wrapped)
    }

    /// Cancels the call, unless it has run already.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
    }

    /// Whether the call was cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }
}
