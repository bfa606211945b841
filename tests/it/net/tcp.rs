//! TCP: what std's streams promise, by green threads.

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::time::Instant;

use greenthread::net::{TcpListener, TcpStream, UdpSocket, UnixDatagram, UnixListener, UnixStream};
use greenthread::{spawn, timeout, yield_now};

use crate::support::fresh::{fresh, ms, secs};

fn both() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let a = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (a, listener.accept().unwrap().0)
}

#[test]
fn sockets_go_anywhere() {
    fn anywhere<T: Send + Sync + 'static>() {}
    anywhere::<TcpStream>();
    anywhere::<TcpListener>();
    anywhere::<UdpSocket>();
    anywhere::<UnixStream>();
    anywhere::<UnixListener>();
    anywhere::<UnixDatagram>();
    anywhere::<greenthread::io::Async<std::io::PipeReader>>();
}

#[test]
fn a_stream_carries_both_ways_at_once() {
    fresh(|| {
        let (a, b) = both();
        let (a, b) = (Arc::new(a), Arc::new(b));
        const LEN: usize = 4 << 20;
        let mut all = Vec::new();
        for (from, to) in [(a.clone(), b.clone()), (b, a)] {
            all.push(spawn(move || (&*from).write_all(&vec![7; LEN]).is_ok()));
            all.push(spawn(move || {
                let mut bytes = vec![0; LEN];
                (&*to).read_exact(&mut bytes).is_ok() && bytes.iter().all(|byte| *byte == 7)
            }));
        }
        assert!(all.into_iter().all(|one| one.join().unwrap()));
    });
}

#[test]
fn two_readers_of_one_stream_are_both_served() {
    fresh(|| {
        let (a, mut b) = both();
        let a = Arc::new(a);
        let readers = [a.clone(), a].map(|a| {
            spawn(move || {
                let mut byte = [0];
                (&*a).read_exact(&mut byte).map(|()| byte[0])
            })
        });
        yield_now();
        b.write_all(b"xy").unwrap(); // one edge for both
        let mut got = readers.map(|reader| reader.join().unwrap().unwrap());
        got.sort_unstable();
        assert_eq!(&got, b"xy");
    });
}

#[test]
fn several_accepters_share_connections_of_one_edge() {
    fresh(|| {
        let listener = Arc::new(TcpListener::bind("127.0.0.1:0").unwrap());
        let address = listener.local_addr().unwrap();
        let accepters: Vec<_> = (0..8)
            .map(|_| {
                let listener = listener.clone();
                spawn(move || listener.accept().is_ok())
            })
            .collect();
        yield_now();
        // std's connect blocks this OS thread: the hub sees one edge for all eight.
        let _clients: Vec<_> = (0..8).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
        assert!(accepters.into_iter().all(|one| one.join().unwrap()));
    });
}

#[test]
fn a_read_times_out_and_the_stream_still_works() {
    fresh(|| {
        let (mut a, mut b) = both();
        let other = a.try_clone().unwrap();
        a.set_read_timeout(Some(ms(20))).unwrap();
        assert_eq!(other.read_timeout().unwrap(), None, "each handle has its own");
        let start = Instant::now();
        let error = a.read(&mut [0]).unwrap_err();
        assert!(
            error.kind() == ErrorKind::TimedOut && start.elapsed() >= ms(20),
            "{error}"
        );
        b.write_all(b"z").unwrap();
        let mut byte = [0];
        a.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"z");
        let zero = a.set_read_timeout(Some(ms(0))).unwrap_err();
        assert_eq!(zero.kind(), ErrorKind::InvalidInput);
    });
}

