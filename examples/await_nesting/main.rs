//! What `await` and nested coroutines are in green threads: plain calls, at any depth. And the same with `await`.
//!
//! Run: `cargo run --release --example await_nesting` or `... -- async`
//!
//! Expect (about ten seconds in all): `1 3 2 4` with two seconds in the middle; `[5, 7, 11, 17]` out of nested calls;
//! `ends None`; `hello`, a second later `world`; two calls in a row take 3.0 s, two others 4.0 s: to wait for one thing
//! after the other is sequential, and only green threads and tasks make it concurrent.

mod asynchronous;
mod green;

use std::time::{Duration, Instant};

use greenthread::aio::{self, TaskError};

const SECOND: Duration = Duration::from_secs(1);

/// Says how long it is since it last said so.
fn timer() -> impl FnMut(&str) {
    let mut start = Instant::now();
    move |what| {
        println!("{what}: {:.1} s", start.elapsed().as_secs_f64());
        start = Instant::now();
    }
}

fn main() -> Result<(), TaskError> {
    if std::env::args().nth(1).as_deref() == Some("async") {
        return aio::run(asynchronous::program())?;
    }
    greenthread::run(green::program);
    Ok(())
}
