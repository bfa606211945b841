//! An HTTP/1.1 client: GET, keep-alive, `Content-Length` and chunked bodies. It reads as if reading blocked.

use std::borrow::Cow;
use std::io::{self, ErrorKind, Read, Write};
use std::time::Duration;

use greenthread::net::TcpStream;
use greenthread::timeout;

use crate::frontier::Host;

const MOST_HEAD: usize = 64 << 10;
pub(crate) const MOST_BODY: usize = 32 << 20;
const FIRST_READ: usize = 32 << 10;
/// A buffer that grew beyond this is given back after the page.
const KEPT_BUFFER: usize = 1 << 20;

/// Why there was no response, in words that are the same for all failures of a kind.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure(pub(crate) Cow<'static, str>);

pub(crate) fn failure<T>(what: &'static str) -> Result<T, Failure> {
    Err(Failure(Cow::Borrowed(what)))
}

const CLOSED: &str = "connection closed in the middle";

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure(match error.kind() {
            ErrorKind::ConnectionRefused => Cow::Borrowed("connection refused"),
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Cow::Borrowed("connection reset"),
            ErrorKind::TimedOut => Cow::Borrowed("timed out"),
            ErrorKind::UnexpectedEof => Cow::Borrowed(CLOSED),
            _ => Cow::Owned(error.to_string()),
        })
    }
}

#[derive(Debug)]
pub(crate) struct Response<'a> {
    pub(crate) status: u16,
    pub(crate) is_html: bool,
    pub(crate) body: &'a [u8],
    pub(crate) reason: String,
    pub(crate) location: Option<String>,
}

/// A client: fetches `path` from the host number `index`.
pub(crate) trait Get {
    fn get(&mut self, index: usize, host: &Host, path: &str) -> Result<Response<'_>, Failure>;
}

impl Response<'_> {
    /// As in `404 Not Found`.
    pub(crate) fn status_text(&self) -> String {
        format!("{} {}", self.status, self.reason).trim_end().to_owned()
    }

    /// Where to go instead.
    pub(crate) fn redirect(&self) -> Option<&str> {
        let is_redirect = matches!(self.status, 301 | 302 | 303 | 307 | 308);
        self.location.as_deref().filter(|_| is_redirect)
    }
}

/// The head of a response.
#[derive(Debug, Default, PartialEq, Eq)]
struct Head {
    status: u16,
    reason: String,
    length: Option<usize>,
    chunked: bool,
    keep_alive: bool,
    is_html: bool,
    location: Option<String>,
}

/// A connection at a time, kept for the next request to the same host.
#[derive(Debug)]
pub(crate) struct Client {
    kept: Option<(usize, TcpStream)>,
    timeout: Duration,
    buffer: Buffer,
}

impl Client {
    pub(crate) fn new(timeout: Duration) -> Client {
        Client {
            kept: None,
            timeout,
            buffer: Buffer::default(),
        }
    }

    fn exchange(&mut self, index: usize, host: &Host, path: &str) -> Result<(Head, usize, usize), Failure> {
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nUser-Agent: greenthread-crawl\r\nAccept: text/html\r\n\r\n",
            host.authority
        );
        let kept = self.kept.take().filter(|(kept, _)| *kept == index);
        if let Some((_, stream)) = kept {
            match self.attempt(index, stream, &request) {
                // The server had closed it meanwhile; a new connection can tell whether that was all.
                Err(_) if self.buffer.filled == 0 => {}
                result => return result,
            }
        }
        let stream = TcpStream::connect(&host.addresses[..])?;
        self.attempt(index, stream, &request)
    }

    fn attempt(&mut self, index: usize, stream: TcpStream, request: &str) -> Result<(Head, usize, usize), Failure> {
        (&stream).write_all(request.as_bytes())?;
        let buffer = &mut self.buffer;
        let mut at = 0;
        let (head, start) = loop {
            let end = buffer.head_end(&stream, at)?;
            let head = parse_head(&buffer.bytes[at..end])?;
            at = end;
            if head.status >= 200 {
                break (head, end); // 1xx: the real one follows
            }
        };
        let (mut keep, mut rest) = (head.keep_alive, start);
        let end = match head.length {
            _ if matches!(head.status, 204 | 304) => start,
            _ if head.chunked => {
                let end;
                (end, rest) = buffer.unchunk(&stream, start)?;
                end
            }
            Some(length) if length > MOST_BODY => return failure("page too large"),
            Some(length) => {
                buffer.fill(&stream, start + length)?;
                rest = start + length;
                rest
            }
            None => {
                keep = false;
                while buffer.read(&stream, usize::MAX)? > 0 {
                    if buffer.filled - start > MOST_BODY {
                        return failure("page too large");
                    }
                }
                buffer.filled
            }
        };
        // Bytes that nobody asked for: what comes next could not be trusted.
        if keep && buffer.filled == rest.max(end) {
            self.kept = Some((index, stream));
        }
        Ok((head, start, end))
    }
}

