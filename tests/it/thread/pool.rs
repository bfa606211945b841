//! Pools: places and the waiters for them, `apply`, `map`, and the streams of results: their order, their bound, what
//! becomes of a panic in an item or in the items, of a reader that is killed, and of a stream that is dropped half
//! read.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use greenthread::sync::{Event, Semaphore, channel};
use greenthread::thread::{self, Pool, PoolFull};
use greenthread::{debug, hub, sleep, spawn, spawn_local, time, timeout, yield_now};

use crate::support::fresh::{fresh, ms, quiesce, secs, text, virtually};

/// Counts those of its kind that live.
struct Alive(Arc<AtomicUsize>);

impl Alive {
    fn new(count: &Arc<AtomicUsize>) -> Alive {
        count.fetch_add(1, Ordering::SeqCst);
        Alive(count.clone())
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[test]
fn at_most_so_many_work_at_once_and_who_waits_goes_in_order() {
    virtually(|| {
        let (pool, start) = (Pool::new(3), time::now());
        assert_eq!((pool.size(), pool.free_count(), pool.is_empty()), (3, 3, true));
        let order = Arc::new(Mutex::new(Vec::new()));
        let spawners: Vec<_> = (0..9)
            .map(|n| {
                let (pool, order) = (pool.clone(), order.clone());
                spawn_local(move || {
                    pool.spawn(move || {
                        order.lock().unwrap().push(n);
                        sleep(secs(1));
                    })
                })
            })
            .collect();
        let members: Vec<_> = spawners.into_iter().map(|spawner| spawner.join().unwrap()).collect();
        assert_eq!((pool.len(), pool.free_count()), (3, 0));
        assert_eq!(format!("{pool:?}"), "Pool { size: 3, members: 3, .. }");
        pool.join();
        assert!(members.iter().all(|member| member.is_finished()));
        assert_eq!((pool.len(), pool.free_count()), (0, 3));
        assert_eq!(*order.lock().unwrap(), (0..9).collect::<Vec<_>>());
        assert_eq!(time::now() - start, secs(3));
    });
}

#[test]
fn who_gets_no_place_gets_the_closure_back() {
    virtually(|| {
        let (pool, start) = (Pool::new(1), time::now());
        let busy = pool.try_spawn(|| sleep(secs(10))).unwrap();
        let PoolFull(f) = pool.try_spawn(|| 7).unwrap_err();
        let PoolFull(f) = pool.spawn_timeout(secs(2), f).unwrap_err();
        let full = pool.spawn_deadline(start + secs(5), f).unwrap_err();
        assert_eq!(time::now() - start, secs(5));
        assert_eq!(format!("{full:?}"), "PoolFull(..)");
        assert!(full.to_string().starts_with("no place in the pool"));
        assert!(!pool.wait_available_timeout(secs(1)) && !pool.wait_available_deadline(start + secs(7)));
        pool.wait_available();
        assert_eq!(time::now() - start, secs(10));
        assert!(pool.wait_available_timeout(ms(0)) && busy.is_finished());
        assert_eq!(pool.spawn_timeout(secs(1), full.0).unwrap().join().unwrap(), 7);
        let busy = pool.spawn(|| sleep(secs(1)));
        let in_time = pool.spawn_deadline(time::now() + secs(2), || 8).unwrap();
        assert!(busy.is_finished());
        assert_eq!(in_time.join().unwrap(), 8);
    });
}

#[test]
fn a_pool_of_none_is_always_full() {
    virtually(|| {
        let pool = Pool::new(0);
        assert_eq!((pool.size(), pool.free_count()), (0, 0));
        assert!(pool.try_spawn(|| ()).is_err());
        assert!(pool.spawn_timeout(secs(1), || ()).is_err());
        assert!(!pool.wait_available_timeout(secs(1)));
        assert!(timeout(secs(1), || pool.spawn(|| ())).is_err());
        assert!(timeout(secs(1), || pool.apply(|| ())).is_err());
        assert!(timeout(secs(1), || pool.map([1], |n| n)).is_err());
        let mut results = pool.imap([1], 5, |n| n);
        assert!(timeout(secs(1), || results.next().is_some()).is_err());
        drop(results);
        assert!(pool.map([0; 0], |n| n).is_empty());
        assert!(pool.imap([0; 0], 0, |n| n).next().is_none());
        pool.join();
        assert!(pool.kill_timeout(ms(0)) && pool.join_raise().is_ok());
        hub::idle();
        assert_eq!(hub::live(), 0);
    });
}

#[test]
fn a_place_is_free_again_however_its_member_ends() {
    virtually(|| {
        let pool = Pool::new(1);
        let panics = pool.spawn(|| panic!("on purpose"));
        let killed = pool.spawn(thread::park);
        killed.kill();
        let detached = pool.spawn_local(|| sleep(secs(1)));
        let id = detached.thread();
        assert!(pool.contains(&id) && pool.members().len() == 1);
        drop(detached);
        let let_go = spawn_local({
            let pool = pool.clone();
            move || pool.spawn(thread::park)
        });
        let let_go = let_go.join().unwrap();
        assert!(pool.try_spawn(|| ()).is_err());
        assert!(pool.discard(&let_go.thread()));
        assert_eq!(pool.free_count(), 1);
        let added = spawn(|| sleep(secs(1)));
        pool.add(&added);
        pool.group().add(&let_go); // takes no place
        assert_eq!((pool.free_count(), pool.len()), (0, 2));
        assert!(!pool.join_timeout(secs(5)) && !pool.join_deadline(time::now()));
        assert_eq!((pool.free_count(), pool.len()), (1, 1));
        pool.add(&let_go); // a member already: the place goes back
        assert_eq!(pool.free_count(), 1);
        assert!(pool.kill_deadline(time::now() + secs(1)));
        assert!(pool.join_raise().unwrap_err().is_panic());
        assert!(panics.join().unwrap_err().is_panic() && killed.join().unwrap_err().is_killed());
        assert!(let_go.join().unwrap_err().is_killed() && added.join().is_ok());
    });
}

#[test]
fn a_place_comes_back_from_a_member_that_is_lost_with_its_hub() {
    let pool = Pool::new(1);
    let theirs = pool.clone();
    let lost = std::thread::spawn(move || theirs.spawn(thread::park)).join().unwrap();
    assert!(lost.is_finished() && lost.join().unwrap_err().is_lost());
    fresh(move || assert_eq!((pool.free_count(), pool.apply(|| 3)), (1, 3)));
}

#[test]
fn whoever_waits_may_be_killed_or_timed_out_anywhere_and_all_places_come_back() {
    let waits: [fn(&Pool); 8] = [
        |pool| drop(pool.spawn(|| sleep(ms(1)))),
        |pool| drop(pool.spawn_timeout(ms(3), || sleep(ms(1)))),
        |pool| pool.wait_available(),
        |pool| pool.apply(|| sleep(ms(1))),
        |pool| drop(pool.map(0..3, |_| sleep(ms(1)))),
        |pool| drop(pool.imap(0..3, 0, |_| sleep(ms(1))).last()),
        |pool| drop(pool.imap_unordered(0..3, 1, |_| sleep(ms(1))).last()),
        |pool| pool.add(&spawn(|| sleep(ms(1)))),
    ];
    virtually(move || {
        for (which, wait) in waits.into_iter().enumerate() {
            for k in 0..12 {
                for timed in [false, true] {
                    let pool = Pool::new(2);
                    let workers: Vec<_> = (0..4)
                        .map(|n| {
                            let pool = pool.clone();
                            spawn_local(move || {
                                for _ in 0..3 {
                                    if n == 2 && timed {
                                        let _ = timeout(ms(k), || wait(&pool));
                                    } else if n == 2 {
                                        wait(&pool);
                                    } else {
                                        pool.spawn(|| sleep(ms(1))).join().unwrap();
                                    }
                                    assert!(pool.len() <= 2);
                                }
                            })
                        })
                        .collect();
                    for _ in 0..k {
                        yield_now();
                    }
                    if !timed {
                        workers[2].kill();
                    }
                    for (n, worker) in workers.into_iter().enumerate() {
                        assert!(worker.join().is_ok() || n == 2 && !timed, "{which} {k} {timed} {n}");
                    }
                    assert!(pool.join_timeout(secs(60)), "{which} {k} {timed}");
                    hub::idle();
                    assert_eq!((pool.free_count(), hub::live()), (2, 0), "{which} {k} {timed}");
                }
            }
        }
    });
}

#[test]
fn apply_in_a_member_runs_there() {
    virtually(|| {
        let pool = Pool::new(1);
        let (one, two) = (pool.clone(), pool.clone());
        let ids = pool.apply(move || {
            let outer = thread::current().id();
            let inner = one.apply(move || (thread::current().id(), two.apply(|| thread::current().id())));
            (outer, inner.0, inner.1)
        });
        assert!(ids.0 == ids.1 && ids.1 == ids.2 && ids.0 != thread::current().id());
        // Who is no member waits its turn.
        let busy = pool.spawn(|| sleep(secs(1)));
        assert_eq!(pool.apply(|| 2), 2);
        assert!(busy.is_finished());
        // Its panic is the caller's.
        let theirs = pool.clone();
        let failed = spawn(move || theirs.apply(|| panic!("on purpose"))).join();
        assert_eq!(text(&*failed.unwrap_err().into_panic()), "on purpose");
        let theirs = pool.clone();
        let failed = spawn(move || theirs.apply(thread::park));
        yield_now();
        pool.kill();
        let payload = failed.join().unwrap_err().into_panic();
        assert!(text(&*payload).starts_with("apply: the green thread did not return: "));
    });
}

#[test]
fn map_gives_all_results_in_order() {
    virtually(|| {
        let (pool, start) = (Pool::new(2), time::now());
        let results = pool.map([4, 3, 2, 1], |n| {
            sleep(secs(n));
            assert_ne!(n, 3, "on purpose");
            n
        });
        assert_eq!(time::now() - start, secs(5), "4 and 1, 3 and 2");
        let told = results[1].as_ref().unwrap_err().to_string();
        assert!(told.contains(file!()) && told.contains("on purpose"), "{told}");
        let values: Vec<_> = results.into_iter().filter_map(Result::ok).collect();
        assert_eq!(values, [4, 2, 1]);
        // A panic of the items is the caller's.
        let theirs = pool.clone();
        let failed = spawn(move || {
            let items = (0..3).inspect(|n| assert!(*n < 2, "on purpose"));
            theirs.map(items, |_| sleep(secs(1)))
        });
        assert!(failed.join().unwrap_err().is_panic());
        pool.join();
        assert_eq!(pool.free_count(), 2);
    });
}

#[test]
fn streams_give_results_in_the_order_of_the_items_or_as_they_come() {
    virtually(|| {
        let (pool, items) = (Pool::new(3), [3_u64, 1, 2, 6, 1]);
        let work = |n: u64| {
            sleep(secs(n));
            n
        };
        let start = time::now();
        let ordered: Vec<_> = pool.imap(items, 10, work).map(Result::unwrap).collect();
        assert_eq!(ordered, items);
        assert_eq!(time::now() - start, secs(7), "3, then 1 at 2, 6 at 1");
        let as_they_come: Vec<_> = pool.imap_unordered(items, 10, work).map(Result::unwrap).collect();
        assert_eq!(as_they_come, [1, 2, 3, 1, 6]);
    });
}

/// Reads results of `tasks` tasks slowly, in bursts, and sees how many are alive.
fn bounded(ordered: bool, tasks: usize, size: usize, bound: usize) {
    fresh(move || {
        let pool = Pool::new(size);
        let (alive, most, pulled) = <(Arc<AtomicUsize>, Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
        let (count, highest, pulls) = (alive.clone(), most.clone(), pulled.clone());
        let work = move |n: usize| {
            let result = (n, Alive::new(&count));
            highest.fetch_max(count.load(Ordering::SeqCst), Ordering::SeqCst);
            if n.is_multiple_of(7) {
                yield_now();
            }
            result
        };
        let items = (0..tasks).inspect(move |_| _ = pulls.fetch_add(1, Ordering::SeqCst));
        let mut results = if ordered {
            pool.imap(items, bound, work)
        } else {
            pool.imap_unordered(items, bound, work)
        };
        let (mut seen, mut given) = (vec![false; tasks], 0);
        for result in results.by_ref() {
            let (n, _alive) = result.unwrap();
            assert!(!std::mem::replace(&mut seen[n], true), "{n} came twice");
            assert!(!ordered || n == given, "{n} came as number {given}");
            given += 1;
            if given.is_multiple_of(tasks / 5) {
                hub::idle(); // lets it run ahead as far as it may
                assert!(pulled.load(Ordering::SeqCst) <= given - 1 + bound + size);
            }
        }
        assert_eq!(given, tasks);
        assert!(results.next().is_none() && results.next().is_none());
        assert_eq!(alive.load(Ordering::SeqCst), 0);
        let most = most.load(Ordering::SeqCst);
        assert!(most <= bound + size, "{most} alive, more than {bound} + {size}");
        assert!(most > bound, "it keeps the pool at work: {most} alive");
    });
}

#[test]
fn of_a_hundred_thousand_results_no_more_than_the_bound_and_the_pool_are_alive() {
    bounded(false, 100_000, 100, 50);
}

#[test]
fn bounds_hold_in_order_and_for_small_pools() {
    for (size, bound) in [(1, 0), (1, 1), (2, 0), (5, 3), (100, 7)] {
        bounded(true, 2000, size, bound);
        bounded(false, 2000, size, bound);
    }
}

#[test]
fn items_that_block_hold_nothing_up_but_themselves() {
    virtually(|| {
        for ordered in [true, false] {
            let (pool, start) = (Pool::new(4), time::now());
            let (sender, receiver) = channel::unbounded();
            sender.send(1).unwrap();
            sender.send(2).unwrap();
            let mut results = if ordered {
                pool.imap(receiver, 9, |n| n * 10)
            } else {
                pool.imap_unordered(receiver, 9, |n| n * 10)
            };
            assert_eq!(results.next().unwrap().unwrap(), 10);
            assert_eq!(results.next().unwrap().unwrap(), 20);
            assert!(timeout(secs(1), || results.next().is_some()).is_err());
            let later = spawn_local(move || {
                sleep(secs(1));
                sender.send(3).unwrap();
            });
            assert_eq!(results.next().unwrap().unwrap(), 30);
            assert_eq!(time::now() - start, secs(2));
            later.join().unwrap();
            assert!(results.next().is_none());
        }
    });
}

#[test]
fn items_that_panic_are_an_error_in_their_place_and_the_rest_is_given() {
    virtually(|| {
        let pool = Pool::new(3);
        let items = || {
            (0..9_u64).inspect(|n| {
                sleep(ms(100));
                assert!(*n < 3, "no more");
            })
        };
        // 0 ends at 1.1 s, 1 at 0.7, 2 at 0.4; the panic comes at 0.4 too, as the fourth.
        let work = |n: u64| {
            sleep([ms(1000), ms(500), ms(200)][n as usize]);
            n
        };
        let shown = |result: Result<u64, thread::JoinError>| match result {
            Ok(n) => n.to_string(),
            Err(error) => {
                let place = error.to_string();
                assert!(place.contains(file!()), "{place}");
                text(&*error.into_panic())
            }
        };
        let mut results = pool.imap(items(), 9, work);
        assert_eq!(
            results.by_ref().map(shown).collect::<Vec<_>>(),
            ["0", "1", "2", "no more"]
        );
        assert!(results.next().is_none());
        let mut results = pool.imap_unordered(items(), 9, work);
        let mut as_they_come: Vec<_> = results.by_ref().map(shown).collect();
        assert_eq!(as_they_come[2..], ["1", "0"]);
        as_they_come.truncate(2);
        as_they_come.sort_unstable();
        assert_eq!(as_they_come, ["2", "no more"]);
        assert!(results.next().is_none());
        assert_eq!(pool.free_count(), 3);
    });
}

#[test]
fn a_member_that_panics_or_is_killed_is_an_error_in_its_place() {
    virtually(|| {
        let pool = Pool::new(2);
        for ordered in [true, false] {
            let work = |n: u32| match n {
                1 => panic!("on purpose"),
                3 => {
                    thread::current().kill();
                    sleep(secs(1));
                    n
                }
                n => n,
            };
            let results = if ordered {
                pool.imap(0..6, 4, work)
            } else {
                pool.imap_unordered(0..6, 4, work)
            };
            let results: Vec<_> = results.collect();
            assert_eq!(results.len(), 6);
            let errors = |f: fn(&thread::JoinError) -> bool| {
                let is = results.iter().map(|result| result.as_ref().is_err_and(f));
                is.enumerate()
                    .filter(|(_, is)| *is)
                    .map(|(at, _)| at)
                    .collect::<Vec<_>>()
            };
            let (panicked, killed) = (errors(|e| e.is_panic()), errors(|e| e.is_killed()));
            if ordered {
                assert_eq!((panicked, killed), (vec![1], vec![3]));
            } else {
                assert_eq!((panicked.len(), killed.len()), (1, 1));
            }
        }
    });
}

#[test]
fn a_stream_that_is_dropped_half_read_kills_what_runs_for_it() {
    for ordered in [true, false] {
        for k in 0..25 {
            virtually(move || {
                let (pool, alive) = (Pool::new(3), Arc::new(AtomicUsize::new(0)));
                let other = pool.spawn(|| sleep(secs(100)));
                let (count, items) = (alive.clone(), Alive::new(&alive));
                let items = (0..50_u64).inspect(move |_| {
                    let _ = &items;
                    yield_now();
                });
                let work = move |n: u64| {
                    let result = Alive::new(&count);
                    sleep(ms(n % 3));
                    result
                };
                let mut results = if ordered {
                    pool.imap(items, 2, work)
                } else {
                    pool.imap_unordered(items, 2, work)
                };
                for _ in 0..k {
                    yield_now();
                }
                for _ in 0..k / 4 {
                    results.next().unwrap().unwrap();
                }
                drop(results);
                // Nobody runs on: all have ended as soon as they can.
                hub::idle();
                assert_eq!(alive.load(Ordering::SeqCst), 0, "{ordered} {k}");
                assert_eq!((hub::live(), pool.len(), pool.free_count()), (1, 1, 2), "{ordered} {k}");
                other.join().unwrap();
            });
        }
    }
}

#[test]
fn a_reader_that_is_timed_out_or_killed_finds_the_stream_as_it_was() {
    virtually(|| {
        for ordered in [true, false] {
            let pool = Pool::new(2);
            let mut results = if ordered {
                pool.imap(0..30_u64, 1, |n| {
                    sleep(ms(1 + n % 4));
                    n
                })
            } else {
                pool.imap_unordered(0..30_u64, 1, |n| {
                    sleep(ms(1 + n % 4));
                    n
                })
            };
            let (mut got, mut late) = (Vec::new(), 0);
            let is_over = Rc::new(Cell::new(false));
            while !is_over.get() {
                let limited = timeout(ms(1), || results.next());
                match limited {
                    Ok(Some(result)) => got.push(result.unwrap()),
                    Ok(None) => is_over.set(true),
                    Err(_) => late += 1,
                }
                let killed = thread::catch_kill(|| {
                    thread::current().unpark();
                    yield_now();
                });
                assert!(killed.is_ok());
            }
            assert!(late > 5, "{late}");
            if !ordered {
                got.sort_unstable();
            }
            assert_eq!(got, (0..30).collect::<Vec<_>>());
            // Killed, with the stream in its hands: all of it goes.
            let results = pool.imap(0..30_u64, 1, |_| sleep(secs(1)));
            let reader = spawn(move || results.for_each(drop));
            sleep(ms(3500));
            reader.kill();
            assert!(reader.join().unwrap_err().is_killed());
            hub::idle();
            assert_eq!((pool.len(), hub::live()), (0, 0));
        }
    });
}

#[test]
fn a_reader_and_the_items_may_use_the_pool_themselves() {
    virtually(|| {
        for ordered in [true, false] {
            let pool = Pool::new(1);
            let inner = pool.clone();
            let items = (0..10_u32).map(move |n| inner.apply(move || n + 1));
            let results = if ordered {
                pool.imap(items, 0, |n| n * 2)
            } else {
                pool.imap_unordered(items, 0, |n| n * 2)
            };
            let sum: u32 = results.map(|n| pool.apply(move || n.unwrap() + 1)).sum();
            assert_eq!(sum, 2 * 55 + 10);
        }
    });
}

#[test]
fn a_stream_may_be_read_on_another_os_thread() {
    fresh(|| {
        let pool = Pool::new(3);
        let results = pool.imap_unordered(0..500_u32, 2, |n| {
            if n % 5 == 0 {
                yield_now();
            }
            n
        });
        let done = Arc::new(Event::new());
        let theirs = done.clone();
        let reader = std::thread::spawn(move || {
            let sum = results.map(Result::unwrap).sum::<u32>();
            theirs.set();
            sum
        });
        done.wait();
        assert_eq!(reader.join().unwrap(), 499 * 500 / 2);
        pool.join();
    });
}

#[test]
fn a_pool_of_several_hubs_has_as_many_places_as_one_of_one() {
    fresh(|| {
        let (pool, inside, most) = (
            Pool::new(3),
            Arc::new(AtomicUsize::new(0)),
            Arc::new(AtomicUsize::new(0)),
        );
        let hubs = hub::Hubs::new(3).unwrap();
        for n in 0..3 {
            let (pool, inside, most) = (pool.clone(), inside.clone(), most.clone());
            let worker = move || {
                for _ in 0..200 {
                    let (inside, most) = (inside.clone(), most.clone());
                    pool.spawn(move || {
                        most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        yield_now();
                        inside.fetch_sub(1, Ordering::SeqCst);
                    });
                }
            };
            hubs.spawn_on(n, worker).unwrap();
        }
        hubs.join();
        pool.join();
        assert_eq!((pool.free_count(), inside.load(Ordering::SeqCst)), (3, 0));
        assert!((1..=3).contains(&most.load(Ordering::SeqCst)));
    });
}

#[test]
fn a_killed_pool_lets_in_who_waited_and_kills_it_too() {
    virtually(|| {
        let pool = Pool::new(1);
        let busy = pool.spawn(thread::park);
        let (theirs, ran) = (pool.clone(), Arc::new(AtomicUsize::new(0)));
        let count = ran.clone();
        let waits = spawn_local(move || {
            theirs.spawn(move || {
                count.fetch_add(1, Ordering::SeqCst);
                thread::park();
            })
        });
        yield_now();
        pool.kill();
        let late = waits.join().unwrap();
        assert!(busy.join().unwrap_err().is_killed());
        // Whether it came while the kill waited, or just after it: the next one finds it.
        pool.kill();
        assert!(late.join().unwrap_err().is_killed());
        assert_eq!(pool.free_count(), 1);
    });
}

#[test]
fn types_may_go_where_they_should() {
    fn is<T: Send + Sync>() {}
    is::<(Pool, thread::Group, hub::Hubs)>();
    fn sends<T: Send>() {}
    sends::<thread::Imap<Cell<u8>>>();
}

#[test]
fn who_waits_says_for_what() {
    virtually(|| {
        let pool = Pool::new(1);
        let busy = pool.spawn_local(thread::park);
        let (theirs, others) = (pool.clone(), pool.clone());
        let second = spawn_local(move || drop(theirs.spawn(|| ())));
        let joins = spawn_local(move || others.join());
        quiesce();
        let dump = debug::dump();
        for what in ["a place in a Pool", "the end of a Group's members"] {
            assert!(dump.contains(&format!("waits for {what}")), "{dump}");
        }
        busy.thread().unpark();
        thread::join_all([second, joins]).into_iter().for_each(Result::unwrap);
    });
}

#[test]
fn a_reader_that_is_killed_between_two_results_loses_none() {
    let reads = |shift: usize, in_order: bool| {
        let (pool, permits) = (Pool::new(200), Semaphore::new(1));
        let mut results = if in_order {
            pool.imap(0..200, 200, |n| n)
        } else {
            pool.imap_unordered(0..200, 200, |n| n)
        };
        sleep(ms(1)); // all are there
        // The budget ends at any step of `next`.
        (0..shift).for_each(|_| drop(permits.acquire()));
        thread::current().kill();
        let mut got = Vec::new();
        let killed = thread::catch_kill(|| results.by_ref().for_each(|result| got.push(result.unwrap())));
        assert!(killed.is_err(), "it is killed where nothing is waited for");
        got.extend(results.map(Result::unwrap));
        got.sort_unstable();
        assert_eq!(got, Vec::from_iter(0..200), "after {shift} other steps");
    };
    for shift in 0..4 {
        virtually(move || {
            spawn(move || [true, false].map(|in_order| reads(shift, in_order)))
                .join()
                .map(drop)
                .unwrap()
        });
    }
}
