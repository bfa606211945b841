//! TCP: listener and stream.
#![forbid(unsafe_code)]

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::OwnedFd;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::net::SocketAddrAny;

use super::accept::{accept, accept_patiently, accept_patiently_async};
use super::connect::{connect_any, connect_one, without_delay};
use super::impls::{read_by_reference, socket, write_by_reference};
use super::linger::{Leave, Socket};
use crate::dns::ToSocketAddrs;
use crate::io::Async;
use crate::io::traits::{async_read, async_write};
use crate::time::timeout;

/// A TCP socket that waits for connections; like std's, but it parks.
pub struct TcpListener {
    io: Async<std::net::TcpListener>,
}

socket!(TcpListener, std::net::TcpListener);

impl fmt::Debug for TcpListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.io.get_ref(), f)
    }
}

impl TcpListener {
    /// Binds to the first of these addresses that can be bound to. Port 0 lets the system choose.
    ///
    /// ```
    /// let listener = greenthread::net::TcpListener::bind("127.0.0.1:0").unwrap();
    /// assert_ne!(listener.local_addr().unwrap().port(), 0);
    /// ```
    ///
    /// # Errors
    /// The system's error; `AddrInUse` most often.
    #[track_caller]
    pub fn bind(address: impl ToSocketAddrs) -> io::Result<TcpListener> {
        let listener = std::net::TcpListener::bind(address.to_socket_addrs()?.as_slice())?;
        // std asks for a queue of 128, which is too short for many clients that connect at once.
        rustix::net::listen(&listener, super::BACKLOG)?;
        Ok(TcpListener::from(listener))
    }

    /// Like [`bind`](Self::bind), but on a port that others bind to in the same way (`SO_REUSEPORT`).
    ///
    /// The system shares the connections out among them: that may be a listener for each hub.
    ///
    /// ```
    /// use greenthread::net::TcpListener;
    /// # fn main() -> std::io::Result<()> {
    /// let first = TcpListener::bind_reuse_port("127.0.0.1:0")?; // the system chooses a port
    /// let second = TcpListener::bind_reuse_port(first.local_addr()?)?; // the same
    /// assert_eq!(first.local_addr()?, second.local_addr()?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// On Linux and FreeBSD the peer's address decides which listener gets a connection; on macOS the one that was
    /// bound last may get them all. Connections that a listener has not accepted when it is dropped are lost.
    ///
    /// # Errors
    /// As [`bind`](Self::bind); `AddrInUse` if a socket has the port that was not bound in this way, or is another
    /// user's.
    #[track_caller]
    pub fn bind_reuse_port(address: impl ToSocketAddrs) -> io::Result<TcpListener> {
        let addresses = address.to_socket_addrs()?;
        let socket = super::reuse::bind_first(addresses, rustix::net::SocketType::STREAM)?;
        rustix::net::listen(&socket, super::BACKLOG)?;
        Ok(TcpListener::from_nonblocking(socket.into()))
    }

