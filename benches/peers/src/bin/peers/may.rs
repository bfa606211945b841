//! Coroutines of may, on one worker.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use may::coroutine::{self, JoinHandle, yield_now};
use may::go;
use may::net::{TcpListener, TcpStream};
use may::sync::{Mutex, Semphore, mpsc};
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
        "chan" => channels(args.n_or(500_000)),
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

fn channels(n: u64) {
    let (to, theirs) = mpsc::channel();
    let (back, from) = mpsc::channel();
    let ns = each(n, || {
        let other = go!(move || theirs.iter().for_each(|message| back.send(message).expect("open")));
        for i in 0..n / 2 {
            to.send(i).expect("open");
            assert_eq!(from.recv(), Ok(i));
        }
        drop(to);
        other.join().expect("no panic");
    });
    emit("chan", "pingpong", ns, "ns");

    let (to, from) = mpsc::channel();
    let ns = each(n, || {
        let other = go!(move || (0..n).for_each(|i| to.send(i).expect("open")));
        assert_eq!(from.iter().sum::<u64>(), n * (n - 1) / 2);
        other.join().expect("no panic");
    });
    emit("chan", "stream", ns, "ns");

    let (total, rounds) = (Arc::new(Mutex::new(0_u64)), n / 5000);
    let ns = each(rounds * 1000, || {
        let adder = |_| {
            let total = total.clone();
            go!(move || {
                for _ in 0..rounds {
                    let mut total = total.lock().expect("no poison");
                    yield_now();
                    *total += 1;
                }
            })
        };
        join((0..1000).map(adder).collect());
    });
    emit("chan", "mutex", ns, "ns");
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
