//! Code that spins until another thread has done something, and gives way as an OS thread does, by `sched_yield`,
//! ends as with OS threads (gevent/gevent#1464 and #1741).

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use cases::{ms, patched};
use greenthread::spawn;

fn flag() {
    patched(|| {
        let flag = Arc::new(AtomicBool::new(false));
        let theirs = flag.clone();
        let spinner = spawn(move || {
            while !theirs.load(Ordering::SeqCst) {
                thread::yield_now();
            }
        });
        spawn(move || flag.store(true, Ordering::SeqCst)).join().unwrap();
        spinner.join().unwrap();
    });
}

fn try_lock() {
    patched(|| {
        let lock = Arc::new(Mutex::new(0));
        let theirs = lock.clone();
        let holder = spawn(move || {
            let mut guard = theirs.lock().unwrap();
            thread::sleep(ms(20));
            *guard += 1;
        });
        let other = spawn(move || {
            loop {
                match lock.try_lock() {
                    Ok(guard) => return *guard,
                    Err(_) => thread::yield_now(),
                }
            }
        });
        assert_eq!(other.join().unwrap(), 1);
        holder.join().unwrap();
    });
}

/// The same program, unmodified, whose `std::thread`s are green.
fn std_threads() {
    greenthread::monkey::patch_threads().unwrap();
    greenthread::run(|| {
        let flag = Arc::new(AtomicBool::new(false));
        let theirs = flag.clone();
        let spinner = thread::spawn(move || {
            while !theirs.load(Ordering::SeqCst) {
                thread::yield_now();
            }
        });
        thread::spawn(move || flag.store(true, Ordering::SeqCst))
            .join()
            .unwrap();
        spinner.join().unwrap();
    });
}

/// A timer and a socket are not starved by one that spins politely, either.
fn timer() {
    patched(|| {
        let flag = Arc::new(AtomicBool::new(false));
        let theirs = flag.clone();
        let sleeper = spawn(move || {
            thread::sleep(ms(20));
            theirs.store(true, Ordering::SeqCst);
        });
        let spinner = spawn(move || {
            while !flag.load(Ordering::SeqCst) {
                thread::yield_now();
            }
        });
        spinner.join().unwrap();
        sleeper.join().unwrap();
    });
}

fn main() -> ExitCode {
    cases::scenarios::main(&[
        ("flag", flag),
        ("try_lock", try_lock),
        ("std_threads", std_threads),
        ("timer", timer),
    ])
}
