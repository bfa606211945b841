//! Sockets, by std's names and with std's methods; where std's would block the OS thread, these park the green thread.
//!
//! A port is a change of `use` lines: std's addresses are here too, and so are the Unix sockets.
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
//! futures-io, and of tokio and hyper by features, for itself and for a reference: so one task may read while another
//! writes, and what those crates build on the traits works. `connect`, and a function that takes a name, are called as
//! they are: a poll may block, and only its own task waits.
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
//! The time-outs of a socket count for its blocking methods only; a future's is
//! [`timeout_async`](crate::time::timeout_async).
//!
//! # What differs from std
//! - **Connect** tries several addresses at once, the families in turn, a quarter of a second apart, and takes the
//! - **Connect** tries several addresses at once, the families in turn, a quarter of a second apart, and takes the
//!   first that answers (RFC 8305); std tries one after the other. A [`UnixStream`] tries again every millisecond
//!   while the listener's queue is full.
//! - **Names** are looked up on the thread pool: hence a [`ToSocketAddrs`] of our own.
//! - **Accept** waits (10 to 100 ms between tries) while the process or the system has no descriptor or no memory left
//!   (`EMFILE`, `ENFILE`, `ENOBUFS`, `ENOMEM`), and passes over a peer that has gone already (`ECONNABORTED`); std
//!   gives the error. A TCP listener asks for a queue of 4,096, std for 128.
//! - **Descriptors** are one for each socket, and a process may have 1,024 by default: [`raise_open_files`].
//! - **`TCP_NODELAY`** is set on every TCP stream that was connected or accepted here, as in Go; clear it with
//!   `set_nodelay(false)`.
//! - **Time-outs** are of kind `TimedOut` (std's are `WouldBlock` on Unix). They are kept here and not in the kernel:
//!   each handle of a [`try_clone`](TcpStream::try_clone) has its own and starts with none, and one that was set on a
//!   socket of std is not taken over. Listeners have them too: the read time-out bounds `accept`, its wait
//!   for a descriptor too.
//! - **`ErrorKind::Interrupted`** never comes: a call that a signal cut short is made again.
//! - **While the caller unwinds** (in a destructor) a call that would have to wait fails instead; see
//!   [`io`](crate::io#while-the-caller-unwinds).
//! - **`set_nonblocking`** is not there: the descriptor is non-blocking always, and the methods block the green thread
//!   always. Code that polls a socket itself wants std's: `std::net::TcpStream::from(stream)`, which is in blocking
//!   mode again. Any other holder of the open file, by `dup` or in another process, sees the flag.
//! - **`FromRawFd`** is not there, for it is unsafe: `TcpStream::from(unsafe { OwnedFd::from_raw_fd(fd) })`. Nor are
//!   std's deprecated `set_only_v6` and `only_v6`, and what std has not made stable.
//! - The iterator of a [`UnixListener`] is called [`UnixIncoming`], since TCP's lives in the same module.
#![forbid(unsafe_code)]

