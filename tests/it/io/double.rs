//! Several that wait for one descriptor on one hub: each by a registration of its own, which is never another's to
//! take.

use std::cell::Cell;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use greenthread::io::{Async, wait_readable};
use greenthread::net::{TcpListener, TcpStream};
use greenthread::{JoinHandle, hub, spawn_local, timeout, yield_now};

use crate::support::child;
use crate::support::fresh::{fresh, ms, secs};

type Socket = Arc<UnixStream>;

fn pair() -> (Socket, UnixStream) {
    let (near, far) = UnixStream::pair().unwrap();
    (Arc::new(near), far)
}

/// One that reads some bytes; it waits by now.
fn reads(socket: &Arc<Async<Socket>>) -> JoinHandle<usize> {
    let socket = socket.clone();
    let reading = spawn_local(move || socket.read_with(|near| (&**near).read(&mut [0; 8])).unwrap());
    hub::idle();
    assert!(!reading.is_finished());
    reading
}

fn comes(reading: JoinHandle<usize>) -> usize {
    timeout(secs(10), || reading.join()).expect("it was not woken").unwrap()
}

/// A reader by one and a writer by the other, in both orders.
fn both_directions() {
    for first_reads in [true, false] {
        let (near, mut far) = pair();
        let (one, other) = (Async::new(near.clone()).unwrap(), Async::new(near).unwrap());
        let (reader, writer) = if first_reads { (one, other) } else { (other, one) };
        let (reader, writer) = (Arc::new(reader), Arc::new(writer));
        if !first_reads {
            wait_a_little(&writer);
        }
        let reading = reads(&reader);
        let filling = spawn_local(move || {
            let much = vec![1; 1 << 20];
            let mut left = &much[..];
            while !left.is_empty() {
                let sent = writer.write_with(|near| (&**near).write(left)).unwrap();
                left = &left[sent..];
            }
        });
        hub::idle();
        assert!(!filling.is_finished(), "it waits for room");
        far.write_all(b"hello").unwrap();
        assert_eq!(comes(reading), 5);
        far.set_nonblocking(true).unwrap();
        let far = Async::new(far).unwrap();
        let mut got = 0;
        while got < 1 << 20 {
            let more = timeout(secs(10), || far.read_with(|mut far| far.read(&mut [0; 1 << 16])));
            got += more.expect("nobody writes").unwrap();
        }
        filling.join().unwrap();
    }
}

/// Has it registered.
fn wait_a_little(socket: &Async<Socket>) {
    socket.set_read_timeout(Some(ms(1))).unwrap();
    assert_eq!(socket.readable().unwrap_err().kind(), ErrorKind::TimedOut);
    socket.set_read_timeout(None).unwrap();
}

/// Whoever of the two goes first, the other is woken as before; and a third, after that.
fn either_goes_first() {
    for first_goes in [true, false] {
        let (near, mut far) = pair();
        let [one, other] = [0; 2].map(|_| Arc::new(Async::new(near.clone()).unwrap()));
        wait_a_little(&one);
        wait_a_little(&other);
        let (stays, goes) = if first_goes { (other, one) } else { (one, other) };
        let reading = reads(&stays);
        drop(goes);
        far.write_all(b"abc").unwrap();
        assert_eq!(comes(reading), 3);
        let third = Arc::new(Async::new(near).unwrap());
        let reading = [reads(&stays), reads(&third)];
        far.write_all(b"abcdefgh12345678").unwrap();
        assert_eq!(reading.map(comes), [8, 8]);
    }
}

/// One of `net` below the other.
fn over_a_stream() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = Arc::new(TcpStream::connect(listener.local_addr().unwrap()).unwrap());
    let (mut far, _) = listener.accept().unwrap();
    near.set_read_timeout(Some(ms(1))).unwrap();
    assert!((&*near).read(&mut [0; 8]).is_err());
    near.set_read_timeout(None).unwrap();
    let other = Async::new(near.clone()).unwrap();
    other.set_read_timeout(Some(ms(1))).unwrap();
    assert!(other.readable().is_err());
    drop(other);
    let reading = spawn_local(move || (&*near).read(&mut [0; 8]).unwrap());
    hub::idle();
    far.write_all(b"hello").unwrap();
    assert_eq!(comes(reading), 5);
}

