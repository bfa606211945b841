//! Queues: what they promise in each order, from green threads, callbacks, OS threads and futures, and what is left
//! when a waiter goes at any moment.

use std::cell::{Cell, RefCell};
use std::cmp::Ordering;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures::executor::block_on as outside;
use greenthread::future::block_on;
use greenthread::sync::queue::{
    GetError, GetTimeoutError, LifoQueue, PriorityQueue, PutError, PutTimeoutError, Queue, QueueOf, Store, TryGetError,
    TryPutError,
};
use greenthread::{hub, sleep, spawn, spawn_local, timeout, yield_now};

use super::queue_model::Ranked;
use super::turns::{at_every_turn, join_all};
use crate::support::fresh::{fresh, green, ms, quiesce, text, virtually};

#[test]
fn items_come_out_in_each_queue_s_order() {
    fn drained<S: Store<(u32, char)>>(queue: &QueueOf<(u32, char), S>) -> String {
        for item in [(2, 'a'), (1, 'b'), (3, 'c'), (0, 'd'), (1, 'a')] {
            queue.put(item).unwrap();
        }
        assert_eq!((queue.len(), queue.is_empty()), (5, false));
        assert_eq!(queue.try_peek(), queue.peek().map_err(|_| TryGetError::Empty));
        let first = queue.peek().unwrap();
        let items: Vec<_> = queue.try_iter().collect();
        assert_eq!((items[0], queue.is_empty()), (first, true));
        items.into_iter().flat_map(|(n, c)| [n.to_string(), c.into()]).collect()
    }
    fresh(|| {
        assert_eq!(drained(&Queue::unbounded()), "2a1b3c0d1a");
        assert_eq!(drained(&LifoQueue::bounded(5)), "1a0d3c1b2a");
        assert_eq!(drained(&PriorityQueue::default()), "0d1a1b2a3c");
    });
}

#[test]
fn of_equal_priorities_the_first_put_comes_first() {
    fresh(|| {
        let queue = PriorityQueue::unbounded();
        let rank = |n: u32| (n * 7 % 5) as u8;
        (0..200).for_each(|n| queue.put(Ranked(rank(n), n)).unwrap());
        let came: Vec<_> = queue.try_iter().map(|Ranked(rank, n)| (rank, n)).collect();
        let mut sorted = came.clone();
        sorted.sort_unstable();
        assert_eq!((came.len(), came), (200, sorted));
    });
}

#[test]
fn what_does_not_fit_comes_back() {
    virtually(|| {
        let queue = Queue::bounded(1);
        assert_eq!((queue.capacity(), queue.is_full()), (Some(1), false));
        queue.put(1).unwrap();
        assert!(queue.is_full());
        assert_eq!(queue.try_put(2), Err(TryPutError::Full(2)));
        assert_eq!(queue.put_timeout(3, ms(5)), Err(PutTimeoutError::Timeout(3)));
        let soon = greenthread::time::now() + ms(5);
        assert_eq!(queue.put_deadline(4, soon).unwrap_err().into_inner(), 4);
        assert_eq!((queue.get(), queue.try_get()), (Ok(1), Err(TryGetError::Empty)));
        assert_eq!(queue.get_timeout(ms(5)), Err(GetTimeoutError::Timeout));
        let soon = greenthread::time::now() + ms(5);
        assert_eq!(queue.get_deadline(soon), Err(GetTimeoutError::Timeout));
        assert_eq!(queue.peek_deadline(soon), Err(GetTimeoutError::Timeout));
        assert_eq!(queue.peek_timeout(ms(5)), Err(GetTimeoutError::Timeout));
        assert_eq!(queue.try_peek(), Err(TryGetError::Empty));
        assert_eq!(queue.len(), 0, "none of those who gave up has left anything");
        assert_eq!(Queue::<u8>::unbounded().capacity(), None);
        let refused = catch_unwind(|| Queue::<u8>::bounded(0)).unwrap_err();
        assert!(text(&*refused).contains("channel::bounded(0)"));
    });
}

