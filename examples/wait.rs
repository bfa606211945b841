//! Which are done, and which are not: the three ways to wait for several tasks, and a time-out.
//!
//! Run: `cargo run --release --example wait` or `... -- async`
//!
//! Expect (about eleven seconds): how many are done and pending, and when: 1/1 at 3.0 s, 1/2 at 1.0 s, 2/1 at 2.0 s with
//! `RuntimeError: Raising an exception.`, 2/0 at 2.0 s; `Done after 1s`, `2s`, `3s` in three seconds.

use std::time::{Duration, Instant};

use greenthread::aio::{self, ReturnWhen, Task, TaskError};
use greenthread::{future, sleep};

/// What a task gives after its sleep: an error if it is to fail.
fn outcome(seconds: u64, fails: bool) -> Result<String, &'static str> {
    if fails {
        return Err("RuntimeError: Raising an exception.");
    }
    Ok(format!("Done after {seconds}s"))
}

fn task(is_async: bool, seconds: u64, fails: bool) -> Task<String> {
    let delay = Duration::from_secs(seconds);
    if is_async {
        return aio::create_task(aio::fallible(async move {
            aio::sleep(delay).await;
            outcome(seconds, fails)
        }));
    }
    aio::create_task(aio::fallible(aio::green(move || {
        sleep(delay);
        outcome(seconds, fails)
    })))
}

/// Waits for tasks that sleep so long, and says what came of it; of each, when it is done, the outcome.
async fn show(is_async: bool, what: &str, sleeps: &[(u64, bool)], timeout: Option<u64>, when: ReturnWhen) {
    let start = Instant::now();
    let tasks: Vec<_> = sleeps.iter().map(|(n, fails)| task(is_async, *n, *fails)).collect();
    let timeout = timeout.map(Duration::from_secs);
    let (done, pending) = match is_async {
        true => aio::wait_async(&tasks, timeout, when).await,
        false => aio::wait(&tasks, timeout, when),
    };
    let took = start.elapsed().as_secs_f64();
    for task in &done {
        println!("{}", task.result().map_or_else(|error| error.to_string(), Clone::clone));
    }
    println!("{what} {}/{}: {took:.1} s", done.len(), pending.len());
    // Nothing was cancelled: that is ours to do.
    for task in pending {
        task.cancel();
    }
}

async fn program(is_async: bool) {
    let well = |n: u64| (n, false);
    show(
        is_async,
        "timeout",
        &[well(5), well(1)],
        Some(3),
        ReturnWhen::AllCompleted,
    )
    .await;
    let three = [well(3), well(2), well(1)];
    show(is_async, "FIRST_COMPLETED", &three, None, ReturnWhen::FirstCompleted).await;
    let one_fails = [well(1), (2, true), well(3)];
    show(
        is_async,
        "FIRST_EXCEPTION",
        &one_fails,
        None,
        ReturnWhen::FirstException,
    )
    .await;
    show(
        is_async,
        "none raised",
        &[well(1), well(2)],
        None,
        ReturnWhen::FirstException,
    )
    .await;
    show(
        is_async,
        "all",
        &[well(1), well(2), well(3)],
        None,
        ReturnWhen::AllCompleted,
    )
    .await;
}

fn main() -> Result<(), TaskError> {
    if std::env::args().nth(1).as_deref() == Some("async") {
        return aio::run(program(true));
    }
    aio::run(aio::green(|| future::block_on(program(false))))
}
