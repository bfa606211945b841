//! Futures of a pool: how far a job is, what comes of it, which waiters hear of it, and what is left when a waiter
//! is killed, timed out or gone.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use futures::executor::block_on as outside;
use greenthread::future::block_on;
use greenthread::sync::Event;
use greenthread::threadpool::{self, JobError, PoolFuture, ReturnWhen, State, ThreadPool};
use greenthread::{hub, sleep, spawn, spawn_local, timeout, yield_now};

use crate::support::fresh::{PATIENCE, fresh, ms, text};

/// A job that runs until its gate is dropped or told.
fn gated(pool: &ThreadPool) -> (PoolFuture<u32>, mpsc::Sender<()>) {
    let (gate, open) = mpsc::channel();
    let future = pool.submit(move || {
        let _ = open.recv();
        7
    });
    (future.unwrap(), gate)
}

/// One that runs for certain.
fn running(pool: &ThreadPool) -> (PoolFuture<u32>, mpsc::Sender<()>) {
    let (future, gate) = gated(pool);
    while !future.is_running() {
        sleep(ms(1));
    }
    (future, gate)
}

#[test]
fn a_future_says_how_far_its_job_is() {
    fresh(|| {
        let pool = ThreadPool::new(1);
        let (mut first, gate) = running(&pool);
        let second = pool.submit(|| 8).unwrap();
        let third = pool.submit(|| 9).unwrap();
        assert_eq!(
            format!("{first:?} {second:?}"),
            "<PoolFuture state=running> <PoolFuture state=pending>"
        );
        assert!(!first.cancel() && first.try_result().is_none() && !first.is_done());
        assert!(third.cancel() && third.cancel() && third.is_done());
        assert_eq!(format!("{third:?}"), "<PoolFuture state=cancelled>");
        drop(gate);
        assert_eq!(second.wait().unwrap(), 8);
        assert!(first.is_done() && !first.is_running() && !first.cancel());
        assert_eq!(first.state(), State::Finished);
        assert_eq!(first.try_result().unwrap().unwrap(), 7);
        assert!(first.try_result().unwrap().unwrap_err().is_taken());
        assert!(first.wait().unwrap_err().is_taken());
        assert!(third.wait().unwrap_err().is_cancelled());
    });
}

#[test]
fn a_panic_is_an_error_with_its_payload_and_the_worker_lives_on() {
    fresh(|| {
        let pool = ThreadPool::new(1);
        let id = pool.submit(|| std::thread::current().id()).unwrap().wait().unwrap();
        let error = pool.submit(|| panic!("number {}", 5)).unwrap().wait().unwrap_err();
        assert_eq!(error.to_string(), "the job panicked: number 5");
        assert!(error.is_panic() && !error.is_cancelled() && !error.is_broken());
        assert_eq!(text(&*error.into_panic()), "number 5");
        assert_eq!(pool.submit(|| std::thread::current().id()).unwrap().wait().unwrap(), id);
        let bad = catch_unwind(AssertUnwindSafe(|| {
            threadpool::to_thread(|| 1).wait().map_err(JobError::into_panic)
        }));
        assert_eq!(bad.unwrap().unwrap(), 1);
    });
}

#[test]
fn a_timed_wait_gives_up_and_the_future_is_as_good_as_before() {
    fresh(|| {
        let pool = ThreadPool::new(1);
        let (mut future, gate) = gated(&pool);
        assert!(future.wait_timeout(ms(2)).is_none());
        assert!(future.wait_deadline(greenthread::time::now() + ms(2)).is_none());
        assert!(future.wait_timeout(ms(0)).is_none());
        drop(gate);
        assert_eq!(future.wait_timeout(PATIENCE).unwrap().unwrap(), 7);
    });
}

/// Everything that waits, on a job that is gated and one behind it.
type Wait = fn(&ThreadPool, PoolFuture<u32>, PoolFuture<u32>);
const WAITS: &[(&str, Wait)] = &[
    ("wait", |_, a, b| assert_eq!(a.wait().unwrap() + b.wait().unwrap(), 15)),
    ("wait_timeout", |_, mut a, mut b| {
        a.wait_timeout(PATIENCE).unwrap().unwrap();
        b.wait_timeout(PATIENCE).unwrap().unwrap();
    }),
    ("as_completed", |_, a, b| {
        let all: Vec<_> = threadpool::as_completed([a, b])
            .map(|future| future.wait().unwrap())
            .collect();
        assert_eq!(all, [7, 8]);
    }),
    ("wait for all", |_, a, b| {
        assert_eq!(threadpool::wait(vec![a, b], None, ReturnWhen::All).0.len(), 2);
    }),
    ("map", |pool, a, _| {
        let values: Vec<_> = pool.map([1, 2], |n| 2 * n).unwrap().map(Result::unwrap).collect();
        assert_eq!(values, [2, 4]);
        drop(a);
    }),
    ("shutdown", |pool, a, b| {
        pool.shutdown(true, false);
        assert!(a.is_done() && b.is_done());
    }),
    ("block_on", |_, a, b| {
        block_on(async { (a.await.unwrap(), b.await.unwrap()) });
    }),
];

