//! Waiting for several tasks: gather, shield, wait, wait_for, as_completed.

use std::time::Duration;

use greenthread::aio::{self, ReturnWhen, Task, TaskError};
use greenthread::{sleep, thread, time};

use crate::support::fresh::{ms, secs, text, virtually};

/// A green task that sleeps, and gives how long.
fn nap(seconds: u64) -> Task<u64> {
    aio::ensure_future(aio::green(move || {
        sleep(secs(seconds));
        seconds
    }))
}

/// One that fails after a while.
fn fail(seconds: u64, what: &'static str) -> Task<u64> {
    aio::ensure_future(aio::fallible(async move {
        aio::sleep(secs(seconds)).await;
        Err(what)
    }))
}

/// Runs green code as the main of a loop; how long it took.
fn main(f: impl FnOnce() + Send + 'static) -> Duration {
    virtually(move || {
        let start = time::now();
        aio::run(aio::green(f)).unwrap();
        time::now() - start
    })
}

#[test]
fn gather_gives_values_in_the_order_given_and_duplicates_once() {
    let took = main(|| {
        let twice = nap(2);
        let all = aio::gather([nap(3), twice.clone(), nap(1), twice]);
        assert!(!all.done());
        assert_eq!(all.wait().unwrap(), [3, 2, 1, 2]);
        assert!(aio::gather(Vec::<Task<u64>>::new()).wait().unwrap().is_empty());
    });
    assert_eq!(took, secs(3));
}

#[test]
fn the_first_error_goes_up_at_once_and_the_others_go_on() {
    let took = main(|| {
        let slow = nap(3);
        let all = aio::gather([fail(1, "milk"), slow.clone(), fail(2, "sugar")]);
        assert_eq!(all.wait().unwrap_err().to_string(), "milk");
        assert!(!slow.done() && slow.cancelling() == 0);
        assert_eq!(slow.wait().unwrap(), 3);
    });
    assert_eq!(took, secs(3));
}

#[test]
fn with_exceptions_each_has_its_own_outcome_and_a_cancelled_child_is_one() {
    main(|| {
        let cancelled = nap(9);
        let all = aio::gather_exceptions([nap(1), fail(1, "milk"), cancelled.clone()]);
        sleep(secs(2));
        cancelled.cancel();
        let outcomes = all.wait().unwrap();
        assert_eq!(outcomes[0].as_ref().unwrap(), &1);
        assert_eq!(outcomes[1].as_ref().unwrap_err().to_string(), "milk");
        assert!(outcomes[2].as_ref().unwrap_err().is_cancelled());
    });
}

#[test]
fn a_cancelled_child_is_an_error_of_the_whole_but_no_cancel_of_it_by_itself() {
    main(|| {
        let (one, other) = (nap(9), nap(2));
        let all = aio::gather([one.clone(), other.clone()]);
        sleep(secs(1));
        one.cancel();
        assert!(all.wait().unwrap_err().is_cancelled());
        assert_eq!(other.wait().unwrap(), 2);
    });
}

#[test]
fn to_cancel_the_whole_cancels_each_and_ends_when_they_have() {
    let took = main(|| {
        let tidy = aio::create_task(aio::green(|| {
            assert!(thread::catch_kill(|| sleep(secs(9))).is_err());
            sleep(secs(2));
            0
        }));
        let plain = nap(9);
        let all = aio::gather([tidy.clone(), plain.clone()]);
        sleep(secs(1));
        assert!(all.cancel() && !all.done());
        assert!(all.wait().unwrap_err().is_cancelled());
        assert_eq!(tidy.result().unwrap(), &0);
        assert!(plain.cancelled());
    });
    assert_eq!(took, secs(3));
}

#[test]
fn one_callback_on_the_whole_is_called_after_all() {
    let took = main(|| {
        let (sender, receiver) = greenthread::sync::channel::unbounded();
        let all = aio::gather([nap(1), nap(2)]);
        all.add_done_callback(move |all| sender.send(all.result().unwrap().clone()).unwrap());
        assert_eq!(receiver.recv().unwrap(), [1, 2]);
    });
    assert_eq!(took, secs(2));
}

