//! A lock, permit or message that is handed to a waiter whose OS thread has ended is not gone: the next one gets it.
//! The waiter is a stackless task, or a green thread in `block_on`.
#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use cases::{Verdict, ms, watchdog};
use greenthread::future::{self, block_on};
use greenthread::sync::{Mutex, Semaphore, channel};
use greenthread::{sleep, spawn};

const LIMIT: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    watchdog(ms(60_000));
    let mut verdict = Verdict::default();
    for how in ["task", "block_on"] {
        for what in ["mutex", "semaphore", "channel"] {
            verdict.holds(next_one_gets(how, what), format_args!("{what}, waiter is a {how}"));
        }
    }
    verdict.end()
}

fn next_one_gets(how: &'static str, what: &'static str) -> bool {
    let lock = Arc::new(Mutex::new(0));
    let permits = Arc::new(Semaphore::new(1));
    let (sender, receiver) = channel::unbounded::<u32>();
    let guard = lock.lock().unwrap();
    let permit = permits.acquire();
    let (their_lock, their_permits, their_receiver) = (lock.clone(), permits.clone(), receiver.clone());
    std::thread::spawn(move || {
        let wait = async move {
            match what {
                "mutex" => *their_lock.lock_async().await.unwrap() += 1,
                "semaphore" => drop(their_permits.acquire_async().await),
                _ => drop(their_receiver.recv_async().await),
            }
        };
        if how == "task" {
            drop(future::spawn(wait));
        } else {
            drop(spawn(move || block_on(wait)));
        }
        sleep(ms(20)); // it waits from here on
    })
    .join()
    .unwrap();
    drop((guard, permit));
    sender.send(5).unwrap();
    match what {
        "mutex" => lock.lock_timeout(LIMIT).is_ok(),
        "semaphore" => permits.acquire_timeout(LIMIT).is_some(),
        _ => receiver.recv_timeout(LIMIT).is_ok(),
    }
}
