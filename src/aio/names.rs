//! Short ones: what is two lines over something else.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::io;
use std::net::SocketAddr;

use crate::io::{Reader, Writer};
use crate::net::{TcpListener, TcpStream, ToSocketAddrs};
use crate::process::Command;
use crate::server::StreamServer;
use crate::sync::Promise;

/// What [`open_connection`] gives to read from.
pub type Reading = Reader<TcpStream>;

/// What [`open_connection`] gives to write to.
pub type Writing = Writer<TcpStream>;

/// A value that is to come: a [`Promise`], which is asyncio's `Future`.
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
/// As [`TcpStream::connect`]. The writes wait only in `drain` and `flush`.
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

/// A server that calls `f` for each connection, in a green thread of its own, with its two halves. See [`open_connection`].
///
/// # Errors
/// As [`TcpListener::bind`].
///
/// # Coming from Python
/// `asyncio.start_server`. It accepts from [`start`](StreamServer::start) or [`serve_forever`](StreamServer::serve_forever) on.
#[track_caller]
pub fn start_server<F>(address: impl ToSocketAddrs, f: F) -> io::Result<StreamServer<TcpListener>>
where
    F: Fn(Reading, Writing, SocketAddr) + Send + Sync + 'static,
{
    let serve = move |stream: TcpStream, peer: SocketAddr| match halves(stream) {
        Ok((reader, writer)) => f(reader, writer, peer),
        Err(error) => crate::hub::complain(format_args!("the connection of {peer} is lost: {error}")),
    };
    Ok(StreamServer::new(TcpListener::bind(address)?, serve))
}

/// A child process to be: `create_subprocess_exec(program, *args)` is `Command::new(program).args(args).spawn()`.
///
/// # Coming from Python
/// `asyncio.create_subprocess_exec`.
pub fn create_subprocess_exec(program: impl AsRef<OsStr>) -> Command {
    Command::new(program)
}

/// A child process to be that runs a line of the shell.
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
