//! Protocols on a connection or a datagram socket, each in a task.
#![forbid(unsafe_code)]

use std::io;

use super::coroutines::green;
use super::exceptions::TaskError;
use super::tasks::{Task, ensure_future};
use crate::net::{TcpStream, ToSocketAddrs, UdpSocket};
use crate::server::{
    Connection, DatagramProtocol, DatagramTransport, Protocol, Transport, run_datagram_protocol_then, run_protocol_then,
};
use crate::sync::channel::bounded;

/// Connects, and runs a protocol made by `factory` on the connection.
///
/// It gives the transport, and a task that ends when the connection is over.
///
/// ```
/// use std::sync::{Arc, Mutex};
/// use greenthread::{aio, net::TcpListener, server::{Protocol, Transport, serve_protocol}};
///
/// #[derive(Default)]
/// struct Upper(Option<Transport>); // the server
/// impl Protocol for Upper {
///     fn connection_made(&mut self, transport: Transport) {
///         self.0 = Some(transport);
///     }
///     fn data_received(&mut self, data: &[u8]) {
///         self.0.iter().for_each(|transport| transport.write(&data.to_ascii_uppercase()));
///     }
/// }
///
/// struct Client(Arc<Mutex<Vec<u8>>>);
/// impl Protocol for Client {
///     fn connection_made(&mut self, transport: Transport) {
///         transport.write(b"hello");
///         transport.write_eof();
///     }
///     fn data_received(&mut self, data: &[u8]) {
///         self.0.lock().unwrap().extend_from_slice(data);
///     }
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let server = aio::create_server(TcpListener::bind("127.0.0.1:0")?, Upper::default);
/// server.start()?;
/// let answer = Arc::new(Mutex::new(Vec::new()));
/// let theirs = answer.clone();
/// let (_transport, connection) = aio::create_connection(move || Client(theirs), server.local_addr()?)?;
/// connection.wait()?;
/// assert_eq!(*answer.lock().unwrap(), b"HELLO");
/// # Ok(())
/// # }
/// ```
///
/// The protocol is in the task, so whatever other code needs of it goes through what the factory puts in: an `Arc`, a
/// channel. To cancel the task is to end the connection at once; the transport's [`close`](Transport::close) sends what
/// is buffered.
///
/// # Errors
/// As [`TcpStream::connect`]; when `connection_made` has panicked.
///
/// # Blocking and cancellation
/// As [`TcpStream::connect`]; then parks until `connection_made` has returned. A kill or time-out in that ends the
/// connection.
///
/// # Coming from Python
/// `loop.create_connection(factory, host, port)`, which gives the protocol itself. On a Unix socket, or another stream:
/// [`connect_accepted_socket`].
#[track_caller]
pub fn create_connection<F, P>(factory: F, address: impl ToSocketAddrs) -> io::Result<(Transport, Task<()>)>
where
    F: FnOnce() -> P + Send + 'static,
    P: Protocol + 'static,
{
    connect_accepted_socket(factory, TcpStream::connect(address)?)
}

/// As [`create_connection`], on a stream that is connected already, or was accepted.
///
/// ```
/// use greenthread::{aio, net::UnixStream, server::{Protocol, Transport}};
///
/// struct Greeter;
/// impl Protocol for Greeter {
///     fn connection_made(&mut self, transport: Transport) {
///         transport.write(b"hello");
///         transport.close();
///     }
///     fn data_received(&mut self, _data: &[u8]) {}
/// }
///
/// # fn main() -> std::io::Result<()> {
/// let (ours, theirs) = UnixStream::pair()?;
/// let (_transport, _connection) = aio::connect_accepted_socket(|| Greeter, ours)?;
/// assert_eq!(std::io::read_to_string(theirs)?, "hello");
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// When `connection_made` has panicked.
///
/// # Blocking and cancellation
/// As [`create_connection`].
///
/// # Coming from Python
/// `loop.connect_accepted_socket(factory, sock)`, `loop.create_connection(factory, sock=sock)`,
/// `loop.create_unix_connection`.
#[track_caller]
pub fn connect_accepted_socket<F, P, C>(factory: F, stream: C) -> io::Result<(Transport, Task<()>)>
where
    F: FnOnce() -> P + Send + 'static,
    P: Protocol + 'static,
    C: Connection,
{
    run_in_task(move |made| run_protocol_then(stream, factory(), made))
}

/// Runs a datagram protocol made by `factory` on a socket.
///
/// It gives the transport, and a task that ends when the transport is closed.
///
/// ```
/// use std::net::SocketAddr;
/// use greenthread::{aio, net::UdpSocket, server::{DatagramProtocol, DatagramTransport}};
///
/// #[derive(Default)]
/// struct Echo(Option<DatagramTransport>);
/// impl DatagramProtocol for Echo {
///     fn connection_made(&mut self, transport: DatagramTransport) {
///         self.0 = Some(transport);
///     }
///     fn datagram_received(&mut self, data: &[u8], peer: SocketAddr) {
///         self.0.iter().for_each(|transport| transport.send_to(data, peer).unwrap());
///     }
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (transport, endpoint) = aio::create_datagram_endpoint(Echo::default, UdpSocket::bind("127.0.0.1:0")?)?;
/// let client = UdpSocket::bind("127.0.0.1:0")?;
/// client.send_to(b"hello", transport.local_addr()?)?;
/// let mut answer = [0; 16];
/// let (len, _) = client.recv_from(&mut answer)?;
/// assert_eq!(&answer[..len], b"hello");
/// transport.close();
/// endpoint.wait()?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// When `connection_made` has panicked.
///
/// # Blocking and cancellation
/// Parks until `connection_made` has returned. A kill or time-out in that ends the endpoint.
///
/// # Coming from Python
/// `loop.create_datagram_endpoint(factory, local_addr, remote_addr)`: the addresses are those that the socket is bound
/// and connected to, and so are the options.
#[track_caller]
pub fn create_datagram_endpoint<F, P>(factory: F, socket: UdpSocket) -> io::Result<(DatagramTransport, Task<()>)>
where
    F: FnOnce() -> P + Send + 'static,
    P: DatagramProtocol + 'static,
{
    run_in_task(move |made| run_datagram_protocol_then(socket, factory(), made))
}

/// Runs `run` in a task, and waits for the transport that `run` passes to its callback.
#[track_caller]
fn run_in_task<T: Send + 'static>(run: impl FnOnce(Box<dyn FnOnce(T)>) + Send + 'static) -> io::Result<(T, Task<()>)> {
    let (made, transport) = bounded(1);
    let task = ensure_future(green(move || {
        // The send fails if the caller was killed meanwhile: then nothing waits for the transport.
        run(Box::new(move |transport| drop(made.send(transport))));
    }));
    if let Ok(transport) = task.wait_propagating_cancel(|| transport.recv()) {
        return Ok((transport, task));
    }
    // No transport came: `run` ended before `connection_made` returned. Its task may have the error.
    task.is_finished_by(None);
    Err(io::Error::other(task.value().err().unwrap_or(TaskError::Stopped)))
}
