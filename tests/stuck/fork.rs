//! Forks while other OS threads are in the midst of using this crate: the child can use all of it.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use greenthread::hub::{self, Hubs};
use greenthread::process::Command;
use greenthread::signal::{SIGUSR1, SIGUSR2, Signals};
use greenthread::{aio, dns, fs, future, sleep, spawn, threadpool, yield_now};

const ROUNDS: u32 = 40;

/// Every part that keeps something for the whole process, used once.
fn use_everything() {
    // Blocks, ids, stacks, exit links.
    let child = spawn(|| {
        yield_now();
        7
    });
    child.on_exit(|_| ());
    assert_eq!(child.join().unwrap(), 7);
    // Hubs that begin and end, and spawns on them from here.
    let hubs = Hubs::new(1).unwrap();
    assert_eq!(hubs.spawn(|| 8).unwrap().join().unwrap(), 8);
    drop(hubs.spawn(|| ()).unwrap());
    hubs.stop();
    hubs.join();
    // The pools: of jobs, of files, of names, and one of the user's.
    assert_eq!(threadpool::unblock(|| 9), 9);
    assert!(fs::read("/proc/self/comm").unwrap().ends_with(b"\n"));
    assert!(dns::lookup_host("127.0.0.1", 80).is_ok());
    let pool = threadpool::ThreadPool::new(1);
    assert_eq!(pool.submit(|| 10).unwrap().wait().unwrap(), 10);
    // What waits on behalf of futures.
    let (reader, writer) = std::os::unix::net::UnixStream::pair().unwrap();
    drop(writer);
    let reader = greenthread::io::Async::new(reader).unwrap();
    future::block_on(reader.readable_async()).unwrap();
    // Signals, the panic hook, tasks and loops of aio, an orphan.
    drop(Signals::new([SIGUSR2]).unwrap());
    hub::set_panic_hook(Some(|_: &str, _: &(dyn std::any::Any + Send)| ()));
    assert_eq!(aio::run(async { 11 }).unwrap(), 11);
    drop(Command::new("true").spawn().unwrap());
}

pub(crate) fn while_others_use_everything() {
    use_everything();
    let stop = Arc::new(AtomicBool::new(false));
    let busy: Vec<_> = (0..3)
        .map(|_| {
            let stop = stop.clone();
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    // Each time on an OS thread whose hub begins and ends.
                    std::thread::spawn(use_everything).join().unwrap();
                }
            })
        })
        .collect();
    for round in 0..ROUNDS {
        // SAFETY: that other OS threads may hold locks is what is tested.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            // SAFETY: plain system calls.
            unsafe {
                libc::alarm(20);
                use_everything();
                libc::_exit(0);
            }
        }
        let mut status = 0;
        // SAFETY: a plain system call with a valid pointer.
        assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
        assert_eq!(status, 0, "round {round}");
    }
    stop.store(true, Ordering::Relaxed);
    busy.into_iter().for_each(|thread| thread.join().unwrap());
}

/// One listener, made before the fork and used on both sides: each has the signals that were sent to it, and no others.
pub(crate) fn with_a_listener_on_both_sides() {
    let mine = Signals::new([SIGUSR1]).unwrap();
    for _ in 0..20 {
        let (mut ready, mut tell) = std::io::pipe().unwrap();
        // SAFETY: no other OS thread holds a lock.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            // It waits from now on: with its parent's socket it would take what wakes that.
            tell.write_all(&[0]).unwrap();
            let got = mine.recv_timeout(Duration::from_secs(10));
            // SAFETY: a plain system call.
            unsafe { libc::_exit(if matches!(got, Ok(Some(SIGUSR1))) { 0 } else { 1 }) };
        }
        ready.read_exact(&mut [0]).unwrap();
        std::thread::sleep(Duration::from_millis(20));
        // SAFETY: a signal that has a handler.
        assert_eq!(unsafe { libc::raise(SIGUSR1) }, 0);
        // A child that reads our socket is there first.
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(mine.recv_timeout(Duration::from_secs(10)).unwrap(), Some(SIGUSR1));
        let mut status = -1;
        loop {
            // Until it listens with a socket of its own, too: a signal more does no harm.
            // SAFETY: plain system calls with a valid pointer.
            unsafe {
                libc::kill(pid, SIGUSR1);
                if libc::waitpid(pid, &raw mut status, libc::WNOHANG) == pid {
                    break;
                }
            }
            sleep(Duration::from_millis(5));
        }
        assert_eq!(status, 0);
    }
}

/// Handlers of the user's, registered before this crate's own: they run while a fork holds this crate's locks.
pub(crate) fn with_handlers_that_use_this_crate() {
    extern "C" fn handler() {
        std::thread::spawn(|| spawn(|| ()).join().unwrap()).join().unwrap();
        use_everything();
    }
    // SAFETY: a handler of the right type.
    unsafe {
        libc::pthread_atfork(Some(handler), Some(handler), Some(handler));
    }
    use_everything();
    // SAFETY: the child uses this crate, whose locks are free in it; that is what the test shows. Then it ends.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        use_everything();
        // SAFETY: a plain system call.
        unsafe { libc::_exit(0) };
    }
    let mut status = 0;
    // SAFETY: a plain system call with a valid pointer.
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
    assert_eq!(status, 0);
    use_everything();
}
