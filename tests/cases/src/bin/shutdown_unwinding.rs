//! `hub::shutdown` in a destructor while a panic unwinds does not spin for its whole patience.
#![forbid(unsafe_code)]

use std::panic::catch_unwind;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use cases::{Verdict, ms, os, watchdog};
use greenthread::{hub, spawn, thread, yield_now};

const PATIENCE: Duration = ms(3000);

struct Guard;

impl Drop for Guard {
    fn drop(&mut self) {
        let result = hub::shutdown(PATIENCE);
        println!("shutdown while unwinding: {result:?}");
    }
}

fn main() -> ExitCode {
    watchdog(ms(30_000));
    let (wall, processor) = (Instant::now(), os::processor_time());
    let result = catch_unwind(|| {
        for _ in 0..10 {
            drop(spawn(thread::park));
        }
        yield_now();
        let _guard = Guard;
        panic!("main panics");
    });
    let (wall, processor) = (wall.elapsed(), os::processor_time() - processor);
    let mut verdict = Verdict::default();
    verdict.holds(result.is_err(), "the panic of main goes on");
    verdict.holds(
        wall < PATIENCE / 2 && processor < PATIENCE / 4,
        format_args!("took {wall:.0?}, {processor:.0?} of processor time"),
    );
    verdict.end()
}
