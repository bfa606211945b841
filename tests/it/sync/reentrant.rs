//! The lock that its holder may take again: who holds it, and who gets it next.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use greenthread::generator::Generator;
use greenthread::sync::ReentrantLock;
use greenthread::{hub, sleep, spawn, spawn_local, timeout, yield_now};

use super::turns::{at_every_turn, join_all};
use crate::support::fresh::{fresh, green, ms, virtually};

#[test]
fn its_holder_takes_it_again_and_others_wait_for_the_last_guard() {
    virtually(|| {
        let lock = Rc::new(ReentrantLock::new(RefCell::new(vec![0])));
        let (one, two) = (lock.lock(), lock.lock());
        let three = lock.try_lock().unwrap();
        let four = lock.lock_timeout(ms(0)).unwrap();
        let others: Vec<_> = (1..4)
            .map(|n| {
                green(&lock, move |lock| {
                    assert!(lock.try_lock().is_none());
                    let held = lock.lock();
                    yield_now();
                    let again = lock.lock_deadline(greenthread::time::now()).unwrap();
                    drop(held);
                    yield_now();
                    again.borrow_mut().push(n);
                })
            })
            .collect();
        yield_now();
        for guard in [two, one, four] {
            drop(guard);
            yield_now();
            assert_eq!(three.borrow().len(), 1, "one is left");
        }
        drop(three);
        assert!(lock.try_lock().is_none(), "it is on its way to the first");
        join_all(others);
        assert_eq!(*lock.lock().borrow(), [0, 1, 2, 3], "in the order of coming");
    });
}

#[test]
fn it_is_free_whoever_was_killed() {
    virtually(|| {
        at_every_turn(
            || (ReentrantLock::new(Cell::new(0)), Cell::new(0)),
            |_, (lock, inside)| {
                struct Leaves<'a>(&'a Cell<usize>);
                impl Drop for Leaves<'_> {
                    fn drop(&mut self) {
                        self.0.set(self.0.get() - 1);
                    }
                }
                for _ in 0..4 {
                    let outer = lock.lock();
                    inside.set(inside.get() + 1);
                    let _leaves = Leaves(inside);
                    sleep(ms(1));
                    let inner = lock.lock();
                    drop(outer);
                    sleep(ms(1));
                    assert_eq!(inside.get(), 1);
                    inner.set(inner.get() + 1);
                }
            },
            |(lock, inside)| {
                assert_eq!(inside.get(), 0);
                assert!((16..=20).contains(&lock.try_lock().unwrap().get()));
            },
        );
    });
}

#[test]
fn a_time_out_leaves_no_trace() {
    virtually(|| {
        let lock = Rc::new(ReentrantLock::new(()));
        let held = lock.lock();
        let late = green(&lock, |lock| {
            assert!(lock.lock_timeout(ms(5)).is_none());
            assert!(lock.lock_deadline(greenthread::time::now() + ms(5)).is_none());
            timeout(ms(5), || drop(lock.lock())).is_err()
        });
        assert!(late.join().unwrap());
        drop(held);
        let next = green(&lock, |lock| drop(lock.try_lock().unwrap()));
        next.join().unwrap();
    });
}

#[test]
fn a_callback_is_not_the_stack_that_it_runs_on() {
    virtually(|| {
        let lock = Rc::new(ReentrantLock::new(()));
        let seen = Rc::new(RefCell::new(Vec::new()));
        for _ in 0..2 {
            let held = lock.lock();
            for turn in 0..2 {
                let (theirs, log) = (lock.clone(), seen.clone());
                hub::call_soon(move || {
                    let mine = theirs.try_lock();
                    let again = mine.as_ref().and_then(|_| theirs.try_lock());
                    log.borrow_mut().push((mine.is_some(), again.is_some()));
                });
                if turn == 0 {
                    sleep(ms(1));
                }
            }
            drop(held);
            sleep(ms(1));
        }
        let (no, yes) = ((false, false), (true, true));
        assert_eq!(*seen.borrow(), [no, yes, no, yes]);
    });
}

