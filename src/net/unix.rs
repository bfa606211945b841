//! Unix sockets: streams and datagrams.
#![forbid(unsafe_code)]

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::{self as std_net, SocketAddr};
use std::path::Path;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType};

use super::accept::{accept, accept_patiently, accept_patiently_async};
use super::impls::{read_by_reference, socket, write_by_reference};
use crate::io::Async;
use crate::io::traits::{async_read, async_write};
use crate::sys::plain::plainly;
use crate::sys::socket;

/// A Unix socket that waits for connections; like std's, but it parks.
pub struct UnixListener {
    io: Async<std_net::UnixListener>,
}

socket!(UnixListener, std_net::UnixListener);

impl fmt::Debug for UnixListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.io.get_ref(), f)
    }
}

impl UnixListener {
    /// Binds to a path, which must not exist.
    ///
    /// # Errors
    /// The system's error; `AddrInUse` if the path exists.
    pub fn bind(path: impl AsRef<Path>) -> io::Result<UnixListener> {
        Ok(UnixListener::from(std_net::UnixListener::bind(path)?))
    }

    /// Binds to an address: a path, or a name of Linux's that is in no file system.
    ///
    /// ```
    /// # #[cfg(target_os = "linux")]
    /// # fn main() -> std::io::Result<()> {
    /// use std::os::{linux::net::SocketAddrExt, unix::net::SocketAddr};
    /// use greenthread::net::{UnixListener, UnixStream};
    /// let name = format!("greenthread-doc-{}", std::process::id());
    /// let address = SocketAddr::from_abstract_name(name)?;
    /// let listener = UnixListener::bind_addr(&address)?;
    /// let _client = UnixStream::connect_addr(&address)?;
    /// let _server = listener.accept()?;
    /// # Ok(())
    /// # }
    /// # #[cfg(not(target_os = "linux"))]
    /// # fn main() {}
    /// ```
    ///
    /// # Errors
    /// The system's error.
    pub fn bind_addr(address: &SocketAddr) -> io::Result<UnixListener> {
        Ok(UnixListener::from(std_net::UnixListener::bind_addr(address)?))
    }

    /// Waits for a connection.
    ///
    /// # Errors
    /// The system's error for the listener. Not when there are no descriptors or no memory left: then it waits until
    /// there are.
    ///
    /// # Blocking and cancellation
    /// As [`TcpListener::accept`](super::TcpListener::accept).
    #[track_caller]
    pub fn accept(&self) -> io::Result<(UnixStream, SocketAddr)> {
        accepted(accept_patiently(&self.io)?.0)
    }

    /// Like [`accept`](Self::accept), but every error is returned.
    #[track_caller]
    pub(crate) fn accept_once(&self) -> io::Result<(UnixStream, SocketAddr)> {
        accepted(self.io.read_with(accept)?.0)
    }

    /// Like [`accept`](Self::accept), without a time-out, for an `async` function that is polled on a hub. Any number
    /// of tasks may wait in it.
    pub async fn accept_async(&self) -> io::Result<(UnixStream, SocketAddr)> {
        accepted(accept_patiently_async(&self.io).await?.0)
    }

    /// Takes a connection, if there is one; if not, the task is woken when there may be.
    ///
    /// Only the task that polled last is woken.
    ///
    /// # Errors
    /// Every one that the system gives: also when there are no descriptors left, and when the peer has gone already.
    pub fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<(UnixStream, SocketAddr)>> {
        self.io.poll_read_with(context, accept).map(|got| accepted(got?.0))
    }

    /// Accepts forever: each item is an [`accept`](Self::accept).
    pub fn incoming(&self) -> UnixIncoming<'_> {
        UnixIncoming { listener: self }
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

    fn from_nonblocking(socket: std_net::UnixListener) -> Self {
        Self {
            io: Async::new_nonblocking(socket),
        }
    }
}

fn accepted(socket: OwnedFd) -> io::Result<(UnixStream, SocketAddr)> {
    let stream = std_net::UnixStream::from(socket);
    let address = stream.peer_addr()?;
    Ok((UnixStream::from_nonblocking(stream), address))
}

/// The iterator of [`UnixListener::incoming`]; it never ends.
#[derive(Debug)]
pub struct UnixIncoming<'a> {
    listener: &'a UnixListener,
}

impl Iterator for UnixIncoming<'_> {
    type Item = io::Result<UnixStream>;

    #[track_caller]
    fn next(&mut self) -> Option<io::Result<UnixStream>> {
        Some(self.listener.accept().map(|(stream, _)| stream))
    }
}

impl<'a> IntoIterator for &'a UnixListener {
    type Item = io::Result<UnixStream>;
    type IntoIter = UnixIncoming<'a>;

    fn into_iter(self) -> UnixIncoming<'a> {
        self.incoming()
    }
}

