//! A sleep of 200 µs beside a registered descriptor takes about as long as that of a plain OS thread: timers are not
//! rounded up to milliseconds. The two are measured by turns.
#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use cases::{Verdict, ms};
use greenthread::net::TcpListener;
use greenthread::{sleep, spawn_local};

const TIMES: usize = 400;
const SHORT: Duration = Duration::from_micros(200);

fn main() -> ExitCode {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    spawn_local(move || drop(listener.accept()));
    sleep(ms(1)); // there is a poller from here on
    let (mut ours, mut plain) = (Vec::new(), Vec::new());
    for _ in 0..TIMES {
        ours.push(timed(|| sleep(SHORT)));
        plain.push(timed(|| std::thread::sleep(SHORT)));
    }
    let (ours, plain) = (median(ours), median(plain));
    let mut verdict = Verdict::default();
    verdict.holds(
        ours < plain * 5 / 2,
        format_args!("sleeps of 200 µs: median {ours:.0?}, of a plain OS thread {plain:.0?}"),
    );
    verdict.end()
}

fn timed(f: impl FnOnce()) -> Duration {
    let begin = Instant::now();
    f();
    begin.elapsed()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}
