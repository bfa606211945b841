//! The poller: that of the crate polling, but waited on in one system call.
//!
//! polling makes the descriptors and rings the bell (`notify`), which wakes a hub from another OS thread. Its own wait
//! costs five system calls. So on Linux the hub waits on the same epoll descriptor by [`Epoll`], and calls
//! `Poller::wait` only after the bell rang, to arm the bell again.
//!
//! Elsewhere, and with `GREEN_LOOP=polling` in the environment, everything goes through polling's own interface. That
//! is slower, and makes no difference to the reactor.
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use once_cell::race::OnceBox;
use polling::PollMode;

use crate::sys::epoll::Epoll;
use crate::sys::plain::plainly;
use crate::sys::poll;
pub(crate) use crate::sys::poll::Readiness;

/// Both directions, as an event of polling.
fn both(key: u64) -> polling::Event {
    let mut event = polling::Event::all(key as usize);
    event.set_priority(true);
    event
}

/// The longest wait in the kernel. `epoll_pwait` takes at most 24.8 days, and a longer wait makes rustix call
/// `epoll_pwait2`, which Linux has since 5.11.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

pub(super) struct Poller {
    inner: Arc<polling::Poller>,
    events: Events,
}

/// The buffer that a wait fills. Its kind says which interface the poller uses.
enum Events {
    Own(Epoll),
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
        let own = if is_portable()? { None } else { Epoll::new() };
        Ok(Poller {
            inner: Arc::new(plainly(polling::Poller::new)?),
            events: own.map_or_else(|| Events::Polling(polling::Events::new()), Events::Own),
        })
    }

    pub(super) fn shared(&self) -> Arc<polling::Poller> {
        self.inner.clone()
    }

    /// Registers a descriptor for its whole life: edge-triggered, both directions. `false` if its number and open file
    /// are registered already.
    pub(super) fn add(&self, fd: BorrowedFd<'_>, key: u64) -> io::Result<bool> {
        let added = match &self.events {
            Events::Own(epoll) => epoll.add(&self.inner, fd, key),
            Events::Polling(_) => poll::add(&self.inner, fd, both(key), PollMode::Edge),
        };
        match added {
            // Not an error: the reactor decides whether it may take that registration over.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            other => other.map(|()| true),
        }
    }

    /// Registers a descriptor in place of a registration that no source uses any more.
    pub(super) fn replace(&self, fd: BorrowedFd<'_>, key: u64) -> io::Result<()> {
        match &self.events {
            Events::Own(epoll) => epoll.replace(&self.inner, fd, key),
            Events::Polling(_) => self.inner.modify_with_mode(fd, both(key), PollMode::Edge),
        }
    }

    /// Registers a foreign descriptor, for no events yet; `false` if its number and open file are registered already.
    ///
    /// Other errors are left to [`arm`](Self::arm), which follows and gets them as well.
    pub(super) fn claim(&self, fd: BorrowedFd<'_>, key: u64) -> bool {
        match &self.events {
            Events::Own(epoll) => epoll.claim(&self.inner, fd, key),
            Events::Polling(_) => {
                let none = polling::Event::none(key as usize);
                let added = poll::add(&self.inner, fd, none, PollMode::Oneshot);
                !added.is_err_and(|error| error.kind() == io::ErrorKind::AlreadyExists)
            }
        }
    }

    /// Arms a foreign descriptor for one event.
    pub(super) fn arm(&self, fd: BorrowedFd<'_>, key: u64, read: bool, write: bool) -> io::Result<()> {
        if let Events::Own(epoll) = &self.events {
            return epoll.arm(&self.inner, fd, key, (read, write));
        }
        let event = polling::Event::new(key as usize, read, write);
        match self.inner.modify_with_mode(fd, event, PollMode::Oneshot) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                poll::add(&self.inner, fd, event, PollMode::Oneshot)
            }
            other => other,
        }
    }

    pub(super) fn delete(&self, fd: BorrowedFd<'_>) {
        match &self.events {
            Events::Own(epoll) => epoll.delete(&self.inner, fd),
            // An error means that the kernel has removed the registration already.
            Events::Polling(_) => drop(self.inner.delete(fd)),
        }
    }

    /// Waits until a descriptor is ready, the bell rings, or `timeout` passes (`None`: waits forever). May return
    /// early.
    pub(super) fn wait(&mut self, timeout: Option<Duration>, mut ready: impl FnMut(u64, Readiness)) -> io::Result<()> {
        let timeout = timeout.map(|timeout| timeout.min(LONGEST));
        let rang = match &mut self.events {
            Events::Own(epoll) => epoll.wait(&self.inner, timeout, &mut ready)?,
            Events::Polling(events) => {
                events.clear();
                return ask_polling(&self.inner, events, timeout, ready);
            }
        };
        // The bell is one-shot: unless it is armed again, the next ring would not end a wait.
        if rang { self.answer(ready) } else { Ok(()) }
    }

    /// Lets polling clear and re-arm its bell, and passes on the events that it finds besides.
    #[cold]
    fn answer(&self, ready: impl FnMut(u64, Readiness)) -> io::Result<()> {
        ask_polling(&self.inner, &mut polling::Events::new(), Some(Duration::ZERO), ready)
    }
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
