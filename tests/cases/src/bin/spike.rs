//! After a spike of green threads `stack::trim` gives back what they took: at most 1.2 times the base and a few MiB
//! stay resident.
//!
//! `spike isolated|local [COUNT]`

use std::process::ExitCode;

use cases::{Verdict, argument, os};
use greenthread::{spawn, spawn_local, stack, thread, yield_now};

/// What the hub's own tables and the C heap may keep of it, in KiB.
const KEPT: usize = 6 * 1024;

unsafe extern "C" {
    fn malloc_trim(pad: usize) -> i32;
}

fn main() -> ExitCode {
    let isolated = argument(1).expect("isolated or local") == "isolated";
    let count: usize = argument(2).map_or(10_000, |count| count.parse().expect("a number"));
    let mut verdict = Verdict::default();
    thread::join_all((0..100).map(|_| spawn(|| ())).collect::<Vec<_>>());
    let base = os::resident();
    for round in 1..=2 {
        let all: Vec<_> = (0..count)
            .map(|_| {
                if isolated {
                    spawn(thread::park)
                } else {
                    spawn_local(thread::park)
                }
            })
            .collect();
        yield_now();
        let peak = os::resident();
        thread::kill_all(all);
        yield_now();
        stack::trim();
        let trimmed = os::resident();
        // SAFETY: gives free memory of the C heap back.
        unsafe { malloc_trim(0) };
        let after = os::resident();
        verdict.holds(
            peak > base + count * 4 && after <= base * 6 / 5 + KEPT,
            format_args!("round {round}: base {base} KiB, peak {peak}, after trim {trimmed}, and malloc_trim {after}"),
        );
    }
    verdict.end()
}
