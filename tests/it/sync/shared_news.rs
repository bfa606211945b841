//! Notices, watched values, broadcasts; permits by the dozen; barriers that break.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Poll;

use greenthread::sync::{Barrier, Notify, OwnedPermit, RwLock, Semaphore, broadcast, watch};
use greenthread::{future, select, sleep, spawn, thread, time, timeout, yield_now};

use super::choice::later;
use crate::support::fresh::{fresh, ms, secs, text, virtually};

#[test]
fn a_notice_for_one_wakes_one_in_order_and_one_is_kept() {
    fresh(|| {
        let notify = Arc::new(Notify::new());
        let (sender, order) = greenthread::sync::channel::unbounded();
        for n in 0..3 {
            let (notify, sender) = (notify.clone(), sender.clone());
            spawn(move || {
                notify.wait();
                sender.send(n).unwrap();
            });
        }
        yield_now();
        notify.notify_one();
        notify.notify_one();
        assert_eq!([order.recv().unwrap(), order.recv().unwrap()], [0, 1]);
        assert!(order.try_recv().is_err());
        notify.notify_one();
        assert_eq!(order.recv(), Ok(2));
        // Two that nothing waits for are one.
        notify.notify_one();
        notify.notify_one();
        notify.wait();
        assert!(!notify.wait_timeout(ms(1)));
    });
}

#[test]
fn a_notice_for_all_is_for_those_that_wait_now() {
    fresh(|| {
        let notify = Arc::new(Notify::new());
        let waiters: Vec<_> = (0..3)
            .map(|_| {
                let notify = notify.clone();
                spawn(move || notify.wait())
            })
            .collect();
        yield_now();
        notify.notify_all();
        assert!(!notify.wait_timeout(ms(1)), "it is not kept");
        waiters.into_iter().for_each(|waiter| waiter.join().unwrap());
        notify.notify_all();
        assert!(!notify.wait_timeout(ms(1)), "nothing waited");
    });
}

#[test]
fn a_notice_that_a_waiter_leaves_goes_to_the_next_but_one_for_all_does_not() {
    fresh(|| {
        for all in [false, true] {
            let notify = Notify::new();
            let mut waits = Box::pin(notify.wait_async());
            future::block_on(poll_fn(|context| {
                assert!(waits.as_mut().poll(context).is_pending());
                Poll::Ready(())
            }));
            if all {
                notify.notify_all();
            } else {
                notify.notify_one();
            }
            assert!(!notify.wait_timeout(ms(1)), "the first in line has it");
            drop(waits);
            assert_eq!(notify.wait_timeout(ms(1)), !all);
        }
    });
}

#[test]
fn a_select_takes_no_notice_for_a_branch_that_loses() {
    fresh(|| {
        let (notify, ready) = (Notify::new(), Notify::new());
        for _ in 0..50 {
            notify.notify_one();
            ready.notify_one();
            let won = select! {
                wait(notify) => 0,
                wait(ready) => 1,
            };
            assert_eq!(
                (notify.wait_timeout(ms(0)), ready.wait_timeout(ms(0))),
                (won == 1, won == 0)
            );
        }
    });
}

#[test]
fn a_watched_value_skips_what_came_between_and_ends_with_its_senders() {
    fresh(|| {
        let (sender, mut receiver) = watch::channel(0);
        assert!(!receiver.has_changed());
        sender.send(1).unwrap();
        sender.send(2).unwrap();
        assert_eq!(
            (receiver.has_changed(), *receiver.peek(), receiver.has_changed()),
            (true, 2, true)
        );
        receiver.changed().unwrap();
        assert_eq!((*receiver.get(), receiver.has_changed()), (2, false));
        // A change before the wait, which nothing waited for, must not end the wait.
        assert!(receiver.changed_timeout(ms(1)).is_err());
        let mut late = receiver.clone();
        let waiter = spawn(move || (late.changed().map(|()| *late.get()), late.changed().is_err()));
        yield_now();
        sender.modify(|value| *value += 1);
        yield_now();
        drop(sender);
        assert_eq!(waiter.join().unwrap(), (Ok(3), true));
        assert!(receiver.changed().is_ok() && receiver.changed().is_err());
    });
}

#[test]
fn a_watch_sender_learns_that_all_receivers_are_gone() {
    fresh(|| {
        let (sender, receiver) = watch::channel(String::from("a"));
        let second = sender.subscribe();
        let closed = spawn(move || {
            sender.closed();
            (sender.send(String::from("b")).unwrap_err().0, sender.receiver_count())
        });
        yield_now();
        drop(receiver);
        yield_now();
        assert!(!closed.is_finished());
        drop(second);
        assert_eq!(closed.join().unwrap(), (String::from("b"), 0));
    });
}

#[test]
fn a_watched_value_is_seen_from_other_os_threads_and_futures() {
    fresh(|| {
        let (sender, mut receiver) = watch::channel(0);
        let changer = std::thread::spawn(move || {
            for n in 1..=1000 {
                sender.modify(|value| *value = n);
            }
        });
        let last = future::block_on(async {
            let mut last = 0;
            while receiver.changed_async().await.is_ok() {
                let value = *receiver.get();
                assert!(value > last || value == 1000);
                last = value;
            }
            last
        });
        changer.join().unwrap();
        assert_eq!(last, 1000);
    });
}

