//! Nurseries: the first failure ends all, borrows, deadlines, kills, panics.

// A child that only waits is `|| Ok(park())`.
#![allow(clippy::unit_arg)]

use std::cell::{Cell, RefCell};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use greenthread::{sleep, spawn, thread, time, timeout, yield_now};

use crate::support::fresh::{fresh, ms, secs, text, virtually};

/// Counts how often it is dropped.
struct Counts<'a>(&'a Cell<u32>);

impl Drop for Counts<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

#[test]
fn children_borrow_and_give_their_values_in_order() {
    fresh(|| {
        let words = [String::from("a"), String::from("bcd")];
        let lengths = thread::nursery(|n| {
            let children = words.each_ref().map(|word| n.spawn(|| io::Result::Ok(word.len())));
            Ok(children.map(|child| child.join()))
        });
        assert_eq!(lengths.unwrap(), [1, 3]);
    });
}

#[test]
fn the_first_error_ends_body_and_siblings_and_is_the_result() {
    virtually(|| {
        let start = time::now();
        let dropped = Cell::new(0);
        let failed: Result<(), &str> = thread::nursery(|n| {
            for late in [3, 2, 1] {
                let dropped = &dropped;
                n.spawn_local(move || {
                    let _counts = Counts(dropped);
                    sleep(secs(late));
                    Err::<(), _>(["", "one", "two", "three"][late as usize])
                });
            }
            let _counts = Counts(&dropped);
            sleep(secs(60));
            unreachable!("the body ends with the first error")
        });
        assert_eq!(failed, Err("one"));
        assert_eq!((dropped.get(), time::now() - start), (4, secs(1)));
    });
}

#[test]
fn an_error_of_the_body_ends_the_children() {
    virtually(|| {
        let start = time::now();
        let dropped = Cell::new(0);
        let failed: Result<(), _> = thread::nursery(|n| {
            n.spawn_local(|| {
                let _counts = Counts(&dropped);
                sleep(secs(60));
                Ok(())
            });
            yield_now();
            Err("body")
        });
        assert_eq!((failed, dropped.get(), time::now() - start), (Err("body"), 1, secs(0)));
    });
}

#[test]
fn a_panic_of_a_child_or_the_body_ends_all_and_goes_on() {
    virtually(|| {
        for by_child in [true, false] {
            let start = time::now();
            let dropped = Cell::new(0);
            let panicked = catch_unwind(AssertUnwindSafe(|| -> Result<(), ()> {
                thread::nursery(|n| {
                    n.spawn_local(|| {
                        let _counts = Counts(&dropped);
                        sleep(secs(60));
                        Ok::<_, ()>(())
                    });
                    yield_now();
                    if by_child {
                        n.spawn(|| -> Result<(), ()> { panic!("child") });
                        sleep(secs(60));
                    }
                    panic!("body")
                })
            }));
            let said = if by_child { "child" } else { "body" };
            assert_eq!(text(&*panicked.unwrap_err()), said);
            assert_eq!((dropped.get(), time::now() - start), (1, secs(0)));
        }
    });
}

#[test]
fn a_join_of_a_failed_child_unwinds_owner_and_siblings() {
    virtually(|| {
        let log = RefCell::new(Vec::new());
        let failed: Result<(), _> = thread::nursery(|n| {
            let failing = n.spawn_local(|| {
                sleep(secs(1));
                Err::<(), _>("failed")
            });
            let log = &log;
            n.spawn_local(move || {
                failing.join();
                log.borrow_mut().push("a sibling went on");
                Ok(())
            });
            n.spawn_local(|| Ok(sleep(secs(60)))).join();
            log.borrow_mut().push("the owner went on");
            Ok(())
        });
        assert_eq!((failed, log.borrow().len()), (Err("failed"), 0));
    });
}

#[test]
fn a_kill_of_the_owner_kills_the_children_and_is_delivered_then() {
    virtually(|| {
        let start = time::now();
        let children = Arc::new(());
        let owned = children.clone();
        let owner = spawn(move || {
            thread::nursery(|n| {
                for _ in 0..3 {
                    let owned = owned.clone();
                    n.spawn(move || {
                        let _owned = owned;
                        thread::shield(|| sleep(secs(1)));
                        sleep(secs(60));
                        Ok::<_, ()>(())
                    });
                }
                Ok(())
            })
        });
        sleep(ms(1));
        assert_eq!(Arc::strong_count(&children), 5);
        owner.kill();
        assert!(owner.join().unwrap_err().is_killed());
        assert_eq!((Arc::strong_count(&children), time::now() - start), (1, secs(1)));
    });
}

#[test]
fn a_time_out_around_a_nursery_ends_it() {
    virtually(|| {
        for in_body in [true, false] {
            let start = time::now();
            let result = timeout(secs(1), || {
                thread::nursery(|n| {
                    n.spawn(|| Ok::<_, ()>(sleep(secs(60))));
                    if in_body {
                        sleep(secs(60));
                    }
                    Ok(())
                })
            });
            assert!(result.is_err());
            assert_eq!(time::now() - start, secs(1));
        }
    });
}

