//! Sources: who waits for which descriptor. Puts waiters on the ready queue and runs no code of the user.
//!
//! *Our own* sockets are registered once, at their first wait, edge-triggered in both directions. Each direction has a
//! slot: a `ready` bit and the waiters, oldest first. An edge sets the bit and wakes the oldest; whoever then succeeds
//! wakes the next (the descriptor may hold more), and whoever gets `EAGAIN` clears the bit and waits. A task that polls
//! leaves its waker beside the line: an edge wakes it as well.
//! *Foreign* descriptors (`wait_readable`) are armed for one event at each wait: that survives dup, close behind our back
//! and reuse of the number.
//! A poller has one registration for a number and its open file. It is never taken from whoever has it, nor deleted for
//! them: a second one waits for a copy of the descriptor.
//!
//! A key is (index, generation). An event with an old generation is dropped, so a reused number never gets a stale one.
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

/// Which way data goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Read = 0,
    Write = 1,
}

/// Names a registered source.
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
    ready: bool,
    /// The first who waits; the rest, if there are several.
    first: Option<(u64, Waiter)>,
    more: VecDeque<(u64, Waiter)>,
    /// Who polled last, and got nothing. It waits beside the line, for it may never come back.
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

    /// Takes a waiter back; `false` if it was woken meanwhile.
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
    /// Hung up or shut down, in part at least: that the end comes is no longer told by an edge.
    closed: bool,
    /// The descriptor's number.
    fd: RawFd,
    foreign: bool,
    slots: [Slot; 2],
}

/// The sources of one hub. Empty, and without a descriptor of its own, until somebody waits for one.
#[derive(Default)]
pub(crate) struct Reactor {
    poller: RefCell<Option<Poller>>,
    sources: RefCell<Vec<Source>>,
    free: RefCell<Vec<usize>>,
    foreign: RefCell<HashMap<RawFd, Key>>,
    /// How many wait: zero means that no event can wake anybody.
    waiting: Cell<usize>,
    numbers: Cell<u64>,
    /// A foreign number was closed by [`closed`](Self::close_foreign) while waited for.
    broken: RefCell<Vec<u64>>,
}

