//! Sources: which tasks wait for which descriptor. The reactor queues waiters and runs no code of the user (I3).
//!
//! *Our own* sockets are registered once, at their first wait, edge-triggered in both directions. Each direction has a
//! slot: a `ready` bit and a line of waiters, oldest first. An edge sets the bit and wakes the oldest waiter. If that
//! task's attempt succeeds, it wakes the next waiter, because the descriptor may hold more. If the attempt fails with
//! `EAGAIN`, the task clears the bit and waits. A task that polls leaves its waker beside the line, and an edge wakes
//! it as well.
//!
//! *Foreign* descriptors (`wait_readable`) are armed at each wait, for one event. That stays correct after a `dup`,
//! after a close that this crate does not see, and after the number is reused.
//!
//! A poller has one registration for each pair of a number and its open file. The reactor never takes a registration
//! away from the source that uses it, and never deletes it on that source's behalf: a second source waits for a copy
//! (`dup`) of the descriptor.
//!
//! A key is (index, generation). An event with an old generation is dropped, so the new owner of a reused number never
//! gets an event of the old one.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::task::Waker;
use std::time::Duration;

use super::Hub;
use super::park::{Mode, Parker, Waiter, Wake, Why};
use super::poller::{Poller, Readiness};

/// The direction of a wait: for input or for output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Read = 0,
    Write = 1,
}

/// Names a registered source: its index and its generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key(u64);

impl Key {
    fn new(index: usize, generation: u32) -> Key {
        Key(u64::from(generation) << 32 | index as u64)
    }

    fn index(self) -> usize {
        (self.0 & u64::from(u32::MAX)) as usize
    }
}

/// One direction of one source.
#[derive(Default)]
struct Slot {
    /// There was an edge since the last `EAGAIN`, so an attempt may succeed. Never set for a foreign descriptor.
    ready: bool,
    /// The oldest waiter. It has a field of its own, so that a single waiter needs no allocation.
    first: Option<(u64, Waiter)>,
    /// The other waiters, oldest first.
    more: VecDeque<(u64, Waiter)>,
    /// The waker of the task that polled last and got nothing. It is kept beside the line: that task may never poll
    /// again, and a place in the line would use up an edge.
    polled: Option<Waker>,
}

impl Slot {
    fn push(&mut self, number: u64, waiter: Waiter) {
        if self.first.is_none() && self.more.is_empty() {
            self.first = Some((number, waiter));
        } else {
            self.more.push_back((number, waiter));
        }
    }

    fn pop(&mut self) -> Option<Waiter> {
        self.first
            .take()
            .or_else(|| self.more.pop_front())
            .map(|(_, waiter)| waiter)
    }

    /// Takes a waiter out of the line; `false` if it was woken meanwhile.
    fn remove(&mut self, number: u64) -> bool {
        self.take(number).is_some()
    }

    fn take(&mut self, number: u64) -> Option<Waiter> {
        if let Some((_, waiter)) = self.first.take_if(|(n, _)| *n == number) {
            return Some(waiter);
        }
        let at = self.more.iter().position(|(n, _)| *n == number);
        at.and_then(|at| self.more.remove(at)).map(|(_, waiter)| waiter)
    }

    fn is_waited_for(&self) -> bool {
        self.first.is_some() || !self.more.is_empty()
    }
}

#[derive(Default)]
struct Source {
    generation: u32,
    live: bool,
    /// The peer has hung up or shut down at least one direction. No later edge will announce the end of the stream.
    closed: bool,
    /// The descriptor's number.
    fd: RawFd,
    foreign: bool,
    slots: [Slot; 2],
}

/// The sources of one hub. It has no entries and no descriptor of its own until a task waits for a descriptor.
#[derive(Default)]
pub(crate) struct Reactor {
    poller: RefCell<Option<Poller>>,
    sources: RefCell<Vec<Source>>,
    free: RefCell<Vec<usize>>,
    foreign: RefCell<HashMap<RawFd, Key>>,
    /// How many waits are under way. At zero no event can wake a task, and the turn need not ask the kernel.
    waiting: Cell<usize>,
    numbers: Cell<u64>,
    /// The numbers of foreign waits that return `EBADF`, as their descriptor was [closed](Self::close_foreign).
    broken: RefCell<Vec<u64>>,
}

