//! Queues: what they hold, what they refuse, and workers that share jobs.
//!
//! Run: `cargo run --release --example queues` or `... -- async`
//!
//! Expect, in 1.4 s:
//!
//! ```text
//! 1
//! foo
//! 0
//! QueueEmpty
//! pending after 1.0 s
//! bar
//! QueueFull
//! smallest first: 1 2 3
//! newest first: 2 1 3
//! 10 jobs by 3 workers: 0.40 s
//! ```

mod asynchronous;
mod green;

use greenthread::aio;
use greenthread::sync::queue::{LifoQueue, PriorityQueue, Queue, QueueOf, Store, TryGetError, TryPutError};

/// Nobody waits.
fn at_once() {
    let queue = Queue::unbounded();
    queue.put("foo").unwrap();
    println!("{}", queue.len());
    println!("{}", queue.get().unwrap());
    println!("{}", queue.len());
    if queue.try_get() == Err(TryGetError::Empty) {
        println!("QueueEmpty");
    }
}

fn full() {
    let queue = Queue::bounded(5);
    (0..5).for_each(|n| queue.put(n).unwrap());
    if queue.try_put(5) == Err(TryPutError::Full(5)) {
        println!("QueueFull");
    }
}

fn in_order<S: Store<u32>>(name: &str, queue: QueueOf<u32, S>) {
    [3, 1, 2].into_iter().for_each(|n| queue.put(n).unwrap());
    let numbers: Vec<_> = queue.try_iter().map(|n| n.to_string()).collect();
    println!("{name} first: {}", numbers.join(" "));
}

fn main() {
    let is_async = std::env::args().nth(1).as_deref() == Some("async");
    at_once();
    match is_async {
        true => aio::run(asynchronous::later()).unwrap(),
        false => green::later(),
    }
    full();
    in_order("smallest", PriorityQueue::unbounded());
    in_order("newest", LifoQueue::unbounded());
    match is_async {
        true => aio::run(asynchronous::workers()).unwrap(),
        false => green::workers(),
    }
}
