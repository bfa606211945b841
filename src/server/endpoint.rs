//! Callbacks for the datagrams of a socket: [`DatagramProtocol`].
#![forbid(unsafe_code)]

use std::fmt;
use std::future::{Future, poll_fn};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::Poll;

use rustix::io::Errno;

use crate::future::block_on;
use crate::net::UdpSocket;
use crate::sync::Event;
use crate::sys::poison::IgnorePoison;
use crate::thread::yield_now;

/// The longest datagram that there is.
const LONGEST: usize = 65_535;
/// Receives so many in a row, then lets the other tasks of this hub run.
const ROW: usize = 64;

/// What happens on a datagram socket, as callbacks: first `connection_made`, last `connection_lost`, each once.
///
/// ```
/// use std::net::SocketAddr;
/// use greenthread::server::{DatagramProtocol, DatagramTransport};
///
/// #[derive(Default)]
/// struct Echo(Option<DatagramTransport>);
///
/// impl DatagramProtocol for Echo {
///     fn connection_made(&mut self, transport: DatagramTransport) {
///         self.0 = Some(transport);
///     }
///     fn datagram_received(&mut self, data: &[u8], peer: SocketAddr) {
///         if let Some(transport) = &self.0 {
///             let _ = transport.send_to(data, peer);
///         }
///     }
/// }
/// ```
///
/// One callback runs after the other, and one that waits keeps the next datagram waiting. To run a green thread for
/// each datagram, use a [`DatagramServer`](super::DatagramServer).
///
/// # Coming from Python
/// `asyncio.DatagramProtocol`.
pub trait DatagramProtocol {
    /// The socket is there; this is what to send with.
    fn connection_made(&mut self, transport: DatagramTransport) {
        drop(transport);
    }

    /// A datagram has come.
    fn datagram_received(&mut self, data: &[u8], peer: SocketAddr);

    /// The system has reported an error, for instance that no socket listens at the other end. The endpoint goes on.
    fn error_received(&mut self, error: io::Error) {
        drop(error);
    }

    /// The endpoint is over: `None` if it was closed, else the error.
    ///
    /// It is `ConnectionAborted` if the green thread was killed or timed out, or another callback has panicked.
    fn connection_lost(&mut self, error: Option<io::Error>) {
        drop(error);
    }
}

struct Shared {
    /// `None` once the endpoint is over: a transport that is kept does not keep the descriptor.
    socket: Mutex<Option<Arc<UdpSocket>>>,
    closing: Event,
}

/// The sending end of a socket that has a [`DatagramProtocol`]. A clone is the same one; it may go to any green thread
/// and any OS thread.
///
/// # Coming from Python
/// `asyncio.DatagramTransport`.
#[derive(Clone)]
pub struct DatagramTransport(Arc<Shared>);

impl DatagramTransport {
    fn socket(&self) -> io::Result<Arc<UdpSocket>> {
        let socket = self.0.socket.lock().ignore_poison().clone();
        let closed = || {
            io::Error::new(
                ErrorKind::NotConnected,
                "the datagram endpoint is closed or closing: it sends no more",
            )
        };
        socket.filter(|_| !self.is_closing()).ok_or_else(closed)
    }

    /// Sends a datagram to `peer`.
    ///
    /// # Errors
    /// The system's error; `NotConnected` once it is closing.
    ///
    /// # Blocking and cancellation
    /// Parks while the socket has no room.
    #[track_caller]
    pub fn send_to(&self, data: &[u8], peer: SocketAddr) -> io::Result<()> {
        self.socket()?.send_to(data, peer).map(drop)
    }

    /// Sends a datagram to the address that the socket is connected to.
    ///
    /// # Errors
    /// As [`send_to`](Self::send_to).
    ///
    /// # Blocking and cancellation
    /// As [`send_to`](Self::send_to).
    #[track_caller]
    pub fn send(&self, data: &[u8]) -> io::Result<()> {
        self.socket()?.send(data).map(drop)
    }

    /// Receives and sends no more, and closes the socket when the callback under way has returned.
    pub fn close(&self) {
        self.0.closing.set();
    }

    /// Whether it closes, or has closed.
    pub fn is_closing(&self) -> bool {
        self.0.closing.is_set()
    }

