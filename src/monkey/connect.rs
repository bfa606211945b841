//! How connect waits: the connection is begun without waiting, and then the descriptor is waited for.
#![forbid(unsafe_code)]

use std::time::Duration;

use libc::c_int;

use super::call::{self, Call, SOCKET, Waited, handlers_for, is_nonblocking, nap, without_blocking};
use super::symbol::{errno, fail, set_errno};
use crate::hub::{Direction, Why};
use crate::sys::probe::{is_connected, is_ready, option};

/// Connects. `attempt` makes the call, and `elsewhere` does on another OS thread, in the caller's place.
pub(super) fn connect(call: &Call, attempt: impl Fn() -> c_int, elsewhere: impl FnOnce() -> c_int) -> c_int {
    let (hub, fd) = (call.hub, call.fd);
    let before = errno();
    if let Err(failed) = call.begin(false) {
        return failed as c_int;
    }
    // A datagram or raw socket connects at once: that only sets the peer's address.
    let waits = option(fd, libc::SO_TYPE).is_some_and(|kind| !matches!(kind, libc::SOCK_DGRAM | libc::SOCK_RAW));
    // The program's own non-blocking connect does not wait either.
    if !waits || is_nonblocking(fd) {
        return attempt();
    }
    if is_connected(fd) || option(fd, libc::SO_ACCEPTCONN) == Some(1) {
        // The call fails. But on a Unix socket it may block first, until the listener that it names has room, and the
        // flag must not be set here: other threads may read from the connection.
        return elsewhere();
    }
    set_errno(before);
    let begun = begin(call, &attempt);
    if begun == 0 || !matches!(errno(), libc::EINPROGRESS | libc::EALREADY) {
        return begun;
    }
    // A wake may be stale (from an earlier file with the same descriptor number), so ask the kernel each time.
    while !is_ready(fd, libc::POLLOUT) {
        match call::wait(hub, fd, Direction::Write, call.deadline(), "connect") {
            Waited::Ready => {}
            // What connect reports when `SO_SNDTIMEO` has passed; the connection goes on.
            Waited::TimedOut => return fail(libc::EINPROGRESS),
            Waited::Interrupted(error) | Waited::Failed(error) => return fail(error),
        }
    }
    settle(fd, before, attempt)
}

/// The first attempt. While the queue of a Unix listener is full (`EAGAIN`), it sleeps and tries again, because no
/// event tells when there is room.
fn begin(call: &Call, attempt: impl Fn() -> c_int) -> c_int {
    let mut time = Duration::from_millis(1);
    loop {
        let result = without_blocking(call.fd, &attempt);
        if result == 0 || errno() != libc::EAGAIN {
            return result;
        }
        let deadline = call.deadline();
        let until = deadline.unwrap_or(u64::MAX);
        let at = call.hub.deadline_in(time).min(until);
        let why = Why::new(&SOCKET, call.fd as usize);
        // Parked like a wait for a descriptor, so that a kill, a time-out or a signal ends it.
        if let Err(error) = nap(call.hub, at, handlers_for(deadline), "connect", why) {
            return fail(error);
        }
        // `SO_SNDTIMEO` has passed: a Unix socket reports `EAGAIN`.
        if call.hub.clock.now() >= until {
            return fail(libc::EAGAIN);
        }
        time = (time * 2).min(Duration::from_millis(50));
    }
}

/// The result of a connect that has completed in the background. A TCP socket gets a second connect, as from the
/// kernel's blocking connect: only that moves it to the connected state, or, after a failure, makes it ready for
/// another attempt.
fn settle(fd: c_int, before: c_int, attempt: impl FnOnce() -> c_int) -> c_int {
    // Read before the second connect, which would take the error.
    let error = option(fd, libc::SO_ERROR).unwrap_or(libc::EIO);
    if matches!(option(fd, libc::SO_DOMAIN), Some(libc::AF_INET | libc::AF_INET6)) {
        without_blocking(fd, attempt);
    }
    if error == 0 {
        set_errno(before);
        0
    } else {
        fail(error)
    }
}
