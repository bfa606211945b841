//! Criterion's view of the basics: `cargo bench`. The comparison with peers is in `benches/peers`.

use std::cell::Cell;
use std::future::poll_fn;
use std::hint::black_box;
use std::io::{Read, Write};
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use greenthread::future::block_on;
use greenthread::generator::Generator;
use greenthread::net::{TcpListener, TcpStream};
use greenthread::thread::{self, Group};
use greenthread::time::Timeout;
use greenthread::{future, hub, run, spawn, spawn_local, yield_now};

fn switch(c: &mut Criterion) {
    c.bench_function("switch/generator/round", |b| {
        let mut numbers = Generator::<u64>::new(|y| {
            for n in 0.. {
                y.yield_(n);
            }
        });
        b.iter(|| black_box(numbers.next()));
    });
    c.bench_function("yield/two", |b| {
        let other = spawn(|| {
            loop {
                yield_now();
            }
        });
        b.iter(yield_now);
        other.kill();
        assert!(other.join().is_err());
    });
}

fn spawns(c: &mut Criterion) {
    c.bench_function("spawn/local/seq", |b| {
        b.iter(|| spawn_local(|| black_box(1)).join().unwrap())
    });
    c.bench_function("spawn/local/batch_of_1000", |b| {
        b.iter(|| {
            let all: Vec<_> = (0..1000).map(|_| spawn_local(|| ())).collect();
            all.into_iter().for_each(|handle| handle.join().unwrap());
        });
    });
}

/// How long it takes until 10,000 green threads that wait have ended: for a nursery, because number 5,000 fails.
fn ends(c: &mut Criterion) {
    const ALL: usize = 10_000;
    c.bench_function("end/10000/group_kill", |b| {
        b.iter_custom(|rounds| {
            let round = || {
                let group = Group::new();
                (0..ALL).for_each(|_| drop(group.spawn_local(thread::park)));
                yield_now();
                let start = Instant::now();
                group.kill();
                start.elapsed()
            };
            (0..rounds).map(|_| round()).sum()
        })
    });
    c.bench_function("end/10000/nursery_fails", |b| {
        b.iter_custom(|rounds| {
            let round = || {
                let mut start = Instant::now();
                let failed: Result<(), _> = thread::nursery(|n| {
                    let child = |_| {
                        n.spawn_local(|| {
                            thread::park();
                            Ok(())
                        })
                    };
                    (0..ALL / 2).map(child).for_each(drop);
                    let failing = n.spawn_local(|| {
                        thread::park();
                        Err::<(), _>("failed")
                    });
                    (0..ALL / 2).map(child).for_each(drop);
                    yield_now();
                    start = Instant::now();
                    failing.thread().unpark();
                    Ok(())
                });
                let took = start.elapsed();
                assert!(failed.is_err());
                took
            };
            (0..rounds).map(|_| round()).sum()
        })
    });
}

fn timers(c: &mut Criterion) {
    c.bench_function("timer/arm_and_cancel", |b| {
        b.iter(|| Timeout::new(Duration::from_secs(30)).cancel())
    });
}

fn futures(c: &mut Criterion) {
    c.bench_function("future/block_on/ready", |b| {
        run(|| ());
        b.iter(|| block_on(async { black_box(1) }))
    });
    c.bench_function("future/spawn/seq", |b| {
        b.iter(|| future::spawn(async { black_box(1) }).join().unwrap())
    });
    c.bench_function("future/spawn/batch_of_1000", |b| {
        b.iter(|| {
            let all: Vec<_> = (0..1000).map(|_| future::spawn(async { black_box(1) })).collect();
            all.into_iter().for_each(|task| assert_eq!(task.join().unwrap(), 1));
        });
    });
    c.bench_function("future/wake/same_hub", |b| {
        // Two tasks that wake each other: one wake, and the poll that it leads to.
        b.iter_custom(|rounds| {
            let wakers = Rc::new([const { Cell::new(None) }; 2]);
            let player = |mine: usize| {
                let (wakers, mut left) = (wakers.clone(), rounds.div_ceil(2));
                future::spawn(poll_fn(move |context| {
                    left -= 1;
                    wakers[mine].set((left > 0).then(|| context.waker().clone()));
                    wakers[1 - mine].take().inspect(Waker::wake_by_ref);
                    if left > 0 { Poll::Pending } else { Poll::Ready(()) }
                }))
            };
            let start = Instant::now();
            [player(0), player(1)]
                .into_iter()
                .for_each(|player| player.join().unwrap());
            start.elapsed()
        });
    });
}

fn net(c: &mut Criterion) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut buffer = [0; 64];
        while stream.read_exact(&mut buffer).is_ok() {
            stream.write_all(&buffer).unwrap();
        }
    });
    let mut stream = TcpStream::connect(address).unwrap();
    let mut buffer = [0; 64];
    c.bench_function("net/tcp/echo_64_bytes_one_os_thread", |b| {
        b.iter(|| {
            stream.write_all(&buffer).unwrap();
            stream.read_exact(&mut buffer).unwrap();
        });
    });
    drop(stream);
    server.join().unwrap();
    run(hub::idle);
}

criterion_group!(benches, switch, spawns, ends, timers, futures, net);
criterion_main!(benches);
