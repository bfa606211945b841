//! A [`Protocol`](super::Protocol) over TLS, or two halves of a stream with TLS: reading and writing at once.
//!
//! ```text
//!   read:  reading (one after the other) ─► the socket ─► pending ─► state ─► plain bytes
//!   write: sending (one after the other) ─► state ─► out ─► the socket
//! ```
//!
//! # Invariants
//! - **TLS-1** `state` is never held while anything parks.
//! - **TLS-2** Bytes for the socket are taken out of `state` only by the caller that holds `sending`, which writes them
//!   in the order in which they come out. If a kill ends a write, the bytes that were not written stay in `out`, and
//!   the next caller writes them first.
//! - **TLS-3** `state` is fed only while it has no plain bytes, so it is never full.
#![forbid(unsafe_code)]

mod poll;

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, TryLockError};
use std::time::Duration;

use rustls::Connection as Rustls;

use super::transport::Connection;
use crate::hub;
use crate::net::tls::TlsStream;
use crate::sync::{Mutex, MutexGuard};
use crate::sys::poison::IgnorePoison;

const CHUNK: usize = 16 * 1024;

/// A stream with TLS on it, for code that reads and writes at once.
///
/// That is a [`Protocol`](super::Protocol), or a [`Reader`](crate::io::Reader) and a [`Writer`](crate::io::Writer). A
/// clone is the same stream.
///
/// ```
/// use std::io::Read;
/// use std::sync::Arc;
/// use std::time::Duration;
/// use greenthread::net::{TcpListener, TcpStream, tls::TlsStream};
/// use greenthread::server::{Protocol, StreamServer, TlsConnection, Transport, run_protocol};
/// # use greenthread::net::tls::rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
/// # use greenthread::net::tls::rustls::{ClientConfig, RootCertStore, ServerConfig};
/// # macro_rules! pem { ($name:literal) => {
/// #     include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/tls/", $name))
/// # } }
/// # fn configs() -> (Arc<ServerConfig>, Arc<ClientConfig>) {
/// #     let certificate = CertificateDer::from_pem_slice(pem!("certificate.pem")).unwrap();
/// #     let key = PrivateKeyDer::from_pem_slice(pem!("key.pem")).unwrap();
/// #     let mut roots = RootCertStore::empty();
/// #     roots.add(certificate.clone()).unwrap();
/// #     let server = ServerConfig::builder().with_no_client_auth();
/// #     let client = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
/// #     (Arc::new(server.with_single_cert(vec![certificate], key).unwrap()), Arc::new(client))
/// # }
///
/// struct Greeter;
/// impl Protocol for Greeter {
///     fn connection_made(&mut self, transport: Transport) {
///         transport.write(b"in private");
///         transport.close();
///     }
///     fn data_received(&mut self, _data: &[u8]) {}
/// }
///
/// # fn main() -> std::io::Result<()> {
/// const PATIENCE: Duration = Duration::from_secs(10);
/// let (server_config, client_config) = configs(); // of rustls, with a certificate for `localhost`
///
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let server = StreamServer::new(listener, move |socket, _peer| {
///     if let Ok(stream) = TlsStream::accept(server_config.clone(), socket, PATIENCE) {
///         run_protocol(TlsConnection::new(stream), Greeter);
///     }
/// });
/// server.start()?;
///
/// let socket = TcpStream::connect(server.local_addr()?)?;
/// let stream = TlsStream::connect(client_config, "localhost", socket, PATIENCE)?;
/// assert_eq!(std::io::read_to_string(TlsConnection::new(stream))?, "in private");
/// # Ok(())
/// # }
/// ```
///
/// A transport that is [closed](super::Transport::close) says good-bye first (`close_notify`), and so does a
/// [`write_eof`](super::Transport::write_eof). As a stream, [`shutdown`](Connection::shutdown) of its writing says it;
/// reading to the end after that keeps the system from resetting the connection. Dropped or aborted, it says nothing,
/// and the peer's read is an error.
///
/// A read, write or flush that is killed or timed out neither loses nor repeats any bytes: the bytes that `write`
/// reports were taken, and the next call goes on with the sending, as with [`TlsStream`].
///
/// It has the traits of futures-io, tokio (feature `tokio-io`) and hyper (feature `hyper`), as [`TlsStream`] has. One
/// task may read by one clone while another writes by another: neither takes the other's place.
///
/// # Coming from Python
/// `create_server(.., ssl=context)`, `create_connection(.., ssl=context)`. For `start_tls`, exchange the plain messages
/// on the plain stream first, and then do as here.
pub struct TlsConnection<S>(Arc<Shared<S>>);

struct Shared<S> {
    socket: S,
    state: std::sync::Mutex<State>,
    reading: Mutex<Vec<u8>>,
    sending: Mutex<Vec<u8>>,
}

struct State {
    rustls: Rustls,
    /// Read from the socket, and not fed to rustls yet.
    pending: Vec<u8>,
}

impl State {
    /// Reads plain bytes; feeds rustls while it has none (TLS-3). `WouldBlock`: more must be read from the socket.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.rustls.reader().read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock && !self.pending.is_empty() => self.feed()?,
                result => return result,
            }
        }
    }

    /// Takes what was read from the socket; an empty slice is the socket's end.
    fn take(&mut self, read: &[u8]) -> io::Result<()> {
        self.pending.extend_from_slice(read);
        if read.is_empty() { self.feed() } else { Ok(()) }
    }

    fn feed(&mut self) -> io::Result<()> {
        let mut rest = &self.pending[..];
        let fed = self.rustls.read_tls(&mut rest);
        let left = rest.len();
        self.pending.drain(..self.pending.len() - left);
        fed?;
        let processed = self.rustls.process_new_packets();
        processed
            .map(drop)
            .map_err(|error| io::Error::new(ErrorKind::InvalidData, error))
    }
}

