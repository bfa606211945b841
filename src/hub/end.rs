//! The end of a hub, with its OS thread. Also the questions that the rest of the crate asks after that end, in
//! destructors of thread-locals. A table in [`hub`](super) lists what such destructors may expect.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::io;
use std::time::{Duration, Instant};

use super::task::{self, Task, TaskRef};
use super::{ENDED, HUB, Hub, Sleep, Turned, complain, discard, hubs, interrupt, line};
use crate::fiber::current;
use crate::sys::report::last_words;

/// The error message of a call that needs the hub, after the hub's end.
pub(super) const AFTER_END: &str = "the hub of this OS thread has ended: this runs in a destructor of a thread-local";

/// The same, as an error.
#[cold]
pub(crate) fn ended() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, AFTER_END)
}

/// A deadline `timeout` from now, for a wait of the caller. After the hub's end nothing can be waited for, and every
/// deadline counts as passed.
#[inline]
#[track_caller]
pub(crate) fn deadline_in(timeout: Duration) -> u64 {
    if Hub::has_ended() {
        0
    } else {
        Hub::current().after(timeout)
    }
}

/// The same for an `Instant`.
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

/// The number of the running task or callback: see [`Hub::who`]. After the hub's end it is the number of the root.
#[inline]
#[track_caller]
pub(crate) fn who() -> u64 {
    const AFTER: u64 = 1 << 61;
    if Hub::has_ended() {
        current::root() | AFTER
    } else {
        Hub::current().who()
    }
}

/// Ends the hub with its OS thread.
pub(super) struct End(pub(super) Cell<Option<task::OwnedHub>>);

impl Drop for End {
    fn drop(&mut self) {
        // Without a hub there is nothing to end, and neither is there in a forked child that still has its parent's.
        let Some(hub) = HUB.get().filter(|hub| hub.fork_epoch == crate::sys::fork::fork_epoch()) else {
            return ENDED.set(true);
        };
        if hub.scoped.get() > 0 && (hub.current.get().is_some() || hub.pumping.get()) {
            // The OS thread has not returned from its body: code that the hub runs has called `exit`. A wait for the
            // children of scopes on top of that code would never end, and is not needed: nothing that a scope has lent
            // is freed any more.
            return;
        }
        // Both resume green threads, so the hub must still be in place.
        hub.end_scoped();
        task::end_runners(hub);
        // From here on the crate's functions on this OS thread find an ended hub: so do destructors that `end` runs.
        ENDED.set(true);
        HUB.set(None);
        hub.end();
        if let Some(keep) = self.0.take() {
            keep.retire();
        }
    }
}

impl Hub {
    /// Whether this OS thread's hub has ended, in a destructor of a thread-local.
    #[inline]
    pub(crate) fn has_ended() -> bool {
        HUB.get().is_none() && ENDED.get()
    }

    /// Whether this hub has ended, so that only frames of its native stack can still refer to it.
    #[cold]
    pub(super) fn is_over(&self) -> bool {
        self.shared.generation() != self.generation
    }

    /// The OS thread ends: green threads that are parked are leaked, and their joins return an error. Everything that
    /// belongs to the user's code is dropped here, where destructors of thread-locals run. The memory of the hub itself
    /// is freed later, see [`OwnedHub`](task::OwnedHub).
    fn end(&'static self) {
        // A destructor may resume a fiber that was suspended between taking a ticket and its park. That park finds that
        // another task runs, and does not take place (`Parker::park_here`).
        self.current.set(Some(task::native(self.shared, self.native.place())));
        for task in task::all_of(self) {
            task::lose(task);
        }
        // Each list is taken out before its entries are dropped, and each entry is dropped as a callback: a destructor
        // may do anything but block, and may use this crate.
        self.taken.take().into_iter().for_each(discard);
        self.shared.close().into_iter().for_each(discard);
        self.callbacks.take().into_iter().for_each(discard);
        self.emptied.take().into_iter().for_each(discard);
        self.timers.end();
        self.reactor.end();
        self.observed.set(false);
        discard(self.hook.take());
        discard(self.watch.take());
        discard(self.native.take_cold());
        self.contexts.trim();
        task::give_back(self);
    }

    /// The OS thread ends, but children of scopes on other OS threads run here. What they borrow may be freed only
    /// after their stacks have unwound, so this kills them and waits until they have ended.
    fn end_scoped(&'static self) {
        if self.scoped.get() == 0 {
            return;
        }
        for task in self.scoped_tasks() {
            interrupt::kill(self, TaskRef::new(task), task.id());
        }
        // The process ends with its main OS thread. Nothing that a child borrows is freed any more then, so the wait is
        // limited.
        let is_last = crate::sys::thread::id() == u64::from(std::process::id());
        let end = self.after(hubs::PATIENCE);
        if is_last {
            // An empty callback ends the turn's sleep at `end`.
            self.call_at(end, Box::new(|| ()));
        }
        let chain = current::set_aside();
        self.pumping.set(true);
        while self.scoped.get() > 0 {
            let stuck = self.turn(Sleep::Yes) == Turned::Stuck;
            if self.scoped.get() > 0 && (stuck || is_last && self.clock.now() >= end) {
                self.leave_scoped(is_last);
                break;
            }
        }
        self.pumping.set(false);
        current::restore(chain);
    }

    fn scoped_tasks(&self) -> impl Iterator<Item = &'static Task> {
        task::all_of(self).into_iter().filter(|task| task.is_scoped())
    }

    /// Some children of scopes will not end. Unless the process ends anyway it must abort: they would go on borrowing
    /// what is freed.
    #[cold]
    fn leave_scoped(&'static self, is_last: bool) {
        let lines: Vec<String> = self.scoped_tasks().map(line).collect();
        let lines = lines.join("\n  ");
        if !is_last {
            last_words(format_args!(
                "an OS thread ends, and scoped green threads of it never will: abort\n  {lines}"
            ));
            std::process::abort();
        }
        complain(format_args!(
            "the process ends, and scoped green threads have not ended\n  {lines}"
        ));
    }

    /// A child of a scope, which ran on this hub, has ended.
    pub(crate) fn leave_scope(&self) {
        self.scoped.set(self.scoped.get().saturating_sub(1));
        if self.scoped.get() == 0 {
            // `end_scoped` may be waiting for this: a callback keeps its turn from going to sleep.
            self.call(Box::new(|| ()));
        }
    }
}
