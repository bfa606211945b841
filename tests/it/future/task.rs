//! Stackless tasks: order, blocking in a poll, wakes, cancellation, panics, the end of the hub.

use std::cell::{Cell, RefCell};
use std::future::{Future, pending, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use greenthread::future::{Task, block_on, spawn};
use greenthread::{green_local, hub, spawn as spawn_green, spawn_local, thread, time, yield_now};

use crate::support::counted::Counted;
use crate::support::fresh::{fresh, give_way, virtually};

fn is_send<T: Send>(_: &T) {}

#[test]
fn task_is_send_where_its_value_is() {
    fresh(|| {
        let task = spawn(async { 7 });
        is_send(&task);
        let waiter = std::thread::spawn(|| block_on(task).unwrap());
        assert_eq!(greenthread::threadpool::unblock(move || waiter.join().unwrap()), 7);
    });
}

#[test]
fn tasks_and_green_threads_take_turns_in_order() {
    fresh(|| {
        let order = Rc::new(RefCell::new(Vec::new()));
        let (a, b, c, d) = (order.clone(), order.clone(), order.clone(), order.clone());
        let first = spawn(async move {
            a.borrow_mut().push(1);
            give_way().await;
            a.borrow_mut().push(5);
        });
        spawn_local(move || {
            b.borrow_mut().push(2);
            yield_now();
            b.borrow_mut().push(6);
        });
        spawn(async move {
            c.borrow_mut().push(3);
            give_way().await;
            c.borrow_mut().push(7);
        });
        spawn_local(move || d.borrow_mut().push(4)).join().unwrap();
        first.join().unwrap();
        hub::idle();
        assert_eq!(*order.borrow(), [1, 2, 3, 4, 5, 6, 7]);
    });
}

#[test]
fn polls_that_block_do_not_hold_up_each_other() {
    for isolated in [false, true] {
        virtually(move || {
            let both = move || {
                let start = time::now();
                let slow = || async { time::sleep(Duration::from_secs(1)) };
                let (a, b) = (spawn(slow()), spawn(slow()));
                let quick = spawn(async { time::now() });
                assert_eq!(quick.join().unwrap(), start);
                a.join().unwrap();
                b.join().unwrap();
                assert_eq!(time::now() - start, Duration::from_secs(1));
            };
            if isolated {
                spawn_green(both).join().unwrap();
            } else {
                both();
            }
        });
    }
}

#[test]
fn tasks_of_an_isolated_green_thread_see_its_thread_locals() {
    thread_local! {
        static MINE: Cell<u32> = const { Cell::new(0) };
    }
    fresh(|| {
        let seen = spawn_green(|| {
            MINE.set(7);
            let task = spawn(async {
                give_way().await;
                time::sleep(Duration::from_millis(1));
                MINE.replace(8)
            });
            (task.join().unwrap(), MINE.get())
        });
        let expected = if thread::isolation().is_ok() { 0 } else { 8 };
        assert_eq!(seen.join().unwrap(), (7, 8));
        assert_eq!(MINE.get(), expected);
    });
}

#[test]
fn context_lives_as_long_as_its_last_task() {
    static ENDED: AtomicBool = AtomicBool::new(false);
    struct Ends;
    impl Drop for Ends {
        fn drop(&mut self) {
            ENDED.store(true, Ordering::SeqCst);
        }
    }
    thread_local! {
        static ENDS: Ends = const { Ends };
    }
    if thread::isolation().is_err() {
        return;
    }
    fresh(|| {
        let (sender, receiver) = greenthread::sync::channel::unbounded::<()>();
        let task = spawn_green(move || {
            ENDS.with(|_| ());
            spawn(async move { receiver.recv_async().await.is_ok() && !ENDED.load(Ordering::SeqCst) })
        });
        let task = task.join().unwrap();
        hub::idle();
        sender.send(()).unwrap();
        assert!(task.join().unwrap());
        hub::idle();
        assert!(ENDED.load(Ordering::SeqCst));
    });
}

#[test]
fn green_locals_of_a_task_are_its_own() {
    green_local! {
        static COUNT: Cell<u32> = Cell::new(0);
    }
    fresh(|| {
        let count = |times: u32| async move {
            for _ in 0..times {
                COUNT.set(COUNT.get() + 1);
                give_way().await;
            }
            COUNT.get()
        };
        let (a, b) = (spawn(count(3)), spawn(count(5)));
        assert_eq!((a.join().unwrap(), b.join().unwrap()), (3, 5));
        assert_eq!(spawn(count(1)).join().unwrap(), 1);
        assert_eq!(COUNT.get(), 0);
    });
}

#[test]
fn many_wakes_before_a_poll_are_one() {
    fresh(|| {
        let waker: Rc<RefCell<Option<Waker>>> = Rc::default();
        let polls = Rc::new(Cell::new(0));
        let (place, counted) = (waker.clone(), polls.clone());
        let task = spawn(poll_fn(move |context| {
            counted.set(counted.get() + 1);
            *place.borrow_mut() = Some(context.waker().clone());
            Poll::<()>::Pending
        }));
        hub::idle();
        assert_eq!(polls.get(), 1);
        let waker = waker.take().unwrap();
        (0..1000).for_each(|_| waker.wake_by_ref());
        let theirs = waker.clone();
        std::thread::spawn(move || (0..1000).for_each(|_| theirs.wake_by_ref()))
            .join()
            .unwrap();
        hub::idle();
        hub::idle();
        assert_eq!(polls.get(), 2);
        task.cancel();
        assert!(task.join().unwrap_err().is_killed());
        // The task is gone, and its block serves another.
        let other = spawn_local(|| thread::park());
        hub::idle();
        waker.wake();
        hub::idle();
        assert!(!other.is_finished());
        other.thread().unpark();
        other.join().unwrap();
    });
}

#[test]
fn cancelled_task_drops_its_future_on_its_hub_at_its_next_turn() {
    fresh(|| {
        let dropped = Rc::new(Cell::new(0));
        let guard = Counted(dropped.clone());
        let task = spawn(async move {
            let _guard = guard;
            pending::<()>().await;
        });
        hub::idle();
        task.cancel();
        assert_eq!(dropped.get(), 0);
        assert!(!task.is_finished());
        assert!(task.join().unwrap_err().is_killed());
        assert_eq!(dropped.get(), 1);
        // One that never ran; and from another OS thread.
        let guard = Counted(dropped.clone());
        let task = spawn(async move {
            let _guard = guard;
            unreachable!("it was cancelled before");
        });
        let task: Task<()> = std::thread::scope(|s| s.spawn(move || (task.cancel(), task).1).join().unwrap());
        assert!(task.join().unwrap_err().is_killed());
        assert_eq!(dropped.get(), 2);
    });
}

#[test]
fn cancelled_at_every_await_point_it_leaves_nothing() {
    for point in 0..8 {
        fresh(move || {
            let dropped = Rc::new(Cell::new(0));
            let guard = Counted(dropped.clone());
            let task = spawn(async move {
                let _guard = guard;
                for _ in 0..5 {
                    give_way().await;
                }
            });
            (0..point).for_each(|_| yield_now());
            task.cancel();
            let ended = task.join();
            assert_eq!(ended.is_err(), point < 6, "{point}");
            assert_eq!((dropped.get(), hub::live()), (1, 0), "{point}");
        });
    }
}

#[test]
fn cancelled_while_a_poll_blocks_it_unwinds_there() {
    virtually(|| {
        let dropped = Rc::new(Cell::new(0));
        let guard = Counted(dropped.clone());
        let task = spawn(async move {
            let _guard = guard;
            time::sleep(Duration::from_secs(1));
            pending::<()>().await;
        });
        let start = time::now();
        hub::idle();
        task.cancel();
        assert!(task.join().unwrap_err().is_killed());
        assert_eq!((time::now() - start, dropped.get()), (Duration::ZERO, 1));
    });
}

#[test]
fn cancelled_while_a_poll_is_shielded_it_ends_after_it() {
    virtually(|| {
        // The shield ends before the poll does; a poll that ends the task has ended it.
        for (wait, killed) in [(true, true), (false, false)] {
            let task = spawn(async move {
                thread::shield(|| time::sleep(Duration::from_secs(1)));
                if wait {
                    pending::<()>().await;
                }
            });
            let start = time::now();
            hub::idle();
            task.cancel();
            assert_eq!(task.join().is_err_and(|error| error.is_killed()), killed);
            assert_eq!(time::now() - start, Duration::from_secs(1));
        }
    });
}

#[test]
fn cancel_that_a_blocking_poll_catches_is_over() {
    virtually(|| {
        let task = spawn(async {
            let caught = thread::catch_kill(|| time::sleep(Duration::from_secs(1))).is_err();
            time::sleep_async(Duration::from_secs(1)).await;
            caught
        });
        let start = time::now();
        hub::idle();
        task.cancel();
        assert!(task.join().unwrap());
        assert_eq!(time::now() - start, Duration::from_secs(1));
    });
}

#[test]
fn cancel_from_another_os_thread_reaches_a_blocking_poll() {
    fresh(|| {
        let task = spawn(async { time::sleep(Duration::from_secs(3600)) });
        hub::idle();
        let task = std::thread::spawn(move || {
            task.cancel();
            task
        });
        let task = greenthread::threadpool::unblock(move || task.join().unwrap());
        assert!(task.join().unwrap_err().is_killed());
    });
}

#[test]
fn destructor_that_blocks_holds_up_nobody_else() {
    struct Slow;
    impl Drop for Slow {
        fn drop(&mut self) {
            time::sleep(Duration::from_secs(1));
        }
    }
    virtually(|| {
        let start = time::now();
        let task = spawn(async {
            let _slow = Slow;
            pending::<()>().await;
        });
        hub::idle();
        task.cancel();
        assert_eq!(spawn(async { time::now() }).join().unwrap(), start);
        assert!(task.join().unwrap_err().is_killed());
        assert_eq!(time::now() - start, Duration::from_secs(1));
    });
}

#[test]
fn panic_in_a_poll_is_an_error_or_reported_once() {
    fresh(|| {
        let error = spawn(async { panic!("a task's") }).join().unwrap_err();
        assert_eq!(error.into_panic().downcast_ref(), Some(&"a task's"));
    });
    static HEARD: AtomicU32 = AtomicU32::new(0);
    fresh(|| {
        hub::set_panic_hook(Some(|_: &str, payload: &(dyn std::any::Any + Send)| {
            if payload.downcast_ref() == Some(&"nobody's task") {
                HEARD.fetch_add(1, Ordering::SeqCst);
            }
        }));
        drop(spawn(async {
            give_way().await;
            panic!("nobody's task")
        }));
        let task = spawn(async { panic!("nobody's task") });
        hub::idle();
        assert_eq!(HEARD.load(Ordering::SeqCst), 1);
        drop(task);
        assert_eq!(HEARD.load(Ordering::SeqCst), 2);
        hub::set_panic_hook(None::<fn(&str, &(dyn std::any::Any + Send))>);
    });
}

#[test]
fn value_of_a_detached_task_is_dropped() {
    fresh(|| {
        let dropped = Rc::new(Cell::new(0));
        for big in [false, true] {
            let guard = Counted(dropped.clone());
            drop(spawn(async move { (guard, big.then_some([0u64; 20])) }));
        }
        hub::idle();
        assert_eq!(dropped.get(), 2);
    });
}

#[test]
fn task_whose_hub_ends_is_lost() {
    let task = fresh(|| {
        let task = spawn(pending::<()>());
        hub::idle();
        task
    });
    assert!(task.join().unwrap_err().is_lost());
    // One that waits for it meanwhile, on another OS thread.
    let (tell, told) = std::sync::mpsc::channel();
    let (go, gone) = std::sync::mpsc::channel::<()>();
    let owner = std::thread::spawn(move || {
        tell.send(spawn(pending::<()>())).unwrap();
        gone.recv().unwrap();
    });
    let task = told.recv().unwrap();
    let waiter = std::thread::spawn(move || {
        go.send(()).unwrap();
        block_on(task)
    });
    owner.join().unwrap();
    assert!(waiter.join().unwrap().unwrap_err().is_lost());
}

#[test]
fn shutdown_cancels_tasks() {
    fresh(|| {
        let waits = spawn(pending::<()>());
        let blocks = spawn(async { thread::park() });
        hub::idle();
        assert_eq!(hub::live(), 2);
        hub::shutdown(Duration::from_secs(1)).unwrap();
        assert!(waits.join().unwrap_err().is_killed());
        assert!(blocks.join().unwrap_err().is_killed());
        assert_eq!(hub::live(), 0);
        assert_eq!(spawn(async { 1 }).join().unwrap(), 1);
    });
}

#[test]
fn future_sent_to_a_hub_runs_there() {
    fresh(|| {
        let handle = hub::handle();
        let here = std::thread::current().id();
        let other = std::thread::spawn(move || {
            let task = handle
                .spawn_future(async move {
                    give_way().await;
                    std::thread::current().id()
                })
                .unwrap();
            (block_on(task).unwrap(), handle)
        });
        let (there, _) = greenthread::threadpool::unblock(move || other.join().unwrap());
        assert_eq!(there, here);
    });
    let gone = fresh(hub::handle);
    let dropped = Arc::new(());
    let theirs = dropped.clone();
    assert!(gone.spawn_future(async move { drop(theirs) }).is_err());
    assert_eq!(Arc::strong_count(&dropped), 1);
}

#[test]
fn waits_with_a_limit_leave_the_task_as_it_was() {
    virtually(|| {
        let mut task = spawn(async {
            time::sleep(Duration::from_secs(2));
            7
        });
        assert!(task.join_timeout(Duration::from_secs(1)).is_none());
        assert!(task.join_deadline(time::now() + Duration::from_millis(500)).is_none());
        assert_eq!(task.join_timeout(Duration::from_secs(1)).unwrap().unwrap(), 7);
        assert!(task.join_timeout(Duration::ZERO).unwrap().unwrap_err().is_taken());
    });
}

/// A waker that counts.
struct Woken(AtomicU32);

impl std::task::Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn task_is_a_future_for_any_executor() {
    fresh(|| {
        let task = spawn(async {
            give_way().await;
            5
        });
        let woken = Arc::new(Woken(AtomicU32::new(0)));
        let waker = Waker::from(woken.clone());
        let mut task = std::pin::pin!(task);
        let mut poll = || -> Poll<_> {
            let task: Pin<&mut Task<i32>> = task.as_mut();
            task.poll(&mut Context::from_waker(&waker))
        };
        assert!(poll().is_pending());
        hub::idle();
        assert_eq!(woken.0.load(Ordering::SeqCst), 1);
        assert!(matches!(poll(), Poll::Ready(Ok(5))));
        assert!(matches!(poll(), Poll::Ready(Err(error)) if error.is_taken()));
    });
    let task = std::thread::spawn(|| {
        let task = hub::handle().spawn_future(async { 6 }).unwrap();
        let waiter = std::thread::spawn(|| futures::executor::block_on(task));
        while !waiter.is_finished() {
            time::sleep(Duration::from_millis(1));
        }
        waiter.join().unwrap().unwrap()
    });
    assert_eq!(task.join().unwrap(), 6);
}

#[test]
fn hundred_thousand_tasks_wait_without_stacks() {
    fresh(|| {
        let (sender, receiver) = greenthread::sync::channel::unbounded::<u32>();
        let tasks: Vec<_> = (0..100_000)
            .map(|_| {
                let receiver = receiver.clone();
                spawn(async move { receiver.recv_async().await.unwrap() })
            })
            .collect();
        hub::idle();
        let stacks = greenthread::stack::stats().in_use;
        assert!(stacks < 5_000, "{stacks}");
        (0..100_000).for_each(|n| sender.send(n).unwrap());
        let sum: u64 = tasks.into_iter().map(|task| u64::from(task.join().unwrap())).sum();
        assert_eq!(sum, 99_999 * 100_000 / 2);
    });
}

#[test]
fn task_has_exit_links_and_is_waited_for_as_a_green_thread_is() {
    fresh(|| {
        let (sender, receiver) = greenthread::sync::channel::unbounded();
        let handle = thread::JoinHandle::from(spawn(give_way()));
        handle.on_exit(move |ended| {
            yield_now();
            sender.send(ended.is_ok()).unwrap();
        });
        assert_eq!(receiver.recv(), Ok(true));
        let handles = [spawn(async { 1 }).into(), spawn_green(|| 2)];
        let ended: i32 = thread::iwait(handles).map(|handle| handle.join().unwrap()).sum();
        assert_eq!(ended, 3);
    });
}

#[test]
fn context_ends_after_its_tasks_however_their_runners_were_used() {
    static LIVE: AtomicU32 = AtomicU32::new(0);
    struct Counts;
    impl Drop for Counts {
        fn drop(&mut self) {
            LIVE.fetch_sub(1, Ordering::SeqCst);
        }
    }
    thread_local! {
        static COUNTS: Counts = {
            LIVE.fetch_add(1, Ordering::SeqCst);
            Counts
        };
    }
    if thread::isolation().is_err() {
        return;
    }
    virtually(|| {
        for round in 0..3 {
            let tasks: Vec<Task<()>> = (0..20)
                .flat_map(|n| {
                    spawn_green(move || {
                        COUNTS.with(|_| ());
                        let work = move |m: u64| async move {
                            for _ in 0..m {
                                give_way().await;
                            }
                            time::sleep(Duration::from_millis(m * (n + round) % 3));
                            give_way().await;
                        };
                        (0..4).map(|m| spawn(work(m))).collect::<Vec<_>>()
                    })
                    .join()
                    .unwrap()
                })
                .collect();
            assert!(LIVE.load(Ordering::SeqCst) > 0);
            tasks.into_iter().enumerate().for_each(|(n, task)| {
                if n % 3 == 0 {
                    task.cancel();
                }
                let _ = task.join();
            });
            hub::idle();
            assert_eq!((LIVE.load(Ordering::SeqCst), hub::live()), (0, 0));
            // Only runners of the native context are kept, and there was none.
            assert_eq!(greenthread::stack::stats().in_use, 0);
        }
    });
}

#[test]
fn runners_end_with_their_os_thread() {
    /// Looks when the hub has ended: made before it, it is dropped after it, and before the stacks.
    struct Looks(std::sync::mpsc::Sender<usize>);
    impl Drop for Looks {
        fn drop(&mut self) {
            self.0.send(greenthread::stack::stats().in_use).unwrap();
        }
    }
    thread_local! {
        static LOOKS: RefCell<Option<Looks>> = const { RefCell::new(None) };
    }
    let (tell, told) = std::sync::mpsc::channel();
    let owner = std::thread::spawn(|| {
        greenthread::stack::trim();
        LOOKS.set(Some(Looks(tell)));
        spawn(give_way()).join().unwrap();
        greenthread::stack::stats().in_use
    });
    assert_eq!(owner.join().unwrap(), 1, "the runner's");
    assert_eq!(told.recv().unwrap(), 0);
}

#[test]
fn tasks_of_many_hubs_wake_each_other_while_blocks_are_reused() {
    let hubs = greenthread::hub::Hubs::new(3).unwrap();
    let rounds = |handles: Vec<hub::Handle>| {
        for round in 0..300 {
            // Without a limit: one that is cancelled before it has received leaves a message that would block the
            // others.
            let (sender, receiver) = greenthread::sync::channel::unbounded();
            let tasks: Vec<_> = handles
                .iter()
                .map(|handle| {
                    let (sender, receiver) = (sender.clone(), receiver.clone());
                    handle
                        .spawn_future(async move {
                            let mut sum = 0;
                            for n in 0..5 {
                                sender.send_async(n).await.unwrap();
                                sum += receiver.recv_async().await.unwrap();
                            }
                            sum
                        })
                        .unwrap()
                })
                .collect();
            if round % 4 == 0 {
                tasks[round % 3].cancel();
            }
            drop((sender, receiver));
            for task in tasks {
                match futures::executor::block_on(task) {
                    Ok(_) => {}
                    Err(error) => assert!(error.is_killed() || error.is_panic(), "{error}"),
                }
            }
        }
    };
    let handles = hubs.handles().to_vec();
    std::thread::spawn(move || rounds(handles)).join().unwrap();
}