#[test]
fn who_waits_is_served_in_the_order_of_coming() {
    virtually(|| {
        let queue = Rc::new(Queue::bounded(1));
        let getters: Vec<_> = (0..3).map(|_| green(&queue, |queue| queue.get().unwrap())).collect();
        quiesce();
        (0..3).for_each(|n| queue.put(n).unwrap());
        assert_eq!(join_all(getters), [0, 1, 2]);
        queue.put(0).unwrap();
        let putters: Vec<_> = (1..4)
            .map(|n| green(&queue, move |queue| queue.put(n).unwrap()))
            .collect();
        quiesce();
        assert_eq!(queue.len(), 1, "those that wait do not count");
        assert_eq!(queue.try_iter().collect::<Vec<_>>(), [0, 1, 2, 3]);
        join_all(putters);
    });
}

#[test]
fn a_callback_lets_both_sides_go_on() {
    virtually(|| {
        let queue = Rc::new(Queue::bounded(1));
        let getter = green(&queue, |queue| queue.get());
        quiesce();
        let theirs = queue.clone();
        hub::call_soon(move || theirs.try_put(1).unwrap());
        assert_eq!(getter.join().unwrap(), Ok(1));
        queue.put(2).unwrap();
        let putters = [3, 4].map(|n| green(&queue, move |queue| queue.put(n)));
        quiesce();
        let (theirs, got) = (queue.clone(), Rc::new(RefCell::new(Vec::new())));
        let log = got.clone();
        // Those that wait are let in without a turn of theirs.
        hub::call_soon(move || log.borrow_mut().extend(theirs.try_iter()));
        putters.into_iter().for_each(|putter| putter.join().unwrap().unwrap());
        assert_eq!(*got.borrow(), [2, 3, 4]);
        let theirs = queue.clone();
        let refused = Rc::new(RefCell::new(String::new()));
        let log = refused.clone();
        hub::call_soon(move || {
            let payload = catch_unwind(AssertUnwindSafe(|| theirs.get())).unwrap_err();
            *log.borrow_mut() = text(&*payload);
        });
        quiesce();
        assert!(
            refused.borrow().contains("cannot block at tests/it/sync/queue.rs"),
            "{refused:?}"
        );
    });
}

#[test]
fn one_item_is_seen_by_all_who_peek_and_got_by_one() {
    virtually(|| {
        let queue = Rc::new(Queue::unbounded());
        let peek = || green(&queue, |queue| queue.peek());
        let early = [peek(), peek()];
        let getters = [green(&queue, |queue| queue.get()), green(&queue, |queue| queue.get())];
        let late = peek();
        quiesce();
        early[1].kill();
        queue.put(1).unwrap();
        quiesce();
        let [first, killed] = early;
        assert_eq!(first.join().unwrap(), Ok(1));
        assert!(killed.join().unwrap_err().is_killed());
        assert!(!late.is_finished() && queue.is_empty());
        queue.put(2).unwrap();
        assert_eq!(getters.map(|getter| getter.join().unwrap()), [Ok(1), Ok(2)]);
        queue.put(3).unwrap();
        assert_eq!((late.join().unwrap(), queue.len()), (Ok(3), 1));
    });
}

#[test]
fn a_killed_getter_passes_its_item_on_and_a_killed_putter_its_place() {
    virtually(|| {
        let queue = Rc::new(Queue::bounded(1));
        let getters = [green(&queue, |queue| queue.get()), green(&queue, |queue| queue.get())];
        quiesce();
        getters[0].kill();
        queue.put(1).unwrap(); // for the first, which has not run yet
        assert_eq!(queue.try_get(), Err(TryGetError::Empty), "it is set aside");
        let [first, second] = getters;
        assert!(first.join().unwrap_err().is_killed());
        assert_eq!(second.join().unwrap(), Ok(1));
        // Put into a full queue whose only getter dies.
        let getter = green(&queue, |queue| queue.get());
        quiesce();
        getter.kill();
        queue.put(2).unwrap();
        let putter = green(&queue, |queue| queue.put(3));
        quiesce();
        assert!(getter.join().unwrap_err().is_killed() && !putter.is_finished());
        assert_eq!(queue.get(), Ok(2));
        putter.join().unwrap().unwrap();
        let putters = [4, 5].map(|n| green(&queue, move |queue| queue.put(n)));
        quiesce();
        putters[0].kill();
        quiesce();
        assert_eq!((queue.get(), queue.get()), (Ok(3), Ok(5)));
        let [killed, put] = putters;
        assert!(killed.join().unwrap_err().is_killed());
        put.join().unwrap().unwrap();
        // One that was let in at the moment of its kill has put its item.
        queue.put(6).unwrap();
        let putter = green(&queue, |queue| queue.put(7));
        quiesce();
        putter.kill();
        assert_eq!(queue.try_get(), Ok(6));
        assert!(putter.join().unwrap_err().is_killed());
        assert_eq!((queue.get(), queue.len()), (Ok(7), 0));
    });
}