#[test]
fn wait_stops_at_its_time_and_cancels_nothing() {
    let took = main(|| {
        let tasks = [nap(5), nap(1)];
        let (done, pending) = aio::wait(&tasks, Some(secs(3)), ReturnWhen::AllCompleted);
        assert_eq!((done, pending), (vec![tasks[1].clone()], vec![tasks[0].clone()]));
        assert_eq!(tasks[0].cancelling(), 0);
        let (done, _) = aio::wait(&tasks, None, ReturnWhen::AllCompleted);
        assert_eq!(done, tasks, "in the order given");
    });
    assert_eq!(took, secs(5));
}

/// How many are done and pending, and when.
fn when(tasks: impl FnOnce() -> Vec<Task<u64>> + Send + 'static, when: ReturnWhen) -> (usize, usize, Duration) {
    virtually(move || {
        let start = time::now();
        let green = aio::run(aio::green(move || {
            let (done, pending) = aio::wait(&tasks(), None, when);
            (done.len(), pending.len(), time::now() - start)
        }));
        green.unwrap()
    })
}

#[test]
fn the_three_modes_return_when_they_say() {
    let all = || vec![nap(3), nap(2), nap(1)];
    assert_eq!(when(all, ReturnWhen::FirstCompleted), (1, 2, secs(1)));
    assert_eq!(when(all, ReturnWhen::AllCompleted), (3, 0, secs(3)));
    let one_fails = || vec![nap(1), fail(2, "RuntimeError"), nap(3)];
    assert_eq!(when(one_fails, ReturnWhen::FirstException), (2, 1, secs(2)));
    assert_eq!(
        when(|| vec![nap(1), nap(2)], ReturnWhen::FirstException),
        (2, 0, secs(2))
    );
    let one_is_cancelled = || {
        let gone = nap(9);
        gone.cancel();
        vec![gone, nap(2)]
    };
    assert_eq!(when(one_is_cancelled, ReturnWhen::FirstException), (2, 0, secs(2)));
}

#[test]
fn a_wait_that_is_cancelled_leaves_its_tasks_alone() {
    main(|| {
        let task = nap(3);
        let theirs = task.clone();
        let waiter = aio::create_task(aio::green(move || {
            aio::wait(&[theirs], None, ReturnWhen::AllCompleted);
        }));
        sleep(secs(1));
        waiter.cancel();
        assert!(waiter.wait().unwrap_err().is_cancelled());
        assert_eq!(task.wait().unwrap(), 3);
    });
}

#[test]
fn waiting_for_no_tasks_is_misuse() {
    let payload = std::panic::catch_unwind(|| virtually(|| aio::wait::<()>(&[], None, ReturnWhen::AllCompleted)));
    assert!(text(&*payload.unwrap_err()).contains("no tasks"));
}

#[test]
fn wait_for_waits_until_the_cancel_is_through() {
    let took = main(|| {
        let tidy = aio::green(|| {
            let _end = thread::catch_kill(thread::park);
            sleep(secs(2));
            thread::park(); // the cancel was caught once; this one ends it
        });
        let task = aio::create_task(tidy);
        let theirs = task.clone();
        let killer = aio::create_task(aio::green(move || {
            sleep(secs(4));
            theirs.cancel();
        }));
        assert!(aio::wait_for(task, secs(1)).unwrap_err().is_timeout());
        killer.wait().unwrap();
    });
    assert_eq!(took, secs(4));
}

#[test]
fn a_value_that_comes_in_spite_of_the_cancel_wins() {
    let took = main(|| {
        let stubborn = aio::green(|| {
            assert!(thread::catch_kill(thread::park).is_err());
            sleep(secs(2));
            "value"
        });
        assert_eq!(aio::wait_for(stubborn, secs(1)).unwrap(), "value");
        assert_eq!(aio::wait_for(async { 1 }, secs(1)).unwrap(), 1);
        let error = aio::wait_for(fail(1, "milk"), secs(5)).unwrap_err();
        assert_eq!(error.to_string(), "milk");
    });
    assert_eq!(took, secs(4));
}

#[test]
fn no_time_at_all_gives_what_is_there_and_nothing_else() {
    main(|| {
        let done = nap(0);
        done.wait().unwrap();
        assert_eq!(aio::wait_for(done, Duration::ZERO).unwrap(), 0);
        assert!(aio::wait_for(nap(1), Duration::ZERO).unwrap_err().is_timeout());
    });
}

