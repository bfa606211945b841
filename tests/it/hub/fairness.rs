//! What succeeds at once gives way too; a turn has a time limit; a future that wakes itself lets others run.
//!
//! Counted in operations, polls and slices, not in time: a busy machine changes nothing.

use std::cell::Cell;
use std::future::poll_fn;
use std::io::{self, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use greenthread::future::{self, await_, block_on};
use greenthread::io::Async;
use greenthread::net::{TcpListener, TcpStream, UdpSocket, UnixStream};
use greenthread::sync::{Event, Semaphore};
use greenthread::time::{Interval, sleep_async, timeout};
use greenthread::{hub, io as green_io, run, select, sleep, spawn, spawn_local, thread, threadpool, yield_now};

use crate::support::fresh::{fresh, give_way, ms, secs, virtually};

/// So many operations may go by before others run.
const BUDGET: u32 = 128;

/// A descriptor whose operations always succeed at once.
fn ready() -> Async<io::PipeReader> {
    Async::new(io::pipe().unwrap().0).unwrap()
}

/// How many times `op` runs before another green thread does; at most ten times the budget.
fn steps(mut op: impl FnMut()) -> u32 {
    let ran = Rc::new(Cell::new(false));
    let theirs = ran.clone();
    yield_now(); // the budget is full
    let other = spawn_local(move || theirs.set(true));
    let mut steps = 0;
    while !ran.get() && steps < 10 * BUDGET {
        op();
        steps += 1;
    }
    other.join().unwrap();
    steps
}

/// Runs `steps(op)` in a green thread and on the native stack.
fn gives_way<O: FnMut()>(what: &str, make: impl Fn() -> O + Clone + Send + 'static) {
    let what = String::from(what);
    fresh(move || {
        let green = make.clone();
        let counted = [spawn_local(move || steps(green())).join().unwrap(), steps(make())];
        for steps in counted {
            assert!(
                steps <= BUDGET + 1,
                "{what}: another green thread runs after {steps} operations"
            );
            assert!(steps > 1, "{what}: it gives way each time");
        }
    });
}

#[test]
fn an_operation_on_a_descriptor_gives_way() {
    gives_way("read_with", || {
        let ready = ready();
        move || ready.read_with(|_| Ok(())).unwrap()
    });
    gives_way("a datagram that is always there", || {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(socket.local_addr().unwrap()).unwrap();
        move || {
            socket.send(b"x").unwrap();
            assert_eq!(socket.recv(&mut [0]).unwrap(), 1);
        }
    });
    gives_way("bytes on a socket", || {
        let (mut near, mut far) = UnixStream::pair().unwrap();
        move || {
            near.write_all(b"x").unwrap();
            far.read_exact(&mut [0]).unwrap();
        }
    });
    gives_way("readable", || {
        let (near, mut far) = UnixStream::pair().unwrap();
        far.write_all(b"x").unwrap();
        move || {
            let _ = &far;
            near.readable().unwrap();
        }
    });
}

#[test]
fn an_accept_gives_way() {
    gives_way("accept", || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        // As many as there are accepts; std's own connect, which switches nothing.
        let waiting: Vec<_> = (0..2 * BUDGET)
            .map(|_| std::net::TcpStream::connect(address).unwrap())
            .collect();
        let mut accepted = Vec::new();
        move || {
            assert!(accepted.len() < waiting.len());
            accepted.push(listener.accept().unwrap());
        }
    });
}

#[test]
fn what_has_ended_already_gives_way() {
    gives_way("a join", || {
        let mut ended: Vec<_> = (0..2 * BUDGET).map(|_| spawn(|| ())).collect();
        sleep(ms(1)); // they end
        move || ended.pop().unwrap().join().unwrap()
    });
    gives_way("a token of park", || {
        || {
            thread::current().unpark();
            thread::park();
        }
    });
    gives_way("a job that is done", || {
        let mut done: Vec<_> = (0..2 * BUDGET).map(|_| threadpool::to_thread(|| ())).collect();
        while !done.iter().all(threadpool::PoolFuture::is_done) {
            sleep(ms(1));
        }
        move || done.pop().unwrap().wait().unwrap()
    });
}

/// How many times a future that does `op` and then waits for it is polled before a green thread runs.
fn polled_steps<F: Future>(mut op: impl FnMut() -> F + 'static) -> u32 {
    let (ran, count) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(0)));
    let (theirs, counted, seen) = (ran.clone(), count.clone(), ran.clone());
    let task = future::spawn(async move {
        while !seen.get() && counted.get() < 10 * BUDGET {
            op().await;
            counted.set(counted.get() + 1);
        }
    });
    let other = spawn_local(move || theirs.set(true));
    task.join().unwrap();
    other.join().unwrap();
    count.get()
}