    /// The address that the socket is bound to.
    ///
    /// # Errors
    /// The system's error; `NotConnected` once it is closing.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket()?.local_addr()
    }

    /// The address that the socket is connected to.
    ///
    /// # Errors
    /// As [`local_addr`](Self::local_addr); `NotConnected` if the socket is not connected.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.socket()?.peer_addr()
    }
}

impl fmt::Debug for DatagramTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatagramTransport")
            .field("address", &self.local_addr().ok())
            .field("closing", &self.is_closing())
            .finish()
    }
}

/// Runs a protocol on a socket, until it is closed.
///
/// ```
/// use std::net::SocketAddr;
/// use greenthread::{net::UdpSocket, server::{DatagramProtocol, run_datagram_protocol}, spawn};
///
/// struct Printer;
/// impl DatagramProtocol for Printer {
///     fn datagram_received(&mut self, data: &[u8], peer: SocketAddr) {
///         println!("{} from {peer}", String::from_utf8_lossy(data));
///     }
/// }
///
/// # fn main() -> std::io::Result<()> {
/// let socket = UdpSocket::bind("127.0.0.1:0")?;
/// let printer = spawn(|| run_datagram_protocol(socket, Printer));
/// printer.kill(); // or the transport's `close`
/// # let _ = printer.join();
/// # Ok(())
/// # }
/// ```
///
/// # Blocking and cancellation
/// Parks. A kill or time-out unwinds here, after `connection_lost`.
///
/// # Coming from Python
/// `loop.create_datagram_endpoint(factory, sock=socket)`, but it stays until the end; by that name see
/// [`aio`](crate::aio::create_datagram_endpoint).
#[track_caller]
pub fn run_datagram_protocol<P: DatagramProtocol>(socket: UdpSocket, protocol: P) {
    run_datagram_protocol_then(socket, protocol, drop);
}

/// Like [`run_datagram_protocol`], and passes the transport to `made` after `connection_made`.
#[track_caller]
pub(crate) fn run_datagram_protocol_then<P: DatagramProtocol>(
    socket: UdpSocket,
    mut protocol: P,
    made: impl FnOnce(DatagramTransport),
) {
    let socket = Arc::new(socket);
    let transport = DatagramTransport(Arc::new(Shared {
        socket: Mutex::new(Some(socket.clone())),
        closing: Event::new(),
    }));
    let ended = catch_unwind(AssertUnwindSafe(|| {
        protocol.connection_made(transport.clone());
        made(transport.clone());
        receive(&transport, &socket, &mut protocol)
    }));
    transport.close();
    let last = transport.0.socket.lock().ignore_poison().take();
    drop((last, socket));
    match ended {
        Ok(result) => protocol.connection_lost(result.err()),
        Err(payload) => {
            protocol.connection_lost(Some(super::aborted(&*payload)));
            resume_unwind(payload);
        }
    }
}

/// Receives until the endpoint is closed, or the socket is broken.
#[track_caller]
fn receive<P: DatagramProtocol>(transport: &DatagramTransport, socket: &UdpSocket, protocol: &mut P) -> io::Result<()> {
    let mut buffer = vec![0; LONGEST];
    for number in 1_usize.. {
        match block_on(next(transport, socket, &mut buffer)) {
            None => break,
            Some(Ok((len, peer))) => protocol.datagram_received(&buffer[..len], peer),
            Some(Err(error)) if is_final(&error) => return Err(error),
            Some(Err(error)) => {
                protocol.error_received(error);
                yield_now();
            }
        }
        if number % ROW == 0 {
            yield_now();
        }
    }
    Ok(())
}

/// The next datagram; `None` when the endpoint closes.
async fn next(
    transport: &DatagramTransport,
    socket: &UdpSocket,
    buffer: &mut [u8],
) -> Option<io::Result<(usize, SocketAddr)>> {
    let mut closing = pin!(transport.0.closing.wait_async());
    poll_fn(|context| {
        if closing.as_mut().poll(context).is_ready() {
            return Poll::Ready(None);
        }
        socket.poll_recv_from(context, buffer).map(Some)
    })
    .await
}

/// Whether the descriptor is not a socket any more.
fn is_final(error: &io::Error) -> bool {
    let finals = [Errno::BADF, Errno::NOTSOCK].map(Errno::raw_os_error);
    error.raw_os_error().is_some_and(|errno| finals.contains(&errno))
}
