//! The public functions of this OS thread's hub.
#![forbid(unsafe_code)]

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::thread::panicking;
use std::time::{Duration, Instant};

use super::park::{Mode, Parker, Wake, Why};
use super::remote::Handle;
use super::task::{Task, TaskRef};
use crate::fiber::current;

use super::report::PANIC_HOOK;
use super::{Clock, HUB, Hub, Sleep, inbox, interrupt, task};

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

/// Calls `f` on the hub's own stack in its next turn, in order with other calls.
///
/// ```
/// use greenthread::hub;
/// hub::call_soon(|| println!("from the hub"));
/// hub::idle();
/// ```
///
/// # Blocking and cancellation
/// `f` may not block (that panics, and the panic is reported): spawn a green thread for that.
///
/// # Coming from Python
/// `loop.call_soon`, gevent's `loop.run_callback`.
#[track_caller]
pub fn call_soon<F: FnOnce() + 'static>(f: F) {
    let hub = Hub::current();
    hub.call(hub.in_context(f));
}

/// Runs the hub until [`stop`], whether or not there is anything to do.
///
/// ```
/// use greenthread::{hub, spawn};
/// spawn(|| hub::stop());
/// hub::run_forever();
/// ```
///
/// # Blocking and cancellation
/// In a green thread it parks that green thread. It never raises [`LoopExit`](super::LoopExit), because the caller has
/// asked to wait for ever.
///
/// # Coming from Python
/// `loop.run_forever()`, gevent's `get_hub().join()` in a server.
#[track_caller]
pub fn run_forever() {
    static WHY: &str = "stop (run_forever)";
    let parker = Parker::new();
    let hub = parker.hub;
    hub.forever.borrow_mut().push(parker.waiter());
    let task = parker.task;
    if parker.park(None, Mode::Cancel, Why::new(&WHY, 0)) == Wake::Interrupted {
        // `stop` takes all waiters; an interrupt leaves this one behind. While it stood there, no `LoopExit` would be
        // raised.
        hub.forever.borrow_mut().retain(|waiter| !waiter.is_of(task));
        interrupt::raise();
    }
}

/// Lets every [`run_forever`] of this hub return.
#[track_caller]
pub fn stop() {
    if !Hub::has_ended() {
        Hub::current().stop();
    }
}

/// Whether this code runs under a hub: in a green thread, in a callback, or in main while it is pumped.
///
/// ```
/// use greenthread::{hub, spawn};
/// assert!(!hub::is_running());
/// assert!(spawn(hub::is_running).join().unwrap());
/// ```
pub fn is_running() -> bool {
    HUB.get()
        .is_some_and(|hub| hub.pumping.get() || hub.current.get().is_some() || hub.is_in_callback())
}

/// Waits until the hub has nothing else to do: no green thread is ready, and the hub is about to sleep.
///
/// # Coming from Python
/// `gevent.idle()`.
#[track_caller]
pub fn idle() {
    if Hub::has_ended() {
        return;
    }
    static WHY: &str = "the hub to be idle";
    let parker = Parker::new();
    parker.hub.idlers.borrow_mut().push_back(parker.waiter());
    if parker.park(None, Mode::Cancel, Why::new(&WHY, 0)) == Wake::Interrupted {
        interrupt::raise();
    }
}

