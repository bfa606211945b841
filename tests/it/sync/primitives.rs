//! Locks, semaphores, events and channels: what they promise, from green threads, OS threads and futures, and what is
//! left when a waiter is killed or timed out at any moment.

use std::cell::Cell;
use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, TryLockError};

use futures::executor::block_on as outside;
use greenthread::future::block_on;
use greenthread::sync::channel::{self, RecvTimeoutError, SendTimeoutError, TryRecvError, TrySendError};
use greenthread::sync::{Barrier, BoundedSemaphore, Condvar, Event, Mutex, RwLock, Semaphore};
use greenthread::time::Timeout;
use greenthread::{sleep, spawn, spawn_local, timeout, yield_now};

use super::turns::{at_every_turn, join_all};
use crate::support::counted::Counted;
use crate::support::fresh::{ms, virtually};

#[test]
fn a_mutex_is_free_whoever_was_killed_in_its_line() {
    virtually(|| {
        at_every_turn(
            || (Mutex::new(0), Cell::new(0)),
            |_, (mutex, done)| {
                for _ in 0..5 {
                    let mut held = mutex.lock().unwrap();
                    let before = *held;
                    sleep(ms(1));
                    *held = before + 1;
                    done.set(done.get() + 1);
                }
            },
            |(mutex, done)| {
                assert!(!mutex.is_locked() && !mutex.is_poisoned());
                assert_eq!(*mutex.try_lock().unwrap(), done.get());
                assert!(done.get() >= 20);
            },
        );
    });
}

#[test]
fn a_mutex_goes_round_in_order_and_nobody_overtakes() {
    virtually(|| {
        let (mutex, order) = (Rc::new(Mutex::new(())), Rc::new(Mutex::new(Vec::new())));
        let held = mutex.lock().unwrap();
        let waiters: Vec<_> = (0..10)
            .map(|n| {
                let (mutex, order) = (mutex.clone(), order.clone());
                spawn_local(move || {
                    let _held = mutex.lock().unwrap();
                    order.lock().unwrap().push(n);
                    yield_now();
                })
            })
            .collect();
        yield_now();
        drop(held);
        assert!(
            matches!(mutex.try_lock(), Err(TryLockError::WouldBlock)),
            "it is on its way to the first"
        );
        join_all(waiters);
        assert_eq!(*order.lock().unwrap(), (0..10).collect::<Vec<_>>());
    });
}

#[test]
fn a_kill_or_time_out_that_unwinds_through_the_time_out_of_another_poisons_nothing() {
    let lock = || Arc::new(Mutex::new(()));
    let inner = |mutex: &Mutex<()>| {
        let _held = mutex.lock().unwrap();
        let _ = timeout(ms(60_000), || sleep(ms(60_000)));
    };
    let (killed, late, armed) = (lock(), lock(), lock());
    let theirs = killed.clone();
    let holder = spawn(move || inner(&theirs));
    yield_now();
    holder.kill();
    assert!(holder.join().unwrap_err().is_killed());
    assert!(timeout(ms(5), || inner(&late)).is_err());
    let outside = timeout(ms(5), || {
        let _held = armed.lock().unwrap();
        let _armed = Timeout::new(ms(60_000));
        sleep(ms(60_000));
    });
    assert!(outside.is_err());
    for mutex in [killed, late, armed] {
        assert!(!mutex.is_poisoned());
    }
}

#[test]
fn a_panic_poisons_and_a_kill_does_not() {
    let mutex = Arc::new(Mutex::new(1));
    let theirs = mutex.clone();
    let killed = spawn_local(move || {
        let _held = theirs.lock().unwrap();
        sleep(ms(3_600_000));
    });
    yield_now();
    killed.kill();
    assert!(killed.join().unwrap_err().is_killed());
    assert!(!mutex.is_poisoned());
    let theirs = mutex.clone();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _held = theirs.lock().unwrap();
        std::panic::resume_unwind(Box::new("on purpose"));
    }));
    assert!(panicked.is_err() && mutex.is_poisoned());
    assert_eq!(**mutex.lock().unwrap_err().get_ref(), 1);
    mutex.clear_poison();
    assert_eq!(*mutex.lock().unwrap(), 1);
    let lock = RwLock::new(2);
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _held = lock.write().unwrap();
        std::panic::resume_unwind(Box::new("on purpose"));
    }));
    assert!(panicked.is_err() && lock.is_poisoned());
}