impl Reactor {
    /// Whether one of the reactor's cells is borrowed (I14).
    #[cfg(feature = "monkey")]
    pub(super) fn is_borrowed(&self) -> bool {
        let lists = self.free.try_borrow_mut().is_err() || self.broken.try_borrow_mut().is_err();
        let known = self.sources.try_borrow_mut().is_err() || self.foreign.try_borrow_mut().is_err();
        lists || known || self.poller.try_borrow_mut().is_err()
    }

    #[inline]
    pub(super) fn has_poller(&self) -> bool {
        self.poller.borrow().is_some()
    }

    #[inline]
    pub(super) fn is_waited_for(&self) -> bool {
        self.waiting.get() > 0
    }

    #[inline]
    fn begins_to_wait(&self, hub: &Hub) {
        if self.waiting.get() == 0 {
            // The turn did not have to watch the clock so far. From now on a long batch of resumes would delay events.
            hub.watches_clock();
        }
        self.waiting.set(self.waiting.get() + 1);
    }

    fn with_poller<R>(&self, hub: &Hub, f: impl FnOnce(&mut Poller) -> io::Result<R>) -> io::Result<R> {
        let mut poller = self.poller.borrow_mut();
        if poller.is_none() && hub.is_over() {
            return Err(super::ended());
        }
        if poller.is_none() {
            // Made as in a callback, which cannot park. `set_poller` takes the bell's lock, and another OS thread may
            // hold it: with patched libc this green thread would park for it while the cell `poller` is borrowed.
            *poller = Some(hub.as_callback(|| {
                let new = Poller::new()?;
                hub.shared.set_poller(new.shared());
                Ok::<_, io::Error>(new)
            })?);
        }
        // The poller was made above: this error is never returned.
        poller.as_mut().map_or_else(|| Err(io::ErrorKind::Other.into()), f)
    }

    pub(super) fn ensure_poller(&self, hub: &Hub) -> io::Result<std::sync::Arc<polling::Poller>> {
        self.with_poller(hub, |poller| Ok(poller.shared()))
    }

    fn make(&self, fd: RawFd, foreign: bool) -> Key {
        let mut sources = self.sources.borrow_mut();
        let index = self.free.borrow_mut().pop().unwrap_or_else(|| {
            sources.push(Source::default());
            sources.len() - 1
        });
        let source = &mut sources[index];
        source.live = true;
        source.closed = false;
        source.fd = fd;
        source.foreign = foreign;
        source.slots = Default::default();
        Key::new(index, source.generation)
    }

    /// Calls `f` with the source of `key`; `None` if the key is stale. The sources are borrowed meanwhile, so `f` must
    /// run no code of the user: no clone or drop of a foreign waker.
    fn with<R>(&self, key: Key, f: impl FnOnce(&mut Source) -> R) -> Option<R> {
        let mut sources = self.sources.borrow_mut();
        let source = sources.get_mut(key.index())?;
        (source.live && Key::new(key.index(), source.generation) == key).then(|| f(source))
    }

    /// Registers one of our own sockets. If another source uses the only registration that its number can have, a copy
    /// of the descriptor is registered instead: the caller keeps the copy as long as the key.
    pub(crate) fn register(&self, hub: &'static Hub, fd: BorrowedFd<'_>) -> io::Result<(Key, Option<OwnedFd>)> {
        let raw = fd.as_raw_fd();
        let key = self.make(raw, false);
        let added = self.with_poller(hub, |poller| {
            // The usual case: the kernel has no registration of this number and open file.
            if poller.add(fd, key.0)? {
                return Ok(true);
            }
            if self.is_taken(raw, key) {
                return Ok(false);
            }
            // The registration is a leftover that no source uses, so this source takes it over. It is left by foreign
            // waits that are over, or by a source of the same open file that was deregistered on another OS thread,
            // where it could not be deleted.
            poller.replace(fd, key.0).map(|()| true)
        });
        match added {
            Ok(false) => {
                // The copy has a number of its own, and so gets a registration of its own.
                self.forget(key);
                let copy = fd.try_clone_to_owned()?;
                let (key, other) = self.register(hub, copy.as_fd())?;
                Ok((key, other.or(Some(copy))))
            }
            Ok(true) => {
                // The kernel had no registration of this number and open file. So a foreign wait for the number is for
                // an earlier file, which was closed: end it with `EBADF`.
                self.break_foreign(hub, raw);
                Ok((key, None))
            }
            Err(error) => {
                self.forget(key);
                Err(error)
            }
        }
    }

