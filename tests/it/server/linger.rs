//! The end of a connection: a TCP server that closes with unread input resets nothing, and waits for nobody for long.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use greenthread::net::{SocketAddr, TcpListener, TcpStream};
use greenthread::server::{Protocol, StreamServer, Transport, serve_protocol};
use greenthread::{sleep, spawn_local, time};

use crate::support::fresh::{fresh, ms, secs, until, virtually};

const MEGABYTE: usize = 1_000_000;

fn listen() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

fn serves(server: &StreamServer<TcpListener>) -> SocketAddr {
    server.start().unwrap();
    server.local_addr().unwrap()
}

/// Reads slowly to the end: how much, and what the end was.
fn sip(mut stream: impl Read) -> (usize, io::Result<()>) {
    let (mut all, mut buffer) = (0, [0; 50_000]);
    loop {
        sleep(ms(1));
        match stream.read(&mut buffer) {
            Ok(0) => return (all, Ok(())),
            Ok(len) => all += len,
            Err(error) => return (all, Err(error)),
        }
    }
}

#[test]
fn what_was_written_arrives_though_the_request_was_not_read() {
    let get = |lingers: bool| {
        fresh(move || {
            let server = StreamServer::new(listen(), |mut stream, _| stream.write_all(&[7; MEGABYTE]));
            let server = if lingers { server } else { server.linger(None) };
            let mut client = TcpStream::connect(serves(&server)).unwrap();
            client.write_all(&[1; 300_000]).unwrap();
            let (got, end) = sip(client);
            assert_eq!(server.stop(secs(20)).left, 0);
            (got, end.map_err(|error| error.kind()))
        })
    };
    assert_eq!(get(true), (MEGABYTE, Ok(())));
    let (got, end) = get(false);
    assert!(
        got < MEGABYTE && end == Err(ErrorKind::ConnectionReset),
        "{got} {end:?}"
    );
}

#[test]
fn a_client_in_the_midst_of_its_upload_gets_its_answer() {
    fresh(|| {
        let server = StreamServer::new(listen(), |mut stream, _| -> io::Result<()> {
            stream.read_exact(&mut [0])?;
            stream.write_all(b"too much")
        });
        let mut client = TcpStream::connect(serves(&server)).unwrap();
        client.write_all(&[1; 1000]).unwrap();
        until("the handler is done", || server.handle().live() == 0);
        for _ in 0..40 {
            client.write_all(&[1; 100_000]).unwrap();
        }
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "too much");
    });
}

/// How long a client may go on sending to a server whose handler is done.
fn resets_after(set: fn(StreamServer<TcpListener>) -> StreamServer<TcpListener>) -> Duration {
    virtually(move || {
        let server = set(StreamServer::new(listen(), |_, _| ()));
        let mut client = TcpStream::connect(serves(&server)).unwrap();
        let start = time::now();
        while client.write_all(b"x").is_ok() {
            sleep(ms(100));
            assert!(time::now() - start < secs(60));
        }
        time::now() - start
    })
}

#[test]
fn a_connection_lingers_for_two_seconds_or_as_told() {
    let two = resets_after(|server| server);
    assert!((secs(2)..ms(2500)).contains(&two), "{two:?}");
    let five = resets_after(|server| server.linger(Some(secs(5))));
    assert!((secs(5)..ms(5500)).contains(&five), "{five:?}");
    let none = resets_after(|server| server.linger(None));
    assert!(none < ms(500), "{none:?}");
}

#[test]
fn a_client_cannot_send_without_end_to_a_connection_that_lingers() {
    virtually(|| {
        let server = StreamServer::new(listen(), |_, _| ()).linger(Some(secs(1_000_000)));
        let mut client = TcpStream::connect(serves(&server)).unwrap();
        let mut sent = 0;
        while client.write_all(&[1; 256 * 1024]).is_ok() {
            sent += 256 * 1024;
            assert!(sent < 64 << 20, "it is read without end");
        }
        assert!(sent >= 16 << 20, "{sent}");
    });
}

