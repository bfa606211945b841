//! The reactor: registers descriptors, and wakes the tasks that wait for one. It queues waiters and runs no code of the
//! user (HUB-3). Its table is in `sources.rs`, and the waits themselves are in `park.rs`.
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

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::task::Waker;
use std::time::Duration;

use super::poller::{Poller, Readiness};
use super::report::discard;
use super::scheduler::{Hub, ended};
use super::sources::{Direction, Key, Reactor, Slot};
use super::waiter::Waiter;

impl Reactor {
    pub(super) fn with_poller<R>(&self, hub: &Hub, f: impl FnOnce(&mut Poller) -> io::Result<R>) -> io::Result<R> {
        let mut poller = self.poller.borrow_mut();
        if poller.is_none() && hub.is_over() {
            return Err(ended());
        }
        if poller.is_none() {
            // Made as in a callback, which cannot park. `set_poller` takes the bell's lock, and another OS thread may
            // hold it: with patched libc this green thread would park for it while the cell `poller` is borrowed.
            *poller = Some(hub.as_callback(|| {
                let new = Poller::new()?;
                hub.me.shared.set_poller(new.shared());
                Ok::<_, io::Error>(new)
            })?);
        }
        // The poller was made above: this error is never returned.
        poller.as_mut().map_or_else(|| Err(io::ErrorKind::Other.into()), f)
    }

    pub(super) fn ensure_poller(&self, hub: &Hub) -> io::Result<std::sync::Arc<polling::Poller>> {
        self.with_poller(hub, |poller| Ok(poller.shared()))
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

    /// The hub has ended: closes the poller, and drops all wakers that are left.
    pub(super) fn end(&self) {
        drop(self.poller.take());
        self.foreign.take();
        for slot in self.sources.take().iter_mut().flat_map(|source| &mut source.slots) {
            discard(slot.polled.take());
            while let Some(waiter) = slot.pop() {
                discard(waiter);
            }
        }
    }

    fn wake_all(&self, hub: &'static Hub, key: Key) {
        for direction in [Direction::Read, Direction::Write] {
            // No task can poll this source again, so its waker is dropped and not called. The drop runs code of the
            // user: outside of the borrow.
            let polled = self.with(key, |s| s.slots[direction as usize].polled.take()).flatten();
            if let Some(polled) = polled {
                self.ends_to_wait();
                discard(polled);
            }
            while let Some(waiter) = self.with(key, |s| s.slots[direction as usize].pop()).flatten() {
                hub.wake(waiter);
            }
        }
    }

    /// An attempt succeeded: wakes the next waiter, because the descriptor may hold more than this attempt took.
    #[inline]
    pub(crate) fn wake_next(&self, hub: &'static Hub, key: Key, direction: Direction) {
        let next = self.with(key, |source| {
            let slot = &mut source.slots[direction as usize];
            if slot.is_waited_for() { slot.pop() } else { None }
        });
        if let Some(Some(waiter)) = next {
            hub.wake(waiter);
        }
    }

    /// Like [`wait`](Self::wait), for a future: has `waker` called when the source may be ready. The number is for
    /// [`dequeue`](Self::dequeue); `None` if the source may be ready now.
    pub(crate) fn enqueue(&self, hub: &Hub, key: Key, direction: Direction, waker: Waker) -> Option<u64> {
        let number = self.next_number();
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
        self.begins_to_wait(&hub.pace);
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
            self.begins_to_wait(&hub.pace);
        }
        true
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
        // The cell `poller` stays borrowed during the dispatch, which only queues tasks and callbacks (HUB-3).
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
            let wakes_all = foreign || source.closed;
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
            (woken, polled, wakes_all && source.slots.iter().any(Slot::is_waited_for))
        });
        let Some((woken, polled, more)) = woken else { return };
        for polled in polled.into_iter().flatten() {
            self.ends_to_wait();
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
    /// after an event: the tasks woken here arm it again for the waiters of the other direction (`rearm_foreign`).
    #[cold]
    fn wake_rest(&self, hub: &'static Hub, key: Key, readiness: Readiness) {
        for (direction, ready) in [(0, readiness.read), (1, readiness.write || readiness.closed)] {
            while ready && let Some(waiter) = self.with(key, |s| s.slots[direction].pop()).flatten() {
                hub.wake(waiter);
            }
        }
    }
}
