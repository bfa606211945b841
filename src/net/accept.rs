//! Accepting, and what to do when there are no descriptors left.
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::SocketAddrAny;

use super::files::explained;
use crate::io::Async;
use crate::sys::plain::plainly;
use crate::sys::socket;
use crate::time;

/// One connection, non-blocking from the start; on most systems in one system call.
pub(super) fn accept<T: AsFd>(listener: &T) -> io::Result<(OwnedFd, Option<SocketAddrAny>)> {
    Ok(plainly(|| socket::accept(listener))?)
}

/// Accepts. When the process or the system has no descriptor left it tries again, less and less often (10 ms to 100
/// ms), so that a full server neither spins nor ends. Other errors go to the caller.
///
/// The listener's read time-out bounds all of it.
#[track_caller]
pub(super) fn accept_patiently<T: AsFd>(listener: &Async<T>) -> io::Result<(OwnedFd, Option<SocketAddrAny>)> {
    let limit = listener.read_timeout();
    // Also `None` if the deadline is so far away that std cannot represent it.
    let deadline = limit.and_then(|limit| time::now().checked_add(limit));
    let mut pause = Duration::from_millis(10);
    loop {
        match listener.read_before(deadline, accept) {
            Err(error) if is_exhausted(&error) => {
                let left = deadline.map(|deadline| deadline.saturating_duration_since(time::now()));
                if left.is_some_and(|left| left.is_zero()) {
                    return Err(late(limit, &error));
                }
                time::sleep(left.map_or(pause, |left| left.min(pause)));
                pause = (pause * 2).min(Duration::from_millis(100));
            }
            // The peer went away between its SYN and the accept: not an error of the listener.
            Err(error) if error.raw_os_error() == Some(Errno::CONNABORTED.raw_os_error()) => {}
            other => return other,
        }
    }
}

/// Like [`accept_patiently`], for an `async` function.
pub(super) async fn accept_patiently_async<T: AsFd>(
    listener: &Async<T>,
) -> io::Result<(OwnedFd, Option<SocketAddrAny>)> {
    let mut pause = Duration::from_millis(10);
    loop {
        match listener.read_with_async(accept).await {
            Err(error) if is_exhausted(&error) => {
                time::sleep_async(pause).await;
                pause = (pause * 2).min(Duration::from_millis(100));
            }
            Err(error) if error.raw_os_error() == Some(Errno::CONNABORTED.raw_os_error()) => {}
            other => return other,
        }
    }
}

#[cold]
fn late(limit: Option<Duration>, error: &io::Error) -> io::Error {
    let limit = limit.unwrap_or_default();
    io::Error::new(
        io::ErrorKind::TimedOut,
        format!(
            "nothing could be accepted within the read time-out of {limit:?}: {}",
            explained(error)
        ),
    )
}

fn is_exhausted(error: &io::Error) -> bool {
    let exhausted = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM].map(Errno::raw_os_error);
    error.raw_os_error().is_some_and(|errno| exhausted.contains(&errno))
}
