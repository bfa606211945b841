//! Time-outs: who wins, which one it was, nesting.

use std::cell::Cell;
use std::io::Read;
use std::panic::catch_unwind;
use std::rc::Rc;
use std::time::Duration;

use greenthread::net::UnixStream;
use greenthread::time::{self, Timeout, timeout};
use greenthread::{hub, sleep, spawn, spawn_local, thread, threadpool, yield_now};

use crate::support::fresh::{fresh, ms, secs, virtually};

#[test]
fn in_time_gives_the_value_and_late_gives_elapsed() {
    virtually(|| {
        let start = time::now();
        assert_eq!(
            timeout(secs(2), || {
                sleep(secs(1));
                5
            }),
            Ok(5)
        );
        let late = timeout(secs(2), || sleep(secs(3)));
        assert_eq!(late.unwrap_err().to_string(), "the time allowed has passed");
        assert_eq!(time::now() - start, secs(3));
        sleep(secs(10)); // neither strikes later
    });
}

#[test]
fn elapsed_is_an_io_error_of_kind_timed_out() {
    virtually(|| {
        let error = std::io::Error::from(timeout(ms(1), thread::park).unwrap_err());
        assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
    });
}

/// What an outer and an inner time-out around a long sleep give: (outer elapsed, inner elapsed).
fn nested(outer: u64, inner: u64) -> (bool, Option<bool>) {
    virtually(move || {
        let start = time::now();
        let result = timeout(secs(outer), || timeout(secs(inner), || sleep(secs(100))).is_err());
        assert_eq!(time::now() - start, secs(outer.min(inner)));
        (result.is_err(), result.ok())
    })
}

#[test]
fn the_inner_one_is_caught_by_the_inner() {
    assert_eq!(nested(5, 3), (false, Some(true)));
}

#[test]
fn the_outer_one_passes_through_the_inner() {
    assert_eq!(nested(3, 5), (true, None));
}

#[test]
fn of_two_that_are_due_at_once_the_outer_one_wins() {
    assert_eq!(nested(3, 3), (true, None));
}

#[test]
fn after_the_inner_one_the_outer_one_still_strikes() {
    virtually(|| {
        let start = time::now();
        let result = timeout(secs(5), || {
            assert!(timeout(secs(3), thread::park).is_err());
            thread::park();
        });
        assert!(result.is_err());
        assert_eq!(time::now() - start, secs(5));
    });
}

#[test]
fn each_catches_its_own_by_identity() {
    virtually(|| {
        let (first, second) = (Timeout::new(secs(1)), Timeout::new(secs(2)));
        // The first one strikes inside the run of the second, which must not catch it.
        let mut inner = None;
        let outer = first.run(|| inner = Some(second.run(thread::park)));
        assert!(outer.is_err() && inner.is_none());
        let ids = [timeout(secs(1), thread::park), timeout(secs(1), thread::park)].map(|r| r.unwrap_err().id());
        assert_ne!(ids[0], ids[1]);
    });
}

#[test]
fn one_of_zero_strikes_at_the_first_park_and_not_before() {
    virtually(|| {
        let parked = spawn(thread::park);
        let mut reached = false;
        let late = timeout(Duration::ZERO, || {
            reached = true;
            parked.join()
        });
        assert!(late.is_err() && reached);
        assert_eq!(
            timeout(Duration::ZERO, || 5),
            Ok(5),
            "who does not park is not timed out"
        );
        hub::shutdown(secs(1)).unwrap();
    });
}

#[test]
fn a_timed_out_waiter_leaves_no_trace() {
    virtually(|| {
        let mut slow = spawn(|| {
            sleep(secs(10));
            3
        });
        for _ in 0..100 {
            assert!(timeout(ms(1), || slow.join_timeout(secs(100)).is_some()).is_err());
        }
        assert_eq!(slow.join().unwrap(), 3);
    });
}

#[test]
fn a_cancelled_one_never_strikes() {
    virtually(|| {
        let guard = Timeout::new(secs(1));
        assert_eq!(guard.remaining(), secs(1));
        assert!(!guard.is_expired());
        guard.cancel();
        sleep(secs(5));
        let dropped = Timeout::new(secs(1));
        drop(dropped);
        sleep(secs(5));
    });
}

#[test]
fn cancelling_one_that_has_expired_but_not_struck_forgets_it() {
    fresh(|| {
        let guard = Timeout::new(ms(1));
        std::thread::sleep(ms(5));
        assert!(guard.is_expired());
        guard.cancel();
        sleep(ms(1));
        yield_now();
        let guard = Timeout::new(ms(1));
        thread::shield(|| sleep(ms(5))); // it expires, and is deferred
        drop(guard);
        sleep(ms(1));
    });
}

