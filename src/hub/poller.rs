//! The poller: polling's, waited on in one system call.
//!
//! polling makes the descriptors and rings the bell (`notify`). Its own wait costs five system calls, so on Linux the hub
//! waits on the same epoll descriptor through rustix (`epoll_pwait2`: nanoseconds), and calls `Poller::wait` only after
//! the bell rang, to arm it again. Registration goes the same way because polling cannot ask for `RDHUP`, without
//! which "a short read means drained" would sleep through the end of a stream.
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

/// What a descriptor is ready for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Readiness {
    pub(crate) read: bool,
    pub(crate) write: bool,
    /// Hung up, shut down or in error: from now on nobody waits.
    pub(crate) closed: bool,
}

/// polling's key for its bell.
const BELL: u64 = u64::MAX;

pub(super) struct Poller {
    inner: Arc<polling::Poller>,
    events: Vec<epoll::Event>,
}

impl Poller {
    pub(super) fn new() -> io::Result<Poller> {
        Ok(Poller {
            inner: Arc::new(polling::Poller::new()?),
            events: Vec::with_capacity(1024),
        })
    }

    pub(super) fn shared(&self) -> Arc<polling::Poller> {
        self.inner.clone()
    }

    /// Registers for its life: edge-triggered, both directions.
    pub(super) fn add(&self, fd: BorrowedFd<'_>, key: u64) -> io::Result<()> {
        let flags = epoll::EventFlags::IN
            | epoll::EventFlags::OUT
            | epoll::EventFlags::RDHUP
            | epoll::EventFlags::PRI
            | epoll::EventFlags::ET;
        let data = epoll::EventData::new_u64(key);
        match epoll::add(self.inner.as_fd(), fd, data, flags) {
            // Left here by who had the same open file before and gave it away on another OS thread.
            Err(Errno::EXIST) => Ok(epoll::modify(self.inner.as_fd(), fd, data, flags)?),
            other => Ok(other?),
        }
    }

    /// Registers a descriptor that is not ours, for nothing yet; `false` if its open file is registered already.
    pub(super) fn claim(&self, fd: BorrowedFd<'_>, key: u64) -> bool {
        let data = epoll::EventData::new_u64(key);
        epoll::add(self.inner.as_fd(), fd, data, epoll::EventFlags::ONESHOT) != Err(Errno::EXIST)
    }

    /// Arms a descriptor that is not ours for one event.
    pub(super) fn arm(&self, fd: BorrowedFd<'_>, key: u64, read: bool, write: bool) -> io::Result<()> {
        let mut flags = epoll::EventFlags::ONESHOT;
        if read {
            flags |= epoll::EventFlags::IN | epoll::EventFlags::RDHUP;
        }
        if write {
            flags |= epoll::EventFlags::OUT;
        }
        let data = epoll::EventData::new_u64(key);
        match epoll::modify(self.inner.as_fd(), fd, data, flags) {
            Err(Errno::NOENT) => Ok(epoll::add(self.inner.as_fd(), fd, data, flags)?),
            other => Ok(other?),
        }
    }

    pub(super) fn delete(&self, fd: BorrowedFd<'_>) {
        // Gone already is as good.
        let _ = epoll::delete(self.inner.as_fd(), fd);
    }

    /// Waits until something is ready, the bell rings, or `timeout` (none: for ever) passes.
    pub(super) fn wait(&mut self, timeout: Option<Duration>, mut ready: impl FnMut(u64, Readiness)) -> io::Result<()> {
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        self.events.clear();
        match epoll::wait(self.inner.as_fd(), spare_capacity(&mut self.events), timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut rang = false;
        for event in &self.events {
            let (key, flags) = (event.data.u64(), event.flags);
            if key == BELL {
                rang = true;
            } else {
                ready(key, readiness(flags));
            }
        }
        if rang { self.answer(ready) } else { Ok(()) }
    }

    /// Lets polling clear and re-arm its bell; what it finds besides is passed on.
    #[cold]
    fn answer(&self, mut ready: impl FnMut(u64, Readiness)) -> io::Result<()> {
        let mut events = polling::Events::new();
        self.inner.wait(&mut events, Some(Duration::ZERO))?;
        for event in events.iter() {
            // polling hides RDHUP: say `closed`, which only costs a try.
            ready(
                event.key as u64,
                Readiness {
                    read: event.readable,
                    write: event.writable,
                    closed: true,
                },
            );
        }
        Ok(())
    }
}

fn readiness(flags: epoll::EventFlags) -> Readiness {
    use epoll::EventFlags as E;
    let closed = flags.intersects(E::RDHUP | E::HUP | E::ERR);
    Readiness {
        read: closed || flags.intersects(E::IN | E::PRI),
        write: flags.intersects(E::OUT | E::HUP | E::ERR),
        closed,
    }
}
