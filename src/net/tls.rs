//! TLS on any stream, by [`rustls`], with a handshake that has a deadline. Needs the feature `tls`.
//!
//! Do the handshake in the handler of a connection. Then a silent client delays only its own handler, for at most the
//! patience. If a handshake fails, it is the handler's error, which the server reports.
//!
//! ```
//! use std::io::{Read, Write};
//! use std::sync::Arc;
//! use std::time::Duration;
//! use greenthread::net::{TcpListener, TcpStream, tls::TlsStream};
//! use greenthread::server::StreamServer;
//! # use greenthread::net::tls::rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
//! # use greenthread::net::tls::rustls::{ClientConfig, RootCertStore, ServerConfig};
//! # macro_rules! pem { ($name:literal) => {
//! #     include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/tls/", $name))
//! # } }
//! # fn configs() -> (Arc<ServerConfig>, Arc<ClientConfig>) {
//! #     let certificate = CertificateDer::from_pem_slice(pem!("certificate.pem")).unwrap();
//! #     let key = PrivateKeyDer::from_pem_slice(pem!("key.pem")).unwrap();
//! #     let mut roots = RootCertStore::empty();
//! #     roots.add(certificate.clone()).unwrap();
//! #     let server = ServerConfig::builder().with_no_client_auth();
//! #     let client = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
//! #     (Arc::new(server.with_single_cert(vec![certificate], key).unwrap()), Arc::new(client))
//! # }
//!
//! # fn main() -> std::io::Result<()> {
//! const PATIENCE: Duration = Duration::from_secs(10);
//! let (server_config, client_config) = configs(); // of rustls, with a certificate for `localhost`
//!
//! let listener = TcpListener::bind("127.0.0.1:0")?;
//! let server = StreamServer::new(listener, move |socket, _peer| -> std::io::Result<()> {
//!     let mut stream = TlsStream::accept(server_config.clone(), socket, PATIENCE)?;
//!     stream.write_all(b"in private")?;
//!     stream.close()
//! });
//! server.start()?;
//!
//! let socket = TcpStream::connect(server.local_addr()?)?;
//! let mut stream = TlsStream::connect(client_config, "localhost", socket, PATIENCE)?;
//! let mut text = String::new();
//! stream.read_to_string(&mut text)?;
//! assert_eq!(text, "in private");
//! server.stop(Duration::from_secs(1));
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod poll;

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

pub use rustls;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection, Stream};

use super::linger;
use crate::hub;
use crate::time::timeout;

/// A stream with TLS on it, past its handshake.
///
/// One green thread at a time uses it. A read or write that is killed or timed out neither loses nor repeats any bytes:
/// the bytes that `write` reports were taken, and are sent exactly once. If the peer goes without a good-bye, the read
/// fails with `UnexpectedEof`: what the peer sent may have been cut off. So end with [`close`](Self::close).
///
/// A drop sends no good-bye, so that a stream that a panic cut short does not look complete to the peer. It does not
/// wait either: bytes that a cut-short write has left in it are lost. If there is unread input (the session tickets of
/// TLS 1.3 count too), the system resets the connection, and what the peer has not read is lost. Only the socket of a
/// server's handler is closed more gently: see [`StreamServer`](crate::server::StreamServer#the-end-of-a-connection).
///
/// Where the socket has the traits of futures-io, as this crate's have, a stream has those of futures-io, tokio
/// (feature `tokio-io`) and hyper (feature `hyper`). They keep the same promises: the bytes that a poll has taken are
/// sent exactly once. A flush sends them all, so end with a flush or a close. [`accept_async`](Self::accept_async) and
/// [`connect_async`](Self::connect_async) do the handshake in an `async` function.
///
/// # Coming from Python
/// `gevent.ssl.SSLSocket`.
pub struct TlsStream<S> {
    connection: Connection,
    socket: S,
}

/// Runs an action on rustls' own stream, of the client or server side.
macro_rules! stream {
    ($self:ident, $stream:ident => $action:expr) => {
        match &mut $self.connection {
            Connection::Client(connection) => {
                let mut $stream = Stream::new(connection, &mut $self.socket);
                $action
            }
            Connection::Server(connection) => {
                let mut $stream = Stream::new(connection, &mut $self.socket);
                $action
            }
        }
    };
}

/// The state of a client that wants to speak to `name`.
fn client(config: Arc<ClientConfig>, name: &str) -> io::Result<Connection> {
    let name = ServerName::try_from(name.to_owned()).map_err(|error| {
        io::Error::new(
            ErrorKind::InvalidInput,
            format!("{name:?} is not the name of a server: {error}"),
        )
    })?;
    let connection = ClientConnection::new(config, name).map_err(io::Error::other)?;
    Ok(connection.into())
}

/// The state of a server to which a client has connected.
fn server(config: Arc<ServerConfig>) -> io::Result<Connection> {
    let connection = ServerConnection::new(config).map_err(io::Error::other)?;
    Ok(connection.into())
}

/// The error of a handshake that has taken too long.
fn late(patience: Duration) -> io::Error {
    io::Error::new(
        ErrorKind::TimedOut,
        format!("the TLS handshake was not done within {patience:?}: the peer is slow, or does not speak TLS"),
    )
}

impl<S: Read + Write> TlsStream<S> {
    /// Does the handshake with a server, which needs a certificate for `name`.
    ///
    /// # Errors
    /// `TimedOut` after `patience`; `InvalidInput` if `name` is not a server name; `InvalidData` if TLS refuses the
    /// peer (an unknown certificate, say); the socket's own errors.
    ///
    /// # Blocking and cancellation
    /// Parks as the socket does. A kill or time-out drops the socket.
    #[track_caller]
    pub fn connect(config: Arc<ClientConfig>, name: &str, socket: S, patience: Duration) -> io::Result<TlsStream<S>> {
        TlsStream::greet(client(config, name)?, socket, patience)
    }

