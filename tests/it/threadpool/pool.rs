//! Pools of OS threads: how they grow and shrink, end, and what a worker that cannot be set up does to others.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use greenthread::sync::Event;
use greenthread::threadpool::{self, Builder, PoolFuture, ShutDown, ThreadPool};
use greenthread::{hub, sleep, spawn, spawn_local, timeout, yield_now};

use crate::support::fresh::{fresh, ms, until};

/// So many jobs that run until the gate is dropped.
fn hold(pool: &ThreadPool, jobs: usize) -> (Vec<PoolFuture<usize>>, Arc<Gate>) {
    let gate = Arc::new(Gate::default());
    let all = (0..jobs).map(|n| {
        let gate = gate.clone();
        pool.submit(move || {
            gate.pass();
            n
        })
    });
    (all.map(Result::unwrap).collect(), gate)
}

#[derive(Default)]
struct Gate {
    open: AtomicBool,
    inside: AtomicUsize,
    most: AtomicUsize,
}

impl Gate {
    fn pass(&self) {
        let inside = self.inside.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(inside, Ordering::SeqCst);
        while !self.open.load(Ordering::SeqCst) {
            std::thread::sleep(ms(1));
        }
        self.inside.fetch_sub(1, Ordering::SeqCst);
    }

    fn open(&self) {
        self.open.store(true, Ordering::SeqCst);
    }

    fn await_inside(&self, count: usize) {
        while self.inside.load(Ordering::SeqCst) != count {
            sleep(ms(1));
        }
    }
}

#[test]
fn it_grows_only_when_no_worker_is_idle_and_no_further_than_it_may() {
    fresh(|| {
        let pool = ThreadPool::new(3);
        assert_eq!(pool.threads(), 0);
        for _ in 0..20 {
            pool.submit(|| ()).unwrap().wait().unwrap();
            // The worker tells of the job before it is idle again.
            until("idle", || pool.idle() == 1);
        }
        assert_eq!(pool.threads(), 1);
        let (all, gate) = hold(&pool, 10);
        gate.await_inside(3);
        assert_eq!((pool.threads(), pool.pending()), (3, 7));
        gate.open();
        let values: Vec<_> = all.into_iter().map(|future| future.wait().unwrap()).collect();
        assert_eq!(values, (0..10).collect::<Vec<_>>());
        assert_eq!(gate.most.load(Ordering::SeqCst), 3);
    });
}

#[test]
fn idle_workers_go_and_others_come() {
    fresh(|| {
        let pool = Builder::new().threads(2).idle_timeout(ms(5)).build();
        for round in 0..3 {
            let all = pool.map(0..4, move |n| n + round).unwrap();
            assert_eq!(all.map(Result::unwrap).sum::<u32>(), 6 + 4 * round);
            until("gone", || pool.threads() == 0);
        }
    });
}

#[test]
fn it_shrinks_and_grows_while_it_is_busy() {
    fresh(|| {
        let pool = ThreadPool::new(4);
        let (first, gate) = hold(&pool, 6);
        gate.await_inside(4);
        pool.set_max_threads(1);
        assert_eq!((pool.max_threads(), pool.threads()), (1, 4), "who is busy stays");
        let (second, narrow) = hold(&pool, 3);
        gate.open();
        narrow.await_inside(1);
        until("one left", || pool.threads() == 1);
        assert_eq!(pool.pending(), 2);
        pool.set_max_threads(3);
        narrow.await_inside(3);
        assert_eq!(pool.threads(), 3);
        narrow.open();
        for future in first.into_iter().chain(second) {
            future.wait().unwrap();
        }
        assert_eq!(narrow.most.load(Ordering::SeqCst), 3);
        // At random, with jobs all the while: none is left behind.
        for n in 0..200 {
            pool.set_max_threads(1 + n % 4);
            let all = pool.map(0..5, |n| n).unwrap();
            assert_eq!(all.map(Result::unwrap).sum::<u32>(), 10);
        }
        assert!(catch_unwind(AssertUnwindSafe(|| pool.set_max_threads(0))).is_err());
    });
}

#[test]
fn shutdown_in_its_four_forms() {
    fresh(|| {
        for (wait, cancel) in [(true, true), (true, false), (false, true), (false, false)] {
            let pool = Arc::new(ThreadPool::new(2));
            let (all, gate) = hold(&pool, 6);
            gate.await_inside(2);
            let (theirs, over) = (pool.clone(), Arc::new(Event::new()));
            let done = over.clone();
            let closer = spawn_local(move || {
                theirs.shutdown(wait, cancel);
                done.set();
            });
            yield_now();
            assert_eq!(over.is_set(), !wait, "{wait} {cancel}");
            assert_eq!(pool.submit(|| ()).unwrap_err(), ShutDown);
            assert_eq!(pool.map([1], |n| n).unwrap_err(), ShutDown);
            assert_eq!(pool.pending(), if cancel { 0 } else { 4 });
            gate.open();
            closer.join().unwrap();
            let ran = all.into_iter().map(PoolFuture::wait).filter(Result::is_ok).count();
            assert_eq!(ran, if cancel { 2 } else { 6 }, "{wait} {cancel}");
            pool.shutdown(true, false);
            assert_eq!(pool.threads(), 0);
        }
    });
}

