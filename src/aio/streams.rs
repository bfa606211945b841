//! Connections as a pair of a buffered reader and a buffered writer.
#![forbid(unsafe_code)]

use std::io;
use std::net::SocketAddr;

use super::events::callback_failed;
use crate::io::{Reader, Writer};
use crate::net::{TcpListener, TcpStream, ToSocketAddrs};
use crate::server::{self, StreamServer};

/// What [`open_connection`] gives to read from.
pub type Reading = Reader<TcpStream>;

/// What [`open_connection`] gives to write to.
pub type Writing = Writer<TcpStream>;

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
    split(TcpStream::connect(address)?)
}

fn split(stream: TcpStream) -> io::Result<(Reading, Writing)> {
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
/// `asyncio.start_server`. It accepts from [`start`](StreamServer::start) or
/// [`serve_forever`](StreamServer::serve_forever) on.
#[track_caller]
pub fn start_server<F, R>(address: impl ToSocketAddrs, f: F) -> io::Result<StreamServer<TcpListener>>
where
    F: Fn(Reading, Writing, SocketAddr) -> R + Send + Sync + 'static,
    R: server::Outcome,
{
    let serve = move |stream: TcpStream, peer: SocketAddr| match split(stream) {
        Ok((reader, writer)) => f(reader, writer, peer).failure().map_or(Ok(()), Err),
        Err(error) => Err(format!("the connection of {peer} is lost: {error}")),
    };
    let server = StreamServer::new(TcpListener::bind(address)?, serve);
    Ok(server.on_failure(callback_failed))
}