#[test]
fn a_deadline_ends_body_and_children_with_an_error() {
    virtually(|| {
        for in_body in [true, false] {
            let start = time::now();
            let late: io::Result<()> = thread::nursery(|n| {
                n.deadline(time::now() + secs(60));
                n.spawn(|| Ok(sleep(secs(3600))));
                n.deadline(time::now() + secs(2));
                if in_body {
                    sleep(secs(3600));
                }
                Ok(())
            });
            assert_eq!(late.unwrap_err().kind(), io::ErrorKind::TimedOut);
            assert_eq!(time::now() - start, secs(2));
        }
        let in_time: io::Result<u8> = thread::nursery(|n| {
            n.deadline(time::now() + secs(2));
            Ok(n.spawn(|| Ok(7)).join())
        });
        assert_eq!(in_time.unwrap(), 7);
        sleep(secs(5)); // nothing is left of the deadline
    });
}

#[test]
fn cancel_ends_it_and_later_children_never_begin() {
    virtually(|| {
        let began = Cell::new(false);
        let ended: Result<(), _> = thread::nursery(|n| {
            n.spawn_local(|| {
                thread::catch_kill(|| sleep(secs(60))).unwrap_err();
                n.spawn_local(|| {
                    began.set(true);
                    Ok(())
                });
                Ok(())
            });
            yield_now();
            n.cancel("first");
            n.cancel("second");
            Ok(())
        });
        assert_eq!((ended, began.get()), (Err("first"), false));
    });
}

#[test]
fn a_child_that_alone_is_killed_is_no_failure() {
    fresh(|| {
        let value = thread::nursery(|n| {
            let parked = n.spawn(|| Ok::<_, ()>(thread::park()));
            yield_now();
            parked.thread().kill();
            Ok(7)
        });
        assert_eq!(value, Ok(7));
        let panicked = catch_unwind(|| {
            thread::nursery(|n| {
                let parked = n.spawn(|| Ok::<_, ()>(thread::park()));
                yield_now();
                parked.thread().kill();
                parked.join();
                Ok(())
            })
        });
        assert!(text(&*panicked.unwrap_err()).contains("was killed"));
    });
}

#[test]
fn nurseries_nest_and_each_catches_its_own_failure() {
    virtually(|| {
        let outer = thread::nursery(|outer| {
            let inner: Result<(), _> = thread::nursery(|inner| {
                inner.spawn(|| Err::<(), _>("inner"));
                sleep(secs(60));
                Ok(())
            });
            assert_eq!(inner, Err("inner"));
            let nested: Result<(), &str> = thread::nursery(|inner| {
                inner.spawn(|| Ok(sleep(secs(60))));
                outer.spawn(|| Err::<(), _>("outer"));
                Ok(())
            });
            unreachable!("the failure of the outer one passes through the inner one: {nested:?}");
            #[allow(unreachable_code)]
            Ok(())
        });
        assert_eq!(outer, Err("outer"));
    });
}

#[test]
fn a_child_of_another_os_thread_ends_the_owner() {
    fresh(|| {
        let failed: Result<(), _> = thread::nursery(|n| {
            std::thread::scope(|os| {
                os.spawn(|| {
                    n.spawn(|| Err::<(), _>("elsewhere"));
                    yield_now();
                })
                .join()
                .unwrap();
            });
            sleep(secs(60));
            Ok(())
        });
        assert_eq!(failed, Err("elsewhere"));
    });
}

/// The owner is killed at its k-th park, for each k: whatever it does then, no child is left, and no green thread.
#[test]
fn a_kill_at_any_park_leaves_nothing_behind() {
    virtually(|| {
        let mut parks = 0;
        for k in 0.. {
            let alive = Arc::new(());
            let owned = alive.clone();
            let before = greenthread::hub::live();
            let owner = spawn(move || {
                thread::nursery(|n| {
                    let first = n.spawn(|| {
                        let _owned = owned.clone();
                        sleep(ms(1));
                        Ok::<_, ()>(1)
                    });
                    sleep(ms(2));
                    let value = first.join();
                    let _owned = &owned;
                    n.spawn(|| {
                        let _owned = owned.clone();
                        sleep(ms(3));
                        Ok(())
                    });
                    Ok(value)
                })
            });
            for _ in 0..k {
                yield_now();
                sleep(ms(1));
            }
            let done = owner.is_finished();
            owner.kill();
            match owner.join() {
                Ok(value) => assert_eq!(value, Ok(1)),
                Err(error) => assert!(error.is_killed() && !done, "{error}"),
            }
            assert_eq!((Arc::strong_count(&alive), greenthread::hub::live()), (1, before));
            if done {
                break;
            }
            parks += 1;
        }
        assert!(parks >= 4, "{parks}");
    });
}