    /// Does the handshake with a client that connects.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    ///
    /// # Blocking and cancellation
    /// As [`connect`](Self::connect).
    #[track_caller]
    pub fn accept(config: Arc<ServerConfig>, socket: S, patience: Duration) -> io::Result<TlsStream<S>> {
        TlsStream::greet(server(config)?, socket, patience)
    }

    #[track_caller]
    fn greet(mut connection: Connection, mut socket: S, patience: Duration) -> io::Result<TlsStream<S>> {
        let greeted = timeout(patience, || {
            while connection.is_handshaking() {
                connection.complete_io(&mut socket)?;
            }
            // The last message of the handshake may have left something to send.
            while connection.wants_write() {
                connection.write_tls(&mut socket)?;
            }
            Ok(())
        });
        match greeted {
            Ok(done) => done.map(|()| TlsStream { connection, socket }),
            Err(_) => Err(late(patience)),
        }
    }

    /// Says good-bye (`close_notify`), after all that was written. Nothing may be written after it; what the peer still
    /// sends can be read.
    ///
    /// # Errors
    /// What the socket gives.
    ///
    /// # Blocking and cancellation
    /// Parks while the socket has no room. A kill or time-out loses nothing: the next call, or `flush`, goes on.
    #[track_caller]
    pub fn close_notify(&mut self) -> io::Result<()> {
        self.connection.send_close_notify();
        self.flush()
    }

    /// Ends the connection in good order.
    ///
    /// It says good-bye ([`close_notify`](Self::close_notify)), shuts down writing, and reads to the peer's end, for
    /// two seconds at most. See [`close_timeout`](Self::close_timeout).
    ///
    /// # Errors
    /// As there.
    ///
    /// # Blocking and cancellation
    /// As there.
    #[track_caller]
    pub fn close(self) -> io::Result<()>
    where
        S: AsFd,
    {
        self.close_timeout(linger::PATIENCE)
    }

    /// Like [`close`](Self::close), but waits `patience` for the peer's end.
    ///
    /// Without that wait, what was written may be lost: a socket that is closed while it has unread input, or that gets
    /// some afterwards, resets the connection.
    ///
    /// # Errors
    /// What the socket gives: `ConnectionReset` if the peer closed before it had read all. `TimedOut` if the peer is
    /// still sending after `patience`, or after 16 MiB: then the close resets the connection. A peer that is silent for
    /// so long is no error: what it has not read is on its way.
    ///
    /// # Blocking and cancellation
    /// Parks while the socket has no room, however long that is, and then for at most `patience`. A kill or time-out
    /// drops the stream.
    ///
    /// # Coming from Python
    /// `ssl.SSLSocket.unwrap` and `close`; `ssl_shutdown_timeout` of asyncio.
    #[track_caller]
    pub fn close_timeout(mut self, patience: Duration) -> io::Result<()>
    where
        S: AsFd,
    {
        self.close_notify()?;
        // A stream that is not a socket has nothing to shut down: ignore the error.
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Write);
        match timeout(patience, || self.read_away()) {
            Ok(ended) => ended,
            Err(_) if rustix::io::ioctl_fionread(&self.socket).is_ok_and(|unread| unread == 0) => Ok(()),
            Err(_) => Err(linger::still_sending()),
        }
    }

    /// Reads to the peer's end, with or without a good-bye.
    #[track_caller]
    fn read_away(&mut self) -> io::Result<()> {
        let mut buffer = [0; 4096];
        let mut left = linger::MOST;
        loop {
            match self.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(len) if len > left => return Err(linger::still_sending()),
                Ok(len) => left -= len,
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends all that rustls has for the socket.
    #[track_caller]
    fn send(&mut self) -> io::Result<()> {
        while self.connection.wants_write() {
            match self.connection.write_tls(&mut self.socket) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.socket.flush()
    }
}

impl<S> TlsStream<S> {
    /// rustls' view of the connection: the peer's certificates, the protocol that was agreed on.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The stream below. To read or write there breaks the TLS connection.
    pub fn get_ref(&self) -> &S {
        &self.socket
    }

    pub(crate) fn into_parts(self) -> (Connection, S) {
        (self.connection, self.socket)
    }
}

impl<S: Read + Write> Read for TlsStream<S> {
    #[track_caller]
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // Data that is decrypted already is returned without a read of the socket, which takes the budget's step: take
        // it here.
        if !self.connection.wants_read() {
            crate::io::give_way()?;
        }
        stream!(self, stream => stream.read(buffer))
    }
}

/// The bytes that `write` reports as written were taken: they are encrypted, and sent exactly once. If a kill, a
/// time-out or an error of the socket cuts the sending short, `write` reports them all the same, and the kill, time-out
/// or error comes at the next wait: `flush`, `read` and the next `write` go on with the sending. So an
/// [`io::Writer`](crate::io::Writer) over it is exact.
impl<S: Read + Write> Write for TlsStream<S> {
    #[track_caller]
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if self.connection.wants_write() {
            self.send()?;
        }
        let taken = self.connection.writer().write(data)?;
        // The bytes are taken: report them even if the sending fails. A lasting error comes again at the next call.
        let _ = hub::put_off(|| self.send());
        Ok(taken)
    }

    #[track_caller]
    fn flush(&mut self) -> io::Result<()> {
        self.send()?;
        // Also reports an error that rustls has met since, for example in a read.
        self.connection.writer().flush()
    }
}

impl<S: fmt::Debug> fmt::Debug for TlsStream<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsStream")
            .field("socket", &self.socket)
            .finish_non_exhaustive()
    }
}
