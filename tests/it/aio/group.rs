//! Blocks with a deadline that moves, and tasks that end together.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use greenthread::aio::{self, TaskGroup};
use greenthread::{sleep, spawn, thread, time};

use crate::support::fresh::{ms, secs, virtually};

#[test]
fn a_deadline_can_be_moved_both_ways_and_taken_away() {
    virtually(|| {
        let start = time::now();
        let later = aio::timeout(Some(secs(1)));
        let result = later.run(|| {
            later.reschedule(Some(time::now() + secs(3)));
            sleep(secs(2));
            "late enough"
        });
        assert_eq!(result.unwrap(), "late enough");
        assert!(!later.expired() && later.when() == Some(start + secs(3)));

        let sooner = aio::timeout(None);
        let result = sooner.run(|| {
            sooner.reschedule(Some(time::now() + secs(1)));
            sleep(secs(9));
        });
        assert!(result.unwrap_err().is_timeout() && sooner.expired());
        assert_eq!(time::now() - start, secs(3));

        let never = aio::timeout_at(Some(time::now() + secs(1)));
        never.run(|| (never.reschedule(None), sleep(secs(9)))).unwrap();
        sleep(secs(9)); // nothing strikes later
    });
}

#[test]
fn a_deadline_around_a_future_can_be_moved_by_another() {
    virtually(|| {
        aio::run(async {
            let start = time::now();
            let limit = aio::timeout(Some(secs(9)));
            let theirs = limit.clone();
            aio::create_task(async move {
                aio::sleep(secs(1)).await;
                theirs.reschedule(Some(time::now() + secs(1)));
            });
            let result = limit.run_async(aio::sleep(secs(99))).await;
            assert!(result.unwrap_err().is_timeout());
            assert_eq!(time::now() - start, secs(2));
            assert_eq!(aio::timeout(Some(secs(1))).run_async(async { 1 }).await.unwrap(), 1);
            let past = aio::timeout_at(Some(start)).run_async(aio::sleep(secs(1))).await;
            assert!(past.unwrap_err().is_timeout());
        })
        .unwrap();
    });
}

#[test]
fn nested_blocks_end_each_their_own_and_a_kill_is_no_time_out() {
    virtually(|| {
        let outer = aio::timeout(Some(secs(2)));
        let result = outer.run(|| {
            let inner = aio::timeout(Some(secs(1))).run(|| sleep(secs(9)));
            assert!(inner.unwrap_err().is_timeout());
            aio::timeout(Some(secs(9))).run(|| sleep(secs(9)))
        });
        assert!(result.unwrap_err().is_timeout());

        let killed = spawn(|| aio::timeout(Some(secs(9))).run(thread::park));
        sleep(secs(1));
        killed.kill();
        assert!(killed.join().unwrap_err().is_killed());
    });
}

/// Counts those that were cut short.
fn sleeper(cut: &Arc<AtomicU32>) -> aio::Green<impl FnOnce() + Send + 'static> {
    struct Cut(Arc<AtomicU32>);
    impl Drop for Cut {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    let cut = Cut(cut.clone());
    aio::green(move || {
        sleep(secs(100));
        std::mem::forget(cut);
    })
}

fn failing(what: &'static str) -> aio::Fallible<impl Future<Output = Result<(), &'static str>>> {
    aio::fallible(async move {
        aio::sleep(secs(1)).await;
        Err(what)
    })
}

#[test]
fn the_block_waits_for_all_its_tasks_also_for_those_that_tasks_made() {
    virtually(|| {
        let start = time::now();
        let value = TaskGroup::run(|group| {
            let theirs = group.clone();
            group.create_task(aio::green(move || {
                sleep(secs(1));
                theirs.create_task(aio::green(|| sleep(secs(2))));
            }));
            7
        });
        assert_eq!(value.unwrap(), 7);
        assert_eq!(time::now() - start, secs(3));
        assert_eq!(TaskGroup::run(|_| 1).unwrap(), 1);
    });
}

#[test]
fn the_first_error_cancels_the_rest_and_the_body_and_all_errors_are_there() {
    virtually(|| {
        let start = time::now();
        let cut = Arc::new(AtomicU32::new(0));
        let result = TaskGroup::run(|group| {
            group.create_task(sleeper(&cut));
            group.create_task(failing("milk"));
            group.create_task(aio::green(|| {
                let _end = thread::catch_kill(thread::park);
                panic!("sugar");
            }));
            sleep(secs(100));
        });
        let errors = result.unwrap_err();
        let texts: Vec<_> = errors.errors().iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["milk", "panicked: sugar"]);
        assert_eq!(cut.load(Ordering::Relaxed), 1);
        assert_eq!(time::now() - start, secs(1));
        sleep(secs(200)); // the body's time-out is gone
    });
}