#[test]
fn whoever_waits_may_be_killed_or_timed_out_at_any_park() {
    fresh(|| {
        for &(name, wait) in WAITS {
            for k in 0..6 {
                for timed in [false, true] {
                    let pool = Arc::new(ThreadPool::new(1));
                    let ran = Arc::new(AtomicUsize::new(0));
                    let (first, gate) = running(&pool);
                    let count = ran.clone();
                    let second = pool.submit(move || {
                        count.fetch_add(1, Ordering::SeqCst);
                        8
                    });
                    let second = second.unwrap();
                    let theirs = pool.clone();
                    let victim = spawn(move || {
                        if timed {
                            timeout(ms(k / 2), || wait(&theirs, first, second)).is_err()
                        } else {
                            wait(&theirs, first, second);
                            false
                        }
                    });
                    let mut gate = Some(gate);
                    if timed {
                        sleep(ms(1));
                    }
                    for turn in 0..k {
                        if turn == 2 {
                            // From here on the kill meets a wait that is over, or almost.
                            drop(gate.take());
                        }
                        yield_now();
                    }
                    if !timed {
                        victim.kill();
                    }
                    let early = gate.is_some();
                    if early {
                        let ended = victim.join();
                        assert!(
                            if timed {
                                ended.unwrap()
                            } else {
                                ended.unwrap_err().is_killed()
                            },
                            "{name} {k}"
                        );
                        drop(gate);
                    } else {
                        let _ = victim.join();
                    }
                    // The pool is as it was: what was submitted runs, and it shuts down.
                    if name != "shutdown" {
                        assert_eq!(pool.submit(|| 9).unwrap().wait().unwrap(), 9, "{name} {k}");
                    }
                    pool.shutdown(true, false);
                    assert_eq!((ran.load(Ordering::SeqCst), pool.threads()), (1, 0), "{name} {k}");
                }
            }
        }
    });
}

#[test]
fn a_dropped_future_lets_the_job_run_and_its_value_dies_where_it_ran() {
    struct Tell(mpsc::Sender<std::thread::ThreadId>);
    impl Drop for Tell {
        fn drop(&mut self) {
            let _ = self.0.send(std::thread::current().id());
        }
    }
    fresh(|| {
        let pool = ThreadPool::new(1);
        let (gate, open) = mpsc::channel::<()>();
        let (sender, dropped) = mpsc::channel();
        let theirs = sender.clone();
        drop(pool.submit(move || {
            let _ = open.recv();
            Tell(theirs)
        }));
        let worker = pool.submit(|| std::thread::current().id()).unwrap();
        drop(gate);
        let worker = worker.wait().unwrap();
        assert_eq!(dropped.recv_timeout(PATIENCE).unwrap(), worker);
        // One that is done is the owner's to drop, as any value.
        let done = pool.submit(move || Tell(sender)).unwrap();
        pool.shutdown(true, false);
        drop(done);
        assert_eq!(dropped.recv_timeout(PATIENCE).unwrap(), std::thread::current().id());
    });
}

#[test]
fn of_a_cancel_and_a_worker_exactly_one_has_the_job() {
    fresh(|| {
        let pool = ThreadPool::new(2);
        let mut cancelled = 0;
        for n in 0..2000 {
            let ran = Arc::new(AtomicUsize::new(0));
            let theirs = ran.clone();
            let future = pool.submit(move || theirs.fetch_add(1, Ordering::SeqCst)).unwrap();
            (0..n % 50).for_each(|_| std::hint::spin_loop());
            let won = future.cancel();
            cancelled += usize::from(won);
            let result = future.wait();
            assert_eq!(ran.load(Ordering::SeqCst), usize::from(!won));
            assert_eq!(result.is_err_and(|error| error.is_cancelled()), won);
        }
        assert!(cancelled > 0);
    });
}

