//! Several at once, and their values in the order of asking.
//!
//! Run: `cargo run --release --example gather` or `... -- async`
//!
//! Expect: the nine lines of three factorials that are worked out together, in three seconds; the three teas in the order
//! given; one callback on the whole; then 14!, 13! and 16!, in seven and a half seconds.

use std::time::{Duration, Instant};

use greenthread::aio::{self, Task, TaskError};
use greenthread::future::block_on;
use greenthread::sleep;

/// One step of a factorial.
fn step(name: &str, i: u64, product: &mut u64) {
    if !name.is_empty() {
        println!("Task {name}: Compute factorial({i})...");
    }
    *product *= i;
}

fn end(name: &str, n: u64, product: u64) -> u64 {
    if !name.is_empty() {
        println!("Task {name}: factorial({n}) = {product}");
    }
    product
}

/// n!, with a pause after each factor.
fn factorial(is_async: bool, name: &'static str, n: u64, pause: Duration) -> Task<u64> {
    let mut product = 1;
    if is_async {
        return aio::create_task(async move {
            for i in 2..=n {
                step(name, i, &mut product);
                aio::sleep(pause).await;
            }
            end(name, n, product)
        });
    }
    aio::create_task(aio::green(move || {
        for i in 2..=n {
            step(name, i, &mut product);
            sleep(pause);
        }
        end(name, n, product)
    }))
}

fn tea(is_async: bool, name: &'static str, after: u64) -> Task<&'static str> {
    let pause = Duration::from_millis(after);
    if is_async {
        return aio::create_task(async move { (name, aio::sleep(pause).await).0 });
    }
    aio::create_task(aio::green(move || (name, sleep(pause)).0))
}

async fn program(is_async: bool) -> Result<(), TaskError> {
    let timed = |what: &str, start: Instant| println!("{what}: {:.1} s", start.elapsed().as_secs_f64());
    let start = Instant::now();
    let all = [("A", 2), ("B", 3), ("C", 4)];
    // In green code: gather(..).wait()?
    aio::gather(all.map(|(name, n)| factorial(is_async, name, n, Duration::from_secs(1)))).await?;
    timed("A B C", start);

    let teas = [("chamomile tea", 30), ("green tea", 10), ("herbal tea", 20)];
    let teas = aio::gather(teas.map(|(name, after)| tea(is_async, name, after)));
    println!("{}", teas.done());
    teas.add_done_callback(|teas| {
        if let Ok([_, green, herbal]) = teas.result().map(Vec::as_slice) {
            println!("Mixing the {herbal} and {green} together.");
        }
    });
    println!("{:?}", teas.await?);

    let start = Instant::now();
    let pause = Duration::from_millis(500);
    let values = aio::gather([14, 13, 16].map(|n| factorial(is_async, "", n, pause))).await?;
    println!("14! = {}, 13! = {}, 16! = {}", values[0], values[1], values[2]);
    timed("factorials", start);
    Ok(())
}

fn main() -> Result<(), TaskError> {
    if std::env::args().nth(1).as_deref() == Some("async") {
        return aio::run(program(true))?;
    }
    aio::run(aio::green(|| block_on(program(false))))?
}