impl<S: Connection> TlsConnection<S> {
    /// Makes one of a stream that is past its handshake, as [`TlsStream::accept`] and [`TlsStream::connect`] make it.
    pub fn new(stream: TlsStream<S>) -> TlsConnection<S> {
        let (rustls, socket) = stream.into_parts();
        let pending = Vec::new();
        TlsConnection(Arc::new(Shared {
            socket,
            state: std::sync::Mutex::new(State { rustls, pending }),
            reading: Mutex::new(vec![0; CHUNK]),
            sending: Mutex::new(Vec::new()),
        }))
    }

    fn state<R>(&self, f: impl FnOnce(&mut State) -> R) -> R {
        f(&mut self.0.state.lock().ignore_poison())
    }

    /// Sends `out`, and then what rustls has to send, until there is no more.
    #[track_caller]
    fn send(&self, out: &mut MutexGuard<'_, Vec<u8>>) -> io::Result<()> {
        loop {
            while !out.is_empty() {
                match self.0.socket.write(out)? {
                    0 => return Err(ErrorKind::WriteZero.into()),
                    written => drop(out.drain(..written)),
                }
            }
            let out = &mut **out;
            self.state(|state| {
                while state.rustls.wants_write() {
                    state.rustls.write_tls(out)?;
                }
                io::Result::Ok(())
            })?;
            if out.is_empty() {
                return Ok(());
            }
        }
    }

    /// Sends what rustls has to send. If another task is sending now, it is left to that one: it calls this again after
    /// it has released `sending`.
    #[track_caller]
    fn answer(&self) -> io::Result<()> {
        while self.state(|state| state.rustls.wants_write()) {
            let mut out = match self.0.sending.try_lock() {
                Ok(out) => out,
                Err(TryLockError::Poisoned(out)) => out.into_inner(),
                Err(TryLockError::WouldBlock) => break,
            };
            self.send(&mut out)?;
        }
        Ok(())
    }

    /// Has rustls produce a message that may be repeated, and sends it.
    #[track_caller]
    fn say(&self, what: impl FnOnce(&mut Rustls)) -> io::Result<()> {
        let mut out = self.0.sending.lock().ignore_poison();
        self.state(|state| what(&mut state.rustls));
        self.send(&mut out)?;
        drop(out);
        self.answer()
    }
}

impl<S: Connection> Connection for TlsConnection<S> {
    #[track_caller]
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut chunk = self.0.reading.lock().ignore_poison();
        // Data that is here already is returned without a read of the socket, which takes the budget's step: take it
        // here.
        if self.state(|state| !state.rustls.wants_read() || !state.pending.is_empty()) {
            crate::io::give_way()?;
        }
        loop {
            match self.state(|state| state.read(buffer)) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.answer()?,
                result => {
                    // The bytes have left `state`. Return them even if a kill or time-out cuts the answer short; it is
                    // delivered later.
                    let _ = hub::put_off(|| self.answer());
                    return result;
                }
            }
            let len = self.0.socket.read(&mut chunk)?;
            self.state(|state| state.take(&chunk[..len]))?;
        }
    }

    /// Returns the number of bytes taken, even if it is cut short while they are sent: see `TlsStream`.
    #[track_caller]
    fn write(&self, data: &[u8]) -> io::Result<usize> {
        let mut out = self.0.sending.lock().ignore_poison();
        self.send(&mut out)?;
        let taken = self.state(|state| state.rustls.writer().write(data))?;
        let _ = hub::put_off(|| {
            self.send(&mut out)?;
            drop(out);
            self.answer()
        });
        Ok(taken)
    }

    /// Takes nothing: all bytes go by `write`, because they must be encrypted first.
    fn try_write(&self, _data: &[u8]) -> io::Result<usize> {
        Ok(0)
    }

    /// A shutdown of writing says good-bye first.
    #[track_caller]
    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        if how == Shutdown::Write {
            self.finish()?;
        }
        self.0.socket.shutdown(how)
    }

    #[track_caller]
    fn finish(&self) -> io::Result<()> {
        self.say(|rustls| rustls.send_close_notify())
    }

    fn linger(&self) -> Duration {
        self.0.socket.linger()
    }

    fn peer_addr(&self) -> Option<SocketAddr> {
        self.0.socket.peer_addr()
    }
}

impl<S: Connection> Read for TlsConnection<S> {
    #[track_caller]
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Connection::read(self, buffer)
    }
}

impl<S: Connection> Write for TlsConnection<S> {
    #[track_caller]
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        Connection::write(self, data)
    }

    #[track_caller]
    fn flush(&mut self) -> io::Result<()> {
        self.say(|_| ())
    }
}

impl<S: Connection> AsFd for TlsConnection<S> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.socket.as_fd()
    }
}

impl<S> Clone for TlsConnection<S> {
    fn clone(&self) -> TlsConnection<S> {
        TlsConnection(self.0.clone())
    }
}

impl<S: fmt::Debug> fmt::Debug for TlsConnection<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsConnection")
            .field("socket", &self.0.socket)
            .finish_non_exhaustive()
    }
}