#[test]
fn time_outs_say_so_and_take_what_was_handed_over_in_time() {
    virtually(|| {
        let mutex = Rc::new(Mutex::new(()));
        let held = mutex.lock().unwrap();
        assert!(matches!(mutex.lock_timeout(ms(5)), Err(TryLockError::WouldBlock)));
        drop(held);
        drop(mutex.lock_timeout(ms(5)).unwrap());
        let event = Event::new();
        assert!(!event.wait_timeout(ms(5)));
        event.set();
        assert!(event.wait_timeout(ms(0)) && event.is_set());
        event.clear();
        assert!(!event.is_set());
        let semaphore = Semaphore::new(0);
        assert!(semaphore.acquire_timeout(ms(5)).is_none() && semaphore.try_acquire().is_none());
        semaphore.add(1);
        assert!(semaphore.acquire_deadline(greenthread::time::now()).is_some());
        let (sender, receiver) = channel::bounded(1);
        assert_eq!(receiver.recv_timeout(ms(5)), Err(RecvTimeoutError::Timeout));
        sender.send(1).unwrap();
        assert_eq!(sender.send_timeout(2, ms(5)), Err(SendTimeoutError::Timeout(2)));
        assert_eq!(sender.try_send(3), Err(TrySendError::Full(3)));
        assert_eq!(
            (receiver.recv(), receiver.try_recv()),
            (Ok(1), Err(TryRecvError::Empty))
        );
        let lock = RwLock::new(());
        let read = lock.read().unwrap();
        assert!(lock.write_timeout(ms(5)).is_err() && lock.try_write().is_err());
        assert!(lock.write_deadline(greenthread::time::now() + ms(5)).is_err());
        drop(lock.read_timeout(ms(5)).unwrap());
        drop(lock.read_deadline(greenthread::time::now()).unwrap());
        drop(read);
        let write = lock.write().unwrap();
        assert!(lock.read_timeout(ms(5)).is_err() && lock.try_read().is_err());
        drop(write);
    });
}

#[test]
fn permits_are_all_there_whoever_was_killed() {
    virtually(|| {
        at_every_turn(
            || (Semaphore::new(2), Cell::new(0_usize)),
            |_, (semaphore, inside)| {
                for _ in 0..5 {
                    let _permit = semaphore.acquire();
                    struct Leaves<'a>(&'a Cell<usize>);
                    impl Drop for Leaves<'_> {
                        fn drop(&mut self) {
                            self.0.set(self.0.get() - 1);
                        }
                    }
                    inside.set(inside.get() + 1);
                    let _leaves = Leaves(inside);
                    assert!(inside.get() <= 2);
                    sleep(ms(1));
                }
            },
            |(semaphore, inside)| assert_eq!((semaphore.available(), inside.get()), (2, 0)),
        );
        let bounded = BoundedSemaphore::new(1);
        bounded.acquire().forget();
        assert_eq!(bounded.available(), 0);
        bounded.release().unwrap();
        assert!(bounded.release().unwrap_err().to_string().contains("more often"));
        assert_eq!(bounded.available(), 1);
        let permit = bounded.acquire();
        bounded.release().unwrap();
        drop(permit);
        assert_eq!(bounded.available(), 1, "given back twice, it is there once");
    });
}

#[test]
fn readers_together_writers_alone_whoever_was_killed() {
    virtually(|| {
        at_every_turn(
            || (RwLock::new(0), Cell::new((0_usize, 0_usize))),
            |n, (lock, inside)| {
                struct Leaves<'a>(&'a Cell<(usize, usize)>, (usize, usize));
                impl Drop for Leaves<'_> {
                    fn drop(&mut self) {
                        let (readers, writers) = self.0.get();
                        self.0.set((readers - self.1.0, writers - self.1.1));
                    }
                }
                for round in 0..5 {
                    let (readers, writers) = inside.get();
                    if (n + round) % 3 == 0 {
                        let mut value = lock.write().unwrap();
                        assert_eq!(inside.get(), (0, 0));
                        inside.set((0, 1));
                        let _leaves = Leaves(inside, (0, 1));
                        sleep(ms(1));
                        *value += 1;
                    } else {
                        let _value = lock.read().unwrap();
                        assert_eq!(inside.get().1, 0);
                        inside.set((inside.get().0 + 1, 0));
                        let _leaves = Leaves(inside, (1, 0));
                        sleep(ms(1));
                    }
                    let _ = (readers, writers);
                }
            },
            |(lock, inside)| {
                assert_eq!(inside.get(), (0, 0));
                drop(lock.try_write().unwrap());
            },
        );
    });
}

