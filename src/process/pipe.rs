//! This process's ends of a child's pipes.
#![forbid(unsafe_code)]

use std::io::{self, IoSlice, IoSliceMut, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::io::Async;

/// The conversions that each of them has: to and from std's type and a descriptor.
macro_rules! pipe {
    ($name:ident, $end:ty, $std:ty) => {
        /// Takes std's pipe over, and makes it non-blocking.
        impl From<$std> for $name {
            fn from(pipe: $std) -> Self {
                OwnedFd::from(pipe).into()
            }
        }

        /// Gives std's pipe back, in blocking mode.
        impl From<$name> for $std {
            fn from(pipe: $name) -> Self {
                OwnedFd::from(pipe).into()
            }
        }

        /// Takes an open descriptor over.
        impl From<OwnedFd> for $name {
            fn from(fd: OwnedFd) -> Self {
                // Cannot fail: every pipe takes the flag.
                let _ = rustix::io::ioctl_fionbio(&fd, true);
                Self {
                    io: Async::new_nonblocking(<$end>::from(fd)),
                }
            }
        }

        /// Gives the descriptor away, in blocking mode.
        impl From<$name> for OwnedFd {
            fn from(pipe: $name) -> Self {
                pipe.io.into_fd().into()
            }
        }

        /// For another child: `second.stdin(first.stdout.take().unwrap())`.
        impl From<$name> for Stdio {
            fn from(pipe: $name) -> Self {
                OwnedFd::from(pipe).into()
            }
        }

        impl AsFd for $name {
            fn as_fd(&self) -> BorrowedFd<'_> {
                self.io.as_fd()
            }
        }

        impl AsRawFd for $name {
            fn as_raw_fd(&self) -> RawFd {
                self.io.get_ref().as_raw_fd()
            }
        }

        /// Gives the descriptor away, in blocking mode.
        impl IntoRawFd for $name {
            fn into_raw_fd(self) -> RawFd {
                OwnedFd::from(self).into_raw_fd()
            }
        }
    };
}

/// An end that is read from.
macro_rules! reader {
    ($name:ident, $std:ty, $what:literal) => {
        #[doc = concat!("A child's ", $what, ", to be read from; std's, but it parks.")]
        ///
        /// # Blocking and cancellation
        /// A read parks while the child writes nothing. A kill or time-out unwinds then, and nothing is lost.
        #[derive(Debug)]
        pub struct $name {
            io: Async<PipeReader>,
        }

        pipe!($name, PipeReader, $std);

        impl $name {
            /// How long a read may wait. `None`: forever.
            ///
            /// # Errors
            /// `InvalidInput` for a time-out of zero.
            pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
                self.io.set_read_timeout(timeout)
            }
        }

        crate::io::traits::async_read!($name, drained: true, read: read);

        impl ReadBefore for $name {
            #[track_caller]
            fn read_before(&self, deadline: Option<Instant>, buffer: &mut [u8]) -> io::Result<usize> {
                self.io.read_before(deadline, |mut pipe| pipe.read(buffer))
            }
        }

        impl Read for &$name {
            #[track_caller]
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                self.io.read_stream(buffer.len(), |mut pipe| pipe.read(buffer))
            }

            #[track_caller]
            fn read_vectored(&mut self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
                self.io.read_with(|mut pipe| pipe.read_vectored(buffers))
            }
        }

        impl Read for $name {
            #[track_caller]
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                (&*self).read(buffer)
            }

            #[track_caller]
            fn read_vectored(&mut self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
                (&*self).read_vectored(buffers)
            }
        }
    };
}

/// A pipe with a read that ends at a deadline.
pub(super) trait ReadBefore {
    fn read_before(&self, deadline: Option<Instant>, buffer: &mut [u8]) -> io::Result<usize>;
}

reader!(ChildStdout, std::process::ChildStdout, "standard output");
reader!(ChildStderr, std::process::ChildStderr, "standard error");

/// A child's standard input, to be written to; like std's, but it parks. When dropped, it is closed, and the child
/// reads its end.
///
/// # Blocking and cancellation
/// A write parks while the pipe is full. A kill or time-out unwinds then; what was written before stays written.
#[derive(Debug)]
pub struct ChildStdin {
    io: Async<PipeWriter>,
}

pipe!(ChildStdin, PipeWriter, std::process::ChildStdin);
// The reader sees the end of a pipe when it is closed, and that is done by the drop.
crate::io::traits::async_write!(ChildStdin, close: |_| Ok(()));

impl ChildStdin {
    /// How long a write may wait. `None`: forever.
    ///
    /// # Errors
    /// `InvalidInput` for a time-out of zero.
    pub fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.io.set_write_timeout(timeout)
    }

    #[track_caller]
    pub(super) fn write_before(&self, deadline: Option<Instant>, buffer: &[u8]) -> io::Result<usize> {
        self.io.write_before(deadline, |mut pipe| pipe.write(buffer))
    }
}

impl Write for &ChildStdin {
    #[track_caller]
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.io.write_stream(|mut pipe| pipe.write(buffer))
    }

    #[track_caller]
    fn write_vectored(&mut self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        self.io.write_stream(|mut pipe| pipe.write_vectored(buffers))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Write for ChildStdin {
    #[track_caller]
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        (&*self).write(buffer)
    }

    #[track_caller]
    fn write_vectored(&mut self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        (&*self).write_vectored(buffers)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
