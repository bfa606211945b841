//! A buffered reader that gives all or nothing: [`Reader`].
//!
//! # Invariants
//! - **READER-1** What came from the inner reader is in the buffer until a method returns it: a kill, a time-out or an
//!   error in the middle of a wait leaves it there.
//! - **READER-2** `buffer[start..end]` is the data; the rest is free.
#![forbid(unsafe_code)]

use std::fmt;
use std::io::{self, BufRead, ErrorKind, Read};

/// The default limit for data that a delimiter ends.
const LIMIT: usize = 64 * 1024;
/// The size of the buffer at first, and again when a longer one has become empty.
const ROOM: usize = 8 * 1024;

/// A `BufReader` that loses nothing when a read is cut short, and that limits how much it waits for.
///
/// std's `read_line`, `read_until` and `read_exact` take bytes out of the buffer as they come. If such a call is
/// killed, timed out or fails half way, those bytes are lost. The methods of this reader leave the bytes in the buffer
/// until all of them are there, and the next call goes on:
///
/// ```
/// use std::io::{BufRead, Write};
/// use std::time::Duration;
/// use greenthread::{io::Reader, net::UnixStream, timeout};
///
/// # fn main() -> std::io::Result<()> {
/// let (ours, mut theirs) = UnixStream::pair()?;
/// let (mut reader, mut line) = (Reader::new(ours), String::new());
/// theirs.write_all(b"half a ")?;
/// assert!(timeout(Duration::from_millis(5), || reader.read_line(&mut line)).is_err());
/// theirs.write_all(b"line\n")?;
/// reader.read_line(&mut line)?;
/// assert_eq!(line, "half a line\n");
/// # Ok(())
/// # }
/// ```
///
/// Buffered data is returned without a look at the inner reader, and so without giving way to other tasks. A loop over
/// buffered lines gives way when it reaches the end of the buffer.
///
/// # Errors of its own
/// They are inside of an `io::Error`; `error.downcast::<IncompleteRead>()` takes them out.
/// - [`IncompleteRead`], of kind `UnexpectedEof`, has the bytes that came before the end.
/// - [`LimitOverrun`], of kind `InvalidData`: no delimiter within the limit (64 KiB, or as
///   [`with_limit`](Self::with_limit) says). The bytes stay in the buffer, where `read` for example finds them. So a
///   loop that ignores the error does not end.
///
/// # Coming from Python
/// `asyncio.StreamReader`: `readexactly` is [`read_exactly`](Self::read_exactly), `readuntil` is
/// [`read_through`](Self::read_through), `readline` is `BufRead::read_line`.
pub struct Reader<R> {
    inner: R,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    limit: usize,
    ended: bool,
}

/// The stream ended before all that was asked for; `partial` is what came.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct IncompleteRead {
    /// The bytes before the end. The reader does not have them any more.
    pub partial: Vec<u8>,
    /// How many bytes were asked for, if the call named a number.
    pub expected: Option<usize>,
}

impl fmt::Display for IncompleteRead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let got = self.partial.len();
        match self.expected {
            Some(expected) => write!(f, "the stream ended after {got} of {expected} bytes"),
            None => write!(f, "the stream ended after {got} bytes, without the delimiter"),
        }
    }
}

impl fmt::Debug for IncompleteRead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IncompleteRead({self})")
    }
}

impl std::error::Error for IncompleteRead {}

/// There is no delimiter within the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LimitOverrun {
    /// The limit, in bytes.
    pub limit: usize,
}

impl fmt::Display for LimitOverrun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let limit = self.limit;
        write!(
            f,
            "no delimiter within {limit} bytes: read the bytes without it, or make a Reader with a higher limit"
        )
    }
}

impl std::error::Error for LimitOverrun {}

impl<R: Read> Reader<R> {
    /// A reader with a limit of 64 KiB.
    pub fn new(inner: R) -> Reader<R> {
        Reader::with_limit(LIMIT, inner)
    }

    /// A reader that looks for a delimiter in at most `limit` bytes.
    pub fn with_limit(limit: usize, inner: R) -> Reader<R> {
        Reader {
            inner,
            buffer: Vec::new(),
            start: 0,
            end: 0,
            limit,
            ended: false,
        }
    }

    /// The inner reader. Reading from it directly bypasses the buffer.
    pub fn get_ref(&self) -> &R {
        &self.inner
    }

    /// The inner reader. Reading from it directly bypasses the buffer.
    pub fn get_mut(&mut self) -> &mut R {
        &mut self.inner
    }

    /// The inner reader, and the bytes that are in the buffer.
    pub fn into_parts(self) -> (R, Vec<u8>) {
        let rest = self.buffer().to_vec();
        (self.inner, rest)
    }

