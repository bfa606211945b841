//! A buffered writer that never waits in `write`: [`Writer`].
#![forbid(unsafe_code)]

use std::fmt;
use std::io::{self, ErrorKind, Write};

/// The default for how much may be buffered before `drain` writes it out.
const LIMIT: usize = 64 * 1024;

/// A `BufWriter` that never waits in `write`: only [`drain`](Self::drain) and `flush` do.
///
/// So a message is written whole or not at all, even if the task is killed or timed out: what `write` took stays in the
/// buffer until the inner writer has it, and the next `flush` goes on where the last one was cut short. That requires
/// an inner writer that reports all that it has taken, as this crate's sockets, pipes and TLS do. A write to an
/// [`fs::File`](crate::fs::File) that is cut short is made all the same, and would be made twice.
///
/// Since `write` never waits, it never gives way to other tasks either, like a push to a `Vec`; `drain` and `flush` do.
///
/// ```
/// use std::io::Write;
/// use greenthread::{io::Writer, net::UnixStream};
///
/// # fn main() -> std::io::Result<()> {
/// let (ours, _theirs) = UnixStream::pair()?;
/// let mut writer = Writer::new(ours);
/// for n in 0..10 {
///     writeln!(writer, "line {n}")?;
///     writer.drain()?; // waits only if too much is buffered
/// }
/// writer.flush()?;
/// # Ok(())
/// # }
/// ```
///
/// Dropping it flushes it and ignores errors, as std's drop does.
///
/// # Coming from Python
/// `asyncio.StreamWriter`. There the loop empties the buffer, here the task that calls `drain` or `flush` does.
pub struct Writer<W: Write> {
    inner: W,
    buffer: Vec<u8>,
    limit: usize,
}

impl<W: Write> Writer<W> {
    /// A writer with a limit of 64 KiB.
    pub fn new(inner: W) -> Writer<W> {
        Writer::with_limit(LIMIT, inner)
    }

    /// A writer with a limit of `limit` bytes: [`drain`](Self::drain) leaves as many in the buffer.
    pub fn with_limit(limit: usize, inner: W) -> Writer<W> {
        Writer {
            inner,
            buffer: Vec::new(),
            limit,
        }
    }

    /// The inner writer. Writing to it directly bypasses the buffer.
    pub fn get_ref(&self) -> &W {
        &self.inner
    }

    /// The inner writer. Writing to it directly bypasses the buffer.
    pub fn get_mut(&mut self) -> &mut W {
        &mut self.inner
    }

    /// The bytes that have not been written out yet.
    pub fn buffer(&self) -> &[u8] {
        &self.buffer
    }

    /// Writes out what is buffered, if that is more than the limit.
    ///
    /// # Errors
    /// What the inner writer returns; the bytes that it did not take stay buffered.
    ///
    /// # Blocking and cancellation
    /// Parks as the inner writer does. A kill or time-out unwinds here; what was not written stays buffered.
    #[track_caller]
    pub fn drain(&mut self) -> io::Result<()> {
        if self.buffer.len() > self.limit {
            self.write_out()?;
        }
        Ok(())
    }

    #[track_caller]
    fn write_out(&mut self) -> io::Result<()> {
        /// Removes what was written from the buffer, even if the write unwinds.
        struct Written<'a>(&'a mut Vec<u8>, usize);
        impl Drop for Written<'_> {
            fn drop(&mut self) {
                self.0.drain(..self.1);
            }
        }
        let mut written = Written(&mut self.buffer, 0);
        while written.1 < written.0.len() {
            match self.inner.write(&written.0[written.1..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(len) => written.1 += len,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl<W: Write> Write for Writer<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(data);
        Ok(data.len())
    }

    #[track_caller]
    fn flush(&mut self) -> io::Result<()> {
        self.write_out()?;
        self.inner.flush()
    }
}

impl<W: Write> Drop for Writer<W> {
    fn drop(&mut self) {
        let _ = self.flush();
    }
}

impl<W: Write + fmt::Debug> fmt::Debug for Writer<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer")
            .field("inner", &self.inner)
            .field("buffered", &self.buffer.len())
            .field("limit", &self.limit)
            .finish()
    }
}
