//! Green threads wait by plain calls.

use std::sync::Arc;
use std::time::{Duration, Instant};

use greenthread::sync::queue::Queue;
use greenthread::{sleep, spawn};

/// One waits for what comes later.
pub(crate) fn later() {
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

pub(crate) fn workers() {
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
