//! Sockets at the edges: resets, time-outs of a connect, several hubs at one socket, slow first addresses.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::{Arc, mpsc};
use std::time::Instant;

use greenthread::net::{TcpListener, TcpStream, UdpSocket};
use greenthread::{dns, spawn, thread, threadpool, time, timeout, yield_now};

use crate::support::fresh::{fresh, ms, secs, virtually};

/// A listener that lets no SYN in, for its queue is full; and what fills it.
fn deaf() -> (SocketAddr, impl Sized) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let address = listener.local_addr().unwrap();
    let mut queue = Vec::new();
    while let Ok(stream) = std::net::TcpStream::connect_timeout(&address, ms(300)) {
        queue.push(stream);
        assert!(queue.len() < 16, "the queue never fills");
    }
    (address, (listener, queue))
}

/// How many sockets of this machine wait for an answer from a port.
fn knocking(port: u16) -> usize {
    const SYN_SENT: &str = "02";
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let knocks = |line: &&str| {
        let mut fields = line.split_whitespace().skip(2);
        let remote = fields
            .next()
            .is_some_and(|remote| remote.ends_with(&format!(":{port:04X}")));
        remote && fields.next() == Some(SYN_SENT)
    };
    table.lines().filter(knocks).count()
}

#[test]
fn a_reset_is_an_error_of_the_reader() {
    fresh(|| {
        for early in [true, false] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let mut a = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let b = listener.accept().unwrap().0;
            rustix::net::sockopt::set_socket_linger(&b, Some(secs(0))).unwrap();
            let reader = if early {
                drop(b);
                spawn(move || a.read(&mut [0]))
            } else {
                let reader = spawn(move || a.read(&mut [0]));
                yield_now(); // it waits
                drop(b);
                reader
            };
            let error = reader.join().unwrap().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "early: {early}");
        }
    });
}

#[test]
fn a_connect_that_nobody_answers_times_out_and_leaves_no_socket() {
    fresh(|| {
        let (address, _deaf) = deaf();
        let start = Instant::now();
        let error = TcpStream::connect_timeout(&address, ms(50)).unwrap_err();
        assert!(
            error.kind() == ErrorKind::TimedOut && start.elapsed() >= ms(50),
            "{error}"
        );
        assert_eq!(knocking(address.port()), 0);
        let zero = TcpStream::connect_timeout(&address, ms(0)).unwrap_err();
        assert_eq!(zero.kind(), ErrorKind::InvalidInput);
    });
}

#[test]
fn a_kill_of_one_who_connects_closes_its_socket() {
    fresh(|| {
        let (address, _deaf) = deaf();
        let connecting = spawn(move || TcpStream::connect(address).map(drop));
        yield_now();
        assert_eq!(knocking(address.port()), 1, "it waits");
        connecting.kill();
        assert!(connecting.join().unwrap_err().is_killed());
        assert_eq!(knocking(address.port()), 0);
    });
}

#[test]
fn the_next_address_is_tried_after_a_quarter_of_a_second() {
    let (slow, _deaf) = deaf();
    virtually(move || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let open = listener.local_addr().unwrap();
        let start = time::now();
        let stream = TcpStream::connect(&[slow, open][..]).unwrap();
        assert_eq!(stream.peer_addr().unwrap(), open);
        assert_eq!(time::now() - start, ms(250));
        yield_now(); // the loser dies
        assert_eq!(knocking(slow.port()), 0);
    });
}

#[test]
fn two_hubs_share_a_listener() {
    fresh(|| {
        let listener = Arc::new(TcpListener::bind("127.0.0.1:0").unwrap());
        let address = listener.local_addr().unwrap();
        for _ in 0..20 {
            let (waits, waiting) = mpsc::channel();
            let hubs = [(); 2].map(|()| {
                let (listener, waits) = (listener.clone(), waits.clone());
                std::thread::spawn(move || {
                    let accepter = spawn(move || listener.accept().map(drop));
                    yield_now();
                    waits.send(()).unwrap();
                    accepter.join().unwrap()
                })
            });
            (0..2).for_each(|_| waiting.recv().unwrap());
            let _clients = [(); 2].map(|()| std::net::TcpStream::connect(address).unwrap());
            hubs.into_iter().for_each(|hub| hub.join().unwrap().unwrap());
        }
    });
}