#[test]
fn a_writer_that_waits_is_not_kept_waiting_by_new_readers() {
    virtually(|| {
        let lock = Rc::new(RwLock::new(Vec::new()));
        let first = lock.read().unwrap();
        let theirs = lock.clone();
        let writer = spawn_local(move || theirs.write().unwrap().push(1));
        yield_now();
        let theirs = lock.clone();
        let reader = spawn_local(move || theirs.read().unwrap().len());
        yield_now();
        assert!(!reader.is_finished() && lock.try_read().is_err());
        drop(first);
        writer.join().unwrap();
        assert_eq!(reader.join().unwrap(), 1);
    });
}

#[test]
fn messages_arrive_once_each_whoever_was_killed() {
    for capacity in [0, 1, 3, usize::MAX] {
        virtually(move || {
            at_every_turn(
                || {
                    let (sender, receiver) = if capacity == usize::MAX {
                        channel::unbounded()
                    } else {
                        channel::bounded(capacity)
                    };
                    let sent = Rc::new(Cell::new(0));
                    (sender, receiver, sent, Cell::new(0), Cell::new(0))
                },
                |n, (sender, receiver, sent, received, ended)| {
                    for round in 0..4 {
                        if n == 0 || n == 1 || n == 2 && round % 2 == 0 {
                            sender.send((n, round)).unwrap();
                            sent.set(sent.get() + 1);
                        } else if receiver.recv_timeout(ms(3)).is_ok() {
                            received.set(received.get() + 1);
                        }
                        yield_now();
                        if n == 1 {
                            // Somebody must take what is left over, or the senders would wait for ever.
                            while receiver.try_recv().is_ok() {
                                received.set(received.get() + 1);
                            }
                        }
                    }
                    ended.set(ended.get() + usize::from(n < 2));
                    while n >= 3 && ended.get() < 2 {
                        if receiver.recv_timeout(ms(1)).is_ok() {
                            received.set(received.get() + 1);
                        }
                    }
                },
                |(_, receiver, sent, received, _)| {
                    let left = receiver.try_iter().count();
                    let (sent, received) = (sent.get(), received.get() + left);
                    // The victim may have been killed right after its message was taken.
                    assert!(received == sent || received == sent + 1, "{sent} {received}");
                },
            );
        });
    }
}

#[test]
fn a_channel_without_capacity_hands_over() {
    virtually(|| {
        let (sender, receiver) = channel::bounded(0);
        assert_eq!(sender.try_send(1), Err(TrySendError::Full(1)));
        let sending = spawn_local({
            let sender = sender.clone();
            move || sender.send(2)
        });
        yield_now();
        assert!(!sending.is_finished() && sender.len() == 1);
        assert_eq!(receiver.recv(), Ok(2));
        sending.join().unwrap().unwrap();
        let receiving = spawn_local(move || receiver.recv());
        yield_now();
        sender.try_send(3).unwrap();
        assert_eq!(receiving.join().unwrap(), Ok(3));
        assert_eq!(sender.send(4).unwrap_err().0, 4, "nobody is there any more");
    });
}

#[test]
fn the_other_end_s_end_is_told() {
    virtually(|| {
        let (sender, receiver) = channel::bounded(1);
        sender.send(1).unwrap();
        let waits = spawn_local({
            let sender = sender.clone();
            move || sender.send(2)
        });
        yield_now();
        drop(receiver);
        assert_eq!(waits.join().unwrap().unwrap_err().0, 2);
        assert_eq!(sender.try_send(3), Err(TrySendError::Disconnected(3)));

        let (sender, receiver) = channel::unbounded::<u32>();
        let other = receiver.clone();
        let waits = [receiver, other].map(|receiver| spawn_local(move || receiver.into_iter().sum::<u32>()));
        yield_now();
        (1..=4).for_each(|n| sender.send(n).unwrap());
        drop(sender);
        let sums = waits.map(|waits| waits.join().unwrap());
        assert_eq!(sums[0] + sums[1], 10);
    });
}

#[test]
fn values_in_a_channel_are_dropped_with_it() {
    let dropped = Arc::new(AtomicUsize::new(0));
    let (sender, receiver) = channel::bounded(2);
    for _ in 0..2 {
        sender.send(Counted(dropped.clone())).unwrap();
    }
    let theirs = sender.clone();
    let late = Counted(dropped.clone());
    let waits = spawn_local(move || theirs.send(late).is_err());
    yield_now();
    drop(receiver);
    assert_eq!(dropped.load(Ordering::SeqCst), 2, "with the last receiver");
    assert!(waits.join().unwrap());
    drop(sender);
    assert_eq!(dropped.load(Ordering::SeqCst), 3);
}

