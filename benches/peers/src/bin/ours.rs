//! This library's side of the comparison: `ours WORKLOAD [N]`.

use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use greenthread::generator::{Generator, Yielder};
use greenthread::greenlet::{self, Greenlet};
use greenthread::net::{TcpListener, TcpStream};
use greenthread::sync::{Mutex, channel};
use greenthread::thread::{self, JoinHandle};
use greenthread::{monkey, run, spawn, spawn_local, time, yield_now};
use peers::{Args, Memory, Timers, cpu_ns, each, emit, emit_mem, late, unsupported};

fn main() {
    let args = Args::read(0);
    match args.workload.as_str() {
        "switch" => switch(args.n_or(5_000_000)),
        "spawn" => spawns(args.n_or(500_000)),
        "yield" => local(move || yields(args.n_or(1000))),
        "mem" => local(move || mem(args.n_or(10_000))),
        "timers" => timers(args.n_or(100_000)),
        "redis" | "redisblock" | "blpop" | "httpdelay" => clients(&args),
        "chan" => local(move || channels(args.n_or(1_000_000))),
        "inbox" => local(move || inbox(args.n_or(5_000_000))),
        "threads" | "threads-patched" => threads(&args.workload, args.n_or(2_000)),
        "echo" => local(move || echo(args.port())),
        #[cfg(feature = "http")]
        "http" => local(move || {
            let listener = TcpListener::bind(("127.0.0.1", args.port())).expect("a free port");
            let server = greenthread::http::HttpServer::tower_local(listener, peers::router());
            server.serve_forever().expect("no error");
        }),
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
    isolated_mem(n.min(100_000));
}

/// What isolated ones take while they are parked, and what is left of many that ran one after the other; each has used
/// malloc.
fn isolated_mem(n: u64) {
    let used = || drop(std::hint::black_box(vec![1_u8; 1000]));
    let before = Memory::now();
    let threads: Vec<_> = (0..n)
        .map(|_| {
            spawn(move || {
                used();
                thread::park();
            })
        })
        .collect();
    yield_now();
    let now = Memory::now();
    let (each, tables) = (now.since(before) / n as f64, now.tables_since(before) / n as f64);
    threads.iter().for_each(|thread| thread.thread().unpark());
    join(threads);
    emit(&format!("mem{n}"), "rss_each_isolated", each, "B");
    emit(&format!("mem{n}"), "pte_each_isolated", tables, "B");
    let churn = |times: u64| (0..times).for_each(|_| spawn(used).join().expect("no panic"));
    churn(10_000);
    let before = Memory::now();
    churn(1_000_000);
    emit("mem1M", "rss_left_isolated", Memory::now().since(before), "B");
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

/// Unmodified blocking clients on patched libc: green threads of one OS thread, each with a connection of its own.
fn clients(args: &Args) {
    monkey::patch_all().expect("isolation works here");
    let (n, port) = (args.n.expect("a number"), args.second.expect("a port"));
    let workload = args.workload.clone();
    let (workers, rounds) = match &*workload {
        "redis" | "redisblock" => (100, n / 100),
        _ => (n, 1),
    };
    let counted = workload.clone();
    let cpu = peers::cpu_ns();
    let wall = each(1, || {
        run(move || {
            let workers = (0..workers).map(|worker| {
                let workload = workload.clone();
                spawn(move || client(&workload, worker, rounds, port))
            });
            join(workers.collect());
        });
    });
    let name = if counted == "blpop" {
        format!("blpop{n}")
    } else {
        counted
    };
    emit(&name, "wall", wall / 1e6, "ms");
    emit(&name, "cpu_each", (peers::cpu_ns() - cpu) as f64 / n as f64, "ns");
    emit(&name, "rss", Memory::now().resident() / 1_048_576.0, "MiB");
}

fn client(workload: &str, worker: u64, rounds: u64, port: u16) {
    if workload == "httpdelay" {
        let mut response = ureq::get(format!("http://127.0.0.1:{port}/"))
            .call()
            .expect("an answer");
        assert_eq!(response.body_mut().read_to_string().expect("a body"), "ok");
        return;
    }
    let client = redis::Client::open(format!("redis://127.0.0.1:{port}/")).expect("a URL");
    let mut connection = client.get_connection().expect("a connection");
    for _ in 0..rounds {
        if workload == "redis" {
            let _: Option<String> = redis::cmd("GET").arg("k").query(&mut connection).expect("an answer");
        } else {
            let time = if workload == "blpop" { 0.2 } else { 0.1 };
            let mut pop = redis::cmd("BLPOP");
            let nothing: Option<(String, String)> = pop
                .arg(format!("no{worker}"))
                .arg(time)
                .query(&mut connection)
                .expect("an answer");
            assert!(nothing.is_none());
        }
    }
}

fn channels(n: u64) {
    let (there, their) = channel::bounded::<u64>(1);
    let (back, mine) = channel::bounded::<u64>(1);
    let ns = each(n, move || {
        let other = spawn_local(move || (0..n / 2).for_each(|_| back.send(their.recv().expect("one")).expect("sent")));
        for i in 0..n / 2 {
            there.send(i).expect("sent");
            mine.recv().expect("one");
        }
        other.join().expect("no panic");
    });
    emit("chan", "pingpong", ns, "ns");

    let (sender, receiver) = channel::bounded::<u64>(1024);
    let ns = each(n, move || {
        let other = spawn_local(move || (0..n).for_each(|i| sender.send(i).expect("sent")));
        assert_eq!(receiver.iter().sum::<u64>(), n * (n - 1) / 2);
        other.join().expect("no panic");
    });
    emit("chan", "stream", ns, "ns");

    let (total, rounds) = (Arc::new(Mutex::new(0_u64)), n / 2000);
    let ns = each(rounds * 1000, || {
        let adder = || {
            let total = total.clone();
            spawn_local(move || {
                for _ in 0..rounds {
                    let mut total = total.lock().expect("no poison");
                    yield_now();
                    *total += 1;
                }
            })
        };
        join((0..1000).map(|_| adder()).collect());
    });
    emit("chan", "mutex", ns, "ns");

    let free = Mutex::new(0_u64);
    let ns = each(10 * n, || {
        for _ in 0..10 * n {
            *std::hint::black_box(&free).lock().expect("no poison") += 1;
        }
    });
    emit("chan", "uncontended", ns, "ns");
}

/// Messages from 4 OS threads into a green thread of this hub: how many came, in what time, and the latest of them.
fn inbox(n: u64) {
    let (sender, receiver) = channel::bounded::<Instant>(1024);
    let senders: Vec<_> = (0..4)
        .map(|_| {
            let sender = sender.clone();
            std::thread::spawn(move || (0..n / 4).for_each(|_| sender.send(Instant::now()).expect("sent")))
        })
        .collect();
    drop(sender);
    let mut latest = Duration::ZERO;
    let mut count = 0;
    let ns = each(n, || {
        for sent in receiver {
            latest = latest.max(sent.elapsed());
            count += 1;
        }
    });
    senders.into_iter().for_each(|sender| sender.join().expect("no panic"));
    emit("inbox", "message", ns, "ns");
    emit("inbox", "lost", (n / 4 * 4 - count) as f64, "");
    emit("inbox", "latest", latest.as_secs_f64() * 1e3, "ms");
}

/// An ordinary program of `std::thread`s, `n` that serve and `n` that ask 100 times: as OS threads or, patched, green.
fn threads(workload: &str, n: u64) {
    const REQUESTS: u64 = 100;
    let work = move || {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let server = std::thread::spawn(move || {
            let serve = |mut stream: std::net::TcpStream| {
                let mut bytes = [0; 64];
                while stream.read_exact(&mut bytes).is_ok() {
                    stream.write_all(&bytes).expect("sent");
                }
            };
            let streams = (0..n).map(|_| listener.accept().expect("a connection").0);
            let all: Vec<_> = streams
                .map(|stream| std::thread::spawn(move || serve(stream)))
                .collect();
            all.into_iter().for_each(|one| one.join().expect("no panic"));
        });
        let ask = move || {
            let mut stream = std::net::TcpStream::connect(address).expect("a connection");
            let mut sum = 0;
            for request in 1..=REQUESTS {
                let mut bytes = [request as u8; 64];
                stream.write_all(&bytes).expect("sent");
                stream.read_exact(&mut bytes).expect("an answer");
                sum += u64::from(bytes[63]);
            }
            sum
        };
        let clients: Vec<_> = (0..n).map(|_| std::thread::spawn(ask)).collect();
        let sum: u64 = clients.into_iter().map(|client| client.join().expect("no panic")).sum();
        server.join().expect("no panic");
        sum
    };
    let (start, cpu) = (Instant::now(), cpu_ns());
    let sum = if workload == "threads" {
        work()
    } else {
        greenthread::monkey::patch_threads().expect("patched");
        greenthread::run(work)
    };
    assert_eq!(sum, n * REQUESTS * (REQUESTS + 1) / 2);
    emit(workload, "wall", start.elapsed().as_secs_f64() * 1e3, "ms");
    emit(workload, "cpu", (cpu_ns() - cpu) as f64 / 1e6, "ms");
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