#[test]
fn items_are_got_once_each_whoever_was_killed() {
    fn all<S: Store<(usize, u32)> + 'static>(make: fn() -> QueueOf<(usize, u32), S>) {
        virtually(move || {
            at_every_turn(
                || (make(), RefCell::new(Vec::new()), RefCell::new(Vec::new())),
                |n, (queue, put, got)| {
                    let log = |item: (usize, u32)| {
                        got.borrow_mut().push(item);
                        queue.task_done().unwrap();
                    };
                    for round in 0..4 {
                        if n < 2 || n == 2 && round % 2 == 0 {
                            queue.put((n, round)).unwrap();
                            put.borrow_mut().push((n, round));
                        } else if let Ok(item) = queue.get_timeout(ms(3)) {
                            log(item);
                        }
                        yield_now();
                    }
                    // Somebody must take what is left over, or the putters would wait for ever.
                    while n > 2 && put.borrow().len() < 8 {
                        let _ = queue.peek_timeout(ms(1));
                        let _ = queue.get_timeout(ms(1)).map(log);
                    }
                },
                |(queue, put, got)| {
                    for item in queue.try_iter() {
                        got.borrow_mut().push(item);
                        queue.task_done().unwrap();
                    }
                    assert!(queue.task_done().is_err());
                    let (mut put, mut got) = (put.take(), got.take());
                    put.sort_unstable();
                    got.sort_unstable();
                    // The victim may have been killed right after its item was let in.
                    got.retain(|item| item.0 != 2 || put.contains(item));
                    assert_eq!(put, got);
                },
            );
        });
    }
    all(|| Queue::bounded(1));
    all(|| LifoQueue::bounded(2));
    all(|| PriorityQueue::bounded(1));
    all(Queue::unbounded);
}

#[test]
fn an_item_that_came_in_time_is_taken_though_the_time_is_over() {
    virtually(|| {
        let queue = Rc::new(Queue::unbounded());
        let getter = green(&queue, |queue| queue.get_timeout(ms(5)));
        quiesce();
        let theirs = queue.clone();
        let putter = spawn_local(move || {
            sleep(ms(5));
            theirs.put(1).unwrap();
        });
        let got = getter.join().unwrap();
        putter.join().unwrap();
        // Both were due at once; whichever won, the item is there or was got.
        assert_eq!(got.is_ok(), queue.is_empty());
        // A time-out of nothing around a wait, and one that fires outside of it.
        queue.try_iter().for_each(drop);
        assert!(timeout(ms(0), || queue.get()).is_err());
        assert_eq!(queue.get_timeout(ms(0)), Err(GetTimeoutError::Timeout));
        assert!(
            timeout(ms(2), || queue.get_timeout(ms(50))).is_err(),
            "the outer one, by its own name"
        );
        queue.put(2).unwrap();
        assert_eq!(queue.get(), Ok(2), "no trace of those");
    });
}

#[test]
fn a_join_waits_for_what_was_got_too() {
    virtually(|| {
        let queue = Rc::new(Queue::unbounded());
        queue.join();
        assert!(queue.task_done().is_err());
        queue.put(1).unwrap();
        queue.put(2).unwrap();
        let joiners = [green(&queue, Queue::join), green(&queue, Queue::join)];
        assert_eq!((queue.get(), queue.get()), (Ok(1), Ok(2)));
        assert!(!queue.join_timeout(ms(1)));
        queue.task_done().unwrap();
        let soon = greenthread::time::now() + ms(1);
        assert!(!queue.join_deadline(soon) && joiners.iter().all(|joiner| !joiner.is_finished()));
        queue.task_done().unwrap();
        queue.put(3).unwrap(); // those who waited go on all the same
        joiners.into_iter().for_each(|joiner| joiner.join().unwrap());
        assert!(queue.task_done().is_ok() && queue.join_timeout(ms(0)));
        assert!(queue.task_done().unwrap_err().to_string().contains("more often"));
    });
}

