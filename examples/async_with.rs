//! What must be undone, by code that waits: a guard in green code, `with_async` in `async` code.
//!
//! Run: `cargo run --release --example async_with` or `... -- async`
//!
//! Expect: `enter`, `ok`, `666`, `exit`, two seconds in all; then `enter` and `exit` around an error, a time-out and a
//! cancel.

use std::time::{Duration, Instant};

use greenthread::aio::{self, AsyncContext, TaskError};
use greenthread::sleep;

const SECOND: Duration = Duration::from_secs(1);
const WORK: u32 = 666;
const LONG: Duration = Duration::from_secs(3600);

/// A connection whose opening and closing take `.0` each.
struct Connection(Duration);

impl AsyncContext for Connection {
    type Value = u32;

    async fn enter(&mut self) -> u32 {
        aio::sleep(self.0).await;
        println!("enter");
        WORK
    }

    async fn exit(&mut self) {
        aio::sleep(self.0).await;
        println!("exit");
    }
}

/// The same for green code.
struct Guard(Duration);

fn guard(delay: Duration) -> Guard {
    sleep(delay);
    println!("enter");
    Guard(delay)
}

impl Drop for Guard {
    fn drop(&mut self) {
        sleep(self.0); // it waits; while it unwinds it may be short
        println!("exit");
    }
}

fn failing() -> Result<(), &'static str> {
    let _guard = guard(Duration::ZERO);
    Err("no rows")
}

fn endless() {
    let _guard = guard(Duration::ZERO);
    sleep(LONG);
}

fn green() {
    let start = Instant::now();
    let guard = guard(SECOND);
    println!("ok\n{}", WORK);
    drop(guard);
    println!("in all: {:.1} s", start.elapsed().as_secs_f64());

    println!("{:?}", failing());
    println!("timed out: {}", greenthread::timeout(SECOND / 10, endless).is_err());
    let task = aio::create_task(aio::green(endless));
    sleep(SECOND / 10);
    task.cancel();
    println!("cancelled: {}", task.wait().is_err());
}

async fn asynchronous() {
    let start = Instant::now();
    aio::with_async(Connection(SECOND), async |value| println!("ok\n{value}")).await;
    println!("in all: {:.1} s", start.elapsed().as_secs_f64());

    let failed = aio::with_async(Connection(Duration::ZERO), async |_| Err::<(), _>("no rows")).await;
    println!("{failed:?}");
    let endless = || aio::with_async(Connection(Duration::ZERO), async |_| aio::sleep(LONG).await);
    let late = aio::timeout(Some(SECOND / 10)).run_async(endless()).await;
    aio::sleep(SECOND / 10).await; // a task of its own leaves
    println!("timed out: {}", late.is_err());
    let task = aio::create_task(endless());
    aio::sleep(SECOND / 10).await;
    task.cancel();
    aio::sleep(SECOND / 10).await; // likewise
    println!("cancelled: {}", task.await.is_err());
}

fn main() -> Result<(), TaskError> {
    if std::env::args().nth(1).as_deref() == Some("async") {
        return aio::run(asynchronous());
    }
    aio::run(aio::green(green))
}
