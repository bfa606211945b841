//! `create_connection` and `create_datagram_endpoint`: a transport and a task, for callbacks that run by themselves.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, Sender, channel};

use greenthread::net::{TcpListener, UdpSocket, UnixStream};
use greenthread::server::{DatagramProtocol, DatagramTransport, Protocol, Transport};
use greenthread::{aio, sleep, timeout, yield_now};

use crate::support::fresh::{fresh, ms, secs};

/// Tells what is called.
struct Telling<T> {
    told: Sender<String>,
    transport: Option<T>,
}

fn telling<T: Send + 'static>() -> (impl FnOnce() -> Telling<T> + Send + 'static, Receiver<String>) {
    let (told, hear) = channel();
    let transport = None;
    (move || Telling { told, transport }, hear)
}

impl<T> Telling<T> {
    fn tell(&self, what: String) {
        // The test may have ended.
        let _ = self.told.send(what);
    }

    fn lost(&self, error: Option<io::Error>) {
        self.tell(error.map_or_else(|| String::from("lost"), |error| format!("lost {:?}", error.kind())));
    }
}

impl Protocol for Telling<Transport> {
    fn connection_made(&mut self, transport: Transport) {
        self.tell(format!("made {:?}", transport.peer_addr()));
        self.transport = Some(transport);
    }

    fn data_received(&mut self, data: &[u8]) {
        if data == b"panic" {
            panic!("as asked");
        }
        self.tell(String::from_utf8_lossy(data).into_owned());
        self.transport.as_ref().unwrap().write(data);
    }

    fn connection_lost(&mut self, error: Option<io::Error>) {
        self.lost(error);
    }
}

impl DatagramProtocol for Telling<DatagramTransport> {
    fn connection_made(&mut self, transport: DatagramTransport) {
        self.tell(String::from("made"));
        self.transport = Some(transport);
    }

    fn datagram_received(&mut self, data: &[u8], peer: SocketAddr) {
        self.tell(String::from_utf8_lossy(data).into_owned());
        let transport = self.transport.as_ref().unwrap();
        match data {
            b"close" => transport.close(),
            b"panic" => panic!("as asked"),
            _ => transport.send_to(data, peer).unwrap(),
        }
    }

    fn error_received(&mut self, error: io::Error) {
        self.tell(format!("error {:?}", error.kind()));
    }

    fn connection_lost(&mut self, error: Option<io::Error>) {
        self.lost(error);
    }
}

#[test]
fn a_connection_by_name_is_made_before_it_is_given_and_its_task_ends_with_it() {
    fresh(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (factory, hear) = telling();
        let (transport, task) = aio::create_connection(factory, ("localhost", address.port())).unwrap();
        assert_eq!(hear.try_recv().unwrap(), format!("made Some({address})"));
        let (mut peer, _) = listener.accept().unwrap();
        transport.write(b"ours");
        peer.write_all(b"theirs").unwrap();
        let mut buffer = [0; 10];
        peer.read_exact(&mut buffer).unwrap();
        assert_eq!(&buffer, b"ourstheirs");
        assert!(!task.done());
        drop(peer);
        task.wait().unwrap();
        assert_eq!(hear.try_iter().collect::<Vec<_>>(), ["theirs", "lost"]);
        assert!(transport.is_closing());
    });
}

#[test]
fn nobody_there_is_the_callers_error() {
    fresh(|| {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (factory, hear) = telling::<Transport>();
        let error = aio::create_connection(factory, address).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        assert!(hear.recv().is_err(), "nothing was called");
    });
}

#[test]
fn to_cancel_the_task_aborts_the_connection_and_a_panic_is_its_exception() {
    fresh(|| {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let (factory, hear) = telling();
        let (_transport, task) = aio::connect_accepted_socket(factory, ours).unwrap();
        task.cancel();
        assert!(task.wait().unwrap_err().is_cancelled());
        assert_eq!(hear.try_iter().last().unwrap(), "lost ConnectionAborted");
        assert_eq!(theirs.read(&mut [0]).unwrap(), 0);

        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let (factory, _hear) = telling();
        let (_transport, task) = aio::connect_accepted_socket(factory, ours).unwrap();
        theirs.write_all(b"panic").unwrap();
        assert_eq!(task.wait().unwrap_err().to_string(), "panicked: as asked");
    });
}

