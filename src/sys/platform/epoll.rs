//! Waiting on the epoll descriptor of a poller of the crate polling, in one system call.
//!
//! polling makes the descriptors and rings the bell (`notify`). Its own wait costs five system calls. epoll counts in
//! milliseconds, so a short wait begins with a `ppoll` of the epoll descriptor (`epoll_pwait2` counts in nanoseconds,
//! but needs Linux 5.11). Registration does not go through polling either, because polling cannot ask for `RDHUP`.
//! Without `RDHUP` the rule "a short read means drained" would miss the end of a stream.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec, epoll};
use rustix::io::Errno;

use crate::sys::plain::plainly;
use crate::sys::poll::Readiness;

/// Both directions, edge-triggered.
const BOTH: epoll::EventFlags = epoll::EventFlags::IN
    .union(epoll::EventFlags::OUT)
    .union(epoll::EventFlags::RDHUP)
    .union(epoll::EventFlags::PRI)
    .union(epoll::EventFlags::ET);

/// The key that polling uses for its bell.
const BELL: u64 = u64::MAX;

/// The buffer that a wait fills.
pub(crate) struct Epoll(Vec<epoll::Event>);

impl Epoll {
    pub(crate) fn new() -> Option<Epoll> {
        Some(Epoll(Vec::with_capacity(1024)))
    }

    #[inline]
    pub(crate) fn add(&self, poller: &polling::Poller, fd: BorrowedFd<'_>, key: u64) -> io::Result<()> {
        Ok(epoll::add(poller, fd, epoll::EventData::new_u64(key), BOTH)?)
    }

    pub(crate) fn replace(&self, poller: &polling::Poller, fd: BorrowedFd<'_>, key: u64) -> io::Result<()> {
        Ok(epoll::modify(poller, fd, epoll::EventData::new_u64(key), BOTH)?)
    }

    #[inline]
    pub(crate) fn claim(&self, poller: &polling::Poller, fd: BorrowedFd<'_>, key: u64) -> bool {
        let data = epoll::EventData::new_u64(key);
        // `ONESHOT` without a direction: epoll reports only errors and hang-ups until `arm` asks for more.
        epoll::add(poller, fd, data, epoll::EventFlags::ONESHOT) != Err(Errno::EXIST)
    }

    #[inline]
    pub(crate) fn arm(
        &self,
        poller: &polling::Poller,
        fd: BorrowedFd<'_>,
        key: u64,
        (read, write): (bool, bool),
    ) -> io::Result<()> {
        let mut flags = epoll::EventFlags::ONESHOT;
        if read {
            flags |= epoll::EventFlags::IN | epoll::EventFlags::RDHUP;
        }
        if write {
            flags |= epoll::EventFlags::OUT;
        }
        let data = epoll::EventData::new_u64(key);
        match epoll::modify(poller, fd, data, flags) {
            // The number names another open file than at the last wait, which this poller does not know yet.
            Err(Errno::NOENT) => Ok(epoll::add(poller, fd, data, flags)?),
            other => Ok(other?),
        }
    }

    #[inline]
    pub(crate) fn delete(&self, poller: &polling::Poller, fd: BorrowedFd<'_>) {
        // An error means that the kernel has removed the registration already.
        let _ = epoll::delete(poller, fd);
    }

    /// Waits as [`polling::Poller::wait`] does. Says whether the bell rang; then it must be armed again.
    #[inline]
    pub(crate) fn wait(
        &mut self,
        poller: &polling::Poller,
        timeout: Option<Duration>,
        mut ready: impl FnMut(u64, Readiness),
    ) -> io::Result<bool> {
        let Epoll(events) = self;
        let mut timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        events.clear();
        // A short wait first sleeps in `ppoll`, which counts in nanoseconds. If nothing came, that is all.
        if let Some(exactly) = timeout.filter(is_short) {
            let epoll = &mut [PollFd::new(poller, PollFlags::IN)];
            match plainly(|| rustix::event::poll(epoll, Some(&exactly))) {
                Ok(0) | Err(Errno::INTR) => return Ok(false),
                // There are events: the `epoll_wait` below only fetches them.
                Ok(_) => timeout = Some(Timespec::default()),
                Err(error) => return Err(error.into()),
            }
        }
        match plainly(|| epoll::wait(poller.as_fd(), spare_capacity(events), timeout.as_ref())) {
            // After a signal there are no events; the turn looks at the inbox in any case.
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut rang = false;
        for event in events.iter() {
            let (key, flags) = (event.data.u64(), event.flags);
            if key == BELL {
                rang = true;
            } else {
                ready(key, readiness(flags));
            }
        }
        Ok(rang)
    }
}

/// Whether a wait is so short that a millisecond more would matter. A timeout of zero does not wait.
fn is_short(timeout: &Timespec) -> bool {
    const SHORT: i64 = 50_000_000;
    timeout.tv_sec == 0 && (1..SHORT).contains(&timeout.tv_nsec)
}

fn readiness(flags: epoll::EventFlags) -> Readiness {
    use epoll::EventFlags as E;
    let closed = flags.intersects(E::RDHUP | E::HUP | E::ERR);
    // After `RDHUP` alone the peer only sends no more: a write may still have to wait.
    Readiness {
        read: closed || flags.intersects(E::IN | E::PRI),
        write: flags.intersects(E::OUT | E::HUP | E::ERR),
        closed,
    }
}
