//! `io::Reader` and `io::Writer`: what std's buffers lack, above all that nothing is lost when a wait is cut short.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, BufRead, ErrorKind, Read, Write};
use std::rc::Rc;

use greenthread::io::{IncompleteRead, LimitOverrun, Reader, Writer};
use greenthread::net::UnixStream;
use greenthread::{hub, spawn_local, timeout, yield_now};

use crate::support::fresh::{fresh, ms, secs, virtually};

/// Gives these pieces, one a read, errors among them; then the end.
struct Pieces(VecDeque<io::Result<Vec<u8>>>);

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(piece) = self.0.pop_front() else {
            return Ok(0);
        };
        let mut piece = piece?;
        let len = piece.len().min(buffer.len());
        buffer[..len].copy_from_slice(&piece[..len]);
        if len < piece.len() {
            self.0.push_front(Ok(piece.split_off(len)));
        }
        Ok(len)
    }
}

fn pieces(list: &[&[u8]]) -> Pieces {
    Pieces(list.iter().map(|piece| Ok(piece.to_vec())).collect())
}

fn overrun(error: io::Error) -> LimitOverrun {
    assert_eq!(error.kind(), ErrorKind::InvalidData);
    error.downcast().unwrap()
}

fn incomplete(error: io::Error) -> IncompleteRead {
    assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
    error.downcast().unwrap()
}

#[test]
fn a_delimiter_may_come_in_pieces() {
    let mut reader = Reader::new(pieces(&[b"one\r", b"\ntwo", b"\r\r", b"\n", b"\r\nrest"]));
    assert_eq!(reader.read_through(b"\r\n").unwrap(), b"one\r\n");
    assert_eq!(reader.read_through(b"\r\n").unwrap(), b"two\r\r\n");
    assert_eq!(reader.read_through(b"\r\n").unwrap(), b"\r\n");
    assert!(!reader.at_eof());
    let cut = incomplete(reader.read_through(b"\r\n").unwrap_err());
    assert_eq!((&cut.partial[..], cut.expected), (&b"rest"[..], None));
    assert!(reader.at_eof());
}

#[test]
fn an_incomplete_read_has_what_came() {
    let mut reader = Reader::new(pieces(&[b"abc", b"de"]));
    assert_eq!(reader.read_exactly(2).unwrap(), b"ab");
    let error = reader.read_exactly(4).unwrap_err();
    assert_eq!(error.to_string(), "the stream ended after 3 of 4 bytes");
    let cut = incomplete(error);
    assert_eq!((&cut.partial[..], cut.expected), (&b"cde"[..], Some(4)));
    assert_eq!(reader.read_exactly(0).unwrap(), b"");

    let mut buffer = *b"....";
    let error = Reader::new(pieces(&[b"xyz"])).read_exact(&mut buffer).unwrap_err();
    assert_eq!(incomplete(error).partial, b"xyz");
    assert_eq!(&buffer, b"....", "all or nothing");
}

#[test]
fn a_limit_overrun_loses_nothing() {
    // "12345678" and the delimiter are within the limit of 8, one byte more is not.
    for (text, fits) in [("12345678;x", true), ("123456789;x", false), ("123456789012;x", false)] {
        for size in 1..=text.len() {
            let list: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
            let mut reader = Reader::with_limit(8, pieces(&list));
            let mut line = Vec::new();
            let result = reader.read_until(b';', &mut line);
            if fits {
                assert_eq!((result.unwrap(), &line[..]), (9, &b"12345678;"[..]), "by {size}");
                continue;
            }
            assert_eq!(overrun(result.unwrap_err()).limit, 8, "by {size}");
            assert!(line.is_empty());
            assert!(reader.read_through(b";").is_err(), "and again");
            let mut all = String::new();
            reader.read_to_string(&mut all).unwrap();
            assert_eq!(all, text, "by {size}");
        }
    }
}

#[test]
fn read_exactly_knows_no_limit() {
    let big = vec![7; 300_000];
    let mut reader = Reader::with_limit(10, pieces(&[&big, b"end\n"]));
    assert_eq!(reader.read_exactly(300_000).unwrap(), big);
    let mut line = String::new();
    assert_eq!(reader.read_line(&mut line).unwrap(), 4);
    assert_eq!(reader.read_line(&mut line).unwrap(), 0, "the end, as std's");
    assert_eq!(line, "end\n");
}

#[test]
fn an_error_in_the_middle_leaves_what_came_before() {
    let list = [
        Ok(b"ha".to_vec()),
        Err(ErrorKind::TimedOut.into()),
        Err(ErrorKind::Interrupted.into()),
        Ok(b"lf\n".to_vec()),
    ];
    let mut reader = Reader::new(Pieces(list.into()));
    let mut line = String::from("> ");
    assert_eq!(reader.read_line(&mut line).unwrap_err().kind(), ErrorKind::TimedOut);
    assert_eq!((reader.buffer(), &line[..]), (&b"ha"[..], "> "));
    reader.read_line(&mut line).unwrap();
    assert_eq!(line, "> half\n");
}

