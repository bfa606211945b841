//! A select whose send or put has gone through runs that branch, and no other one that became ready meanwhile.
//!
//! `sel [ROUNDS]`
#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::rc::Rc;

use cases::{Verdict, argument};
use greenthread::sync::{Event, channel, queue::Queue};
use greenthread::{select, spawn_local, yield_now};

/// How often the value went over and its branch ran; went over and the other ran; did not go over and the other ran.
#[derive(Default, Debug)]
struct Counts {
    sent: u32,
    both: u32,
    other: u32,
}

impl Counts {
    fn note(&mut self, got: bool, is_sent: bool) {
        match (got, is_sent) {
            (true, true) => self.sent += 1,
            (false, false) => self.other += 1,
            _ => self.both += 1,
        }
    }
}

fn main() -> ExitCode {
    let rounds: u32 = argument(1).map_or(1000, |rounds| rounds.parse().expect("a number"));
    let mut verdict = Verdict::default();
    for (what, once) in [("channel", channel_once as fn() -> (bool, bool)), ("queue", queue_once)] {
        let mut counts = Counts::default();
        for _ in 0..rounds {
            let (got, is_sent) = once();
            counts.note(got, is_sent);
        }
        verdict.holds(
            counts.both == 0 && counts.sent + counts.other == rounds && counts.sent > 0,
            format_args!("{what}: {counts:?}"),
        );
    }
    verdict.end()
}

fn channel_once() -> (bool, bool) {
    let (sender, receiver) = channel::bounded::<u32>(0);
    let event = Rc::new(Event::new());
    let theirs = event.clone();
    let select = spawn_local(move || {
        select! {
            send(sender, 1) => true,
            wait(*theirs) => false,
        }
    });
    yield_now(); // it waits
    let got = receiver.try_recv().is_ok();
    event.set();
    (got, select.join().unwrap())
}

fn queue_once() -> (bool, bool) {
    let queue = Rc::new(Queue::bounded(1));
    queue.put(0).unwrap();
    let event = Rc::new(Event::new());
    let (their_event, their_queue) = (event.clone(), queue.clone());
    let select = spawn_local(move || {
        select! {
            put(*their_queue, 1) => true,
            wait(*their_event) => false,
        }
    });
    yield_now(); // it waits
    queue.get().unwrap();
    event.set();
    let is_put = select.join().unwrap();
    (queue.try_get().is_ok(), is_put)
}
