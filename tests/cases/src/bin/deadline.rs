//! A time-out of 200 ms around the handler of a peer that is never short of bytes strikes within 300 ms of the
//! processor time of the hub's OS thread, 20 times of 20.
//!
//! `deadline [KIND ..]`

use std::process::ExitCode;
use std::time::Duration;

use cases::flood::{self, KINDS};
use cases::os::processor_time_of_thread;
use cases::{Verdict, is_short, ms};
use greenthread::{monkey, run, spawn, timeout};

const LIMIT: Duration = ms(200);
const TIMES: u32 = 20;

fn main() -> ExitCode {
    monkey::patch_all().expect("isolation");
    let wanted: Vec<_> = std::env::args().skip(1).collect();
    let mut verdict = Verdict::default();
    let floods = KINDS
        .iter()
        .filter(|kind| **kind != "worker" && !kind.ends_with("write"));
    for kind in floods.filter(|kind| wanted.is_empty() || wanted.iter().any(|wanted| wanted == *kind)) {
        let mut worst = Duration::ZERO;
        let mut struck = 0;
        let times = if is_short() { 5 } else { TIMES };
        for _ in 0..times {
            let (strikes, used) = run(|| once(kind));
            struck += u32::from(strikes);
            worst = worst.max(used);
        }
        let holds = struck == times && worst <= LIMIT * 3 / 2;
        verdict.holds(
            holds,
            format_args!("{kind}: struck {struck} of {times}, after at most {worst:.0?} of processor time"),
        );
    }
    verdict.end()
}

fn once(kind: &str) -> (bool, Duration) {
    let (peer, work) = flood::peer(kind, true);
    let handler = spawn(|| {
        let begin = processor_time_of_thread();
        let strikes = timeout(LIMIT, work).is_err();
        (strikes, processor_time_of_thread() - begin)
    });
    let result = handler.join().expect("no panic");
    drop(peer);
    result
}
