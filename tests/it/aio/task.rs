//! Tasks: begin, end, cancel, names, callbacks; from futures and from green code.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use greenthread::aio::{self, EventLoop, Runner, TaskError};
use greenthread::sync::Event;
use greenthread::{sleep, thread, time, yield_now};

use crate::support::fresh::{fresh, ms, secs, text, virtually};

/// Says so when it is dropped.
struct Told(Arc<AtomicBool>);

impl Drop for Told {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn told() -> (Told, impl Fn() -> bool) {
    let flag = Arc::new(AtomicBool::new(false));
    let theirs = flag.clone();
    (Told(flag), move || theirs.load(Ordering::Relaxed))
}

#[test]
fn tasks_begin_soon_run_together_and_keep_their_results() {
    virtually(|| {
        let start = time::now();
        let order = Rc::new(Cell::new(0));
        let theirs = order.clone();
        aio::run(async move {
            let future = aio::create_task(async move {
                theirs.set(1);
                aio::sleep(secs(1)).await;
                "future"
            });
            let green = aio::create_task(aio::green(|| {
                sleep(secs(2));
                "green"
            }));
            assert_eq!(order.get(), 0, "it begins soon, not at once");
            assert!(!future.done() && matches!(future.result(), Err(TaskError::InvalidState)));
            assert_eq!(future.clone().await.unwrap(), "future");
            assert_eq!(green.clone().await.unwrap(), "green");
            assert_eq!(
                (future.result().unwrap(), green.await.unwrap()),
                (&"future", "green"),
                "again"
            );
        })
        .unwrap();
        assert_eq!(time::now() - start, secs(2));
    });
}

#[test]
fn names_are_task_n_or_what_was_set_and_debug_shows_the_state() {
    virtually(|| {
        aio::run(async {
            let task = aio::create_task(async { 7 });
            assert!(task.name().strip_prefix("Task-").unwrap().parse::<u64>().is_ok());
            task.set_name("n1");
            assert_eq!(format!("{task:?}"), "<Task pending name='n1'>");
            task.clone().await.unwrap();
            assert_eq!(format!("{task:?}"), "<Task finished name='n1' result=7>");
            let error = aio::create_task(aio::fallible(async { Err::<(), _>("no tea") }));
            error.set_name("n2");
            assert_eq!(error.clone().await.unwrap_err().to_string(), "no tea");
            assert_eq!(format!("{error:?}"), "<Task finished name='n2' exception=no tea>");
        })
        .unwrap();
    });
}

#[test]
fn current_and_all_tasks_are_those_of_this_loop_that_have_not_ended() {
    virtually(|| {
        assert_eq!(aio::current_task(), None);
        aio::run(async {
            let main = aio::current_task().unwrap();
            assert_eq!(aio::all_tasks(), std::slice::from_ref(&main));
            let other = aio::create_task(aio::green(|| aio::current_task().unwrap()));
            let third = aio::create_task(async { (aio::current_task(), aio::sleep(secs(1)).await).0.unwrap() });
            assert_eq!(aio::all_tasks(), [main.clone(), other.any(), third.any()]);
            assert_eq!(other.clone().await.unwrap(), other.any());
            assert_eq!(third.clone().await.unwrap(), third.any());
            assert_eq!(aio::current_task().unwrap(), main);
            std::thread::spawn(|| fresh(|| assert_eq!(aio::all_tasks(), [])))
                .join()
                .unwrap();
        })
        .unwrap();
        assert_eq!(aio::all_tasks(), []);
    });
}

#[test]
fn without_a_loop_create_task_is_an_error_and_ensure_future_waits_for_one() {
    virtually(|| {
        let error = aio::try_create_task(async {}).unwrap_err();
        assert!(matches!(error, TaskError::NoRunningLoop));
        let payload = std::panic::catch_unwind(|| aio::create_task(async {})).unwrap_err();
        assert!(text(&*payload).contains("no running event loop"));
        let early = aio::ensure_future(async { 5 });
        assert_eq!(aio::ensure_future(early.clone()), early);
        assert_eq!(aio::run(early).unwrap(), 5);
    });
}

#[test]
fn run_within_a_loop_panics_and_says_what_to_do() {
    virtually(|| {
        let error = aio::run(async { aio::run(async {}) }).unwrap_err();
        assert!(error.to_string().contains("use create_task"), "{error}");
    });
}

#[test]
fn run_cancels_what_is_left_and_waits_for_it() {
    virtually(|| {
        let (guard, is_dropped) = told();
        let (slow, is_through) = told();
        let start = time::now();
        aio::run(async {
            aio::create_task(async move {
                let _guard = guard;
                aio::sleep(secs(1000)).await;
            });
            aio::create_task(aio::green(move || {
                assert!(thread::catch_kill(thread::park).is_err());
                sleep(secs(3)); // its tidying up
                drop(slow);
            }));
            aio::sleep(secs(1)).await;
        })
        .unwrap();
        assert!(is_dropped() && is_through());
        assert_eq!(time::now() - start, secs(4));
    });
}

#[test]
fn a_runner_runs_several_times_on_one_loop_and_closes_it() {
    virtually(|| {
        let runner = Runner::new();
        let (mine, theirs) = (
            runner.get_loop(),
            runner.run(async { aio::get_running_loop().unwrap() }),
        );
        assert_eq!(theirs.unwrap(), mine);
        assert_eq!(runner.run(aio::green(|| 2)).unwrap(), 2);
        runner.close();
        assert!(mine.is_closed());
    });
}

#[test]
fn a_cancel_reaches_each_kind_where_it_waits_or_before_it_began() {
    virtually(|| {
        aio::run(async {
            for begun in [true, false] {
                let (guard, is_dropped) = told();
                let future = aio::create_task(async move {
                    let _guard = guard;
                    aio::sleep(secs(9)).await;
                });
                let (guard, is_unwound) = told();
                let green = aio::create_task(aio::green(move || {
                    let _guard = guard;
                    thread::park();
                }));
                if begun {
                    aio::sleep(ms(1)).await;
                }
                assert!(future.cancel_with("enough") && green.cancel());
                assert!(!future.done(), "it ends soon, not at once");
                let error = future.clone().await.unwrap_err();
                assert_eq!(error.to_string(), "the task was cancelled: enough");
                assert!(green.clone().await.unwrap_err().is_cancelled());
                assert!(is_dropped() && is_unwound());
                assert!(future.cancelled() && green.any().cancelled() && !green.cancel());
                assert!(green.exception().unwrap_err().is_cancelled());
            }
        })
        .unwrap();
    });
}

#[test]
fn a_cancel_that_is_caught_is_spent_and_the_count_says_so() {
    virtually(|| {
        aio::run(async {
            let task = aio::create_task(aio::green(|| {
                let me = aio::current_task().unwrap();
                assert!(thread::catch_kill(|| sleep(secs(9))).is_err());
                assert_eq!((me.cancelling(), me.uncancel(), me.uncancel()), (1, 0, 0));
                sleep(secs(1)); // lives on
                "value"
            }));
            aio::sleep(ms(1)).await;
            task.cancel();
            assert_eq!(task.clone().await.unwrap(), "value");
            assert!(!task.cancelled() && task.done());
        })
        .unwrap();
    });
}

#[test]
fn who_is_cancelled_while_it_waits_for_a_task_cancels_that() {
    virtually(|| {
        aio::run(async {
            for green in [true, false] {
                let inner = aio::create_task(aio::green(thread::park));
                let theirs = inner.clone();
                let outer = if green {
                    aio::create_task(aio::green(move || drop(theirs.wait())))
                } else {
                    aio::create_task(async move { drop(theirs.await) })
                };
                aio::sleep(ms(1)).await;
                outer.cancel();
                assert!(outer.await.unwrap_err().is_cancelled());
                assert!(inner.clone().await.unwrap_err().is_cancelled());
            }
        })
        .unwrap();
    });
}

#[test]
fn a_wait_with_a_limit_leaves_the_task_alone() {
    virtually(|| {
        aio::run(aio::green(|| {
            let task = aio::create_task(aio::green(|| sleep(secs(2))));
            assert!(task.wait_timeout(secs(1)).is_none());
            assert!(!task.done() && task.cancelling() == 0);
            assert!(task.wait_deadline(time::now() + secs(5)).unwrap().is_ok());
        }))
        .unwrap();
    });
}

#[test]
fn a_panic_is_an_exception_and_its_text_is_kept() {
    virtually(|| {
        aio::run(async {
            for task in [
                aio::create_task(async { panic!("boom") }),
                aio::create_task(aio::green(|| panic!("boom"))),
            ] {
                let error = task.clone().await.unwrap_err();
                assert_eq!(error.to_string(), "panicked: boom");
                assert!(matches!(task.exception(), Ok(Some(TaskError::Panicked(_)))));
            }
        })
        .unwrap();
    });
}

#[test]
fn callbacks_come_soon_in_order_unless_they_are_removed() {
    virtually(|| {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let note = |n: u32| {
            let seen = seen.clone();
            move |task: &aio::Task<u32>| seen.lock().unwrap().push((n, *task.result().unwrap()))
        };
        let (first, second, third, late) = (note(1), note(2), note(3), note(4));
        let look = seen.clone();
        aio::run(async move {
            let task = aio::create_task(async { 7 });
            task.add_done_callback(first);
            task.add_done_callback(second).cancel();
            task.add_done_callback(third);
            task.clone().await.unwrap();
            aio::sleep(ms(1)).await;
            task.add_done_callback(late);
            assert_eq!(look.lock().unwrap().len(), 2, "never inline");
            aio::sleep(ms(1)).await;
        })
        .unwrap();
        assert_eq!(*seen.lock().unwrap(), [(1, 7), (3, 7), (4, 7)]);
    });
}

#[test]
fn an_error_that_nobody_has_looked_at_is_told_once() {
    virtually(|| {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let event_loop = EventLoop::new();
        let note = heard.clone();
        event_loop.set_exception_handler(Some(move |context: &aio::ExceptionContext| {
            note.lock()
                .unwrap()
                .push(context.exception.clone().unwrap().to_string());
        }));
        let fail = |what: &'static str| aio::fallible(async move { Err::<(), _>(what) });
        let main = async move {
            drop(aio::create_task(fail("unread")));
            let read = aio::create_task(fail("read"));
            aio::sleep(ms(1)).await;
            assert!(read.exception().unwrap().is_some());
            aio::create_task(aio::green(thread::park)).cancel(); // a cancel is nobody's fault
            aio::sleep(ms(1)).await;
        };
        event_loop.run_until_complete(main).unwrap();
        assert_eq!(*heard.lock().unwrap(), ["unread"]);
    });
}

#[test]
fn a_task_may_be_waited_for_from_another_os_thread() {
    fresh(|| {
        let go = Arc::new(Event::new());
        let theirs = go.clone();
        let task = aio::ensure_future(aio::green(move || {
            theirs.wait();
            7
        }));
        let elsewhere = task.clone();
        let other = std::thread::spawn(move || {
            go.set();
            elsewhere.wait().unwrap()
        });
        assert_eq!(task.wait().unwrap(), 7);
        assert_eq!(other.join().unwrap(), 7);
        yield_now();
    });
}

/// Waits until `is_true`, without giving up the processor for long.
fn spin_until(is_true: impl Fn() -> bool) {
    let mut rounds = 0_u32;
    while !is_true() {
        rounds += 1;
        if rounds.is_multiple_of(1000) {
            std::thread::yield_now(); // the other OS thread may need this processor
        }
    }
}

#[test]
fn another_os_thread_never_sees_an_end_without_its_outcome() {
    const ROUNDS: usize = 1_000;
    fresh(|| {
        let inner = aio::ensure_future(std::future::pending::<u32>());
        let (started, cancelled) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        // A cancel of a shield ends it on the OS thread that cancels.
        let shields: Vec<_> = (0..ROUNDS).map(|_| aio::shield(inner.clone())).collect();
        let theirs = (shields.clone(), started.clone(), cancelled.clone());
        let canceller = std::thread::spawn(move || {
            let (shields, started, cancelled) = theirs;
            for (round, shield) in shields.iter().enumerate() {
                spin_until(|| started.load(Ordering::Acquire) > round);
                assert!(shield.cancel());
                cancelled.store(round + 1, Ordering::Release);
            }
        });
        let mut wrong = Vec::new();
        for (round, shield) in shields.iter().enumerate() {
            let any = shield.any();
            started.store(round + 1, Ordering::Release);
            spin_until(|| any.done());
            let seen = [
                any.cancelled(),
                shield.done(),
                shield.cancelled(),
                shield.result().is_err_and(|error| error.is_cancelled()),
                shield.wait_timeout(ms(0)).is_some(),
                !shield.cancel(),
            ];
            if seen != [true; 6] {
                wrong.push((round, seen));
            }
            spin_until(|| cancelled.load(Ordering::Acquire) > round);
        }
        canceller.join().unwrap();
        inner.cancel();
        yield_now();
        assert_eq!(wrong.first(), None, "and {} rounds in all", wrong.len());
    });
}

#[test]
fn a_cancel_from_another_os_thread_comes_with_its_message() {
    const ROUNDS: usize = 10_000;
    fresh(|| {
        let started = Arc::new(AtomicUsize::new(0));
        let body = |round| {
            let started = started.clone();
            // One poll, that ends as soon as it sees the request.
            async move {
                let me = aio::current_task().unwrap();
                started.store(round + 1, Ordering::Release);
                spin_until(|| me.cancelling() > 0);
            }
        };
        let tasks: Vec<_> = (0..ROUNDS).map(|round| aio::ensure_future(body(round))).collect();
        let (theirs, begun) = (tasks.clone(), started.clone());
        let canceller = std::thread::spawn(move || {
            for (round, task) in theirs.iter().enumerate() {
                spin_until(|| begun.load(Ordering::Acquire) > round);
                assert!(task.cancel_with("why"));
            }
        });
        let outcomes: Vec<_> = tasks.iter().map(|task| task.wait().unwrap_err().to_string()).collect();
        canceller.join().unwrap();
        let wrong = outcomes.iter().filter(|told| *told != "the task was cancelled: why");
        assert_eq!(wrong.count(), 0);
    });
}
