//! A std listener that is shared by a plain OS thread and patched green threads, all blocking in `accept`: the OS
//! thread never sees `WouldBlock`, which a blocking accept never gives.
//!
//! `os_accept [SECONDS]`
#![forbid(unsafe_code)]

use std::net::{TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cases::{Verdict, argument, ms, watchdog};
use greenthread::{monkey, run, spawn};

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    by_green: AtomicUsize,
    by_os: AtomicUsize,
    errors: AtomicUsize,
}

fn main() -> ExitCode {
    let seconds = argument(1).map_or(8, |seconds| seconds.parse().expect("a number"));
    watchdog(ms(60_000));
    monkey::patch_all().unwrap();
    let listener = Arc::new(TcpListener::bind("127.0.0.1:0").unwrap());
    let address = listener.local_addr().unwrap();
    let shared = Arc::new(Shared::default());
    let (theirs, our) = (listener.clone(), shared.clone());
    std::thread::spawn(move || accept(&theirs, &our, &our.by_os));
    let (theirs, our) = (listener, shared.clone());
    std::thread::spawn(move || {
        run(move || {
            let all: Vec<_> = (0..4)
                .map(|_| {
                    let (listener, shared) = (theirs.clone(), our.clone());
                    spawn(move || accept(&listener, &shared, &shared.by_green))
                })
                .collect();
            all.into_iter().for_each(|one| one.join().unwrap());
        });
    });
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        drop(TcpStream::connect(address));
    }
    shared.stop.store(true, Ordering::Relaxed);
    let [green, os, errors] =
        [&shared.by_green, &shared.by_os, &shared.errors].map(|count| count.load(Ordering::Relaxed));
    let mut verdict = Verdict::default();
    verdict.holds(
        green + os > 100,
        format_args!("accepted {green} times by green threads, {os} times by an OS thread"),
    );
    verdict.holds(errors == 0, format_args!("{errors} errors of a blocking accept"));
    verdict.end()
}

fn accept(listener: &TcpListener, shared: &Shared, count: &AtomicUsize) {
    while !shared.stop.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok(_) => count.fetch_add(1, Ordering::Relaxed),
            Err(error) => {
                eprintln!("a blocking accept said: {error}");
                shared.errors.fetch_add(1, Ordering::Relaxed)
            }
        };
    }
}
