//! What a protocol writes to: a buffer before a connection, which the writer's green thread empties.
//!
//! [`Transport`] is the user's end, `Link` what it shares with the two green threads of `protocol.rs`.
//!
//! # Invariants
//! - **TRANSPORT-1** Bytes go out in the order of `write`: the buffer is bypassed only while it is empty and nothing is
//!   in flight.
//! - **TRANSPORT-2** The lock is never held while anything parks; the one write under it does not wait.
//! - **TRANSPORT-3** Once `closing` is set nothing is added, and what the reader reads is dropped. It goes on reading,
//!   because a TCP connection that is closed with unread input is reset. When all is written the writer waits for the
//!   reader's end, for a limited time.
#![forbid(unsafe_code)]

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::send;

use crate::net::{TcpStream, UnixStream, linger};
use crate::sync::{Condvar, Mutex, MutexGuard};
use crate::sys::plain::plainly;
use crate::sys::poison::IgnorePoison;
use crate::sys::socket::NO_SIGPIPE;

const HIGH: usize = 64 * 1024;
const LOW: usize = HIGH / 4;

/// A connected stream socket that a [`Protocol`](super::Protocol) can run on.
pub trait Connection: AsFd + fmt::Debug + Send + Sync + 'static {
    /// Reads some bytes; parks until there are any.
    ///
    /// # Errors
    /// The system's error.
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes some bytes; parks until there is room.
    ///
    /// # Errors
    /// The system's error.
    fn write(&self, data: &[u8]) -> io::Result<usize>;

    /// Writes what the system takes at once, and does not wait. `Ok(0)`: the caller is to use [`write`](Self::write).
    ///
    /// # Errors
    /// The system's error.
    fn try_write(&self, data: &[u8]) -> io::Result<usize> {
        match plainly(|| send(self.as_fd(), data, NO_SIGPIPE)).map_err(io::Error::from) {
            Err(error) if [ErrorKind::WouldBlock, ErrorKind::Interrupted].contains(&error.kind()) => Ok(0),
            result => result,
        }
    }

    /// Sends what ends a connection in good order, when all has been written; may wait.
    ///
    /// # Errors
    /// The system's error.
    fn finish(&self) -> io::Result<()> {
        Ok(())
    }

    /// How long a close waits for the peer's end, once all is written and the peer has been told so: two seconds.
    ///
    /// A TCP connection that is closed before that, and has or gets input, is reset: what the peer has not read may be
    /// lost.
    fn linger(&self) -> Duration {
        linger::PATIENCE
    }

    /// Ends one direction or both. If it waits at all, it is for the end of writing.
    ///
    /// # Errors
    /// The system's error.
    fn shutdown(&self, how: Shutdown) -> io::Result<()>;

    /// The address at the other end, if it is an IP address.
    fn peer_addr(&self) -> Option<SocketAddr>;
}

impl Connection for TcpStream {
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        Read::read(&mut &*self, buffer)
    }

    fn write(&self, data: &[u8]) -> io::Result<usize> {
        Write::write(&mut &*self, data)
    }

    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        TcpStream::shutdown(self, how)
    }

    fn peer_addr(&self) -> Option<SocketAddr> {
        TcpStream::peer_addr(self).ok()
    }
}

impl Connection for UnixStream {
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        Read::read(&mut &*self, buffer)
    }

    fn write(&self, data: &[u8]) -> io::Result<usize> {
        Write::write(&mut &*self, data)
    }

    /// Zero: what was written to a Unix socket is already at the peer.
    fn linger(&self) -> Duration {
        Duration::ZERO
    }

    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        UnixStream::shutdown(self, how)
    }

    fn peer_addr(&self) -> Option<SocketAddr> {
        None
    }
}

/// The state of a connection's writing side: what is buffered, and what was asked for.
pub(super) struct Out {
    /// `None` once the connection is lost: a transport that is kept does not keep the descriptor.
    stream: Option<Arc<dyn Connection>>,
    pub(super) buffer: Vec<u8>,
    /// Taken from the buffer by the writer, and not written yet.
    pub(super) in_flight: usize,
    low: usize,
    high: usize,
    /// `write_eof` was called: nothing more is added, and writing ends when the rest has gone out.
    pub(super) eof: bool,
    pub(super) closing: bool,
    pub(super) aborted: bool,
    pub(super) reading: bool,
    /// The reader has ended.
    pub(super) ended: bool,
    /// The protocol has been told to pause.
    told: bool,
    pub(super) error: Option<io::Error>,
}

impl Out {
    fn len(&self) -> usize {
        self.buffer.len() + self.in_flight
    }

    pub(super) fn close(&mut self) {
        self.closing = true;
    }