#[test]
fn conditions_are_noticed_and_notices_of_the_killed_passed_on() {
    virtually(|| {
        at_every_turn(
            || (Mutex::new(0), Condvar::new()),
            |n, (mutex, condvar)| {
                if n < 2 {
                    for _ in 0..6 {
                        sleep(ms(1));
                        *mutex.lock().unwrap() += 1;
                        condvar.notify_one();
                    }
                } else {
                    let waiting = condvar.wait_timeout_while(mutex.lock().unwrap(), ms(50), |tokens| *tokens == 0);
                    let (mut tokens, result) = waiting.unwrap();
                    assert!(!result.timed_out());
                    *tokens -= 1;
                }
            },
            |(mutex, _)| assert!(*mutex.try_lock().unwrap() >= 9),
        );
        // One notice, for one of two; the first in line is killed at the same moment.
        let pair = Rc::new((Mutex::new(()), Condvar::new()));
        let waiters: Vec<_> = (0..2)
            .map(|_| {
                let pair = pair.clone();
                spawn_local(move || drop(pair.1.wait(pair.0.lock().unwrap())))
            })
            .collect();
        yield_now();
        waiters[0].kill();
        pair.1.notify_one();
        let mut ends = waiters.into_iter();
        assert!(ends.next().unwrap().join().unwrap_err().is_killed());
        ends.next().unwrap().join().unwrap();
        let (held, result) = pair.1.wait_timeout(pair.0.lock().unwrap(), ms(1)).unwrap();
        assert!(result.timed_out());
        drop(held);
    });
}

#[test]
fn a_barrier_lets_all_go_and_one_of_them_leads() {
    virtually(|| {
        let barrier = Rc::new(Barrier::new(3));
        for _ in 0..3 {
            let lost = spawn_local({
                let barrier = barrier.clone();
                move || barrier.wait()
            });
            yield_now();
            lost.kill();
            assert!(lost.join().is_err(), "it has not come");
            let meet = |_| {
                let barrier = barrier.clone();
                spawn_local(move || barrier.wait().is_leader())
            };
            let mut all: Vec<_> = (0..2).map(meet).collect();
            sleep(ms(1));
            assert!(all.iter().all(|one| !one.is_finished()));
            all.push(meet(2));
            assert_eq!(join_all(all), [false, false, true]);
        }
    });
}

#[test]
fn between_green_threads_and_os_threads_and_hubs() {
    let total = Arc::new(Mutex::new(0_u64));
    let (sender, receiver) = channel::bounded::<u64>(16);
    let os_threads: Vec<_> = (0..4)
        .map(|_| {
            let (total, sender) = (total.clone(), sender.clone());
            std::thread::spawn(move || {
                for n in 0..5_000 {
                    *total.lock().unwrap() += 1;
                    sender.send(n).unwrap();
                }
                // Green threads of another hub.
                let more = (0..4).map(|_| {
                    let (total, sender) = (total.clone(), sender.clone());
                    spawn(move || {
                        for n in 0..500 {
                            *total.lock().unwrap() += 1;
                            sender.send(n).unwrap();
                        }
                    })
                });
                join_all(more.collect());
            })
        })
        .collect();
    drop(sender);
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let receiver = receiver.clone();
            spawn(move || {
                receiver
                    .into_iter()
                    .fold((0, 0), |(count, sum), n| (count + 1, sum + n))
            })
        })
        .collect();
    drop(receiver);
    let (count, sum) = join_all(readers)
        .into_iter()
        .fold((0, 0), |all: (u64, u64), one| (all.0 + one.0, all.1 + one.1));
    os_threads.into_iter().for_each(|one| one.join().unwrap());
    assert_eq!((count, *total.lock().unwrap()), (28_000, 28_000));
    assert_eq!(sum, 4 * (4999 * 5000 / 2) + 16 * (499 * 500 / 2));
}