#[test]
fn a_write_times_out_when_nobody_reads() {
    fresh(|| {
        let (mut a, _b) = both();
        a.set_write_timeout(Some(ms(30))).unwrap();
        let error = a.write_all(&vec![0; 64 << 20]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    });
}

#[test]
fn nodelay_is_set_at_both_ends_and_can_be_cleared() {
    fresh(|| {
        let (a, b) = both();
        assert!(a.nodelay().unwrap() && b.nodelay().unwrap());
        a.set_nodelay(false).unwrap();
        assert!(!a.nodelay().unwrap());
    });
}

#[test]
fn a_refused_connection_says_so_and_the_next_address_is_tried() {
    fresh(|| {
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert_eq!(
            TcpStream::connect(closed).unwrap_err().kind(),
            ErrorKind::ConnectionRefused
        );
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let open = listener.local_addr().unwrap();
        let stream = TcpStream::connect(&[closed, open][..]).unwrap();
        assert_eq!(stream.peer_addr().unwrap(), open);
        let named = TcpStream::connect(("localhost", open.port())).unwrap();
        assert_eq!(named.peer_addr().unwrap(), open);
        TcpStream::connect_timeout(&open, secs(10)).unwrap();
    });
}

#[test]
fn std_gets_its_blocking_stream_back() {
    fresh(|| {
        let (mut a, b) = both();
        let mut b = std::net::TcpStream::from(b);
        b.set_read_timeout(Some(ms(30))).unwrap();
        let start = Instant::now();
        assert_eq!(b.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
        assert!(start.elapsed() >= ms(30), "it blocked");
        let mut b = TcpStream::from(std::os::fd::OwnedFd::from(b));
        let reader = spawn(move || {
            let mut byte = [0];
            b.read_exact(&mut byte).map(|()| byte)
        });
        yield_now();
        a.write_all(b"k").unwrap();
        assert_eq!(&reader.join().unwrap().unwrap(), b"k");
    });
}

#[test]
fn the_last_bytes_before_the_end_are_not_lost() {
    fresh(|| {
        for early in [true, false] {
            let (a, mut b) = both();
            let write = move || {
                let mut a = a;
                a.write_all(&[5; 10_000]).unwrap();
            };
            if early {
                write(); // and closes: data and end in one edge
            } else {
                spawn(write);
            }
            let mut bytes = Vec::new();
            b.read_to_end(&mut bytes).unwrap();
            assert_eq!(bytes, [5; 10_000]);
        }
    });
}

#[test]
fn a_half_closed_stream_still_carries_the_other_way() {
    fresh(|| {
        let (mut a, mut b) = both();
        a.shutdown(Shutdown::Write).unwrap();
        assert_eq!(b.read(&mut [0]).unwrap(), 0);
        b.write_all(b"late").unwrap();
        drop(b);
        let mut text = String::new();
        a.read_to_string(&mut text).unwrap();
        assert_eq!(text, "late");
    });
}

#[test]
fn shutdown_wakes_a_reader_of_this_end() {
    fresh(|| {
        let (a, _b) = both();
        let a = Arc::new(a);
        let theirs = a.clone();
        let reader = spawn(move || (&*theirs).read(&mut [0]));
        yield_now();
        a.shutdown(Shutdown::Both).unwrap();
        assert_eq!(reader.join().unwrap().unwrap(), 0);
    });
}

#[test]
fn peek_leaves_the_bytes() {
    fresh(|| {
        let (mut a, mut b) = both();
        let mut bytes = [0; 2];
        spawn(move || a.write_all(b"pq").map(|()| a));
        assert!(b.peek(&mut bytes).unwrap() > 0);
        b.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"pq");
    });
}

#[test]
fn a_kill_of_one_who_reads_or_a_time_out_ends_only_that() {
    fresh(|| {
        let (mut a, mut b) = both();
        assert!(timeout(ms(20), || a.read(&mut [0])).is_err());
        let reader = spawn(move || a.read(&mut [0]));
        yield_now();
        reader.kill();
        assert!(reader.join().unwrap_err().is_killed());
        assert_eq!(b.read(&mut [0]).unwrap(), 0, "its socket is closed");
    });
}

#[test]
fn a_stream_moves_to_another_hub_and_works_in_two_at_once() {
    fresh(|| {
        let (a, mut b) = both();
        assert!(timeout(ms(5), || (&a).read(&mut [0])).is_err(), "it is registered here");
        let a = Arc::new(a);
        let theirs = a.clone();
        let other = std::thread::spawn(move || {
            let mut byte = [0];
            (&*theirs).read_exact(&mut byte).map(|()| byte[0])
        });
        b.write_all(b"1").unwrap();
        assert_eq!(other.join().unwrap().unwrap(), b'1');
        b.write_all(b"2").unwrap();
        let mut byte = [0];
        (&*a).read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"2");
        std::thread::spawn(move || drop(a)).join().unwrap();
        assert_eq!(b.read(&mut [0]).unwrap(), 0);
    });
}

#[test]
fn reused_numbers_get_no_stale_events() {
    fresh(|| {
        let (quiet, _peer) = both();
        let waiter = spawn(move || timeout(secs(50), || (&quiet).read(&mut [0])));
        for round in 0..1000_u32 {
            let (mut a, mut b) = both();
            let reader = spawn(move || {
                let mut bytes = [0; 4];
                b.read_exact(&mut bytes).map(|()| u32::from_le_bytes(bytes))
            });
            yield_now();
            a.write_all(&round.to_le_bytes()).unwrap();
            assert_eq!(reader.join().unwrap().unwrap(), round);
        }
        assert!(!waiter.is_finished());
        waiter.kill();
    });
}

#[test]
fn sixty_four_mebibytes_arrive_whole_at_a_slow_reader() {
    fresh(|| {
        let (mut a, mut b) = both();
        const LEN: u64 = 64 << 20;
        let writer = spawn(move || -> io::Result<u64> {
            let (mut sum, mut next) = (0_u64, 1_u8);
            for _ in 0..LEN / 65_536 {
                let block: Vec<u8> = (0..65_536_u32).map(|i| (i as u8).wrapping_mul(next)).collect();
                next = next.wrapping_add(2);
                sum = block
                    .iter()
                    .fold(sum, |sum, byte| sum.rotate_left(5) ^ u64::from(*byte));
                a.write_all(&block)?;
            }
            Ok(sum)
        });
        let (mut sum, mut total, mut buffer) = (0_u64, 0, [0; 4096]);
        loop {
            let n = b.read(&mut buffer).unwrap();
            if n == 0 {
                break;
            }
            total += n as u64;
            sum = buffer[..n]
                .iter()
                .fold(sum, |sum, byte| sum.rotate_left(5) ^ u64::from(*byte));
            if total % 64 == 0 {
                yield_now();
            }
        }
        assert_eq!((total, sum), (LEN, writer.join().unwrap().unwrap()));
    });
}

#[test]
fn five_hundred_connections_echo_at_once() {
    fresh(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                spawn(move || io::copy(&mut &stream, &mut &stream));
            }
        });
        let clients: Vec<_> = (0..500_u32)
            .map(|n| {
                spawn(move || -> io::Result<bool> {
                    let mut stream = TcpStream::connect(address)?;
                    stream.write_all(&n.to_le_bytes())?;
                    let mut bytes = [0; 4];
                    stream.read_exact(&mut bytes)?;
                    Ok(bytes == n.to_le_bytes())
                })
            })
            .collect();
        assert!(clients.into_iter().all(|client| client.join().unwrap().unwrap()));
    });
}
