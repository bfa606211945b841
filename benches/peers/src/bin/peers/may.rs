//! Coroutines of may, on one worker.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use may::coroutine::{self, JoinHandle, yield_now};
use may::go;
use may::net::{TcpListener, TcpStream};
use may::sync::Semphore;
use peers::{Args, Memory, Timers, each, emit, emit_mem, late, unsupported};

pub(crate) fn main(args: Args) {
    may::config().set_workers(1);
    if ["mem", "timers"].contains(&args.workload.as_str()) {
        may::config().set_stack_size(0x400); // in words: 8 KiB instead of 32
    }
    match args.workload.as_str() {
        // from outside: measuring and printing need more than these small stacks
        "mem" => mem(args.n_or(10_000)),
        "timers" => timers(args.n_or(100_000)),
        _ => drop(join(vec![go!(move || work(args))])),
    }
}

fn join<T>(threads: Vec<JoinHandle<T>>) -> Vec<T> {
    threads
        .into_iter()
        .map(|thread| thread.join().expect("no panic"))
        .collect()
}

fn work(args: Args) {
    match args.workload.as_str() {
        "switch" => {
            let n = args.n_or(1_000_000);
            emit("switch", "oneway", each(2 * n, || yields(2, n)), "ns");
        }
        "yield" => {
            let n = args.n_or(1000);
            yields(1000, 1); // the stacks are there
            emit("yield", "each", each(1000 * n, || yields(1000, n)), "ns");
        }
        "spawn" => spawns(args.n_or(200_000)),
        "echo" => {
            let listener = TcpListener::bind(("127.0.0.1", args.port())).expect("a free port");
            while let Ok((stream, _)) = listener.accept() {
                go!(move || echo(stream));
            }
        }
        other => unsupported(other),
    }
}

fn yields(threads: u64, n: u64) {
    join(
        (0..threads)
            .map(|_| go!(move || (0..n).for_each(|_| yield_now())))
            .collect(),
    );
}

fn spawns(n: u64) {
    let seq = each(n, || (0..n).for_each(|_| go!(|| ()).join().expect("no panic")));
    emit("spawn", "seq", seq, "ns");
    let batch = each(n, || {
        for _ in 0..n / 1000 {
            join((0..1000).map(|_| go!(|| ())).collect());
        }
    });
    emit("spawn", "batch", batch, "ns");
}

fn mem(n: u64) {
    let gate = Arc::new(Semphore::new(0));
    let parked = Arc::new(AtomicU64::new(0));
    let mut threads = Vec::with_capacity(n as usize);
    let before = Memory::now();
    let create = each(n, || {
        for _ in 0..n {
            let (gate, parked) = (gate.clone(), parked.clone());
            threads.push(go!(move || {
                parked.fetch_add(1, Relaxed);
                gate.wait();
            }));
        }
        while parked.load(Relaxed) < n {
            std::thread::sleep(Duration::from_micros(100));
        }
    });
    let after = Memory::now();
    let wake = each(n, || {
        (0..n).for_each(|_| gate.post());
        join(threads);
    });
    emit_mem(n, before, after, create, wake);
}

fn timers(n: u64) {
    let mut timers = Timers::new();
    let sleep = |_| {
        let delay = timers.delay();
        go!(move || {
            let at = Instant::now() + delay;
            coroutine::sleep(delay);
            late(at, Instant::now())
        })
    };
    let lates = join((0..n).map(sleep).collect());
    timers.emit(lates);
}

fn echo(mut stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let mut buffer = [0; 4096];
    while let Ok(n @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
}