#[test]
fn a_shutdown_tells_everybody_and_leaves_what_is_there() {
    virtually(|| {
        let queue = Rc::new(Queue::bounded(2));
        [1, 2].into_iter().for_each(|n| queue.put(n).unwrap());
        let putters = [3, 4].map(|n| green(&queue, move |queue| queue.put(n)));
        let joiner = green(&queue, Queue::join);
        quiesce();
        queue.shutdown(false);
        assert!(queue.is_shut_down());
        assert_eq!(
            putters.map(|putter| putter.join().unwrap()),
            [Err(PutError(3)), Err(PutError(4))]
        );
        assert_eq!(queue.put(5), Err(PutError(5)));
        assert_eq!(queue.try_put(5), Err(TryPutError::ShutDown(5)));
        assert_eq!(queue.put_timeout(5, ms(1)), Err(PutTimeoutError::ShutDown(5)));
        assert_eq!(
            (queue.iter().collect::<Vec<_>>(), queue.get()),
            (vec![1, 2], Err(GetError))
        );
        assert_eq!(
            (queue.peek(), queue.try_get()),
            (Err(GetError), Err(TryGetError::ShutDown))
        );
        assert_eq!(queue.get_timeout(ms(1)), Err(GetTimeoutError::ShutDown));
        assert!(!joiner.is_finished(), "two are not done");
        (0..2).for_each(|_| queue.task_done().unwrap());
        joiner.join().unwrap();

        let queue = Rc::new(Queue::<u8>::unbounded());
        let getters = [green(&queue, |queue| queue.get()), green(&queue, |queue| queue.peek())];
        let ends = green(&queue, |queue| queue.iter().count());
        quiesce();
        queue.shutdown(false);
        assert_eq!(getters.map(|getter| getter.join().unwrap()), [Err(GetError); 2]);
        assert_eq!(ends.join().unwrap(), 0);
    });
}

#[test]
fn a_shutdown_at_once_drops_what_is_there_and_lets_joiners_go() {
    virtually(|| {
        let item = Rc::new(());
        let queue = Rc::new(Queue::bounded(2));
        (0..2).for_each(|_| queue.put(item.clone()).unwrap());
        let got = queue.get().unwrap();
        queue.put(item.clone()).unwrap();
        let theirs = item.clone();
        let putter = green(&queue, move |queue| queue.put(theirs).is_err());
        let joiner = green(&queue, Queue::join);
        quiesce();
        queue.shutdown(true);
        assert!(putter.join().unwrap());
        assert_eq!(
            (queue.len(), Rc::strong_count(&item)),
            (0, 2),
            "but for the one that was got"
        );
        drop(got);
        quiesce();
        assert!(!joiner.is_finished(), "that one is not done");
        queue.task_done().unwrap();
        joiner.join().unwrap();
        assert!(queue.task_done().is_err());
        let queue = Rc::new(Queue::unbounded());
        let getter = green(&queue, |queue| queue.get());
        quiesce();
        queue.put(1).unwrap(); // on its way to the getter, when
        queue.shutdown(true);
        assert_eq!(getter.join().unwrap(), Err(GetError));
        assert!(queue.join_timeout(ms(0)));
    });
}

#[test]
fn after_a_shutdown_the_item_of_a_killed_getter_is_not_left_behind() {
    virtually(|| {
        let queue = Rc::new(Queue::unbounded());
        let victim = green(&queue, |queue| queue.get());
        quiesce();
        victim.kill();
        queue.put(1).unwrap();
        queue.shutdown(false);
        let next = green(&queue, |queue| queue.get());
        quiesce();
        assert!(victim.join().unwrap_err().is_killed());
        assert_eq!(next.join().unwrap(), Ok(1));
    });
    virtually(|| {
        let queue = Queue::unbounded();
        let mut context = Context::from_waker(Waker::noop());
        let mut victim = Box::pin(queue.get_async());
        assert!(victim.as_mut().poll(&mut context).is_pending());
        queue.put(1).unwrap();
        queue.shutdown(false);
        let mut next = Box::pin(queue.get_async());
        assert!(
            next.as_mut().poll(&mut context).is_pending(),
            "there is one, and it may come back"
        );
        assert_eq!(queue.try_get(), Err(TryGetError::Empty));
        drop(victim);
        assert!(is_ready(next.as_mut().poll(&mut context), |item| item == Ok(1)));
    });
}

