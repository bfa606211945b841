//! Scopes: borrows, nesting, panics, kills, results.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use greenthread::{hub, sleep, spawn, spawn_local, thread, time, yield_now};

use crate::support::fresh::{fresh, ms, secs, text, virtually};

#[test]
fn children_borrow_and_give_results() {
    fresh(|| {
        let words = [String::from("a"), String::from("bcd")];
        let mut total = 0;
        let lengths = thread::scope(|s| {
            let handles: Vec<_> = words.iter().map(|word| s.spawn(move || word.len())).collect();
            s.spawn(|| total = words.len());
            handles.into_iter().map(|h| h.join().unwrap()).collect::<Vec<_>>()
        });
        assert_eq!(lengths, [1, 3]);
        assert_eq!(total, 2);
    });
}

#[test]
fn a_scope_waits_for_children_that_nobody_joined() {
    virtually(|| {
        let start = time::now();
        let done = Cell::new(0);
        thread::scope(|s| {
            for n in 1..=3 {
                let done = &done;
                drop(s.spawn_local(move || {
                    sleep(secs(n));
                    done.set(done.get() + 1);
                }));
            }
        });
        assert_eq!((done.get(), time::now() - start), (3, secs(3)));
    });
}

#[test]
fn a_result_may_borrow() {
    fresh(|| {
        let text = String::from("hello world");
        let first = thread::scope(|s| s.spawn(|| text.split(' ').next()).join().unwrap());
        assert_eq!(first, Some("hello"));
    });
}

#[test]
fn scopes_nest_and_children_spawn_siblings() {
    virtually(|| {
        let log = RefCell::new(Vec::new());
        thread::scope(|s| {
            s.spawn_local(|| {
                thread::scope(|inner| {
                    inner.spawn_local(|| {
                        sleep(secs(2));
                        log.borrow_mut().push("inner");
                    });
                });
                log.borrow_mut().push("middle");
                s.spawn_local(|| {
                    sleep(secs(1));
                    log.borrow_mut().push("sibling");
                });
            });
        });
        assert_eq!(*log.borrow(), ["inner", "middle", "sibling"]);
    });
}

#[test]
fn a_childs_panic_that_nobody_read_makes_the_scope_panic_after_all_have_ended() {
    virtually(|| {
        let other = Cell::new(false);
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            thread::scope(|s| {
                s.spawn_local(|| panic!("child"));
                s.spawn_local(|| {
                    sleep(secs(1));
                    other.set(true);
                });
            });
        }));
        assert!(text(&*panicked.unwrap_err()).contains("scoped green thread panicked"));
        assert!(other.get());
    });
}

#[test]
fn a_panic_that_was_read_is_done_with() {
    fresh(|| {
        let read = thread::scope(|s| s.spawn(|| panic!("child")).join().unwrap_err());
        assert_eq!(text(&*read.into_panic()), "child");
    });
}

#[test]
fn reading_one_panic_does_not_hide_another() {
    fresh(|| {
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            thread::scope(|s| {
                drop(s.spawn(|| panic!("nobody reads this")));
                assert!(s.spawn(|| panic!("read")).join().unwrap_err().is_panic());
            });
        }));
        assert!(panicked.is_err(), "the unread panic was swallowed");
    });
}

#[test]
fn the_bodys_own_panic_comes_first_and_waits_for_the_children() {
    virtually(|| {
        let done = Cell::new(false);
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            thread::scope(|s| {
                s.spawn_local(|| {
                    sleep(secs(1));
                    done.set(true);
                });
                panic!("body");
            })
        }));
        assert_eq!(text(&*panicked.unwrap_err()), "body");
        assert!(done.get());
    });
}

#[test]
fn a_killed_child_does_not_make_the_scope_panic() {
    fresh(|| {
        let owned = Arc::new(());
        thread::scope(|s| {
            let (a, b) = (owned.clone(), owned.clone());
            let started = s.spawn(move || {
                thread::park();
                drop(a);
            });
            yield_now();
            started.kill();
            let unstarted = s.spawn(move || drop(b));
            unstarted.kill();
            assert!(started.join().unwrap_err().is_killed());
        });
        assert_eq!(Arc::strong_count(&owned), 1);
    });
}

/// Sleeps, and sets the flag however that ends.
fn sleep_and_tell(seconds: u64, told: &Cell<bool>) {
    struct Tells<'a>(&'a Cell<bool>);
    impl Drop for Tells<'_> {
        fn drop(&mut self) {
            self.0.set(true);
        }
    }
    let _tells = Tells(told);
    sleep(secs(seconds));
}

#[test]
fn a_kill_of_the_caller_kills_the_children_and_is_delivered_when_all_have_ended() {
    virtually(|| {
        let start = time::now();
        let caller = spawn(|| {
            let (data, ended) = (vec![1; 1000], Cell::new(false));
            let caught = catch_unwind(AssertUnwindSafe(|| {
                thread::scope(|s| {
                    drop(s.spawn(|| {
                        thread::shield(|| sleep(secs(5)));
                        assert_eq!(data.iter().sum::<i32>(), 1000);
                        sleep(secs(60));
                    }));
                    drop(s.spawn_local(|| sleep_and_tell(60, &ended)));
                });
            }));
            assert!(caught.is_err() && ended.get());
            thread::park();
            unreachable!("the kill is due");
        });
        yield_now();
        yield_now();
        caller.kill();
        assert!(caller.join().unwrap_err().is_killed());
        assert_eq!(time::now() - start, secs(5), "the shielded child ends first");
    });
}