#[test]
fn who_is_cancelled_in_wait_for_cancels_the_task() {
    main(|| {
        let task = nap(9);
        for green in [true, false] {
            let theirs = if green { task.clone() } else { nap(9) };
            let look = theirs.clone();
            let outer = aio::create_task(aio::green(move || drop(aio::wait_for(theirs, secs(5)))));
            sleep(secs(1));
            outer.cancel();
            outer.wait().unwrap_err();
            assert!(look.wait().unwrap_err().is_cancelled());
        }
    });
}

#[test]
fn a_shield_that_has_ended_holds_nothing() {
    let kept = std::sync::Arc::new(());
    let theirs = kept.clone();
    main(move || {
        let value = theirs.clone();
        let inner = aio::ensure_future(aio::green(move || value));
        drop(aio::shield(inner).wait().unwrap());
        let cancelled = aio::shield(aio::ensure_future(aio::green(move || {
            sleep(secs(1));
            theirs
        })));
        assert!(cancelled.cancel() && cancelled.wait().is_err());
        sleep(secs(2));
    });
    assert_eq!(std::sync::Arc::strong_count(&kept), 1, "the tasks are still there");
}

#[test]
fn a_shielded_task_goes_on_and_its_end_is_the_shields() {
    main(|| {
        let inner = nap(2);
        let outer = aio::shield(inner.clone());
        outer.cancel();
        assert!(outer.wait().unwrap_err().is_cancelled());
        assert!(!inner.done() && inner.cancelling() == 0);
        assert_eq!(aio::shield(inner).wait().unwrap(), 2);
        assert_eq!(aio::shield(fail(1, "milk")).wait().unwrap_err().to_string(), "milk");
        let cancelled = nap(9);
        let outer = aio::shield(cancelled.clone());
        cancelled.cancel();
        assert!(outer.wait().unwrap_err().is_cancelled());
    });
}

#[test]
fn as_completed_gives_tasks_as_they_end_until_its_time() {
    let took = main(|| {
        let tasks = [nap(3), nap(1), fail(2, "milk")];
        let ends: Vec<_> = aio::as_completed(tasks.clone(), None).map(Result::unwrap).collect();
        assert_eq!(ends, [tasks[1].clone(), tasks[2].clone(), tasks[0].clone()]);

        let mut late = aio::as_completed([nap(1), nap(9)], Some(secs(2)));
        assert_eq!(late.next().unwrap().unwrap().result().unwrap(), &1);
        assert!(matches!(late.next(), Some(Err(TaskError::TimedOut))));
        assert!(late.next().is_none());
    });
    assert_eq!(took, secs(5));
}

#[test]
fn the_async_faces_do_the_same() {
    virtually(|| {
        let start = time::now();
        aio::run(async {
            assert_eq!(aio::gather([nap(2), nap(1)]).await.unwrap(), [2, 1]);
            let (done, pending) = aio::wait_async(&[nap(1), nap(2)], None, ReturnWhen::FirstCompleted).await;
            assert_eq!((done.len(), pending.len()), (1, 1));
            let late = aio::wait_for_async(async { aio::sleep(secs(9)).await }, secs(1)).await;
            assert!(late.unwrap_err().is_timeout());
            let mut ends = aio::as_completed([nap(2), nap(1)], None);
            let mut order = Vec::new();
            while let Some(task) = ends.next_async().await {
                order.push(task.unwrap().await.unwrap());
            }
            assert_eq!(order, [1, 2]);
        })
        .unwrap();
        assert_eq!(time::now() - start, secs(6));
    });
}

#[test]
fn a_kill_at_each_park_leaves_the_tasks_usable() {
    for k in 0..8 {
        main(move || {
            let tasks = [nap(2), nap(1)];
            let theirs = tasks.clone();
            let waiter = aio::create_task(aio::green(move || {
                for task in aio::as_completed(theirs.clone(), None) {
                    task.unwrap().wait().unwrap();
                }
                aio::wait(&theirs, None, ReturnWhen::AllCompleted);
            }));
            for _ in 0..k {
                sleep(ms(400));
            }
            waiter.cancel();
            assert!(waiter.wait().is_ok() || waiter.cancelled());
            assert_eq!(aio::gather(tasks).wait().unwrap(), [2, 1]);
        });
    }
}