    /// Whether a source other than `key` uses the registration of a number: a source of our own, or foreign waits under
    /// way.
    fn is_taken(&self, raw: RawFd, key: Key) -> bool {
        let has_it = |source: &Source| source.live && source.fd == raw;
        let is_used = |source: &Source| !source.foreign || source.slots.iter().any(Slot::is_waited_for);
        let sources = self.sources.borrow();
        let mut others = sources.iter().enumerate().filter(|(index, _)| *index != key.index());
        others.any(|(_, source)| has_it(source) && is_used(source))
    }

    /// Takes one of our own sockets out before it is closed, and wakes its waiters.
    ///
    /// Without `fd` (another OS thread closes the descriptor) the kernel removes the registration when the last `dup`
    /// of the descriptor is closed. Events until then have an old key and are dropped. An `fd` with another number than
    /// the registered one is another descriptor: its registration is left alone.
    pub(crate) fn deregister(&self, hub: &'static Hub, key: Key, fd: Option<BorrowedFd<'_>>) {
        let registered = self.with(key, |source| source.fd);
        if let Some(fd) = fd.filter(|fd| Some(fd.as_raw_fd()) == registered)
            && let Some(poller) = &*self.poller.borrow()
        {
            poller.delete(fd);
        }
        // The waiters try again, and find that the key is stale or the descriptor closed.
        self.wake_all(hub, key);
        self.forget(key);
    }

    fn forget(&self, key: Key) {
        let known = self.with(key, |source| {
            source.live = false;
            // From here on every key and event of the old generation is stale. The top bit stays 0, so that no key
            // equals the poller's `BELL`.
            source.generation = source.generation.wrapping_add(1) & (u32::MAX >> 1);
            source.slots = Default::default();
        });
        if known.is_some() {
            self.free.borrow_mut().push(key.index());
        }
    }

    /// The hub has ended: closes the poller, and drops all wakers that are left.
    pub(super) fn end(&self) {
        drop(self.poller.take());
        self.foreign.take();
        for slot in self.sources.take().iter_mut().flat_map(|source| &mut source.slots) {
            super::discard(slot.polled.take());
            while let Some(waiter) = slot.pop() {
                super::discard(waiter);
            }
        }
    }

    fn wake_all(&self, hub: &'static Hub, key: Key) {
        for direction in [Direction::Read, Direction::Write] {
            // No task can poll this source again, so its waker is dropped and not called. The drop runs code of the
            // user: outside of the borrow.
            let polled = self.with(key, |s| s.slots[direction as usize].polled.take()).flatten();
            if let Some(polled) = polled {
                self.waiting.set(self.waiting.get() - 1);
                super::discard(polled);
            }
            while let Some(waiter) = self.with(key, |s| s.slots[direction as usize].pop()).flatten() {
                hub.wake(waiter);
            }
        }
    }

    /// Whether an attempt is known to fail with `EAGAIN`: the descriptor was drained, and no edge came since.
    #[inline]
    pub(crate) fn is_drained(&self, key: Key, direction: Direction) -> bool {
        self.with(key, |source| !source.slots[direction as usize].ready)
            .unwrap_or(false)
    }

    /// Notes that an attempt failed with `EAGAIN`. The next one must wait for an edge.
    #[inline]
    pub(crate) fn drained(&self, key: Key, direction: Direction) {
        self.with(key, |source| source.slots[direction as usize].ready = false);
    }

    /// The same after a short read of a stream, which saves the attempt that would fail. Not if the source is `closed`:
    /// the end of the stream is still to be read, and no edge will announce it.
    #[inline]
    pub(crate) fn drained_by_short_read(&self, key: Key) {
        self.with(key, |source| {
            source.slots[Direction::Read as usize].ready &= source.closed
        });
    }

