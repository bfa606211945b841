//! Tasks and their callbacks, of green code or of futures.
//!
//! Run: `cargo run --release --example tasks` or `... -- async`
//!
//! Expect (about nine seconds): that there is no loop yet; `main begins main ends 1 1 2 2 result result` in two seconds,
//! by tasks `n1`, `n2`; `InvalidStateError`, later `chamomile tea`; one and two seconds together are 2.0 s; `7` after
//! three seconds and `4` after five, printed by callbacks.

use std::time::{Duration, Instant};

use greenthread::aio::{self, Task, TaskError};
use greenthread::sleep;

/// Whether bodies are futures.
type Async = bool;

/// A task that says something, waits, and says another thing.
fn task<T: Send + Sync + 'static>(is_async: Async, seconds: u64, words: [&'static str; 2], value: T) -> Task<T> {
    let say = |word: &str| {
        if !word.is_empty() {
            println!("{word}");
        }
    };
    let delay = Duration::from_secs(seconds);
    if is_async {
        return aio::create_task(async move {
            say(words[0]);
            aio::sleep(delay).await;
            say(words[1]);
            value
        });
    }
    aio::create_task(aio::green(move || {
        say(words[0]);
        sleep(delay);
        say(words[1]);
        value
    }))
}

fn timed<T>(what: &str, start: Instant, value: T) -> T {
    println!("{what}: {:.1} s", start.elapsed().as_secs_f64());
    value
}

async fn program(is_async: Async) -> Result<(), TaskError> {
    let start = Instant::now();
    println!("main begins");
    let two = ["n1", "n2"].map(|name| {
        let task = task(is_async, 2, ["1", "2"], "result");
        task.set_name(name);
        task
    });
    println!("main ends");
    for task in two {
        // In green code: task.wait()?
        println!("{} {}", task.clone().await?, task.name());
    }
    timed("two tasks", start, ());

    let tea = task(is_async, 0, ["Now making chamomile tea.", ""], "chamomile tea");
    println!("default name: {}", tea.name().starts_with("Task-"));
    if let Err(TaskError::InvalidState) = tea.result() {
        println!("InvalidStateError");
    }
    tea.clone().await?;
    println!("{} {}", tea.done(), tea.result()?);

    let start = Instant::now();
    let (one, two) = (
        task(is_async, 1, ["", "hello"], ()),
        task(is_async, 2, ["", "world"], ()),
    );
    one.await?;
    timed("concurrent", start, two.await)?;

    let start = Instant::now();
    let sums = [(5, 4), (3, 7)].map(|(seconds, sum)| task(is_async, seconds, ["", ""], sum));
    for sum in &sums {
        sum.add_done_callback(move |sum| {
            let value = sum.result().copied().unwrap_or_default();
            timed(&format!("callback {value}"), start, ());
        });
    }
    aio::gather(sums).await?;
    timed("callbacks", start, Ok(()))
}

fn main() -> Result<(), TaskError> {
    let is_async = std::env::args().nth(1).as_deref() == Some("async");
    if let Err(error) = aio::try_create_task(async {}) {
        println!("{error}");
    }
    if is_async {
        return aio::run(program(true))?;
    }
    // The main of green code blocks on what it calls.
    aio::run(aio::green(|| greenthread::future::block_on(program(false))))?
}
