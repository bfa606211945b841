//! Short functions: each is two lines over something else in the crate.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::io;
use std::net::SocketAddr;

use super::spawn::{ensure_future, green};
use super::{Task, TaskError, report};
use crate::io::{Reader, Writer};
use crate::net::{TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use crate::process::Command;
use crate::server::{
    Connection, DatagramProtocol, DatagramTransport, Outcome, Protocol, StreamServer, Transport,
    run_datagram_protocol_then, run_protocol_then,
};
use crate::sync::Promise;
use crate::sync::channel::bounded;

/// What [`open_connection`] gives to read from.
pub type Reading = Reader<TcpStream>;

/// What [`open_connection`] gives to write to.
pub type Writing = Writer<TcpStream>;

/// A value that is to come: a [`Promise`], which is asyncio's `Future`.
///
/// ```
/// use std::time::Duration;
/// use greenthread::aio::{self, EventLoop};
///
/// let event_loop = EventLoop::new();
/// let (answer, theirs) = (aio::create_future(), aio::create_future());
/// let set = answer.clone();
/// event_loop.call_later(Duration::from_millis(1), move || drop(set.set(42)));
/// answer.on_set(move |n| drop(theirs.set(n + 1))); // its done callback
/// assert_eq!(event_loop.run_until_complete(async move { *answer.wait_async().await }).unwrap(), 42);
/// ```
///
/// A value that may fail is a `Result`: `set(Err(error))` is `set_exception`, and a cancel is an error of your own.
///
/// # Coming from Python
/// `loop.create_future`.
pub fn create_future<T>() -> Promise<T> {
    Promise::new()
}

/// Connects, and gives the two halves.
///
/// ```
/// use std::io::{BufRead, Write};
/// use greenthread::aio;
///
/// # fn main() -> std::io::Result<()> {
/// let server = aio::start_server("127.0.0.1:0", |mut reader, mut writer, _peer| {
///     let mut name = String::new();
///     if reader.read_line(&mut name).is_ok() {
///         let _ = write!(writer, "hello {name}");
///     }
/// })?;
/// server.start()?;
/// let (mut reader, mut writer) = aio::open_connection(server.local_addr()?)?;
/// writer.write_all(b"world\n")?;
/// writer.flush()?;
/// let mut answer = String::new();
/// reader.read_line(&mut answer)?;
/// assert_eq!(answer, "hello world\n");
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// As [`TcpStream::connect`].
///
/// # Blocking and cancellation
/// As [`TcpStream::connect`]. The writes wait only in `drain` and `flush`. In `async` code all of these block in the
/// poll: to time one out or cancel it there, run it in [`green`](super::green) code, or await [a socket's own
/// traits](crate::net#in-async-code).
///
/// # Coming from Python
/// `asyncio.open_connection`; `readexactly` is [`read_exactly`](Reader::read_exactly), `readuntil`
/// [`read_through`](Reader::read_through); `IncompleteReadError` and `LimitOverrunError` come as
/// [`IncompleteRead`](crate::io::IncompleteRead) and [`LimitOverrun`](crate::io::LimitOverrun).
#[track_caller]
pub fn open_connection(address: impl ToSocketAddrs) -> io::Result<(Reading, Writing)> {
    halves(TcpStream::connect(address)?)
}

fn halves(stream: TcpStream) -> io::Result<(Reading, Writing)> {
    Ok((Reader::new(stream.try_clone()?), Writer::new(stream)))
}

/// A server that calls `f` with the two halves of each connection, in a green thread of its own.
///
/// See [`open_connection`]. If `f` gives an error, the [exception handler](super::EventLoop::set_exception_handler) is
/// told.
///
/// # Errors
/// As [`TcpListener::bind`].
///
/// # Coming from Python
/// `asyncio.start_server`. It accepts from [`start`](StreamServer::start) or [`serve_forever`](StreamServer::serve_forever) on.
#[track_caller]
pub fn start_server<F, R>(address: impl ToSocketAddrs, f: F) -> io::Result<StreamServer<TcpListener>>
where
    F: Fn(Reading, Writing, SocketAddr) -> R + Send + Sync + 'static,
    R: Outcome,
{
    let serve = move |stream: TcpStream, peer: SocketAddr| match halves(stream) {
        Ok((reader, writer)) => f(reader, writer, peer).failure().map_or(Ok(()), Err),
        Err(error) => Err(format!("the connection of {peer} is lost: {error}")),
    };
    let server = StreamServer::new(TcpListener::bind(address)?, serve);
    Ok(server.on_failure(report::callback_failed))
}

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
    in_task(move |made| run_protocol_then(stream, factory(), made))
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
    in_task(move |made| run_datagram_protocol_then(socket, factory(), made))
}

/// Runs `run` in a task, and waits for the transport that `run` passes to its callback.
#[track_caller]
fn in_task<T: Send + 'static>(run: impl FnOnce(Box<dyn FnOnce(T)>) + Send + 'static) -> io::Result<(T, Task<()>)> {
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

/// A child process that is not started yet: `create_subprocess_exec(program, *args)` is
/// `Command::new(program).args(args).spawn()`.
///
/// ```
/// use greenthread::{aio, process::Stdio};
///
/// # fn main() -> std::io::Result<()> {
/// let mut cat = aio::create_subprocess_exec("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
/// assert_eq!(cat.communicate(b"meow")?.stdout, b"meow");
/// # Ok(())
/// # }
/// ```
///
/// # Coming from Python
/// `asyncio.create_subprocess_exec`.
pub fn create_subprocess_exec(program: impl AsRef<OsStr>) -> Command {
    Command::new(program)
}

/// A child process, not started yet, that runs a line of the shell.
///
/// ```
/// use greenthread::aio;
///
/// # fn main() -> std::io::Result<()> {
/// assert_eq!(aio::create_subprocess_shell("echo $((6 * 7))").output()?.stdout, b"42\n");
/// # Ok(())
/// # }
/// ```
///
/// # Coming from Python
/// `asyncio.create_subprocess_shell`.
pub fn create_subprocess_shell(line: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(line);
    command
}
