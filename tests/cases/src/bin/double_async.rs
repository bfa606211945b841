//! Two `Async`s over one descriptor, by references, as std's `&UnixStream` allows: a waiter of the first is woken
//! although the second was used in between.
#![forbid(unsafe_code)]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use cases::{ms, scenarios};
use greenthread::io::{Async, wait_readable};
use greenthread::net::{TcpListener, TcpStream};
use greenthread::{sleep, spawn_local, timeout, yield_now};

fn pair() -> (&'static UnixStream, UnixStream) {
    let (near, far) = UnixStream::pair().unwrap();
    (Box::leak(Box::new(near)), far)
}

/// A reader through one, a writer through the other.
fn read_and_write() {
    let (near, mut far) = pair();
    let (reader, writer) = (Async::new(near).unwrap(), Async::new(near).unwrap());
    let read = spawn_local(move || reader.read_with(|socket| (&**socket).read(&mut [0; 8])));
    yield_now();
    let filled = spawn_local(move || {
        let block = vec![1_u8; 1 << 20];
        for _ in 0..2 {
            writer.write_with(|socket| (&**socket).write(&block)).unwrap();
        }
    });
    sleep(ms(10));
    far.write_all(b"hello").unwrap();
    let got = timeout(ms(2000), || read.join()).expect("the reader is not woken");
    assert_eq!(got.unwrap().unwrap(), 5);
    drop(filled);
}

/// One over a stream of `net`, used and dropped.
fn over_net() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let mut near: &'static TcpStream = Box::leak(Box::new(near));
    let (mut far, _) = listener.accept().unwrap();
    near.set_read_timeout(Some(ms(1))).unwrap();
    assert!(near.read(&mut [0; 8]).is_err(), "it waits, so it is registered");
    near.set_read_timeout(None).unwrap();
    {
        let other = Async::new(near).unwrap();
        other.set_read_timeout(Some(ms(1))).unwrap();
        assert!(other.readable().is_err(), "the second waits as well");
    }
    let read = spawn_local(move || near.read(&mut [0; 8]));
    yield_now();
    far.write_all(b"hello").unwrap();
    let got = timeout(ms(2000), || read.join()).expect("the stream's reader is not woken");
    assert_eq!(got.unwrap().unwrap(), 5);
}

/// `wait_readable` beside an `Async`.
fn wait() {
    let (near, mut far) = pair();
    let reader = Async::new(near).unwrap();
    let read = spawn_local(move || reader.read_with(|socket| (&**socket).read(&mut [0; 8])));
    yield_now();
    let waiter = spawn_local(move || wait_readable(near, None));
    sleep(ms(10));
    far.write_all(b"hello").unwrap();
    assert!(
        timeout(ms(2000), || (read.join(), waiter.join())).is_ok(),
        "not both are woken"
    );
}

fn main() -> ExitCode {
    scenarios::main(&[
        ("read_and_write", read_and_write),
        ("over_net", over_net),
        ("wait", wait),
    ])
}
