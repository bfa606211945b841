//! This library's side of the comparison: `ours WORKLOAD [N]`.

use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::rc::Rc;

use greenthread::generator::{Generator, Yielder};
use greenthread::greenlet::{self, Greenlet};
use greenthread::net::{TcpListener, TcpStream};
use greenthread::thread::{self, JoinHandle};
use greenthread::{spawn, spawn_local, time, yield_now};
use peers::{Args, Memory, Timers, each, emit, emit_mem, late, unsupported};

fn main() {
    let args = Args::read(0);
    match args.workload.as_str() {
        "switch" => switch(args.n_or(5_000_000)),
        "spawn" => spawns(args.n_or(500_000)),
        "yield" => local(move || yields(args.n_or(1000))),
        "mem" => local(move || mem(args.n_or(10_000))),
        "timers" => timers(args.n_or(100_000)),
        "echo" => local(move || echo(args.port())),
        other => unsupported(other),
    }
}

/// Runs `f` as a local green thread: the lean kind, and so are those that it makes.
fn local<T: 'static>(f: impl FnOnce() -> T + 'static) -> T {
    spawn_local(f).join().expect("no panic")
}

fn switch(n: u64) {
    let mut generator = Generator::<u64>::new(move |y: &Yielder<'_, u64, ()>| (0..n).for_each(|i| y.yield_(i)));
    let ns = each(2 * n, || assert_eq!(generator.by_ref().last(), Some(n - 1)));
    emit("switch", "generator", ns, "ns");

    let root = greenlet::current::<u64>();
    let echo = Greenlet::new(move |mut value: u64| {
        for _ in 0..n {
            value = root.switch(value + 1);
        }
        value
    });
    let ns = each(2 * n, || assert_eq!((0..n).fold(0, |value, _| echo.switch(value)), n));
    emit("switch", "greenlet", ns, "ns");

    local(move || emit("switch", "oneway", each(2 * n, || yield_all(2, n)), "ns"));
}

fn yield_all(threads: u64, times: u64) {
    join(
        (0..threads)
            .map(|_| spawn_local(move || (0..times).for_each(|_| yield_now())))
            .collect(),
    );
}

fn join<T>(threads: Vec<JoinHandle<T>>) -> Vec<T> {
    threads
        .into_iter()
        .map(|thread| thread.join().expect("no panic"))
        .collect()
}

fn spawns(n: u64) {
    let seq = move |local: bool| {
        each(n, || {
            for _ in 0..n {
                if local { spawn_local(|| ()) } else { spawn(|| ()) }
                    .join()
                    .expect("no panic");
            }
        })
    };
    let batch = move |local: bool| {
        each(n, || {
            for _ in 0..n / 1000 {
                join(
                    (0..1000)
                        .map(|_| if local { spawn_local(|| ()) } else { spawn(|| ()) })
                        .collect(),
                );
            }
        })
    };
    local(move || {
        emit("spawn", "seq", seq(true), "ns");
        emit("spawn", "batch", batch(true), "ns");
        emit("spawn", "seq_isolated", seq(false), "ns");
        emit("spawn", "batch_isolated", batch(false), "ns");
    });
    emit("spawn", "seq_main", seq(true), "ns");
    emit("spawn", "batch_main", batch(true), "ns");
}

fn yields(n: u64) {
    yield_all(1000, 1); // the stacks are there
    emit("yield", "each", each(1000 * n, || yield_all(1000, n)), "ns");
    let isolated = |n: u64| {
        join(
            (0..1000)
                .map(|_| spawn(move || (0..n).for_each(|_| yield_now())))
                .collect(),
        );
    };
    isolated(1);
    emit("yield", "each_isolated", each(1000 * n, || isolated(n)), "ns");
}

fn mem(n: u64) {
    let parked = Rc::new(Cell::new(0));
    let woken = Rc::new(Cell::new(false));
    let mut threads = Vec::with_capacity(n as usize);
    let before = Memory::now();
    let create = each(n, || {
        for _ in 0..n {
            let (parked, woken) = (parked.clone(), woken.clone());
            threads.push(spawn_local(move || {
                parked.set(parked.get() + 1);
                while !woken.get() {
                    thread::park();
                }
            }));
        }
        while parked.get() < n {
            yield_now();
        }
    });
    let after = Memory::now();
    let wake = each(n, || {
        woken.set(true);
        threads.iter().for_each(|thread| thread.thread().unpark());
        join(threads);
    });
    emit_mem(n, before, after, create, wake);
}

fn timers(n: u64) {
    let mut timers = Timers::new();
    let delays: Vec<_> = (0..n).map(|_| timers.delay()).collect();
    let lates = local(move || {
        let lates = Rc::new(RefCell::new(Vec::with_capacity(n as usize)));
        let sleep = |delay| {
            let lates = lates.clone();
            spawn_local(move || {
                let at = time::now() + delay;
                time::sleep_until(at);
                lates.borrow_mut().push(late(at, time::now()));
            })
        };
        join(delays.into_iter().map(sleep).collect());
        lates.take()
    });
    timers.emit(lates);
}

fn echo(port: u16) {
    let listener = TcpListener::bind(("127.0.0.1", port)).expect("a free port");
    loop {
        let (stream, _) = listener.accept().expect("a connection");
        spawn_local(move || echo_one(stream));
    }
}

fn echo_one(mut stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let mut buffer = [0; 4096];
    while let Ok(n @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
}
