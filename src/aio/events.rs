//! asyncio's event loop, as a view of the hub; and what its exception handler is told.
//!
//! A loop is *bound* to the hub of the OS thread that first runs or sets it. Until then, what other OS threads ask of
//! the loop is kept in its state.
//!
//! The handler is told of failures that no caller gets: errors that were never looked at, and callbacks that panicked.
//! In debug mode it is also told of what keeps the hub busy for too long. Callbacks and polls are timed where they are
//! called; green code, from each resume to its park, by an observer of the hub.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::exceptions::TaskError;
use super::futures::AnyTask;
use crate::hub::{self, Event as HubEvent, Hub, Why, complain, named};
use crate::io::{wait_readable, wait_writable};
use crate::signal;
use crate::sync::{Event, Until};
use crate::sys::fork::{Global, Order};
use crate::sys::inside::{Mutex, MutexGuard};
use crate::sys::poison::IgnorePoison;
use crate::thread::{self, Thread};
use crate::time;

type ExceptionHandler = dyn Fn(&ExceptionContext) + Send + Sync;

/// What is asked of a loop's hub.
type Request = Box<dyn FnOnce(&hub::Handle) + Send>;

#[derive(Default)]
struct LoopState {
    hub: Option<hub::Handle>,
    /// What was asked for before there was a hub.
    requests: Vec<Request>,
    handler: Option<Arc<ExceptionHandler>>,
    slow: Option<Duration>,
}

struct LoopInner {
    state: Mutex<LoopState>,
    running: AtomicBool,
    stopping: AtomicBool,
    closed: AtomicBool,
    debug: AtomicBool,
    /// In debug mode: a task's future was polled in the current turn of a green thread. The poll was timed by itself,
    /// so the turn is not reported once more.
    polled: AtomicBool,
    /// Set by `stop`, and when the task that `run_until_complete` waits for has ended.
    woken: Event,
}

static MAIN: &str = "the end of its task (run_until_complete)";
/// The bound loops, each with its hub.
static BOUND: Global<Vec<(hub::Handle, EventLoop)>> = Global::new(Order::Loops, Vec::new());
/// The number of loops in debug mode.
static DEBUGGED: AtomicUsize = AtomicUsize::new(0);

fn bound() -> MutexGuard<'static, Vec<(hub::Handle, EventLoop)>> {
    BOUND.lock()
}

/// The hub of an OS thread, as asyncio's event loop. A clone is the same loop.
///
/// ```
/// use std::time::Duration;
/// use greenthread::aio::EventLoop;
///
/// let event_loop = EventLoop::new();
/// assert!(!event_loop.is_running());
/// event_loop.call_soon(|| println!("Hello world!"));
/// let stopper = event_loop.clone();
/// event_loop.call_later(Duration::from_millis(1), move || stopper.stop());
/// event_loop.run_forever();
///
/// assert_eq!(event_loop.run_until_complete(async { 42 }).unwrap(), 42);
/// event_loop.close();
/// ```
///
/// There is one hub on each OS thread, so a loop does not make one but is bound to one: that of the OS thread that
/// first calls any method but [`stop`](Self::stop) and [`call_soon_threadsafe`](Self::call_soon_threadsafe). After that
/// all methods may be called from any OS thread, which is why the callbacks are `Send`. `stop` wakes a loop that
/// sleeps; asyncio's does not.
///
/// Ctrl-C ends a program in an empty [`run_forever`](Self::run_forever) as any other: the shell sees 130. To do
/// something first, [`add_signal_handler`](Self::add_signal_handler).
///
/// # Coming from Python
/// `asyncio.AbstractEventLoop`. What makes connections is in [`aio`](super) itself.
#[derive(Clone)]
pub struct EventLoop(Arc<LoopInner>);

/// A new loop, not bound yet.
///
/// ```
/// use greenthread::aio;
///
/// let event_loop = aio::new_event_loop();
/// aio::set_event_loop(&event_loop);
/// assert_eq!(aio::get_event_loop(), event_loop);
/// event_loop.close();
/// ```
///
/// # Coming from Python
/// `asyncio.new_event_loop`.
pub fn new_event_loop() -> EventLoop {
    EventLoop::new()
}