    pub(super) fn abort(&mut self) {
        (self.closing, self.aborted) = (true, true);
        self.buffer = Vec::new();
        if let Some(stream) = &self.stream {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Keeps the error for `connection_lost`; of several errors the first counts.
    pub(super) fn fail(&mut self, error: io::Error) {
        if !self.aborted {
            self.error.get_or_insert(error);
        }
        self.abort();
    }

    /// Whether a `pause_writing` or `resume_writing` is due.
    pub(super) fn is_news(&self) -> bool {
        let full = self.len() > if self.told { self.low } else { self.high };
        full != self.told && !self.aborted
    }

    /// Which one is due, and counts it as made: `true` to pause, `false` to go on.
    pub(super) fn news(&mut self) -> Option<bool> {
        self.is_news().then(|| {
            self.told = !self.told;
            self.told
        })
    }

    /// Writes what the system takes at once, if nothing is buffered or in flight (TRANSPORT-1).
    fn try_write(&self, data: &[u8]) -> io::Result<usize> {
        let stream = self.stream.as_ref().filter(|_| self.len() == 0);
        stream.map_or(Ok(0), |stream| stream.try_write(data))
    }
}

pub(super) struct Link {
    out: Mutex<Out>,
    pub(super) changed: Condvar,
    peer: Option<SocketAddr>,
}

impl Link {
    pub(super) fn new(stream: Arc<dyn Connection>) -> Link {
        let peer = stream.peer_addr();
        let out = Out {
            stream: Some(stream),
            buffer: Vec::new(),
            in_flight: 0,
            low: LOW,
            high: HIGH,
            eof: false,
            closing: false,
            aborted: false,
            reading: true,
            ended: false,
            told: false,
            error: None,
        };
        Link {
            out: Mutex::new(out),
            changed: Condvar::new(),
            peer,
        }
    }

    pub(super) fn locked(&self) -> MutexGuard<'_, Out> {
        self.out.lock().ignore_poison()
    }

    pub(super) fn change<R>(&self, f: impl FnOnce(&mut Out) -> R) -> R {
        let result = f(&mut self.locked());
        self.changed.notify_all();
        result
    }

    /// Waits as long as `condition` holds.
    #[track_caller]
    pub(super) fn wait_while(&self, mut condition: impl FnMut(&mut Out) -> bool) -> MutexGuard<'_, Out> {
        let waited = self.changed.wait_while(self.locked(), |out| condition(out));
        waited.ignore_poison()
    }

    /// Waits until the reader has ended or the connection was aborted.
    pub(super) fn wait_for_end(&self, patience: Duration) {
        let waits = |out: &mut Out| !out.ended && !out.aborted;
        drop(self.changed.wait_timeout_while(self.locked(), patience, waits));
    }

    /// The connection is over; returns the error that ended it.
    pub(super) fn finish(&self) -> Option<io::Error> {
        self.change(|out| {
            out.abort();
            out.stream = None;
            out.error.take()
        })
    }
}

/// The writing end of a connection that has a [`Protocol`](super::Protocol). A clone is the same one; it may go to any
/// green thread and any OS thread.
///
/// # Coming from Python
/// `asyncio.Transport`, with [`drain`](Self::drain) from `asyncio.StreamWriter`.
#[derive(Clone)]
pub struct Transport {
    link: Arc<Link>,
}

impl Transport {
    pub(super) fn new(link: Arc<Link>) -> Transport {
        Transport { link }
    }

    /// Writes without waiting: what the system does not take at once is kept, and goes out in order.
    ///
    /// After [`write_eof`](Self::write_eof), [`close`](Self::close) or the end of the connection it does nothing. An
    /// error is told to [`connection_lost`](super::Protocol::connection_lost). Code that writes much should stop at
    /// [`pause_writing`](super::Protocol::pause_writing), or call [`drain`](Self::drain).
    pub fn write(&self, data: &[u8]) {
        let mut out = self.link.locked();
        if out.closing || out.eof || data.is_empty() {
            return;
        }
        match out.try_write(data) {
            Ok(written) if written == data.len() => return,
            Ok(written) => out.buffer.extend_from_slice(&data[written..]),
            Err(error) => out.fail(error),
        }
        drop(out);
        self.link.changed.notify_all();
    }

    /// Waits, if more than the high mark is buffered, until no more than the low mark is.
    ///
    /// # Errors
    /// `NotConnected` once the connection is closing.
    ///
    /// # Blocking and cancellation
    /// Parks. A kill or time-out unwinds here; nothing that was written is lost.
    #[track_caller]
    pub fn drain(&self) -> io::Result<()> {
        let mut mark = self.link.locked().high;
        let closing = self.link.wait_while(|out| {
            let full = out.len() > mark;
            mark = out.low;
            full && !out.closing
        });
        if closing.closing {
            return Err(io::Error::new(
                ErrorKind::NotConnected,
                "the connection is closed or closing: it takes no more bytes",
            ));
        }
        Ok(())
    }

    /// Sends what is buffered, and then tells the peer that no more comes. Reading goes on.
    pub fn write_eof(&self) {
        self.link.change(|out| out.eof = true);
    }

    /// Receives no more, sends what is buffered, tells the peer so, and closes when the peer has ended too, but no more
    /// than two seconds later (over TCP; see [`Connection::linger`]).
    pub fn close(&self) {
        self.link.change(Out::close);
    }

    /// Closes at once; what is buffered is lost.
    pub fn abort(&self) {
        self.link.change(Out::abort);
    }

    /// Whether it closes, or has closed.
    pub fn is_closing(&self) -> bool {
        self.link.locked().closing
    }

    /// From now on no data is received, until [`resume_reading`](Self::resume_reading).
    pub fn pause_reading(&self) {
        self.link.change(|out| out.reading = false);
    }

    /// Receives data again.
    pub fn resume_reading(&self) {
        self.link.change(|out| out.reading = true);
    }

    /// How many bytes are buffered.
    pub fn write_buffer_size(&self) -> usize {
        self.link.locked().len()
    }

    /// Above `high` buffered bytes the protocol is told to pause, at `low` to go on; at first 64 and 16 KiB.
    ///
    /// # Panics
    /// If `low` is above `high`.
    #[track_caller]
    pub fn set_write_buffer_limits(&self, low: usize, high: usize) {
        assert!(low <= high, "the low mark ({low}) is above the high one ({high})");
        self.link.change(|out| (out.low, out.high) = (low, high));
    }

    /// The address at the other end; none for a Unix socket.
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.link.peer
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (buffered, closing) = {
            let out = self.link.locked();
            (out.len(), out.closing)
        };
        f.debug_struct("Transport")
            .field("peer", &self.link.peer)
            .field("buffered", &buffered)
            .field("closing", &closing)
            .finish_non_exhaustive()
    }
}
