//! A result that is to come: a `JoinHandle` or a task, or a `Promise` that somebody sets.
//!
//! Run: `cargo run --release --example future_obj` or `... -- async`, and `... -- never`
//!
//! Expect: `50! = 30414093201713378043612608166064768844377641568960512000000000000` after one second, `666` after two.
//! With `never`: nobody sets the result. asyncio would hang. Here stderr gets two lines, and the exit code is 1: first the
//! hub's own, `greenthread: this operation would block forever: ..`, with who waits for what; then the program's, `error: ..`
//! with the same text, which it got as the payload of a panic.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Duration;

use greenthread::hub::LoopExit;
use greenthread::sync::Promise;
use greenthread::{aio, sleep, spawn};

/// n! in decimal digits, by hand.
fn factorial(n: u32) -> String {
    let mut digits = vec![1];
    for factor in 2..=n {
        let mut carry = 0;
        for digit in &mut digits {
            carry += *digit * factor;
            *digit = carry % 10;
            carry /= 10;
        }
        while carry > 0 {
            digits.push(carry % 10);
            carry /= 10;
        }
    }
    digits.iter().rev().map(u32::to_string).collect()
}

fn never() -> ExitCode {
    let waited = catch_unwind(AssertUnwindSafe(|| *Promise::<u32>::new().wait()));
    match waited.map_err(|payload| payload.downcast::<LoopExit>()) {
        Err(Ok(exit)) => eprintln!("error: {exit}"),
        other => eprintln!("something else came: {other:?}"),
    }
    ExitCode::FAILURE
}

fn green() {
    let product = spawn(|| {
        sleep(Duration::from_secs(1));
        factorial(50)
    });
    let promise = Promise::new();
    let theirs = promise.clone();
    spawn(move || {
        sleep(Duration::from_secs(2));
        theirs.set(666).expect("nobody else sets it");
        assert_eq!(theirs.set(667), Err(667)); // once only
    });
    println!("50! = {}", product.join().expect("it only multiplies"));
    println!("{}", promise.wait());
}

async fn asynchronous() -> Result<(), aio::TaskError> {
    let product = aio::create_task(async {
        aio::sleep(Duration::from_secs(1)).await;
        factorial(50)
    });
    let promise = aio::create_future();
    let theirs = promise.clone();
    aio::create_task(async move {
        aio::sleep(Duration::from_secs(2)).await;
        theirs.set(666).expect("nobody else sets it");
        assert_eq!(theirs.set(667), Err(667)); // once only
    });
    println!("50! = {}", product.await?);
    println!("{}", promise.wait_async().await);
    Ok(())
}

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("never") => return never(),
        Some("async") => aio::run(asynchronous()).flatten().expect("nobody cancels it"),
        _ => green(),
    }
    ExitCode::SUCCESS
}