impl Reactor {
    /// Whether one of its cells is borrowed.
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
            // As in a callback, for the bell's lock may be held: with patched libc a green thread would park, with the
            // poller in hand.
            *poller = Some(hub.as_callback(|| {
                let new = Poller::new()?;
                hub.shared.set_poller(new.shared());
                Ok::<_, io::Error>(new)
            })?);
        }
        // Just made sure.
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

    fn with<R>(&self, key: Key, f: impl FnOnce(&mut Source) -> R) -> Option<R> {
        let mut sources = self.sources.borrow_mut();
        let source = sources.get_mut(key.index())?;
        (source.live && Key::new(key.index(), source.generation) == key).then(|| f(source))
    }

    /// Registers one of our own sockets. If another source has the registration of its number, which there is only one
    /// of, a copy of the descriptor is registered: the caller keeps it as long as the key.
    pub(crate) fn register(&self, hub: &'static Hub, fd: BorrowedFd<'_>) -> io::Result<(Key, Option<OwnedFd>)> {
        let raw = fd.as_raw_fd();
        let key = self.make(raw, false);
        let added = self.with_poller(hub, |poller| {
            if poller.add(fd, key.0)? {
                return Ok(true);
            }
            if self.is_taken(raw, key) {
                return Ok(false);
            }
            // Left by who had the same open file before, and gave it away on another OS thread; or by foreign waits.
            poller.replace(fd, key.0).map(|()| true)
        });
        match added {
            Ok(false) => {
                self.forget(key);
                let copy = fd.try_clone_to_owned()?;
                let (key, other) = self.register(hub, copy.as_fd())?;
                Ok((key, other.or(Some(copy))))
            }
            Ok(true) => {
                // Who waits for the number as a foreign one waits for a file that was closed.
                self.break_foreign(hub, raw);
                Ok((key, None))
            }
            Err(error) => {
                self.forget(key);
                Err(error)
            }
        }
    }

    /// Whether another than `key` has the registration of a number: a source of our own, or foreign waits under way.
    fn is_taken(&self, raw: RawFd, key: Key) -> bool {
        let has_it = |source: &Source| source.live && source.fd == raw;
        let is_used = |source: &Source| !source.foreign || source.slots.iter().any(Slot::is_waited_for);
        let sources = self.sources.borrow();
        let mut others = sources.iter().enumerate().filter(|(index, _)| *index != key.index());
        others.any(|(_, source)| has_it(source) && is_used(source))
    }

    /// Takes one of our own sockets out, before it is closed. Who waits for it is woken.
    ///
    /// Without `fd` (it is closed by another OS thread) the kernel takes it out, or its last `dup` does; events until
    /// then have an old key. An `fd` with another number than it was registered by is somebody else's.
    pub(crate) fn deregister(&self, hub: &'static Hub, key: Key, fd: Option<BorrowedFd<'_>>) {
        let registered = self.with(key, |source| source.fd);
        if let Some(fd) = fd.filter(|fd| Some(fd.as_raw_fd()) == registered)
            && let Some(poller) = &*self.poller.borrow()
        {
            poller.delete(fd);
        }
        self.wake_all(hub, key);
        self.forget(key);
    }

    fn forget(&self, key: Key) {
        let known = self.with(key, |source| {
            source.live = false;
            source.generation = source.generation.wrapping_add(1) & (u32::MAX >> 1);
            source.slots = Default::default();
        });
        if known.is_some() {
            self.free.borrow_mut().push(key.index());
        }
    }

    /// Closes the poller, and drops all wakers that are left: the hub has ended.
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
            // Nobody can poll what goes. The waker is the user's.
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

    /// Whether an attempt is known to be in vain: drained, and no edge since.
    #[inline]
    pub(crate) fn is_drained(&self, key: Key, direction: Direction) -> bool {
        self.with(key, |source| !source.slots[direction as usize].ready)
            .unwrap_or(false)
    }

    /// Says that the descriptor was drained: `EAGAIN`.
    #[inline]
    pub(crate) fn drained(&self, key: Key, direction: Direction) {
        self.with(key, |source| source.slots[direction as usize].ready = false);
    }

    /// The same after a short read; unless the edge that is used up told of the end too, which is still to be read.
    #[inline]
    pub(crate) fn drained_by_short_read(&self, key: Key) {
        self.with(key, |source| {
            source.slots[Direction::Read as usize].ready &= source.closed
        });
    }

    /// An attempt succeeded: the next who waits may try as well.
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

    /// Waits until a registered source may be ready; the caller tries again.
    #[inline]
    pub(crate) fn wait(&self, parker: Parker, key: Key, direction: Direction, deadline: Option<u64>, why: Why) -> Wake {
        let number = self.numbers.get() + 1;
        self.numbers.set(number);
        let waiter = parker.waiter();
        let hub = parker.hub;
        let queued = self.with(key, |source| {
            let slot = &mut source.slots[direction as usize];
            if slot.ready {
                return false;
            }
            slot.push(number, waiter);
            true
        });
        if queued != Some(true) {
            return Wake::Ready;
        }
        self.begins_to_wait(hub);
        let wake = parker.park(deadline, Mode::Cancel, why);
        self.waiting.set(self.waiting.get() - 1);
        if wake != Wake::Ready {
            let mine = self.with(key, |source| source.slots[direction as usize].remove(number));
            if mine == Some(false) {
                // It was handed an edge that it will not use.
                self.succeeded(hub, key, direction);
            }
        }
        wake
    }

    /// As [`wait`](Self::wait), for a future: has `waker` called when the source may be ready. The number is for
    /// [`dequeue`](Self::dequeue); none if it may be ready now.
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
        // One that is left is the user's to drop: here, outside of the borrow.
        if waker.is_some() {
            return None;
        }
        self.begins_to_wait(hub);
        Some(number)
    }

    /// Has `waker` called at the next edge, in place of the one that was left before; `false` if it may be ready now.
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
        // The user's, as is the one that it replaces: cloned and dropped outside of the borrow.
        let mut waker = Some(waker.clone());
        let was_left = self.with(key, |source| {
            let slot = &mut source.slots[direction as usize];
            if slot.ready {
                return false;
            }
            std::mem::swap(&mut slot.polled, &mut waker);
            true
        });
        if was_left != Some(true) {
            return false;
        }
        if waker.is_none() {
            self.begins_to_wait(hub);
        }
        true
    }

    /// A future waits no more; whether it had not been woken.
    pub(crate) fn dequeue(&self, key: Key, direction: Direction, number: u64) -> bool {
        self.waiting.set(self.waiting.get() - 1);
        let mut mine = None;
        let was_queued = self.with(key, |source| {
            mine = source.slots[direction as usize].take(number);
            mine.is_some()
        });
        // The waker is the user's: dropped outside of the borrow.
        drop(mine);
        was_queued == Some(true)
    }

    /// Waits until a descriptor that is not registered is ready. `is_closed` is asked after a wake that may have been
    /// somebody else's: whether the descriptor was closed, or is about to be.
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
            // One of our own sockets: its registration stays as it is, and a copy of the descriptor is waited for.
            self.foreign.borrow_mut().remove(&raw);
            self.forget(key);
            let copy = fd.try_clone_to_owned()?;
            return self.wait_foreign(parker, copy.as_fd(), direction, deadline, why, is_closed);
        }
        let number = self.numbers.get() + 1;
        self.numbers.set(number);
        self.with(key, |source| {
            source.slots[direction as usize].push(number, parker.waiter())
        });
        if let Err(error) = self.arm(hub, fd, key) {
            self.with(key, |source| source.slots[direction as usize].remove(number));
            self.forget_foreign(raw, key);
            // A file that cannot be polled is always ready.
            return if error.raw_os_error() == Some(rustix::io::Errno::PERM.raw_os_error()) {
                Ok(Wake::Ready)
            } else {
                Err(error)
            };
        }
        self.begins_to_wait(hub);
        let wake = parker.park(deadline, Mode::Cancel, why);
        self.waiting.set(self.waiting.get() - 1);
        self.with(key, |source| source.slots[direction as usize].remove(number));
        if self.takes_broken(number) || is_closed() {
            // Its number may be another's by now.
            self.forget_foreign(raw, key);
            return Err(rustix::io::Errno::BADF.into());
        }
        self.settle_foreign(hub, key, fd);
        Ok(wake)
    }

    /// Whether the descriptor of this wait was closed meanwhile, as far as we were told.
    fn takes_broken(&self, number: u64) -> bool {
        let mut broken = self.broken.borrow_mut();
        let at = broken.iter().position(|n| *n == number);
        at.map(|at| broken.swap_remove(at)).is_some()
    }

    fn arm(&self, hub: &Hub, fd: BorrowedFd<'_>, key: Key) -> io::Result<()> {
        let wants = self.with(key, |source| source.slots.each_ref().map(Slot::is_waited_for));
        let [read, write] = wants.unwrap_or_default();
        self.with_poller(hub, |poller| poller.arm(fd, key.0, read, write))
    }

    /// Arms a foreign number again for those who still wait. Without any it stays known, unarmed: the next wait saves two
    /// calls, and whoever has the number by then is found out when it is armed.
    fn settle_foreign(&self, hub: &Hub, key: Key, fd: BorrowedFd<'_>) {
        let waited = self.with(key, |source| source.slots.iter().any(Slot::is_waited_for));
        if waited == Some(true) {
            // It could be armed before; if not now, whoever waits finds out at the next event or deadline.
            let _ = self.arm(hub, fd, key);
        }
    }

    /// Forgets a foreign number, unless others wait for it.
    fn forget_foreign(&self, raw: RawFd, key: Key) {
        if self.with(key, |source| source.slots.iter().any(Slot::is_waited_for)) == Some(false) {
            self.foreign.borrow_mut().remove(&raw);
            self.forget(key);
        }
    }

    /// A foreign number is about to be closed: wakes all who wait for it, with `EBADF`.
    pub(crate) fn close_foreign(&self, hub: &'static Hub, fd: BorrowedFd<'_>) {
        if self.break_foreign(hub, fd.as_raw_fd())
            && let Some(poller) = &*self.poller.borrow()
        {
            poller.delete(fd);
        }
    }

    /// Forgets a foreign number, and wakes all who wait for it, with `EBADF`; whether it was known.
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
                self.broken.borrow_mut().push(number);
                hub.wake(waiter);
            }
        }
        self.forget(key);
        true
    }

    /// Asks the kernel, for at most `timeout`, and wakes whoever may go on.
    pub(super) fn poll(&self, hub: &'static Hub, timeout: Option<Duration>) -> io::Result<()> {
        let mut poller = self.poller.borrow_mut();
        let Some(poller) = poller.as_mut() else {
            return Ok(());
        };
        poller.wait(timeout, |key, readiness| self.dispatch(hub, Key(key), readiness))
    }

    #[inline]
    fn dispatch(&self, hub: &'static Hub, key: Key, readiness: Readiness) {
        let woken = self.with(key, |source| {
            let foreign = source.foreign;
            source.closed |= readiness.closed && !foreign;
            let everybody = foreign || source.closed;
            let mut woken = [None, None];
            let mut polled = [None, None];
            for (direction, ready) in [(0, readiness.read), (1, readiness.write || readiness.closed)] {
                if ready {
                    let slot = &mut source.slots[direction];
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

    /// All who wait for a foreign or closed source in a direction that fired; one-shot ones that remain are re-armed by
    /// those who wake.
    #[cold]
    fn wake_rest(&self, hub: &'static Hub, key: Key, readiness: Readiness) {
        for (direction, ready) in [(0, readiness.read), (1, readiness.write || readiness.closed)] {
            while ready && let Some(waiter) = self.with(key, |s| s.slots[direction].pop()).flatten() {
                hub.wake(waiter);
            }
        }
    }
}
