//! The life of a hub: it is made when something first needs it, and ends with its OS thread. Also the questions that
//! the rest of the crate asks after that end, in destructors of thread-locals. A table in [`hub`](super) lists what
//! such destructors may expect.

use std::cell::Cell;
use std::io;
use std::panic::Location;
use std::time::{Duration, Instant};

use super::clock::Clock;
use super::interrupt;
use super::leisure;
use super::report::{announce_panics, complain, describe, discard, line};
use super::scheduler::{AFTER_END, Hub, ended, running_id};
use super::shared::Shared;
use super::stuck;
use super::task::block::{Task, TaskRef};
use super::task::blocks;
use super::task::exit::lose;
use super::turn::{MaySleep, Turned};
use crate::fiber::current;
use crate::sys;
use crate::sys::report::last_words;

/// How long the green threads of a hub that stops have to unwind.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

/// A deadline `timeout` from now, for a wait of the caller. After the hub's end nothing can be waited for, and every
/// deadline counts as passed.
#[inline]
#[track_caller]
pub(crate) fn deadline_in(timeout: Duration) -> u64 {
    if Hub::has_ended() {
        0
    } else {
        Hub::current().deadline_in(timeout)
    }
}

/// The deadline at `moment`, for a wait of the caller. Like [`deadline_in`], it counts as passed after the hub's end.
#[inline]
#[track_caller]
pub(crate) fn deadline_at(moment: Instant) -> u64 {
    if Hub::has_ended() {
        0
    } else {
        Hub::current().clock.nanos(moment)
    }
}

/// Whether the hub has ended, so that a wait with this deadline is over at once. A wait without a deadline goes on to
/// make a `Parker`, which panics with [`AFTER_END`].
#[inline]
pub(crate) fn is_past(deadline: Option<u64>) -> bool {
    deadline.is_some() && Hub::has_ended()
}

/// The number of the running task or callback: see [`Hub::lock_owner`]. After the hub's end it is the number of the
/// root.
#[inline]
#[track_caller]
pub(crate) fn lock_owner() -> u64 {
    const AFTER: u64 = 1 << 61;
    if Hub::has_ended() {
        current::root() | AFTER
    } else {
        Hub::current().lock_owner()
    }
}

thread_local! {
    static END: End = const { End(Cell::new(None)) };
}

impl Hub {
    /// This OS thread's hub; makes one if there is none.
    #[inline]
    #[track_caller]
    pub(crate) fn current() -> &'static Hub {
        match Hub::try_current() {
            Some(hub) => hub,
            None => Hub::make(Clock::real(), None),
        }
    }

    #[cold]
    #[track_caller]
    fn make(clock: Clock, seed: Option<u64>) -> &'static Hub {
        assert!(!Hub::has_ended(), "{AFTER_END}");
        // In this order: the end of the hub gives its stacks back to the pool, which must still be there.
        let _ = crate::stack::home();
        END.with(|_| ());
        // In each forked child the hub is forgotten: it is the parent's.
        sys::fork::on_fork(sys::fork::Child::Hub, &(forked as _));
        crate::stack::set_describe(&(describe as _));
        crate::stack::set_trim(leisure::trim);
        announce_panics();
        sys::signal::ensure_alt_stack();
        current::set_green(running_id);
        let shared = Shared::take();
        let native = blocks::native(shared, Location::caller());
        let (owned, hub) = OwnedHub::new(Hub::new(shared, native, clock));
        END.with(|end| end.0.set(Some(owned)));
        if let Some(seed) = seed {
            hub.queue.ready.set_seed(seed);
        }
        // Published last: the hub is complete.
        Hub::plant(Some(hub));
        hub
    }
}

/// In a forked child, on the OS thread that forked: the hub is forgotten, and with it all green threads.
fn forked() {
    Hub::plant(None);
    sys::report::forget_all();
    stuck::forget_all();
    Shared::forget_spare();
}

/// Ends the hub with its OS thread.
struct End(Cell<Option<OwnedHub>>);

impl Drop for End {
    fn drop(&mut self) {
        // Without a hub there is nothing to end, and neither is there in a forked child that still has its parent's.
        let Some(hub) = Hub::try_current().filter(|hub| hub.reference().is_of_this_process()) else {
            return Hub::note_end();
        };
        if hub.counters.scoped.get() > 0 && (hub.queue.current.get().is_some() || hub.queue.pumping.get()) {
            // The OS thread has not returned from its body: code that the hub runs has called `exit`. A wait for the
            // children of scopes on top of that code would never end, and is not needed: nothing that a scope has lent
            // is freed any more.
            return;
        }
        // Both resume green threads, so the hub must still be in place.
        hub.end_scoped();
        end_runners(hub);
        // From here on the crate's functions on this OS thread find an ended hub: so do destructors that `end` runs.
        Hub::note_end();
        Hub::plant(None);
        hub.end();
        if let Some(owned) = self.0.take() {
            owned.retire();
        }
    }
}

impl Hub {
    /// The OS thread ends: green threads that are parked are leaked, and their joins return an error. Everything that
    /// belongs to the user's code is dropped here, where destructors of thread-locals run. The memory of the hub itself
    /// is freed later, see [`OwnedHub`].
    fn end(&'static self) {
        // A destructor may resume a fiber that was suspended between taking a ticket and its park. That park finds that
        // another task runs, and does not take place (`Parker::park_here`).
        self.queue
            .current
            .set(Some(blocks::native(self.me.shared, self.queue.native.place())));
        self.tasks().into_iter().for_each(lose);
        // Each list is taken out before its entries are dropped, and each entry is dropped as a callback: a destructor
        // may do anything but block, and may use this crate.
        self.callbacks.messages.take().into_iter().for_each(discard);
        self.me.shared.close().into_iter().for_each(discard);
        self.callbacks.queue.take().into_iter().for_each(discard);
        self.sleep.idle_watchers.take().into_iter().for_each(discard);
        self.timers.take_all().into_iter().for_each(discard);
        self.reactor.end();
        let observers = (self.observers.set_hook(None), self.observers.set_watch(None));
        discard(observers.0);
        discard(observers.1);
        discard(self.queue.native.take_cold());
        self.contexts.pool.trim();
        self.blocks.give_back();
    }