/// Makes `event_loop` that of this OS thread.
///
/// # Panics
/// If it is closed, or is another OS thread's.
///
/// # Coming from Python
/// `asyncio.set_event_loop`.
#[track_caller]
pub fn set_event_loop(event_loop: &EventLoop) {
    event_loop.bind();
}

/// The loop of this OS thread; a new one if there is none. See [`new_event_loop`].
///
/// # Coming from Python
/// `asyncio.get_event_loop`.
#[track_caller]
pub fn get_event_loop() -> EventLoop {
    let here = hub::handle();
    EventLoop::at(&here).unwrap_or_else(|| {
        let new = EventLoop::new();
        new.bind();
        new
    })
}

/// The loop that runs here: in a task, or in a callback.
///
/// ```
/// use greenthread::aio;
///
/// assert!(aio::get_running_loop().is_err()); // in `main`
/// assert!(aio::run(async { aio::get_running_loop().is_ok() }).unwrap());
/// ```
///
/// # Errors
/// [`TaskError::NoRunningLoop`].
///
/// # Coming from Python
/// `asyncio.get_running_loop`.
pub fn get_running_loop() -> Result<EventLoop, TaskError> {
    if hub::is_running() {
        Ok(get_event_loop())
    } else {
        Err(TaskError::NoRunningLoop)
    }
}

/// The loop runs, until this is dropped.
pub(super) struct Running<'a>(&'a EventLoop);

impl Running<'_> {
    /// Runs the loop until `is_done`, which is asked again at each [`EventLoop::wake`].
    ///
    /// # Errors
    /// [`TaskError::Stopped`] if [`EventLoop::stop`] came first.
    #[track_caller]
    pub(super) fn until(&self, is_done: impl Fn() -> bool) -> Result<(), TaskError> {
        let inner = &self.0.0;
        loop {
            // Clear before the checks: an end or a stop that comes after them sets the event again, so its wake is not
            // lost.
            inner.woken.clear();
            if is_done() {
                return Ok(());
            }
            if inner.stopping.swap(false, Ordering::AcqRel) {
                return Err(TaskError::Stopped);
            }
            inner.woken.wait_for(Until::Ever, Why::new(&MAIN, 0));
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.0.running.store(false, Ordering::Release);
    }
}

impl EventLoop {
    /// One that is not bound yet.
    pub fn new() -> EventLoop {
        EventLoop(Arc::new(LoopInner {
            state: Mutex::default(),
            running: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            debug: AtomicBool::new(false),
            polled: AtomicBool::new(false),
            woken: Event::new(),
        }))
    }

