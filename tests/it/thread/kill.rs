//! Kill: where it is delivered, what catches it, what defers it.

use std::cell::Cell;
use std::io::Read;
use std::panic::catch_unwind;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use greenthread::future::block_on;
use greenthread::net::UnixStream;
use greenthread::{hub, sleep, spawn, spawn_local, thread, threadpool, time, yield_now};

use crate::support::fresh::{fresh, ms, secs, virtually};

struct Flag(Arc<AtomicBool>);

impl Drop for Flag {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn flag() -> (Arc<AtomicBool>, Flag) {
    let flag = Arc::new(AtomicBool::new(false));
    (flag.clone(), Flag(flag))
}

/// Kills a green thread that is blocked in `f`, and sees it unwind.
fn dies_in(f: impl FnOnce() + Send + 'static) {
    fresh(|| {
        let (dropped, guard) = flag();
        let (returned, after) = (Arc::new(AtomicBool::new(false)), ());
        let theirs = returned.clone();
        let blocked = spawn(move || {
            let _guard = guard;
            f();
            theirs.store(true, Ordering::SeqCst);
            after
        });
        yield_now();
        yield_now();
        assert!(
            !blocked.is_finished() && !dropped.load(Ordering::SeqCst),
            "it did not block"
        );
        blocked.kill();
        let error = blocked.join().unwrap_err();
        assert!(error.is_killed() && !error.is_panic(), "{error}");
        assert!(dropped.load(Ordering::SeqCst), "its destructors run");
        assert!(!returned.load(Ordering::SeqCst), "it goes no further");
        hub::idle();
        assert!(!std::thread::panicking());
    });
}

#[test]
fn it_unwinds_who_is_parked() {
    dies_in(thread::park);
}

#[test]
fn it_unwinds_who_sleeps() {
    dies_in(|| sleep(secs(3600)));
}

#[test]
fn it_unwinds_who_joins_and_detaches_the_other() {
    dies_in(|| drop(spawn(|| sleep(ms(20))).join()));
}

#[test]
fn it_unwinds_who_reads_from_a_socket() {
    dies_in(|| {
        let (mut ours, _theirs) = UnixStream::pair().unwrap();
        let _ = ours.read(&mut [0; 1]);
    });
}

#[test]
fn it_unwinds_who_is_in_block_on_and_drops_the_future() {
    let (dropped, guard) = flag();
    dies_in(move || {
        block_on(async move {
            let _guard = guard;
            std::future::pending::<()>().await;
        })
    });
    assert!(dropped.load(Ordering::SeqCst));
}

#[test]
fn it_unwinds_who_waits_for_a_pool_thread() {
    dies_in(|| threadpool::unblock(|| std::thread::sleep(ms(100))));
}

#[test]
fn it_unwinds_who_waits_for_several() {
    dies_in(|| {
        drop(thread::wait(
            vec![spawn(|| sleep(ms(20))), spawn(|| sleep(ms(20)))],
            None,
            2,
        ))
    });
}

#[test]
fn it_unwinds_who_is_in_run_forever() {
    dies_in(hub::run_forever);
}

#[test]
fn before_the_first_turn_nothing_runs_but_the_closure_is_dropped() {
    fresh(|| {
        let (dropped, guard) = flag();
        let ran = Arc::new(AtomicBool::new(false));
        let theirs = ran.clone();
        let handle = spawn(move || {
            theirs.store(true, Ordering::SeqCst);
            drop(guard);
        });
        handle.kill();
        assert!(!dropped.load(Ordering::SeqCst), "it only asks");
        assert!(handle.join().unwrap_err().is_killed());
        assert!(dropped.load(Ordering::SeqCst));
        assert!(!ran.load(Ordering::SeqCst));
    });
}

#[test]
fn a_park_in_the_destructor_of_an_unstarted_closure_neither_hangs_nor_leaks_the_rest() {
    struct Parks;
    impl Drop for Parks {
        fn drop(&mut self) {
            sleep(secs(3600));
        }
    }
    virtually(|| {
        let start = time::now();
        let (dropped, guard) = flag();
        let owned = (Parks, guard, Parks);
        let handle = spawn_local(move || drop(owned));
        handle.kill();
        assert!(handle.join().unwrap_err().is_killed());
        assert!(dropped.load(Ordering::SeqCst));
        assert_eq!(time::now(), start);
        assert_eq!(hub::live(), 0);
    });
}

#[test]
fn catch_kill_catches_it_and_it_is_spent() {
    fresh(|| {
        let tough = spawn(|| {
            assert!(thread::catch_kill(thread::park).is_err());
            sleep(ms(1)); // not killed again
            yield_now();
            thread::catch_kill(|| 5).unwrap()
        });
        yield_now();
        tough.kill();
        assert_eq!(tough.join().unwrap(), 5);
    });
}

#[test]
fn catch_kill_lets_panics_and_time_outs_through() {
    virtually(|| {
        let panicked = spawn(|| thread::catch_kill(|| panic!("x")).is_err());
        assert!(panicked.join().unwrap_err().is_panic());
        let late = time::timeout(ms(5), || thread::catch_kill(|| sleep(secs(5))).is_ok());
        assert!(late.is_err());
    });
}

#[test]
fn who_swallows_it_gets_it_again_at_the_next_park() {
    fresh(|| {
        let count = Rc::new(Cell::new(0));
        let theirs = count.clone();
        let stubborn = spawn_local(move || {
            for _ in 0..3 {
                assert!(catch_unwind(thread::park).is_err());
                theirs.set(theirs.get() + 1);
            }
            assert!(catch_unwind(yield_now).is_err(), "a yield is a park");
            assert!(catch_unwind(|| sleep(ms(1))).is_err());
            thread::park();
            theirs.set(100);
        });
        yield_now();
        stubborn.kill();
        assert!(stubborn.join().unwrap_err().is_killed());
        assert_eq!(count.get(), 3);
    });
}

#[test]
fn one_kill_is_delivered_once_however_often_it_was_asked_for() {
    fresh(|| {
        let caught = spawn(|| {
            let first = thread::catch_kill(thread::park).is_err();
            let second = thread::catch_kill(|| sleep(ms(2))).is_err();
            (first, second)
        });
        yield_now();
        caught.kill();
        caught.kill();
        assert_eq!(caught.join().unwrap(), (true, false));
    });
}

#[test]
fn another_os_thread_kills() {
    fresh(|| {
        let parked = spawn(thread::park);
        let who = parked.thread();
        yield_now();
        let killer = std::thread::spawn(move || who.kill());
        assert!(parked.join().unwrap_err().is_killed());
        killer.join().unwrap();
    });
}

#[test]
fn killing_oneself_unwinds_at_the_next_park() {
    fresh(|| {
        let reached = Arc::new(AtomicUsize::new(0));
        let theirs = reached.clone();
        let suicide = spawn(move || {
            thread::current().kill();
            theirs.fetch_add(1, Ordering::SeqCst);
            yield_now();
            theirs.fetch_add(1, Ordering::SeqCst);
        });
        assert!(suicide.join().unwrap_err().is_killed());
        assert_eq!(reached.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn one_that_does_not_park_any_more_returns_its_value() {
    fresh(|| {
        let value = spawn(|| {
            thread::current().kill();
            5
        });
        assert_eq!(value.join().unwrap(), 5);
    });
}

#[test]
fn killing_ones_own_joiner_works() {
    fresh(|| {
        let (dropped, guard) = flag();
        let joiner_of = Rc::new(Cell::new(None::<thread::Thread>));
        let theirs = joiner_of.clone();
        let joiner = spawn_local(move || {
            let _guard = guard;
            let inner = spawn_local(move || {
                yield_now();
                theirs.take().unwrap().kill();
            });
            let _ = inner.join();
            unreachable!("killed in the join");
        });
        joiner_of.set(Some(joiner.thread()));
        assert!(joiner.join().unwrap_err().is_killed());
        assert!(dropped.load(Ordering::SeqCst));
    });
}

#[test]
fn killing_a_finished_one_is_nothing_even_if_its_place_is_taken() {
    fresh(|| {
        let old = spawn(|| 1);
        hub::idle();
        let who = old.thread();
        old.kill();
        assert_eq!(old.join().unwrap(), 1);
        let next = spawn(|| {
            sleep(ms(1));
            2
        });
        yield_now();
        who.kill(); // its block may be next's by now
        assert_eq!(next.join().unwrap(), 2);
    });
}

#[test]
fn killing_who_is_ready_already_takes_effect_at_its_next_park() {
    fresh(|| {
        let count = Rc::new(Cell::new(0));
        let theirs = count.clone();
        let woken = spawn_local(move || {
            thread::park();
            theirs.set(1);
            thread::park();
            theirs.set(2);
        });
        yield_now();
        woken.thread().unpark();
        woken.kill();
        assert!(woken.join().unwrap_err().is_killed());
        assert!(count.get() <= 1);
    });
}

#[test]
fn a_shield_defers_it() {
    virtually(|| {
        let start = time::now();
        let saved = Rc::new(Cell::new(false));
        let theirs = saved.clone();
        let saver = spawn_local(move || {
            thread::shield(|| {
                thread::shield(|| sleep(secs(1)));
                sleep(secs(1)); // still shielded by the outer one
            });
            theirs.set(true);
            thread::park();
            theirs.set(false);
        });
        yield_now();
        saver.kill();
        assert!(saver.join().unwrap_err().is_killed());
        assert!(saved.get());
        assert_eq!(time::now() - start, secs(2));
    });
}

#[test]
fn a_shield_ends_with_a_panic_that_leaves_it() {
    fresh(|| {
        let dies = spawn(|| {
            assert!(catch_unwind(|| thread::shield(|| panic!("inside"))).is_err());
            thread::park();
        });
        yield_now();
        dies.kill();
        assert!(dies.join().unwrap_err().is_killed());
    });
}

#[test]
fn destructors_may_spawn_and_use_what_cannot_fail_while_it_unwinds() {
    struct Spawns(Arc<AtomicUsize>);
    impl Drop for Spawns {
        fn drop(&mut self) {
            let count = self.0.clone();
            drop(spawn(move || count.fetch_add(1, Ordering::SeqCst)));
        }
    }
    fresh(|| {
        let count = Arc::new(AtomicUsize::new(0));
        let (killed, panicked) = (Spawns(count.clone()), Spawns(count.clone()));
        let handle = spawn(move || {
            let _spawns = killed;
            thread::park();
        });
        let bad = spawn(move || {
            let _spawns = panicked;
            panic!("x");
        });
        yield_now();
        handle.kill();
        assert!(handle.join().unwrap_err().is_killed());
        assert!(bad.join().unwrap_err().is_panic());
        hub::idle();
        assert_eq!(count.load(Ordering::SeqCst), 2);
    });
}

#[test]
fn a_park_while_unwinding_returns_at_once_and_hides_the_panic_from_others() {
    struct Sleeps;
    impl Drop for Sleeps {
        fn drop(&mut self) {
            sleep(secs(3600));
            thread::park();
            let _ = spawn(thread::park).join();
        }
    }
    virtually(|| {
        let start = time::now();
        let seen = Rc::new(Cell::new(false));
        let theirs = seen.clone();
        let watcher = spawn_local(move || {
            for _ in 0..20 {
                theirs.set(theirs.get() | std::thread::panicking());
                yield_now();
            }
        });
        let bad = spawn_local(|| {
            let _sleeps = Sleeps;
            panic!("x");
        });
        assert!(bad.join().unwrap_err().is_panic());
        watcher.join().unwrap();
        assert!(!seen.get(), "thread::panicking() shows in a neighbour");
        assert_eq!(time::now(), start);
        assert_eq!(hub::leaked_panics(), 0);
        hub::shutdown(secs(1)).unwrap();
    });
}

#[test]
fn a_yield_while_unwinding_hides_the_panic_from_others() {
    struct Yields;
    impl Drop for Yields {
        fn drop(&mut self) {
            yield_now();
            sleep(ms(0));
        }
    }
    fresh(|| {
        let seen = Rc::new(Cell::new(false));
        let theirs = seen.clone();
        let bad = spawn(|| {
            let _yields = Yields;
            panic!("x");
        });
        let watcher = spawn_local(move || {
            for _ in 0..5 {
                theirs.set(theirs.get() | std::thread::panicking());
                yield_now();
            }
        });
        assert!(bad.join().unwrap_err().is_panic());
        watcher.join().unwrap();
        assert!(!seen.get(), "thread::panicking() shows in a neighbour");
    });
}

#[test]
fn a_native_stack_cannot_be_killed() {
    fresh(|| {
        let native = thread::current();
        native.kill();
        spawn(move || native.kill()).join().unwrap();
        sleep(ms(1));
        assert!(thread::current().id().as_u64() >> 63 == 1, "the mark of a native stack");
    });
}

/// Swallows what unwinds it, for ever.
fn stubborn() {
    loop {
        let _ = std::panic::catch_unwind(|| sleep(ms(1)));
    }
}

#[test]
fn one_that_swallows_its_kill_does_not_stop_the_others() {
    std::thread::spawn(|| {
        let stubborn = spawn(stubborn);
        yield_now();
        stubborn.kill();
        sleep(ms(20));
        assert!(!stubborn.is_finished());
        let survivors = greenthread::hub::shutdown(ms(20)).unwrap_err();
        assert!(survivors.to_string().contains('1'), "{survivors}");
    })
    .join()
    .unwrap();
}

#[test]
fn one_that_swallows_its_time_out_does_not_stop_the_others() {
    std::thread::spawn(|| {
        spawn(|| greenthread::timeout(ms(5), stubborn));
        sleep(ms(30));
    })
    .join()
    .unwrap();
}

#[test]
fn the_handle_of_an_ended_native_stack_unparks_no_other() {
    // Block after block is used again: some OS thread gets that of an ended one.
    let mut ended: Vec<thread::Thread> = Vec::new();
    for _ in 0..16 {
        let olds = ended.clone();
        let new = fresh(move || {
            let me = thread::current();
            olds.iter().for_each(thread::Thread::unpark);
            assert!(olds.iter().all(|old| old.id() != me.id()));
            // An unpark token would end it early.
            let early = greenthread::timeout(ms(2), thread::park).is_ok();
            assert!(!early, "an old handle unparked it");
            me
        });
        ended.push(new);
    }
}