#[test]
fn a_time_out_around_a_scope_kills_the_children() {
    virtually(|| {
        for in_body in [true, false] {
            let start = time::now();
            let ended = Cell::new(false);
            let result = time::timeout(secs(1), || {
                thread::scope(|s| {
                    s.spawn_local(|| sleep_and_tell(5, &ended));
                    if in_body {
                        sleep(secs(60));
                    }
                });
            });
            assert!(ended.get() && result.is_err());
            assert_eq!(time::now() - start, secs(1));
        }
    });
}

#[test]
fn a_child_that_a_dying_scope_spawns_never_begins() {
    virtually(|| {
        let began = Cell::new(false);
        let result = time::timeout(secs(1), || {
            thread::scope(|s| {
                s.spawn_local(|| {
                    thread::catch_kill(|| sleep(secs(60))).unwrap_err();
                    s.spawn_local(|| began.set(true));
                });
            });
        });
        assert!(result.is_err() && !began.get());
    });
}

#[test]
fn a_panic_of_the_body_kills_no_child() {
    virtually(|| {
        let done = Cell::new(false);
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            thread::scope(|s| {
                s.spawn_local(|| {
                    sleep(secs(1));
                    done.set(true);
                });
                panic!("body");
            })
        }));
        assert!(panicked.is_err() && done.get());
    });
}

#[test]
fn kill_asks_the_children_that_run_but_not_the_caller() {
    virtually(|| {
        let start = time::now();
        let killed = thread::scope(|s| {
            let parked = [s.spawn(thread::park), s.spawn(thread::park)];
            let killer = s.spawn(|| {
                s.kill();
                sleep(secs(1));
                7
            });
            assert_eq!(killer.join().unwrap(), 7);
            let later = s.spawn(|| sleep(secs(1)));
            assert!(later.join().is_ok());
            parked.map(|one| one.join().unwrap_err().is_killed())
        });
        assert_eq!((killed, time::now() - start), ([true; 2], secs(2)));
    });
}

#[test]
fn a_scope_in_a_destructor_during_a_panic_waits_and_is_counted() {
    struct Scopes;
    impl Drop for Scopes {
        fn drop(&mut self) {
            let done = Cell::new(false);
            thread::scope(|s| {
                s.spawn_local(|| {
                    yield_now();
                    done.set(true);
                });
            });
            assert!(done.get());
        }
    }
    fresh(|| {
        let bad = spawn(|| {
            let _scopes = Scopes;
            panic!("x");
        });
        assert!(bad.join().unwrap_err().is_panic());
        assert_eq!(hub::leaked_panics(), 1);
        assert!(!std::thread::panicking());
        assert!(!spawn(std::thread::panicking).join().unwrap());
    });
}

#[test]
fn a_scope_on_another_os_thread_may_spawn_on_its_own_hub() {
    fresh(|| {
        let data = [1, 2, 3];
        thread::scope(|s| {
            std::thread::scope(|os| {
                os.spawn(|| s.spawn(|| data.len()).join().unwrap());
            });
        });
        assert_eq!(data.len(), 3);
    });
}

#[test]
fn nothing_of_a_child_outlives_its_scope() {
    struct Checks<'a>(&'a Cell<u32>);
    impl Drop for Checks<'_> {
        fn drop(&mut self) {
            self.0.set(self.0.get() + 1);
            sleep(ms(1)); // in the killed one this raises the kill
        }
    }
    virtually(|| {
        let count = Cell::new(0);
        let returned = thread::scope(|s| {
            let captured = Checks(&count);
            drop(s.spawn_local(move || captured)); // its result, too
            let killed = Checks(&count);
            let child = s.spawn_local(move || drop(killed));
            child.kill();
            count.get()
        });
        assert_eq!((returned, count.get()), (0, 2));
        drop(spawn_local(|| ()));
    });
}

#[test]
fn a_child_on_an_os_thread_that_ends_is_killed_and_the_scope_returns() {
    struct Gone<'a>(&'a AtomicUsize);
    impl Drop for Gone<'_> {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    fresh(|| {
        let gone = AtomicUsize::new(0);
        let killed = thread::scope(|s| {
            let (parked, unstarted, shielded) = std::thread::scope(|os| {
                let ends = os.spawn(|| {
                    let parked = s.spawn(|| {
                        let _gone = Gone(&gone);
                        thread::park();
                    });
                    let shielded = s.spawn(|| {
                        let _gone = Gone(&gone);
                        thread::shield(|| sleep(ms(20)));
                        5
                    });
                    yield_now();
                    let unstarted = s.spawn(|| drop(Gone(&gone)));
                    (parked, unstarted, shielded)
                });
                ends.join().unwrap()
            });
            [
                parked.join().unwrap_err().is_killed(),
                unstarted.join().unwrap_err().is_killed(),
                shielded.join().unwrap() == 5,
            ]
        });
        assert_eq!(killed, [true; 3]);
        assert_eq!(gone.load(Ordering::SeqCst), 2, "both that ran left nothing behind");
    });
}