impl Get for Client {
    fn get(&mut self, index: usize, host: &Host, path: &str) -> Result<Response<'_>, Failure> {
        self.buffer.clear();
        let limit = self.timeout;
        let Ok(result) = timeout(limit, || self.exchange(index, host, path)) else {
            return failure("timed out"); // the connection went as the stack unwound
        };
        let (head, start, end) = result?;
        Ok(Response {
            status: head.status,
            is_html: head.is_html,
            body: &self.buffer.bytes[start..end],
            reason: head.reason,
            location: head.location,
        })
    }
}

/// All that came for one request.
#[derive(Debug, Default)]
struct Buffer {
    /// Longer than what came: zeroed once, and used over and over.
    bytes: Vec<u8>,
    filled: usize,
}

impl Buffer {
    fn clear(&mut self) {
        self.filled = 0;
        if self.bytes.len() > KEPT_BUFFER {
            self.bytes = Vec::new();
        }
    }

    /// Reads once, up to `end` at most. 0: the end of the stream.
    fn read(&mut self, mut stream: impl Read, end: usize) -> io::Result<usize> {
        if self.filled == self.bytes.len() {
            // It grows with what came, not with what a server says that will come.
            let len = (self.filled * 2).max(FIRST_READ);
            self.bytes.resize(len, 0);
        }
        let end = end.min(self.bytes.len());
        let got = stream.read(&mut self.bytes[self.filled..end])?;
        self.filled += got;
        Ok(got)
    }

    /// Reads until there are `end` bytes.
    fn fill(&mut self, mut stream: impl Read, end: usize) -> Result<(), Failure> {
        while self.filled < end {
            if self.read(&mut stream, end)? == 0 {
                return failure(CLOSED);
            }
        }
        Ok(())
    }

    /// Reads until there is the head of a response from `at` on, and gives its end.
    fn head_end(&mut self, mut stream: impl Read, at: usize) -> Result<usize, Failure> {
        let mut from = at;
        loop {
            let came = &self.bytes[at..self.filled];
            let expected = &b"HTTP/1."[..came.len().min(7)];
            if !came.starts_with(expected) {
                return failure("bad response: not HTTP/1");
            }
            let end = self.bytes[from..self.filled].windows(4).position(|w| w == b"\r\n\r\n");
            if let Some(end) = end {
                return Ok(from + end + 4);
            }
            from = self.filled.saturating_sub(3).max(at);
            if self.filled - at > MOST_HEAD {
                return failure("bad response: head too large");
            }
            if self.read(&mut stream, usize::MAX)? == 0 {
                return failure(if self.filled == 0 {
                    "connection closed without a response"
                } else {
                    CLOSED
                });
            }
        }
    }

    /// The end of the line that starts at `at`: the place of its `\n`.
    fn line_end(&mut self, mut stream: impl Read, at: usize) -> Result<usize, Failure> {
        loop {
            let come = &self.bytes[at..self.filled];
            if let Some(len) = come.iter().position(|&b| b == b'\n') {
                return Ok(at + len);
            }
            if come.len() > 4096 {
                return failure("bad response: broken chunk");
            }
            if self.read(&mut stream, usize::MAX)? == 0 {
                return failure(CLOSED);
            }
        }
    }

    /// Reads a chunked body and moves its pieces together. The end of the body, and of what came for it.
    fn unchunk(&mut self, mut stream: impl Read, start: usize) -> Result<(usize, usize), Failure> {
        let (mut at, mut end) = (start, start);
        loop {
            let line = self.line_end(&mut stream, at)?;
            let text = std::str::from_utf8(&self.bytes[at..line]).unwrap_or("");
            let digits = text.split(';').next().unwrap_or("").trim();
            let Ok(size) = usize::from_str_radix(digits, 16) else {
                return failure("bad response: broken chunk");
            };
            at = line + 1;
            if size == 0 {
                break;
            }
            if size > MOST_BODY || at + size - start > 2 * MOST_BODY {
                return failure("page too large");
            }
            self.fill(&mut stream, at + size + 2)?;
            if &self.bytes[at + size..at + size + 2] != b"\r\n" {
                return failure("bad response: broken chunk");
            }
            self.bytes.copy_within(at..at + size, end);
            (at, end) = (at + size + 2, end + size);
        }
        loop {
            let line = self.line_end(&mut stream, at)?;
            let is_last = self.bytes[at..line].trim_ascii().is_empty();
            at = line + 1;
            if is_last {
                return Ok((end, at));
            }
        }
    }
}