/// The methods and conversions that every socket here has: to and from std's type and a descriptor.
macro_rules! socket {
    ($name:ident, $std:ty) => {
        socket!($name, $std, another: |_: &_, socket| crate::io::Async::new_nonblocking(socket));
    };
    ($name:ident, $std:ty, another: $another:expr) => {
        impl $name {
            /// How long a read may wait. `None`: for ever.
            ///
            /// # Errors
            /// `InvalidInput` for a time-out of zero.
            pub fn set_read_timeout(&self, timeout: Option<std::time::Duration>) -> std::io::Result<()> {
                self.io.set_read_timeout(timeout)
            }

            /// Waits until there is something to read or to accept, the end, or an error. It takes nothing.
            ///
            /// # Errors
            /// As a read: `TimedOut` after the read time-out, if there is one.
            ///
            /// # Blocking and cancellation
            /// Parks. A kill or time-out unwinds here.
            #[track_caller]
            pub fn readable(&self) -> std::io::Result<()> {
                self.io.readable()
            }

            /// Waits until there is room to write, or an error.
            ///
            /// # Errors
            /// As a write.
            ///
            /// # Blocking and cancellation
            /// As [`readable`](Self::readable).
            #[track_caller]
            pub fn writable(&self) -> std::io::Result<()> {
                self.io.writable()
            }

            /// As [`readable`](Self::readable), without a time-out, for an `async` function that is polled on a hub.
            pub fn readable_async(&self) -> impl Future<Output = std::io::Result<()>> + use<'_> {
                self.io.readable_async()
            }

            /// As [`writable`](Self::writable), without a time-out, for an `async` function that is polled on a hub.
            pub fn writable_async(&self) -> impl Future<Output = std::io::Result<()>> + use<'_> {
                self.io.writable_async()
            }

            /// How long a write may wait. `None`: for ever.
            ///
            /// # Errors
            /// `InvalidInput` for a time-out of zero.
            pub fn set_write_timeout(&self, timeout: Option<std::time::Duration>) -> std::io::Result<()> {
                self.io.set_write_timeout(timeout)
            }

            /// How long a read may wait.
            ///
            /// # Errors
            /// None; the result is std's.
            pub fn read_timeout(&self) -> std::io::Result<Option<std::time::Duration>> {
                Ok(self.io.read_timeout())
            }

            /// How long a write may wait.
            ///
            /// # Errors
            /// None; the result is std's.
            pub fn write_timeout(&self) -> std::io::Result<Option<std::time::Duration>> {
                Ok(self.io.write_timeout())
            }

            /// Takes the socket's pending error (`SO_ERROR`).
            ///
            /// # Errors
            /// What the system says of the socket itself.
            pub fn take_error(&self) -> std::io::Result<Option<std::io::Error>> {
                self.io.get_ref().take_error()
            }

            /// Another handle to the same socket (`dup`). Time-outs are each handle's own; the new one has none.
            ///
            /// # Errors
            /// When there is no descriptor left.
            pub fn try_clone(&self) -> std::io::Result<Self> {
                let socket = self.io.get_ref().try_clone()?;
                Ok(Self {
                    io: ($another)(&self.io, socket),
                })
            }

            fn from_nonblocking(socket: $std) -> Self {
                Self {
                    io: crate::io::Async::new_nonblocking(socket).into(),
                }
            }
        }

        /// Takes std's socket over, and makes it non-blocking.
        impl From<$std> for $name {
            fn from(socket: $std) -> Self {
                // Cannot fail: every socket takes the flag.
                let _ = rustix::io::ioctl_fionbio(&socket, true);
                Self::from_nonblocking(socket)
            }
        }

        /// Gives std's socket back, in blocking mode.
        impl From<$name> for $std {
            fn from(socket: $name) -> Self {
                socket.io.into_fd()
            }
        }

        /// Takes an open descriptor over.
        impl From<std::os::fd::OwnedFd> for $name {
            fn from(fd: std::os::fd::OwnedFd) -> Self {
                // A descriptor that refuses the flag is not a socket: its first use gives the error.
                let _ = rustix::io::ioctl_fionbio(&fd, true);
                Self::from_nonblocking(fd.into())
            }
        }

        /// Gives the descriptor away, in blocking mode.
        impl From<$name> for std::os::fd::OwnedFd {
            fn from(socket: $name) -> Self {
                socket.io.into_fd().into()
            }
        }

        impl std::os::fd::AsFd for $name {
            fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
                self.io.as_fd()
            }
        }

        impl std::os::fd::AsRawFd for $name {
            fn as_raw_fd(&self) -> std::os::fd::RawFd {
                self.io.get_ref().as_raw_fd()
            }
        }

        /// Gives the descriptor away, in blocking mode.
        impl std::os::fd::IntoRawFd for $name {
            fn into_raw_fd(self) -> std::os::fd::RawFd {
                self.io.into_fd().into_raw_fd()
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Debug::fmt(self.io.get_ref(), f)
            }
        }
    };
}

/// `Read` and `Write` for a byte stream and for a reference to it, as std's streams have.
macro_rules! stream {
    ($name:ident, drained: $drained:expr) => {
        impl std::io::Read for &$name {
            #[inline]
            #[track_caller]
            fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
                let len = buffer.len();
                if $drained {
                    self.io.read_stream(len, |mut socket| socket.read(buffer))
                } else {
                    self.io.read_with(|mut socket| socket.read(buffer))
                }
            }

            #[track_caller]
            fn read_vectored(&mut self, buffers: &mut [std::io::IoSliceMut<'_>]) -> std::io::Result<usize> {
                self.io.read_with(|mut socket| socket.read_vectored(buffers))
            }
        }

        impl std::io::Write for &$name {
            #[inline]
            #[track_caller]
            fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
                self.io.write_stream(|mut socket| socket.write(buffer))
            }

            #[track_caller]
            fn write_vectored(&mut self, buffers: &[std::io::IoSlice<'_>]) -> std::io::Result<usize> {
                self.io.write_stream(|mut socket| socket.write_vectored(buffers))
            }

            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }

        impl std::io::Read for $name {
            #[inline]
            #[track_caller]
            fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
                (&*self).read(buffer)
            }

            #[track_caller]
            fn read_vectored(&mut self, buffers: &mut [std::io::IoSliceMut<'_>]) -> std::io::Result<usize> {
                (&*self).read_vectored(buffers)
            }
        }

        impl std::io::Write for $name {
            #[inline]
            #[track_caller]
            fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
                (&*self).write(buffer)
            }

            #[track_caller]
            fn write_vectored(&mut self, buffers: &[std::io::IoSlice<'_>]) -> std::io::Result<usize> {
                (&*self).write_vectored(buffers)
            }

            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }

        crate::io::traits::async_read!($name, drained: $drained, read: receive);
        crate::io::traits::async_write!($name, close: |stream| stream.shutdown(std::net::Shutdown::Write));
    };
}

mod accept;
mod connect;
mod files;
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