    fn state(&self) -> MutexGuard<'_, LoopState> {
        self.0.state.lock().ignore_poison()
    }

    /// The loop that is bound to `hub`.
    fn at(hub: &hub::Handle) -> Option<EventLoop> {
        bound()
            .iter()
            .find(|(at, _)| at == hub)
            .map(|(_, event_loop)| event_loop.clone())
    }

    /// The loop's hub. An unbound loop is bound to the hub of this OS thread.
    #[track_caller]
    pub(super) fn bind(&self) -> hub::Handle {
        self.check_open();
        let mut state = self.state();
        if let Some(hub) = &state.hub {
            return hub.clone();
        }
        let hub = hub::handle();
        state.hub = Some(hub.clone());
        let requests = std::mem::take(&mut state.requests);
        drop(state);
        let mut all = bound();
        let gone: Vec<_> = all.extract_if(.., |(at, _)| !at.is_alive() || *at == hub).collect();
        all.push((hub.clone(), self.clone()));
        drop(all);
        // The requests and the handler in `gone` are the user's: drop them without the lock.
        drop(gone);
        requests.into_iter().for_each(|request| request(&hub));
        hub
    }

    /// Whether it is bound to the hub of this OS thread.
    pub(super) fn is_here(&self) -> bool {
        let hub = self.state().hub.clone();
        hub.is_some_and(|hub| hub == hub::handle())
    }

    #[track_caller]
    fn check_open(&self) {
        assert!(!self.is_closed(), "the event loop is closed");
    }

    /// Calls `f` in the next turn, in order with other calls.
    ///
    /// `f` runs on the hub's own stack, so it may not block. A panic of it goes to the exception handler.
    ///
    /// # Coming from Python
    /// `loop.call_soon`.
    #[track_caller]
    pub fn call_soon<F: FnOnce() + Send + 'static>(&self, f: F) -> Handle {
        let (handle, f) = self.wrap(None, f);
        // Fails only if the hub has ended: then `f` is not called.
        let _ = self.bind().call_soon(f);
        handle
    }

    /// As [`call_soon`](Self::call_soon), but never binds the loop: the calls of a loop that is not bound yet are kept
    /// until it is.
    ///
    /// ```
    /// use greenthread::aio::EventLoop;
    ///
    /// let event_loop = EventLoop::new();
    /// let theirs = event_loop.clone();
    /// let other = std::thread::spawn(move || {
    ///     let stopper = theirs.clone();
    ///     theirs.call_soon_threadsafe(move || stopper.stop())
    /// });
    /// event_loop.run_forever(); // until the other OS thread has it stopped
    /// assert!(!other.join().unwrap().cancelled());
    /// ```
    ///
    /// # Coming from Python
    /// `loop.call_soon_threadsafe`.
    #[track_caller]
    pub fn call_soon_threadsafe<F: FnOnce() + Send + 'static>(&self, f: F) -> Handle {
        self.check_open();
        let (handle, f) = self.wrap(None, f);
        self.request(f);
        handle
    }

    /// Calls `f` on the loop's hub, as soon as the loop is bound to one.
    fn request<F: FnOnce() + Send + 'static>(&self, f: F) {
        let mut state = self.state();
        let hub = state.hub.clone();
        match hub {
            Some(hub) => {
                drop(state);
                drop(hub.call_soon(f));
            }
            None => state.requests.push(Box::new(move |hub| drop(hub.call_soon(f)))),
        }
    }

    /// Calls `f` after `delay`. Of equal times the first asked for comes first.
    ///
    /// ```
    /// use std::time::Duration;
    /// use greenthread::aio::EventLoop;
    ///
    /// let event_loop = EventLoop::new();
    /// let never = event_loop.call_later(Duration::from_millis(1), || unreachable!());
    /// never.cancel();
    /// let stopper = event_loop.clone();
    /// let soon = event_loop.time() + Duration::from_millis(2);
    /// assert_eq!(event_loop.call_at(soon, move || stopper.stop()).when(), Some(soon));
    /// event_loop.run_forever();
    /// ```
    ///
    /// # Coming from Python
    /// `loop.call_later`.
    #[track_caller]
    pub fn call_later<F: FnOnce() + Send + 'static>(&self, delay: Duration, f: F) -> Handle {
        let hub = self.bind();
        let (handle, f) = self.wrap(time::after(delay), f);
        let _ = hub.call_later(delay, f);
        handle
    }

    /// Calls `f` at `when`, by the clock of [`time`](Self::time).
    #[track_caller]
    pub fn call_at<F: FnOnce() + Send + 'static>(&self, when: Instant, f: F) -> Handle {
        let hub = self.bind();
        let (handle, f) = self.wrap(Some(when), f);
        let _ = hub.call_at(when, f);
        handle
    }

    #[track_caller]
    fn wrap<F: FnOnce() + Send + 'static>(
        &self,
        when: Option<Instant>,
        f: F,
    ) -> (Handle, impl FnOnce() + Send + 'static) {
        let handle = Handle {
            cancelled: Arc::default(),
            when,
            place: Location::caller(),
        };
        let (event_loop, own) = (self.clone(), handle.clone());
        let call = move || {
            if !own.cancelled() {
                call_guarded(&event_loop, &own, f);
            }
        };
        (handle, call)
    }

    /// The loop's clock.
    #[track_caller]
    pub fn time(&self) -> Instant {
        time::now()
    }

    /// Runs until [`stop`](Self::stop), whether or not there is anything to do.
    ///
    /// # Panics
    /// If the loop runs, is closed, or is another OS thread's.
    #[track_caller]
    pub fn run_forever(&self) {
        let _running = self.begin();
        if self.0.stopping.load(Ordering::Acquire) {
            // A loop that was stopped before it began makes one turn.
            thread::yield_now();
        }
        // `hub::run_forever` also returns when another loop of this hub was stopped, or when an earlier stop arrives
        // late: look at the flag.
        while !self.0.stopping.swap(false, Ordering::AcqRel) {
            hub::run_forever();
        }
    }

    /// Marks the loop as running.
    ///
    /// # Panics
    /// If the loop runs, is closed, or is another OS thread's.
    #[track_caller]
    pub(super) fn begin(&self) -> Running<'_> {
        assert!(self.bind() == hub::handle(), "the event loop is another OS thread's");
        let before = self.0.running.swap(true, Ordering::AcqRel);
        assert!(!before, "the event loop is running already");
        Running(self)
    }

    /// Has [`Running::until`] ask again whether it is done.
    pub(super) fn wake(&self) {
        self.0.woken.set();
    }

    /// Ends [`run_forever`](Self::run_forever) or [`run_until_complete`](Self::run_until_complete) after the present
    /// turn, from any OS thread. If neither runs, the next one ends at once.
    pub fn stop(&self) {
        self.0.stopping.store(true, Ordering::Release);
        self.0.woken.set();
        let hub = self.state().hub.clone();
        // A hub that has ended runs nothing: there is nothing to stop.
        drop(hub.map(|hub| hub.stop()));
    }

    /// Whether it runs.
    pub fn is_running(&self) -> bool {
        self.0.running.load(Ordering::Acquire)
    }

    /// Whether it is closed.
    pub fn is_closed(&self) -> bool {
        self.0.closed.load(Ordering::Acquire)
    }

    /// Closes it: nothing can be asked of it any more. Its hub goes on, for the next loop.
    ///
    /// # Panics
    /// If it runs.
    #[track_caller]
    pub fn close(&self) {
        assert!(!self.is_running(), "the event loop runs: stop it before it is closed");
        self.set_debug(false);
        self.0.closed.store(true, Ordering::Release);
        let gone: Vec<_> = bound()
            .extract_if(.., |(_, event_loop)| Arc::ptr_eq(&event_loop.0, &self.0))
            .collect();
        drop(gone);
    }

    /// Calls `f` whenever `fd` is readable, until the watch is cancelled; it calls again as long as the input is not
    /// read.
    ///
    /// `f` runs in a green thread of its own, so it may block.
    ///
    /// ```
    /// use std::io::{Read, Write};
    /// use greenthread::{aio::EventLoop, net::UnixStream};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let event_loop = EventLoop::new();
    /// let (ours, mut theirs) = UnixStream::pair()?;
    /// let (mut reader, stopper) = (ours.try_clone()?, event_loop.clone());
    /// let watch = event_loop.add_reader(&ours, move || {
    ///     let mut word = [0; 5];
    ///     reader.read_exact(&mut word).unwrap();
    ///     assert_eq!(&word, b"hello");
    ///     stopper.stop();
    /// })?;
    /// theirs.write_all(b"hello")?;
    /// event_loop.run_forever();
    /// watch.cancel();
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The descriptor cannot be duplicated.
    #[track_caller]
    pub fn add_reader<F: FnMut() + Send + 'static>(&self, fd: impl AsFd, mut f: F) -> io::Result<Watch> {
        let fd = fd.as_fd().try_clone_to_owned()?;
        Ok(Watch::start(move || {
            while wait_readable(&fd, None).is_ok() {
                f();
                thread::yield_now();
            }
        }))
    }

    /// Calls `f` whenever `fd` is writable, until the watch is cancelled. See [`add_reader`](Self::add_reader).
    ///
    /// # Errors
    /// The descriptor cannot be duplicated.
    #[track_caller]
    pub fn add_writer<F: FnMut() + Send + 'static>(&self, fd: impl AsFd, mut f: F) -> io::Result<Watch> {
        let fd = fd.as_fd().try_clone_to_owned()?;
        Ok(Watch::start(move || {
            while wait_writable(&fd, None).is_ok() {
                f();
                thread::yield_now();
            }
        }))
    }

    /// Calls `f` at each `number` signal, until the handler is dropped: [`signal::on`].
    ///
    /// ```
    /// use greenthread::{aio::EventLoop, signal::SIGTERM};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let event_loop = EventLoop::new();
    /// let stopper = event_loop.clone();
    /// let _handler = event_loop.add_signal_handler(SIGTERM, move || stopper.stop())?;
    /// event_loop.call_soon(|| signal_hook::low_level::raise(SIGTERM).unwrap()); // as another process may
    /// event_loop.run_forever();
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`signal::on`].
    pub fn add_signal_handler<F: Fn() + Send + Sync + 'static>(
        &self,
        number: i32,
        f: F,
    ) -> io::Result<signal::Handler> {
        signal::on(number, f)
    }

    /// Sets the handler for errors that are never looked at and callbacks that panic; `None` is a line on stderr.
    ///
    /// ```
    /// use std::sync::{Arc, Mutex};
    /// use greenthread::aio::{self, EventLoop};
    ///
    /// let heard = Arc::new(Mutex::new(String::new()));
    /// let event_loop = EventLoop::new();
    /// let note = heard.clone();
    /// event_loop.set_exception_handler(Some(move |context: &aio::ExceptionContext| {
    ///     *note.lock().unwrap() = context.to_string();
    /// }));
    /// let lost = async {
    ///     drop(aio::create_task(aio::fallible(async { Err::<(), _>("no milk") })));
    ///     aio::sleep(std::time::Duration::from_millis(1)).await;
    /// };
    /// event_loop.run_until_complete(lost).unwrap();
    /// assert!(heard.lock().unwrap().starts_with("task exception was never retrieved: no milk"));
    /// ```
    pub fn set_exception_handler<F>(&self, handler: Option<F>)
    where
        F: Fn(&ExceptionContext) + Send + Sync + 'static,
    {
        let new = handler.map(|handler| Arc::new(handler) as Arc<ExceptionHandler>);
        let old = std::mem::replace(&mut self.state().handler, new);
        drop(old);
    }

    fn exception_handler(&self) -> Option<Arc<ExceptionHandler>> {
        self.state().handler.clone()
    }

    /// Tells the exception handler, or stderr if none was set.
    ///
    /// # Coming from Python
    /// `loop.call_exception_handler`; without a handler, `loop.default_exception_handler`.
    pub fn call_exception_handler(&self, context: &ExceptionContext) {
        tell_handler(Some(self), context);
    }

    /// Turns debug mode on or off: the exception handler is told of what takes too long.
    ///
    /// Timed are callbacks, each poll of a task that is a future, and green threads from each resume to the next park:
    /// each of these keeps all other tasks waiting. The handler may not block then.
    ///
    /// ```
    /// use std::sync::{Arc, Mutex};
    /// use std::time::Duration;
    /// use greenthread::aio::{self, EventLoop};
    ///
    /// let heard = Arc::new(Mutex::new(String::new()));
    /// let event_loop = EventLoop::new();
    /// let note = heard.clone();
    /// event_loop.set_exception_handler(Some(move |context: &aio::ExceptionContext| {
    ///     *note.lock().unwrap() = context.to_string();
    /// }));
    /// event_loop.set_debug(true);
    /// event_loop.set_slow_callback_duration(Duration::from_millis(10));
    /// let hog = aio::green(|| std::thread::sleep(Duration::from_millis(20))); // blocks its OS thread
    /// event_loop.run_until_complete(hog).unwrap();
    /// event_loop.close();
    /// assert!(heard.lock().unwrap().contains("seconds"));
    /// ```
    ///
    /// # Coming from Python
    /// `loop.set_debug`, `PYTHONASYNCIODEBUG`.
    pub fn set_debug(&self, on: bool) {
        if self.0.debug.swap(on, Ordering::AcqRel) == on {
            return;
        }
        if on {
            DEBUGGED.fetch_add(1, Ordering::AcqRel);
        } else {
            DEBUGGED.fetch_sub(1, Ordering::AcqRel);
        }
        if self.is_here() {
            return self.observe();
        }
        let event_loop = self.clone();
        self.request(move || event_loop.observe());
    }

    /// Starts or stops the timing of green threads' turns. Runs on the loop's own hub.
    fn observe(&self) {
        hub::set_watch(self.debug().then(|| turn_observer(self.clone())));
    }

    fn note_poll(&self) {
        self.0.polled.store(true, Ordering::Relaxed);
    }

    fn take_poll(&self) -> bool {
        self.0.polled.swap(false, Ordering::Relaxed)
    }

    /// Whether it is in debug mode.
    pub fn debug(&self) -> bool {
        self.0.debug.load(Ordering::Acquire)
    }

    pub(super) fn any_debug() -> bool {
        DEBUGGED.load(Ordering::Acquire) > 0
    }

    /// What takes too long in debug mode: 0.1 seconds, unless it was set.
    pub fn slow_callback_duration(&self) -> Duration {
        self.state().slow.unwrap_or(Duration::from_millis(100))
    }

    /// Sets what takes too long.
    pub fn set_slow_callback_duration(&self, duration: Duration) {
        self.state().slow = Some(duration);
    }
}