#[test]
fn an_operation_of_a_stackless_task_gives_way() {
    fresh(|| {
        let pipe = Rc::new(ready());
        let steps = polled_steps(move || {
            let pipe = pipe.clone();
            async move { pipe.read_with_async(|_| Ok(())).await.unwrap() }
        });
        assert!((2..=BUDGET + 1).contains(&steps), "read_with_async: {steps}");
        let pipe = Rc::new(ready());
        let steps = polled_steps(move || {
            let pipe = pipe.clone();
            async move {
                poll_fn(|context| pipe.poll_read_with(context, |_| Ok(())))
                    .await
                    .unwrap()
            }
        });
        assert!((2..=BUDGET + 1).contains(&steps), "poll_read_with: {steps}");
        let steps = polled_steps(|| sleep_async(Duration::ZERO));
        assert!(steps <= BUDGET + 1, "sleep_async: {steps}");
    });
}

#[test]
fn a_poll_with_a_waker_that_does_nothing_tells_the_truth() {
    fresh(|| {
        let pipe = ready();
        // Another green thread, to which the caller can give way.
        let other = spawn_local(|| sleep(secs(60)));
        yield_now();
        for waker in [Waker::noop(), futures::task::noop_waker_ref()] {
            for n in 0..10 * BUDGET {
                let mut context = Context::from_waker(waker);
                assert!(pipe.poll_read_with(&mut context, |_| Ok(())).is_ready(), "after {n}");
            }
        }
        other.kill();
    });
}

#[test]
fn a_connection_that_fails_at_once_gives_way() {
    gives_way("a Unix connection to nobody", || {
        || {
            UnixStream::connect("/nowhere/at/all").unwrap_err();
        }
    });
    gives_way("a TCP connection to a group", || {
        || {
            TcpStream::connect("224.0.0.1:1").unwrap_err();
        }
    });
}

#[test]
fn a_future_of_many_steps_in_a_select_gives_way() {
    // Also if what another branch waits for has come meanwhile, and the select was woken for that.
    for sets in [false, true] {
        fresh(move || {
            let (ran, steps, permits, event) =
                (Rc::new(Cell::new(false)), Cell::new(0), Semaphore::new(1), Event::new());
            let theirs = ran.clone();
            yield_now();
            let other = spawn_local(move || theirs.set(true));
            let busy = async {
                while !ran.get() && steps.get() < 10 * BUDGET {
                    drop(permits.acquire_async().await);
                    steps.set(steps.get() + 1);
                    if sets {
                        event.set();
                    }
                }
            };
            select! {
                future(busy) => {},
                wait(event) => {},
            }
            other.join().unwrap();
            let steps = steps.get();
            assert!(steps <= BUDGET + 1, "another green thread runs after {steps} steps");
        });
    }
}

#[test]
fn a_kill_strikes_who_never_parks() {
    fresh(|| {
        let count = Rc::new(Cell::new(0));
        let counted = count.clone();
        let flooded = spawn_local(move || {
            let ready = ready();
            while counted.get() < 100 * BUDGET {
                ready.read_with(|_| Ok(())).unwrap();
                counted.set(counted.get() + 1);
            }
        });
        let killer = flooded.thread();
        spawn_local(move || killer.kill());
        assert!(flooded.join().unwrap_err().is_killed());
        assert!(count.get() <= 2 * BUDGET, "{} operations", count.get());
    });
}

#[test]
fn a_time_out_strikes_who_never_parks() {
    fresh(|| {
        let ready = ready();
        let give_up = Instant::now() + secs(20);
        let flood = || {
            while Instant::now() < give_up {
                ready.read_with(|_| Ok(())).unwrap();
            }
        };
        assert!(timeout(ms(5), flood).is_err(), "on the native stack");
        assert!(
            run(move || timeout(ms(5), flood_of(give_up)).is_err()),
            "in a green thread"
        );
    });
}

fn flood_of(give_up: Instant) -> impl FnOnce() {
    let ready = ready();
    move || {
        while Instant::now() < give_up {
            ready.read_with(|_| Ok(())).unwrap();
        }
    }
}

