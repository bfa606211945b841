//! UDP.
#![forbid(unsafe_code)]

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::task::{Context, Poll};
use std::time::Duration;

use super::impls::socket;
use crate::dns::ToSocketAddrs;
use crate::io::Async;

/// A UDP socket; like std's, but it parks.
///
/// ```
/// use greenthread::net::UdpSocket;
/// # fn main() -> std::io::Result<()> {
/// let (a, b) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
/// a.send_to(b"hi", b.local_addr()?)?;
/// let mut buffer = [0; 16];
/// let (len, from) = b.recv_from(&mut buffer)?;
/// assert_eq!((&buffer[..len], from), (&b"hi"[..], a.local_addr()?));
/// # Ok(())
/// # }
/// ```
pub struct UdpSocket {
    io: Async<std::net::UdpSocket>,
}

socket!(UdpSocket, std::net::UdpSocket);

impl fmt::Debug for UdpSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.io.get_ref(), f)
    }
}

impl UdpSocket {
    /// Binds to the first of these addresses that can be bound to.
    ///
    /// # Errors
    /// The system's error.
    #[track_caller]
    pub fn bind(address: impl ToSocketAddrs) -> io::Result<UdpSocket> {
        Ok(UdpSocket::from(std::net::UdpSocket::bind(
            address.to_socket_addrs()?.as_slice(),
        )?))
    }

    /// Like [`bind`](Self::bind), but on a port that others bind to in the same way (`SO_REUSEPORT`): the system shares
    /// the datagrams out among them, those of one sender to one socket.
    ///
    /// # Errors
    /// As [`bind`](Self::bind); `AddrInUse` if a socket has the port that was not bound in this way, or is another
    /// user's.
    #[track_caller]
    pub fn bind_reuse_port(address: impl ToSocketAddrs) -> io::Result<UdpSocket> {
        let addresses = address.to_socket_addrs()?;
        let socket = super::reuse::bind_first(addresses, rustix::net::SocketType::DGRAM)?;
        Ok(UdpSocket::from_nonblocking(socket.into()))
    }

    /// Sends to, and receives from, this address only from now on.
    ///
    /// # Errors
    /// The system's error.
    #[track_caller]
    pub fn connect(&self, address: impl ToSocketAddrs) -> io::Result<()> {
        self.io.get_ref().connect(address.to_socket_addrs()?.as_slice())
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
        self.io.read_with(|socket| socket.recv_from(buffer))
    }

