//! A server for datagrams.
#![forbid(unsafe_code)]

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::Outcome;
use super::engine::{Engine, Handle, Plan, Spawn, Stopped, isolated, local};
use crate::net::{SocketAddr, UdpSocket, UnixDatagram};

/// The longest datagram that there is.
const LONGEST: usize = 65_535;

/// Something that a [`DatagramServer`] can receive from.
pub trait DatagramSocket: Send + Sync + 'static {
    /// Where a datagram comes from.
    type Address: Clone + fmt::Debug + Send + 'static;

    /// Waits for a datagram, parked.
    ///
    /// # Errors
    /// The system's error.
    fn recv_from(&self, buffer: &mut [u8]) -> io::Result<(usize, Self::Address)>;

    /// The address that it is bound to.
    ///
    /// # Errors
    /// The system's error.
    fn local_addr(&self) -> io::Result<Self::Address>;
}

impl DatagramSocket for UdpSocket {
    type Address = SocketAddr;

    fn recv_from(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        UdpSocket::recv_from(self, buffer)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        UdpSocket::local_addr(self)
    }
}

impl DatagramSocket for UnixDatagram {
    type Address = std::os::unix::net::SocketAddr;

    fn recv_from(&self, buffer: &mut [u8]) -> io::Result<(usize, Self::Address)> {
        UnixDatagram::recv_from(self, buffer)
    }

    fn local_addr(&self) -> io::Result<Self::Address> {
        UnixDatagram::local_addr(self)
    }
}

type Item<S> = (Arc<S>, Vec<u8>, <S as DatagramSocket>::Address);

/// Receives datagrams, and runs a handler for each in a green thread of its own; all share the socket.
///
/// ```
/// use std::time::Duration;
/// use greenthread::{net::UdpSocket, server::DatagramServer};
///
/// # fn main() -> std::io::Result<()> {
/// let server = DatagramServer::new(UdpSocket::bind("127.0.0.1:0")?, |socket, data, peer| {
///     socket.send_to(&data.to_ascii_uppercase(), peer)
/// });
/// server.start()?;
///
/// let client = UdpSocket::bind("127.0.0.1:0")?;
/// client.send_to(b"hello", server.local_addr()?)?;
/// let mut answer = [0; 16];
/// let (len, _) = client.recv_from(&mut answer)?;
/// assert_eq!(&answer[..len], b"HELLO");
/// server.stop(Duration::from_secs(1));
/// # Ok(())
/// # }
/// ```
///
/// All else is as with a [`StreamServer`](super::StreamServer). While the [`limit`](Self::limit) is reached, datagrams
/// wait in the socket, and the system drops those for which it has no room. The socket is closed when the server is and
/// the last handler has ended.
///
/// # Coming from Python
/// `gevent.server.DatagramServer`.
pub struct DatagramServer<S: DatagramSocket> {
    engine: Engine<Item<S>>,
    address: io::Result<S::Address>,
}

impl<S: DatagramSocket> DatagramServer<S> {
    /// A server with isolated handlers, as the green threads of [`spawn`](crate::spawn).
    #[track_caller]
    pub fn new<F, R>(socket: S, handler: F) -> DatagramServer<S>
    where
        F: Fn(&S, Vec<u8>, S::Address) -> R + Send + Sync + 'static,
        R: Outcome,
    {
        let handler = move |(socket, data, peer): Item<S>| handler(&socket, data, peer);
        DatagramServer::with(socket, isolated(handler))
    }

    /// A server with handlers that share thread-locals, as those of [`spawn_local`](crate::spawn_local); nothing in
    /// them need be `Send`.
    #[track_caller]
    pub fn new_local<F, R>(socket: S, handler: F) -> DatagramServer<S>
    where
        F: Fn(&S, Vec<u8>, S::Address) -> R + 'static,
        R: Outcome,
    {
        let handler = move |(socket, data, peer): Item<S>| handler(&socket, data, peer);
        DatagramServer::with(socket, local(handler))
    }

    #[track_caller]
    fn with(socket: S, spawn: Spawn<Item<S>>) -> DatagramServer<S> {
        let address = socket.local_addr();
        let (socket, mut buffer) = (Arc::new(socket), Vec::new());
        let next = Box::new(move || {
            buffer.resize(LONGEST, 0);
            let (len, peer) = socket.recv_from(&mut buffer)?;
            Ok((socket.clone(), buffer[..len].to_vec(), peer))
        });
        DatagramServer {
            engine: Engine::new(|_| Plan { next, spawn }),
            address,
        }
    }

    /// The size of the stacks of its handlers, in bytes that they can use; otherwise it is that of
    /// [`spawn`](crate::spawn), or of [`spawn_local`](crate::spawn_local). The first that is given counts.
    #[must_use]
    pub fn stack_size(self, bytes: usize) -> DatagramServer<S> {
        self.engine.stack_size(bytes);
        self
    }

    /// At most so many handlers at once; at first there is no limit.
    ///
    /// # Panics
    /// If it is zero.
    #[must_use]
    #[track_caller]
    pub fn limit(self, handlers: usize) -> DatagramServer<S> {
        self.engine.limit(handlers);
        self
    }

    /// Calls `hook` with every error of receiving, in place of the line on stderr.
    #[must_use]
    pub fn on_error(self, hook: impl Fn(&io::Error) + 'static) -> DatagramServer<S> {
        self.engine.on_error(Box::new(hook));
        self
    }

    /// Calls `hook` with the error of every handler that returns one, in place of the line on stderr.
    ///
    /// It runs in that handler's green thread. (For a panic see [`hub::set_panic_hook`](crate::hub::set_panic_hook).)
    /// The first hook counts.
    #[must_use]
    pub fn on_failure(self, hook: impl Fn(&str) + Send + Sync + 'static) -> DatagramServer<S> {
        self.engine.on_failure(Box::new(hook));
        self
    }

    /// Starts receiving on this OS thread's hub, and returns at once. Started before, it does nothing.
    ///
    /// # Errors
    /// `NotConnected` if it was stopped; when there is no memory for a stack.
    pub fn start(&self) -> io::Result<()> {
        self.engine.start()
    }

    /// Starts, unless it has, and waits until the server was stopped and its last handler has ended.
    ///
    /// # Errors
    /// The error that made the server close by itself.
    ///
    /// # Blocking and cancellation
    /// Parks. A kill or time-out unwinds here, and ends the receiving; the handlers go on.
    #[track_caller]
    pub fn serve_forever(&self) -> io::Result<()> {
        self.engine.serve_forever()
    }

    /// Stops it, as [`Handle::stop`].
    #[track_caller]
    pub fn stop(&self, patience: Duration) -> Stopped {
        self.engine.stop(patience)
    }

    /// A handle that may stop it from elsewhere.
    pub fn handle(&self) -> Handle {
        self.engine.handle().clone()
    }

    /// The address that it receives at, or did.
    ///
    /// # Errors
    /// What the system said when the server was made.
    pub fn local_addr(&self) -> io::Result<S::Address> {
        super::again(&self.address)
    }
}

impl<S: DatagramSocket> fmt::Debug for DatagramServer<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatagramServer")
            .field("address", &self.address)
            .field("handle", self.engine.handle())
            .finish()
    }
}