#[test]
fn a_guard_strikes_outside_its_run_as_well() {
    virtually(|| {
        let handle = spawn(|| {
            let guard = Timeout::new(secs(1));
            let unwound = catch_unwind(thread::park).is_err();
            assert!(catch_unwind(yield_now).is_err(), "swallowed, it comes again");
            drop(guard);
            sleep(secs(1));
            unwound
        });
        assert!(handle.join().unwrap());
    });
}

#[test]
fn what_returns_has_won_even_when_both_are_due() {
    virtually(|| {
        // A result and a time-out for the same instant: the deadline that was set first is served first.
        let result = timeout(secs(1), || {
            sleep(secs(1));
            5
        });
        assert!(result.is_err(), "the guard was armed before the sleep");
        let worker = spawn(|| {
            sleep(secs(1));
            7
        });
        yield_now(); // its deadline is set first
        let guard = Timeout::new(secs(1));
        let joined = guard.run(|| worker.join().unwrap());
        assert!(joined == Ok(7) || joined.is_err());
        // And computing for too long is no failure.
        let computed = timeout(ms(1), || {
            std::thread::sleep(ms(5));
            9
        });
        assert_eq!(computed, Ok(9));
    });
}

#[test]
fn a_loop_of_yields_in_a_green_thread_lets_it_strike() {
    fresh(|| {
        let endless = spawn(|| {
            timeout(ms(5), || {
                loop {
                    yield_now()
                }
            })
            .is_err()
        });
        assert!(endless.join().unwrap());
        let endless = spawn(|| {
            timeout(ms(5), || {
                loop {
                    sleep(Duration::ZERO)
                }
            })
            .is_err()
        });
        assert!(endless.join().unwrap());
    });
}

#[test]
fn a_loop_of_yields_on_the_native_stack_lets_it_strike() {
    fresh(|| {
        let start = std::time::Instant::now();
        let endless = timeout(ms(5), || {
            while start.elapsed() < secs(5) {
                yield_now();
            }
        });
        assert!(endless.is_err(), "timers starve while the native stack yields");
    });
}

#[test]
fn a_busy_one_is_not_timed_out_before_its_time() {
    fresh(|| {
        sleep(ms(1));
        std::thread::sleep(ms(30)); // the clock the hub last read is old
        let start = std::time::Instant::now();
        assert!(timeout(ms(20), thread::park).is_err());
        assert!(start.elapsed() >= ms(20), "{:?}", start.elapsed());
    });
}

#[test]
fn it_ends_a_read_and_a_pooled_call() {
    fresh(|| {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        assert!(timeout(ms(5), || ours.read(&mut [0; 1])).is_err());
        std::io::Write::write_all(&mut theirs, b"x").unwrap();
        let mut byte = [0];
        assert_eq!(timeout(secs(20), || ours.read(&mut byte).unwrap()), Ok(1));
        assert_eq!(&byte, b"x");
        let (done, wait) = std::sync::mpsc::channel::<()>();
        let late = timeout(ms(5), || threadpool::unblock(move || wait.recv().is_err()));
        assert!(late.is_err());
        drop(done);
    });
}

#[test]
fn a_shield_defers_it() {
    virtually(|| {
        let start = time::now();
        let saved = Rc::new(Cell::new(false));
        let theirs = saved.clone();
        let late = spawn_local(move || {
            timeout(secs(1), || {
                thread::shield(|| sleep(secs(5)));
                theirs.set(true);
                thread::park();
            })
            .is_err()
        });
        assert!(late.join().unwrap());
        assert!(saved.get());
        assert_eq!(time::now() - start, secs(5));
    });
}

#[test]
fn a_kill_beats_a_time_out() {
    virtually(|| {
        let handle = spawn(|| {
            let late = timeout(secs(1), || thread::shield(|| sleep(secs(5)))).is_err();
            let _ = timeout(secs(1), thread::park);
            late
        });
        yield_now();
        handle.kill();
        assert!(handle.join().unwrap_err().is_killed());
    });
}

#[test]
fn panics_pass_through() {
    virtually(|| {
        let panicked = spawn(|| _ = timeout(secs(1), || panic!("own")));
        assert!(panicked.join().unwrap_err().is_panic());
    });
}

#[test]
fn many_at_once_each_strike_their_own() {
    virtually(|| {
        let start = time::now();
        let handles = (1..=500_u64).map(|n| {
            spawn(move || {
                assert!(timeout(ms(n), thread::park).is_err());
                time::now() - start
            })
        });
        let ends: Vec<_> = thread::join_all(handles).into_iter().map(Result::unwrap).collect();
        assert_eq!(ends, (1..=500).map(ms).collect::<Vec<_>>());
    });
}
