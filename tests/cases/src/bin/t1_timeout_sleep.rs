//! A time-out around patched calls of std, as the docs of `monkey` and `timeout` say: the sleep that it interrupts
//! ends early, later ones keep their time, and `timeout` says `Elapsed`; a lock waits its time and changes nothing.

use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cases::{Verdict, ms, patched};
use greenthread::{spawn, timeout, yield_now};

const LIMIT: Duration = ms(100);

fn main() -> ExitCode {
    let mut verdict = patched(|| {
        let mut verdict = Verdict::default();
        let (result, took) = timed(|| std::thread::sleep(ms(5000)));
        verdict.holds(
            result.is_err() && took >= LIMIT && took < ms(3000),
            format_args!("a sleep of 5 s: {result:?} after {took:.0?}"),
        );
        let (result, took) = timed(|| (0..5).for_each(|_| std::thread::sleep(ms(300))));
        verdict.holds(
            result.is_err() && took >= LIMIT + ms(4 * 300),
            format_args!("five sleeps of 300 ms, of which one is cut short: {result:?} after {took:.0?}"),
        );
        verdict
    });
    let (result, took) = patched(|| {
        let lock = Arc::new(Mutex::new(()));
        let theirs = lock.clone();
        let holder = spawn(move || {
            let _guard = theirs.lock().unwrap();
            std::thread::sleep(ms(500));
        });
        yield_now();
        let result = timed(|| drop(lock.lock().unwrap()));
        holder.join().unwrap();
        result
    });
    verdict.holds(
        result.is_ok() && took >= ms(450),
        format_args!("a lock that is held for 500 ms: {result:?} after {took:.0?}"),
    );
    verdict.end()
}

fn timed(f: impl FnOnce()) -> (Result<(), greenthread::time::Elapsed>, Duration) {
    let begin = Instant::now();
    let result = timeout(LIMIT, f);
    (result, begin.elapsed())
}
