//! TLS: handshakes that fail or never come, ends with and without a word, waits that are cut short.

use std::cell::{Cell, RefCell};
use std::io::{self, BufRead, ErrorKind, Read, Write};
use std::rc::Rc;

use greenthread::io::Reader;
use greenthread::net::tls::TlsStream;
use greenthread::net::{SocketAddr, TcpListener, TcpStream, UnixStream};
use greenthread::server::StreamServer;
use greenthread::{hub, sleep, spawn_local, time, timeout, yield_now};

use crate::support::fresh::{fresh, ms, secs, virtually};
use crate::support::tls::{client_config, server_config};

/// A server that sends everything back, one client at a time, and has this patience with a handshake.
fn echo(patience: std::time::Duration) -> StreamServer<TcpListener> {
    let config = server_config();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = StreamServer::new(listener, move |socket, _| -> io::Result<()> {
        let mut stream = TlsStream::accept(config.clone(), socket, patience)?;
        let mut buffer = [0; 1000];
        loop {
            match stream.read(&mut buffer)? {
                0 => return stream.close(),
                len => stream.write_all(&buffer[..len])?,
            }
        }
    })
    .limit(1);
    server.start().unwrap();
    server
}

fn connect(address: SocketAddr, name: &str, trusts: bool) -> io::Result<TlsStream<TcpStream>> {
    let socket = TcpStream::connect(address).unwrap();
    TlsStream::connect(client_config(trusts), name, socket, secs(20))
}

/// A client and a server, past their handshake.
fn pair() -> (TlsStream<UnixStream>, TlsStream<UnixStream>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let server = spawn_local(move || TlsStream::accept(server_config(), theirs, secs(20)).unwrap());
    let client = TlsStream::connect(client_config(true), "localhost", ours, secs(20)).unwrap();
    (client, server.join().unwrap())
}

#[test]
fn what_is_sent_comes_back_and_both_say_good_bye() {
    fresh(|| {
        let server = echo(secs(20));
        for _ in 0..2 {
            let mut client = connect(server.local_addr().unwrap(), "localhost", true).unwrap();
            assert!(client.connection().protocol_version().is_some());
            let sent: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
            for part in sent.chunks(30_000) {
                client.write_all(part).unwrap();
                let mut got = vec![0; part.len()];
                client.read_exact(&mut got).unwrap();
                assert!(got == part);
            }
            client.close().unwrap();
        }
        assert_eq!(server.stop(secs(20)).killed, 0);
    });
}

#[test]
fn a_silent_client_cannot_hold_the_only_slot() {
    virtually(|| {
        let server = echo(secs(5));
        let address = server.local_addr().unwrap();
        let start = time::now();
        let mut silent = TcpStream::connect(address).unwrap();
        let mut halting = TcpStream::connect(address).unwrap();
        halting.write_all(&[22, 3, 1]).unwrap(); // the beginning of a greeting
        let mut client = connect(address, "localhost", true).unwrap();
        let took = time::now() - start;
        assert!((secs(10)..secs(12)).contains(&took), "{took:?}");
        client.write_all(b"!").unwrap();
        client.read_exact(&mut [0]).unwrap();
        for stuck in [&mut silent, &mut halting] {
            assert!(stuck.read(&mut [0]).is_ok_and(|len| len == 0), "thrown out");
        }
        server.stop(secs(1));
    });
}

#[test]
fn failed_handshakes_do_not_end_the_server() {
    fresh(|| {
        let server = echo(secs(20));
        let address = server.local_addr().unwrap();
        for _ in 0..3 {
            let mut plain = TcpStream::connect(address).unwrap();
            plain.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
            let _ = plain.read_to_end(&mut Vec::new()); // an alert, perhaps a reset
            drop(TcpStream::connect(address).unwrap());
            let error = connect(address, "localhost", false).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidData, "{error}");
            let error = connect(address, "example.org", true).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidData, "{error}");
            let error = connect(address, "not a name", true).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        }
        connect(address, "localhost", true).unwrap().close().unwrap();
        assert_eq!(server.stop(secs(20)).left, 0);
    });
}

