//! A detached spawn by another OS thread leaves nothing: less than 20 bytes of resident memory each.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use cases::{Verdict, os};
use greenthread::hub::Hubs;

const ROUNDS: usize = 6;
const SPAWNS: u32 = 100_000;

fn main() -> ExitCode {
    let hubs = Hubs::new(1).unwrap();
    let mut marks = Vec::new();
    for _ in 0..ROUNDS {
        for number in 0..SPAWNS {
            drop(hubs.spawn(move || std::hint::black_box(number)).unwrap());
            if number % 500 == 0 {
                hubs.join();
            }
        }
        hubs.join();
        marks.push(os::resident());
    }
    // The first rounds fill the caches.
    let rounds = (ROUNDS - 2) as f64;
    let grown = marks[ROUNDS - 1].saturating_sub(marks[1]) as f64 * 1024.0;
    let each = grown / rounds / f64::from(SPAWNS);
    let mut verdict = Verdict::default();
    verdict.holds(
        each < 20.0,
        format_args!("{each:.1} bytes a detached spawn; KiB after each round: {marks:?}"),
    );
    verdict.end()
}
