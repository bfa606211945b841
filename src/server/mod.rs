//! Servers: they accept connections, run a green thread for each, and stop gracefully.
//!
//! | you have | use |
//! |---|---|
//! | a listener, and a function that serves one connection | [`StreamServer`] |
//! | a datagram socket, and a function for one datagram | [`DatagramServer`] |
//! | a listener, and callbacks (`asyncio.Protocol`) | [`serve_protocol`] |
//! | a connection, and callbacks | [`run_protocol`] |
//! | a datagram socket, and callbacks (`asyncio.DatagramProtocol`) | [`run_datagram_protocol`] |
//!
//! ```
//! use std::io::Write;
//! use std::time::Duration;
//! use greenthread::{net::TcpListener, server::StreamServer, spawn};
//!
//! # fn main() -> std::io::Result<()> {
//! let server = StreamServer::new(TcpListener::bind("127.0.0.1:0")?, |mut stream, _peer| {
//!     stream.write_all(b"hello\n")
//! });
//! let handle = server.handle();
//! spawn(move || {
//!     // A program waits for `signal::ctrl_c()` here.
//!     handle.stop(Duration::from_secs(10)) // no more connections; ten seconds for those there are
//! });
//! server.serve_forever()?;
//! # Ok(())
//! # }
//! ```
//!
//! For TLS, do the handshake in the handler: see `net::tls`, and `TlsConnection` for callbacks (feature `tls`).
#![forbid(unsafe_code)]

mod datagram;
mod endpoint;
mod engine;
mod linger;
mod outcome;
mod protocol;
mod stream;
#[cfg(feature = "tls")]
mod tls;
mod transport;

use std::any::Any;
use std::io;

use crate::hub::interrupt;

pub use datagram::{DatagramServer, DatagramSocket};
pub(crate) use endpoint::run_datagram_protocol_then;
pub use endpoint::{DatagramProtocol, DatagramTransport, run_datagram_protocol};
pub use engine::{Handle, Stopped};
pub use outcome::Outcome;
pub(crate) use protocol::run_protocol_then;
pub use protocol::{Protocol, run_protocol, serve_protocol};
pub use stream::{Listener, StreamServer};
#[cfg(feature = "tls")]
pub use tls::TlsConnection;
pub use transport::{Connection, Transport};

/// A copy of the result; errors cannot be cloned, so a new one is made of the kind and text.
fn again<T: Clone>(result: &io::Result<T>) -> io::Result<T> {
    match result {
        Ok(value) => Ok(value.clone()),
        Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
    }
}

/// What `connection_lost` is told when the callbacks have ended by unwinding.
fn aborted(payload: &(dyn Any + Send)) -> io::Error {
    let why = if interrupt::is_ours(payload) {
        "the green thread of the connection was killed or timed out"
    } else {
        "a callback of the protocol panicked"
    };
    io::Error::new(io::ErrorKind::ConnectionAborted, why)
}
