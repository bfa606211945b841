//! Code that asks again and again, without waiting, for what another green thread is to send gets it, as with OS
//! threads (gevent/gevent#893, eventlet/eventlet#798, circus-tent/circus#334).

use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::thread;

use cases::{ms, patched};
use greenthread::spawn;

fn with(ask: fn(&mut UnixStream) -> bool) {
    patched(move || {
        let (mut near, mut far) = UnixStream::pair().unwrap();
        let sender = spawn(move || {
            thread::sleep(ms(20));
            far.write_all(b"!").unwrap();
            far
        });
        spawn(move || while !ask(&mut near) {}).join().unwrap();
        sender.join().unwrap();
    });
}

fn poll_zero() {
    with(|socket| {
        let mut one = libc::pollfd {
            fd: socket.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: asks about one descriptor.
        unsafe { libc::poll(&raw mut one, 1, 0) > 0 }
    });
}

fn nonblocking_read() {
    with(|socket| {
        socket.set_nonblocking(true).unwrap();
        match socket.read(&mut [0]) {
            Ok(count) => count == 1,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                false
            }
        }
    });
}

fn recv_dontwait() {
    with(|socket| {
        let mut byte = [0_u8];
        // SAFETY: room for a byte.
        unsafe { libc::recv(socket.as_raw_fd(), byte.as_mut_ptr().cast(), 1, libc::MSG_DONTWAIT) == 1 }
    });
}

fn main() -> ExitCode {
    cases::scenarios::main(&[
        ("poll_zero", poll_zero),
        ("nonblocking_read", nonblocking_read),
        ("recv_dontwait", recv_dontwait),
    ])
}