    /// An attempt succeeded: wakes the next waiter, because the descriptor may hold more than this attempt took.
    #[inline]
    pub(crate) fn succeeded(&self, hub: &'static Hub, key: Key, direction: Direction) {
        let next = self.with(key, |source| {
            let slot = &mut source.slots[direction as usize];
            if slot.is_waited_for() { slot.pop() } else { None }
        });
        if let Some(Some(waiter)) = next {
            hub.wake(waiter);
        }
    }

    /// Waits until a registered source may be ready; then the caller tries again.
    #[inline]
    pub(crate) fn wait(&self, parker: Parker, key: Key, direction: Direction, deadline: Option<u64>, why: Why) -> Wake {
        let number = self.numbers.get() + 1;
        self.numbers.set(number);
        let waiter = parker.waiter();
        let hub = parker.hub;
        let queued = self.with(key, |source| {
            let slot = &mut source.slots[direction as usize];
            // An edge has come since the caller's `EAGAIN`: try again at once. Only this OS thread's turns dispatch
            // events, so no edge can come between this look and the park.
            if slot.ready {
                return false;
            }
            slot.push(number, waiter);
            true
        });
        if queued != Some(true) {
            // Ready, or the key is stale: the caller's next attempt finds out which.
            return Wake::Ready;
        }
        self.begins_to_wait(hub);
        let wake = parker.park(deadline, Mode::Cancel, why);
        self.waiting.set(self.waiting.get() - 1);
        if wake != Wake::Ready {
            // The park ended by time-out or interrupt: leave the line.
            let mine = self.with(key, |source| source.slots[direction as usize].remove(number));
            if mine == Some(false) {
                // An edge took this waiter out of the line after the time-out had consumed the ticket. The caller will
                // not use that edge: wake the next waiter instead.
                self.succeeded(hub, key, direction);
            }
        }
        wake
    }

    /// As [`wait`](Self::wait), for a future: has `waker` called when the source may be ready. The number is for
    /// [`dequeue`](Self::dequeue); `None` if the source may be ready now.
    pub(crate) fn enqueue(&self, hub: &Hub, key: Key, direction: Direction, waker: Waker) -> Option<u64> {
        let number = self.numbers.get() + 1;
        self.numbers.set(number);
        let mut waker = Some(waker);
        self.with(key, |source| {
            let slot = &mut source.slots[direction as usize];
            if !slot.ready
                && let Some(waker) = waker.take()
            {
                slot.push(number, Waiter::Waker(waker));
            }
        });
        // The waker was not queued. It is dropped here, outside of the borrow: its drop runs the user's code.
        if waker.is_some() {
            return None;
        }
        self.begins_to_wait(hub);
        Some(number)
    }

    /// Has `waker` called at the next edge, in place of the waker that was left before; `false` if the source may be
    /// ready now.
    pub(crate) fn wake_later(&self, hub: &Hub, key: Key, direction: Direction, waker: &Waker) -> bool {
        let stands = self.with(key, |source| {
            let slot = &source.slots[direction as usize];
            (!slot.ready).then(|| slot.polled.as_ref().is_some_and(|polled| polled.will_wake(waker)))
        });
        match stands.flatten() {
            None => return false,
            Some(true) => return true,
            Some(false) => {}
        }
        // The clone of this waker, and the drop of the one that it replaces, run the user's code: both happen outside
        // of the borrow.
        let mut waker = Some(waker.clone());
        let was_left = self.with(key, |source| {
            let slot = &mut source.slots[direction as usize];
            // Look again: the clone may have run code that changed the slot.
            if slot.ready {
                return false;
            }
            std::mem::swap(&mut slot.polled, &mut waker);
            true
        });
        if was_left != Some(true) {
            return false;
        }
        // A waker that replaces another goes on with the other's count.
        if waker.is_none() {
            self.begins_to_wait(hub);
        }
        true
    }

