//! The end of a hub, with its OS thread; and what the rest of the crate asks after it, in destructors of thread-locals.
//! What those may expect is in a table of [`hub`](super).
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::io;
use std::time::{Duration, Instant};

use super::task::{self, Task, TaskRef};
use super::{ENDED, HUB, Hub, Sleep, Turned, complain, discard, hubs, interrupt, line};
use crate::fiber::current;
use crate::sys::report::last_words;

/// What is wrong with a call that needs the hub, after its end.
pub(super) const AFTER_END: &str = "the hub of this OS thread has ended: this runs in a destructor of a thread-local";

/// The same as an error.
#[cold]
pub(crate) fn ended() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, AFTER_END)
}

/// A deadline `timeout` from now, for a wait of the caller's. After the hub's end nothing can be waited for, and the
/// deadline of whatever has one counts as passed.
#[inline]
#[track_caller]
pub(crate) fn deadline_in(timeout: Duration) -> u64 {
    if Hub::has_ended() {
        0
    } else {
        Hub::current().after(timeout)
    }
}

/// The same for a moment of std's time.
#[inline]
#[track_caller]
pub(crate) fn deadline_at(moment: Instant) -> u64 {
    if Hub::has_ended() {
        0
    } else {
        Hub::current().clock.nanos(moment)
    }
}

/// Whether the hub has ended, so that a wait with this deadline is over at once. One without a deadline goes on to make a
/// `Parker`, which says in a panic what is wrong.
#[inline]
pub(crate) fn is_past(deadline: Option<u64>) -> bool {
    deadline.is_some() && Hub::has_ended()
}

/// The number of who runs: see [`Hub::who`]. After the hub's end that of the OS thread.
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
pub(super) struct End(pub(super) Cell<Option<task::Keep>>);

impl Drop for End {
    fn drop(&mut self) {
        let Some(hub) = HUB.get().filter(|hub| hub.fork_epoch == crate::sys::fork::fork_epoch()) else {
            return ENDED.set(true);
        };
        if hub.scoped.get() > 0 && (hub.current.get().is_some() || hub.pumping.get()) {
            // No end of the OS thread: code that the hub runs has called `exit`. What waits for it would never come, and
            // nothing that a scope has lent is freed any more.
            return;
        }
        hub.end_scoped();
        task::end_runners(hub);
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

    /// Whether it has ended, and only frames of its native stack still name it.
    #[cold]
    pub(super) fn is_over(&self) -> bool {
        self.shared.generation() != self.generation
    }

    /// The OS thread ends: what is parked is leaked, and whoever joins it is told. All that is the user's goes here, where
    /// destructors of thread-locals run; the memory itself later, see [`Keep`](task::Keep).
    fn end(&'static self) {
        // A park that was begun before finds that another task runs, and does not take place.
        self.current.set(Some(task::native(self.shared, self.native.place())));
        for task in task::all_of(self) {
            task::lose(task);
        }
        // One by one: each destructor may do anything but block.
        self.taken.take().into_iter().for_each(discard);
        self.shared.close().into_iter().for_each(discard);
        self.callbacks.take().into_iter().for_each(discard);
        self.emptied.take().into_iter().for_each(discard);
        self.timers.end();
        self.reactor.end();
        self.observed.set(false);
        discard(self.hook.take());
        discard(self.watch.take());
        discard(self.native.take_extra());
        self.contexts.trim();
        task::give_back(self);
    }

    /// The OS thread ends, and there are children of scopes that wait elsewhere: what they borrow may only go when their
    /// stacks have, so they are killed, and it waits for them.
    fn end_scoped(&'static self) {
        if self.scoped.get() == 0 {
            return;
        }
        for task in self.scoped_tasks() {
            interrupt::kill(self, TaskRef::new(task), task.id());
        }
        // The end of the first one is that of the process: nothing that a child borrows goes any more.
        let is_last = crate::sys::thread::id() == u64::from(std::process::id());
        let end = self.after(hubs::PATIENCE);
        if is_last {
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

    /// Children of scopes will not end.
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

    /// A child of a scope, which runs here, has ended.
    pub(crate) fn leave_scope(&self) {
        self.scoped.set(self.scoped.get().saturating_sub(1));
        if self.scoped.get() == 0 {
            // The end of the OS thread may wait for it: its turn is not to sleep.
            self.call(Box::new(|| ()));
        }
    }
}