    /// The OS thread ends, but children of scopes on other OS threads run here. What they borrow may be freed only
    /// after their stacks have unwound, so this kills them and waits until they have ended.
    fn end_scoped(&'static self) {
        if self.counters.scoped.get() == 0 {
            return;
        }
        for task in self.scoped_tasks() {
            interrupt::kill_here(self, TaskRef::new(task), task.id());
        }
        // The process ends with its main OS thread. Nothing that a child borrows is freed any more then, so the wait is
        // limited.
        let is_last = sys::thread::is_main();
        let end = self.deadline_in(PATIENCE);
        if is_last {
            // An empty callback ends the turn's sleep at `end`.
            self.call_at(end, Box::new(|| ()));
        }
        let chain = current::set_aside();
        self.queue.pumping.set(true);
        while self.counters.scoped.get() > 0 {
            let stuck = self.turn(MaySleep::Yes) == Turned::Stuck;
            if self.counters.scoped.get() > 0 && (stuck || is_last && self.clock.now() >= end) {
                self.leave_scoped(is_last);
                break;
            }
        }
        self.queue.pumping.set(false);
        current::restore(chain);
    }

    fn scoped_tasks(&self) -> impl Iterator<Item = &'static Task> {
        self.tasks().into_iter().filter(|task| task.is_scoped())
    }

    /// Some children of scopes will not end. Unless the process ends anyway it must abort: they would go on borrowing
    /// what is freed.
    #[cold]
    fn leave_scoped(&'static self, is_last: bool) {
        let lines: Vec<String> = self.scoped_tasks().map(line).collect();
        let lines = lines.join("\n  ");
        if !is_last {
            last_words(format_args!(
                "an OS thread ends while its scoped green threads still use borrowed data: the process aborts\n  \
                 {lines}"
            ));
            std::process::abort();
        }
        complain(format_args!(
            "the process ends, but these scoped green threads have not ended\n  {lines}"
        ));
    }

    /// A child of a scope, which ran on this hub, has ended.
    pub(crate) fn leave_scope(&self) {
        self.counters.scoped.set(self.counters.scoped.get().saturating_sub(1));
        if self.counters.scoped.get() == 0 {
            // `end_scoped` may be waiting for this: a callback keeps its turn from going to sleep.
            self.queue_callback(Box::new(|| ()));
        }
    }
}

/// The memory of a hub, which its OS thread keeps.
struct OwnedHub(*mut Hub);

impl OwnedHub {
    fn new(hub: Hub) -> (OwnedHub, &'static Hub) {
        sys::hooks::prepare();
        let hub = Box::into_raw(Box::new(hub));
        // SAFETY: the hub stays where it is until `free`, which runs when no code refers to it any more.
        (OwnedHub(hub), unsafe { &*hub })
    }

    /// Has an ended hub freed at the very end of its OS thread. Until then destructors of thread-locals may resume
    /// frames that refer to it: those of generators and greenlets of the native stack that were suspended in code
    /// called by the hub.
    fn retire(self) {
        // SAFETY: `at_end` calls `free` after the destructors of the thread-locals, with this `OwnedHub`'s pointer, and
        // not again after it has returned `true`, as `free` requires.
        unsafe { sys::hooks::at_end(free, self.0.cast()) };
    }
}

/// Frees a hub that has ended; `false` if a fiber of the native stack is still suspended, because it may refer to the
/// hub.
///
/// # Safety
/// The destructors of the thread-locals of the hub's OS thread have run, `hub` is the pointer of its `OwnedHub`, and no
/// call before has returned `true`.
unsafe fn free(hub: *mut ()) -> bool {
    if current::any_begun() {
        return false;
    }
    // SAFETY: the caller guarantees that the pointer is the `OwnedHub`'s, made by `Box::into_raw`, and was not freed
    // before. No code refers to the hub any more: the native stack has only the frames that call this, no fiber is
    // suspended above it, and green threads that were lost never run again.
    let hub = unsafe { Box::from_raw(hub.cast::<Hub>()) };
    // The native task, and the task that `end` has made the running one.
    let (shared, tasks) = (hub.me.shared, [Some(hub.queue.native), hub.queue.current.get()]);
    discard(hub);
    // After the hub: from here on these blocks and `shared` may serve another hub.
    for task in tasks.into_iter().flatten() {
        // SAFETY: a native task has no join, and the hub that was its owner is gone.
        unsafe { blocks::recycle(task, Hub::blocks_here()) };
    }
    shared.spare();
    true
}

/// Ends the runners of the native context with their stacks, because the OS thread ends.
fn end_runners(hub: &'static Hub) {
    let chain = current::set_aside();
    while let Some(runner) = hub.runners.take_resting(None) {
        // Nothing is assigned, so the runner ends (STACKLESS-3).
        hub.resume(runner);
    }
    current::restore(chain);
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
    /// `AlreadyExists` if this OS thread has a hub: install before anything else of this crate is used. `NotConnected`
    /// after its hub's end.
    #[track_caller]
    pub fn install(self) -> io::Result<()> {
        if Hub::try_current().is_some() {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "this OS thread has a hub already: install yours before any other call of this crate",
            ));
        }
        if Hub::has_ended() {
            return Err(ended());
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