/// Reads the head of a response, up to and with its empty line.
fn parse_head(bytes: &[u8]) -> Result<Head, Failure> {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.split("\r\n");
    let mut first = lines.next().unwrap_or("").splitn(3, ' ');
    let version = first.next().unwrap_or("");
    let status = first
        .next()
        .filter(|code| code.len() == 3)
        .and_then(|code| code.parse().ok());
    let Some(status) = status.filter(|status| (100..600).contains(status)) else {
        return failure("bad response: no status");
    };
    let mut head = Head {
        status,
        reason: first
            .next()
            .unwrap_or("")
            .chars()
            .filter(|c| !c.is_control())
            .take(40)
            .collect(),
        keep_alive: version != "HTTP/1.0",
        ..Head::default()
    };
    for line in lines.take_while(|line| !line.is_empty()) {
        let Some((name, value)) = line.split_once(':') else {
            return failure("bad response: broken header");
        };
        let value = value.trim();
        let is = |what: &str| name.eq_ignore_ascii_case(what);
        if is("content-length") {
            let Ok(length) = value.parse() else {
                return failure("bad response: broken Content-Length");
            };
            head.length = Some(length);
        } else if is("transfer-encoding") {
            head.chunked = value.to_ascii_lowercase().ends_with("chunked");
        } else if is("connection") {
            let value = value.to_ascii_lowercase();
            head.keep_alive = (head.keep_alive && value != "close") || value == "keep-alive";
        } else if is("content-type") {
            let value = value.to_ascii_lowercase();
            head.is_html = value.starts_with("text/html") || value.starts_with("application/xhtml");
        } else if is("location") {
            head.location = Some(String::from(value));
        }
    }
    Ok(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives what it has a few bytes at a time.
    struct Dribble<'a>(&'a [u8], usize);

    impl Read for Dribble<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let len = self.1.min(buffer.len());
            self.0.read(&mut buffer[..len])
        }
    }

    #[test]
    fn heads_are_read() {
        let head =
            parse_head(b"HTTP/1.1 200 OK\r\ncontent-LENGTH: 5\r\nContent-Type: text/html; charset=utf-8\r\n\r\n");
        let expected = Head {
            status: 200,
            reason: String::from("OK"),
            length: Some(5),
            keep_alive: true,
            is_html: true,
            ..Head::default()
        };
        assert_eq!(head, Ok(expected));
        let head = parse_head(b"HTTP/1.0 301\r\nLocation:  /x \r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
        assert_eq!((head.status, head.location.as_deref()), (301, Some("/x")));
        assert!(head.chunked && !head.keep_alive);
        assert!(
            !parse_head(b"HTTP/1.1 200 OK\r\nConnection: Close\r\n\r\n")
                .unwrap()
                .keep_alive
        );
    }

    #[test]
    fn bad_heads_are_named() {
        let cases = [
            ("HTTP/1.1\r\n\r\n", "no status"),
            ("HTTP/1.1 20x OK\r\n\r\n", "no status"),
            ("HTTP/1.1 999 OK\r\n\r\n", "no status"),
            ("HTTP/1.1 200 OK\r\nwhat\r\n\r\n", "broken header"),
            ("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "Content-Length"),
        ];
        for (head, part) in cases {
            let said = parse_head(head.as_bytes()).expect_err(head).0;
            assert!(said.contains(part), "{head}: {said}");
        }
    }

    #[test]
    fn the_end_of_a_head_is_found() {
        let text = b"HTTP/1.1 200 OK\r\nA: b\r\n\r\nbody";
        for step in 1..text.len() {
            assert_eq!(Buffer::default().head_end(Dribble(text, step), 0), Ok(text.len() - 4));
        }
        let said = |text: &[u8]| Buffer::default().head_end(text, 0).unwrap_err().0;
        assert_eq!(said(b""), "connection closed without a response");
        assert_eq!(said(b"HTTP/1.1 200 OK\r\n"), CLOSED);
        assert_eq!(said(b"SSH-2.0\r\n\r\n"), "bad response: not HTTP/1");
    }

    #[test]
    fn chunks_are_put_together() {
        let text = b"5\r\nhello\r\n1;x=y\r\n \r\nA\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n";
        for step in 1..text.len() {
            let mut buffer = Buffer::default();
            let (end, rest) = buffer.unchunk(Dribble(text, step), 0).unwrap();
            assert_eq!((&buffer.bytes[..end], rest), (&b"hello 0123456789"[..], text.len()));
        }
        let said = |text: &[u8]| Buffer::default().unchunk(text, 0).unwrap_err().0;
        assert_eq!(said(b"x\r\n"), "bad response: broken chunk");
        assert_eq!(said(b"1\r\nabc\r\n"), "bad response: broken chunk");
        assert_eq!(said(b"5\r\nab"), CLOSED);
        assert_eq!(said(b"fffffffff\r\n"), "page too large");
    }
}
