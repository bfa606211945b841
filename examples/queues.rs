//! Queues: what they hold, what they refuse, and workers that share jobs.
//!
//! Run: `cargo run --release --example queues`
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

use std::sync::Arc;
use std::time::{Duration, Instant};

use greenthread::sync::queue::{LifoQueue, PriorityQueue, Queue, QueueOf, Store, TryGetError, TryPutError};
use greenthread::{sleep, spawn};

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

/// One waits for what comes later.
fn later() {
    let queue = Arc::new(Queue::unbounded());
    let theirs = queue.clone();
    let getter = spawn(move || theirs.get().unwrap());
    sleep(Duration::from_secs(1));
    if !getter.is_finished() {
        println!("pending after 1.0 s");
    }
    queue.put("bar").unwrap();
    println!("{}", getter.join().unwrap());
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

fn workers() {
    let (jobs, start) = (Arc::new(Queue::bounded(3)), Instant::now());
    for _ in 0..3 {
        let jobs = jobs.clone();
        spawn(move || {
            // Ends when the queue is shut down.
            for job in &*jobs {
                sleep(job);
                jobs.task_done().unwrap();
            }
        });
    }
    // Waits while three are in the queue.
    (0..10).for_each(|_| jobs.put(Duration::from_millis(100)).unwrap());
    jobs.join();
    jobs.shutdown(false);
    println!("10 jobs by 3 workers: {:.2} s", start.elapsed().as_secs_f64());
}

fn main() {
    at_once();
    later();
    full();
    in_order("smallest", PriorityQueue::unbounded());
    in_order("newest", LifoQueue::unbounded());
    workers();
}
