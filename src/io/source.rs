//! Where a descriptor of this crate is registered: mostly with one hub, from its first wait to its end.
//!
//! A socket may be used from any OS thread, so it may be registered with several hubs. The first registration is kept
//! where it is found without a lock.
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

use crate::hub::Hub;
use crate::hub::reactor::Key;
use crate::hub::remote::{Message, Shared};
use crate::sys::fork::fork_epoch;
use crate::sys::inside::Mutex;
use crate::sys::poison::IgnorePoison;

struct Registration {
    shared: &'static Shared,
    generation: u64,
    key: Key,
    /// The descriptor that is registered in place of the source's own, if another source has registered that one.
    copy: Option<OwnedFd>,
    /// A forked child must leave the parent's poller alone.
    fork_epoch: u64,
}

impl Registration {
    #[inline]
    fn is_with(&self, hub: &Hub) -> bool {
        std::ptr::eq(self.shared, hub.shared) && self.generation == hub.generation && self.fork_epoch == hub.fork_epoch
    }

    /// Whether the registration's hub has not ended.
    fn is_alive(&self) -> bool {
        self.shared.generation() == self.generation && self.fork_epoch == fork_epoch()
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

    /// The source's key with this hub, if it is registered there.
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
        let others = self.others.lock().ignore_poison();
        others.iter().find(|other| other.is_with(hub)).map(|other| other.key)
    }

    /// The source's key with this hub. Registers the source if necessary.
    pub(super) fn join(&self, hub: &'static Hub, fd: BorrowedFd<'_>) -> io::Result<Key> {
        if let Some(key) = self.key(hub) {
            return Ok(key);
        }
        let (key, copy) = hub.reactor.register(hub, fd)?;
        let new = Registration {
            shared: hub.shared,
            generation: hub.generation,
            key,
            copy,
            fork_epoch: hub.fork_epoch,
        };
        if let Err(new) = self.home.set(new) {
            let mut others = self.others.lock().ignore_poison();
            // Registrations with hubs that have ended are of no use, and a long-lived source may have had any number of
            // them.
            others.retain(Registration::is_alive);
            others.push(new);
        }
        Ok(key)
    }

    /// Removes the source from every hub. To be called before its descriptor is closed or given away.
    pub(super) fn leave(&self, fd: BorrowedFd<'_>) {
        let Some(home) = self.home.get() else { return };
        let others = std::mem::take(&mut *self.others.lock().ignore_poison());
        for place in std::iter::once(home).chain(&others) {
            if place.fork_epoch != fork_epoch() {
                continue;
            }
            let key = place.key;
            match Hub::try_current() {
                Some(hub) if place.is_with(hub) => {
                    let registered = place.copy.as_ref().map_or(fd, OwnedFd::as_fd);
                    hub.reactor.deregister(hub, key, Some(registered));
                }
                _ => place.shared.send_to(
                    place.generation,
                    Message::Internal(Box::new(move |hub| hub.reactor.deregister(hub, key, None))),
                ),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn only_hubs_that_have_not_ended_are_remembered() {
        let (reader, _writer) = std::io::pipe().unwrap();
        let (reader, source) = (Arc::new(reader), Arc::new(Source::new()));
        let join = || {
            let (reader, source) = (reader.clone(), source.clone());
            move || source.join(Hub::current(), reader.as_fd()).map(drop)
        };
        for _ in 0..20 {
            std::thread::spawn(join()).join().unwrap().unwrap();
        }
        join()().unwrap();
        assert_eq!(source.others.lock().unwrap().len(), 1);
        assert!(source.key(Hub::current()).is_some());
        source.leave(reader.as_fd());
    }
}
