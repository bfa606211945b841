//! How a program enters: `run` for one whose main is green, `aio::run` for an `async` one; and how lazy a closure and a future
//! are.
//!
//! Run: `cargo run --release --example run_entry` or `... -- async`
//!
//! Expect: `hello,world`, `15`, `42`, one a line. What is never spawned or polled prints nothing.

use greenthread::aio::{self, TaskError};
use greenthread::{run, spawn};

fn hello() -> String {
    String::from("hello,world")
}

fn sum(numbers: std::ops::Range<u32>) -> u32 {
    numbers.sum()
}

fn answer() -> u32 {
    42
}

fn green() {
    let lazy = || println!("never printed: nobody spawned it");
    let _ = lazy;
    println!("{}", run(|| spawn(hello).join().expect("it does not panic")));
    println!("{}", run(|| sum(1..6)));
    println!("{}", run(answer));
}

async fn nested() -> u32 {
    answer()
}

fn asynchronous() -> Result<(), TaskError> {
    drop(async { println!("never printed: nobody polled it") });
    println!("{}", aio::run(async { aio::create_task(async { hello() }).await })??);
    println!("{}", aio::run(async { sum(1..6) })?);
    println!("{}", aio::run(async { nested().await })?);
    Ok(())
}

fn main() -> Result<(), TaskError> {
    if std::env::args().nth(1).as_deref() == Some("async") {
        return asynchronous();
    }
    green();
    Ok(())
}
