//! The loop under both servers, and the state that it shares with the handles that stop it.
//!
//! ```text
//!   New ──start──► Serving ──close, kill, an error for good──► Closed ──► ended: no handler is left
//!    └──────────────────────close──────────────────────────────┘
//! ```
//!
//! # Invariants
//! - **SERVER-1** A [`HandlerPermit`] holds one of `permits` and one entry in `live`. It is made before the handler is
//!   spawned, and its drop gives both back, wherever the drop happens.
//! - **SERVER-2** After the acceptor has spawned a handler, no kill unwinds the acceptor before it has stored the
//!   handler's handle in the entry. So a caller that finds `acceptor` cleared finds all handlers in `live`.
//! - **SERVER-3** The plan, which owns the listener, is dropped before `acceptor` is cleared. So a caller that finds
//!   `acceptor` cleared finds the port free.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::panic::Location;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustix::io::Errno;

use super::Outcome;
use crate::hub::{self, Hub, Kind, complain, interrupt, task};
use crate::net::{explained, linger};
use crate::sync::{Condvar, Event, Mutex, MutexGuard, Semaphore};
use crate::sys::poison::IgnorePoison;
use crate::thread::{JoinHandle, Thread, yield_now};

/// After an error the next try waits this long, and twice as long each time, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Accepts so many items in a row, then lets the other tasks of this hub run.
const ROW: u64 = 100;
/// At most so many connections linger at once; any more are closed at once.
const CROWD: usize = 1024;
/// How long handlers that are killed have to unwind.
const GRACE: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    New,
    Serving,
    Closed,
}

struct State {
    stage: Stage,
    /// The green thread of the accept loop, while it runs.
    acceptor: Option<Thread>,
    /// Whether the acceptor has ended; it may do so before `acceptor` is set.
    has_accepted: bool,
    /// The handlers, by number; none while the acceptor spawns the handler.
    live: HashMap<u64, Option<Thread>>,
    /// The error that made the server close by itself.
    error: Option<io::Error>,
    /// A `stop` has killed the handlers and waited long enough for them: `wait` waits for them no more.
    given_up: bool,
    /// The number of connections that linger: the handler is done with the connection, but the peer has not ended.
    lingering: usize,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    permits: Semaphore,
    /// Told of the errors of handlers, in place of stderr.
    failed: OnceLock<Failed>,
    /// How long a connection lingers, `None` if it does not; `PATIENCE` unless it is set.
    linger: OnceLock<Option<Duration>>,
    /// The size of the stacks of handlers in green threads; their default unless it is set.
    stack_size: OnceLock<usize>,
    /// Set when no more connections are accepted: handlers that serve several requests end after the one they are at.
    closing: Event,
}

impl Shared {
    /// Locks the state, and defers a kill meanwhile: a destructor must get the lock (SERVER-1), and so must the
    /// acceptor that has spawned a handler (SERVER-2). It is never held for long.
    fn locked(&self) -> MutexGuard<'_, State> {
        let lock = || self.state.lock().ignore_poison();
        match Hub::try_current() {
            Some(_) => hub::shield(lock),
            None => lock(),
        }
    }

    fn change<R>(&self, f: impl FnOnce(&mut State) -> R) -> R {
        let result = f(&mut self.locked());
        self.changed.notify_all();
        result
    }

    /// Waits as long as `condition` holds, for at most `patience`; returns whether it still holds.
    fn wait_while(&self, patience: Duration, mut condition: impl FnMut(&State) -> bool) -> bool {
        let waited = self
            .changed
            .wait_timeout_while(self.locked(), patience, |state| condition(state));
        waited.ignore_poison().1.timed_out()
    }
}

/// A handler's place among those that run at once.
pub(super) struct HandlerPermit {
    shared: Arc<Shared>,
    number: u64,
}

impl Drop for HandlerPermit {
    fn drop(&mut self) {
        self.shared.change(|state| state.live.remove(&self.number));
        self.shared.permits.add(1);
    }
}

/// A connection that lingers; counted until this is dropped.
pub(super) struct Lingering(Handle);

impl Drop for Lingering {
    fn drop(&mut self) {
        self.0.shared.change(|state| state.lingering -= 1);
    }
}

/// What a server does with each item (a connection or a datagram).
pub(super) struct Plan<I> {
    /// Waits for the next item; owns the listener.
    pub(super) next: Box<dyn FnMut() -> io::Result<I>>,
    /// Spawns the item's handler, with a permit to hold until it ends.
    pub(super) spawn: Spawn<I>,
}

/// Spawns the handler of an item.
pub(super) type Spawn<I> = Box<dyn Fn(I, HandlerPermit) -> io::Result<Thread>>;

type Hook = Box<dyn Fn(&io::Error)>;
type Failed = Box<dyn Fn(&str) + Send + Sync>;

