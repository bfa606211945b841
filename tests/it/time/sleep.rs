//! Sleeping: never early, in order of deadlines; intervals.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::rc::Rc;
use std::time::{Duration, Instant};

use greenthread::time::{self, Interval, MissedTick};
use greenthread::{hub, sleep, spawn, spawn_local, stack, thread, yield_now};

use crate::support::fresh::{fresh, ms, secs, virtually};

#[test]
fn a_sleep_never_ends_early() {
    fresh(|| {
        let sleepers = [1_u64, 10, 65, 66, 67, 100, 999, 1000, 1001, 1500, 4000, 5001, 20_000].map(|micros| {
            spawn(move || {
                let duration = Duration::from_micros(micros);
                for _ in 0..5 {
                    let start = Instant::now();
                    sleep(duration);
                    let took = start.elapsed();
                    assert!(took >= duration, "{took:?} instead of {duration:?}");
                }
            })
        });
        assert!(thread::join_all(sleepers).iter().all(Result::is_ok));
    });
}

/// A time-out in milliseconds holds at most 24.8 days.
#[test]
fn a_sleep_of_months_leaves_other_waits_alone() {
    fresh(|| {
        let (reader, mut writer) = std::os::unix::net::UnixStream::pair().unwrap();
        let mut reader = greenthread::net::UnixStream::from(reader);
        let sleeper = spawn_local(|| sleep(secs(60 * 86_400)));
        let byte = spawn_local(move || reader.read(&mut [0; 8]).unwrap());
        yield_now();
        // No memory to give back: the deadline of the sleeper alone limits the wait in the kernel.
        stack::trim();
        let other = std::thread::spawn(move || {
            std::thread::sleep(ms(50));
            writer.write_all(b"x").unwrap();
        });
        assert_eq!(byte.join().unwrap(), 1);
        assert!(!sleeper.is_finished());
        sleeper.kill();
        other.join().unwrap();
    });
}

#[test]
fn deadlines_come_in_order_and_exactly_by_the_virtual_clock() {
    virtually(|| {
        let start = time::now();
        let order = Rc::new(RefCell::new(Vec::new()));
        // Over all levels of a timer wheel: nanoseconds to years.
        let mut nanos: Vec<u64> = (0..60).map(|n| 1_u64 << n).collect();
        nanos.extend((0..200).map(|n| (n * 7_919_777_777_u64) % 1_000_000_000_000 + 1));
        let handles: Vec<_> = nanos
            .iter()
            .map(|&at| {
                let order = order.clone();
                spawn_local(move || {
                    sleep(Duration::from_nanos(at));
                    assert_eq!(time::now() - start, Duration::from_nanos(at));
                    order.borrow_mut().push(at);
                })
            })
            .collect();
        assert!(thread::join_all(handles).iter().all(Result::is_ok));
        nanos.sort();
        assert_eq!(*order.borrow(), nanos);
    });
}

#[test]
fn equal_deadlines_come_in_the_order_they_were_set() {
    virtually(|| {
        let order = Rc::new(RefCell::new(Vec::new()));
        let handles: Vec<_> = (0..100)
            .map(|n| {
                let order = order.clone();
                spawn_local(move || {
                    sleep(secs(1));
                    order.borrow_mut().push(n);
                })
            })
            .collect();
        assert!(thread::join_all(handles).iter().all(Result::is_ok));
        assert_eq!(*order.borrow(), (0..100).collect::<Vec<_>>());
    });
}

#[test]
fn a_sleep_of_zero_yields() {
    virtually(|| {
        let start = time::now();
        let other = spawn(|| ());
        sleep(Duration::ZERO);
        assert!(other.is_finished());
        assert_eq!(time::now(), start);
        other.join().unwrap();
    });
}

#[test]
fn the_longest_sleep_can_be_timed_out_and_killed() {
    virtually(|| {
        let start = time::now();
        assert!(time::timeout(secs(5), || sleep(Duration::MAX)).is_err());
        assert_eq!(time::now() - start, secs(5));
        let sleeper = spawn(|| sleep(Duration::MAX));
        yield_now();
        sleeper.kill();
        assert!(sleeper.join().unwrap_err().is_killed());
        // And a time-out of for ever never comes.
        assert_eq!(
            time::timeout(Duration::MAX, || {
                sleep(secs(1));
                5
            }),
            Ok(5)
        );
    });
}

