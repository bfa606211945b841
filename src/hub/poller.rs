//! The poller: that of the crate polling, but waited on in one system call.
//!
//! polling makes the descriptors and rings the bell (`notify`), which wakes a hub from another OS thread. Its own wait
//! costs five system calls. So on Linux the hub waits on the same epoll descriptor through rustix, and calls
//! `Poller::wait` only after the bell rang, to arm the bell again. epoll counts in milliseconds, so a short wait begins
//! with a `ppoll` of the epoll descriptor (`epoll_pwait2` counts in nanoseconds, but needs Linux 5.11). Registration
//! goes through rustix too, because polling cannot ask for `RDHUP`. Without `RDHUP` the rule "a short read means
//! drained" would miss the end of a stream.
//!
//! With `GREEN_LOOP=polling` in the environment everything goes through polling's own interface instead, as it would on
//! another system. That is slower, and makes no difference to the reactor.
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use once_cell::race::OnceBox;
use polling::PollMode;
use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec, epoll};
use rustix::io::Errno;

use crate::sys::plain::plainly;
use crate::sys::poll;

/// What a descriptor is ready for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Readiness {
    pub(crate) read: bool,
    pub(crate) write: bool,
    /// Hung up, shut down (at least one direction) or in error. All waiters are to be woken: there may be no later
    /// edge.
    pub(crate) closed: bool,
}

/// Both directions, edge-triggered.
const BOTH: epoll::EventFlags = epoll::EventFlags::IN
    .union(epoll::EventFlags::OUT)
    .union(epoll::EventFlags::RDHUP)
    .union(epoll::EventFlags::PRI)
    .union(epoll::EventFlags::ET);

/// The same as an event of polling.
fn both(key: u64) -> polling::Event {
    let mut event = polling::Event::all(key as usize);
    event.set_priority(true);
    event
}

/// The key that polling uses for its bell.
const BELL: u64 = u64::MAX;

pub(super) struct Poller {
    inner: Arc<polling::Poller>,
    events: Events,
}

/// The buffer that a wait fills. Its kind says which interface the poller uses.
enum Events {
    Epoll(Vec<epoll::Event>),
    Polling(polling::Events),
}

/// Whether `GREEN_LOOP` asks for polling's own interface.
fn is_portable() -> io::Result<bool> {
    static ASKED: OnceBox<Result<bool, String>> = OnceBox::new();
    let asked = ASKED.get_or_init(|| {
        Box::new(match std::env::var_os("GREEN_LOOP") {
            None => Ok(false),
            Some(name) if name.is_empty() || name == "epoll" => Ok(false),
            Some(name) if name == "polling" => Ok(true),
            Some(name) => Err(format!(
                "GREEN_LOOP={} is unknown: set it to `epoll` or `polling`",
                name.display()
            )),
        })
    });
    asked
        .clone()
        .map_err(|wrong| io::Error::new(io::ErrorKind::InvalidInput, wrong))
}

impl Poller {
    pub(super) fn new() -> io::Result<Poller> {
        let events = if is_portable()? {
            Events::Polling(polling::Events::new())
        } else {
            Events::Epoll(Vec::with_capacity(1024))
        };
        Ok(Poller {
            inner: Arc::new(plainly(polling::Poller::new)?),
            events,
        })
    }

    /// polling's own interface, if `GREEN_LOOP` asks for it.
    fn portable(&self) -> Option<&polling::Poller> {
        matches!(self.events, Events::Polling(_)).then_some(&*self.inner)
    }

    pub(super) fn shared(&self) -> Arc<polling::Poller> {
        self.inner.clone()
    }

    /// Registers a descriptor for its whole life: edge-triggered, both directions. `false` if its number and open file
    /// are registered already.
    pub(super) fn add(&self, fd: BorrowedFd<'_>, key: u64) -> io::Result<bool> {
        let added = match self.portable() {
            Some(poller) => poll::add(poller, fd, both(key), PollMode::Edge),
            None => epoll::add(self.inner.as_fd(), fd, epoll::EventData::new_u64(key), BOTH).map_err(io::Error::from),
        };
        match added {
            // Not an error: the reactor decides whether it may take that registration over.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            other => other.map(|()| true),
        }
    }

    /// The same, in place of a registration that no source uses any more.
    pub(super) fn replace(&self, fd: BorrowedFd<'_>, key: u64) -> io::Result<()> {
        if let Some(poller) = self.portable() {
            return poller.modify_with_mode(fd, both(key), PollMode::Edge);
        }
        Ok(epoll::modify(
            self.inner.as_fd(),
            fd,
            epoll::EventData::new_u64(key),
            BOTH,
        )?)
    }

