//! How a program enters: `run` for one whose main is green; and how lazy a closure and a future are.
//!
//! Run: `cargo run --release --example run_entry`
//!
//! Expect: `hello,world`, `15`, `42`, one a line. What is never spawned or polled prints nothing.

use greenthread::future::block_on;
use greenthread::{run, spawn};

fn sum(numbers: std::ops::Range<u32>) -> u32 {
    numbers.sum()
}

async fn nested() -> u32 {
    42
}

fn main() {
    // A closure does nothing until it is spawned.
    let lazy = || println!("never printed: nobody spawned it");
    let _ = lazy;
    // A future does nothing until it is polled.
    drop(async { println!("never printed: nobody polled it") });

    let greeting = run(|| spawn(|| String::from("hello,world")).join().expect("it does not panic"));
    println!("{greeting}");
    println!("{}", run(|| sum(1..6)));
    println!("{}", block_on(nested()));
}