#[test]
fn sleeping_until_the_past_yields() {
    virtually(|| {
        sleep(secs(100));
        let now = time::now();
        let other = spawn(|| ());
        time::sleep_until(now - secs(50));
        assert!(other.is_finished());
        time::sleep_until(now);
        assert_eq!(time::now(), now);
        time::sleep_until(now + secs(7));
        assert_eq!(time::now(), now + secs(7));
        other.join().unwrap();
    });
}

#[test]
fn sleep_until_works_by_the_real_clock() {
    fresh(|| {
        let deadline = Instant::now() + ms(5);
        time::sleep_until(deadline);
        assert!(Instant::now() >= deadline);
        assert!(time::now() >= deadline);
    });
}

#[test]
fn an_interval_keeps_its_pace_and_skips_what_was_missed() {
    virtually(|| {
        let start = time::now();
        let mut ticks = Interval::new(secs(10));
        let mut seen = Vec::new();
        for work in [0, 3, 9, 25, 0, 10, 0] {
            ticks.tick();
            seen.push((time::now() - start).as_secs());
            sleep(secs(work));
        }
        // 30 + 25 is 55: the ticks of 40 and 50 are late as one, and the next keeps the grid.
        assert_eq!(seen, [10, 20, 30, 40, 65, 70, 80]);
    });
}

#[test]
fn ticks_that_were_missed_come_at_once_or_later_or_not_at_all() {
    virtually(|| {
        let expected = [
            (MissedTick::Burst, [10, 35, 35, 40, 50]),
            (MissedTick::Delay, [10, 35, 45, 55, 65]),
            (MissedTick::Skip, [10, 35, 40, 50, 60]),
        ];
        for (mode, at) in expected {
            let start = time::now();
            let mut ticks = Interval::new(secs(10));
            assert_eq!(ticks.missed_tick(), MissedTick::Skip);
            ticks.set_missed_tick(mode);
            assert_eq!(ticks.missed_tick(), mode);
            let seen = [0, 25, 0, 0, 0].map(|work| {
                sleep(secs(work));
                ticks.tick();
                (time::now() - start).as_secs()
            });
            assert_eq!(seen, at, "{mode:?}");
        }
    });
}

#[test]
fn a_tick_that_is_hardly_late_delays_none() {
    virtually(|| {
        let start = time::now();
        let mut ticks = Interval::new(secs(1));
        ticks.set_missed_tick(MissedTick::Delay);
        for n in 1..=100 {
            ticks.tick();
            let late = (time::now() - start).checked_sub(secs(n)).unwrap();
            assert!(late < ms(1), "{late:?}");
            sleep(ms(900));
        }
        let mut short = Interval::new(Duration::from_micros(500));
        short.set_missed_tick(MissedTick::Delay);
        let start = time::now();
        sleep(Duration::from_micros(1400));
        (0..2).for_each(|_| short.tick());
        assert!(time::now() - start >= Duration::from_micros(1900));
    });
}

#[test]
#[should_panic(expected = "an Interval of zero")]
fn an_interval_of_zero_is_refused() {
    let _ = Interval::new(Duration::ZERO);
}

#[test]
fn a_thousand_sleepers_take_as_long_as_the_longest() {
    fresh(|| {
        let start = Instant::now();
        let sleepers = (0..1000_u64).map(|n| {
            spawn(move || {
                sleep(ms(20 + n % 30));
                n
            })
        });
        let sum: u64 = thread::join_all(sleepers).into_iter().map(Result::unwrap).sum();
        assert_eq!(sum, 999 * 500);
        // One after another they would take 35 seconds.
        assert!(
            start.elapsed() >= ms(49) && start.elapsed() < secs(15),
            "{:?}",
            start.elapsed()
        );
        assert_eq!(hub::live(), 0);
    });
}

#[test]
fn the_virtual_clock_stands_still_while_anybody_is_ready() {
    virtually(|| {
        let start = time::now();
        let sleeper = spawn(|| sleep(secs(1)));
        for _ in 0..1000 {
            yield_now();
        }
        assert_eq!(time::now(), start);
        assert!(!sleeper.is_finished());
        sleeper.join().unwrap();
        assert_eq!(time::now() - start, secs(1));
    });
}
