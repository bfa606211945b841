//! A server forks its workers after `listen`, and each accepts on the same socket, which its user never made
//! non-blocking: no accept says `WouldBlock`, and the socket stays blocking, for O_NONBLOCK belongs to the open file,
//! which processes share (gevent/gevent#178, cr.yp.to/unix/nonblock.html).

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use cases::{ms, os};
use greenthread::{monkey, run, spawn};

#[derive(Default)]
struct Counts {
    accepted: AtomicU64,
    would_block: AtomicU64,
    other: AtomicU64,
}

/// Counts that all of the processes share.
fn shared() -> &'static Counts {
    // SAFETY: a fresh page of zeroes, kept for good; the struct is three numbers.
    unsafe {
        let page = libc::mmap(
            std::ptr::null_mut(),
            4096,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS,
            -1,
            0,
        );
        assert_ne!(page, libc::MAP_FAILED);
        &*page.cast::<Counts>()
    }
}

fn serve(listener: &TcpListener, counts: &Counts) {
    loop {
        match listener.accept() {
            Ok((mut stream, _)) => {
                counts.accepted.fetch_add(1, Ordering::SeqCst);
                let _ = stream.write_all(b"!");
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                counts.would_block.fetch_add(1, Ordering::SeqCst);
                thread::sleep(ms(1));
            }
            Err(error) => {
                eprintln!("{error}");
                counts.other.fetch_add(1, Ordering::SeqCst);
                thread::sleep(ms(1));
            }
        }
    }
}

fn serve_by_four(listener: &TcpListener, counts: &'static Counts) {
    let all: Vec<_> = (0..4)
        .map(|_| {
            let listener = listener.try_clone().unwrap();
            spawn(move || serve(&listener, counts))
        })
        .collect();
    all.into_iter().for_each(|one| one.join().unwrap());
}

/// `workers` patched processes of four green threads, and `plain` ones of one OS thread.
fn with(workers: usize, plain: usize) {
    let counts = shared();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut children = Vec::new();
    for number in 0..workers + plain {
        // The child is forked while there is one thread.
        children.push(os::fork(|| {
            if number >= workers {
                serve(&listener, counts);
            }
            monkey::patch_all().unwrap();
            let listener = listener.try_clone().unwrap();
            run(move || serve_by_four(&listener, counts));
            0
        }));
    }
    let clients: Vec<_> = (0..4)
        .map(|_| {
            thread::spawn(move || {
                for _ in 0..1500 {
                    let mut stream = TcpStream::connect(address).unwrap();
                    let _ = stream.read(&mut [0]);
                }
            })
        })
        .collect();
    clients.into_iter().for_each(|client| client.join().unwrap());
    let stuck = os::is_nonblocking(&listener);
    thread::sleep(ms(50));
    children.into_iter().for_each(os::end_child);
    let [accepted, would_block, other] =
        [&counts.accepted, &counts.would_block, &counts.other].map(|count| count.load(Ordering::SeqCst));
    assert!(
        would_block == 0 && other == 0 && !stuck,
        "{accepted} accepted; a blocking accept said {would_block} times that it would block, {other} times something \
         else; the listener is non-blocking for good: {stuck}"
    );
}

fn patched_workers() {
    with(3, 0);
}

/// What it is to be compared with.
fn plain_workers() {
    with(0, 4);
}

fn one_patched_and_one_plain() {
    with(1, 1);
}

fn main() -> ExitCode {
    cases::scenarios::main(&[
        ("plain_workers", plain_workers),
        ("patched_workers", patched_workers),
        ("one_patched_and_one_plain", one_patched_and_one_plain),
    ])
}