impl Default for EventLoop {
    fn default() -> EventLoop {
        EventLoop::new()
    }
}

impl PartialEq for EventLoop {
    fn eq(&self, other: &EventLoop) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for EventLoop {}

impl fmt::Debug for EventLoop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventLoop")
            .field("running", &self.is_running())
            .field("closed", &self.is_closed())
            .field("debug", &self.debug())
            .finish()
    }
}

/// A callback that a loop will call.
///
/// # Coming from Python
/// `asyncio.Handle`, `asyncio.TimerHandle`.
#[derive(Clone)]
pub struct Handle {
    cancelled: Arc<AtomicBool>,
    when: Option<Instant>,
    place: &'static Location<'static>,
}

impl Handle {
    /// Does not call after all, unless it has.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
    }

    /// Whether it was cancelled.
    pub fn cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }

    /// When it is called, if that is not soon.
    pub fn when(&self) -> Option<Instant> {
        self.when
    }
}

impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cancelled = if self.cancelled() { " cancelled" } else { "" };
        write!(f, "<Handle{cancelled} created at {}>", self.place)
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A descriptor that is watched; dropping this leaves it so.
///
/// # Coming from Python
/// `cancel` is `loop.remove_reader` and `loop.remove_writer`.
#[derive(Debug)]
pub struct Watch(Thread);