    /// Waits for a connection. Its stream has `TCP_NODELAY` set.
    ///
    /// # Errors
    /// The system's error for the listener. Not when there are no descriptors or no memory left: then it waits until
    /// there are; nor when the peer has gone before it was accepted.
    ///
    /// # Blocking and cancellation
    /// Parks. [`set_read_timeout`](Self::set_read_timeout) bounds it, the wait for a descriptor too. A kill or time-out
    /// unwinds while it waits, never with a connection in hand.
    #[track_caller]
    pub fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        accepted(accept_patiently(&self.io)?)
    }

    /// Like [`accept`](Self::accept), but every error is returned.
    #[track_caller]
    pub(crate) fn accept_once(&self) -> io::Result<(TcpStream, SocketAddr)> {
        accepted(self.io.read_with(accept)?)
    }

    /// Like [`accept`](Self::accept), without a time-out, for an `async` function that is polled on a hub. Any number
    /// of tasks may wait in it.
    pub async fn accept_async(&self) -> io::Result<(TcpStream, SocketAddr)> {
        accepted(accept_patiently_async(&self.io).await?)
    }

    /// Takes a connection, if there is one; if not, the task is woken when there may be.
    ///
    /// Only the task that polled last is woken.
    ///
    /// # Errors
    /// Every one that the system gives: also when there are no descriptors left, and when the peer has gone already.
    pub fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        self.io.poll_read_with(context, accept).map(|got| accepted(got?))
    }

    /// Accepts forever: each item is an [`accept`](Self::accept).
    pub fn incoming(&self) -> Incoming<'_> {
        Incoming { listener: self }
    }

    /// The address that it listens on.
    ///
    /// # Errors
    /// The system's error.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.get_ref().local_addr()
    }

    /// Another handle to the same socket (`dup`). Time-outs are each handle's own; the new one has none.
    ///
    /// # Errors
    /// When there is no descriptor left.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self::from_nonblocking(self.io.get_ref().try_clone()?))
    }

    /// Sets how long an accept may wait. `None`: forever.
    ///
    /// # Errors
    /// `InvalidInput` for a time-out of zero.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.io.set_read_timeout(timeout)
    }

    /// Sets how long [`writable`](Self::writable) may wait. `None`: forever.
    ///
    /// # Errors
    /// `InvalidInput` for a time-out of zero.
    pub fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.io.set_write_timeout(timeout)
    }

    /// How long an accept may wait.
    ///
    /// # Errors
    /// None; the result is std's.
    pub fn read_timeout(&self) -> io::Result<Option<Duration>> {
        Ok(self.io.read_timeout())
    }

    /// How long [`writable`](Self::writable) may wait.
    ///
    /// # Errors
    /// None; the result is std's.
    pub fn write_timeout(&self) -> io::Result<Option<Duration>> {
        Ok(self.io.write_timeout())
    }

    /// Waits until there is a connection to accept, or an error. It takes nothing.
    ///
    /// # Errors
    /// As [`accept`](Self::accept): `TimedOut` after the read time-out, if there is one.
    ///
    /// # Blocking and cancellation
    /// Parks. A kill or time-out unwinds here.
    #[track_caller]
    pub fn readable(&self) -> io::Result<()> {
        self.io.readable()
    }

    /// Waits until there is room to write, or an error.
    ///
    /// # Errors
    /// `TimedOut` after the write time-out, if there is one.
    ///
    /// # Blocking and cancellation
    /// As [`readable`](Self::readable).
    #[track_caller]
    pub fn writable(&self) -> io::Result<()> {
        self.io.writable()
    }

    /// Like [`readable`](Self::readable), without a time-out, for an `async` function that is polled on a hub.
    pub fn readable_async(&self) -> impl Future<Output = io::Result<()>> + use<'_> {
        self.io.readable_async()
    }

    /// Like [`writable`](Self::writable), without a time-out, for an `async` function that is polled on a hub.
    pub fn writable_async(&self) -> impl Future<Output = io::Result<()>> + use<'_> {
        self.io.writable_async()
    }

    /// Takes the socket's pending error (`SO_ERROR`).
    ///
    /// # Errors
    /// The system's error for the socket itself.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.io.get_ref().take_error()
    }

    /// Sets the time to live of its packets.
    ///
    /// # Errors
    /// The system's error.
    pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
        self.io.get_ref().set_ttl(ttl)
    }

    /// The time to live of its packets.
    ///
    /// # Errors
    /// The system's error.
    pub fn ttl(&self) -> io::Result<u32> {
        self.io.get_ref().ttl()
    }

    fn from_nonblocking(socket: std::net::TcpListener) -> Self {
        Self {
            io: Async::new_nonblocking(socket),
        }
    }
}

fn accepted((socket, address): (OwnedFd, Option<SocketAddrAny>)) -> io::Result<(TcpStream, SocketAddr)> {
    let stream = std::net::TcpStream::from(socket);
    let address = match address.and_then(|address| address.try_into().ok()) {
        Some(address) => address,
        None => stream.peer_addr()?,
    };
    // Fails only if the peer has gone already; then the first read gives the error.
    let _ = stream.set_nodelay(true);
    Ok((TcpStream::from_nonblocking(stream), address))
}

/// The iterator of [`TcpListener::incoming`]; it never ends.
#[derive(Debug)]
pub struct Incoming<'a> {
    listener: &'a TcpListener,
}

impl Iterator for Incoming<'_> {
    type Item = io::Result<TcpStream>;

    #[track_caller]
    fn next(&mut self) -> Option<io::Result<TcpStream>> {
        Some(self.listener.accept().map(|(stream, _)| stream))
    }
}

/// A TCP connection; like std's, but it parks. Several green threads may use one, by reference or by
/// [`try_clone`](Self::try_clone).
pub struct TcpStream {
    io: Socket,
}

socket!(TcpStream, std::net::TcpStream);

impl fmt::Debug for TcpStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.io.get_ref(), f)
    }
}

impl TcpStream {
    /// Connects, with `TCP_NODELAY` set.
    ///
    /// A name is looked up on the thread pool; of several addresses the one that answers first is taken (RFC 8305).
    ///
    /// # Errors
    /// The lookup's, or the last attempt's.
    ///
    /// # Blocking and cancellation
    /// Parks. A kill or time-out closes what is under way.
    #[track_caller]
    pub fn connect(address: impl ToSocketAddrs) -> io::Result<TcpStream> {
        let stream = connect_any(address.to_socket_addrs()?.collect())?;
        without_delay(stream).map(|io| TcpStream { io: io.into() })
    }