/// An address for rustix; an error for an unnamed socket, which rustix cannot express.
fn address_of(address: &SocketAddr) -> io::Result<SocketAddrUnix> {
    if let Some(path) = address.as_pathname() {
        return Ok(SocketAddrUnix::new(path)?);
    }
    if let Some(address) = socket::abstract_address(address) {
        return Ok(address?);
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidInput,
        "cannot connect to a Unix socket without a name: bind it to a path first",
    ))
}

/// A Unix stream; like std's, but it parks.
///
/// ```
/// use std::io::{Read, Write};
/// use greenthread::{net::UnixStream, spawn};
/// # fn main() -> std::io::Result<()> {
/// let (mut a, mut b) = UnixStream::pair()?;
/// spawn(move || a.write_all(b"x"));
/// let mut byte = [0];
/// b.read_exact(&mut byte)?;
/// assert_eq!(&byte, b"x");
/// # Ok(())
/// # }
/// ```
pub struct UnixStream {
    io: Async<std_net::UnixStream>,
}

socket!(UnixStream, std_net::UnixStream);

impl fmt::Debug for UnixStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.io.get_ref(), f)
    }
}

impl UnixStream {
    /// Connects to a path.
    ///
    /// # Errors
    /// The system's error.
    ///
    /// # Blocking and cancellation
    /// While the listener's queue is full it tries again every millisecond: the system has no event for that. A kill or
    /// time-out unwinds in the pause.
    #[track_caller]
    pub fn connect(path: impl AsRef<Path>) -> io::Result<UnixStream> {
        UnixStream::connect_to(&SocketAddrUnix::new(path.as_ref())?)
    }

    /// Connects to an address: a path, or a name of Linux's that is in no file system.
    ///
    /// # Errors
    /// The system's error; `InvalidInput` for the address of an unnamed socket.
    ///
    /// # Blocking and cancellation
    /// As [`connect`](Self::connect).
    #[track_caller]
    pub fn connect_addr(address: &SocketAddr) -> io::Result<UnixStream> {
        UnixStream::connect_to(&address_of(address)?)
    }

    #[track_caller]
    fn connect_to(address: &SocketAddrUnix) -> io::Result<UnixStream> {
        crate::io::give_way()?;
        let socket: OwnedFd = socket::socket(AddressFamily::UNIX, SocketType::STREAM)?;
        loop {
            match plainly(|| rustix::net::connect(&socket, address)) {
                Ok(()) => return Ok(UnixStream::from_nonblocking(socket.into())),
                Err(Errno::AGAIN) => crate::time::sleep(Duration::from_millis(1)),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Two streams, connected to each other.
    ///
    /// # Errors
    /// When there is no descriptor left.
    pub fn pair() -> io::Result<(UnixStream, UnixStream)> {
        let (a, b) = std_net::UnixStream::pair()?;
        Ok((UnixStream::from(a), UnixStream::from(b)))
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
        Ok(Self::from_nonblocking(self.io.get_ref().try_clone()?))
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

    fn from_nonblocking(socket: std_net::UnixStream) -> Self {
        Self {
            io: Async::new_nonblocking(socket),
        }
    }
}

impl Read for &UnixStream {
    #[inline]
    #[track_caller]
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // Not `read_stream`: on a Unix stream a read that ends at a passed descriptor is short although more data may
        // be there, so a short read does not show that the stream is drained.
        self.io.read_with(|mut socket| socket.read(buffer))
    }

    #[track_caller]
    fn read_vectored(&mut self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.io.read_with(|mut socket| socket.read_vectored(buffers))
    }
}

impl Write for &UnixStream {
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

read_by_reference!(UnixStream);
write_by_reference!(UnixStream);
async_read!(UnixStream, drained: false, read: receive);
async_write!(UnixStream, close: |stream| stream.shutdown(Shutdown::Write));

/// Whether nothing comes because reading was shut down. On Linux a blocking datagram socket then gets an empty datagram
/// without an address; a non-blocking one gets `EAGAIN`, so the poll's flags must tell.
fn is_end(socket: &std_net::UnixDatagram, error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock && plainly(|| socket::is_read_shut(socket))
}

/// A Unix datagram socket; like std's, but it parks.
///
/// ```
/// use greenthread::{net::UnixDatagram, spawn};
/// # fn main() -> std::io::Result<()> {
/// let (a, b) = UnixDatagram::pair()?;
/// spawn(move || a.send(b"a whole message"));
/// let mut buffer = [0; 32];
/// let len = b.recv(&mut buffer)?;
/// assert_eq!(&buffer[..len], b"a whole message");
/// # Ok(())
/// # }
/// ```
pub struct UnixDatagram {
    io: Async<std_net::UnixDatagram>,
}

socket!(UnixDatagram, std_net::UnixDatagram);

impl fmt::Debug for UnixDatagram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.io.get_ref(), f)
    }
}

impl UnixDatagram {
    /// Binds to a path, which must not exist.
    ///
    /// # Errors
    /// The system's error.
    pub fn bind(path: impl AsRef<Path>) -> io::Result<UnixDatagram> {
        Ok(UnixDatagram::from(std_net::UnixDatagram::bind(path)?))
    }

