//! The poller: polling's, waited on in one system call.
//!
//! polling makes the descriptors and rings the bell (`notify`). Its own wait costs five system calls, so on Linux the hub
//! waits on the same epoll descriptor through rustix, and calls `Poller::wait` only after the bell rang, to arm it again.
//! epoll counts in milliseconds, so a short wait is a `ppoll` of the epoll descriptor first: `epoll_pwait2` counts in
//! nanoseconds, but needs Linux 5.11. Registration goes through rustix too, because polling cannot ask for `RDHUP`,
//! without which "a short read means drained" would sleep through the end of a stream.
//!
//! With `GREEN_LOOP=polling` in the environment all goes through polling's own interface instead, as it would on another
//! system: slower, and the same to everybody above.
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
    /// Hung up, shut down or in error: from now on nobody waits.
    pub(crate) closed: bool,
}

/// Both directions, edge-triggered.
const BOTH: epoll::EventFlags = epoll::EventFlags::IN
    .union(epoll::EventFlags::OUT)
    .union(epoll::EventFlags::RDHUP)
    .union(epoll::EventFlags::PRI)
    .union(epoll::EventFlags::ET);

/// The same as polling has it.
fn both(key: u64) -> polling::Event {
    let mut event = polling::Event::all(key as usize);
    event.set_priority(true);
    event
}

/// polling's key for its bell.
const BELL: u64 = u64::MAX;

pub(super) struct Poller {
    inner: Arc<polling::Poller>,
    events: Events,
}

/// Where a wait puts what it finds; and so, by which way the poller goes.
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
            Some(name) => Err(format!("GREEN_LOOP={}: it is `epoll` or `polling`", name.display())),
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

    /// polling's own interface, if that is the way.
    fn portable(&self) -> Option<&polling::Poller> {
        matches!(self.events, Events::Polling(_)).then_some(&*self.inner)
    }

    pub(super) fn shared(&self) -> Arc<polling::Poller> {
        self.inner.clone()
    }

    /// Registers for its life: edge-triggered, both directions. `false` if its number and open file are registered already.
    pub(super) fn add(&self, fd: BorrowedFd<'_>, key: u64) -> io::Result<bool> {
        let added = match self.portable() {
            Some(poller) => poll::add(poller, fd, both(key), PollMode::Edge),
            None => epoll::add(self.inner.as_fd(), fd, epoll::EventData::new_u64(key), BOTH).map_err(io::Error::from),
        };
        match added {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            other => other.map(|()| true),
        }
    }

    /// The same in the place of a registration that is nobody's any more.
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

    /// Registers a descriptor that is not ours, for nothing yet; `false` if its open file is registered already.
    pub(super) fn claim(&self, fd: BorrowedFd<'_>, key: u64) -> bool {
        if let Some(poller) = self.portable() {
            let added = poll::add(poller, fd, polling::Event::none(key as usize), PollMode::Oneshot);
            return !added.is_err_and(|error| error.kind() == io::ErrorKind::AlreadyExists);
        }
        let data = epoll::EventData::new_u64(key);
        epoll::add(self.inner.as_fd(), fd, data, epoll::EventFlags::ONESHOT) != Err(Errno::EXIST)
    }

    /// Arms a descriptor that is not ours for one event.
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
        let events = match &mut self.events {
            Events::Epoll(events) => events,
            Events::Polling(events) => {
                events.clear();
                return ask_polling(&self.inner, events, timeout, ready);
            }
        };
        let mut timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        events.clear();
        if let Some(exactly) = timeout.filter(is_short) {
            let epoll = &mut [PollFd::new(&self.inner, PollFlags::IN)];
            match plainly(|| rustix::event::poll(epoll, Some(&exactly))) {
                Ok(0) | Err(Errno::INTR) => return Ok(()),
                Ok(_) => timeout = Some(Timespec::default()),
                Err(error) => return Err(error.into()),
            }
        }
        match plainly(|| epoll::wait(self.inner.as_fd(), spare_capacity(events), timeout.as_ref())) {
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
        if rang { self.answer(ready) } else { Ok(()) }
    }

    /// Lets polling clear and re-arm its bell; what it finds besides is passed on.
    #[cold]
    fn answer(&self, ready: impl FnMut(u64, Readiness)) -> io::Result<()> {
        ask_polling(&self.inner, &mut polling::Events::new(), Some(Duration::ZERO), ready)
    }
}

/// Whether a millisecond more is too much for a wait of so long, which is one.
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

fn readiness(flags: epoll::EventFlags) -> Readiness {
    use epoll::EventFlags as E;
    let closed = flags.intersects(E::RDHUP | E::HUP | E::ERR);
    Readiness {
        read: closed || flags.intersects(E::IN | E::PRI),
        write: flags.intersects(E::OUT | E::HUP | E::ERR),
        closed,
    }
}
