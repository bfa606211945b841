//! Closing a TCP connection so that the peer gets all that was written to it.
//!
//! If a socket is closed while it has unread input, or if input comes after the close, the connection is reset. The
//! system then discards what it has not sent yet, and some peers discard what they have not read yet. So writing is
//! shut down first. Then input is read and discarded until the peer has ended too, for a limited time ([`PATIENCE`])
//! and a limited amount ([`MOST`]).
#![forbid(unsafe_code)]

use std::fmt;
use std::io::{self, ErrorKind};
use std::mem::MaybeUninit;
use std::ops::Deref;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::net::{RecvFlags, recv};

use crate::io::Async;

/// How long the peer has to end, unless set otherwise.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);
/// How many bytes of a peer that goes on sending are read away at most.
pub(crate) const MOST: usize = 16 * 1024 * 1024;

/// The error for a peer that goes on sending: a close resets its connection.
#[cfg(feature = "tls")]
pub(crate) fn still_sending() -> io::Error {
    io::Error::new(
        ErrorKind::TimedOut,
        "the peer goes on sending after the good-bye: the close resets it, and what the peer has not read is lost",
    )
}

/// Reads some bytes and drops them.
pub(crate) fn read_away(socket: &std::net::TcpStream) -> io::Result<usize> {
    let mut buffer = [MaybeUninit::<u8>::uninit(); 8192];
    Ok(recv(socket.as_fd(), &mut buffer[..], RecvFlags::DONTWAIT)?.1)
}

/// What a look at a socket that is about to be closed tells about its peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    /// It has ended, or the connection is broken: a close loses nothing more.
    Ended,
    Silent,
    Sending,
}

pub(crate) fn look(socket: &std::net::TcpStream) -> Peer {
    let mut byte = [MaybeUninit::<u8>::uninit(); 1];
    match recv(socket.as_fd(), &mut byte[..], RecvFlags::PEEK | RecvFlags::DONTWAIT).map_err(io::Error::from) {
        Ok((_, 1..)) => Peer::Sending,
        Err(error) if error.kind() == ErrorKind::WouldBlock => Peer::Silent,
        _ => Peer::Ended,
    }
}

/// Called with a socket when its last handle is dropped.
pub(crate) type Leave = Arc<dyn Fn(Async<std::net::TcpStream>) + Send + Sync>;

/// What happens at the end of a connection; its handles share this.
struct End {
    leave: Leave,
    /// The descriptor of a handle was given away: its new owner closes the connection.
    is_given_away: AtomicBool,
}

/// A TCP socket that goes to its server when its last handle is dropped, if a server has accepted it.
pub(super) struct Socket {
    io: Option<Async<std::net::TcpStream>>,
    end: Option<Arc<End>>,
}

impl Socket {
    /// Another handle to it.
    pub(super) fn another(&self, socket: std::net::TcpStream) -> Socket {
        Socket {
            io: Some(Async::new_nonblocking(socket)),
            end: self.end.clone(),
        }
    }

    pub(super) fn leave_to(&mut self, leave: Leave) {
        let is_given_away = AtomicBool::new(false);
        self.end = Some(Arc::new(End { leave, is_given_away }));
    }

    pub(super) fn into_fd(mut self) -> std::net::TcpStream {
        if let Some(end) = &self.end {
            end.is_given_away.store(true, Ordering::Relaxed);
        }
        match self.io.take() {
            Some(io) => io.into_fd(),
            None => unreachable!("only into_fd and the drop take it, and they are the last"),
        }
    }
}

impl From<Async<std::net::TcpStream>> for Socket {
    fn from(io: Async<std::net::TcpStream>) -> Socket {
        Socket {
            io: Some(io),
            end: None,
        }
    }
}

impl Deref for Socket {
    type Target = Async<std::net::TcpStream>;

    #[inline]
    fn deref(&self) -> &Async<std::net::TcpStream> {
        match &self.io {
            Some(io) => io,
            None => unreachable!("only into_fd and the drop take it, and they are the last"),
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Some(end) = self.end.take().and_then(Arc::into_inner)
            && !end.is_given_away.into_inner()
            && let Some(io) = self.io.take()
        {
            (end.leave)(io);
        }
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Socket").field(&**self).finish()
    }
}