#[test]
fn a_shield_gives_way_and_delivers_nothing() {
    fresh(|| {
        let seen = Rc::new(Cell::new(false));
        let done = seen.clone();
        let shielded = spawn_local(move || {
            thread::shield(|| {
                let ready = ready();
                (0..10 * BUDGET).for_each(|_| ready.read_with(|_| Ok(())).unwrap());
            });
            done.set(true);
            yield_now(); // here it is delivered
            unreachable!("it was killed");
        });
        let target = shielded.thread();
        spawn_local(move || target.kill()).join().unwrap();
        assert!(shielded.join().unwrap_err().is_killed());
        assert!(seen.get(), "the kill came within the shield");
    });
}

#[test]
fn an_interrupt_is_never_delivered_with_bytes_in_hand() {
    fresh(|| {
        for at in 0..2 * BUDGET {
            let (mut near, mut far) = UnixStream::pair().unwrap();
            near.write_all(&[7; 1000]).unwrap();
            let got = Rc::new(Cell::new(0));
            let counted = got.clone();
            let target = Rc::new(Cell::new(None));
            let mine = target.clone();
            let reader = spawn_local(move || {
                let thread = thread::current();
                mine.set(Some(thread.clone()));
                for n in 0..1000 {
                    if n == at {
                        thread.kill();
                    }
                    far.read_exact(&mut [0]).unwrap();
                    counted.set(counted.get() + 1);
                }
                far
            });
            assert!(reader.join().unwrap_err().is_killed());
            let rest = 1000 - got.get();
            drop(near);
            assert!(rest > 0 && got.get() >= at, "killed at {at}, {} bytes read", got.get());
        }
    });
}

#[test]
fn a_callback_does_not_give_way() {
    fresh(|| {
        let order = Rc::new(Cell::new(0));
        let (first, second) = (order.clone(), order.clone());
        hub::call_soon(move || {
            let ready = ready();
            (0..10 * BUDGET).for_each(|_| ready.read_with(|_| Ok(())).unwrap());
            assert_eq!(first.replace(1), 0, "a green thread ran in the midst of a callback");
        });
        spawn_local(move || second.set(2)).join().unwrap();
        assert_eq!(order.get(), 2);
    });
}

#[test]
fn destructors_while_unwinding_go_on() {
    struct Farewell(Async<io::PipeReader>);
    impl Drop for Farewell {
        fn drop(&mut self) {
            (0..10 * BUDGET).for_each(|_| self.0.read_with(|_| Ok(())).unwrap());
        }
    }
    fresh(|| {
        let dying = spawn(|| {
            let _farewell = Farewell(ready());
            panic!("on purpose");
        });
        let local = spawn_local(|| {
            let _farewell = Farewell(ready());
            panic!("on purpose");
        });
        let other = spawn_local(std::thread::panicking);
        assert!(dying.join().unwrap_err().is_panic());
        assert!(local.join().unwrap_err().is_panic());
        assert!(!other.join().unwrap(), "the panic of another leaked");
    });
}

/// Computes for `time`, without a call that the hub sees.
fn compute(time: Duration) {
    let begin = Instant::now();
    while begin.elapsed() < time {
        std::hint::spin_loop();
    }
}

const SLICE: Duration = ms(5);

/// How many slices a worker that yields after each has done before `other` is over.
fn slices_until(other: impl FnOnce() + Send + 'static) -> u32 {
    let over = Arc::new(AtomicBool::new(false));
    let tells = over.clone();
    let other = spawn(move || {
        other();
        tells.store(true, Ordering::SeqCst);
    });
    yield_now(); // it waits
    let mut slices = 0;
    while !over.load(Ordering::SeqCst) && slices < 120 {
        compute(SLICE);
        yield_now();
        slices += 1;
    }
    other.join().unwrap();
    slices
}

#[test]
fn a_worker_that_yields_does_not_make_timers_late() {
    let in_green = || fresh(|| run(|| slices_until(|| sleep(ms(1)))));
    let on_native = || fresh(|| slices_until(|| sleep(ms(1))));
    for slices in [in_green(), on_native()] {
        assert!(slices <= 4, "a timer of 1 ms came after {slices} slices of {SLICE:?}");
    }
}

#[test]
fn a_worker_that_yields_does_not_make_sockets_wait() {
    let slices = fresh(|| {
        run(|| {
            let (near, mut far) = UnixStream::pair().unwrap();
            let writer = spawn(move || {
                yield_now(); // the reader waits
                far.write_all(b"x").unwrap();
                far
            });
            let slices = slices_until(move || {
                green_io::wait_readable(&near, None).unwrap();
            });
            writer.join().unwrap();
            slices
        })
    });
    assert!(slices <= 4, "data was seen after {slices} slices of {SLICE:?}");
}