#[test]
fn the_drop_waits_for_all_jobs_except_where_it_cannot() {
    fresh(|| {
        let slow = |pool: &ThreadPool| pool.submit(|| std::thread::sleep(ms(30))).unwrap();
        let pool = ThreadPool::new(1);
        let futures = [slow(&pool), slow(&pool)];
        drop(pool);
        assert!(futures.iter().all(PoolFuture::is_done));
        // Killed as it drops: the job runs on.
        let held = Arc::new(Mutex::new(Vec::new()));
        let futures = held.clone();
        let killed = spawn(move || {
            let pool = ThreadPool::new(1);
            futures.lock().unwrap().push(hold(&pool, 1));
        });
        yield_now();
        killed.kill();
        assert!(killed.join().unwrap_err().is_killed());
        // While the caller unwinds, and in a callback.
        let futures = held.clone();
        let panicked = spawn(move || {
            let pool = ThreadPool::new(1);
            let (all, gate) = hold(&pool, 1);
            futures.lock().unwrap().push((all, gate));
            panic!("with a pool in hand");
        });
        assert!(panicked.join().unwrap_err().is_panic());
        let pool = ThreadPool::new(1);
        held.lock().unwrap().push(hold(&pool, 1));
        hub::call_soon(move || drop(pool));
        hub::idle();
        assert_eq!(held.lock().unwrap().len(), 3);
        for (all, gate) in held.lock().unwrap().drain(..) {
            assert!(all.iter().all(|future| !future.is_done()));
            gate.open();
            all.into_iter().for_each(|future| assert_eq!(future.wait().unwrap(), 0));
        }
    });
}

#[test]
fn a_worker_does_not_wait_for_itself() {
    fresh(|| {
        let pool = Arc::new(ThreadPool::new(1));
        let theirs = pool.clone();
        let (gate, open) = mpsc::channel::<()>();
        let last = pool.submit(move || {
            let _ = open.recv();
            theirs.shutdown(true, false);
            // The last that has the pool.
            drop(theirs);
        });
        drop(pool);
        drop(gate);
        last.unwrap().wait().unwrap();
    });
}

#[test]
fn a_worker_that_cannot_be_set_up_fails_a_job_and_gives_its_slot_back() {
    fresh(|| {
        let calls = Arc::new(AtomicUsize::new(0));
        let count = calls.clone();
        let pool = Builder::new().threads(1).initializer(move || {
            assert!(count.fetch_add(1, Ordering::SeqCst) >= 3, "it cannot be set up");
        });
        let pool = pool.build();
        let jobs: Vec<_> = (0..6).map(|n| pool.submit(move || n).unwrap()).collect();
        let results: Vec<_> = jobs.into_iter().map(PoolFuture::wait).collect();
        let failed: Vec<_> = results.iter().filter_map(|result| result.as_ref().err()).collect();
        assert_eq!(failed.len(), 3, "{results:?}");
        assert!(failed.iter().all(|error| error.is_broken()));
        assert_eq!(
            failed[0].to_string(),
            "the job's worker failed: its initializer panicked: it cannot be set up"
        );
        assert_eq!(pool.threads(), 1);
        pool.shutdown(true, false);
        assert_eq!((pool.threads(), calls.load(Ordering::SeqCst)), (0, 4));
    });
}

#[test]
fn every_thread_is_set_up_once_and_named() {
    fresh(|| {
        thread_local!(static READY: std::cell::Cell<u32> = const { std::cell::Cell::new(0) });
        let pool = Builder::new()
            .threads(3)
            .name("unit")
            .initializer(|| READY.set(READY.get() + 1))
            .build();
        let (all, gate) = hold(&pool, 3);
        gate.await_inside(3);
        gate.open();
        all.into_iter().for_each(|future| assert!(future.wait().is_ok()));
        let seen = pool.map(0..50, |_| {
            (READY.get(), std::thread::current().name().map(String::from))
        });
        for seen in seen.unwrap().map(Result::unwrap) {
            assert_eq!(seen.0, 1);
            assert!(["unit-0", "unit-1", "unit-2"].contains(&seen.1.unwrap().as_str()));
        }
    });
}

#[test]
fn the_default_pool_and_one_s_own_are_executors() {
    fresh(|| {
        let pool = ThreadPool::new(1);
        let name = || std::thread::current().name().map(String::from).unwrap();
        let own = threadpool::run_in_executor(&pool, name).unwrap().wait().unwrap();
        let default = threadpool::run_in_executor(None, name).unwrap().wait().unwrap();
        assert_eq!((&*own, &*default), ("greenthread-pool-0", "greenthread-pool"));
        pool.shutdown(false, false);
        assert_eq!(threadpool::run_in_executor(&pool, name).unwrap_err(), ShutDown);
    });
}

#[test]
fn waits_in_a_callback_panic_and_what_is_done_is_given() {
    fresh(|| {
        let pool = Arc::new(ThreadPool::new(1));
        let (mut all, gate) = hold(&pool, 1);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (theirs, notes) = (pool.clone(), seen.clone());
        let future = all.remove(0);
        hub::call_soon(move || {
            let waited = catch_unwind(AssertUnwindSafe(|| future.wait()));
            let closed = catch_unwind(AssertUnwindSafe(|| theirs.shutdown(true, false)));
            notes.lock().unwrap().push((waited.is_err(), closed.is_err()));
        });
        hub::idle();
        assert_eq!(*seen.lock().unwrap(), [(true, true)]);
        gate.open();
        pool.shutdown(true, false);
        let done = timeout(ms(1000), || pool.shutdown(true, true));
        assert!(done.is_ok(), "again and again");
    });
}