fn is_ready<T>(poll: Poll<T>, f: impl FnOnce(T) -> bool) -> bool {
    matches!(poll.map(f), Poll::Ready(true))
}

#[test]
fn futures_dropped_anywhere_leave_no_trace() {
    fresh(|| {
        let mut context = Context::from_waker(Waker::noop());
        let item = Rc::new(());
        let queue = Queue::bounded(1);
        drop(queue.put_async(item.clone()));
        assert_eq!((queue.len(), Rc::strong_count(&item)), (0, 1), "never polled");
        let mut put = Box::pin(queue.put_async(item.clone()));
        assert!(is_ready(put.as_mut().poll(&mut context), |put| put.is_ok()));
        let [mut first, mut second] = [(); 2].map(|()| Box::pin(queue.put_async(item.clone())));
        for put in [&mut first, &mut second] {
            assert!(put.as_mut().poll(&mut context).is_pending());
        }
        drop(first); // in line
        drop(queue.try_get().unwrap());
        assert_eq!(Rc::strong_count(&item), 2);
        drop(second); // let in, and not told yet: the item stays
        assert_eq!((queue.len(), Rc::strong_count(&item)), (1, 2));
        assert!(queue.try_get().is_ok());

        let polls = |future: Pin<&mut dyn Future<Output = bool>>| {
            assert!(future.poll(&mut Context::from_waker(Waker::noop())).is_pending());
        };
        let mut waits = [(); 2].map(|()| Box::pin(async { queue.get_async().await.is_ok() }));
        waits.iter_mut().for_each(|wait| polls(wait.as_mut()));
        let mut peeks = Box::pin(async { queue.peek_async().await.is_ok() });
        polls(peeks.as_mut());
        queue.put(item.clone()).unwrap();
        drop(waits); // the first had it, then the second
        assert!(is_ready(peeks.as_mut().poll(&mut context), |seen| seen));
        assert_eq!(queue.len(), 1);
        let mut join = Box::pin(queue.join_async());
        assert!(join.as_mut().poll(&mut context).is_pending());
        drop(join);
    });
}

#[test]
fn between_hubs_os_threads_and_executors() {
    fn all<S: Store<u64> + Send + 'static>(make: fn() -> QueueOf<u64, S>) {
        fresh(move || {
            let (jobs, results) = (Arc::new(make()), Arc::new(Queue::<u64>::unbounded()));
            let workers: Vec<_> = (0..4)
                .map(|n| {
                    let (jobs, results) = (jobs.clone(), results.clone());
                    std::thread::spawn(move || match n {
                        0 => jobs.iter().for_each(|job| {
                            results.put(job).unwrap();
                            jobs.task_done().unwrap();
                        }),
                        1 => outside(async {
                            while let Ok(job) = jobs.get_async().await {
                                results.put_async(job).await.unwrap();
                                jobs.task_done().unwrap();
                            }
                        }),
                        _ => {
                            let green = (0..3).map(|_| {
                                let (jobs, results) = (jobs.clone(), results.clone());
                                spawn(move || {
                                    for job in &*jobs {
                                        results.put(job).unwrap();
                                        jobs.task_done().unwrap();
                                    }
                                })
                            });
                            join_all(green.collect());
                        }
                    })
                })
                .collect();
            for n in 0..3_000 {
                if n % 2 == 0 {
                    jobs.put(n).unwrap();
                } else {
                    block_on(jobs.put_async(n)).unwrap();
                }
            }
            outside(jobs.join_async());
            assert!(jobs.is_empty() && jobs.join_timeout(ms(0)));
            jobs.shutdown(false);
            workers.into_iter().for_each(|worker| worker.join().unwrap());
            let mut all: Vec<_> = results.try_iter().collect();
            all.sort_unstable();
            assert_eq!(all, (0..3_000).collect::<Vec<_>>());
        });
    }
    all(|| Queue::bounded(3));
    all(|| LifoQueue::bounded(3));
    all(|| PriorityQueue::bounded(3));
}

