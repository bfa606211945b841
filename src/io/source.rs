//! Where a descriptor of ours is registered: mostly with one hub, from its first wait to its end.
//!
//! A socket may be used from any OS thread, so it may be registered with several hubs: the first is kept where it is
//! found without a lock.
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{Mutex, OnceLock, PoisonError};

use crate::hub::Hub;
use crate::hub::reactor::Key;
use crate::hub::remote::{Message, Shared};
use crate::sys::fork::fork_epoch;

#[derive(Clone, Copy)]
struct Registration {
    shared: &'static Shared,
    generation: u64,
    key: Key,
    /// In a forked child the parent's poller must be left alone.
    fork_epoch: u64,
}

impl Registration {
    #[inline]
    fn is_with(&self, hub: &Hub) -> bool {
        std::ptr::eq(self.shared, hub.shared) && self.generation == hub.generation && self.fork_epoch == hub.fork_epoch
    }
}

pub(super) struct Source {
    home: OnceLock<Registration>,
    others: Mutex<Vec<Registration>>,
}

impl Source {
    pub(super) fn new() -> Source {
        Source {
            home: OnceLock::new(),
            others: Mutex::default(),
        }
    }

    /// Its key with this hub, if it is registered there.
    #[inline]
    pub(super) fn key(&self, hub: &Hub) -> Option<Key> {
        let home = self.home.get()?;
        if home.is_with(hub) {
            return Some(home.key);
        }
        self.other_key(hub)
    }

    #[cold]
    fn other_key(&self, hub: &Hub) -> Option<Key> {
        let others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        others.iter().find(|other| other.is_with(hub)).map(|other| other.key)
    }

    /// Its key with this hub, registered if need be.
    pub(super) fn join(&self, hub: &'static Hub, fd: BorrowedFd<'_>) -> io::Result<Key> {
        if let Some(key) = self.key(hub) {
            return Ok(key);
        }
        let key = hub.reactor.register(hub, fd)?;
        let new = Registration {
            shared: hub.shared,
            generation: hub.generation,
            key,
            fork_epoch: hub.fork_epoch,
        };
        if self.home.set(new).is_err() {
            self.others.lock().unwrap_or_else(PoisonError::into_inner).push(new);
        }
        Ok(key)
    }

    /// Takes it out of every hub, before its descriptor is closed or given away.
    pub(super) fn leave(&self, fd: BorrowedFd<'_>) {
        let Some(home) = self.home.get() else { return };
        let others = std::mem::take(&mut *self.others.lock().unwrap_or_else(PoisonError::into_inner));
        for place in std::iter::once(*home).chain(others) {
            if place.fork_epoch != fork_epoch() {
                continue;
            }
            match Hub::try_current() {
                Some(hub) if place.is_with(hub) => hub.reactor.deregister(hub, place.key, Some(fd)),
                _ => place.shared.send_to(
                    place.generation,
                    Message::Internal(Box::new(move |hub| hub.reactor.deregister(hub, place.key, None))),
                ),
            }
        }
    }
}