/// Waits by the number are under way, and are not woken by what others do with it.
fn beside_a_wait_by_the_number() {
    let (near, mut far) = pair();
    let theirs = near.clone();
    let waiting = spawn_local(move || wait_readable(&*theirs, Some(secs(10))).map(|()| 0));
    hub::idle();
    let own = Arc::new(Async::new(near.clone()).unwrap());
    let reading = reads(&own);
    assert!(!waiting.is_finished(), "woken for nothing");
    far.write_all(b"abc").unwrap();
    assert!(
        timeout(secs(10), || waiting.join())
            .expect("not woken")
            .unwrap()
            .is_ok()
    );
    assert_eq!(comes(reading), 3);
    let reading = reads(&own);
    assert_eq!(
        wait_readable(&*near, Some(ms(1))).unwrap_err().kind(),
        ErrorKind::TimedOut
    );
    far.write_all(b"ab").unwrap();
    assert_eq!(comes(reading), 2);
}

pub(crate) fn all() {
    both_directions();
    either_goes_first();
    over_a_stream();
    beside_a_wait_by_the_number();
}

#[test]
fn a_reader_and_a_writer_by_two_of_one_descriptor_are_both_woken() {
    fresh(both_directions);
}

#[test]
fn of_two_over_one_descriptor_either_may_go_first() {
    fresh(either_goes_first);
}

#[test]
fn one_over_a_stream_of_net_takes_nothing_from_it() {
    fresh(over_a_stream);
}

#[test]
fn a_wait_by_the_number_and_a_socket_of_our_own_go_on_beside_each_other() {
    fresh(beside_a_wait_by_the_number);
}

#[test]
fn all_of_that_holds_on_the_portable_reactor() {
    let ended = child::run_with_variable("one descriptor twice", "GREEN_LOOP", "polling");
    assert!(ended.ok, "{ended:?}");
}

#[test]
fn the_copy_of_the_second_is_closed_as_it_goes_and_not_when_its_hub_comes_to_it() {
    fresh(|| {
        let (near, mut far) = pair();
        let [one, other] = [0; 2].map(|_| Async::new(near.clone()).unwrap());
        wait_a_little(&one);
        wait_a_little(&other);
        drop(near);
        // Elsewhere, while this hub does not turn.
        std::thread::spawn(move || drop((one, other))).join().unwrap();
        far.set_nonblocking(true).unwrap();
        assert_eq!(far.read(&mut [0; 8]).unwrap(), 0, "it is still open");
    });
}

/// Says that it is another descriptor, once it is told to.
struct Liar(UnixStream, Socket, Cell<bool>);

impl AsFd for Liar {
    fn as_fd(&self) -> BorrowedFd<'_> {
        if self.2.get() { self.1.as_fd() } else { self.0.as_fd() }
    }
}

#[test]
fn one_that_says_it_is_another_descriptor_takes_nothing_from_that() {
    fresh(|| {
        let (near, mut far) = pair();
        let victim = Arc::new(Async::new(near.clone()).unwrap());
        wait_a_little(&victim);
        let (own, _peer) = UnixStream::pair().unwrap();
        let liar = Async::new(Liar(own, near, Cell::new(false))).unwrap();
        liar.set_read_timeout(Some(ms(1))).unwrap();
        assert!(liar.readable().is_err());
        liar.get_ref().2.set(true);
        let reading = reads(&victim);
        drop(liar);
        far.write_all(b"hello").unwrap();
        assert_eq!(comes(reading), 5);
    });
}

#[test]
fn sockets_of_several_hubs_are_woken_on_each() {
    fresh(|| {
        let (near, mut far) = pair();
        let shared = Arc::new(Async::new(near).unwrap());
        for _ in 0..50 {
            let theirs = shared.clone();
            // Each OS thread has a hub of its own, which ends.
            std::thread::spawn(move || wait_a_little(&theirs)).join().unwrap();
        }
        let reading = reads(&shared);
        far.write_all(b"hello").unwrap();
        assert_eq!(comes(reading), 5);
        yield_now();
    });
}
