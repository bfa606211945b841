//! Tasks wait by `.await`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use greenthread::aio;
use greenthread::sync::queue::Queue;

/// One waits for what comes later.
pub(crate) async fn later() {
    let queue = Arc::new(Queue::unbounded());
    let theirs = queue.clone();
    let getter = aio::create_task(async move { theirs.get_async().await.unwrap() });
    aio::sleep(Duration::from_secs(1)).await;
    if !getter.done() {
        println!("pending after 1.0 s");
    }
    queue.put_async("bar").await.unwrap();
    println!("{}", getter.await.unwrap());
}

pub(crate) async fn workers() {
    let (jobs, start) = (Arc::new(Queue::bounded(3)), Instant::now());
    for _ in 0..3 {
        let jobs = jobs.clone();
        aio::create_task(async move {
            while let Ok(job) = jobs.get_async().await {
                aio::sleep(job).await;
                jobs.task_done().unwrap();
            }
        });
    }
    for _ in 0..10 {
        jobs.put_async(Duration::from_millis(100)).await.unwrap();
    }
    jobs.join_async().await;
    jobs.shutdown(false);
    println!("10 jobs by 3 workers: {:.2} s", start.elapsed().as_secs_f64());
}