#[test]
fn a_line_that_is_not_utf8_is_in_its_error() {
    let mut reader = Reader::new(pieces(&[b"\xff\xfe\nnext\n"]));
    let error = reader.read_line(&mut String::new()).unwrap_err();
    let bytes = error.downcast::<std::string::FromUtf8Error>().unwrap().into_bytes();
    assert_eq!(bytes, b"\xff\xfe\n");
    assert_eq!(reader.lines().next().unwrap().unwrap(), "next");
}

#[test]
fn reads_of_all_kinds_share_the_buffer() {
    let mut reader = Reader::new(pieces(&[b"head\nbody and ", b"tail"]));
    assert_eq!(reader.by_ref().lines().next().unwrap().unwrap(), "head");
    assert_eq!(reader.read_exactly(5).unwrap(), b"body ");
    let (inner, rest) = reader.into_parts();
    assert_eq!(rest, b"and ");
    assert_eq!(inner.0.len(), 1);
}

const MESSAGE: &[u8] = b"first line\nsecond\n0123456789";

/// Reads the whole message by three methods, in at most so many parks; what was read is in `got`.
fn read_all(reader: &RefCell<Reader<UnixStream>>, got: &RefCell<Vec<u8>>) {
    loop {
        let done = got.borrow().len();
        let next = match done {
            0 => reader.borrow_mut().read_through(b"\n").unwrap(),
            11 => {
                let mut line = String::new();
                reader.borrow_mut().read_line(&mut line).unwrap();
                line.into_bytes()
            }
            18 => {
                let mut rest = [0; 10];
                reader.borrow_mut().read_exact(&mut rest).unwrap();
                rest.to_vec()
            }
            _ => return,
        };
        got.borrow_mut().extend(next);
    }
}

#[test]
fn killed_at_any_park_nothing_is_lost() {
    for k in 0..MESSAGE.len() {
        fresh(move || {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            let reader = Rc::new(RefCell::new(Reader::new(ours)));
            let got = Rc::new(RefCell::new(Vec::new()));
            let start = |reader: &Rc<RefCell<Reader<UnixStream>>>, got: &Rc<RefCell<Vec<u8>>>| {
                let (reader, got) = (reader.clone(), got.clone());
                spawn_local(move || read_all(&reader, &got))
            };
            let first = start(&reader, &got);
            for byte in &MESSAGE[..k] {
                theirs.write_all(&[*byte]).unwrap();
                hub::idle();
            }
            hub::idle();
            first.kill();
            assert!(first.join().unwrap_err().is_killed(), "after {k} bytes it waits");
            let second = start(&reader, &got);
            theirs.write_all(&MESSAGE[k..]).unwrap();
            second.join().unwrap();
            assert_eq!(*got.borrow(), MESSAGE, "killed after {k} bytes");
        });
    }
}

#[test]
fn timed_out_it_goes_on_where_it_was() {
    virtually(|| {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut reader = Reader::new(ours);
        for byte in b"slow" {
            theirs.write_all(&[*byte]).unwrap();
            assert!(timeout(ms(10), || reader.read_through(b"\n")).is_err());
        }
        theirs.write_all(b"\n").unwrap();
        assert_eq!(reader.read_through(b"\n").unwrap(), b"slow\n");
    });
}

#[test]
fn a_write_never_waits_and_a_flush_cut_short_goes_on() {
    fresh(|| {
        const LEN: usize = 4_000_000;
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut writer = Writer::new(ours);
        let sent: Vec<u8> = (0..LEN).map(|n| (n % 251) as u8).collect();
        writer.write_all(&sent).unwrap();
        assert_eq!(writer.buffer().len(), LEN, "nothing is written before a drain");
        let mut got = Vec::new();
        let mut buffer = vec![0; 100_000];
        let mut cuts = 0;
        while timeout(ms(5), || writer.flush()).is_err() {
            cuts += 1;
            let len = theirs.read(&mut buffer).unwrap();
            got.extend_from_slice(&buffer[..len]);
        }
        assert!(cuts > 1, "the socket takes {LEN} bytes at once");
        drop(writer);
        theirs.read_to_end(&mut got).unwrap();
        assert!(got == sent, "{} of {LEN} bytes, or in another order", got.len());
    });
}

#[test]
fn drain_waits_only_above_the_limit() {
    fresh(|| {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut writer = Writer::with_limit(4, ours);
        writer.write_all(b"1234").unwrap();
        writer.drain().unwrap();
        assert_eq!(writer.buffer(), b"1234");
        writer.write_all(b"5").unwrap();
        writer.drain().unwrap();
        assert_eq!(writer.buffer(), b"");
        let mut five = [0; 5];
        theirs.read_exact(&mut five).unwrap();
        writer.write_all(b"6").unwrap();
        let reader = spawn_local(move || theirs.read_to_end(&mut Vec::new()));
        yield_now();
        drop(writer); // flushes
        assert_eq!(timeout(secs(20), || reader.join()).unwrap().unwrap().unwrap(), 1);
    });
}
