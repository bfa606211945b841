//! A child that is forked while other OS threads use the library can use it too: none of its locks is held by a
//! thread that the child does not have.
//!
//! `fork_locks [FORKS]`

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cases::{Verdict, argument, ms, os, watchdog};
use greenthread::hub::Hubs;
use greenthread::{spawn, yield_now};

fn main() -> ExitCode {
    let forks: u32 = argument(1).map_or(1000, |forks| forks.parse().expect("a number"));
    watchdog(ms(120_000));
    let hubs = Arc::new(Hubs::new(1).unwrap());
    let stop = Arc::new(AtomicBool::new(false));
    let busy: Vec<_> = (0..2)
        .map(|_| {
            let (stop, hubs) = (stop.clone(), hubs.clone());
            std::thread::spawn(move || keep_busy(&hubs, &stop))
        })
        .collect();
    spawn(|| ()).join().unwrap();
    let (mut hung, mut failed) = (0, 0);
    for _ in 0..forks {
        match child() {
            Some(0) => {}
            Some(_) => failed += 1,
            None => hung += 1,
        }
        if hung >= 3 {
            break;
        }
    }
    stop.store(true, Ordering::Relaxed);
    busy.into_iter().for_each(|busy| busy.join().unwrap());
    let mut verdict = Verdict::default();
    verdict.holds(
        hung + failed == 0,
        format_args!("{forks} forks: {hung} children hung, {failed} failed"),
    );
    verdict.end()
}

fn keep_busy(hubs: &Hubs, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..20 {
            hubs.spawn(|| ()).unwrap().on_exit(|_| ());
        }
        hubs.join();
    }
}

/// The status of a child that spawns and joins; `None` if it hangs.
fn child() -> Option<i32> {
    let pid = os::fork(|| {
        let seven = spawn(|| {
            yield_now();
            7
        });
        i32::from(seven.join().ok() != Some(7))
    });
    let end = Instant::now() + Duration::from_secs(10);
    while Instant::now() < end {
        if let Some(status) = os::ended(pid) {
            return Some(status);
        }
        os::sleep(Duration::from_micros(200));
    }
    os::end_child(pid);
    None
}