/// Runs one turn without sleeping, for a hub inside another event loop.
///
/// Call it on the native stack when [`as_fd`]'s descriptor is readable or [`next_deadline`] has come. This is a
/// complete loop, with `poll` in the role of the other event loop:
///
/// ```
/// use std::time::{Duration, Instant};
/// use greenthread::{hub, sleep, spawn};
/// use rustix::event::{PollFd, PollFlags, Timespec, poll};
///
/// # fn main() -> std::io::Result<()> {
/// let fd = hub::as_fd()?;
/// let green = spawn(|| { sleep(Duration::from_millis(5)); 7 });
/// while !green.is_finished() {
///     // The trap: `None` is "no deadline", so the poll is to wait for ever. It is neither "now", which would spin, nor "done":
///     // a socket or another OS thread may still make the descriptor readable.
///     let limit = hub::next_deadline().map(|at| {
///         let limit = at.saturating_duration_since(Instant::now());
///         Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: limit.subsec_nanos().into() }
///     });
///     poll(&mut [PollFd::new(&fd, PollFlags::IN)], limit.as_ref())?; // with the loop's own descriptors
///     hub::turn();
/// }
/// assert_eq!(green.join().unwrap(), 7);
/// # Ok(())
/// # }
/// ```
///
/// A wait that nothing can end is not detected here: only a hub that sleeps itself raises
/// [`LoopExit`](super::LoopExit).
///
/// # Panics
/// In a green thread or a hub callback: only the native stack turns the hub.
#[track_caller]
pub fn turn() {
    let hub = Hub::current();
    assert!(
        hub.current.get().is_none() && !hub.is_in_callback() && !hub.pumping.get(),
        "hub::turn in a green thread or a callback: only the native stack turns the hub"
    );
    hub.pumping.set(true);
    // The turn resumes green threads, which must not see the fibers of the native stack as their own.
    let chain = current::set_aside();
    // From here on other OS threads need not ring: the turn looks at the inbox.
    hub.shared.inbox().wake_up();
    hub.turn(Sleep::No);
    // The foreign loop sleeps in the hub's place, so senders must ring from now on. A message that came during the turn
    // is taken here, and `next_deadline` counts what it makes ready. If another one comes meanwhile, the inbox stays
    // pending and `next_deadline` says "now".
    if hub.embedded.get() && !hub.shared.inbox().fall_asleep(inbox::POLLING) {
        hub.take_messages();
        hub.shared.inbox().fall_asleep(inbox::POLLING);
    }
    current::restore(chain);
    hub.pumping.set(false);
}

/// When [`turn`] is to be called at the latest: now if a green thread is ready, `None` if there is no deadline.
///
/// `None` does not mean that all is done: the descriptor of [`as_fd`] may still become readable. Ask again after every
/// turn, and after any code that may have spawned a green thread. The loop is shown at [`turn`].
pub fn next_deadline() -> Option<Instant> {
    let hub = HUB.get()?;
    let now = hub.clock.instant();
    let busy = !hub.is_quiet() || !hub.callbacks.borrow().is_empty() || hub.shared.inbox().is_pending();
    if busy {
        return Some(now);
    }
    let next = hub.timers.0.borrow().next_deadline()?;
    now.checked_add(Duration::from_nanos(next.saturating_sub(hub.clock.now())))
}

/// The hub's own descriptor: readable when a descriptor that the hub waits for is ready, or when another OS thread has
/// sent it a message.
///
/// From this call on a foreign loop is expected to wait on the descriptor: messages of other OS threads make it
/// readable, and so do wakes by code that the foreign loop runs. The loop is shown at [`turn`].
///
/// # Errors
/// When the system has no descriptor left; `NotConnected` after the hub's end.
#[track_caller]
pub fn as_fd() -> io::Result<HubFd> {
    if Hub::has_ended() {
        return Err(super::ended());
    }
    let hub = Hub::current();
    let poller = hub.reactor.ensure_poller(hub)?;
    hub.embedded.set(true);
    // Senders must ring from now on. If a message is pending already, `next_deadline` says "now".
    hub.shared.inbox().fall_asleep(inbox::POLLING);
    Ok(HubFd { poller })
}

/// A hub's descriptor; see [`as_fd`].
#[derive(Debug)]
pub struct HubFd {
    poller: Arc<polling::Poller>,
}

impl AsFd for HubFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.poller.as_fd()
    }
}

