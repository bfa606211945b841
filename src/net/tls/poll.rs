//! TLS that is polled: handshakes in `async` functions, and the async crates' traits.
//!
//! rustls reads and writes by std's traits. [`Now`] gives it the socket for the time of one poll: an operation that
//! would wait is `WouldBlock` there, and has left the task's waker with the socket.
#![forbid(unsafe_code)]

use std::future::poll_fn;
use std::io::{self, BufRead, ErrorKind, IoSlice, Read, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_io::{AsyncRead, AsyncWrite};
use rustls::{ClientConfig, Connection, ServerConfig};

use super::TlsStream;
use crate::hub::budget;
use crate::io::traits::{Polled, polled};
use crate::time::timeout_async;

/// A socket for the time of one poll.
struct Now<'a, 'b, S> {
    socket: &'a mut S,
    context: &'a mut Context<'b>,
}

fn now<T>(poll: Poll<io::Result<T>>) -> io::Result<T> {
    match poll {
        Poll::Ready(result) => result,
        Poll::Pending => Err(ErrorKind::WouldBlock.into()),
    }
}

/// The other way round.
fn later<T>(result: io::Result<T>) -> Poll<io::Result<T>> {
    match result {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Poll::Pending,
        result => Poll::Ready(result),
    }
}

impl<S: AsyncRead + Unpin> Read for Now<'_, '_, S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        now(Pin::new(&mut *self.socket).poll_read(self.context, buffer))
    }
}

impl<S: AsyncWrite + Unpin> Write for Now<'_, '_, S> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        now(Pin::new(&mut *self.socket).poll_write(self.context, data))
    }

    fn write_vectored(&mut self, data: &[IoSlice<'_>]) -> io::Result<usize> {
        now(Pin::new(&mut *self.socket).poll_write_vectored(self.context, data))
    }

    fn flush(&mut self) -> io::Result<()> {
        now(Pin::new(&mut *self.socket).poll_flush(self.context))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream<S> {
    /// Like [`connect`](Self::connect), for an `async` function that is polled on a hub.
    ///
    /// # Errors
    /// As there.
    pub async fn connect_async(
        config: Arc<ClientConfig>,
        name: &str,
        socket: S,
        patience: Duration,
    ) -> io::Result<TlsStream<S>> {
        TlsStream::greet_async(super::client(config, name)?, socket, patience).await
    }

    /// Like [`accept`](Self::accept), for an `async` function that is polled on a hub.
    ///
    /// # Errors
    /// As there.
    pub async fn accept_async(config: Arc<ServerConfig>, socket: S, patience: Duration) -> io::Result<TlsStream<S>> {
        TlsStream::greet_async(super::server(config)?, socket, patience).await
    }

    async fn greet_async(connection: Connection, socket: S, patience: Duration) -> io::Result<TlsStream<S>> {
        let mut stream = TlsStream { connection, socket };
        let greeted = timeout_async(patience, poll_fn(|context| stream.poll_greet(context))).await;
        greeted.unwrap_or_else(|_| Err(super::late(patience)))?;
        Ok(stream)
    }

    fn poll_greet(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            // Also what the last message of the handshake has left to send.
            ready!(self.poll_send(context))?;
            if !self.connection.is_handshaking() {
                return Poll::Ready(Ok(()));
            }
            if ready!(self.poll_feed(context))? == 0 {
                let early = "the peer has ended the connection within the TLS handshake";
                return Poll::Ready(Err(io::Error::new(ErrorKind::UnexpectedEof, early)));
            }
        }
    }

    /// Reads from the socket into rustls; the number of bytes.
    fn poll_feed(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let socket = &mut self.socket;
        let read = ready!(later(self.connection.read_tls(&mut Now { socket, context })))?;
        if let Err(error) = self.connection.process_new_packets() {
            // rustls has an alert for the peer, which is sent if the socket takes it at once.
            let _ = self.poll_send(context);
            return Poll::Ready(Err(io::Error::new(ErrorKind::InvalidData, error)));
        }
        Poll::Ready(Ok(read))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Polled for TlsStream<S> {
    fn poll_take(
        &mut self,
        context: &mut Context<'_>,
        most: usize,
        take: &mut dyn FnMut(&[u8]),
    ) -> Poll<io::Result<()>> {
        // Data that is decrypted already is returned without a poll of the socket, which takes the budget's step: take
        // it here.
        if !self.connection.wants_read() {
            ready!(budget::poll(context));
        }
        loop {
            let mut reader = self.connection.reader();
            match reader.fill_buf() {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
                Ok(plain) => {
                    let len = plain.len().min(most);
                    take(&plain[..len]);
                    reader.consume(len);
                    return Poll::Ready(Ok(()));
                }
            }
            ready!(self.poll_feed(context))?;
        }
    }

    fn poll_put(&mut self, context: &mut Context<'_>, data: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        ready!(self.poll_send(context))?;
        let taken = self.connection.writer().write_vectored(data)?;
        // The bytes are taken: report them even if they cannot be sent now. A lasting error comes again.
        let _ = self.poll_send(context);
        Poll::Ready(Ok(taken))
    }

    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let socket = &mut self.socket;
        let mut now = Now { socket, context };
        while self.connection.wants_write() {
            match self.connection.write_tls(&mut now) {
                Ok(0) => return Poll::Ready(Err(ErrorKind::WriteZero.into())),
                Err(error) if error.kind() != ErrorKind::Interrupted => return later(Err(error)),
                _ => {}
            }
        }
        later(now.flush())
    }

    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.connection.send_close_notify();
        ready!(self.poll_send(context))?;
        Pin::new(&mut self.socket).poll_close(context)
    }
}

polled! { [S] TlsStream<S> [S: AsyncRead + AsyncWrite + Unpin] }