#[test]
fn many_workers_do_not_make_a_timer_late() {
    fresh(|| {
        let (over, slices) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let workers: Vec<_> = (0..50)
            .map(|_| {
                let (over, slices) = (over.clone(), slices.clone());
                spawn(move || {
                    while !over.load(Ordering::SeqCst) && slices.load(Ordering::SeqCst) < 2000 {
                        compute(ms(1));
                        slices.fetch_add(1, Ordering::SeqCst);
                        yield_now();
                    }
                })
            })
            .collect();
        spawn(move || {
            sleep(ms(5));
            over.store(true, Ordering::SeqCst);
        });
        workers.into_iter().for_each(|worker| worker.join().unwrap());
        // 5 while it sleeps, and then each may begin one more before it is told.
        let slices = slices.load(Ordering::SeqCst);
        assert!(slices < 200, "{slices} slices of 1 ms");
    });
}

/// Queues 400 callbacks of 1 ms; how many have run.
fn call_many() -> Rc<Cell<u32>> {
    let ran = Rc::new(Cell::new(0));
    for _ in 0..400 {
        let ran = ran.clone();
        hub::call_soon(move || {
            compute(ms(1));
            ran.set(ran.get() + 1);
        });
    }
    ran
}

#[test]
fn many_callbacks_do_not_make_a_timer_late() {
    let ran = fresh(|| {
        let ran = call_many();
        sleep(ms(5));
        ran.get()
    });
    assert!(ran < 100, "{ran} callbacks of 1 ms ran before a timer of 5 ms");
}

#[test]
fn many_callbacks_do_not_keep_green_threads_waiting() {
    let ran = fresh(|| {
        let ran = call_many();
        spawn_local(|| (0..10).for_each(|_| yield_now())).join().unwrap();
        ran.get()
    });
    assert!(
        ran < 100,
        "{ran} callbacks of 1 ms ran before another green thread had 10 slices"
    );
}

#[test]
fn many_messages_do_not_make_a_turn_long() {
    const MANY: usize = 20_000;
    let (adopted, joined) = fresh(|| {
        let handle = hub::handle();
        let sends = move || (0..MANY).map(|_| handle.spawn(|| 1).unwrap()).collect::<Vec<_>>();
        let spawned = std::thread::spawn(sends).join().unwrap();
        yield_now(); // a turn, as the native stack is ready
        (
            hub::live(),
            spawned.into_iter().map(|one| one.join().unwrap()).sum::<usize>(),
        )
    });
    assert!(adopted <= MANY / 4, "a turn has taken {adopted} messages");
    assert_eq!(joined, MANY);
}

/// Sends a message to the hub that this runs on, which does the same, and so on.
fn send_on(hub: hub::Handle, sent: Arc<AtomicU32>, most: u32) {
    if sent.fetch_add(1, Ordering::SeqCst) < most {
        let next = hub.clone();
        hub.call_soon(move || send_on(next, sent, most)).unwrap();
    }
}

#[test]
fn messages_without_end_do_not_keep_descriptors_waiting() {
    const MOST: u32 = 1_000_000;
    for timers in [false, true] {
        let sent = fresh(move || {
            let sent = Arc::new(AtomicU32::new(0));
            let (near, mut far) = UnixStream::pair().unwrap();
            let reader = spawn_local(move || green_io::wait_readable(&near, None).unwrap());
            let timer = spawn_local(move || {
                if timers {
                    sleep(secs(60))
                }
            });
            yield_now(); // both wait
            far.write_all(b"x").unwrap();
            send_on(hub::handle(), sent.clone(), MOST);
            reader.join().unwrap();
            timer.kill();
            sent.swap(MOST, Ordering::SeqCst)
        });
        assert!(
            sent < MOST,
            "data was seen after {sent} messages, with timers: {timers}"
        );
    }
}

#[test]
fn with_a_virtual_clock_the_machine_does_not_decide() {
    let order = |pause: Duration| {
        virtually(move || {
            let log = Rc::new(std::cell::RefCell::new(Vec::new()));
            let workers: Vec<_> = (0..3)
                .map(|n| {
                    let log = log.clone();
                    spawn_local(move || {
                        for _ in 0..100 {
                            compute(pause);
                            log.borrow_mut().push(n);
                            yield_now();
                        }
                    })
                })
                .collect();
            let ticks = log.clone();
            let ticker = spawn_local(move || {
                let mut ticks_left = 5;
                let mut interval = Interval::new(ms(1));
                while ticks_left > 0 {
                    interval.tick();
                    ticks.borrow_mut().push(9);
                    ticks_left -= 1;
                }
            });
            workers.into_iter().for_each(|worker| worker.join().unwrap());
            ticker.join().unwrap();
            Rc::try_unwrap(log).unwrap().into_inner()
        })
    };
    assert_eq!(order(Duration::ZERO), order(Duration::from_micros(100)));
}

