//! The table of sources: which descriptors a hub knows, and which waiters wait for each. `reactor.rs` says how it is
//! used; nothing here wakes a task, and none of the user's code runs while the table is borrowed.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::os::fd::RawFd;
use std::task::Waker;

use super::pace::Pace;
use super::poller::Poller;
use super::waiter::Waiter;

/// The direction of a wait: for input or for output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Read = 0,
    Write = 1,
}

/// Names a registered source: its index and its generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key(pub(super) u64);

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
pub(super) struct Slot {
    /// There was an edge since the last `EAGAIN`, so an attempt may succeed. Never set for a foreign descriptor.
    pub(super) ready: bool,
    /// The oldest waiter. It has a field of its own, so that a single waiter needs no allocation.
    pub(super) first: Option<(u64, Waiter)>,
    /// The other waiters, oldest first.
    pub(super) more: VecDeque<(u64, Waiter)>,
    /// The waker of the task that polled last and got nothing. It is kept beside the line: that task may never poll
    /// again, and a place in the line would use up an edge.
    pub(super) polled: Option<Waker>,
}

impl Slot {
    pub(super) fn push(&mut self, number: u64, waiter: Waiter) {
        if self.first.is_none() && self.more.is_empty() {
            self.first = Some((number, waiter));
        } else {
            self.more.push_back((number, waiter));
        }
    }

    pub(super) fn pop(&mut self) -> Option<Waiter> {
        self.first
            .take()
            .or_else(|| self.more.pop_front())
            .map(|(_, waiter)| waiter)
    }

    /// Takes a waiter out of the line; `false` if it was woken meanwhile.
    pub(super) fn remove(&mut self, number: u64) -> bool {
        self.take(number).is_some()
    }

    pub(super) fn take(&mut self, number: u64) -> Option<Waiter> {
        if let Some((_, waiter)) = self.first.take_if(|(n, _)| *n == number) {
            return Some(waiter);
        }
        let at = self.more.iter().position(|(n, _)| *n == number);
        at.and_then(|at| self.more.remove(at)).map(|(_, waiter)| waiter)
    }

    pub(super) fn is_waited_for(&self) -> bool {
        self.first.is_some() || !self.more.is_empty()
    }
}

#[derive(Default)]
pub(super) struct Source {
    generation: u32,
    live: bool,
    /// The peer has hung up or shut down at least one direction. No later edge will announce the end of the stream.
    pub(super) closed: bool,
    /// The descriptor's number.
    pub(super) fd: RawFd,
    pub(super) foreign: bool,
    pub(super) slots: [Slot; 2],
}

/// The sources of one hub. It has no entries and no descriptor of its own until a task waits for a descriptor.
#[derive(Default)]
pub(crate) struct Reactor {
    pub(super) poller: RefCell<Option<Poller>>,
    pub(super) sources: RefCell<Vec<Source>>,
    free: RefCell<Vec<usize>>,
    pub(super) foreign: RefCell<HashMap<RawFd, Key>>,
    /// How many waits are under way. At zero no event can wake a task, and the turn need not ask the kernel.
    waiting: Cell<usize>,
    numbers: Cell<u64>,
    /// The numbers of foreign waits that return `EBADF`, as their descriptor was [closed](Self::close_foreign).
    pub(super) broken: RefCell<Vec<u64>>,
}

impl Reactor {
    /// Whether one of the reactor's cells is borrowed (HUB-14).
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
    pub(super) fn begins_to_wait(&self, pace: &Pace) {
        if self.waiting.get() == 0 {
            // The turn did not have to watch the clock so far. From now on a long batch of resumes would delay events.
            pace.watch_clock();
        }
        self.waiting.set(self.waiting.get() + 1);
    }

    pub(super) fn make(&self, fd: RawFd, foreign: bool) -> Key {
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
    pub(super) fn with<R>(&self, key: Key, f: impl FnOnce(&mut Source) -> R) -> Option<R> {
        let mut sources = self.sources.borrow_mut();
        let source = sources.get_mut(key.index())?;
        (source.live && Key::new(key.index(), source.generation) == key).then(|| f(source))
    }

    /// Whether a source other than `key` uses the registration of a number: a source of our own, or foreign waits under
    /// way.
    pub(super) fn is_taken(&self, raw: RawFd, key: Key) -> bool {
        let has_it = |source: &Source| source.live && source.fd == raw;
        let is_used = |source: &Source| !source.foreign || source.slots.iter().any(Slot::is_waited_for);
        let sources = self.sources.borrow();
        let mut others = sources.iter().enumerate().filter(|(index, _)| *index != key.index());
        others.any(|(_, source)| has_it(source) && is_used(source))
    }

    pub(super) fn forget(&self, key: Key) {
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

    /// Whether an attempt is known to fail with `EAGAIN`: the descriptor was drained, and no edge came since.
    #[inline]
    pub(crate) fn is_drained(&self, key: Key, direction: Direction) -> bool {
        self.with(key, |source| !source.slots[direction as usize].ready)
            .unwrap_or(false)
    }

    /// Notes that an attempt failed with `EAGAIN`. The next attempt must wait for an edge.
    #[inline]
    pub(crate) fn drained(&self, key: Key, direction: Direction) {
        self.with(key, |source| source.slots[direction as usize].ready = false);
    }

    /// Notes that a read of a stream was short, so that the next attempt would fail with `EAGAIN`: it must wait for an
    /// edge. Does nothing if the source is `closed`: the end of the stream is still to be read, and no edge will
    /// announce that end.
    #[inline]
    pub(crate) fn drained_by_short_read(&self, key: Key) {
        self.with(key, |source| {
            source.slots[Direction::Read as usize].ready &= source.closed
        });
    }

    /// A future waits no more: takes its waiter out of the line. `false` if the waiter was woken before.
    pub(crate) fn dequeue(&self, key: Key, direction: Direction, number: u64) -> bool {
        self.ends_to_wait();
        let mut mine = None;
        let was_queued = self.with(key, |source| {
            mine = source.slots[direction as usize].take(number);
            mine.is_some()
        });
        // The waker's drop runs the user's code: outside of the borrow.
        drop(mine);
        was_queued == Some(true)
    }

    /// A number for a wait, by which it finds its place in a line again.
    #[inline]
    pub(super) fn next_number(&self) -> u64 {
        let number = self.numbers.get() + 1;
        self.numbers.set(number);
        number
    }

    /// A wait is over.
    #[inline]
    pub(super) fn ends_to_wait(&self) {
        self.waiting.set(self.waiting.get() - 1);
    }
}
