//! How a program runs its hub: forever, until it is idle, or turn by turn inside another event loop.
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::observers::{Event, Watch};
use super::park::Parker;
use super::scheduler::{Hub, ended};
use super::turn::MaySleep;
use super::waiter::{Mode, Wake, Why};
use super::{inbox, interrupt};
use crate::fiber::current;

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
    hub.queue_callback(hub.in_context(f));
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
/// asked to wait forever.
///
/// # Coming from Python
/// `loop.run_forever()`, gevent's `get_hub().join()` in a server.
#[track_caller]
pub fn run_forever() {
    static WHY: &str = "a call of stop (run_forever)";
    let parker = Parker::new();
    let hub = parker.hub;
    hub.sleep.forever.borrow_mut().push(parker.waiter());
    let task = parker.task;
    if parker.park(None, Mode::Cancel, Why::new(&WHY, 0)) == Wake::Interrupted {
        // `stop` takes all waiters; an interrupt leaves this one behind. While it stood there, no `LoopExit` would be
        // raised.
        hub.sleep.forever.borrow_mut().retain(|waiter| !waiter.is_of(task));
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

/// Whether this code runs under a hub: in a green thread, in a callback, or on the native stack while the hub's turns
/// run there.
///
/// ```
/// use greenthread::{hub, spawn};
/// assert!(!hub::is_running());
/// assert!(spawn(hub::is_running).join().unwrap());
/// ```
pub fn is_running() -> bool {
    Hub::try_current()
        .is_some_and(|hub| hub.queue.pumping.get() || hub.queue.current.get().is_some() || hub.is_in_callback())
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
    parker.hub.sleep.idlers.borrow_mut().push_back(parker.waiter());
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
///     // The trap: `None` is "no deadline", so the poll is to wait for ever. It is neither "now", which would spin, nor
///     // "done": a socket or another OS thread may still make the descriptor readable.
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
        hub.queue.current.get().is_none() && !hub.is_in_callback() && !hub.queue.pumping.get(),
        "hub::turn was called in a green thread or a callback: call it on the native stack"
    );
    hub.queue.pumping.set(true);
    // The turn resumes green threads, which must not see the fibers of the native stack as their own.
    let chain = current::set_aside();
    // From here on other OS threads need not ring: the turn looks at the inbox.
    hub.me.shared.inbox().wake_up();
    hub.turn(MaySleep::No);
    // The foreign loop sleeps in the hub's place, so senders must ring from now on. A message that came during the turn
    // is taken here, and `next_deadline` counts what it makes ready. If another one comes meanwhile, the inbox stays
    // pending and `next_deadline` says "now".
    if hub.sleep.embedded.get() && !hub.me.shared.inbox().fall_asleep(inbox::POLLING) {
        hub.take_messages();
        hub.me.shared.inbox().fall_asleep(inbox::POLLING);
    }
    current::restore(chain);
    hub.queue.pumping.set(false);
}

/// The latest time at which [`turn`] should be called: now if a green thread is ready, `None` if there is no deadline.
///
/// `None` does not mean that everything is done: the descriptor of [`as_fd`] may still become readable. Ask again after
/// every turn, and after any code that may have spawned a green thread. The loop is shown at [`turn`].
pub fn next_deadline() -> Option<Instant> {
    let hub = Hub::try_current()?;
    let now = hub.clock.instant();
    let busy = !hub.is_quiet() || hub.me.shared.inbox().is_pending();
    if busy {
        return Some(now);
    }
    let next = hub.timers.next(true)?;
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
        return Err(ended());
    }
    let hub = Hub::current();
    let poller = hub.reactor.ensure_poller(hub)?;
    hub.sleep.embedded.set(true);
    // Senders must ring from now on. If a message is pending already, `next_deadline` says "now".
    hub.me.shared.inbox().fall_asleep(inbox::POLLING);
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

/// How many green threads of this hub have not ended.
pub fn live() -> usize {
    Hub::try_current().map_or(0, |hub| hub.counters.live.get())
}

/// How many times a local green thread had to park while it was unwinding, in a wait that cannot fail.
///
/// Until it was resumed, [`std::thread::panicking`] was true for the other green threads that share its thread-locals.
pub fn leaked_panics() -> usize {
    Hub::try_current().map_or(0, |hub| hub.counters.panicking_exposed_total.get())
}

/// Sets (or, with `None`, removes) the observer of this OS thread's hub.
///
/// ```
/// use std::sync::{Arc, atomic::{AtomicUsize, Ordering}};
/// use greenthread::hub::{self, Event};
///
/// let parks = Arc::new(AtomicUsize::new(0));
/// let count = parks.clone();
/// hub::set_hook(Some(Box::new(move |event| {
///     if let Event::Park(_) = event {
///         count.fetch_add(1, Ordering::Relaxed);
///     }
/// })));
/// greenthread::spawn(|| greenthread::sleep(std::time::Duration::from_millis(1))).join().unwrap();
/// hub::set_hook(None);
/// assert_eq!(parks.load(Ordering::Relaxed), 2); // the sleep, and the join of main
/// ```
///
/// The observer is called where the event happens, with the thread-locals of the green thread that runs there. So it
/// must be `Send` and `Sync`.
///
/// # Blocking and cancellation
/// The observer is a callback of the hub: it may not block. A panic in it is reported, and the hub goes on.
pub fn set_hook(hook: Option<Box<dyn Fn(Event) + Send + Sync>>) {
    let hub = Hub::current();
    let old = hub.observers.set_hook(hook.map(Rc::from));
    // Dropped last: the drop runs the user's code, which finds the new observer in place.
    drop(old);
}

/// Sets an observer of this crate's own, which is called besides the user's.
pub(crate) fn set_watch(watch: Option<Watch>) {
    let hub = Hub::current();
    let old = hub.observers.set_watch(watch);
    drop(old);
}