#[test]
fn a_silent_server_is_given_up() {
    virtually(|| {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let error = TlsStream::connect(client_config(true), "localhost", ours, secs(3)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert_eq!(
            error.to_string(),
            "the TLS handshake was not done within 3s: the peer is slow, or does not speak TLS"
        );
    });
}

#[test]
fn an_end_without_a_word_is_an_error() {
    fresh(|| {
        let (mut client, mut server) = pair();
        server.write_all(b"all").unwrap();
        server.close_notify().unwrap();
        let mut text = String::new();
        client.read_to_string(&mut text).unwrap();
        assert_eq!(text, "all");

        let (mut client, mut server) = pair();
        server.write_all(b"a part").unwrap();
        drop(server);
        let mut got = Vec::new();
        let error = client.read_to_end(&mut got).unwrap_err();
        assert_eq!((error.kind(), &got[..]), (ErrorKind::UnexpectedEof, &b"a part"[..]));
    });
}

#[test]
fn a_read_that_is_killed_at_any_byte_loses_nothing() {
    // The bytes on the wire of one line.
    let wire = fresh(|| {
        let (mut client, server) = pair();
        client.write_all(b"line\n").unwrap();
        yield_now();
        (server.get_ref()).read(&mut [0; 1000]).unwrap()
    });
    for k in 0..wire {
        fresh(move || {
            let (mut client, server) = pair();
            // A socket between the two that gives bytes as told.
            client.write_all(b"line\n").unwrap();
            let mut bytes = vec![0; wire];
            let mut tap = server.get_ref();
            tap.read_exact(&mut bytes).unwrap();
            let server = Rc::new(RefCell::new(Reader::new(server)));
            let start = |server: &Rc<RefCell<Reader<TlsStream<UnixStream>>>>| {
                let server = server.clone();
                spawn_local(move || {
                    let mut line = String::new();
                    server.borrow_mut().read_line(&mut line).map(|_| line)
                })
            };
            let first = start(&server);
            let mut wire = client.get_ref();
            wire.write_all(&bytes[..k]).unwrap();
            hub::idle();
            first.kill();
            assert!(first.join().unwrap_err().is_killed(), "after {k} bytes it waits");
            let second = start(&server);
            wire.write_all(&bytes[k..]).unwrap();
            assert_eq!(second.join().unwrap().unwrap(), "line\n", "killed after {k} bytes");
        });
    }
}

/// A client and a server over TCP, past their handshake. What the server says behind it (session tickets) is not read.
fn tcp_pair() -> (TlsStream<TcpStream>, TlsStream<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = spawn_local(move || {
        let (socket, _) = listener.accept().unwrap();
        TlsStream::accept(server_config(), socket, secs(20)).unwrap()
    });
    let client = connect(address, "localhost", true).unwrap();
    (client, server.join().unwrap())
}

#[test]
fn a_close_loses_nothing_though_the_peers_words_were_not_read() {
    for size in [1, 10_000, 1_000_000] {
        fresh(move || {
            let (mut client, mut server) = tcp_pair();
            server.write_all(b"never read").unwrap();
            let reads = spawn_local(move || {
                let (mut all, mut buffer) = (0, [0; 16_384]);
                loop {
                    sleep(ms(1)); // it does something with what it has
                    match server.read(&mut buffer) {
                        Ok(0) => return Ok(all),
                        Ok(len) => all += len,
                        Err(error) => return Err((all, error)),
                    }
                }
            });
            client.write_all(&vec![7; size]).unwrap();
            client.close().unwrap();
            assert_eq!(reads.join().unwrap().unwrap(), size);
        });
    }
}

#[test]
fn a_close_waits_for_a_silent_peer_as_long_as_it_is_told() {
    virtually(|| {
        for (patience, close) in [
            (
                2,
                (|client| client.close()) as fn(TlsStream<TcpStream>) -> io::Result<()>,
            ),
            (7, |client| client.close_timeout(secs(7))),
        ] {
            let (mut client, mut server) = tcp_pair();
            client.write_all(b"all").unwrap();
            let start = time::now();
            close(client).unwrap();
            let took = time::now() - start;
            assert!((secs(patience)..secs(patience + 1)).contains(&took), "{took:?}");
            let mut text = String::new();
            server.read_to_string(&mut text).unwrap();
            assert_eq!(text, "all");
        }
    });
}

#[test]
fn a_close_that_resets_a_peer_says_so() {
    fresh(|| {
        let (client, server) = tcp_pair();
        let floods = spawn_local(move || {
            let mut server = server;
            while server.write_all(&[1; 60_000]).is_ok() {}
        });
        let error = client.close_timeout(secs(1000)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
        floods.join().unwrap();

        let (mut client, server) = tcp_pair();
        client.write_all(&[1; 1000]).unwrap();
        drop(server); // with unread input: it resets
        let error = client.close().unwrap_err();
        assert!(
            [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe].contains(&error.kind()),
            "{error}"
        );
    });
}

#[test]
fn one_that_says_good_bye_may_read_on() {
    fresh(|| {
        let (mut client, mut server) = pair();
        client.write_all(b"question").unwrap();
        client.close_notify().unwrap();
        let mut text = String::new();
        server.read_to_string(&mut text).unwrap();
        assert_eq!(text, "question");
        server.write_all(b"answer").unwrap();
        server.close_notify().unwrap();
        client.read_to_string(&mut text).unwrap();
        assert_eq!(text, "questionanswer");
    });
}

/// What rustls has decrypted already is read without a look at the socket: it counts all the same.
#[test]
fn reads_of_what_is_decrypted_already_let_others_run() {
    fresh(|| {
        let (mut client, mut server) = pair();
        client.write_all(&[7; 16_000]).unwrap();
        server.read_exact(&mut [0]).unwrap(); // and so the rest of the record is there
        let turns = Rc::new(RefCell::new(0));
        let theirs = turns.clone();
        let ticker = spawn_local(move || {
            loop {
                *theirs.borrow_mut() += 1;
                yield_now();
            }
        });
        for _ in 0..10_000 {
            server.read_exact(&mut [0]).unwrap();
        }
        assert!(*turns.borrow() >= 50, "{}", turns.borrow());
        // And a time-out comes, with no byte in hand.
        let count = Cell::new(10_001);
        let late = timeout(ms(0), || {
            loop {
                count.set(count.get() + server.read(&mut [0]).unwrap());
            }
        });
        assert!(late.is_err());
        assert!(count.get() < 16_000, "before all is read");
        let mut rest = vec![0; 16_000 - count.get()];
        server.read_exact(&mut rest).unwrap();
        ticker.kill();
    });
}
