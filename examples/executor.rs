//! Blocking calls that leave green threads running: in the default pool, in one's own, in processes.
//!
//! ```text
//! cargo run --release --example executor --features process-pool [-- async]
//! ```
//!
//! Expect `default thread pool go`, `custom thread pool go` and `custom process pool go`, a second each, as each is waited
//! for: 3.0 s. Then three downloads by an unmodified blocking client, from a server of its own that thinks for a second:
//! three `download begins`, three `download complete`, in 1.0 s and not 3.0 s, with ticks of a green thread in between.

use std::time::{Duration, Instant};

use greenthread::processpool::{Functions, ProcessPool, Workers};
use greenthread::threadpool::{JobError, PoolFuture, ThreadPool, run_in_executor, to_thread};
use greenthread::{future, sleep, spawn};

#[path = "servers/mod.rs"]
mod servers;

use servers::Outcome;

fn blocks(whose: String) -> String {
    std::thread::sleep(Duration::from_secs(1));
    format!("{whose} go")
}

/// What a job gives: green code waits for it, a task awaits it, and the ticker runs in both.
async fn value<T>(is_async: bool, job: PoolFuture<T>) -> Result<T, JobError> {
    if is_async { job.await } else { job.wait() }
}

async fn three_pools(is_async: bool, workers: Workers) -> Outcome {
    let start = Instant::now();
    let job = run_in_executor(None, || blocks("default thread pool".into()))?;
    println!("{}", value(is_async, job).await?);
    let threads = ThreadPool::new(2);
    let job = run_in_executor(&threads, || blocks("custom thread pool".into()))?;
    println!("{}", value(is_async, job).await?);
    let processes = ProcessPool::new(&workers, 2);
    let job = processes.submit(blocks, "custom process pool".into())?;
    println!("{}", value(is_async, job).await?);
    println!("in turn: {:.2} s", start.elapsed().as_secs_f64());
    Ok(())
}

fn download(url: &str) -> Result<usize, ureq::Error> {
    Ok(ureq::get(url).call()?.body_mut().read_to_vec()?.len())
}

async fn downloads(is_async: bool) -> Outcome {
    let address = servers::http_on_threads()?;
    let start = Instant::now();
    let ticker = spawn(|| {
        loop {
            println!("tick");
            sleep(Duration::from_millis(250));
        }
    });
    let started = ["one.jpg", "two.jpg", "three.jpg"].map(|name| {
        println!("download begins: {name}");
        let url = format!("http://{address}/{name}");
        (name, to_thread(move || download(&url)))
    });
    for (name, job) in started {
        println!("download complete: {name} {}", value(is_async, job).await??);
    }
    ticker.kill();
    println!("downloads: {:.2} s", start.elapsed().as_secs_f64());
    Ok(())
}

fn main() -> Outcome {
    let workers = Functions::new().with(blocks).serve();
    let is_async = std::env::args().nth(1).as_deref() == Some("async");
    future::block_on(async {
        three_pools(is_async, workers).await?;
        downloads(is_async).await
    })
}
