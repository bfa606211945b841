//! The bridges between green threads and tokio: each awaits the other, and what is dropped cleans up.
//!
//! ```text
//! cargo run --release --manifest-path examples/axum/Cargo.toml --bin bridges
//! ```
//!
//! Expect, in 0.3 s:
//!
//! ```text
//! 1) a task of tokio's awaited a green thread: 42
//! 2) a green thread awaited a task of tokio's: tea
//! 3) tokio's time-out: its guard was dropped on the green thread's stack
//! ```

use std::error::Error;
use std::time::Duration;

use greenthread::sync::Promise;
use greenthread::{future, hub::Hubs, sleep};
use tokio::time;

/// Says when it is dropped.
struct Guard(Promise<&'static str>);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.set("its guard was dropped on the green thread's stack");
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    // One OS thread for each world.
    let tokio = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_time()
        .build()?;
    let hubs = Hubs::new(1)?;
    let hub = hubs.handles()[0].clone();

    let green = hub.spawn(|| {
        sleep(Duration::from_millis(100));
        6 * 7
    })?;
    let answer = tokio.block_on(tokio.spawn(async move { green.await.map_err(|error| error.to_string()) }))??;
    println!("1) a task of tokio's awaited a green thread: {answer}");

    let task = tokio.spawn(async {
        time::sleep(Duration::from_millis(100)).await;
        "tea"
    });
    let word = hub.spawn(move || future::block_on(task))?.join()??;
    println!("2) a green thread awaited a task of tokio's: {word}");

    let dropped = Promise::new();
    let guard = Guard(dropped.clone());
    let sleeper = future::asyncify_on(&hub, move || {
        let _guard = guard;
        sleep(Duration::from_secs(60));
    })?;
    let late = tokio.block_on(async { time::timeout(Duration::from_millis(100), sleeper).await.is_err() });
    assert!(late);
    println!("3) tokio's time-out: {}", dropped.wait());
    Ok(())
}