impl Watch {
    #[track_caller]
    fn start(watch: impl FnOnce() + Send + 'static) -> Watch {
        Watch(thread::spawn(watch).thread())
    }

    /// Does not watch any more.
    pub fn cancel(&self) {
        self.0.kill();
    }
}

/// What an exception handler is told.
///
/// # Coming from Python
/// The `context` of `loop.call_exception_handler`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ExceptionContext {
    /// What has happened.
    pub message: String,
    /// The error.
    pub exception: Option<TaskError>,
    /// The task that failed.
    pub task: Option<AnyTask>,
}

impl fmt::Display for ExceptionContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if let Some(exception) = &self.exception {
            write!(f, ": {exception}")?;
        }
        match &self.task {
            Some(task) => write!(f, " ({task:?})"),
            None => Ok(()),
        }
    }
}

/// The last handle of a task has gone, and its error was never looked at.
pub(super) fn never_retrieved(task: AnyTask, error: TaskError) {
    let at = EventLoop::at(&task.0.hub);
    tell_handler(
        at.as_ref(),
        &ExceptionContext {
            message: "task exception was never retrieved".into(),
            exception: Some(error),
            task: Some(task),
        },
    );
}

/// The callback that a server called for a connection has failed.
pub(super) fn callback_failed(failure: &str) {
    let context = ExceptionContext {
        message: "unhandled exception in a connection's callback".into(),
        exception: Some(TaskError::raised(failure)),
        task: None,
    };
    tell_handler(EventLoop::at(&hub::handle()).as_ref(), &context);
}