    /// Binds to an address: a path, or a name of Linux's that is in no file system.
    ///
    /// # Errors
    /// The system's error.
    pub fn bind_addr(address: &SocketAddr) -> io::Result<UnixDatagram> {
        Ok(UnixDatagram::from(std_net::UnixDatagram::bind_addr(address)?))
    }

    /// A socket that is not bound.
    ///
    /// # Errors
    /// When there is no descriptor left.
    pub fn unbound() -> io::Result<UnixDatagram> {
        Ok(UnixDatagram::from(std_net::UnixDatagram::unbound()?))
    }

    /// Two sockets, connected to each other.
    ///
    /// # Errors
    /// When there is no descriptor left.
    pub fn pair() -> io::Result<(UnixDatagram, UnixDatagram)> {
        let (a, b) = std_net::UnixDatagram::pair()?;
        Ok((UnixDatagram::from(a), UnixDatagram::from(b)))
    }

    /// Sends to, and receives from, this path only from now on.
    ///
    /// # Errors
    /// The system's error.
    pub fn connect(&self, path: impl AsRef<Path>) -> io::Result<()> {
        self.io.get_ref().connect(path)
    }

    /// Sends to, and receives from, this address only from now on.
    ///
    /// # Errors
    /// The system's error.
    pub fn connect_addr(&self, address: &SocketAddr) -> io::Result<()> {
        self.io.get_ref().connect_addr(address)
    }

    /// Waits for a datagram, and returns its sender's address. What does not fit is lost.
    ///
    /// # Errors
    /// The system's error; `TimedOut`.
    ///
    /// # Blocking and cancellation
    /// Parks. A kill or time-out unwinds while it waits: no datagram is lost by that.
    #[track_caller]
    pub fn recv_from(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.io.read_with(|socket| match socket.recv_from(buffer) {
            Err(error) if is_end(socket, &error) => Ok((0, SocketAddr::from_pathname("")?)),
            result => result,
        })
    }

    /// Waits for a datagram.
    ///
    /// # Errors
    /// The system's error; `TimedOut`.
    ///
    /// # Blocking and cancellation
    /// As [`recv_from`](Self::recv_from).
    #[track_caller]
    pub fn recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.io.read_with(|socket| match socket.recv(buffer) {
            Err(error) if is_end(socket, &error) => Ok(0),
            result => result,
        })
    }

    /// Sends a datagram to a path.
    ///
    /// # Errors
    /// The system's error.
    #[track_caller]
    pub fn send_to(&self, buffer: &[u8], path: impl AsRef<Path>) -> io::Result<usize> {
        self.io.write_with(|socket| socket.send_to(buffer, path.as_ref()))
    }

    /// Sends a datagram to an address.
    ///
    /// # Errors
    /// The system's error.
    #[track_caller]
    pub fn send_to_addr(&self, buffer: &[u8], address: &SocketAddr) -> io::Result<usize> {
        self.io.write_with(|socket| socket.send_to_addr(buffer, address))
    }

    /// Sends a datagram to the path that it is connected to.
    ///
    /// # Errors
    /// The system's error.
    #[track_caller]
    pub fn send(&self, buffer: &[u8]) -> io::Result<usize> {
        self.io.write_with(|socket| socket.send(buffer))
    }

    /// The address at this end.
    ///
    /// # Errors
    /// The system's error.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.get_ref().local_addr()
    }

    /// The address that it is connected to.
    ///
    /// # Errors
    /// `NotConnected`.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.io.get_ref().peer_addr()
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
        Ok(Self::from_nonblocking(self.io.get_ref().try_clone()?))
    }

    /// Sets how long a receive may wait. `None`: forever.
    ///
    /// # Errors
    /// `InvalidInput` for a time-out of zero.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.io.set_read_timeout(timeout)
    }

    /// Sets how long a send may wait. `None`: forever.
    ///
    /// # Errors
    /// `InvalidInput` for a time-out of zero.
    pub fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.io.set_write_timeout(timeout)
    }

    /// How long a receive may wait.
    ///
    /// # Errors
    /// None; the result is std's.
    pub fn read_timeout(&self) -> io::Result<Option<Duration>> {
        Ok(self.io.read_timeout())
    }

    /// How long a send may wait.
    ///
    /// # Errors
    /// None; the result is std's.
    pub fn write_timeout(&self) -> io::Result<Option<Duration>> {
        Ok(self.io.write_timeout())
    }

    /// Waits until there is a datagram to receive, or an error. It takes nothing.
    ///
    /// # Errors
    /// As a receive: `TimedOut` after the read time-out, if there is one.
    ///
    /// # Blocking and cancellation
    /// Parks. A kill or time-out unwinds here.
    #[track_caller]
    pub fn readable(&self) -> io::Result<()> {
        self.io.readable()
    }

    /// Waits until there is room to send, or an error.
    ///
    /// # Errors
    /// As a send.
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

    fn from_nonblocking(socket: std_net::UnixDatagram) -> Self {
        Self {
            io: Async::new_nonblocking(socket),
        }
    }
}
