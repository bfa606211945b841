//! Where the system gives no OS thread: by a limit on them, or because a filter of system calls answers `clone3` with
//! `EPERM`, after which glibc does not fall back to `clone`. `tests/long/kernels.sh` runs the scenario under such a
//! filter.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use greenthread::net::{TcpListener, TcpStream};
use greenthread::{dns, sleep, spawn, spawn_local, threadpool};

/// What needs an OS thread runs on the caller's.
pub(super) fn of_os_threads() {
    // No OS thread of std's can have a stack of 64 TiB. Green threads get one of 1 MiB.
    // SAFETY: this process has one OS thread.
    unsafe {
        std::env::set_var("RUST_MIN_STACK", (1_u64 << 46).to_string());
        std::env::set_var("GREEN_STACK", "1M");
    }
    assert!(std::thread::Builder::new().spawn(|| ()).is_err());
    let start = Instant::now();
    let sleepers: Vec<_> = (0..100).map(|_| spawn(|| sleep(Duration::from_millis(20)))).collect();
    sleepers.into_iter().for_each(|sleeper| sleeper.join().unwrap());
    assert!(start.elapsed() < Duration::from_millis(1900), "they sleep at once");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = spawn(move || listener.accept().unwrap().0.write_all(b"hello").unwrap());
    let mut text = String::new();
    TcpStream::connect(address).unwrap().read_to_string(&mut text).unwrap();
    server.join().unwrap();
    assert_eq!(text, "hello");
    assert_eq!(spawn_local(|| threadpool::unblock(|| 42)).join().unwrap(), 42);
    let pool = threadpool::ThreadPool::new(2);
    assert_eq!(pool.submit(|| 43).unwrap().wait().unwrap(), 43);
    assert!(!dns::lookup_host("localhost", 80).unwrap().is_empty());
}