/// Until the flag is set, but not for ever; how many times it gave way.
async fn until(flag: &AtomicBool) -> u32 {
    for polls in 0..100_000 {
        if flag.load(Ordering::SeqCst) {
            return polls;
        }
        give_way().await;
    }
    panic!("nothing else ran while a future woke itself 100,000 times");
}

/// Long, and not for ever.
async fn for_long() {
    let begin = Instant::now();
    while begin.elapsed() < secs(20) {
        give_way().await;
    }
}

fn with_flag(f: impl FnOnce(&AtomicBool)) {
    let flag = Arc::new(AtomicBool::new(false));
    let theirs = flag.clone();
    let other = spawn(move || theirs.store(true, Ordering::SeqCst));
    f(&flag);
    other.join().unwrap();
}

#[test]
fn a_future_that_wakes_itself_lets_others_run() {
    fresh(|| with_flag(|flag| assert!(block_on(until(flag)) <= 2)));
    fresh(|| run(|| with_flag(|flag| assert!(block_on(until(flag)) <= 2))));
    fresh(|| {
        block_on(future::asyncify(|| {
            with_flag(|flag| assert!(await_(until(flag)) <= 2));
        }));
    });
    fresh(|| {
        with_flag(|flag| {
            select! {
                future(until(flag)) -> polls => assert!(polls <= 2),
            }
        })
    });
}

#[test]
fn a_future_that_wakes_itself_is_timed_out_and_killed() {
    fresh(|| assert!(timeout(ms(5), || block_on(for_long())).is_err(), "on the native stack"));
    fresh(|| {
        assert!(
            run(|| timeout(ms(5), || block_on(for_long())).is_err()),
            "in a green thread"
        )
    });
    fresh(|| {
        let busy = spawn(|| block_on(for_long()));
        yield_now();
        busy.kill();
        assert!(busy.join().unwrap_err().is_killed());
    });
    fresh(|| {
        let first = select! {
            future(for_long()) => "the future",
            after(ms(5)) => "the clock",
        };
        assert_eq!(first, "the clock");
        let first = select! {
            future(for_long()) => "the future",
            default(ms(5)) => "the clock",
        };
        assert_eq!(first, "the clock");
    });
}

#[test]
fn a_future_that_wakes_itself_may_be_waited_for_while_unwinding() {
    struct Waits(Arc<AtomicBool>);
    impl Drop for Waits {
        fn drop(&mut self) {
            block_on(until(&self.0));
        }
    }
    fresh(|| {
        let flag = Arc::new(AtomicBool::new(false));
        let theirs = flag.clone();
        let other = spawn(move || theirs.store(true, Ordering::SeqCst));
        let caught = catch_unwind(AssertUnwindSafe(|| {
            let _waits = Waits(flag);
            panic!("on purpose");
        }));
        assert!(caught.is_err());
        other.join().unwrap();
    });
}

#[test]
fn a_connection_that_floods_leaves_the_ticks_to_others() {
    fresh(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let stops = over.clone();
        // On an OS thread of its own, so that it is always ahead of the reader.
        let flood = std::thread::spawn(move || {
            let mut stream = std::net::TcpStream::connect(address).unwrap();
            let block = vec![0; 1 << 20];
            while !stops.load(Ordering::SeqCst) && stream.write_all(&block).is_ok() {}
        });
        let (mut stream, _): (TcpStream, _) = listener.accept().unwrap();
        let sink = spawn(move || {
            let mut block = vec![0; 64 * 1024];
            while stream.read(&mut block).unwrap() > 0 {}
        });
        let mut interval = Interval::new(ms(10));
        let begin = Instant::now();
        (0..50).for_each(|_| interval.tick());
        // Half a second; on a busy machine some ticks are missed.
        assert!(
            begin.elapsed() < secs(10),
            "50 ticks of 10 ms took {:?}",
            begin.elapsed()
        );
        over.store(true, Ordering::SeqCst);
        // In this order: std's join blocks the hub, without which nothing is read.
        sink.join().unwrap();
        flood.join().unwrap();
    });
}