    /// Like [`recv_from`](Self::recv_from), without a time-out, for an `async` function that is polled on a hub. Any
    /// number of tasks may wait in it. When dropped, it has taken no datagram.
    pub fn recv_from_async<'a>(
        &'a self,
        buffer: &'a mut [u8],
    ) -> impl Future<Output = io::Result<(usize, SocketAddr)>> + use<'a> {
        self.io.read_with_async(|socket| socket.recv_from(buffer))
    }

    /// Like [`send_to`](Self::send_to), to one address and without a time-out, for an `async` function that is polled
    /// on a hub.
    pub fn send_to_async<'a>(
        &'a self,
        buffer: &'a [u8],
        address: SocketAddr,
    ) -> impl Future<Output = io::Result<usize>> + use<'a> {
        self.io.write_with_async(move |socket| socket.send_to(buffer, address))
    }

    /// Takes a datagram, if there is one; if not, the task is woken when there may be.
    ///
    /// Only the task that polled last is woken.
    ///
    /// # Errors
    /// The system's error.
    pub fn poll_recv_from(
        &self,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<(usize, SocketAddr)>> {
        self.io.poll_read_with(context, |socket| socket.recv_from(buffer))
    }

    /// Takes a datagram of the address that it is connected to, as [`poll_recv_from`](Self::poll_recv_from).
    ///
    /// # Errors
    /// The system's error.
    pub fn poll_recv(&self, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        self.io.poll_read_with(context, |socket| socket.recv(buffer))
    }

    /// Sends a datagram, if there is room; if not, the task is woken when there may be.
    ///
    /// # Errors
    /// The system's error.
    pub fn poll_send_to(
        &self,
        context: &mut Context<'_>,
        buffer: &[u8],
        address: SocketAddr,
    ) -> Poll<io::Result<usize>> {
        self.io
            .poll_write_with(context, |socket| socket.send_to(buffer, address))
    }

    /// Sends a datagram to the address that it is connected to, as [`poll_send_to`](Self::poll_send_to).
    ///
    /// # Errors
    /// The system's error; `NotConnected`.
    pub fn poll_send(&self, context: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        self.io.poll_write_with(context, |socket| socket.send(buffer))
    }

    /// Like [`recv_from`](Self::recv_from), and leaves the datagram where it is.
    ///
    /// # Errors
    /// As [`recv_from`](Self::recv_from).
    ///
    /// # Blocking and cancellation
    /// As [`recv_from`](Self::recv_from).
    #[track_caller]
    pub fn peek_from(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.io.read_with(|socket| socket.peek_from(buffer))
    }

    /// Sends a datagram to the first of these addresses.
    ///
    /// # Errors
    /// The system's error.
    #[track_caller]
    pub fn send_to(&self, buffer: &[u8], address: impl ToSocketAddrs) -> io::Result<usize> {
        let Some(to) = address.to_socket_addrs()?.next() else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "cannot send a datagram: the name has no address",
            ));
        };
        self.io.write_with(|socket| socket.send_to(buffer, to))
    }

    /// Waits for a datagram from the address that it is connected to.
    ///
    /// # Errors
    /// The system's error; `TimedOut`.
    ///
    /// # Blocking and cancellation
    /// As [`recv_from`](Self::recv_from).
    #[track_caller]
    pub fn recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.io.read_with(|socket| socket.recv(buffer))
    }

    /// Like [`recv`](Self::recv), and leaves the datagram where it is.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    ///
    /// # Blocking and cancellation
    /// As [`recv_from`](Self::recv_from).
    #[track_caller]
    pub fn peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.io.read_with(|socket| socket.peek(buffer))
    }

    /// Sends a datagram to the address that it is connected to.
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

    /// Whether it may send to broadcast addresses.
    ///
    /// # Errors
    /// The system's error.
    pub fn set_broadcast(&self, yes: bool) -> io::Result<()> {
        self.io.get_ref().set_broadcast(yes)
    }

    /// Whether it may send to broadcast addresses.
    ///
    /// # Errors
    /// The system's error.
    pub fn broadcast(&self) -> io::Result<bool> {
        self.io.get_ref().broadcast()
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

    /// Whether what it sends to an IPv4 group comes back to this host.
    ///
    /// # Errors
    /// The system's error.
    pub fn set_multicast_loop_v4(&self, yes: bool) -> io::Result<()> {
        self.io.get_ref().set_multicast_loop_v4(yes)
    }

    /// Whether what it sends to an IPv4 group comes back to this host.
    ///
    /// # Errors
    /// The system's error.
    pub fn multicast_loop_v4(&self) -> io::Result<bool> {
        self.io.get_ref().multicast_loop_v4()
    }

    /// Sets the time to live of its packets to IPv4 groups; 1 at first, which keeps them in the local network.
    ///
    /// # Errors
    /// The system's error.
    pub fn set_multicast_ttl_v4(&self, ttl: u32) -> io::Result<()> {
        self.io.get_ref().set_multicast_ttl_v4(ttl)
    }

    /// The time to live of its packets to IPv4 groups.
    ///
    /// # Errors
    /// The system's error.
    pub fn multicast_ttl_v4(&self) -> io::Result<u32> {
        self.io.get_ref().multicast_ttl_v4()
    }

    /// Whether what it sends to an IPv6 group comes back to this host.
    ///
    /// # Errors
    /// The system's error.
    pub fn set_multicast_loop_v6(&self, yes: bool) -> io::Result<()> {
        self.io.get_ref().set_multicast_loop_v6(yes)
    }

    /// Whether what it sends to an IPv6 group comes back to this host.
    ///
    /// # Errors
    /// The system's error.
    pub fn multicast_loop_v6(&self) -> io::Result<bool> {
        self.io.get_ref().multicast_loop_v6()
    }

    /// Joins an IPv4 group, on the interface that has this address; `UNSPECIFIED` lets the system choose.
    ///
    /// # Errors
    /// The system's error.
    pub fn join_multicast_v4(&self, group: &Ipv4Addr, interface: &Ipv4Addr) -> io::Result<()> {
        self.io.get_ref().join_multicast_v4(group, interface)
    }

    /// Leaves an IPv4 group.
    ///
    /// # Errors
    /// The system's error.
    pub fn leave_multicast_v4(&self, group: &Ipv4Addr, interface: &Ipv4Addr) -> io::Result<()> {
        self.io.get_ref().leave_multicast_v4(group, interface)
    }

    /// Joins an IPv6 group, on the interface of this index; 0 lets the system choose.
    ///
    /// # Errors
    /// The system's error.
    pub fn join_multicast_v6(&self, group: &Ipv6Addr, interface: u32) -> io::Result<()> {
        self.io.get_ref().join_multicast_v6(group, interface)
    }

    /// Leaves an IPv6 group.
    ///
    /// # Errors
    /// The system's error.
    pub fn leave_multicast_v6(&self, group: &Ipv6Addr, interface: u32) -> io::Result<()> {
        self.io.get_ref().leave_multicast_v6(group, interface)
    }

    fn from_nonblocking(socket: std::net::UdpSocket) -> Self {
        Self {
            io: Async::new_nonblocking(socket),
        }
    }
}