#[test]
fn callbacks_are_called_in_order_by_whoever_completes_the_job() {
    fresh(|| {
        let pool = ThreadPool::new(1);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let note = |name: &'static str| {
            let seen = seen.clone();
            move |result: Result<&u32, &JobError>| {
                let here = std::thread::current().id();
                seen.lock().unwrap().push((name, result.ok().copied(), here));
            }
        };
        let here = std::thread::current().id();
        let worker = pool.submit(|| std::thread::current().id()).unwrap().wait().unwrap();
        let (mut future, gate) = running(&pool);
        let mut behind = pool.submit(|| 8).unwrap();
        future.on_done(note("first"));
        future.on_done(|_| panic!("a callback's own"));
        future.on_done(note("second"));
        behind.on_done(note("cancelled"));
        assert!(behind.cancel());
        drop(gate);
        assert!(future.wait_timeout(PATIENCE).is_some_and(|result| result.unwrap() == 7));
        future.on_done(note("taken"));
        let mut late = pool.submit(|| 9).unwrap();
        pool.shutdown(true, false);
        late.on_done(|_| panic!("a late callback's own"));
        late.on_done(note("late"));
        assert_eq!(late.wait().unwrap(), 9, "it is there still");
        let expected = [
            ("cancelled", None, here),
            ("first", Some(7), worker),
            ("second", Some(7), worker),
            ("taken", None, here),
            ("late", Some(9), here),
        ];
        assert_eq!(*seen.lock().unwrap(), expected);
    });
}

#[test]
fn a_callback_may_come_on_the_callers_hub_and_takes_the_value() {
    fresh(|| {
        let pool = ThreadPool::new(1);
        let here = std::thread::current().id();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let event = Arc::new(Event::new());
        let (future, gate) = gated(&pool);
        let (theirs, done) = (seen.clone(), event.clone());
        future.on_done_soon(move |result| {
            theirs
                .lock()
                .unwrap()
                .push((result.unwrap(), std::thread::current().id()));
            done.set();
        });
        drop(gate);
        event.wait();
        let done = pool.submit(|| 8).unwrap();
        pool.shutdown(true, false);
        let theirs = seen.clone();
        done.on_done_soon(move |result| {
            theirs
                .lock()
                .unwrap()
                .push((result.unwrap(), std::thread::current().id()))
        });
        assert_eq!(seen.lock().unwrap().len(), 1, "soon, and not at once");
        hub::idle();
        assert_eq!(*seen.lock().unwrap(), [(7, here), (8, here)]);
    });
}

#[test]
fn green_threads_os_threads_and_executors_wait_for_the_same_pool() {
    fresh(|| {
        let pool = Arc::new(ThreadPool::new(2));
        let os_threads = (0..3).map(|n: u64| {
            let pool = pool.clone();
            std::thread::spawn(move || match n {
                // Without a hub, with one of its own, and by an executor of somebody else's.
                0 => pool.submit(move || n).unwrap().wait().unwrap(),
                1 => spawn(move || pool.submit(move || n).unwrap().wait().unwrap())
                    .join()
                    .unwrap(),
                _ => outside(pool.submit(move || n).unwrap()).unwrap(),
            })
        });
        let os_threads: Vec<_> = os_threads.collect();
        let green: Vec<_> = (3..50)
            .map(|n: u64| {
                let pool = pool.clone();
                spawn_local(move || pool.submit(move || n).unwrap().wait().unwrap())
            })
            .collect();
        let mut all: Vec<_> = green.into_iter().map(|one| one.join().unwrap()).collect();
        all.extend(
            os_threads
                .into_iter()
                .map(|one| threadpool::unblock(|| one.join().unwrap())),
        );
        all.sort_unstable();
        assert_eq!(all, (0..50).collect::<Vec<_>>());
    });
}

#[test]
fn a_future_that_was_polled_may_be_waited_for_or_dropped() {
    fresh(|| {
        let pool = ThreadPool::new(1);
        let (mut future, gate) = gated(&pool);
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(std::pin::Pin::new(&mut future).poll(&mut context).is_pending());
        let (mut dropped, _) = gated(&pool);
        assert!(std::pin::Pin::new(&mut dropped).poll(&mut context).is_pending());
        drop((dropped, gate));
        assert_eq!(future.wait().unwrap(), 7);
    });
}