/// Kills all green threads of this hub but the caller, waits for at most `patience`, and reports those that did not
/// end.
///
/// ```
/// use greenthread::{hub, spawn, thread};
/// use std::time::Duration;
/// let sleeper = spawn(thread::park);
/// hub::shutdown(Duration::from_secs(1)).unwrap();
/// assert!(sleeper.join().unwrap_err().is_killed());
/// ```
///
/// # Errors
/// [`Survivors`], with a line for each green thread that is still there.
///
/// # Blocking and cancellation
/// Parks. It also waits in a destructor while a local green thread or a native stack unwinds. But then the green
/// threads that share its thread-locals (the local ones) cannot be killed: they are reported as survivors at once.
#[track_caller]
pub fn shutdown(patience: Duration) -> Result<(), Survivors> {
    if Hub::has_ended() {
        return Ok(());
    }
    let hub = Hub::current();
    hub.check_can_park();
    let me = hub.running();
    // A caller that unwinds (this is a destructor, then) waits all the same. std's panic count is a thread-local: while
    // the caller waits, the green threads that share its context see `panicking() == true`, and a kill cannot unwind
    // them.
    let unwinding = panicking();
    let shares = |task: &Task| unwinding && !task.is_alone() && !me.is_alone();
    // The caller is recognised by its number: a stackless task and the runner that polls it have the same.
    let others = || task::all_of(hub).into_iter().filter(|task| task.id() != me.id());
    let end = hub.after(patience);
    let mut pause = Duration::from_millis(1);
    loop {
        // Asked anew in each round: the killed green threads may have spawned others.
        let left: Vec<_> = others().collect();
        let (spared, dying): (Vec<_>, Vec<_>) = left.into_iter().partition(|task| shares(task));
        for task in &dying {
            interrupt::kill(hub, TaskRef::new(task), task.id());
        }
        let live = hub.live.get();
        if !dying.is_empty() {
            // Let the killed green threads run at least once, even if the time is over already.
            give_way(hub, None, dying.len(), unwinding);
        }
        if dying.is_empty() || hub.clock.now() >= end {
            return Survivors::of(if dying.is_empty() { spared } else { others().collect() });
        }
        if hub.live.get() == live {
            // None has ended, so they wait for something in their destructors: sleep a little.
            give_way(hub, Some(hub.after(pause).min(end)), dying.len(), unwinding);
            // Each round visits the green threads of all hubs of the process, so look less and less often.
            pause = (pause * 2).min(Duration::from_millis(10));
        }
    }
}

/// Lets other tasks run: once through the ready queue, or until `until` if that is given.
fn give_way(hub: &'static Hub, until: Option<u64>, dying: usize, unwinding: bool) {
    static WHY: &str = "green threads to die (shutdown)";
    if until.is_none() && !unwinding {
        let _ = super::park::yield_now();
        return;
    }
    // While unwinding `yield_now` would return at once. So park with a deadline, which is "now" for a single round.
    let until = until.unwrap_or_else(|| hub.clock.now());
    let mode = if unwinding { Mode::Must } else { Mode::Cancel };
    if Parker::new().park(Some(until), mode, Why::new(&WHY, dying)) == Wake::Interrupted {
        interrupt::raise();
    }
}

/// Green threads that [`shutdown`] could not end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survivors {
    lines: Vec<String>,
}

impl Survivors {
    fn of(left: Vec<&'static Task>) -> Result<(), Survivors> {
        let lines: Vec<_> = left.into_iter().map(super::line).collect();
        if lines.is_empty() {
            Ok(())
        } else {
            Err(Survivors { lines })
        }
    }

    /// One line for each: its name, what it waits for, and where it was spawned.
    pub fn lines(&self) -> &[String] {
        &self.lines
    }
}

impl fmt::Display for Survivors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} green threads would not die:", self.lines.len())?;
        self.lines.iter().try_for_each(|line| write!(f, "\n  {line}"))
    }
}

impl std::error::Error for Survivors {}

