//! The async crates' traits for byte streams: futures-io's, tokio's (feature `tokio-io`), hyper's (feature `hyper`).
//!
//! Each is implemented for the type and for a reference to it, so that one task may read while another writes.
#![forbid(unsafe_code)]

use std::io::{self, IoSlice};
use std::task::{Context, Poll};

/// Implements the reading traits for a type that has an [`Async`](crate::io::Async) in its field `io`.
///
/// `drained`: whether a read that returns less than was asked for has drained it. `read`:
/// [`receive`](crate::io::receive) or [`read`](crate::io::read).
macro_rules! async_read {
    ($name:ident, drained: $drained:expr, read: $read:ident) => {
        impl $name {
            fn poll_read_bytes(
                &self,
                context: &mut std::task::Context<'_>,
                buffer: &mut [u8],
            ) -> std::task::Poll<std::io::Result<usize>> {
                use std::io::Read;
                let len = if $drained { buffer.len() } else { 0 };
                self.io.poll_read_stream(context, len, |mut io| io.read(buffer))
            }

            #[cfg(any(feature = "tokio-io", feature = "hyper"))]
            fn poll_read_onto(
                &self,
                context: &mut std::task::Context<'_>,
                most: usize,
                take: impl FnMut(&[u8]),
            ) -> std::task::Poll<std::io::Result<()>> {
                self.io
                    .poll_read_onto(context, crate::io::$read, most, $drained, take)
            }
        }

        crate::io::traits::async_read!(@for &$name);
        crate::io::traits::async_read!(@for $name);
    };
    (@for $type:ty) => {
        impl futures_io::AsyncRead for $type {
            fn poll_read(
                self: std::pin::Pin<&mut Self>,
                context: &mut std::task::Context<'_>,
                buffer: &mut [u8],
            ) -> std::task::Poll<std::io::Result<usize>> {
                self.poll_read_bytes(context, buffer)
            }

            fn poll_read_vectored(
                self: std::pin::Pin<&mut Self>,
                context: &mut std::task::Context<'_>,
                buffers: &mut [std::io::IoSliceMut<'_>],
            ) -> std::task::Poll<std::io::Result<usize>> {
                use std::io::Read;
                self.io.poll_read_with(context, |mut io| io.read_vectored(buffers))
            }
        }

        #[cfg(feature = "tokio-io")]
        impl tokio::io::AsyncRead for $type {
            fn poll_read(
                self: std::pin::Pin<&mut Self>,
                context: &mut std::task::Context<'_>,
                buffer: &mut tokio::io::ReadBuf<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                self.poll_read_onto(context, buffer.remaining(), |bytes| buffer.put_slice(bytes))
            }
        }

        #[cfg(feature = "hyper")]
        impl hyper::rt::Read for $type {
            fn poll_read(
                self: std::pin::Pin<&mut Self>,
                context: &mut std::task::Context<'_>,
                mut buffer: hyper::rt::ReadBufCursor<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                self.poll_read_onto(context, buffer.remaining(), |bytes| buffer.put_slice(bytes))
            }
        }
    };
}

/// Implements the writing traits. `close` ends the stream for the other end.
macro_rules! async_write {
    ($name:ident, close: $close:expr) => {
        impl $name {
            fn poll_write_bytes(
                &self,
                context: &mut std::task::Context<'_>,
                buffer: &[u8],
            ) -> std::task::Poll<std::io::Result<usize>> {
                use std::io::Write;
                self.io.poll_write_stream(context, |mut io| io.write(buffer))
            }

            fn poll_write_slices(
                &self,
                context: &mut std::task::Context<'_>,
                buffers: &[std::io::IoSlice<'_>],
            ) -> std::task::Poll<std::io::Result<usize>> {
                use std::io::Write;
                self.io.poll_write_stream(context, |mut io| io.write_vectored(buffers))
            }

            /// Ends the stream, unless the other end has ended it.
            fn close_write(&self) -> std::task::Poll<std::io::Result<()>> {
                let close: fn(&$name) -> std::io::Result<()> = $close;
                std::task::Poll::Ready(match close(self) {
                    Err(error) if error.kind() == std::io::ErrorKind::NotConnected => Ok(()),
                    result => result,
                })
            }
        }

        crate::io::traits::async_write!(@for &$name);
        crate::io::traits::async_write!(@for $name);
    };
    (@for $type:ty) => {
        impl futures_io::AsyncWrite for $type {
            crate::io::traits::async_write!(@bodies);

            fn poll_close(
                self: std::pin::Pin<&mut Self>,
                _: &mut std::task::Context<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                self.close_write()
            }
        }

        #[cfg(feature = "tokio-io")]
        impl tokio::io::AsyncWrite for $type {
            crate::io::traits::async_write!(@bodies);
            crate::io::traits::async_write!(@shutdown);
        }

        #[cfg(feature = "hyper")]
        impl hyper::rt::Write for $type {
            crate::io::traits::async_write!(@bodies);
            crate::io::traits::async_write!(@shutdown);
        }
    };
    (@bodies) => {
        fn poll_write(
            self: std::pin::Pin<&mut Self>,
            context: &mut std::task::Context<'_>,
            buffer: &[u8],
        ) -> std::task::Poll<std::io::Result<usize>> {
            self.poll_write_bytes(context, buffer)
        }

        fn poll_write_vectored(
            self: std::pin::Pin<&mut Self>,
            context: &mut std::task::Context<'_>,
            buffers: &[std::io::IoSlice<'_>],
        ) -> std::task::Poll<std::io::Result<usize>> {
            self.poll_write_slices(context, buffers)
        }

        fn poll_flush(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<std::io::Result<()>> {
            std::task::Poll::Ready(Ok(()))
        }
    };
    (@shutdown) => {
        fn is_write_vectored(&self) -> bool {
            true
        }

        fn poll_shutdown(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<std::io::Result<()>> {
            self.close_write()
        }
    };
}

/// What a stream does when it is polled, if it is more than an [`Async`](crate::io::Async) in a field.
pub(crate) trait Polled {
    /// Reads some bytes, at most `most` of them, and passes them to `take`. None is passed at the end of the stream.
    fn poll_take(
        &mut self,
        context: &mut Context<'_>,
        most: usize,
        take: &mut dyn FnMut(&[u8]),
    ) -> Poll<io::Result<()>>;

    /// Takes some bytes to be written.
    fn poll_put(&mut self, context: &mut Context<'_>, data: &[IoSlice<'_>]) -> Poll<io::Result<usize>>;

    /// Writes what was taken.
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Writes what was taken, and ends the stream for the other end.
    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>>;
}

/// Implements the traits for a type that is [`Polled`]: `polled! { [generics] Type [bounds] }`.
macro_rules! polled {
    ([$($generics:tt)*] $type:ty [$($bounds:tt)*]) => {
        impl<$($generics)*> futures_io::AsyncRead for $type where $($bounds)* {
            fn poll_read(
                self: std::pin::Pin<&mut Self>,
                context: &mut std::task::Context<'_>,
                buffer: &mut [u8],
            ) -> std::task::Poll<std::io::Result<usize>> {
                let (most, mut len) = (buffer.len(), 0);
                let mut take = |bytes: &[u8]| {
                    buffer[len..][..bytes.len()].copy_from_slice(bytes);
                    len += bytes.len();
                };
                crate::io::traits::Polled::poll_take(self.get_mut(), context, most, &mut take).map_ok(|()| len)
            }
        }

        #[cfg(feature = "tokio-io")]
        impl<$($generics)*> tokio::io::AsyncRead for $type where $($bounds)* {
            fn poll_read(
                self: std::pin::Pin<&mut Self>,
                context: &mut std::task::Context<'_>,
                buffer: &mut tokio::io::ReadBuf<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                let most = buffer.remaining();
                let mut take = |bytes: &[u8]| buffer.put_slice(bytes);
                crate::io::traits::Polled::poll_take(self.get_mut(), context, most, &mut take)
            }
        }

        #[cfg(feature = "hyper")]
        impl<$($generics)*> hyper::rt::Read for $type where $($bounds)* {
            fn poll_read(
                self: std::pin::Pin<&mut Self>,
                context: &mut std::task::Context<'_>,
                mut buffer: hyper::rt::ReadBufCursor<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                let most = buffer.remaining();
                let mut take = |bytes: &[u8]| buffer.put_slice(bytes);
                crate::io::traits::Polled::poll_take(self.get_mut(), context, most, &mut take)
            }
        }

        impl<$($generics)*> futures_io::AsyncWrite for $type where $($bounds)* {
            crate::io::traits::polled!(@bodies poll_close);
        }

        #[cfg(feature = "tokio-io")]
        impl<$($generics)*> tokio::io::AsyncWrite for $type where $($bounds)* {
            crate::io::traits::polled!(@bodies poll_shutdown);

            fn is_write_vectored(&self) -> bool {
                true
            }
        }

        #[cfg(feature = "hyper")]
        impl<$($generics)*> hyper::rt::Write for $type where $($bounds)* {
            crate::io::traits::polled!(@bodies poll_shutdown);

            fn is_write_vectored(&self) -> bool {
                true
            }
        }
    };
    (@bodies $end:ident) => {
        fn poll_write(
            self: std::pin::Pin<&mut Self>,
            context: &mut std::task::Context<'_>,
            data: &[u8],
        ) -> std::task::Poll<std::io::Result<usize>> {
            let data = [std::io::IoSlice::new(data)];
            crate::io::traits::Polled::poll_put(self.get_mut(), context, &data)
        }

        fn poll_write_vectored(
            self: std::pin::Pin<&mut Self>,
            context: &mut std::task::Context<'_>,
            data: &[std::io::IoSlice<'_>],
        ) -> std::task::Poll<std::io::Result<usize>> {
            crate::io::traits::Polled::poll_put(self.get_mut(), context, data)
        }

        fn poll_flush(
            self: std::pin::Pin<&mut Self>,
            context: &mut std::task::Context<'_>,
        ) -> std::task::Poll<std::io::Result<()>> {
            crate::io::traits::Polled::poll_send(self.get_mut(), context)
        }

        fn $end(
            self: std::pin::Pin<&mut Self>,
            context: &mut std::task::Context<'_>,
        ) -> std::task::Poll<std::io::Result<()>> {
            crate::io::traits::Polled::poll_end(self.get_mut(), context)
        }
    };
}

pub(crate) use polled;
pub(crate) use {async_read, async_write};