#[test]
fn two_hubs_wait_on_one_stream() {
    fresh(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let stream = Arc::new(listener.accept().unwrap().0);
        for _ in 0..20 {
            let (waits, waiting) = mpsc::channel();
            let hubs = [(); 2].map(|()| {
                let (stream, waits) = (stream.clone(), waits.clone());
                std::thread::spawn(move || {
                    let reader = spawn(move || {
                        let mut byte = [0];
                        (&*stream).read_exact(&mut byte).map(|()| byte[0])
                    });
                    yield_now();
                    waits.send(()).unwrap();
                    reader.join().unwrap()
                })
            });
            (0..2).for_each(|_| waiting.recv().unwrap());
            peer.write_all(b"xy").unwrap(); // one edge for both
            let mut got = hubs.map(|hub| hub.join().unwrap().unwrap());
            got.sort_unstable();
            assert_eq!(&got, b"xy");
        }
    });
}

#[test]
fn a_time_out_ends_a_job_for_which_no_pool_thread_is_free_and_names_have_threads_of_their_own() {
    fresh(|| {
        let (begun, begin) = mpsc::channel();
        let (end, ended) = mpsc::channel::<()>();
        let ended = Arc::new(std::sync::Mutex::new(ended));
        let busy: Vec<_> = (0..threadpool::MAX)
            .map(|_| {
                let (begun, ended) = (begun.clone(), ended.clone());
                spawn(move || {
                    threadpool::unblock(move || {
                        begun.send(()).unwrap();
                        let _ = ended.lock().unwrap().recv(); // until all senders have gone
                    })
                })
            })
            .collect();
        yield_now();
        // Blocks this hub, which has nothing else to do.
        (0..threadpool::MAX).for_each(|_| begin.recv().unwrap());
        assert!(timeout(ms(20), || threadpool::unblock(|| ())).is_err());
        assert!(!dns::lookup_host("localhost", 1).unwrap().is_empty());
        drop(end);
        assert!(thread::join_all(busy).into_iter().all(|one| one.is_ok()));
    });
}

#[test]
fn who_writes_to_a_peer_that_has_ended_its_own_half_waits_for_room() {
    fresh(|| {
        const LEN: usize = 20_000_000;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut server = listener.accept().unwrap().0;
        let writer = spawn(move || {
            server.read_to_end(&mut Vec::new()).unwrap(); // the end is known now
            server.write_all(&vec![1; LEN]).unwrap();
        });
        client.write_all(b"a question").unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).unwrap();
        assert_eq!(answer.len(), LEN);
        writer.join().unwrap();
    });
}

#[test]
fn after_an_error_a_datagram_socket_waits_again() {
    fresh(|| {
        let gone = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = gone.local_addr().unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(address).unwrap();
        drop(gone);
        let ours = socket.local_addr().unwrap();
        let reader = socket.try_clone().unwrap();
        let reader = spawn(move || {
            let refused = reader.recv(&mut [0; 8]).map_err(|error| error.kind());
            (refused, reader.recv(&mut [0; 8]).unwrap())
        });
        yield_now(); // it waits
        socket.send(b"anybody?").unwrap();
        greenthread::sleep(ms(20)); // it has the answer, and waits again: or this would not come to its end
        assert!(!reader.is_finished());
        let back = UdpSocket::bind(address).unwrap();
        back.send_to(b"me", ours).unwrap();
        assert_eq!(reader.join().unwrap(), (Err(ErrorKind::ConnectionRefused), 2));
    });
}