/// Tells the loop's handler; without one, stderr.
fn tell_handler(event_loop: Option<&EventLoop>, context: &ExceptionContext) {
    let Some(handler) = event_loop.and_then(EventLoop::exception_handler) else {
        return complain(format_args!("{context}"));
    };
    if catch_unwind(AssertUnwindSafe(|| handler(context))).is_err() {
        complain(format_args!("the exception handler itself panicked, about: {context}"));
    }
}

/// Runs a callback: a panic goes to the handler.
fn call_guarded(event_loop: &EventLoop, callback: &dyn fmt::Display, f: impl FnOnce()) {
    let result = timed(Some(event_loop), callback, || catch_unwind(AssertUnwindSafe(f)));
    if let Err(payload) = result {
        tell_handler(
            Some(event_loop),
            &ExceptionContext {
                message: format!("exception in callback {callback}"),
                exception: Some(TaskError::panicked(&*payload)),
                task: None,
            },
        );
    }
}

/// Runs a step of a task's future.
pub(super) fn timed_poll<R>(task: &AnyTask, step: impl FnOnce() -> R) -> R {
    if !EventLoop::any_debug() {
        return step();
    }
    let at = EventLoop::at(&task.0.hub);
    at.iter().for_each(EventLoop::note_poll);
    timed(at.as_ref(), &format_args!("{task:?}"), step)
}

