//! What may come late or never: a counter of an eventfd between two patched green threads, a signal during a patched
//! read, and waits of the greatest length.

use std::io::{ErrorKind, Read};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::Duration;

use cases::{ms, os, patched, scenarios};
use greenthread::{net, sleep, spawn, thread, timeout};

/// Two green threads talk by an eventfd, as two OS threads may.
fn eventfd() {
    patched(|| {
        // SAFETY: asks for a descriptor.
        let fd = unsafe { libc::eventfd(0, 0) };
        let reader = spawn(move || {
            let mut number = 0_u64;
            // SAFETY: room for the number.
            os::good(unsafe { libc::read(fd, (&raw mut number).cast(), 8) });
            number
        });
        let writer = spawn(move || {
            std::thread::sleep(ms(20));
            let number = 7_u64;
            // SAFETY: the number is valid for a read.
            os::good(unsafe { libc::write(fd, (&raw const number).cast(), 8) })
        });
        assert_eq!(writer.join().unwrap(), 8);
        assert_eq!(reader.join().unwrap(), 7);
    });
}

extern "C" fn nothing(_: i32) {}

/// A signal whose handler lacks SA_RESTART ends a read of `run`'s main.
fn eintr() {
    os::on_signal(libc::SIGUSR1, nothing, 0);
    let main = os::thread_id();
    std::thread::spawn(move || {
        os::sleep(ms(100));
        os::signal_thread(main, libc::SIGUSR1);
    });
    let got = patched(|| {
        let (mut reader, _writer) = std::io::pipe().unwrap();
        reader.read(&mut [0])
    });
    assert_eq!(got.unwrap_err().kind(), ErrorKind::Interrupted);
}

/// Those that wait for `Duration::MAX` can be killed, and nothing overflows.
fn greatest_length() {
    let waiters = [
        spawn(|| sleep(Duration::MAX)),
        spawn(|| assert!(timeout(Duration::MAX, thread::park).is_err())),
        spawn(|| {
            let (near, _far) = UnixStream::pair().unwrap();
            let mut near = net::UnixStream::from(near);
            near.set_read_timeout(Some(Duration::MAX)).unwrap();
            let _ = near.read(&mut [0]);
        }),
    ];
    for _ in 0..20 {
        sleep(ms(5));
    }
    for waiter in waiters {
        waiter.kill();
        assert!(waiter.join().unwrap_err().is_killed());
    }
}

fn main() -> ExitCode {
    scenarios::main(&[
        ("eventfd", eventfd),
        ("eintr", eintr),
        ("greatest_length", greatest_length),
    ])
}