#[test]
fn one_whose_hub_ended_in_line_is_passed_over() {
    let mutex = Arc::new(Mutex::new(0));
    let semaphore = Arc::new(Semaphore::new(0));
    let (sender, receiver) = channel::bounded(1);
    let full = channel::bounded(1);
    full.0.send(1).unwrap();
    let held = mutex.lock().unwrap();
    let theirs = (mutex.clone(), semaphore.clone(), receiver.clone(), full.0.clone());
    std::thread::spawn(move || {
        let (mutex, semaphore, receiver, full) = theirs;
        spawn_local(move || *mutex.lock().unwrap() += 1);
        spawn_local(move || drop(semaphore.acquire()));
        spawn_local(move || receiver.recv());
        spawn_local(move || full.send(2));
        yield_now(); // each waits now, and for ever
    })
    .join()
    .unwrap();
    let mine = (mutex.clone(), semaphore.clone(), receiver);
    let next = spawn_local(move || {
        *mine.0.lock().unwrap() += 10;
        drop(mine.1.acquire());
        mine.2.recv()
    });
    yield_now();
    drop(held);
    yield_now();
    semaphore.add(1);
    sender.send("word").unwrap();
    assert_eq!(next.join().unwrap(), Ok("word"));
    assert_eq!(*mutex.lock().unwrap(), 10);
    // What it had to give is as good as anybody's.
    assert_eq!((full.1.recv(), full.1.recv()), (Ok(1), Ok(2)));
    assert_eq!(full.1.try_recv(), Err(TryRecvError::Empty));
}

#[test]
fn as_futures_on_our_hub_and_on_others() {
    let mutex = Arc::new(Mutex::new(0));
    let (sender, receiver) = channel::bounded::<u32>(1);
    let (event, semaphore) = (Arc::new(Event::new()), Arc::new(Semaphore::new(1)));
    let theirs = (mutex.clone(), event.clone(), semaphore.clone());
    let elsewhere = std::thread::spawn(move || {
        outside(async move {
            let mut sum = 0;
            while let Ok(n) = receiver.recv_async().await {
                *theirs.0.lock_async().await.unwrap() += n;
                let _permit = theirs.2.acquire_async().await;
                sum += n;
            }
            theirs.1.wait_async().await;
            sum
        })
    });
    for n in 0..500 {
        block_on(sender.send_async(n)).unwrap();
        *mutex.lock().unwrap() += 1;
        let _permit = semaphore.acquire();
    }
    drop(sender);
    event.set();
    let sum = elsewhere.join().unwrap();
    assert_eq!((sum, *mutex.lock().unwrap()), (499 * 500 / 2, 499 * 500 / 2 + 500));
}

#[test]
fn a_future_that_is_dropped_in_line_passes_on_what_it_was_handed() {
    use std::future::Future;
    use std::task::{Context, Waker};
    let mut context = Context::from_waker(Waker::noop());
    let mutex = Mutex::new(());
    let held = mutex.lock().unwrap();
    let mut first = Box::pin(mutex.lock_async());
    let mut second = Box::pin(mutex.lock_async());
    assert!(first.as_mut().poll(&mut context).is_pending());
    assert!(second.as_mut().poll(&mut context).is_pending());
    drop(held);
    drop(first); // it had been handed the lock
    assert!(second.as_mut().poll(&mut context).is_ready());

    let (sender, receiver) = channel::bounded(1);
    let mut waits = Box::pin(receiver.recv_async());
    assert!(waits.as_mut().poll(&mut context).is_pending());
    sender.send(1).unwrap();
    drop(waits);
    assert_eq!(receiver.recv(), Ok(1));
    sender.send(2).unwrap();
    let mut late = Box::pin(sender.send_async(3));
    assert!(late.as_mut().poll(&mut context).is_pending());
    drop(late);
    assert_eq!(
        (receiver.recv(), receiver.try_recv()),
        (Ok(2), Err(TryRecvError::Empty))
    );
}

#[test]
fn types_may_go_where_they_should() {
    fn is<T: Send + Sync>() {}
    is::<Mutex<Cell<u8>>>();
    is::<RwLock<u8>>();
    is::<(Condvar, Event, Semaphore, BoundedSemaphore, Barrier)>();
    is::<(channel::Sender<Cell<u8>>, channel::Receiver<Cell<u8>>)>();
    fn sends<T: Send>(_: T) {}
    let mutex = Mutex::new(1);
    sends(mutex.lock_async());
    sends(mutex.lock().unwrap());
    let (sender, receiver) = channel::bounded::<u8>(0);
    sends(sender.send_async(1));
    sends(receiver.recv_async());
    let names: HashSet<_> = [format!("{mutex:?}"), format!("{sender:?}")].into();
    assert!(names.iter().any(|name| name.contains("data: 1")), "{names:?}");
}