#[test]
fn wait_returns_at_the_first_at_an_error_or_when_all_are_done() {
    fresh(|| {
        let pool = ThreadPool::new(3);
        let job = |n: u32| {
            let (gate, open) = mpsc::channel();
            let future = pool.submit(move || {
                let _ = open.recv();
                assert!(n != 1, "the second fails");
                n
            });
            (future.unwrap(), gate)
        };
        let (futures, gates): (Vec<_>, Vec<mpsc::Sender<()>>) = (0..3).map(job).unzip();
        let mut gates = gates.into_iter();
        let (done, rest) = threadpool::wait(futures, Some(ms(2)), ReturnWhen::First);
        assert_eq!((done.len(), rest.len()), (0, 3));
        drop(gates.next());
        let (done, rest) = threadpool::wait(rest, None, ReturnWhen::First);
        assert_eq!((done.len(), rest.len()), (1, 2));
        drop(gates.next());
        let (mut failed, last) = threadpool::wait(rest, None, ReturnWhen::FirstError);
        assert_eq!((failed.len(), last.len()), (1, 1));
        assert!(failed.remove(0).wait().unwrap_err().is_panic());
        drop(gates);
        let (done, rest) = threadpool::wait(done.into_iter().chain(last).collect(), None, ReturnWhen::FirstError);
        assert_eq!(rest.len(), 0);
        let values: Vec<_> = done.into_iter().map(|future| future.wait().unwrap()).collect();
        assert_eq!(values, [0, 2], "in the order given");
        assert_eq!(
            threadpool::wait(Vec::<PoolFuture<()>>::new(), None, ReturnWhen::All)
                .0
                .len(),
            0
        );
        // A cancel is no error.
        let cancelled = pool.submit(|| 5).unwrap();
        cancelled.cancel();
        let (slow, gate) = gated(&pool);
        let (done, rest) = threadpool::wait(vec![cancelled, slow], Some(ms(2)), ReturnWhen::FirstError);
        assert_eq!((done.len(), rest.len()), (1, 1));
        drop(gate);
    });
}

#[test]
fn as_completed_gives_the_quickest_first_and_may_give_up() {
    fresh(|| {
        let pool = ThreadPool::new(2);
        let ((slow, gate), (quick, open)) = (gated(&pool), running(&pool));
        let mut all = threadpool::as_completed([slow, quick]);
        assert!(all.next_timeout(ms(1)).is_none() && all.remaining() == 2);
        drop(open);
        assert_eq!(all.next_timeout(PATIENCE).unwrap().wait().unwrap(), 7);
        assert!(all.next_deadline(greenthread::time::now()).is_none() && all.remaining() == 1);
        drop(gate);
        assert!(all.next().is_some() && all.next().is_none() && all.remaining() == 0);
    });
}

#[test]
fn a_map_keeps_the_order_and_past_its_deadline_cancels_what_has_not_begun() {
    fresh(|| {
        let pool = ThreadPool::new(4);
        let values = pool.map(0..100_u64, |n| {
            std::thread::sleep(ms((100 - n) / 50));
            assert!(n != 50, "one fails");
            n
        });
        let values: Vec<_> = values.unwrap().map(|value| value.ok()).collect();
        assert!(
            values
                .iter()
                .enumerate()
                .all(|(n, value)| *value == (n != 50).then_some(n as u64))
        );
        let pool = ThreadPool::new(1);
        let ran = Arc::new(AtomicUsize::new(0));
        let (gate, open) = mpsc::channel::<()>();
        let (open, count) = (Mutex::new(open), ran.clone());
        let map = pool.map(0..10, move |_| {
            count.fetch_add(1, Ordering::SeqCst);
            let _ = open.lock().unwrap().recv();
        });
        let mut map = map.unwrap().timeout(ms(20));
        assert!(map.next().unwrap().unwrap_err().is_timed_out());
        assert!(map.next().is_none());
        drop(gate);
        pool.shutdown(true, false);
        assert!(ran.load(Ordering::SeqCst) <= 1, "nine have not begun");
    });
}

#[test]
fn a_wrapped_future_serves_many() {
    fresh(|| {
        let promise = threadpool::wrap_future(threadpool::to_thread(|| String::from("value")));
        let waiters: Vec<_> = (0..3)
            .map(|_| {
                let promise = promise.clone();
                spawn(move || promise.wait().as_ref().unwrap().len())
            })
            .collect();
        assert!(waiters.into_iter().all(|waiter| waiter.join().unwrap() == 5));
        let failed = threadpool::wrap_future(threadpool::to_thread(|| -> u32 { panic!("no") }));
        assert!(failed.wait().as_ref().unwrap_err().is_panic());
    });
}

/// Panics as it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("as it is dropped");
    }
}

#[test]
fn a_value_that_panics_as_it_is_dropped_does_not_meet_the_kill_of_who_waited() {
    fresh(|| {
        let future = threadpool::to_thread(|| Bomb);
        while !future.is_done() {
            sleep(ms(1));
        }
        let waiter = spawn(move || {
            let _future = future;
            greenthread::thread::park();
        });
        yield_now();
        waiter.kill();
        // Had the two met, the process would have aborted.
        assert!(waiter.join().unwrap_err().is_killed());
        // The same in the call that waits, and without a kill.
        let waiter = spawn(|| drop(threadpool::to_thread(|| Bomb)));
        assert!(waiter.join().is_ok());
        assert_eq!(threadpool::unblock(|| 7), 7);
    });
}
