//! Cancelling, case by case as asyncio documents it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use greenthread::aio::{self, Runner, TaskError, TaskGroup};
use greenthread::{sleep, thread, time};

use crate::support::fresh::{ms, secs, virtually};

/// Sleeps for long; when it is cancelled it takes its time to clean up, says so, and goes.
fn slow_to_die(notes: &Arc<Mutex<Vec<&'static str>>>) -> aio::Green<impl FnOnce() + Send + 'static> {
    let notes = notes.clone();
    aio::green(move || {
        struct CleanUp(Arc<Mutex<Vec<&'static str>>>);
        impl Drop for CleanUp {
            fn drop(&mut self) {
                self.0.lock().unwrap().push("inner has ended");
            }
        }
        let _clean_up = CleanUp(notes);
        if thread::catch_kill(|| sleep(secs(60))).is_err() {
            sleep(secs(1));
            // It gives up for good.
            aio::current_task().unwrap().cancel();
            thread::park();
        }
    })
}

/// Runs `f` as a green main task, and says how long that took.
fn main_task(f: impl FnOnce() + Send + 'static) -> Duration {
    virtually(|| {
        let start = time::now();
        aio::run(aio::green(f)).unwrap();
        time::now() - start
    })
}

#[test]
fn several_requests_are_one_cancel_and_the_last_message_counts() {
    main_task(|| {
        let task = aio::create_task(aio::green(|| {
            assert!(thread::catch_kill(|| sleep(secs(9))).is_err());
            let me = aio::current_task().unwrap();
            assert_eq!((me.cancelling(), me.uncancel(), me.uncancel()), (2, 1, 0));
            sleep(secs(1)); // not cut short again
            thread::park();
        }));
        sleep(ms(1));
        assert!(task.cancel() && task.cancel());
        sleep(secs(2));
        assert!(!task.done());
        task.cancel_with("once");
        task.cancel_with("and for all");
        let error = task.wait().unwrap_err();
        assert_eq!(error.to_string(), "the task was cancelled: and for all");
    });
}

#[test]
fn who_cancels_itself_ends_at_its_next_wait_or_at_its_end() {
    main_task(|| {
        let parks = aio::create_task(aio::green(|| {
            aio::current_task().unwrap().cancel();
            sleep(secs(9));
        }));
        let returns = aio::create_task(aio::green(|| aio::current_task().unwrap().cancel()));
        let waits = aio::create_task(async {
            aio::current_task().unwrap().cancel();
            aio::sleep(secs(9)).await;
            true
        });
        let ends = aio::create_task(async { aio::current_task().unwrap().cancel() });
        let fails = aio::create_task(aio::fallible(aio::green(|| {
            aio::current_task().unwrap().cancel();
            Err::<bool, _>("an error counts more")
        })));
        assert!(parks.wait().unwrap_err().is_cancelled());
        for task in [returns, waits, ends] {
            assert!(task.wait().unwrap_err().is_cancelled(), "{task:?}");
            assert!(task.cancelled());
        }
        assert_eq!(fails.wait().unwrap_err().to_string(), "an error counts more");
    });
}

#[test]
fn a_request_that_is_taken_back_before_it_arrives_does_nothing() {
    let took = main_task(|| {
        let task = aio::create_task(aio::green(|| {
            let me = aio::current_task().unwrap();
            me.cancel();
            me.cancel();
            assert_eq!((me.uncancel(), me.uncancel()), (1, 0));
            sleep(secs(1));
            "alive"
        }));
        assert_eq!(task.wait().unwrap(), "alive");
        // One of two is not enough.
        let task = aio::create_task(aio::green(|| {
            let me = aio::current_task().unwrap();
            me.cancel();
            me.cancel();
            assert_eq!(me.uncancel(), 1);
            sleep(secs(9));
        }));
        assert!(task.wait().unwrap_err().is_cancelled());
    });
    assert_eq!(took, secs(1));
}

#[test]
fn who_is_cancelled_in_a_wait_goes_on_up_when_the_task_has_ended() {
    for wait_for in [true, false] {
        main_task(move || {
            let notes = Arc::new(Mutex::new(Vec::new()));
            let (inner, theirs) = (aio::create_task(slow_to_die(&notes)), notes.clone());
            let waited = inner.clone();
            let outer = aio::create_task(aio::green(move || {
                struct Note(Arc<Mutex<Vec<&'static str>>>);
                impl Drop for Note {
                    fn drop(&mut self) {
                        self.0.lock().unwrap().push("outer unwinds");
                    }
                }
                let _note = Note(theirs);
                if wait_for {
                    let _ = aio::wait_for(waited, secs(30));
                } else {
                    let _ = waited.wait();
                }
            }));
            sleep(ms(1));
            let start = time::now();
            outer.cancel();
            assert!(outer.wait().unwrap_err().is_cancelled());
            assert_eq!(time::now() - start, secs(1));
            assert_eq!(*notes.lock().unwrap(), ["inner has ended", "outer unwinds"]);
            assert!(inner.cancelled());
        });
    }
}

#[test]
fn an_async_task_that_is_cancelled_in_a_wait_ends_after_what_it_waited_for() {
    for wait_for in [true, false] {
        main_task(move || {
            let notes = Arc::default();
            let inner = aio::create_task(slow_to_die(&notes));
            let waited = inner.clone();
            let middle = aio::create_task(async move {
                if wait_for {
                    drop(aio::wait_for_async(waited, secs(30)).await);
                } else {
                    drop(waited.await);
                }
            });
            let outer = aio::create_task(async move { drop(middle.await) });
            sleep(ms(1));
            let start = time::now();
            outer.cancel();
            sleep(ms(1));
            assert!(!outer.done() && !inner.done());
            assert!(outer.wait().unwrap_err().is_cancelled());
            assert_eq!(time::now() - start, secs(1));
            assert_eq!(*notes.lock().unwrap(), ["inner has ended"]);
            assert!(inner.cancelled());
        });
    }
}

#[test]
fn tasks_that_wait_for_each_other_or_for_themselves_can_be_cancelled() {
    main_task(|| {
        let handles: [Arc<Mutex<Option<aio::Task<()>>>>; 2] = Default::default();
        let waits = |n: usize| {
            let other = handles[n].clone();
            aio::create_task(async move {
                let other = other.lock().unwrap().clone().unwrap();
                drop(other.await);
            })
        };
        for others in [[1, 0], [0, 1]] {
            let tasks = others.map(waits);
            for (handle, task) in handles.iter().zip(&tasks) {
                *handle.lock().unwrap() = Some(task.clone());
            }
            sleep(ms(1));
            tasks.iter().for_each(|task| assert!(task.cancel_with("both")));
            for task in tasks {
                assert!(task.wait().unwrap_err().is_cancelled());
            }
        }
    });
}

#[test]
fn a_destructor_of_a_cancelled_future_runs_as_its_task() {
    struct Who(Arc<Mutex<Option<Arc<str>>>>);
    impl Drop for Who {
        fn drop(&mut self) {
            *self.0.lock().unwrap() = aio::current_task().map(|task| task.name());
        }
    }
    main_task(|| {
        let who = Arc::new(Mutex::new(None));
        let theirs = Who(who.clone());
        let task = aio::create_task(async move {
            let _who = theirs;
            std::future::pending::<()>().await;
        });
        sleep(ms(1));
        task.cancel();
        assert!(task.wait().unwrap_err().is_cancelled());
        assert_eq!(*who.lock().unwrap(), Some(task.name()));
    });
}

#[test]
fn a_time_out_in_a_wait_cancels_the_task_and_waits_for_its_end() {
    let took = main_task(|| {
        let notes = Arc::default();
        let inner = aio::create_task(slow_to_die(&notes));
        let limit = aio::timeout(Some(secs(1)));
        assert!(limit.run(|| inner.wait()).unwrap_err().is_timeout());
        assert!(inner.cancelled());
        assert_eq!(*notes.lock().unwrap(), ["inner has ended"]);
    });
    assert_eq!(took, secs(2));
}

#[test]
fn of_nested_time_outs_the_outer_one_takes_the_inner_block_with_it() {
    let took = main_task(|| {
        let (outer, inner) = (aio::timeout(Some(secs(1))), aio::timeout(Some(secs(5))));
        let result = outer.run(|| inner.run(|| sleep(secs(9))));
        assert!(result.unwrap_err().is_timeout());
        assert_eq!((outer.expired(), inner.expired()), (true, false));
        // A cancel is none of theirs.
        let task = aio::create_task(aio::green(|| {
            let limit = aio::timeout(Some(secs(5)));
            limit.run(|| sleep(secs(9)))
        }));
        sleep(ms(1));
        task.cancel();
        assert!(task.wait().unwrap_err().is_cancelled());
        // Of equal times it is the outer one's.
        let (outer, inner) = (aio::timeout(Some(secs(1))), aio::timeout(Some(secs(1))));
        assert!(outer.run(|| inner.run(|| sleep(secs(9)))).unwrap_err().is_timeout());
    });
    assert_eq!(took, secs(2) + ms(1));
}

#[test]
fn the_end_and_the_time_at_one_moment_give_the_value() {
    let took = main_task(|| {
        let nap = aio::create_task(aio::green(|| {
            sleep(secs(1));
            "done"
        }));
        thread::yield_now(); // it sleeps now
        assert_eq!(aio::wait_for(nap, secs(1)).unwrap(), "done");
        let swallows = aio::green(|| thread::catch_kill(|| sleep(secs(9))).is_err());
        assert!(aio::wait_for(swallows, secs(1)).unwrap());
        let fails = aio::fallible(aio::green(|| {
            thread::catch_kill(|| sleep(secs(9))).map_err(|_| "it went wrong")
        }));
        let error = aio::wait_for(fails, secs(1)).unwrap_err();
        assert_eq!(error.to_string(), "it went wrong");
    });
    assert_eq!(took, secs(3));
}

#[test]
fn a_gather_with_exceptions_is_cancelled_as_a_whole() {
    let took = main_task(|| {
        let naps = [secs(1), secs(5)].map(|time| aio::create_task(aio::green(move || sleep(time))));
        let whole = aio::gather_exceptions(naps.clone());
        sleep(secs(2));
        assert!(whole.cancel());
        assert!(whole.wait().unwrap_err().is_cancelled());
        assert!(naps[0].result().is_ok() && naps[1].cancelled());
    });
    assert_eq!(took, secs(2));
}

#[test]
fn a_shield_keeps_the_cancel_of_a_waiter_out_and_lets_that_of_the_task_through() {
    let took = main_task(|| {
        let inner = aio::create_task(aio::green(|| {
            sleep(secs(1));
            "saved"
        }));
        let behind = aio::shield(inner.clone());
        let waiter = aio::create_task(aio::green(move || behind.wait().unwrap()));
        sleep(ms(1));
        waiter.cancel();
        assert!(waiter.wait().unwrap_err().is_cancelled());
        assert!(!inner.done() && inner.any().cancelling() == 0);
        assert_eq!(inner.wait().unwrap(), "saved");
        let inner = aio::create_task(aio::green(thread::park));
        let outer = aio::shield(inner.clone());
        inner.cancel();
        assert!(outer.wait().unwrap_err().is_cancelled());
    });
    assert_eq!(took, secs(1));
}

#[test]
fn a_group_that_has_ended_takes_no_more_tasks() {
    main_task(|| {
        let kept = Arc::new(Mutex::new(None));
        let theirs = kept.clone();
        TaskGroup::run(move |group| *theirs.lock().unwrap() = Some(group.clone())).unwrap();
        let group = kept.lock().unwrap().take().unwrap();
        let late = group.create_task(aio::green(|| unreachable!("it never begins")));
        assert!(late.wait().unwrap_err().is_cancelled());
    });
}

#[test]
fn a_cancel_of_the_parent_reaches_the_group_once_and_its_own_abort_is_no_cancel() {
    main_task(|| {
        // Its own error: the parent's count stays as it was, and it goes on.
        let result = TaskGroup::run(|group| {
            group.create_task(aio::fallible(async { Err::<(), _>("no milk") }));
            sleep(secs(9));
        });
        assert_eq!(result.unwrap_err().errors().len(), 1);
        let me = aio::current_task().unwrap();
        assert_eq!(me.cancelling(), 0);
        sleep(ms(1));
        // Somebody else's: it goes up through the group.
        let parent = aio::create_task(aio::green(|| {
            let group = TaskGroup::run(|group| {
                group.create_task(aio::green(thread::park));
            });
            unreachable!("{group:?}");
        }));
        sleep(ms(1));
        parent.cancel();
        assert!(parent.wait().unwrap_err().is_cancelled());
        assert_eq!(parent.cancelling(), 1);
    });
}

#[test]
fn what_a_runner_leaves_goes_on_in_its_next_run_and_ends_with_it() {
    virtually(|| {
        let runner = Runner::new();
        let (one, two) = runner
            .run(async {
                let one = aio::create_task(aio::green(|| {
                    sleep(secs(1));
                    1
                }));
                (one, aio::create_task(aio::green(thread::park)))
            })
            .unwrap();
        assert!(!one.done());
        assert_eq!(runner.run(aio::green(move || one.wait().unwrap())).unwrap(), 1);
        assert!(!two.done());
        runner.close();
        assert!(two.cancelled());
        assert!(matches!(two.result(), Err(TaskError::Cancelled(None))));
    });
}
