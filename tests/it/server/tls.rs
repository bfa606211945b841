//! `server::TlsConnection`: callbacks over TLS, both directions at once, and how they end.

use std::io::{self, ErrorKind, Read, Write};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use greenthread::io::{Reader, Writer};
use greenthread::net::tls::TlsStream;
use greenthread::net::{TcpListener, TcpStream, UnixStream};
use greenthread::server::{Connection, Protocol, StreamServer, TlsConnection, Transport, run_protocol};
use greenthread::{JoinHandle, aio, sleep, spawn, spawn_local, timeout};

use crate::support::fresh::{fresh, ms, secs};
use crate::support::tls::{client_config, server_config};

const PATIENCE: Duration = secs(20);

/// Sends back what comes, and tells how it ended.
struct Echo {
    transport: Option<Transport>,
    told: Sender<String>,
    stays: bool,
}

impl Protocol for Echo {
    fn connection_made(&mut self, transport: Transport) {
        self.transport = Some(transport);
    }

    fn data_received(&mut self, data: &[u8]) {
        let transport = self.transport.as_ref().unwrap();
        match data {
            b"close" => transport.close(),
            b"abort" => transport.abort(),
            _ => transport.write(data),
        }
    }

    fn eof_received(&mut self) -> bool {
        if self.stays {
            let transport = self.transport.as_ref().unwrap();
            transport.write(b"after your end");
            transport.close();
        }
        self.stays
    }

    fn connection_lost(&mut self, error: Option<io::Error>) {
        let error = error.map_or_else(|| String::from("lost"), |error| format!("lost {:?}", error.kind()));
        let _ = self.told.send(error);
    }
}

type Ours = TlsConnection<UnixStream>;

/// A client, past its handshake, of an echo.
fn pair(stays: bool) -> (Ours, Receiver<String>, JoinHandle<()>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (told, hear) = channel();
    let server = spawn_local(move || {
        let stream = TlsStream::accept(server_config(), theirs, PATIENCE).unwrap();
        let transport = None;
        run_protocol(TlsConnection::new(stream), Echo { transport, told, stays });
    });
    let client = TlsStream::connect(client_config(true), "localhost", ours, PATIENCE).unwrap();
    (TlsConnection::new(client), hear, server)
}

#[test]
fn much_goes_both_ways_at_once_and_a_good_bye_ends_it() {
    fresh(|| {
        let (client, hear, server) = pair(false);
        let sent: Vec<u8> = (0..1_000_000_u32).map(|n| (n % 251) as u8).collect();
        let (mut theirs, all) = (client.clone(), sent.clone());
        // Written without a look at what comes: the echo would be stuck if it could not do both.
        let writes = spawn_local(move || theirs.write_all(&all).unwrap());
        let mut got = vec![0; sent.len()];
        timeout(PATIENCE, || Read::read_exact(&mut client.clone(), &mut got))
            .unwrap()
            .unwrap();
        assert!(got == sent);
        writes.join().unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(Read::read(&mut client.clone(), &mut [0]).unwrap(), 0);
        server.join().unwrap();
        assert_eq!(hear.recv().unwrap(), "lost");
    });
}

#[test]
fn a_close_says_good_bye_and_an_abort_does_not() {
    fresh(|| {
        for (word, read) in [("close", Ok(0)), ("abort", Err(ErrorKind::UnexpectedEof))] {
            let (mut client, hear, server) = pair(false);
            client.write_all(word.as_bytes()).unwrap();
            let got = Read::read(&mut client, &mut [0]).map_err(|error| error.kind());
            assert_eq!(got, read, "{word}");
            server.join().unwrap();
            assert_eq!(hear.recv().unwrap(), "lost");
        }
    });
}

#[test]
fn a_peer_that_goes_without_a_word_is_an_error() {
    fresh(|| {
        let (mut client, hear, server) = pair(false);
        client.write_all(b"x").unwrap();
        client.read_exact(&mut [0]).unwrap(); // past its handshake, too
        drop(client);
        server.join().unwrap();
        assert_eq!(hear.recv().unwrap(), "lost UnexpectedEof");
    });
}

