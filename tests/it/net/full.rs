//! A server with no descriptors left: it waits without spinning, and goes on when there are some again.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::SocketAddr;
use std::process::Command;
use std::time::Instant;

use greenthread::net::{TcpListener, UnixListener, raise_open_files};
use greenthread::{sleep, spawn, timeout, yield_now};
use rustix::time::{ClockId, clock_gettime};

use crate::support::child::test_name;
use crate::support::fresh::{ms, secs};

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
    let bounded = TcpListener::bind("127.0.0.1:0").unwrap();
    bounded.set_read_timeout(Some(ms(300))).unwrap();
    let _waits = std::net::TcpStream::connect(bounded.local_addr().unwrap()).unwrap();
    let silent = UnixListener::bind_addr(&SocketAddr::from_abstract_name(format!("full-{address}")).unwrap()).unwrap();
    silent.set_read_timeout(Some(ms(300))).unwrap();
    let hoard: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    assert!(hoard.len() < 64, "the limit holds");
    let cpu = || clock_gettime(ClockId::ThreadCPUTime);
    let before = cpu();
    sleep(ms(500));
    let after = cpu();
    let used = (after.tv_sec - before.tv_sec) * 1000 + (after.tv_nsec - before.tv_nsec) / 1_000_000;
    assert!(used < 250, "{used} ms of CPU in half a second");
    assert!(!server.is_finished(), "there is no descriptor to accept with");
    let start = Instant::now();
    let error = timeout(secs(20), || bounded.accept().unwrap_err()).unwrap();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert!(
        error.to_string().contains("this process may have 64 descriptors"),
        "{error}"
    );
    let error = timeout(secs(20), || silent.accept().unwrap_err()).unwrap();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    let took = start.elapsed();
    assert!(took >= ms(600), "{took:?}");
    drop(hoard);
    server.join().unwrap();
    client.set_read_timeout(Some(secs(20))).unwrap();
    client.read_exact(&mut [0]).unwrap();
}

#[test]
fn a_full_server_waits_quietly_and_recovers() {
    child("ulimit -n 64", "entry", VARIABLE);
}

const RAISES: &str = "GREENTHREAD_NET_RAISES";

#[test]
fn raising() {
    if std::env::var_os(RAISES).is_none() {
        return;
    }
    let open = || {
        let files = std::iter::from_fn(|| File::open("/dev/null").ok());
        files.take(100).collect::<Vec<_>>().len()
    };
    assert!(open() < 64);
    let error = raised_to_the_eyes();
    assert!(error.contains("net::raise_open_files() or `ulimit -n"), "{error}");
    let most = raise_open_files().unwrap();
    assert!(most > 200, "{most}");
    assert_eq!(open(), 100);
    assert_eq!(raise_open_files().unwrap(), most);
}

/// What an accept without descriptors says.
fn raised_to_the_eyes() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_read_timeout(Some(ms(20))).unwrap();
    let _waits = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    yield_now();
    let _hoard: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    listener.accept().unwrap_err().to_string()
}

#[test]
fn the_limit_of_descriptors_is_raised_and_an_error_says_how() {
    child("ulimit -S -n 64", "raising", RAISES);
}

fn child(limit: &str, test: &str, variable: &str) {
    let output = Command::new("bash")
        .args(["-c", &format!("{limit} && exec \"$0\" \"$@\"")])
        .arg(std::env::current_exe().unwrap())
        .args([&*test_name(module_path!(), test), "--exact", "--nocapture"])
        .env(variable, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{output:?}");
}