/// Whose comparisons do what the test says, for a while.
#[derive(Clone, Debug)]
struct Moody(u32, Mood);

type Mood = Rc<Cell<Option<fn()>>>;

impl Moody {
    fn act(&self) {
        if let Some(act) = self.1.get() {
            act();
        }
    }
}

impl PartialEq for Moody {
    fn eq(&self, other: &Moody) -> bool {
        self.0 == other.0
    }
}

impl Eq for Moody {}

impl PartialOrd for Moody {
    fn partial_cmp(&self, other: &Moody) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Moody {
    fn cmp(&self, other: &Moody) -> Ordering {
        self.act();
        self.0.cmp(&other.0)
    }
}

#[test]
fn an_order_that_panics_or_blocks_fails_its_caller_and_loses_nothing_else() {
    virtually(|| {
        let mood = Rc::new(Cell::new(None));
        let queue = Rc::new(PriorityQueue::bounded(4));
        let item = |n: u32| Moody(n, mood.clone());
        [3, 1, 2].into_iter().for_each(|n| queue.put(item(n)).unwrap());
        let failing = |f: &dyn Fn()| text(&*catch_unwind(AssertUnwindSafe(f)).unwrap_err());
        mood.set(Some(|| panic!("on purpose")));
        assert_eq!(failing(&|| drop(queue.get())), "on purpose");
        assert_eq!(queue.len(), 3, "the item stays");
        assert_eq!(failing(&|| drop(queue.try_put(item(0)))), "on purpose");
        assert_eq!(queue.len(), 4, "this one too");
        mood.set(Some(|| sleep(ms(1))));
        assert!(failing(&|| drop(queue.try_get())).contains("cannot block"));
        mood.set(None);
        let mut left: Vec<_> = queue.try_iter().map(|item| item.0).collect();
        left.sort_unstable();
        assert_eq!(left, [0, 1, 2, 3]);
        // A getter is told of an item though its order failed.
        let getters = [green(&queue, |queue| queue.get()), green(&queue, |queue| queue.get())];
        quiesce();
        queue.put(item(5)).unwrap();
        mood.set(Some(|| panic!("on purpose")));
        assert_eq!(failing(&|| drop(queue.put(item(4)))), "on purpose");
        mood.set(None);
        let mut got = getters.map(|getter| getter.join().unwrap().unwrap().0);
        got.sort_unstable();
        assert_eq!(got, [4, 5]);
    });
}

#[test]
fn a_clone_that_panics_leaves_the_item_to_the_next_in_line() {
    #[derive(Debug)]
    struct Shy(Rc<Cell<bool>>);
    impl Clone for Shy {
        fn clone(&self) -> Shy {
            assert!(!self.0.get(), "on purpose");
            Shy(self.0.clone())
        }
    }
    virtually(|| {
        let (queue, shy) = (Rc::new(Queue::unbounded()), Rc::new(Cell::new(true)));
        let peeks = green(&queue, |queue| queue.peek());
        let gets = green(&queue, |queue| queue.get().is_ok());
        quiesce();
        queue.put(Shy(shy.clone())).unwrap();
        assert!(peeks.join().unwrap_err().is_panic());
        assert!(gets.join().unwrap());
    });
}

#[test]
fn queues_may_go_where_they_should() {
    fn is<T: Send + Sync + std::fmt::Debug>() {}
    is::<(Queue<Cell<u8>>, LifoQueue<Cell<u8>>, PriorityQueue<u8>)>();
    fn sends<T: Send>(_: T) {}
    static QUEUE: Queue<u8> = Queue::bounded(1);
    sends((
        QUEUE.put_async(1),
        QUEUE.get_async(),
        QUEUE.peek_async(),
        QUEUE.join_async(),
    ));
    assert_eq!(
        format!("{QUEUE:?}"),
        "Queue { len: 0, capacity: Some(1), is_shut_down: false, .. }"
    );
    // What is not `Unpin` may be put by a future, too.
    let pinned = Queue::<std::marker::PhantomPinned>::unbounded();
    outside(pinned.put_async(std::marker::PhantomPinned)).unwrap();
}
