//! A [`TlsConnection`] that is polled: by one task that reads, and one that writes.
//!
//! A poll keeps no lock when it is over. It waits, parked, for a green thread that reads or writes the same stream at
//! that moment.
#![forbid(unsafe_code)]

use std::io::{self, BufRead, ErrorKind, IoSlice, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_io::{AsyncRead, AsyncWrite};

use super::super::transport::Connection;
use super::{State, TlsConnection};
use crate::hub::budget;
use crate::io::traits::{Polled, polled};
use crate::sys::poison::IgnorePoison;

impl State {
    /// Passes plain bytes to `take`. `WouldBlock`: more must be read from the socket.
    fn take_plain(&mut self, most: usize, take: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        loop {
            let mut reader = self.rustls.reader();
            match reader.fill_buf() {
                Err(error) if error.kind() == ErrorKind::WouldBlock && !self.pending.is_empty() => self.feed()?,
                Err(error) => return Err(error),
                Ok(plain) => {
                    let len = plain.len().min(most);
                    take(&plain[..len]);
                    reader.consume(len);
                    return Ok(());
                }
            }
        }
    }
}

impl<S: Connection> TlsConnection<S>
where
    for<'a> &'a S: AsyncRead + AsyncWrite,
{
    /// As `send`, of a poll.
    fn poll_out(&self, context: &mut Context<'_>, out: &mut Vec<u8>) -> Poll<io::Result<()>> {
        loop {
            while !out.is_empty() {
                match ready!(Pin::new(&mut &self.0.socket).poll_write(context, out))? {
                    0 => return Poll::Ready(Err(ErrorKind::WriteZero.into())),
                    written => drop(out.drain(..written)),
                }
            }
            self.state(|state| {
                while state.rustls.wants_write() {
                    state.rustls.write_tls(out)?;
                }
                io::Result::Ok(())
            })?;
            if out.is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// As `answer`, for a task that reads: sends what the socket takes at once. The rest stays in `out` (TLS-2), for
    /// the next caller that writes. The waker of the task that writes stays with the socket.
    fn answer_now(&self) -> io::Result<()> {
        if !self.state(|state| state.rustls.wants_write()) {
            return Ok(());
        }
        let Ok(mut out) = self.0.sending.try_lock() else {
            return Ok(());
        };
        self.state(|state| {
            while state.rustls.wants_write() {
                state.rustls.write_tls(&mut *out)?;
            }
            io::Result::Ok(())
        })?;
        while !out.is_empty() {
            match self.0.socket.try_write(&out)? {
                0 => break,
                written => drop(out.drain(..written)),
            }
        }
        Ok(())
    }
}

impl<S: Connection> Polled for TlsConnection<S>
where
    for<'a> &'a S: AsyncRead + AsyncWrite,
{
    fn poll_take(
        &mut self,
        context: &mut Context<'_>,
        most: usize,
        take: &mut dyn FnMut(&[u8]),
    ) -> Poll<io::Result<()>> {
        let mut chunk = self.0.reading.lock().ignore_poison();
        // Data that is here already is returned without a poll of the socket, which takes the budget's step: take it
        // here.
        if self.state(|state| !state.rustls.wants_read() || !state.pending.is_empty()) {
            ready!(budget::poll(context));
        }
        loop {
            let taken = self.state(|state| state.take_plain(most, take));
            // The bytes have left `state`, or the error is to be reported: an answer that fails is sent later.
            let _ = self.answer_now();
            match taken {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
            let len = ready!(Pin::new(&mut &self.0.socket).poll_read(context, &mut chunk))?;
            self.state(|state| state.take(&chunk[..len]))?;
        }
    }

    fn poll_put(&mut self, context: &mut Context<'_>, data: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let mut out = self.0.sending.lock().ignore_poison();
        ready!(self.poll_out(context, &mut out))?;
        let taken = self.state(|state| state.rustls.writer().write_vectored(data))?;
        let _ = self.poll_out(context, &mut out);
        Poll::Ready(Ok(taken))
    }

    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut out = self.0.sending.lock().ignore_poison();
        self.poll_out(context, &mut out)
    }

    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut out = self.0.sending.lock().ignore_poison();
        self.state(|state| state.rustls.send_close_notify());
        ready!(self.poll_out(context, &mut out))?;
        Pin::new(&mut &self.0.socket).poll_close(context)
    }
}

polled! { [S: Connection] TlsConnection<S> [for<'a> &'a S: AsyncRead + AsyncWrite] }
