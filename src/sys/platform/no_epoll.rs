//! No wait of this crate's own: polling's interface is the only one.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use crate::sys::poll::Readiness;

/// There is none.
pub(crate) enum Epoll {}

impl Epoll {
    pub(crate) fn new() -> Option<Epoll> {
        None
    }

    pub(crate) fn add(&self, _: &polling::Poller, _: BorrowedFd<'_>, _key: u64) -> io::Result<()> {
        match *self {}
    }

    pub(crate) fn replace(&self, _: &polling::Poller, _: BorrowedFd<'_>, _key: u64) -> io::Result<()> {
        match *self {}
    }

    pub(crate) fn claim(&self, _: &polling::Poller, _: BorrowedFd<'_>, _key: u64) -> bool {
        match *self {}
    }

    pub(crate) fn arm(
        &self,
        _: &polling::Poller,
        _: BorrowedFd<'_>,
        _key: u64,
        _read_write: (bool, bool),
    ) -> io::Result<()> {
        match *self {}
    }

    pub(crate) fn delete(&self, _: &polling::Poller, _: BorrowedFd<'_>) {
        match *self {}
    }

    pub(crate) fn wait(
        &mut self,
        _: &polling::Poller,
        _timeout: Option<Duration>,
        _ready: impl FnMut(u64, Readiness),
    ) -> io::Result<bool> {
        match *self {}
    }
}