    /// The bytes that are in the buffer.
    pub fn buffer(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Whether the end of the stream was seen, and the buffer is empty.
    pub fn at_eof(&self) -> bool {
        self.ended && self.start == self.end
    }

    /// Reads exactly `len` bytes. The limit does not apply here.
    ///
    /// # Errors
    /// [`IncompleteRead`] if the stream ends before; what the inner reader returns.
    ///
    /// # Blocking and cancellation
    /// Parks as the inner reader does. A kill, time-out or error loses nothing that has come.
    #[track_caller]
    pub fn read_exactly(&mut self, len: usize) -> io::Result<Vec<u8>> {
        self.gather(len)?;
        Ok(self.take(len))
    }

    /// Reads up to `delimiter`, and returns it with the data.
    ///
    /// # Errors
    /// [`IncompleteRead`] if the stream ends before; [`LimitOverrun`] if there is more than the limit before the
    /// delimiter; what the inner reader returns.
    ///
    /// # Panics
    /// If the delimiter is empty.
    ///
    /// # Blocking and cancellation
    /// As [`read_exactly`](Self::read_exactly).
    #[track_caller]
    pub fn read_through(&mut self, delimiter: &[u8]) -> io::Result<Vec<u8>> {
        assert!(
            !delimiter.is_empty(),
            "read_through needs a delimiter of at least one byte"
        );
        match self.find(delimiter)? {
            Some(len) => Ok(self.take(len)),
            None => Err(self.incomplete(None)),
        }
    }

    /// The length of the data up to the end of the delimiter. All of it is in the buffer then. `None` if the stream
    /// ends before.
    #[track_caller]
    fn find(&mut self, delimiter: &[u8]) -> io::Result<Option<usize>> {
        let mut searched = 0;
        loop {
            let there = &self.buffer()[searched..];
            let found = match delimiter {
                [byte] => there.iter().position(|b| b == byte),
                _ => there.windows(delimiter.len()).position(|w| w == delimiter),
            };
            let len = self.end - self.start;
            match found {
                Some(at) if searched + at <= self.limit => return Ok(Some(searched + at + delimiter.len())),
                None if len < self.limit.saturating_add(delimiter.len()) => {}
                _ => {
                    let overrun = LimitOverrun { limit: self.limit };
                    return Err(io::Error::new(ErrorKind::InvalidData, overrun));
                }
            }
            // The last bytes may be the beginning of a delimiter: search them again.
            searched = len.saturating_sub(delimiter.len() - 1);
            if self.more()? == 0 {
                return Ok(None);
            }
        }
    }

    /// Reads until the buffer holds `len` bytes.
    #[track_caller]
    fn gather(&mut self, len: usize) -> io::Result<()> {
        while self.end - self.start < len {
            if self.more()? == 0 {
                return Err(self.incomplete(Some(len)));
            }
        }
        Ok(())
    }

    #[cold]
    fn incomplete(&mut self, expected: Option<usize>) -> io::Error {
        let partial = self.take(self.end - self.start);
        io::Error::new(ErrorKind::UnexpectedEof, IncompleteRead { partial, expected })
    }

    fn take(&mut self, len: usize) -> Vec<u8> {
        let taken = self.buffer()[..len].to_vec();
        self.consume(len);
        taken
    }

    /// Does one read of the inner reader, into the buffer.
    #[track_caller]
    fn more(&mut self) -> io::Result<usize> {
        if self.end == self.buffer.len() && self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.end == self.buffer.len() {
            self.buffer.resize((self.end * 2).max(ROOM), 0);
        }
        loop {
            match self.inner.read(&mut self.buffer[self.end..]) {
                Ok(len) => {
                    self.end += len;
                    self.ended = len == 0;
                    return Ok(len);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl<R: Read> Read for Reader<R> {
    #[track_caller]
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.start == self.end && buffer.len() >= ROOM {
            let len = self.inner.read(buffer)?;
            self.ended = len == 0;
            return Ok(len);
        }
        let len = self.fill_buf()?.read(buffer)?;
        self.consume(len);
        Ok(len)
    }

    /// Like [`read_exactly`](Reader::read_exactly), into `buffer`, which is not touched unless all bytes are there.
    #[track_caller]
    fn read_exact(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        self.gather(buffer.len())?;
        buffer.copy_from_slice(&self.buffer()[..buffer.len()]);
        self.consume(buffer.len());
        Ok(())
    }
}

impl<R: Read> BufRead for Reader<R> {
    #[track_caller]
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.start == self.end {
            self.more()?;
        }
        Ok(self.buffer())
    }

    fn consume(&mut self, len: usize) {
        self.start = (self.start + len).min(self.end);
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            self.buffer.truncate(ROOM);
            self.buffer.shrink_to(ROOM);
        }
    }

    /// Like std's, except for the limit. At the end of the stream it returns what is there.
    #[track_caller]
    fn read_until(&mut self, byte: u8, buffer: &mut Vec<u8>) -> io::Result<usize> {
        let found = self.find(&[byte])?;
        let len = found.unwrap_or(self.end - self.start);
        buffer.extend_from_slice(&self.buffer()[..len]);
        self.consume(len);
        Ok(len)
    }

    /// Like std's, except for the limit. If the line is not UTF-8, the error has its bytes, in a `FromUtf8Error`.
    #[track_caller]
    fn read_line(&mut self, line: &mut String) -> io::Result<usize> {
        let mut bytes = Vec::new();
        let len = self.read_until(b'\n', &mut bytes)?;
        let text = String::from_utf8(bytes).map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
        line.push_str(&text);
        Ok(len)
    }
}

impl<R: fmt::Debug> fmt::Debug for Reader<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("inner", &self.inner)
            .field("buffered", &(self.end - self.start))
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}
