//! Where a descriptor of this crate is registered: mostly with one hub, from its first wait to its end.
//!
//! A socket may be used from any OS thread, so it may be registered with several hubs. The first registration is kept
//! where it is found without a lock.
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

use crate::hub::{Hub, HubRef, Key};
use crate::sys::inside::Mutex;
use crate::sys::poison::IgnorePoison;

struct Registration {
    hub: HubRef,
    key: Key,
    /// The descriptor that is registered in place of the source's own, if another source has registered that one.
    copy: Option<OwnedFd>,
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
        if home.hub.is(hub) {
            return Some(home.key);
        }
        self.other_key(hub)
    }

    #[cold]
    fn other_key(&self, hub: &Hub) -> Option<Key> {
        let others = self.others.lock().ignore_poison();
        others.iter().find(|other| other.hub.is(hub)).map(|other| other.key)
    }

    /// The source's key with this hub. Registers the source if necessary.
    pub(super) fn join(&self, hub: &'static Hub, fd: BorrowedFd<'_>) -> io::Result<Key> {
        if let Some(key) = self.key(hub) {
            return Ok(key);
        }
        let (key, copy) = hub.reactor.register(hub, fd)?;
        let new = Registration {
            hub: hub.reference(),
            key,
            copy,
        };
        if let Err(new) = self.home.set(new) {
            let mut others = self.others.lock().ignore_poison();
            // Registrations with hubs that have ended are of no use, and a long-lived source may have had any number of
            // them.
            others.retain(|other| other.hub.is_alive());
            others.push(new);
        }
        Ok(key)
    }

    /// Removes the source from every hub. To be called before its descriptor is closed or given away.
    pub(super) fn leave(&self, fd: BorrowedFd<'_>) {
        let Some(home) = self.home.get() else { return };
        let others = std::mem::take(&mut *self.others.lock().ignore_poison());
        for place in std::iter::once(home).chain(&others) {
            // A forked child must leave the parent's poller alone.
            if !place.hub.is_of_this_process() {
                continue;
            }
            let key = place.key;
            match place.hub.here() {
                Some(hub) => {
                    let registered = place.copy.as_ref().map_or(fd, OwnedFd::as_fd);
                    hub.reactor.deregister(hub, key, Some(registered));
                }
                None => place.hub.run_or_send(move |hub| hub.reactor.deregister(hub, key, None)),
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