/// Sets the hook for panics that no `join` receives, in the whole process; `None` brings back the line on stderr.
///
/// The hook is not called for children of a [`scope`](crate::scope()): there the scope itself panics.
///
/// The hook gets the green thread as `green thread #2 'name'`, and the panic's payload.
///
/// # Coming from Python
/// gevent's `hub.handle_error`, asyncio's "exception was never retrieved".
pub fn set_panic_hook<F>(hook: Option<F>)
where
    F: Fn(&str, &(dyn std::any::Any + Send)) + Send + Sync + 'static,
{
    let hook = hook.map(|hook| Arc::new(hook) as Arc<super::report::PanicHook>);
    let before = std::mem::replace(&mut *PANIC_HOOK.lock(), hook);
    // The drop runs the user's code, so it comes after the unlock.
    drop(before);
}

/// Has the messages of panics written as this crate's own reports are: not by the OS thread that panics, and at a
/// limited rate.
///
/// By default std writes the message in the green thread that panics, and waits for stderr. If the reader of stderr (a
/// log collector, say) has stopped and the pipe is full, the whole hub stops with it. A server that may meet panics
/// calls this function first thing in `main`. It replaces the panic hook of the whole process, for OS threads too; a
/// hook that is set later replaces this one in turn.
///
/// ```
/// use greenthread::{hub, spawn};
/// hub::write_panics_aside();
/// assert!(spawn(|| panic!("told aside")).join().is_err());
/// ```
///
/// The message is that of std, with a backtrace if `RUST_BACKTRACE` asks for one.
pub fn write_panics_aside() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map_or(("unknown", 0), |at| (at.file(), at.line()));
        crate::sys::report::print(place, || super::report::panic_message(panic));
    }));
}

/// How many green threads of this hub have not ended.
pub fn live() -> usize {
    HUB.get().map_or(0, |hub| hub.live.get())
}

/// How often a local green thread that was unwinding had to park in a wait that cannot fail.
///
/// Until it was resumed, [`std::thread::panicking`] was true for the other green threads that share its thread-locals.
pub fn leaked_panics() -> usize {
    HUB.get().map_or(0, |hub| hub.leaked.get())
}

/// Makes a hub with a virtual clock or a seed, for tests that must go the same way each time.
///
/// ```
/// use std::time::Duration;
/// use greenthread::{hub, sleep, spawn, time};
///
/// // On an OS thread of its own, as each test is; here the hub must not exist yet.
/// std::thread::spawn(|| {
///     hub::Builder::new().virtual_clock(true).seed(7).install().unwrap();
///     let start = time::now();
///     spawn(|| sleep(Duration::from_secs(3600))).join().unwrap();
///     assert_eq!(time::now() - start, Duration::from_secs(3600)); // at once, and exactly
/// })
/// .join()
/// .unwrap();
/// ```
///
/// # Coming from Python
/// trio's `MockClock(autojump_threshold=0)`.
#[derive(Debug, Default)]
pub struct Builder {
    virtual_clock: bool,
    seed: Option<u64>,
}

impl Builder {
    /// An ordinary hub.
    pub fn new() -> Builder {
        Builder::default()
    }

    /// Uses a clock that stands still while anything can run, and jumps to the next deadline when nothing can.
    #[must_use]
    pub fn virtual_clock(mut self, yes: bool) -> Builder {
        self.virtual_clock = yes;
        self
    }

    /// Shuffles the ready queue, in a way that depends on `seed` alone.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Builder {
        self.seed = Some(seed);
        self
    }

    /// Makes the hub, as that of this OS thread.
    ///
    /// # Errors
    /// `AlreadyExists` if this OS thread has a hub: install before anything else of this crate is used. `NotConnected` after
    /// its hub's end.
    #[track_caller]
    pub fn install(self) -> io::Result<()> {
        if HUB.get().is_some() {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "this OS thread has a hub already: install yours before anything else",
            ));
        }
        if Hub::has_ended() {
            return Err(super::ended());
        }
        let clock = if self.virtual_clock {
            Clock::virtual_()
        } else {
            Clock::real()
        };
        Hub::make(clock, self.seed);
        Ok(())
    }
}
