//! Unix sockets: streams and datagrams.
#![forbid(unsafe_code)]

use std::io;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::{self as std_net, SocketAddr};
use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::accept::accept_patiently;
use crate::io::Async;

/// A Unix socket that waits for connections; std's, but it parks.
pub struct UnixListener {
    io: Async<std_net::UnixListener>,
}

socket!(UnixListener, std_net::UnixListener);

impl UnixListener {
    /// Binds to a path, which must not exist.
    ///
    /// # Errors
    /// What the system says; `AddrInUse` if the path exists.
    pub fn bind(path: impl AsRef<Path>) -> io::Result<UnixListener> {
        Ok(UnixListener::from(std_net::UnixListener::bind(path)?))
    }

    /// Waits for a connection.
    ///
    /// # Errors
    /// What the system says of the listener.
    #[track_caller]
    pub fn accept(&self) -> io::Result<(UnixStream, SocketAddr)> {
        let (socket, _) = accept_patiently(&self.io)?;
        let stream = std_net::UnixStream::from(socket);
        let address = stream.peer_addr()?;
        Ok((UnixStream::from_nonblocking(stream), address))
    }

    /// Accepts for ever.
    pub fn incoming(&self) -> UnixIncoming<'_> {
        UnixIncoming { listener: self }
    }

    /// The address that it listens on.
    ///
    /// # Errors
    /// What the system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.get_ref().local_addr()
    }
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

/// A Unix stream; std's, but it parks.
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
// With passed descriptors a short read does not mean drained.
stream!(UnixStream, drained: false);

impl UnixStream {
    /// Connects to a path.
    ///
    /// # Errors
    /// What the system says.
    ///
    /// # Blocking and cancellation
    /// While the listener's queue is full it tries again every millisecond: the system has no event for that.
    #[track_caller]
    pub fn connect(path: impl AsRef<Path>) -> io::Result<UnixStream> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket: OwnedFd = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        let address = SocketAddrUnix::new(path.as_ref())?;
        loop {
            match rustix::net::connect(&socket, &address) {
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
    /// What the system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.get_ref().local_addr()
    }

    /// Ends one direction or both; whoever waits for it here goes on.
    ///
    /// # Errors
    /// `NotConnected`.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.io.get_ref().shutdown(how)
    }
}

/// A Unix datagram socket; std's, but it parks.
pub struct UnixDatagram {
    io: Async<std_net::UnixDatagram>,
}

socket!(UnixDatagram, std_net::UnixDatagram);

impl UnixDatagram {
    /// Binds to a path, which must not exist.
    ///
    /// # Errors
    /// What the system says.
    pub fn bind(path: impl AsRef<Path>) -> io::Result<UnixDatagram> {
        Ok(UnixDatagram::from(std_net::UnixDatagram::bind(path)?))
    }

    /// One that is bound to nothing.
    ///
    /// # Errors
    /// When there is no descriptor left.
    pub fn unbound() -> io::Result<UnixDatagram> {
        Ok(UnixDatagram::from(std_net::UnixDatagram::unbound()?))
    }

    /// Two, connected to each other.
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
    /// What the system says.
    pub fn connect(&self, path: impl AsRef<Path>) -> io::Result<()> {
        self.io.get_ref().connect(path)
    }

    /// Waits for a datagram, and says who sent it.
    ///
    /// # Errors
    /// What the system says; `TimedOut`.
    #[track_caller]
    pub fn recv_from(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.io.read_with(|socket| socket.recv_from(buffer))
    }

    /// Waits for a datagram.
    ///
    /// # Errors
    /// What the system says; `TimedOut`.
    #[track_caller]
    pub fn recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.io.read_with(|socket| socket.recv(buffer))
    }

    /// Sends a datagram to a path.
    ///
    /// # Errors
    /// What the system says.
    #[track_caller]
    pub fn send_to(&self, buffer: &[u8], path: impl AsRef<Path>) -> io::Result<usize> {
        self.io.write_with(|socket| socket.send_to(buffer, path.as_ref()))
    }

    /// Sends a datagram to the path that it is connected to.
    ///
    /// # Errors
    /// What the system says.
    #[track_caller]
    pub fn send(&self, buffer: &[u8]) -> io::Result<usize> {
        self.io.write_with(|socket| socket.send(buffer))
    }

    /// The address at this end.
    ///
    /// # Errors
    /// What the system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.get_ref().local_addr()
    }
}
