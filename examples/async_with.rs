//! What must be undone, by code that waits: a guard in green code, `with_async` in `async` code.
//!
//! Run: `cargo run --release --example async_with` or `... -- async`
//!
//! Expect: `enter`, `ok`, `666`, `exit`, two seconds in all; then `enter` and `exit` around an error, and around a time-out.

use std::time::{Duration, Instant};

use greenthread::aio::{self, AsyncContext, TaskError};
use greenthread::sleep;

const SECOND: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(3600);

/// A connection whose opening and closing take `.0` each.
struct Connection(Duration);

impl AsyncContext for Connection {
    type Value = u32;

    async fn enter(&mut self) -> u32 {
        aio::sleep(self.0).await;
        println!("enter");
        666
    }

    async fn exit(&mut self) {
        aio::sleep(self.0).await;
        println!("exit");
    }
}

/// The same for green code.
struct Guard(Duration);

impl Guard {
    fn new(delay: Duration) -> Guard {
        sleep(delay);
        println!("enter");
        Guard(delay)
    }

    fn work(&self) -> u32 {
        666
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        sleep(self.0); // it waits; while it unwinds it may be short
        println!("exit");
    }
}

fn failing() -> Result<(), &'static str> {
    let _guard = Guard::new(Duration::ZERO);
    Err("no rows")
}

fn timed(start: Instant) {
    println!("in all: {:.1} s", start.elapsed().as_secs_f64());
}

fn green() {
    let start = Instant::now();
    let guard = Guard::new(SECOND);
    println!("ok\n{}", guard.work());
    drop(guard);
    timed(start);

    println!("{:?}", failing());
    let late = greenthread::timeout(SECOND / 10, || {
        let _guard = Guard::new(Duration::ZERO);
        sleep(LONG);
    });
    println!("timed out: {}", late.is_err());
}

async fn asynchronous() {
    let start = Instant::now();
    aio::with_async(Connection(SECOND), async |value| println!("ok\n{value}")).await;
    timed(start);

    let failed = aio::with_async(Connection(Duration::ZERO), async |_| Err::<(), _>("no rows")).await;
    println!("{failed:?}");
    let body = aio::with_async(Connection(Duration::ZERO), async |_| aio::sleep(LONG).await);
    let late = aio::timeout(Some(SECOND / 10)).run_async(body).await;
    aio::sleep(SECOND / 10).await; // a task of its own leaves
    println!("timed out: {}", late.is_err());
}

fn main() -> Result<(), TaskError> {
    if std::env::args().nth(1).as_deref() == Some("async") {
        return aio::run(asynchronous());
    }
    aio::run(aio::green(green))
}