/// A plan, and the settings with which it is carried out once.
pub(super) struct Engine<I> {
    plan: RefCell<Option<Plan<I>>>,
    hook: RefCell<Option<Hook>>,
    limit: Cell<usize>,
    place: &'static Location<'static>,
    handle: Handle,
}

impl<I: 'static> Engine<I> {
    #[track_caller]
    pub(super) fn new(plan: impl FnOnce(&Handle) -> Plan<I>) -> Engine<I> {
        let state = State {
            stage: Stage::New,
            acceptor: None,
            has_accepted: false,
            live: HashMap::new(),
            error: None,
            given_up: false,
            lingering: 0,
        };
        let handle = Handle {
            shared: Arc::new(Shared {
                state: Mutex::new(state),
                changed: Condvar::new(),
                permits: Semaphore::new(0),
                failed: OnceLock::new(),
                linger: OnceLock::new(),
                stack_size: OnceLock::new(),
                closing: Event::new(),
            }),
        };
        Engine {
            plan: RefCell::new(Some(plan(&handle))),
            hook: RefCell::new(None),
            limit: Cell::new(usize::MAX),
            place: Location::caller(),
            handle,
        }
    }

    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }

    #[track_caller]
    pub(super) fn limit(&self, handlers: usize) {
        assert!(
            handlers > 0,
            "a server with a limit of 0 handlers could not serve any connection: give at least 1"
        );
        self.limit.set(handlers);
    }

    pub(super) fn on_error(&self, hook: Hook) {
        let before = self.hook.replace(Some(hook));
        // The user's destructor: not run under the borrow.
        drop(before);
    }

    /// The first hook that is given counts.
    pub(super) fn on_failure(&self, hook: Failed) {
        let _ = self.handle.shared.failed.set(hook);
    }

    /// The first size that is given counts.
    pub(super) fn stack_size(&self, bytes: usize) {
        let _ = self.handle.shared.stack_size.set(bytes);
    }

    /// The first value that is given counts.
    pub(super) fn linger(&self, patience: Option<Duration>) {
        let _ = self.handle.shared.linger.set(patience);
    }

    pub(super) fn start(&self) -> io::Result<()> {
        if Hub::has_ended() {
            return Err(crate::hub::ended());
        }
        let shared = &self.handle.shared;
        let plan = self.plan.borrow_mut().take();
        if shared.locked().stage == Stage::Closed {
            return Err(io::Error::new(
                io::ErrorKind::NotConnected,
                "the server was stopped, and its listener is closed: make a new one",
            ));
        }
        let Some(plan) = plan else { return Ok(()) };
        shared.permits.add(self.limit.get());
        let running = Running {
            plan,
            hook: self.hook.borrow_mut().take(),
            end: End(shared.clone()),
        };
        let join = task::spawn(Hub::current(), Kind::Local, None, self.place, || running.serve())?;
        let acceptor = JoinHandle::new(join).thread();
        // A `close` before this has found no acceptor to kill: kill it here.
        let closed = shared.change(|state| {
            // The lock may have let the acceptor run, and it may have ended.
            state.acceptor = Some(acceptor.clone()).filter(|_| !state.has_accepted);
            let closed = state.stage == Stage::Closed;
            state.stage = if closed { Stage::Closed } else { Stage::Serving };
            closed
        });
        if closed {
            acceptor.kill();
        }
        Ok(())
    }

    pub(super) fn serve_forever(&self) -> io::Result<()> {
        struct Close<'a>(&'a Handle);
        impl Drop for Close<'_> {
            fn drop(&mut self) {
                self.0.close();
            }
        }
        if self.handle.shared.locked().stage != Stage::Closed {
            self.start()?;
        }
        let _close = Close(&self.handle);
        self.handle.wait()
    }

    pub(super) fn stop(&self, patience: Duration) -> Stopped {
        let plan = self.plan.take();
        drop(plan);
        self.handle.stop(patience)
    }
}

/// The loop, with all that it owns. The fields are dropped in this order (SERVER-3).
struct Running<I> {
    plan: Plan<I>,
    hook: Option<Hook>,
    end: End,
}

struct End(Arc<Shared>);

impl Drop for End {
    fn drop(&mut self) {
        let panicked = std::thread::panicking() && !interrupt::unwinds();
        self.0.change(|state| {
            state.acceptor = None;
            state.has_accepted = true;
            state.stage = Stage::Closed;
            if panicked && state.error.is_none() {
                state.error = Some(io::Error::other(
                    "the server has closed, for its accept loop panicked; see the panic on stderr",
                ));
            }
        });
        self.0.closing.set();
    }
}

