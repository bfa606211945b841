//! Tasks on tokio's current-thread runtime.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

#[cfg(feature = "http")]
use axum::serve::ListenerExt;
use peers::{Args, Memory, Timers, emit, emit_mem, late, unsupported};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, Semaphore, mpsc};
use tokio::task::{spawn, yield_now};
use tokio::time::{Instant, sleep_until};

pub(crate) fn main(args: Args) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    // in a task, as a server's work would be
    runtime.block_on(async { spawn(work(args)).await.expect("no panic") });
}

async fn work(args: Args) {
    match args.workload.as_str() {
        "switch" => {
            let n = args.n_or(1_000_000);
            emit("switch", "oneway", yields(2, n).await, "ns");
        }
        "yield" => {
            yields(1000, 1).await; // as with the others
            emit("yield", "each", yields(1000, args.n_or(1000)).await, "ns");
        }
        "spawn" => spawns(args.n_or(500_000)).await,
        "mem" => mem(args.n_or(10_000)).await,
        "timers" => timers(args.n_or(100_000)).await,
        "chan" => channels(args.n_or(1_000_000)).await,
        #[cfg(feature = "http")]
        "http" => {
            let listener = TcpListener::bind(("127.0.0.1", args.port()))
                .await
                .expect("a free port");
            axum::serve(
                listener.tap_io(|stream| stream.set_nodelay(true).expect("a socket")),
                peers::router(),
            )
            .await
            .expect("no error");
        }
        "echo" => {
            let listener = TcpListener::bind(("127.0.0.1", args.port()))
                .await
                .expect("a free port");
            while let Ok((stream, _)) = listener.accept().await {
                spawn(echo(stream));
            }
        }
        other => unsupported(other),
    }
}

async fn yields(tasks: u64, n: u64) -> f64 {
    let start = Instant::now();
    let tasks: Vec<_> = (0..tasks).map(|_| spawn(yield_times(n))).collect();
    let count = tasks.len() as u64;
    for task in tasks {
        task.await.expect("no panic");
    }
    per(start, count * n)
}

async fn yield_times(n: u64) {
    for _ in 0..n {
        yield_now().await;
    }
}

fn per(start: Instant, n: u64) -> f64 {
    start.elapsed().as_nanos() as f64 / n as f64
}

async fn spawns(n: u64) {
    let start = Instant::now();
    for _ in 0..n {
        spawn(async {}).await.expect("no panic");
    }
    emit("spawn", "seq", per(start, n), "ns");
    let start = Instant::now();
    for _ in 0..n / 1000 {
        let tasks: Vec<_> = (0..1000).map(|_| spawn(async {})).collect();
        for task in tasks {
            task.await.expect("no panic");
        }
    }
    emit("spawn", "batch", per(start, n), "ns");
}

async fn mem(n: u64) {
    let gate = Arc::new(Semaphore::new(0));
    let parked = Arc::new(AtomicU64::new(0));
    let mut tasks = Vec::with_capacity(n as usize);
    let before = Memory::now();
    let start = Instant::now();
    for _ in 0..n {
        let (gate, parked) = (gate.clone(), parked.clone());
        tasks.push(spawn(async move {
            parked.fetch_add(1, Relaxed);
            gate.acquire().await.expect("open").forget();
        }));
    }
    while parked.load(Relaxed) < n {
        yield_now().await;
    }
    let create = per(start, n);
    let after = Memory::now();
    let start = Instant::now();
    gate.add_permits(n as usize);
    for task in tasks {
        task.await.expect("no panic");
    }
    emit_mem(n, before, after, create, per(start, n));
}

async fn timers(n: u64) {
    let mut timers = Timers::new();
    let sleep = |_| {
        let delay = timers.delay();
        spawn(async move {
            let at = Instant::now() + delay;
            sleep_until(at).await;
            late(at.into_std(), std::time::Instant::now())
        })
    };
    let tasks: Vec<_> = (0..n).map(sleep).collect();
    let mut lates = Vec::with_capacity(n as usize);
    for task in tasks {
        lates.push(task.await.expect("no panic"));
    }
    timers.emit(lates);
}

async fn channels(n: u64) {
    let (to, mut theirs) = mpsc::channel(1);
    let (back, mut from) = mpsc::channel(1);
    let start = Instant::now();
    let other = spawn(async move {
        while let Some(message) = theirs.recv().await {
            back.send(message).await.expect("open");
        }
    });
    for i in 0..n / 2 {
        to.send(i).await.expect("open");
        assert_eq!(from.recv().await, Some(i));
    }
    drop(to);
    other.await.expect("no panic");
    emit("chan", "pingpong", per(start, n), "ns");

    let (to, mut from) = mpsc::channel(1024);
    let start = Instant::now();
    spawn(async move {
        for i in 0..n {
            to.send(i).await.expect("open");
        }
    });
    let mut sum = 0;
    while let Some(i) = from.recv().await {
        sum += i;
    }
    assert_eq!(sum, n * (n - 1) / 2);
    emit("chan", "stream", per(start, n), "ns");

    let (total, rounds) = (Arc::new(Mutex::new(0_u64)), n / 2000);
    let start = Instant::now();
    let adder = |_| {
        let total = total.clone();
        spawn(async move {
            for _ in 0..rounds {
                let mut total = total.lock().await;
                yield_now().await;
                *total += 1;
            }
        })
    };
    for task in (0..1000).map(adder).collect::<Vec<_>>() {
        task.await.expect("no panic");
    }
    emit("chan", "mutex", per(start, rounds * 1000), "ns");
}

async fn echo(mut stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let mut buffer = [0; 4096];
    while let Ok(n @ 1..) = stream.read(&mut buffer).await {
        if stream.write_all(&buffer[..n]).await.is_err() {
            break;
        }
    }
}
