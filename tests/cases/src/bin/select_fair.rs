//! `select!`: "if several are ready, any one of them is taken, each as likely as the others", also when those between
//! them are not ready.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use cases::Verdict;
use greenthread::sync::channel::{self, Receiver};
use greenthread::{select, spawn};

const ROUNDS: u32 = 30_000;

fn main() -> ExitCode {
    let mut verdict = Verdict::default();
    shares(&mut verdict, "native stack", rounds());
    shares(&mut verdict, "green thread", spawn(rounds).join().unwrap());
    shares(
        &mut verdict,
        "plain OS thread",
        std::thread::spawn(rounds).join().unwrap(),
    );
    verdict.end()
}

/// How often each branch was taken, first with all three ready and then with the first and last.
fn rounds() -> [[u32; 3]; 2] {
    let (a, c, d) = (full(), full(), full());
    let (_sender, b) = channel::unbounded::<()>();
    let (mut three, mut two) = ([0; 3], [0; 3]);
    for _ in 0..ROUNDS {
        select! { recv(a) -> _m => three[0] += 1, recv(c) -> _m => three[1] += 1, recv(d) -> _m => three[2] += 1 }
        select! { recv(a) -> _m => two[0] += 1, recv(b) -> _m => two[1] += 1, recv(c) -> _m => two[2] += 1 }
    }
    [three, two]
}

/// A channel with a message for each select.
fn full() -> Receiver<()> {
    let (sender, receiver) = channel::unbounded();
    for _ in 0..2 * ROUNDS {
        sender.send(()).unwrap();
    }
    std::mem::forget(sender);
    receiver
}

fn shares(verdict: &mut Verdict, name: &str, [three, two]: [[u32; 3]; 2]) {
    let is_fair = |count: u32, share: u32| count.abs_diff(share) <= share / 10;
    verdict.holds(
        three.iter().all(|count| is_fair(*count, ROUNDS / 3)),
        format_args!("{name}: three ready: {three:?}"),
    );
    verdict.holds(
        is_fair(two[0], ROUNDS / 2) && two[1] == 0 && is_fair(two[2], ROUNDS / 2),
        format_args!("{name}: first and last ready: {two:?}"),
    );
}
