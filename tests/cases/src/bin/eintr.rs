//! A handler without SA_RESTART interrupts a blocking call, so that the program can look at the flag that the handler
//! has set. Each is first shown on an OS thread (vorner/signal-hook#153, nanomsg/nanomsg#39, golang/go#20400).

use std::io::{ErrorKind, Read};
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use cases::os::{on_signal, signal_thread, thread_id};
use cases::{ms, patched};

static FLAG: AtomicBool = AtomicBool::new(false);

extern "C" fn handler(_: i32) {
    FLAG.store(true, Ordering::SeqCst);
}

/// What `call` says when the signal comes to this OS thread 100 ms later.
fn interrupted<T>(call: impl FnOnce() -> T) -> T {
    on_signal(libc::SIGUSR1, handler, 0);
    let thread = thread_id();
    thread::Builder::new()
        .spawn(move || {
            thread::sleep(ms(100));
            signal_thread(thread, libc::SIGUSR1);
        })
        .unwrap();
    call()
}

fn read() -> std::io::Result<usize> {
    let (mut near, _far) = UnixStream::pair().unwrap();
    near.read(&mut [0])
}

fn accept() -> std::io::Result<usize> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    // SAFETY: asks for no address.
    let got = unsafe { libc::accept(listener.as_raw_fd(), std::ptr::null_mut(), std::ptr::null_mut()) };
    if got < 0 {
        Err(std::io::Error::last_os_error())
    } else {
        Ok(got as usize)
    }
}

fn poll() -> std::io::Result<usize> {
    let (near, _far) = UnixStream::pair().unwrap();
    let mut one = libc::pollfd {
        fd: near.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: asks about one descriptor.
    let got = unsafe { libc::poll(&raw mut one, 1, 10_000) };
    if got < 0 {
        Err(std::io::Error::last_os_error())
    } else {
        Ok(got as usize)
    }
}

fn both(call: fn() -> std::io::Result<usize>) {
    let plain = interrupted(call).unwrap_err();
    assert_eq!(plain.kind(), ErrorKind::Interrupted);
    let ours = patched(move || interrupted(call)).unwrap_err();
    assert_eq!(ours.kind(), ErrorKind::Interrupted);
}

fn main() -> ExitCode {
    cases::scenarios::main(&[
        ("read", || both(read)),
        ("accept", || both(accept)),
        ("poll", || both(poll)),
    ])
}