    /// Registers a foreign descriptor, for no events yet; `false` if its number and open file are registered already.
    ///
    /// Other errors are left to [`arm`](Self::arm), which follows and gets them as well.
    pub(super) fn claim(&self, fd: BorrowedFd<'_>, key: u64) -> bool {
        if let Some(poller) = self.portable() {
            let added = poll::add(poller, fd, polling::Event::none(key as usize), PollMode::Oneshot);
            return !added.is_err_and(|error| error.kind() == io::ErrorKind::AlreadyExists);
        }
        let data = epoll::EventData::new_u64(key);
        // `ONESHOT` without a direction: epoll reports only errors and hang-ups until `arm` asks for more.
        epoll::add(self.inner.as_fd(), fd, data, epoll::EventFlags::ONESHOT) != Err(Errno::EXIST)
    }

    /// Arms a foreign descriptor for one event.
    pub(super) fn arm(&self, fd: BorrowedFd<'_>, key: u64, read: bool, write: bool) -> io::Result<()> {
        if let Some(poller) = self.portable() {
            let event = polling::Event::new(key as usize, read, write);
            return match poller.modify_with_mode(fd, event, PollMode::Oneshot) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    poll::add(poller, fd, event, PollMode::Oneshot)
                }
                other => other,
            };
        }
        let mut flags = epoll::EventFlags::ONESHOT;
        if read {
            flags |= epoll::EventFlags::IN | epoll::EventFlags::RDHUP;
        }
        if write {
            flags |= epoll::EventFlags::OUT;
        }
        let data = epoll::EventData::new_u64(key);
        match epoll::modify(self.inner.as_fd(), fd, data, flags) {
            // The number names another open file than at the last wait, which this poller does not know yet.
            Err(Errno::NOENT) => Ok(epoll::add(self.inner.as_fd(), fd, data, flags)?),
            other => Ok(other?),
        }
    }

    pub(super) fn delete(&self, fd: BorrowedFd<'_>) {
        // An error means that the kernel has removed the registration already.
        let _ = epoll::delete(self.inner.as_fd(), fd);
    }

    /// Waits until a descriptor is ready, the bell rings, or `timeout` passes (`None`: waits forever).
    pub(super) fn wait(&mut self, timeout: Option<Duration>, mut ready: impl FnMut(u64, Readiness)) -> io::Result<()> {
        let events = match &mut self.events {
            Events::Epoll(events) => events,
            Events::Polling(events) => {
                events.clear();
                return ask_polling(&self.inner, events, timeout, ready);
            }
        };
        let mut timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        events.clear();
        // A short wait first sleeps in `ppoll`, which counts in nanoseconds. If nothing came, that is all.
        if let Some(exactly) = timeout.filter(is_short) {
            let epoll = &mut [PollFd::new(&self.inner, PollFlags::IN)];
            match plainly(|| rustix::event::poll(epoll, Some(&exactly))) {
                Ok(0) | Err(Errno::INTR) => return Ok(()),
                // There are events: the `epoll_wait` below only fetches them.
                Ok(_) => timeout = Some(Timespec::default()),
                Err(error) => return Err(error.into()),
            }
        }
        match plainly(|| epoll::wait(self.inner.as_fd(), spare_capacity(events), timeout.as_ref())) {
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
        // The bell is one-shot: unless it is armed again, the next ring would not end a wait.
        if rang { self.answer(ready) } else { Ok(()) }
    }

    /// Lets polling clear and re-arm its bell, and passes on the events that it finds besides.
    #[cold]
    fn answer(&self, ready: impl FnMut(u64, Readiness)) -> io::Result<()> {
        ask_polling(&self.inner, &mut polling::Events::new(), Some(Duration::ZERO), ready)
    }
}

/// Whether a wait is so short that a millisecond more would matter. A timeout of zero does not wait.
fn is_short(timeout: &Timespec) -> bool {
    const SHORT: i64 = 50_000_000;
    timeout.tv_sec == 0 && (1..SHORT).contains(&timeout.tv_nsec)
}

fn ask_polling(
    poller: &polling::Poller,
    events: &mut polling::Events,
    timeout: Option<Duration>,
    mut ready: impl FnMut(u64, Readiness),
) -> io::Result<()> {
    match plainly(|| poller.wait(events, timeout)) {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
        other => drop(other?),
    }
    for event in events.iter() {
        // polling does not report `RDHUP`, so report each event as `closed`. A needless `closed` costs an attempt that
        // fails; a missing one would leave the end of a stream unread.
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
