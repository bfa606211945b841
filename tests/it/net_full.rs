//! A server with no descriptors left: it waits without spinning, and goes on when there are some again.

use std::fs::File;
use std::io::{Read, Write};
use std::process::Command;

use greenthread::net::TcpListener;
use greenthread::{sleep, spawn, yield_now};
use rustix::time::{ClockId, clock_gettime};

use crate::thread_fresh::{ms, secs};

const VARIABLE: &str = "GREENTHREAD_NET_FULL";

/// What the child does, with at most 64 descriptors.
#[test]
fn entry() {
    if std::env::var_os(VARIABLE).is_none() {
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = spawn(move || listener.accept().unwrap().0.write_all(b"!").unwrap());
    yield_now(); // the poller exists now
    let mut client = std::net::TcpStream::connect(address).unwrap();
    let hoard: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    assert!(hoard.len() < 64, "the limit holds");
    let cpu = || clock_gettime(ClockId::ThreadCPUTime);
    let before = cpu();
    sleep(ms(500));
    let after = cpu();
    let used = (after.tv_sec - before.tv_sec) * 1000 + (after.tv_nsec - before.tv_nsec) / 1_000_000;
    assert!(used < 250, "{used} ms of CPU in half a second");
    assert!(!server.is_finished(), "there is no descriptor to accept with");
    drop(hoard);
    server.join().unwrap();
    client.set_read_timeout(Some(secs(20))).unwrap();
    client.read_exact(&mut [0]).unwrap();
}

#[test]
fn a_full_server_waits_quietly_and_recovers() {
    let output = Command::new("bash")
        .args(["-c", "ulimit -n 64 && exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().unwrap())
        .args(["net_full::entry", "--exact", "--nocapture"])
        .env(VARIABLE, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{output:?}");
}
