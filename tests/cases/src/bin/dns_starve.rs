//! 32 slow jobs on the default pool delay neither the look-up of a name nor the read of a file.
#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use cases::{Verdict, ms};
use greenthread::threadpool::unblock;
use greenthread::{dns, fs, sleep, spawn};

/// How long a job takes.
const SLOW: Duration = ms(2000);

fn main() -> ExitCode {
    for _ in 0..32 {
        spawn(|| unblock(|| std::thread::sleep(SLOW)));
    }
    sleep(ms(50));
    let name = spawn(|| timed(|| dns::lookup_host("localhost", 80).map(|all| all.len())));
    let file = spawn(|| timed(|| fs::read("/proc/self/status").map(|text| text.len())));
    let mut verdict = Verdict::default();
    for (what, handle) in [("a look-up", name), ("a read of a file", file)] {
        let (result, took) = handle.join().unwrap();
        verdict.holds(
            result.as_ref().is_ok_and(|len| *len > 0) && took < SLOW / 2,
            format_args!("{what}: {result:?} after {took:.0?}"),
        );
    }
    verdict.end()
}

fn timed<T>(f: impl FnOnce() -> T) -> (T, Duration) {
    let begin = Instant::now();
    let result = f();
    (result, begin.elapsed())
}