#[test]
fn an_error_after_the_body_cancels_the_rest_too() {
    virtually(|| {
        let start = time::now();
        let cut = Arc::new(AtomicU32::new(0));
        let result = TaskGroup::run(|group| {
            group.create_task(failing("milk"));
            group.create_task(sleeper(&cut));
        });
        assert_eq!(result.unwrap_err().errors().len(), 1);
        assert_eq!((cut.load(Ordering::Relaxed), time::now() - start), (1, secs(1)));
    });
}

#[test]
fn a_panic_of_the_body_is_an_error_and_a_cancelled_task_is_none() {
    virtually(|| {
        let cut = Arc::new(AtomicU32::new(0));
        let result = TaskGroup::run(|group| {
            group.create_task(sleeper(&cut));
            sleep(secs(1));
            panic!("body");
        });
        assert_eq!(
            result.map(|()| 0).unwrap_err().errors()[0].to_string(),
            "panicked: body"
        );
        assert_eq!(cut.load(Ordering::Relaxed), 1);

        let result = TaskGroup::run(|group| {
            let alone = group.create_task(sleeper(&cut));
            sleep(secs(1));
            alone.cancel();
            group.create_task(aio::green(|| sleep(secs(1))));
        });
        assert!(result.is_ok());
    });
}

#[test]
fn a_kill_cancels_the_tasks_waits_for_them_and_goes_up() {
    for in_body in [true, false] {
        virtually(move || {
            let cut = Arc::new(AtomicU32::new(0));
            let theirs = cut.clone();
            let killed = spawn(move || {
                let _ = TaskGroup::run(|group| {
                    group.create_task(sleeper(&theirs));
                    let tidy = group.create_task(aio::green(|| {
                        let _end = thread::catch_kill(thread::park);
                        sleep(secs(2));
                    }));
                    if in_body {
                        tidy.wait().unwrap();
                    }
                });
            });
            sleep(secs(1));
            let start = time::now();
            killed.kill();
            assert!(killed.join().unwrap_err().is_killed());
            assert_eq!((cut.load(Ordering::Relaxed), time::now() - start), (1, secs(2)));
        });
    }
}

#[test]
fn a_new_task_of_a_group_that_ends_for_an_error_never_begins() {
    virtually(|| {
        let result = TaskGroup::run(|group| {
            let theirs = group.clone();
            group.create_task(failing("milk"));
            group.create_task(aio::green(move || {
                let _end = thread::catch_kill(thread::park);
                let late = theirs.create_task(aio::green(|| panic!("it began")));
                assert!(late.cancelling() > 0);
            }));
        });
        assert_eq!(result.unwrap_err().errors().len(), 1);
    });
}

#[test]
fn the_async_form_does_the_same_and_dropped_it_cancels() {
    virtually(|| {
        aio::run(async {
            let start = time::now();
            let cut = Arc::new(AtomicU32::new(0));
            let result = TaskGroup::run_async(async |group| {
                group.create_task(sleeper(&cut));
                group.create_task(failing("milk"));
                aio::sleep(secs(100)).await;
            });
            assert_eq!(result.await.unwrap_err().errors().len(), 1);
            assert_eq!((cut.load(Ordering::Relaxed), time::now() - start), (1, secs(1)));

            let theirs = cut.clone();
            let dropped = aio::create_task(async move {
                let _ = TaskGroup::run_async(async |group| drop(group.create_task(sleeper(&theirs)))).await;
            });
            aio::sleep(secs(1)).await;
            dropped.cancel();
            dropped.await.unwrap_err();
            aio::sleep(ms(1)).await;
            assert_eq!(cut.load(Ordering::Relaxed), 2);

            let panicked = TaskGroup::run_async(async |_| panic!("body")).await;
            assert!(panicked.map(|()| 0).is_err());
        })
        .unwrap();
    });
}