#[test]
fn one_that_lingers_takes_no_place_and_a_stop_does_not_wait_for_the_silent() {
    virtually(|| {
        let server = StreamServer::new(listen(), |mut stream, _| stream.write_all(b"!")).limit(1);
        let address = serves(&server);
        let start = time::now();
        // None of these ends its side.
        let clients: Vec<_> = (0..5)
            .map(|_| {
                let mut client = TcpStream::connect(address).unwrap();
                let mut text = String::new();
                client.read_to_string(&mut text).unwrap();
                assert_eq!(text, "!");
                client
            })
            .collect();
        assert_eq!(server.handle().live(), 0);
        let stopped = server.stop(secs(10));
        assert_eq!((stopped.killed, stopped.left), (0, 0));
        let took = time::now() - start;
        assert!(took < secs(1), "{took:?}");
        drop(clients);
    });
}

#[test]
fn another_handle_keeps_the_connection_and_so_does_a_descriptor_that_was_given_away() {
    fresh(|| {
        let server = StreamServer::new_local(listen(), |stream: TcpStream, _| {
            let mut other = stream.try_clone().unwrap();
            drop(stream);
            spawn_local(move || {
                sleep(ms(5));
                other.write_all(b"later").unwrap();
            });
        });
        let mut text = String::new();
        let mut client = TcpStream::connect(serves(&server)).unwrap();
        client.read_to_string(&mut text).unwrap();
        assert_eq!(text, "later");

        let kept = Arc::new(Mutex::new(None));
        let theirs = kept.clone();
        let server = StreamServer::new(listen(), move |stream: TcpStream, _| {
            let other = stream.try_clone().unwrap();
            *theirs.lock().unwrap() = Some(OwnedFd::from(stream));
            drop(other);
        });
        let mut client = TcpStream::connect(serves(&server)).unwrap();
        client.write_all(b"not read by the handler").unwrap();
        until("it is kept", || {
            kept.lock().unwrap().is_some() && server.handle().live() == 0
        });
        let mut given = std::net::TcpStream::from(kept.lock().unwrap().take().unwrap());
        given.write_all(b"given").unwrap();
        let mut word = [0; 5];
        client.read_exact(&mut word).unwrap();
        assert_eq!(&word, b"given");
    });
}

/// Answers the first bytes with a megabyte, and closes.
struct Closing(Option<Transport>, Sender<Option<io::Error>>);

impl Protocol for Closing {
    fn connection_made(&mut self, transport: Transport) {
        self.0 = Some(transport);
    }

    fn data_received(&mut self, _: &[u8]) {
        let transport = self.0.as_ref().unwrap();
        assert!(!transport.is_closing(), "closed is closed");
        transport.write(&[7; MEGABYTE]);
        transport.close();
    }

    fn connection_lost(&mut self, error: Option<io::Error>) {
        self.1.send(error).unwrap();
    }
}

#[test]
fn a_protocol_that_closes_loses_nothing_either() {
    fresh(|| {
        let (sender, told) = channel();
        let sender = Mutex::new(sender);
        let server = serve_protocol(listen(), move || Closing(None, sender.lock().unwrap().clone()));
        let mut client = TcpStream::connect(serves(&server)).unwrap();
        client.write_all(&[1; 300_000]).unwrap();
        let (got, end) = sip(client);
        end.unwrap();
        assert_eq!(got, MEGABYTE);
        until("it is lost", || server.handle().live() == 0);
        assert!(told.try_recv().unwrap().is_none());
    });
}

#[test]
fn a_protocol_that_closes_waits_two_seconds_for_its_peer() {
    virtually(|| {
        let (sender, told) = channel();
        let sender = Mutex::new(sender);
        let server = serve_protocol(listen(), move || Closing(None, sender.lock().unwrap().clone()));
        let mut client = TcpStream::connect(serves(&server)).unwrap();
        client.write_all(b"go").unwrap();
        client.read_exact(&mut [0; MEGABYTE]).unwrap();
        let start = time::now();
        until("it is lost", || server.handle().live() == 0);
        let took = time::now() - start;
        assert!((ms(1900)..ms(2500)).contains(&took), "{took:?}");
        assert!(told.try_recv().unwrap().is_none());
        drop(client);
    });
}