    /// A future waits no more: takes it out of the line. `false` if it was woken before.
    pub(crate) fn dequeue(&self, key: Key, direction: Direction, number: u64) -> bool {
        self.waiting.set(self.waiting.get() - 1);
        let mut mine = None;
        let was_queued = self.with(key, |source| {
            mine = source.slots[direction as usize].take(number);
            mine.is_some()
        });
        // The waker's drop runs the user's code: outside of the borrow.
        drop(mine);
        was_queued == Some(true)
    }

    /// Waits until a foreign descriptor is ready. `is_closed` says whether the descriptor was closed, or is about to
    /// be. It is asked after the park, because the event may have been that of another file with the same number.
    pub(crate) fn wait_foreign(
        &self,
        parker: Parker,
        fd: BorrowedFd<'_>,
        direction: Direction,
        deadline: Option<u64>,
        why: Why,
        is_closed: impl Fn() -> bool,
    ) -> io::Result<Wake> {
        let hub = parker.hub;
        let raw = fd.as_raw_fd();
        let known = self.foreign.borrow().get(&raw).copied();
        let key = known.unwrap_or_else(|| {
            let key = self.make(raw, true);
            self.foreign.borrow_mut().insert(raw, key);
            key
        });
        if known.is_none() && !self.with_poller(hub, |poller| Ok(poller.claim(fd, key.0)))? {
            // This number and open file are registered already, as one of our own sockets. Arming it would change that
            // registration, so wait for a copy of the descriptor.
            self.foreign.borrow_mut().remove(&raw);
            self.forget(key);
            let copy = fd.try_clone_to_owned()?;
            return self.wait_foreign(parker, copy.as_fd(), direction, deadline, why, is_closed);
        }
        let number = self.numbers.get() + 1;
        self.numbers.set(number);
        // Enter the line first: `arm` asks for the directions in which the line is not empty.
        self.with(key, |source| {
            source.slots[direction as usize].push(number, parker.waiter())
        });
        if let Err(error) = self.arm(hub, fd, key) {
            self.with(key, |source| source.slots[direction as usize].remove(number));
            self.forget_foreign(raw, key);
            // `EPERM`: epoll cannot watch this kind of file (a regular file, say), which is always ready.
            return if error.raw_os_error() == Some(rustix::io::Errno::PERM.raw_os_error()) {
                Ok(Wake::Ready)
            } else {
                Err(error)
            };
        }
        self.begins_to_wait(hub);
        let wake = parker.park(deadline, Mode::Cancel, why);
        self.waiting.set(self.waiting.get() - 1);
        // Needed after a time-out or an interrupt; an event has taken the waiter out already.
        self.with(key, |source| source.slots[direction as usize].remove(number));
        if self.takes_broken(number) || is_closed() {
            // The number may name another file by now: do not arm it again.
            self.forget_foreign(raw, key);
            return Err(rustix::io::Errno::BADF.into());
        }
        self.settle_foreign(hub, key, fd);
        Ok(wake)
    }

    /// Whether the descriptor of this wait was closed meanwhile through [`close_foreign`](Self::close_foreign), or its
    /// number registered anew.
    fn takes_broken(&self, number: u64) -> bool {
        let mut broken = self.broken.borrow_mut();
        let at = broken.iter().position(|n| *n == number);
        at.map(|at| broken.swap_remove(at)).is_some()
    }

    /// Arms a foreign descriptor for one event in each direction that has waiters.
    fn arm(&self, hub: &Hub, fd: BorrowedFd<'_>, key: Key) -> io::Result<()> {
        let wants = self.with(key, |source| source.slots.each_ref().map(Slot::is_waited_for));
        let [read, write] = wants.unwrap_or_default();
        self.with_poller(hub, |poller| poller.arm(fd, key.0, read, write))
    }

    /// Arms a foreign number again for the waiters that remain. If there are none, the number stays known but unarmed,
    /// which saves the next wait two system calls. If the number names another file by then, arming it finds no
    /// registration and makes one.
    fn settle_foreign(&self, hub: &Hub, key: Key, fd: BorrowedFd<'_>) {
        let waited = self.with(key, |source| source.slots.iter().any(Slot::is_waited_for));
        if waited == Some(true) {
            // An error is ignored: this wait is over, and the remaining waiters find out at their next event or
            // deadline.
            let _ = self.arm(hub, fd, key);
        }
    }

