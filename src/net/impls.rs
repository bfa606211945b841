//! Traits that every socket has in the same words. The methods of each socket stand in its own file.
#![forbid(unsafe_code)]

use std::os::fd::AsFd;

/// Makes a descriptor non-blocking. One that refuses the flag is not a socket: its first use gives the error.
pub(super) fn set_nonblocking(fd: impl AsFd) {
    let _ = rustix::io::ioctl_fionbio(fd, true);
}

/// Conversions to and from std's type and a descriptor, for a type with `from_nonblocking` and an `Async` in its field
/// `io`.
macro_rules! socket {
    ($name:ident, $std:ty) => {
        /// Takes std's socket over, and makes it non-blocking.
        impl From<$std> for $name {
            fn from(socket: $std) -> Self {
                crate::net::impls::set_nonblocking(&socket);
                Self::from_nonblocking(socket)
            }
        }

        /// Takes an open descriptor over.
        impl From<std::os::fd::OwnedFd> for $name {
            fn from(fd: std::os::fd::OwnedFd) -> Self {
                Self::from(<$std>::from(fd))
            }
        }

        /// Gives std's socket back, in blocking mode.
        impl From<$name> for $std {
            fn from(socket: $name) -> Self {
                socket.io.into_fd()
            }
        }

        crate::net::impls::descriptor!($name);
    };
}

/// What gives the descriptor itself, or lends it.
macro_rules! descriptor {
    ($name:ident) => {
        /// Gives the descriptor away, in blocking mode.
        impl From<$name> for std::os::fd::OwnedFd {
            fn from(socket: $name) -> Self {
                socket.io.into_fd().into()
            }
        }

        /// Gives the descriptor away, in blocking mode.
        impl std::os::fd::IntoRawFd for $name {
            fn into_raw_fd(self) -> std::os::fd::RawFd {
                self.io.into_fd().into_raw_fd()
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
    };
}

/// `Read` for a stream itself, by that of a reference to it.
macro_rules! read_by_reference {
    ($name:ident) => {
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
    };
}

/// `Write` for a stream itself, by that of a reference to it.
macro_rules! write_by_reference {
    ($name:ident) => {
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
    };
}

pub(super) use {descriptor, read_by_reference, socket, write_by_reference};