/// Runs `f`, and tells the exception handler if that was slow.
fn timed<R>(event_loop: Option<&EventLoop>, name: &dyn fmt::Display, f: impl FnOnce() -> R) -> R {
    let Some(event_loop) = event_loop.filter(|event_loop| event_loop.debug()) else {
        return f();
    };
    // By the system's clock: a hub's virtual one stands still while anything runs.
    let start = Instant::now();
    let result = f();
    report_if_slow(event_loop, start.elapsed(), || Some(name.to_string()));
    result
}

fn report_if_slow(event_loop: &EventLoop, took: Duration, name: impl FnOnce() -> Option<String>) {
    if took >= event_loop.slow_callback_duration()
        && let Some(name) = name()
    {
        let message = format!("executing {name} took {:.3} seconds", took.as_secs_f64());
        tell_handler(
            Some(event_loop),
            &ExceptionContext {
                message,
                exception: None,
                task: None,
            },
        );
    }
}

/// Times the turns of green threads. It must be installed on the hub of `event_loop`.
fn turn_observer(event_loop: EventLoop) -> hub::Watch {
    let running = Cell::new(None);
    Rc::new(move |event| {
        let now = Instant::now();
        if matches!(event, HubEvent::Spawn(_) | HubEvent::Wake(_)) {
            return;
        }
        // Any event but a spawn and a wake ends the turn that was timed: a park, an exit, or, after a yield, the next
        // turn.
        if let Some((id, start)) = running.take() {
            let was_poll = event_loop.take_poll();
            let name = || Hub::try_current().and_then(|hub| named(hub, id));
            report_if_slow(&event_loop, now - start, || name().filter(|_| !was_poll));
        }
        if let HubEvent::Resume(id) = event {
            event_loop.take_poll();
            running.set(Some((id, now)));
        }
    })
}