    /// Forgets a foreign number, unless other tasks wait for it.
    fn forget_foreign(&self, raw: RawFd, key: Key) {
        if self.with(key, |source| source.slots.iter().any(Slot::is_waited_for)) == Some(false) {
            self.foreign.borrow_mut().remove(&raw);
            self.forget(key);
        }
    }

    /// A foreign number is about to be closed: ends all waits for it with `EBADF`.
    pub(crate) fn close_foreign(&self, hub: &'static Hub, fd: BorrowedFd<'_>) {
        if self.break_foreign(hub, fd.as_raw_fd())
            && let Some(poller) = &*self.poller.borrow()
        {
            poller.delete(fd);
        }
    }

    /// Forgets a foreign number, and ends all waits for it with `EBADF`; whether it was known.
    fn break_foreign(&self, hub: &'static Hub, raw: RawFd) -> bool {
        let Some(key) = self.foreign.borrow_mut().remove(&raw) else {
            return false;
        };
        for direction in [Direction::Read, Direction::Write] {
            while let Some((number, waiter)) = self
                .with(key, |s| {
                    let slot = &mut s.slots[direction as usize];
                    slot.first.take().or_else(|| slot.more.pop_front())
                })
                .flatten()
            {
                // The wait finds its number here when it is resumed, and returns `EBADF`.
                self.broken.borrow_mut().push(number);
                hub.wake(waiter);
            }
        }
        self.forget(key);
        true
    }

    /// Asks the kernel for events, waiting for at most `timeout`, and wakes the tasks that they are for.
    pub(super) fn poll(&self, hub: &'static Hub, timeout: Option<Duration>) -> io::Result<()> {
        let mut poller = self.poller.borrow_mut();
        let Some(poller) = poller.as_mut() else {
            return Ok(());
        };
        // The cell `poller` stays borrowed during the dispatch, which only queues tasks and callbacks (I3).
        poller.wait(timeout, |key, readiness| self.dispatch(hub, Key(key), readiness))
    }

    /// Handles one event: sets the `ready` bits and wakes the waiters. An event with a stale key does nothing.
    #[inline]
    fn dispatch(&self, hub: &'static Hub, key: Key, readiness: Readiness) {
        // Take the waiters out under the borrow, and wake them after it.
        let woken = self.with(key, |source| {
            let foreign = source.foreign;
            source.closed |= readiness.closed && !foreign;
            // One waiter is enough for an edge, as it wakes the next when its attempt succeeds. But a foreign waiter
            // may not attempt anything, and a closed source gets no further edge: there all waiters are woken.
            let everybody = foreign || source.closed;
            let mut woken = [None, None];
            let mut polled = [None, None];
            for (direction, ready) in [(0, readiness.read), (1, readiness.write || readiness.closed)] {
                if ready {
                    let slot = &mut source.slots[direction];
                    // A foreign wait always asks the kernel: the program reads the file without telling the reactor.
                    slot.ready = !foreign;
                    woken[direction] = slot.pop();
                    polled[direction] = slot.polled.take();
                }
            }
            (woken, polled, everybody && source.slots.iter().any(Slot::is_waited_for))
        });
        let Some((woken, polled, more)) = woken else { return };
        for polled in polled.into_iter().flatten() {
            self.waiting.set(self.waiting.get() - 1);
            hub.wake(Waiter::Waker(polled));
        }
        for waiter in woken.into_iter().flatten() {
            hub.wake(waiter);
        }
        if more {
            self.wake_rest(hub, key, readiness);
        }
    }

    /// Wakes all waiters of a foreign or closed source in each direction that fired. A foreign descriptor is disarmed
    /// after an event: the tasks woken here arm it again for the waiters of the other direction (`settle_foreign`).
    #[cold]
    fn wake_rest(&self, hub: &'static Hub, key: Key, readiness: Readiness) {
        for (direction, ready) in [(0, readiness.read), (1, readiness.write || readiness.closed)] {
            while ready && let Some(waiter) = self.with(key, |s| s.slots[direction].pop()).flatten() {
                hub.wake(waiter);
            }
        }
    }
}
