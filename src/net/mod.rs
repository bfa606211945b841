//! Sockets with the names and methods of std. Where std's would block the OS thread, these park the green thread.
//!
//! To port code, change its `use` lines. std's addresses are here too, and so are Unix sockets.
//!
//! ```
//! use std::io::{Read, Write};
//! use greenthread::{net::{TcpListener, TcpStream}, spawn};
//!
//! # fn main() -> std::io::Result<()> {
//! let listener = TcpListener::bind("127.0.0.1:0")?;
//! let address = listener.local_addr()?;
//! let server = spawn(move || -> std::io::Result<()> {
//!     let (mut stream, _) = listener.accept()?;
//!     stream.write_all(b"hello")
//! });
//! let mut text = String::new();
//! TcpStream::connect(address)?.read_to_string(&mut text)?;
//! assert_eq!(text, "hello");
//! server.join().unwrap()
//! # }
//! ```
//!
//! # In async code
//! `accept_async`, `recv_from_async`, `readable_async` and their like are futures. A byte stream has the traits of
//! futures-io, and with features those of tokio and hyper. A reference to it has them too, so one task may read while
//! another writes. Everything that those crates build on the traits works. Call `connect`, and functions that take a
//! name, as they are: a poll may block, and then only its own task waits.
//!
//! ```
//! use futures::io::{AsyncReadExt, AsyncWriteExt};
//! use greenthread::{future::{self, block_on}, net::{TcpListener, TcpStream}};
//!
//! # fn main() -> std::io::Result<()> {
//! let listener = TcpListener::bind("127.0.0.1:0")?;
//! let address = listener.local_addr()?;
//! let server = future::spawn(async move {
//!     let (mut stream, _) = listener.accept_async().await?;
//!     stream.write_all(b"hello").await
//! });
//! let text = block_on(async {
//!     let mut text = String::new();
//!     TcpStream::connect(address)?.read_to_string(&mut text).await?;
//!     std::io::Result::Ok(text)
//! })?;
//! assert_eq!(text, "hello");
//! server.join().unwrap()
//! # }
//! ```
//!
//! Where `std::io::Read` is in scope beside `AsyncReadExt`, a `read` is ambiguous: import one of them in each module.
//! The time-outs of a socket apply to its blocking methods only. To limit a future, wrap it in
//! [`timeout_async`](crate::time::timeout_async).
//!
//! # What differs from std
//! - **Connect** tries several addresses at once, the families in turn, a quarter of a second apart, and takes the
//!   first that answers (RFC 8305); std tries one after the other. A [`UnixStream`] tries again every millisecond
//!   while the listener's queue is full.
//! - **Names** are looked up on a thread pool. That is why this crate has its own [`ToSocketAddrs`].
//! - **Accept** waits (10 to 100 ms between tries) while the process or the system has no descriptor or no memory left
//!   (`EMFILE`, `ENFILE`, `ENOBUFS`, `ENOMEM`), and passes over a peer that has gone already (`ECONNABORTED`); std
//!   gives the error. A TCP listener asks for a queue of 4,096, std for 128.
//! - **Descriptors**: each socket takes one, and by default a process may have 1,024. [`raise_open_files`] raises that
//!   limit.
//! - **`TCP_NODELAY`** is set on every TCP stream that was connected or accepted here, as in Go; clear it with
//!   `set_nodelay(false)`.
//! - **Time-outs** are of kind `TimedOut` (std's are `WouldBlock` on Unix). They are kept in the handle, not in the
//!   kernel. So each handle of a [`try_clone`](TcpStream::try_clone) has its own and starts with none, and a time-out
//!   that was set on a socket of std is not taken over. Listeners have them too: the read time-out bounds `accept`,
//!   including its wait for a descriptor.
//! - **`ErrorKind::Interrupted`** is never returned. A call that a signal cut short is repeated.
//! - **While the caller unwinds** (in a destructor) a call that would have to wait fails instead; see
//!   [`io`](crate::io#while-the-caller-unwinds).
//! - **`set_nonblocking`** does not exist. The descriptor is always non-blocking, and the methods always block the
//!   green thread. Code that polls a socket itself should use std's: `std::net::TcpStream::from(stream)`, which is in
//!   blocking mode again. Any other holder of the open file, by `dup` or in another process, sees the flag.
//! - **`FromRawFd`** does not exist, because it is unsafe. Use `TcpStream::from(unsafe { OwnedFd::from_raw_fd(fd) })`.
//!   std's deprecated `set_only_v6` and `only_v6`, and its unstable functions, do not exist either.
//! - The iterator of a [`UnixListener`] is called [`UnixIncoming`], since TCP's lives in the same module.
#![forbid(unsafe_code)]

mod accept;
mod connect;
mod files;
mod impls;
pub(crate) mod linger;
mod reuse;
mod tcp;
#[cfg(feature = "tls")]
pub mod tls;
mod udp;
mod unix;

pub use std::net::{AddrParseError, IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, SocketAddrV4, SocketAddrV6};

pub use crate::dns::{ToSocketAddrs, lookup_host};
pub(crate) use files::explained;
pub use files::raise_open_files;
pub use tcp::{Incoming, TcpListener, TcpStream};
pub use udp::UdpSocket;
pub use unix::{UnixDatagram, UnixIncoming, UnixListener, UnixStream};

/// How many connections may wait to be accepted; std asks for 128.
const BACKLOG: i32 = 4096;
