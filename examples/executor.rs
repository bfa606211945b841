//! Blocking calls that leave green threads running: in the default pool, in one's own, in processes.
//!
//! ```text
//! cargo run --release --example executor --features process-pool
//! ```
//!
//! Expect `default thread pool go`, `custom thread pool go` and `custom process pool go`, a second each, as each is waited
//! for: 3.0 s. Then three downloads by an unmodified blocking client, from a server of its own that thinks for a second:
//! three 开始下载, three 下载完成, in 1.0 s and not 3.0 s, with ticks of a green thread in between.

use std::net::{SocketAddr, TcpListener};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use greenthread::processpool::{Functions, ProcessPool, Workers};
use greenthread::threadpool::{PoolFuture, ThreadPool, run_in_executor, to_thread};
use greenthread::{sleep, spawn};

#[path = "servers/mod.rs"]
mod servers;

use servers::Outcome;

fn blocks(whose: String) -> String {
    std::thread::sleep(Duration::from_secs(1));
    format!("{whose} go")
}

fn three_pools(workers: &Workers) -> Outcome {
    let start = Instant::now();
    println!(
        "{}",
        run_in_executor(None, || blocks("default thread pool".into()))?.wait()?
    );
    let threads = ThreadPool::new(2);
    println!(
        "{}",
        run_in_executor(&threads, || blocks("custom thread pool".into()))?.wait()?
    );
    let processes = ProcessPool::new(workers, 2);
    println!("{}", processes.submit(blocks, "custom process pool".into())?.wait()?);
    println!("in turn: {:.2} s", start.elapsed().as_secs_f64());
    Ok(())
}

/// A web server on OS threads of its own.
fn server() -> Outcome<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let page = |path: &str| (Duration::from_secs(1), path.repeat(1000).into_bytes());
            std::thread::spawn(move || servers::answer(&mut &stream, page));
        }
    });
    Ok(address)
}

fn download(url: &str) -> Result<usize, ureq::Error> {
    Ok(ureq::get(url).call()?.body_mut().read_to_vec()?.len())
}

fn downloads() -> Outcome {
    let address = server()?;
    let start = Instant::now();
    let ticker = spawn(|| {
        loop {
            println!("tick");
            sleep(Duration::from_millis(250));
        }
    });
    let started = ["one.jpg", "two.jpg", "three.jpg"].map(|name| {
        println!("开始下载: {name}");
        let url = format!("http://{address}/{name}");
        (name, to_thread(move || download(&url)))
    });
    let finish = |(name, future): (&str, PoolFuture<Result<usize, ureq::Error>>)| {
        println!("下载完成: {name} {}", future.wait()??);
        Ok(())
    };
    let finished: Outcome = started.into_iter().try_for_each(finish);
    ticker.kill();
    println!("downloads: {:.2} s", start.elapsed().as_secs_f64());
    finished
}

fn main() -> ExitCode {
    let workers = Functions::new().with(blocks).serve();
    match three_pools(&workers).and_then(|()| downloads()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
