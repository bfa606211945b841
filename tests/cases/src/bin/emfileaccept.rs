//! The read time-out of a listener bounds `accept` also while the process has no descriptor left.
#![forbid(unsafe_code)]

use std::io::ErrorKind;
use std::process::ExitCode;
use std::time::Instant;

use cases::os::{limit_descriptors, top_descriptor};
use cases::{Verdict, ms};
use greenthread::net::TcpListener;
use greenthread::{hub, sleep, spawn_local, timeout};

fn main() -> ExitCode {
    let _fd = hub::as_fd();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    listener.set_read_timeout(Some(ms(300))).unwrap();
    spawn_local(|| sleep(ms(1))).join().unwrap();
    limit_descriptors(top_descriptor() + 20);
    let mut all = Vec::new();
    while let Ok(file) = std::fs::File::open("/dev/null") {
        all.push(file);
    }
    let begin = Instant::now();
    let result = timeout(ms(10_000), || listener.accept().map(drop));
    let took = begin.elapsed();
    drop(all);
    let mut verdict = Verdict::default();
    let timed_out =
        matches!(&result, Ok(Err(error)) if matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock));
    verdict.holds(
        timed_out && took >= ms(290) && took < ms(3000),
        format_args!("accept with a read time-out of 300 ms and no descriptor left: {result:?} after {took:.0?}"),
    );
    verdict.end()
}