#[test]
fn after_the_peers_end_it_may_still_answer() {
    fresh(|| {
        let (mut client, hear, server) = pair(true);
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "after your end");
        server.join().unwrap();
        assert_eq!(hear.recv().unwrap(), "lost");
    });
}

#[test]
fn a_write_that_is_cut_short_leaves_the_order_as_it_was() {
    fresh(|| {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let server = spawn(move || TlsStream::accept(server_config(), theirs, PATIENCE).unwrap());
        let client = TlsStream::connect(client_config(true), "localhost", ours, PATIENCE).unwrap();
        let mut client = TlsConnection::new(client);
        let mut server = TlsConnection::new(server.join().unwrap());
        // Nobody reads: some of these are cut short in the socket, each of one letter.
        let mut cut = 0;
        for letter in b'a'..=b'z' {
            let write = || client.write_all(&[letter; 30_000]);
            cut += u32::from(timeout(ms(2), write).is_err());
        }
        assert!(cut > 0);
        let says_bye = spawn_local(move || client.shutdown(std::net::Shutdown::Write));
        let mut got = Vec::new();
        server.read_to_end(&mut got).unwrap();
        says_bye.join().unwrap().unwrap();
        assert!(got.is_sorted(), "whole records, in order");
        assert!(got.contains(&b'a'));
    });
}

#[test]
fn the_two_halves_and_a_connection_by_name() {
    fresh(|| {
        let (told, hear) = channel();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = StreamServer::new(listener, move |socket, _| {
            let stream = TlsStream::accept(server_config(), socket, PATIENCE).unwrap();
            let (told, transport) = (told.clone(), None);
            let stays = false;
            run_protocol(TlsConnection::new(stream), Echo { transport, told, stays });
        });
        server.start().unwrap();
        let connect = || {
            let socket = TcpStream::connect(server.local_addr().unwrap()).unwrap();
            TlsConnection::new(TlsStream::connect(client_config(true), "localhost", socket, PATIENCE).unwrap())
        };
        let stream = connect();
        let (mut reader, mut writer) = (Reader::new(stream.clone()), Writer::new(stream));
        writer.write_all(b"hello").unwrap();
        writer.flush().unwrap();
        let mut answer = [0; 5];
        reader.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"hello");
        writer.get_ref().shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(reader.read(&mut answer).unwrap(), 0);
        while hear.try_recv().as_deref() != Ok("lost") {
            sleep(ms(1));
        }

        let (ours, heard) = channel();
        let client = || Echo {
            transport: None,
            told: ours,
            stays: false,
        };
        let (transport, task) = aio::connect_accepted_socket(client, connect()).unwrap();
        transport.write(b"close");
        task.wait().unwrap();
        assert_eq!(heard.recv().unwrap(), "lost");
        sleep(ms(1));
        server.stop(PATIENCE);
    });
}

/// Uploads a megabyte, and closes.
struct Upload;

impl Protocol for Upload {
    fn connection_made(&mut self, transport: Transport) {
        transport.write(&[7; 1_000_000]);
        transport.close();
    }

    fn data_received(&mut self, _: &[u8]) {}
}

#[test]
fn a_protocol_that_uploads_and_closes_loses_nothing() {
    fresh(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = spawn_local(move || {
            let (socket, _) = listener.accept().unwrap();
            let mut stream = TlsStream::accept(server_config(), socket, PATIENCE).unwrap();
            stream.write_all(b"never read").unwrap();
            let (mut all, mut buffer) = (0, [0; 16_384]);
            loop {
                sleep(ms(1));
                match stream.read(&mut buffer).unwrap() {
                    0 => return all,
                    len => all += len,
                }
            }
        });
        let socket = TcpStream::connect(address).unwrap();
        let stream = TlsStream::connect(client_config(true), "localhost", socket, PATIENCE).unwrap();
        run_protocol(TlsConnection::new(stream), Upload);
        assert_eq!(server.join().unwrap(), 1_000_000);
    });
}