impl<I> Running<I> {
    fn serve(mut self) {
        let mut pause = FIRST_PAUSE;
        for number in 0_u64.. {
            if number % ROW == ROW - 1 {
                yield_now();
            }
            match self.one(number) {
                Ok(()) => pause = FIRST_PAUSE,
                Err(error) if is_of_the_peer(&error) => {}
                Err(error) if is_final(&error) => {
                    self.tell(&error, None);
                    return self.end.0.change(|state| state.error = Some(error));
                }
                Err(error) => {
                    self.tell(&error, Some(pause));
                    crate::time::sleep(pause);
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// Waits for a permit, then for an item, and spawns its handler.
    fn one(&mut self, number: u64) -> io::Result<()> {
        let shared = &self.end.0;
        shared.permits.acquire().forget();
        let permit = HandlerPermit {
            shared: shared.clone(),
            number,
        };
        let item = (self.plan.next)()?;
        // The entry comes first: the lock may let others run, and a handler that has been spawned may end meanwhile.
        shared.locked().live.insert(number, None);
        let handler = (self.plan.spawn)(item, permit)?;
        // `locked` defers a kill: a handler that was spawned is listed (SERVER-2), unless it has ended (SERVER-1).
        if let Some(entry) = shared.locked().live.get_mut(&number) {
            *entry = Some(handler);
        }
        Ok(())
    }

    fn tell(&self, error: &io::Error, pause: Option<Duration>) {
        match (&self.hook, pause) {
            (Some(hook), _) => hook(error),
            (None, Some(pause)) => {
                let error = explained(error);
                complain(format_args!("a server cannot accept: {error}; next try in {pause:?}"));
            }
            (None, None) => complain(format_args!("a server closes, for it cannot accept any more: {error}")),
        }
    }
}

fn is_one_of(error: &io::Error, errnos: &[Errno]) -> bool {
    let number = error.raw_os_error();
    errnos.iter().any(|errno| number == Some(errno.raw_os_error()))
}

/// The peer went away between its SYN and the accept: go on with the next connection.
fn is_of_the_peer(error: &io::Error) -> bool {
    is_one_of(error, &[Errno::CONNABORTED])
}

/// The descriptor is no listener any more, and will not be one again.
fn is_final(error: &io::Error) -> bool {
    is_one_of(error, &[Errno::BADF, Errno::INVAL, Errno::NOTSOCK])
}

/// What became of the handlers that ran when a server was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stopped {
    /// Handlers that had not ended within the patience, and were killed.
    pub killed: usize,
    /// Handlers that still run after the kill: they have not parked since, or are shielded.
    pub left: usize,
}

/// Stops a server, from any OS thread, green thread or hub callback; a clone of it stops the same server.
///
/// ```
/// use std::time::Duration;
/// use greenthread::{net::TcpListener, server::StreamServer};
///
/// # fn main() -> std::io::Result<()> {
/// let server = StreamServer::new(TcpListener::bind("127.0.0.1:0")?, |_stream, _peer| ());
/// let handle = server.handle();
/// std::thread::spawn(move || handle.stop(Duration::from_secs(1)));
/// server.serve_forever()?; // until it is stopped
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

impl Handle {
    /// Closes the listener, and lets the handlers go on. It does not wait, not even for the listener to be closed.
    ///
    /// A server that has not started keeps its listener until it is told to start, stopped or dropped.
    pub fn close(&self) {
        let acceptor = self.shared.change(|state| {
            state.stage = Stage::Closed;
            state.acceptor.clone()
        });
        acceptor.into_iter().for_each(|acceptor| acceptor.kill());
        self.shared.closing.set();
    }

    /// How long a connection lingers; `None` if it does not.
    pub(super) fn patience(&self) -> Option<Duration> {
        self.shared.linger.get().copied().unwrap_or(Some(linger::PATIENCE))
    }

    /// Counts one more connection that lingers, unless there are too many.
    pub(super) fn lingers(&self) -> Option<Lingering> {
        let counted = self.shared.change(|state| {
            let room = state.lingering < CROWD;
            if room {
                state.lingering += 1;
            }
            room
        });
        counted.then(|| Lingering(self.clone()))
    }

    /// Waits until the server closes, for handlers that are to end then.
    pub(crate) fn closing(&self) -> impl Future<Output = ()> + use<'_> {
        self.shared.closing.wait_async()
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.shared.closing.is_set()
    }

    /// Closes the listener, waits for the handlers for at most `patience`, and kills those that are left.
    ///
    /// It may be called twice, and before the start. A handler that stops its own server is not waited for and not
    /// killed. Connections that [linger](super::StreamServer::linger) while their peers send are waited for within the
    /// same patience, and are not counted.
    ///
    /// # Blocking and cancellation
    /// Parks. Handlers that are killed have a second to unwind. A kill or time-out of the caller unwinds here; the
    /// listener is closed all the same.
    ///
    /// # Coming from Python
    /// gevent's `BaseServer.stop(timeout)`.
    #[track_caller]
    pub fn stop(&self, patience: Duration) -> Stopped {
        self.close();
        let own = Hub::try_current().map(|hub| hub.running().id());
        let others = move |state: &State| {
            let others = state.live.values().flatten().filter(|t| Some(t.id().as_u64()) != own);
            others.cloned().collect::<Vec<_>>()
        };
        // The patience begins when the acceptor has gone: from then on all handlers are in `live` (SERVER-2).
        self.shared.wait_while(GRACE, |state| state.acceptor.is_some());
        let lasts = |state: &State| !others(state).is_empty() || state.lingering > 0;
        if !self.shared.wait_while(patience, lasts) {
            return Stopped { killed: 0, left: 0 };
        }
        let late = others(&self.shared.locked());
        late.iter().for_each(Thread::kill);
        self.shared.wait_while(GRACE, |state| !others(state).is_empty());
        let left = self.shared.change(|state| {
            let left = others(state).len();
            state.given_up = left > 0;
            left
        });
        Stopped {
            killed: late.len(),
            left,
        }
    }

    /// Waits until the server is closed and its last handler has ended, or was given up by [`stop`](Self::stop).
    ///
    /// # Errors
    /// The error that made the server close by itself; the first call gets it.
    ///
    /// # Blocking and cancellation
    /// Parks. A kill or time-out unwinds here.
    #[track_caller]
    pub fn wait(&self) -> io::Result<()> {
        let runs = |state: &State| {
            let closed = state.stage == Stage::Closed && state.acceptor.is_none();
            !closed || !(state.live.is_empty() && state.lingering == 0 || state.given_up)
        };
        self.shared.wait_while(Duration::MAX, runs);
        self.shared.locked().error.take().map_or(Ok(()), Err)
    }

    /// Whether it accepts: it was started, and is not closed.
    pub fn is_serving(&self) -> bool {
        self.shared.locked().stage == Stage::Serving
    }

    /// How many handlers there are now.
    pub fn live(&self) -> usize {
        self.shared.locked().live.len()
    }
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (stage, live) = {
            let state = self.shared.locked();
            (state.stage, state.live.len())
        };
        f.debug_struct("Handle")
            .field("stage", &stage)
            .field("live", &live)
            .finish_non_exhaustive()
    }
}

/// How the handlers of a plan are spawned: as isolated green threads.
#[track_caller]
pub(super) fn isolated<I, F, R>(handler: F) -> Spawn<I>
where
    I: Send + 'static,
    F: Fn(I) -> R + Send + Sync + 'static,
    R: Outcome,
{
    let (handler, place) = (Arc::new(handler), Location::caller());
    Box::new(move |item, permit| {
        let handler = handler.clone();
        spawn(Kind::Isolated, place, permit, move || handler(item))
    })
}

/// How the handlers of a plan are spawned: as local green threads.
#[track_caller]
pub(super) fn local<I, F, R>(handler: F) -> Spawn<I>
where
    I: 'static,
    F: Fn(I) -> R + 'static,
    R: Outcome,
{
    let (handler, place) = (std::rc::Rc::new(handler), Location::caller());
    Box::new(move |item, permit| {
        let handler = handler.clone();
        spawn(Kind::Local, place, permit, move || handler(item))
    })
}

/// How the handlers of a plan are spawned: as stackless tasks.
#[cfg(feature = "hyper")]
#[track_caller]
pub(super) fn stackless<I, F, A>(handler: F) -> Spawn<I>
where
    I: 'static,
    F: Fn(I) -> A + 'static,
    A: Future + 'static,
{
    let place = Location::caller();
    Box::new(move |item, permit| {
        let answer = handler(item);
        let task = async move {
            let _permit = permit;
            answer.await;
        };
        let join = task::spawn_future(Hub::current(), place, task);
        Ok(JoinHandle::new(join).thread())
    })
}

/// Runs a handler. The permit is given back when the handler, with all that it owned, is gone.
fn run<R: Outcome>(permit: HandlerPermit, f: impl FnOnce() -> R) {
    if let Some(failure) = f().failure() {
        match permit.shared.failed.get() {
            Some(hook) => hook(&failure),
            None => complain(format_args!("a handler of a server has failed: {failure}")),
        }
    }
    drop(permit);
}

fn spawn<R: Outcome>(
    kind: Kind,
    place: &'static Location<'static>,
    permit: HandlerPermit,
    f: impl FnOnce() -> R + 'static,
) -> io::Result<Thread> {
    let options = permit.shared.stack_size.get().copied().map(task::Options::of_size);
    let join = task::spawn(Hub::current(), kind, options, place, || run(permit, f))?;
    Ok(JoinHandle::new(join).thread())
}