    /// Connects to one address within `limit`.
    ///
    /// # Errors
    /// `TimedOut`; `InvalidInput` for a limit of zero, as std.
    #[track_caller]
    pub fn connect_timeout(address: &SocketAddr, limit: Duration) -> io::Result<TcpStream> {
        if limit.is_zero() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "cannot connect within a time of zero: give a longer one",
            ));
        }
        let stream = timeout(limit, || connect_one(*address))??;
        without_delay(stream).map(|io| TcpStream { io: io.into() })
    }

    /// When the last handle is dropped, the socket goes to `leave` and is not closed.
    pub(crate) fn leave_to(&mut self, leave: Leave) {
        self.io.leave_to(leave);
    }

    /// The address at the other end.
    ///
    /// # Errors
    /// `NotConnected`.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.io.get_ref().peer_addr()
    }

    /// The address at this end.
    ///
    /// # Errors
    /// The system's error.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.get_ref().local_addr()
    }

    /// Ends one direction or both. Green threads that wait for it on this socket go on.
    ///
    /// # Errors
    /// `NotConnected`.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.io.get_ref().shutdown(how)
    }

    /// Another handle to the same socket (`dup`). Time-outs are each handle's own; the new one has none.
    ///
    /// # Errors
    /// When there is no descriptor left.
    pub fn try_clone(&self) -> io::Result<Self> {
        let socket = self.io.get_ref().try_clone()?;
        Ok(Self {
            io: self.io.another(socket),
        })
    }

    /// Sets how long a read may wait. `None`: forever.
    ///
    /// # Errors
    /// `InvalidInput` for a time-out of zero.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.io.set_read_timeout(timeout)
    }

    /// Sets how long a write may wait. `None`: forever.
    ///
    /// # Errors
    /// `InvalidInput` for a time-out of zero.
    pub fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.io.set_write_timeout(timeout)
    }

    /// How long a read may wait.
    ///
    /// # Errors
    /// None; the result is std's.
    pub fn read_timeout(&self) -> io::Result<Option<Duration>> {
        Ok(self.io.read_timeout())
    }

    /// How long a write may wait.
    ///
    /// # Errors
    /// None; the result is std's.
    pub fn write_timeout(&self) -> io::Result<Option<Duration>> {
        Ok(self.io.write_timeout())
    }

    /// Waits until there is something to read, the end, or an error. It takes nothing.
    ///
    /// # Errors
    /// As a read: `TimedOut` after the read time-out, if there is one.
    ///
    /// # Blocking and cancellation
    /// Parks. A kill or time-out unwinds here.
    #[track_caller]
    pub fn readable(&self) -> io::Result<()> {
        self.io.readable()
    }

    /// Waits until there is room to write, or an error.
    ///
    /// # Errors
    /// As a write.
    ///
    /// # Blocking and cancellation
    /// As [`readable`](Self::readable).
    #[track_caller]
    pub fn writable(&self) -> io::Result<()> {
        self.io.writable()
    }

    /// Like [`readable`](Self::readable), without a time-out, for an `async` function that is polled on a hub.
    pub fn readable_async(&self) -> impl Future<Output = io::Result<()>> + use<'_> {
        self.io.readable_async()
    }

    /// Like [`writable`](Self::writable), without a time-out, for an `async` function that is polled on a hub.
    pub fn writable_async(&self) -> impl Future<Output = io::Result<()>> + use<'_> {
        self.io.writable_async()
    }

    /// Takes the socket's pending error (`SO_ERROR`).
    ///
    /// # Errors
    /// The system's error for the socket itself.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.io.get_ref().take_error()
    }

    /// Reads without taking the data away.
    ///
    /// # Errors
    /// As `read`.
    #[track_caller]
    pub fn peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.io.read_with(|socket| socket.peek(buffer))
    }

    /// Whether small writes go out at once (here: yes, unless cleared) or wait for more (Nagle's algorithm).
    ///
    /// # Errors
    /// The system's error.
    pub fn set_nodelay(&self, yes: bool) -> io::Result<()> {
        self.io.get_ref().set_nodelay(yes)
    }

    /// Whether small writes go out at once.
    ///
    /// # Errors
    /// The system's error.
    pub fn nodelay(&self) -> io::Result<bool> {
        self.io.get_ref().nodelay()
    }

    /// Sets the time to live of its packets.
    ///
    /// # Errors
    /// The system's error.
    pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
        self.io.get_ref().set_ttl(ttl)
    }

    /// The time to live of its packets.
    ///
    /// # Errors
    /// The system's error.
    pub fn ttl(&self) -> io::Result<u32> {
        self.io.get_ref().ttl()
    }

    fn from_nonblocking(socket: std::net::TcpStream) -> Self {
        Self {
            io: Async::new_nonblocking(socket).into(),
        }
    }
}

impl Read for &TcpStream {
    #[inline]
    #[track_caller]
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = buffer.len();
        self.io.read_stream(len, |mut socket| socket.read(buffer))
    }

    #[track_caller]
    fn read_vectored(&mut self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.io.read_with(|mut socket| socket.read_vectored(buffers))
    }
}

impl Write for &TcpStream {
    #[inline]
    #[track_caller]
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.io.write_stream(|mut socket| socket.write(buffer))
    }

    #[track_caller]
    fn write_vectored(&mut self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        self.io.write_stream(|mut socket| socket.write_vectored(buffers))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

read_by_reference!(TcpStream);
write_by_reference!(TcpStream);
async_read!(TcpStream, drained: true, read: receive);
async_write!(TcpStream, close: |stream| stream.shutdown(Shutdown::Write));