#[test]
fn each_receiver_of_a_broadcast_gets_each_message() {
    fresh(|| {
        let (sender, mut first) = broadcast::channel(4);
        let mut second = sender.subscribe();
        assert_eq!(sender.send("a"), Ok(2));
        let mut late = sender.subscribe();
        sender.send("b").unwrap();
        assert_eq!((first.len(), late.len()), (2, 1));
        assert_eq!([first.recv(), first.recv(), late.recv()], [Ok("a"), Ok("b"), Ok("b")]);
        assert_eq!(first.try_recv(), Err(broadcast::TryRecvError::Empty));
        assert_eq!(first.recv_timeout(ms(1)), Err(broadcast::TryRecvError::Empty));
        drop(sender);
        assert_eq!(second.iter().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(late.recv(), Err(broadcast::RecvError::Closed));
    });
}

#[test]
fn a_receiver_that_is_too_slow_is_told_what_it_missed() {
    fresh(|| {
        let (sender, mut receiver) = broadcast::channel(3);
        for n in 0..10 {
            sender.send(n).unwrap();
        }
        assert_eq!(receiver.recv(), Err(broadcast::RecvError::Lagged(7)));
        assert_eq!([receiver.recv(), receiver.recv()], [Ok(7), Ok(8)]);
        let waiter = spawn(move || (receiver.recv(), receiver.recv()));
        yield_now();
        sender.send(10).unwrap();
        assert_eq!(waiter.join().unwrap(), (Ok(9), Ok(10)));
        assert_eq!(sender.send(11).unwrap_err().0, 11);
    });
}

#[test]
fn a_broadcast_loses_nothing_to_a_kill_or_to_another_branch() {
    virtually(|| {
        let (sender, mut receiver) = broadcast::channel(100);
        assert!(timeout(secs(1), || receiver.recv()).is_err());
        sender.send(1).unwrap();
        let other = Notify::new();
        let mut got = Vec::new();
        for _ in 0..20 {
            other.notify_one();
            select! {
                future(receiver.recv_async()) -> message => got.push(message.unwrap()),
                wait(other) => {},
            }
            if got.len() == 1 {
                break;
            }
        }
        got.extend(receiver.try_recv());
        assert_eq!(got, [1]);
    });
}

#[test]
fn permits_by_the_dozen_are_not_overtaken() {
    virtually(|| {
        let permits = Arc::new(Semaphore::new(10));
        let some = permits.acquire_many_owned(8);
        assert_eq!((some.count(), permits.available()), (8, 2));
        let theirs = permits.clone();
        let big = spawn(move || theirs.acquire_many(5).count());
        yield_now();
        // Two are free, but the one in line comes first.
        assert!(permits.try_acquire().is_none() && permits.acquire_timeout(ms(1)).is_none());
        let theirs = permits.clone();
        let small = spawn(move || drop(theirs.acquire()));
        yield_now();
        assert!(!big.is_finished() && !small.is_finished());
        drop(some);
        assert_eq!(big.join().unwrap(), 5);
        small.join().unwrap();
        assert_eq!(permits.available(), 10);
        // One that wants many and gives up lets those behind it go on.
        let nine: OwnedPermit = permits.acquire_many_owned(9);
        let theirs = permits.clone();
        let big = spawn(move || theirs.acquire_many_timeout(5, secs(1)).is_none());
        yield_now();
        let theirs = permits.clone();
        let small = spawn(move || drop(theirs.acquire()));
        let start = time::now();
        small.join().unwrap();
        assert_eq!((big.join().unwrap(), time::now() - start), (true, secs(1)));
        drop(nine);
        assert_eq!(permits.available(), 10);
    });
}

#[test]
fn a_closed_semaphore_tells_all_that_wait_and_all_that_come() {
    fresh(|| {
        let permits = Arc::new(Semaphore::new(1));
        let held = permits.acquire_owned();
        let waiters: Vec<_> = (0..3)
            .map(|_| {
                let permits = permits.clone();
                spawn(move || permits.checked_acquire().is_err())
            })
            .collect();
        yield_now();
        permits.close();
        assert!(waiters.into_iter().all(|waiter| waiter.join().unwrap()));
        assert!(permits.is_closed() && permits.try_acquire().is_none() && permits.acquire_timeout(ms(1)).is_none());
        drop(held);
        assert!(permits.try_acquire_owned().is_none());
        assert!(future::block_on(permits.checked_acquire_async()).is_err());
        let panicked = catch_unwind(AssertUnwindSafe(|| drop(permits.acquire())));
        assert!(text(&*panicked.unwrap_err()).contains("closed"));
    });
}

#[test]
fn a_barrier_breaks_and_mends() {
    virtually(|| {
        let barrier = Arc::new(Barrier::new(3));
        let wait = |barrier: &Arc<Barrier>| {
            let barrier = barrier.clone();
            spawn(move || barrier.checked_wait().is_ok())
        };
        for resets in [false, true] {
            let two = [wait(&barrier), wait(&barrier)];
            yield_now();
            if resets {
                barrier.reset();
            } else {
                barrier.abort();
            }
            assert_eq!(two.map(|one| one.join().unwrap()), [false; 2]);
            assert_eq!(barrier.is_broken(), !resets);
            assert!(resets || barrier.checked_wait().is_err());
            barrier.reset();
            let three = [wait(&barrier), wait(&barrier), wait(&barrier)];
            assert_eq!(three.map(|one| one.join().unwrap()), [true; 3]);
        }
        // Those that have met are not told of an abort that comes before they run.
        let two = [wait(&barrier), wait(&barrier)];
        yield_now();
        barrier.wait();
        barrier.abort();
        assert_eq!(two.map(|one| one.join().unwrap()), [true; 2]);
        barrier.reset();
        let start = time::now();
        assert!(barrier.wait_timeout(secs(1)).is_none());
        assert_eq!(time::now() - start, secs(1));
        // It does not count as arrived.
        let two = [wait(&barrier), wait(&barrier)];
        sleep(secs(1));
        assert!(!two.iter().any(thread::JoinHandle::is_finished));
        barrier.wait();
        assert_eq!(two.map(|one| one.join().unwrap()), [true; 2]);
    });
}

#[test]
fn news_for_all_reaches_a_select_that_looks_elsewhere() {
    virtually(|| {
        for _ in 0..20 {
            let notify = Notify::new();
            select! {
                wait(notify) => {},
                future(later(|| notify.notify_all())) => unreachable!(),
                after(secs(1)) => panic!("missed"),
            }
            assert!(!notify.wait_timeout(ms(0)), "it is not kept");
            let barrier = Barrier::new(2);
            select! {
                future(barrier.checked_wait_async()) -> met => assert!(met.is_err()),
                future(later(|| barrier.reset())) => unreachable!(),
                after(secs(1)) => panic!("missed"),
            }
            assert!(barrier.wait_timeout(ms(1)).is_none(), "it is as new");
        }
    });
}

#[test]
fn a_notice_for_all_reaches_a_future_that_was_made_before() {
    fresh(|| {
        let notify = Notify::new();
        let (early, also) = (notify.wait_async(), notify.wait_async());
        notify.notify_all();
        let late = notify.wait_async();
        future::block_on(early);
        notify.notify_one();
        // It needs no notice for one.
        future::block_on(also);
        future::block_on(late);
        assert!(!notify.wait_timeout(ms(1)));
    });
}

/// Looks at the watch that it was in when it is dropped.
struct Looks(u32, Option<watch::Sender<Looks>>);

impl Clone for Looks {
    fn clone(&self) -> Looks {
        Looks(self.0, self.1.clone())
    }
}

impl Drop for Looks {
    fn drop(&mut self) {
        self.1.iter().for_each(|sender| assert_eq!(sender.receiver_count(), 1));
    }
}

#[test]
fn a_watched_value_that_came_too_late_is_dropped_without_the_lock() {
    fresh(|| {
        let (sender, mut receiver) = watch::channel(Looks(0, None));
        let mut is_first = true;
        sender.modify(|value| {
            // Another one comes in between, so this one is tried again.
            if std::mem::take(&mut is_first) {
                drop(sender.replace(Looks(10, None)));
            }
            value.0 += 1;
            value.1 = Some(sender.clone());
        });
        assert_eq!(receiver.get().0, 11);
        // The value owns a sender of its own watch.
        drop(sender.replace(Looks(0, None)));
    });
}

#[test]
fn what_is_lost_and_wants_more_than_there_is_holds_nothing_up() {
    fn lose(f: impl FnOnce() + Send + 'static) {
        std::thread::spawn(|| {
            spawn(f);
            yield_now(); // it waits now
        })
        .join()
        .unwrap();
    }
    fresh(|| {
        let permits = Arc::new(Semaphore::new(10));
        let _five = permits.acquire_many(5);
        let theirs = permits.clone();
        lose(move || drop(theirs.acquire_many(8)));
        assert!(permits.acquire_timeout(ms(500)).is_some());
        let theirs = permits.clone();
        lose(move || {
            future::block_on(async { drop(theirs.acquire_many_async(8).await) });
        });
        assert!(permits.acquire_timeout(ms(500)).is_some());
        let lock = Arc::new(RwLock::new(0));
        let _reads = lock.read().unwrap();
        let theirs = lock.clone();
        lose(move || drop(theirs.write()));
        assert!(lock.read_timeout(ms(500)).is_ok());
    });
}

#[test]
fn a_closed_semaphore_counts_what_was_granted_before() {
    virtually(|| {
        let permits = Arc::new(Semaphore::new(1));
        let held = permits.acquire();
        let theirs = permits.clone();
        let waits = spawn(move || theirs.checked_acquire().is_err());
        yield_now();
        drop(held); // to the one that waits, which has not run when the semaphore is closed
        permits.close();
        assert!(waits.join().unwrap());
        assert_eq!(permits.available(), 1);
    });
}
