//! A computation that follows the docs, a slice of work and then `yield_now`: a timer beside it is at most a few
//! slices late, not some number of turns. Slices are counted, so that what disturbs the machine does not matter.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};

use cases::{Verdict, ms};
use greenthread::{sleep, spawn_local, yield_now};

const RUN: Duration = ms(1500);
const TIMER: Duration = ms(2);

fn main() -> ExitCode {
    let mut verdict = Verdict::default();
    for slice in [1, 5, 10] {
        for other in [false, true] {
            let (timers, worst) = most_slices(ms(slice), other);
            // Those of the timer's own time, and a few.
            let due = 2_u64.div_ceil(slice);
            verdict.holds(
                timers > 0 && worst <= due + 3,
                format_args!(
                    "slices of {slice} ms, another that yields: {other}: {timers} timers took at most {worst}"
                ),
            );
        }
    }
    verdict.end()
}

/// How many timers there were, and the most slices that ended during one.
fn most_slices(slice: Duration, other: bool) -> (u32, u64) {
    let end = Instant::now() + RUN;
    let slices = Rc::new(Cell::new(0));
    let counted = slices.clone();
    let worker = spawn_local(move || {
        while Instant::now() < end {
            let begin = Instant::now();
            while begin.elapsed() < slice {}
            counted.set(counted.get() + 1);
            yield_now();
        }
    });
    let second = other.then(|| {
        spawn_local(move || {
            while Instant::now() < end {
                yield_now();
            }
        })
    });
    let ticker = spawn_local(move || {
        let (mut timers, mut worst) = (0, 0);
        while Instant::now() < end {
            let before = slices.get();
            sleep(TIMER);
            timers += 1;
            worst = worst.max(slices.get() - before);
        }
        (timers, worst)
    });
    let result = ticker.join().unwrap();
    worker.join().unwrap();
    second.into_iter().for_each(|second| second.join().unwrap());
    result
}
