//! A ticker of 10 ms beside a peer that is never short of bytes gets 0.9 times the ticks that it gets beside an idle
//! one.
//!
//! `ticker [KIND ..]`; runs alternate, so that what disturbs the machine disturbs both.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use cases::flood::{self, KINDS};
use cases::{Verdict, is_short, ms};
use greenthread::time::Interval;
use greenthread::{monkey, run, spawn};

const RUN: Duration = ms(400);
const ROUNDS: u32 = 4;

fn main() -> ExitCode {
    monkey::patch_all().expect("isolation");
    let wanted: Vec<_> = std::env::args().skip(1).collect();
    let mut verdict = Verdict::default();
    for kind in KINDS
        .iter()
        .filter(|kind| wanted.is_empty() || wanted.iter().any(|wanted| wanted == *kind))
    {
        let (mut idle, mut busy) = (0, 0);
        let rounds = if is_short() { 2 } else { ROUNDS };
        for _ in 0..rounds {
            idle += run(|| ticks(kind, false));
            busy += run(|| ticks(kind, true));
        }
        let ratio = f64::from(busy) / f64::from(idle);
        verdict.holds(
            ratio >= 0.9,
            format_args!("{kind}: {busy} ticks, {idle} beside an idle peer: {ratio:.2}"),
        );
    }
    verdict.end()
}

fn ticks(kind: &str, busy: bool) -> u32 {
    let (peer, work) = flood::peer(kind, busy);
    let worker = spawn(work);
    let end = Instant::now() + RUN;
    let mut interval = Interval::new(ms(10));
    let mut ticks = 0;
    while Instant::now() < end {
        interval.tick();
        ticks += 1;
    }
    drop(peer);
    worker.kill();
    let _ = worker.join();
    ticks
}