#[test]
fn a_panic_as_the_connection_is_made_is_the_callers_error() {
    struct Bad;
    impl Protocol for Bad {
        fn connection_made(&mut self, _transport: Transport) {
            panic!("not today");
        }
        fn data_received(&mut self, _data: &[u8]) {}
    }
    fresh(|| {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let error = aio::connect_accepted_socket(|| Bad, ours).unwrap_err();
        assert_eq!(error.to_string(), "panicked: not today");
        assert_eq!(theirs.read(&mut [0]).unwrap(), 0);
    });
}

#[test]
fn who_is_cut_short_while_the_connection_is_made_ends_it() {
    struct Slow(Sender<&'static str>);
    impl Protocol for Slow {
        fn connection_made(&mut self, _transport: Transport) {
            sleep(secs(60));
        }
        fn data_received(&mut self, _data: &[u8]) {}
        fn connection_lost(&mut self, _error: Option<io::Error>) {
            let _ = self.0.send("lost");
        }
    }
    fresh(|| {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let (told, hear) = channel();
        let made = timeout(ms(1), || aio::connect_accepted_socket(|| Slow(told), ours).is_ok());
        assert!(made.is_err());
        assert_eq!(hear.try_recv(), Ok("lost"));
    });
}

#[test]
fn datagrams_come_one_by_one_until_a_callback_closes() {
    fresh(|| {
        let (factory, hear) = telling();
        let (transport, task) =
            aio::create_datagram_endpoint(factory, UdpSocket::bind("127.0.0.1:0").unwrap()).unwrap();
        let address = transport.local_addr().unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.connect(address).unwrap();
        for word in ["one", "two"] {
            client.send(word.as_bytes()).unwrap();
            let mut buffer = [0; 16];
            let len = client.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..len], word.as_bytes());
        }
        client.send(b"close").unwrap();
        client.send(b"late").unwrap();
        task.wait().unwrap();
        assert_eq!(
            hear.try_iter().collect::<Vec<_>>(),
            ["made", "one", "two", "close", "lost"]
        );
        let error = transport.send_to(b"x", address).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotConnected);
        // The port is free, though the transport is still there.
        drop(UdpSocket::bind(address).unwrap());
    });
}

#[test]
fn an_endpoint_is_closed_from_elsewhere_and_tells_of_errors_and_panics() {
    fresh(|| {
        let (factory, hear) = telling();
        let nobody = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(nobody).unwrap();
        let (transport, task) = aio::create_datagram_endpoint(factory, socket).unwrap();
        assert_eq!(transport.peer_addr().unwrap(), nobody);
        transport.send(b"hello?").unwrap();
        let refused = timeout(secs(20), || {
            loop {
                match hear.try_iter().last() {
                    Some(last) if last != "made" => return last,
                    _ => sleep(ms(1)),
                }
            }
        });
        assert_eq!(refused.unwrap(), "error ConnectionRefused");
        let theirs = transport.clone();
        std::thread::spawn(move || theirs.close()).join().unwrap();
        task.wait().unwrap();
        assert_eq!(hear.try_iter().last().unwrap(), "lost");

        let (factory, hear) = telling();
        let (transport, task) =
            aio::create_datagram_endpoint(factory, UdpSocket::bind("127.0.0.1:0").unwrap()).unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.send_to(b"panic", transport.local_addr().unwrap()).unwrap();
        assert_eq!(task.wait().unwrap_err().to_string(), "panicked: as asked");
        assert_eq!(hear.try_iter().last().unwrap(), "lost ConnectionAborted");
        yield_now();
    });
}