#[test]
fn what_a_callback_forgets_to_give_back_is_shared_with_no_other() {
    virtually(|| {
        let lock = Arc::new(ReentrantLock::new(()));
        let theirs = lock.clone();
        hub::call_soon(move || std::mem::forget(theirs.lock()));
        sleep(ms(1));
        let (theirs, seen) = (lock.clone(), Arc::new(AtomicU32::new(0)));
        let log = seen.clone();
        let ask = move || {
            let (theirs, log) = (theirs.clone(), log.clone());
            hub::call_soon(move || {
                _ = log.fetch_add(if theirs.try_lock().is_none() { 1 } else { 100 }, Ordering::Relaxed)
            });
            sleep(ms(1));
        };
        // Of the native stack, and of a green thread that has other thread-locals.
        ask();
        spawn(ask).join().unwrap();
        assert_eq!(seen.load(Ordering::Relaxed), 2);
        assert!(lock.try_lock().is_none());
    });
}

#[test]
fn a_generator_counts_as_the_green_thread_that_sends_to_it() {
    virtually(|| {
        let lock = Rc::new(ReentrantLock::new(()));
        let theirs = lock.clone();
        let mut holds = Generator::<u32, (), ()>::new(move |y| {
            let _held = theirs.lock();
            y.yield_(1);
        });
        let outer = lock.lock();
        assert_eq!(holds.next(), Some(1));
        drop(outer);
        assert!(lock.try_lock().is_some());
        let other = green(&lock, |lock| lock.try_lock().is_none());
        assert!(other.join().unwrap(), "the generator holds it");
        assert_eq!(holds.next(), None);
        let other = green(&lock, |lock| lock.try_lock().is_some());
        assert!(other.join().unwrap());
    });
}

#[test]
fn a_guard_may_be_dropped_by_another_of_its_os_thread() {
    virtually(|| {
        let lock = Rc::new(ReentrantLock::new(()));
        let lock: &'static ReentrantLock<()> = Box::leak(Box::new(Rc::try_unwrap(lock).unwrap()));
        let (held, given) = (lock.lock(), lock.lock());
        let drops = spawn_local(move || {
            drop(given);
            lock.try_lock().is_none()
        });
        assert!(drops.join().unwrap(), "the other one counts");
        let given = lock.lock();
        drop(held);
        let drops = spawn_local(move || {
            drop(given);
            lock.try_lock().is_some()
        });
        assert!(drops.join().unwrap());
        drop(lock.lock());
    });
}

#[test]
fn between_hubs_and_os_threads() {
    fresh(|| {
        // A `Cell`: no two threads may be at it.
        let lock = Arc::new(ReentrantLock::new(Cell::new(0)));
        let add = |lock: &ReentrantLock<Cell<u32>>, n: u32| {
            for _ in 0..n {
                let held = lock.lock();
                let before = held.get();
                if before.is_multiple_of(16) {
                    yield_now();
                }
                lock.lock().set(before + 1);
            }
        };
        let threads: Vec<_> = (0..4)
            .map(|n| {
                let lock = lock.clone();
                std::thread::spawn(move || {
                    if n < 2 {
                        return add(&lock, 3_000);
                    }
                    let green = (0..3).map(|_| {
                        let lock = lock.clone();
                        spawn(move || add(&lock, 1_000))
                    });
                    join_all(green.collect());
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(lock.lock().get(), 12_000);
    });
}

#[test]
fn it_may_go_where_it_should() {
    fn is<T: Send + Sync>() {}
    is::<ReentrantLock<Cell<u8>>>();
    let mut lock = ReentrantLock::from(1);
    *lock.get_mut() += 1;
    assert_eq!(format!("{lock:?} {}", lock.lock()), "ReentrantLock { data: 2, .. } 2");
    let held = lock.lock();
    let seen = std::thread::scope(|scope| scope.spawn(|| format!("{lock:?}")).join().unwrap());
    assert_eq!(seen, "ReentrantLock { data: <locked>, .. }");
    drop(held);
    assert_eq!((lock.into_inner(), *ReentrantLock::<u8>::default().lock()), (2, 0));
}
