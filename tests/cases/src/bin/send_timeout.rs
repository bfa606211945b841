//! A time-out of a send or a receive is one for the whole call, as Linux counts SO_SNDTIMEO and SO_RCVTIMEO, also
//! beside a peer that reads a little now and then (dotnet/corefx#41078, python/cpython bpo-23853).

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use cases::os::set_option;
use cases::{ms, patched};

fn shrink(socket: &impl AsRawFd, option: i32) {
    set_option(socket, option, 16 * 1024);
}

/// How long one write takes, with a time-out of 300 ms, to a peer that reads 16 KiB every 50 ms, and how much it wrote.
fn write_to(slow: TcpListener) -> (Duration, usize) {
    let address = slow.local_addr().unwrap();
    shrink(&slow, libc::SO_RCVBUF);
    thread::Builder::new()
        .spawn(move || {
            let (mut far, _) = slow.accept().unwrap();
            while far.read(&mut [0; 16_384]).is_ok_and(|count| count > 0) {
                thread::sleep(ms(50));
            }
        })
        .unwrap();
    let near = TcpStream::connect(address).unwrap();
    shrink(&near, libc::SO_SNDBUF);
    near.set_write_timeout(Some(ms(300))).unwrap();
    let start = Instant::now();
    let wrote = (&near).write(&vec![7; 1_200_000]).unwrap();
    (start.elapsed(), wrote)
}

fn send() {
    let plain = write_to(TcpListener::bind("127.0.0.1:0").unwrap());
    let ours = patched(|| {
        // The peer is an OS thread: std's threads are not patched.
        write_to(TcpListener::bind("127.0.0.1:0").unwrap())
    });
    eprintln!("plain {plain:?}, patched {ours:?}");
    assert!(
        ours.0 < plain.0 * 3 + ms(300),
        "plain {plain:?}, patched {ours:?} with a time-out of 300 ms"
    );
}

/// How long a `MSG_WAITALL` of 64 bytes takes, with a time-out of 300 ms, from a peer that sends one every 50 ms.
fn wait_all() -> (Duration, isize) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut far, _) = listener.accept().unwrap();
    thread::spawn(move || {
        while far.write_all(b"x").is_ok() {
            thread::sleep(ms(50));
        }
    });
    near.set_read_timeout(Some(ms(300))).unwrap();
    let mut buffer = [0_u8; 64];
    let start = Instant::now();
    // SAFETY: room for 64 bytes.
    let got = unsafe { libc::recv(near.as_raw_fd(), buffer.as_mut_ptr().cast(), 64, libc::MSG_WAITALL) };
    (start.elapsed(), got)
}

fn recv() {
    let plain = wait_all();
    let ours = patched(wait_all);
    eprintln!("plain {plain:?}, patched {ours:?}");
    assert!(
        ours.0 < plain.0 * 3 + ms(300),
        "plain {plain:?}, patched {ours:?} with a time-out of 300 ms"
    );
}

fn main() -> ExitCode {
    cases::scenarios::main(&[("send", send), ("recv_waitall", recv)])
}
