//! Exactly one branch of a select has its way: whoever grants it, from whatever OS thread, whatever else comes.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use greenthread::sync::channel::{self, TryRecvError, TrySendError};
use greenthread::sync::queue::Queue;
use greenthread::sync::select::Select;
use greenthread::sync::{Barrier, Event, Mutex, Promise, Semaphore};
use greenthread::{future, hub, select, sleep, spawn, spawn_local, time, yield_now};

use crate::support::fresh::{fresh, ms, virtually};

/// Rounds of the races between OS threads: `GREEN_ROUNDS=1000000` for a long one.
fn rounds() -> Option<usize> {
    std::env::var("GREEN_ROUNDS").ok()?.parse().ok()
}

/// On an OS thread of its own, with so many rounds; a long one is not watched.
fn raced(f: impl FnOnce(usize) + Send + 'static) {
    match rounds() {
        Some(rounds) => std::thread::spawn(move || f(rounds)).join().unwrap(),
        None => fresh(|| f(10_000)),
    }
}

#[test]
fn a_message_that_was_taken_is_the_branch_that_runs() {
    virtually(|| {
        for round in 0..100 {
            let (sender, receiver) = channel::bounded(0);
            let event = Rc::new(Event::new());
            let theirs = event.clone();
            let sending = spawn_local(move || {
                select! {
                    send(sender, round) -> sent => sent.is_ok(),
                    wait(theirs) => false,
                }
            });
            yield_now();
            assert_eq!(receiver.try_recv(), Ok(round));
            event.set();
            assert!(sending.join().unwrap(), "received, and the event's branch");
        }
    });
}

#[test]
fn an_item_that_was_let_in_is_the_branch_that_runs() {
    virtually(|| {
        for round in 0..100 {
            let queue = Rc::new(Queue::bounded(1));
            queue.put(0).unwrap();
            let event = Rc::new(Event::new());
            let theirs = (queue.clone(), event.clone());
            let putting = spawn_local(move || {
                select! {
                    put(theirs.0, round) -> put => put.is_ok(),
                    wait(theirs.1) => false,
                }
            });
            yield_now();
            assert_eq!(queue.try_get(), Ok(0));
            event.set();
            assert!(putting.join().unwrap(), "in the queue, and the event's branch");
            assert_eq!(queue.try_get(), Ok(round));
        }
    });
}

/// Whatever comes first takes it; the other is somebody else's.
#[test]
fn a_permit_a_lock_and_a_message_are_taken_one_at_a_time() {
    virtually(|| {
        for round in 0..100 {
            let (semaphore, mutex) = (Rc::new(Semaphore::new(0)), Rc::new(Mutex::new(())));
            let (sender, receiver) = channel::unbounded();
            let held = mutex.lock().unwrap();
            let theirs = (semaphore.clone(), mutex.clone(), receiver.clone());
            let selecting = spawn_local(move || {
                select! {
                    acquire(theirs.0) -> permit => { permit.forget(); 0 },
                    lock(theirs.1) -> guard => { drop(guard); 1 },
                    recv(theirs.2) -> message => { message.unwrap(); 2 },
                }
            });
            yield_now();
            let mut held = Some(held);
            let give = |what: usize, held: &mut Option<_>| match what {
                0 => semaphore.add(1),
                1 => drop(held.take()),
                _ => sender.send(()).unwrap(),
            };
            (0..3).for_each(|n| give((round + n) % 3, &mut held));
            // At once, before it has run: nobody but the first was taken from.
            let left = [
                semaphore.available() == 1,
                !mutex.is_locked(),
                receiver.len() == 1 && receiver.try_recv().is_ok(),
            ];
            let first = round % 3;
            assert_eq!(left.map(usize::from).iter().sum::<usize>(), 2, "{left:?}");
            assert!(!left[first] && selecting.join().unwrap() == first);
        }
    });
}

#[test]
fn when_time_is_over_what_was_granted_in_time_counts() {
    virtually(|| {
        let mut seen = [0, 0];
        for round in 0..100 {
            let (sender, receiver) = channel::bounded(0);
            let selecting = spawn_local(move || {
                if round % 2 == 0 {
                    yield_now();
                }
                select! {
                    send(sender, 1) -> sent => sent.is_ok(),
                    default(ms(5)) => false,
                }
            });
            sleep(ms(5));
            let got = receiver.try_recv().is_ok();
            assert_eq!(got, selecting.join().unwrap());
            seen[usize::from(got)] += 1;
        }
        assert!(seen[1] > 0, "{seen:?}");
    });
}

#[test]
fn two_selects_meet_on_one_channel() {
    virtually(|| {
        let mut seen = [0, 0];
        for _ in 0..200 {
            let (one, two) = (channel::bounded(0), channel::bounded(0));
            let sending = spawn_local(move || {
                select! {
                    send(one.0, 1) -> sent => { sent.unwrap(); 1 },
                    send(two.0, 2) -> sent => { sent.unwrap(); 2 },
                }
            });
            let receiving = spawn_local(move || {
                let got = select! { recv(one.1) -> got => got, recv(two.1) -> got => got };
                let rest = (one.1.try_recv(), two.1.try_recv());
                (got.unwrap(), rest.0.is_ok() || rest.1.is_ok())
            });
            let (sent, (got, more)) = (sending.join().unwrap(), receiving.join().unwrap());
            assert!(sent == got && !more, "{sent} {got} {more}");
            seen[sent - 1] += 1;
        }
        assert!(seen[0] > 50 && seen[1] > 50, "{seen:?}");
    });
}

#[test]
fn a_select_does_not_meet_itself_but_all_others() {
    virtually(|| {
        let (sender, receiver) = channel::bounded(0);
        let start = || {
            let (sender, receiver) = (sender.clone(), receiver.clone());
            spawn_local(move || {
                select! {
                    send(sender, 1) -> sent => { sent.unwrap(); 0 },
                    recv(receiver) -> got => got.unwrap(),
                }
            })
        };
        for _ in 0..20 {
            let alone = start();
            sleep(ms(1));
            assert!(!alone.is_finished(), "it met itself");
            let got = receiver.try_recv();
            assert_eq!((got, alone.join().unwrap()), (Ok(1), 0));

            let alone = start();
            sleep(ms(1));
            sender.try_send(7).unwrap();
            assert_eq!(alone.join().unwrap(), 7);

            // Two of them: one sends, the other receives.
            let both = [start(), start()];
            let mut got = both.map(|one| one.join().unwrap());
            got.sort_unstable();
            assert_eq!(got, [0, 1]);
            assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
        }
    });
}

/// A sender gets in line behind a select's own send, before that select gets to its receive.
#[test]
fn a_select_finds_who_waits_behind_itself() {
    virtually(|| {
        for _ in 0..20 {
            let (sender, receiver) = channel::bounded(0);
            let theirs = sender.clone();
            let mut behind = None;
            let got = {
                let send = sender.send_async(1);
                let other = async {
                    // Between the two or after both, by luck of the order.
                    let theirs = theirs.clone();
                    behind = Some(spawn_local(move || theirs.send(2)));
                    yield_now();
                    std::future::pending::<()>().await;
                };
                select! {
                    future(send) -> _ => 0,
                    future(other) => unreachable!(),
                    recv(receiver) -> got => got.unwrap(),
                }
            };
            assert_eq!(got, 2);
            behind.unwrap().join().unwrap().unwrap();
        }
    });
}

#[test]
fn a_barrier_is_complete_only_with_those_who_have_no_other_branch() {
    virtually(|| {
        for fickle_leaves in [true, false] {
            let barrier = Rc::new(Barrier::new(3));
            let (sender, receiver) = channel::unbounded();
            let theirs = (barrier.clone(), receiver);
            let fickle = spawn_local(move || {
                select! {
                    wait(theirs.0) -> met => { assert!(!met.is_leader()); "met" },
                    recv(theirs.1) -> _ => "left",
                }
            });
            let theirs = barrier.clone();
            let first = spawn_local(move || theirs.wait().is_leader());
            sleep(ms(1));
            if fickle_leaves {
                // Granted the other branch, and in line still.
                sender.send(()).unwrap();
            }
            let mut third = pin!(barrier.wait_async());
            let met = third.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            sender.send(()).unwrap();
            sleep(ms(1));
            if fickle_leaves {
                assert!(met.is_pending() && !first.is_finished(), "met without the third");
                assert_eq!(fickle.join().unwrap(), "left");
                assert!(barrier.wait().is_leader());
                assert!(!future::block_on(third).is_leader());
            } else {
                assert_eq!(met.map(|met| met.is_leader()), Poll::Ready(true));
                assert_eq!(fickle.join().unwrap(), "met");
            }
            assert!(!first.join().unwrap());
        }
    });
}

/// A future that does `f` at its second poll, which it has asked for, and never ends.
pub(super) async fn later(f: impl FnOnce()) {
    let mut polls = 0;
    poll_fn(|context| {
        polls += 1;
        context.waker().wake_by_ref();
        if polls < 2 { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
    f();
    std::future::pending::<()>().await;
}

#[test]
fn an_event_that_is_set_and_cleared_while_the_select_looks_elsewhere_is_not_missed() {
    virtually(|| {
        for _ in 0..20 {
            let event = Event::new();
            let pulse = later(|| {
                event.set();
                event.clear();
            });
            select! {
                wait(event) => {},
                future(pulse) => unreachable!(),
                after(ms(1000)) => panic!("missed"),
            }
        }
    });
}

#[test]
fn what_comes_while_the_select_looks_elsewhere_is_not_missed() {
    virtually(|| {
        for _ in 0..20 {
            let (sender, receiver) = channel::unbounded();
            let (semaphore, put) = (Semaphore::new(0), Queue::bounded(1));
            put.put(1).unwrap();
            let sends = later(|| sender.send(1).unwrap());
            select! {
                recv(receiver) -> got => assert_eq!(got, Ok(1)),
                future(sends) => unreachable!(),
                after(ms(1000)) => panic!("missed"),
            }
            let adds = later(|| semaphore.add(1));
            select! {
                acquire(semaphore) -> permit => drop(permit),
                future(adds) => unreachable!(),
                after(ms(1000)) => panic!("missed"),
            }
            let gets = later(|| assert_eq!(put.try_get(), Ok(1)));
            select! {
                put(put, 2) -> done => done.unwrap(),
                future(gets) => unreachable!(),
                after(ms(1000)) => panic!("missed"),
            }
            assert_eq!(put.try_get(), Ok(2));
            assert_eq!(semaphore.available(), 1);
        }
    });
}

#[test]
fn a_select_that_never_waits_is_granted_nothing_behind_its_back() {
    virtually(|| {
        for _ in 0..50 {
            let (sender, receiver) = channel::bounded(0);
            let promise = Promise::<u32>::new();
            let mut handle = spawn_local(yield_now);
            let theirs = receiver.clone();
            // Polled after `send` or before it: if after, the message is in line then, and must not be taken.
            let looks = async move {
                assert_eq!(theirs.try_recv(), Err(TryRecvError::Empty));
                std::future::pending::<()>().await;
            };
            let which = select! {
                send(sender, 1) -> _ => 1,
                wait(promise) -> _ => 2,
                join(handle) -> _ => 3,
                future(looks) => 4,
                default => 0,
            };
            assert_eq!(which, 0);
            assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
            assert_eq!(sender.try_send(1), Err(TrySendError::Full(1)));
        }
    });
}

/// Its steps are granted one by one, and none is lost while it goes on.
#[test]
fn a_future_of_several_steps_goes_through_all() {
    virtually(|| {
        for _ in 0..20 {
            let (one, two, never) = (channel::bounded(0), channel::bounded(0), Semaphore::new(0));
            let sending = spawn_local(move || (one.0.send(1), two.0.send(2)));
            let both = async { (one.1.recv_async().await, two.1.recv_async().await) };
            let got = select! {
                acquire(never) -> _ => unreachable!(),
                future(both) -> got => got,
            };
            assert_eq!(got, (Ok(1), Ok(2)));
            assert_eq!(sending.join().unwrap(), (Ok(()), Ok(())));
            assert_eq!(never.available(), 0);
        }
    });
}

/// What it waits in with one select is not lost to it when that is over.
#[test]
fn a_future_that_outlives_its_select_gets_what_it_waits_for() {
    virtually(|| {
        let (sender, receiver) = channel::unbounded();
        let mut lasting = pin!(receiver.recv_async());
        for round in 0..3 {
            let event = Event::new();
            event.set();
            select! { future(lasting.as_mut()) -> _ => unreachable!(), wait(event) => {} }
            let late = select! { future(lasting.as_mut()) -> _ => false, after(ms(1)) => true };
            assert!(late, "{round}");
        }
        // Granted to nobody now: its select is over.
        sender.send(1).unwrap();
        assert_eq!(receiver.try_recv(), Ok(1));
        sender.send(2).unwrap();
        assert_eq!(future::block_on(lasting), Ok(2));
    });
}

#[test]
fn selects_of_futures_and_of_other_executors_are_granted_one_branch() {
    virtually(|| {
        for _ in 0..100 {
            let (sender, receiver) = channel::bounded(0);
            let (event, sent) = (Rc::new(Event::new()), Rc::new(Cell::new(None)));
            let (theirs, out) = (event.clone(), sent.clone());
            let task = future::spawn(async move {
                let mut select = Select::new();
                let send = select.add(|| {
                    let sends = async { assert_eq!(sender.send_async(1).await, Ok(())) };
                    Box::pin(sends) as Pin<Box<dyn Future<Output = ()>>>
                });
                select.add(|| Box::pin(theirs.wait_async()));
                out.set(Some(select.wait_async().await.0 == send));
            });
            yield_now();
            assert_eq!(receiver.try_recv(), Ok(1));
            event.set();
            task.join().unwrap();
            assert_eq!(sent.get(), Some(true));
        }
    });
}

/// Two OS threads with two channels between them, each with a select: every message that was sent is received, once.
fn race(capacity: usize, green: bool) {
    raced(move |rounds| {
        let (one, two) = (channel::bounded::<usize>(capacity), channel::bounded::<usize>(capacity));
        let sent = Arc::new(AtomicUsize::new(0));
        let theirs = sent.clone();
        let send = move || {
            let mut sum = [0_usize; 2];
            for n in 0..rounds {
                select! {
                    send(one.0, n) -> done => { done.unwrap(); sum[0] += n; },
                    send(two.0, n) -> done => { done.unwrap(); sum[1] += n; },
                }
            }
            theirs.store(sum[0] + sum[1], Ordering::Release);
            sum
        };
        let os_thread = std::thread::spawn(move || if green { spawn(send).join().unwrap() } else { send() });
        let mut sum = [0_usize; 2];
        let (mut open, mut next) = ([true; 2], 0);
        while open != [false; 2] {
            let (from, got) = select! {
                recv(one.1) -> got => (0, got),
                recv(two.1) -> got => (1, got),
            };
            match got {
                Ok(n) => {
                    sum[from] += n;
                    if capacity == 0 {
                        assert_eq!(n, next, "one at a time, each once");
                        next += 1;
                    }
                }
                Err(_) => open[from] = false,
            }
            if !open[from] {
                // It is for ever ready: the other to its end.
                let rest: usize = [&one.1, &two.1][1 - from].iter().sum();
                sum[1 - from] += rest;
                open = [false; 2];
            }
        }
        assert_eq!(os_thread.join().unwrap(), sum);
        assert_eq!(sent.load(Ordering::Acquire), rounds * (rounds - 1) / 2);
    });
}

#[test]
fn peers_on_two_os_threads_without_capacity() {
    race(0, true);
}

#[test]
fn peers_on_two_os_threads_with_room_for_one_and_no_hub() {
    race(1, false);
}

/// One side selects, the other hands out and takes away: permits, a lock and room are never taken without their branch.
#[test]
fn permits_locks_and_room_between_two_os_threads() {
    raced(|rounds| {
        let semaphore = Arc::new(Semaphore::new(0));
        let (to, from) = (channel::bounded::<usize>(0), channel::bounded::<usize>(0));
        let theirs = semaphore.clone();
        let os_thread = std::thread::spawn(move || {
            let mut got = [0_usize; 3];
            loop {
                select! {
                    acquire(theirs) -> permit => { permit.forget(); got[0] += 1; },
                    recv(to.1) -> message => match message {
                        Ok(_) => got[1] += 1,
                        Err(_) => return got,
                    },
                    send(from.0, 1) -> sent => { sent.unwrap(); got[2] += 1; },
                }
            }
        });
        let mut given = [0_usize; 3];
        for n in 0..rounds {
            // Two at once, so that they meet in one select.
            semaphore.add(1);
            given[0] += 1;
            if n % 2 == 0 {
                given[2] += usize::from(from.1.try_recv().is_ok());
            } else {
                to.0.send(n).unwrap();
                given[1] += 1;
            }
            if n % 3 == 0 && semaphore.try_acquire().map(|permit| permit.forget()).is_some() {
                given[0] -= 1;
            }
        }
        drop(to.0);
        let mut got = os_thread.join().unwrap();
        given[2] += from.1.try_iter().count();
        got[0] += semaphore.available();
        assert_eq!(got, given);
    });
}

/// Waits with the waker of a task that is lost: its OS thread has ended.
fn lost_waker() -> Waker {
    let (sender, receiver) = std::sync::mpsc::channel();
    let os_thread = std::thread::spawn(move || {
        let left = Rc::new(Cell::new(false));
        let theirs = left.clone();
        drop(future::spawn(poll_fn(move |context| {
            sender.send(context.waker().clone()).unwrap();
            theirs.set(true);
            Poll::<()>::Pending
        })));
        while !left.get() {
            yield_now();
        }
    });
    os_thread.join().unwrap();
    receiver.recv().unwrap()
}

#[test]
fn one_that_was_passed_over_as_lost_and_is_polled_again_has_no_lock() {
    fresh(|| {
        let waker = lost_waker();
        let mutex = Mutex::new(0);
        let held = mutex.lock().unwrap();
        let mut moved = pin!(mutex.lock_async());
        assert!(moved.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        drop(held);
        let held = mutex.try_lock().expect("it was not handed to the lost");
        assert!(
            moved
                .as_mut()
                .poll(&mut Context::from_waker(Waker::noop()))
                .is_pending()
        );
        drop(held);
        assert!(moved.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready());
    });
}

/// How something waits for what is shared, on an OS thread that ends meanwhile.
#[derive(Clone, Copy, Debug)]
enum Waits {
    Task,
    BlockOn,
    Select,
    SelectInTask,
    Green,
}

struct Things {
    mutex: Mutex<u32>,
    semaphore: Semaphore,
    receiver: channel::Receiver<u32>,
    queue: Queue<u32>,
}

async fn wait_for(things: &Things, what: usize) {
    match what {
        0 => *things.mutex.lock_async().await.unwrap() += 1,
        1 => drop(things.semaphore.acquire_async().await),
        2 => drop(things.receiver.recv_async().await),
        _ => drop(things.queue.get_async().await),
    }
}

#[test]
fn what_waits_on_an_os_thread_that_has_ended_is_passed_over() {
    fresh(|| {
        for waits in [
            Waits::Task,
            Waits::BlockOn,
            Waits::Select,
            Waits::SelectInTask,
            Waits::Green,
        ] {
            for what in 0..4 {
                let (sender, receiver) = channel::unbounded();
                let things = Arc::new(Things {
                    mutex: Mutex::new(0),
                    semaphore: Semaphore::new(1),
                    receiver,
                    queue: Queue::unbounded(),
                });
                let held = (things.mutex.lock().unwrap(), things.semaphore.acquire());
                let theirs = things.clone();
                std::thread::spawn(move || {
                    lose(waits, what, theirs);
                    sleep(ms(5)); // it waits now
                })
                .join()
                .unwrap();
                drop(held);
                sender.send(5).unwrap();
                things.queue.put(5).unwrap();
                let got = match what {
                    0 => things.mutex.lock_timeout(ms(500)).is_ok(),
                    1 => things.semaphore.acquire_timeout(ms(500)).is_some(),
                    2 => things.receiver.recv_timeout(ms(500)).is_ok(),
                    _ => things.queue.get_timeout(ms(500)).is_ok(),
                };
                assert!(got, "{waits:?} {what}");
            }
        }
    });
}

fn lose(waits: Waits, what: usize, things: Arc<Things>) {
    match waits {
        Waits::Task => drop(future::spawn(async move { wait_for(&things, what).await })),
        Waits::BlockOn => drop(spawn(move || future::block_on(wait_for(&things, what)))),
        Waits::Select => drop(spawn(move || {
            let never = Event::new();
            select! { future(wait_for(&things, what)) => {}, wait(never) => {} }
        })),
        Waits::SelectInTask => drop(future::spawn(async move {
            let never = Event::new();
            let mut select = Select::new();
            select.add(|| Box::pin(wait_for(&things, what)) as Pin<Box<dyn Future<Output = ()>>>);
            select.add(|| Box::pin(never.wait_async()));
            select.wait_async().await;
        })),
        Waits::Green => drop(spawn(move || match what {
            0 => *things.mutex.lock().unwrap() += 1,
            1 => drop(things.semaphore.acquire()),
            2 => drop(things.receiver.recv()),
            _ => drop(things.queue.get()),
        })),
    }
}

#[test]
fn ready_branches_are_taken_equally_often() {
    fn rounds() -> ([u32; 3], [u32; 3]) {
        let full = || {
            let (sender, receiver) = channel::unbounded();
            (0..6000).for_each(|_| sender.send(()).unwrap());
            (sender, receiver)
        };
        let (a, b, c) = (full(), full(), full());
        let empty = channel::unbounded::<()>();
        let (mut three, mut two) = ([0; 3], [0; 3]);
        for _ in 0..3000 {
            select! { recv(a.1) -> _ => three[0] += 1, recv(b.1) -> _ => three[1] += 1, recv(c.1) -> _ => three[2] += 1 }
            select! { recv(a.1) -> _ => two[0] += 1, recv(empty.1) -> _ => two[1] += 1, recv(c.1) -> _ => two[2] += 1 }
        }
        (three, two)
    }
    let looks = [
        fresh(rounds),
        virtually(|| spawn(rounds).join().unwrap()),
        seeded(7, rounds),
    ];
    for (three, two) in looks {
        // Six standard deviations of 3000 throws.
        assert!(three.iter().all(|n| n.abs_diff(1000) < 155), "{three:?}");
        assert!(two[1] == 0 && two[0].abs_diff(1500) < 165, "{two:?}");
    }
}

fn seeded<R: Send + 'static>(seed: u64, f: impl FnOnce() -> R + Send + 'static) -> R {
    fresh(move || {
        hub::Builder::new().virtual_clock(true).seed(seed).install().unwrap();
        f()
    })
}

#[test]
fn the_seed_of_the_hub_says_which_branch() {
    let order = || {
        let (one, two) = (channel::unbounded(), channel::unbounded());
        (0..64).for_each(|_| one.0.send(()).and_then(|()| two.0.send(())).unwrap());
        let next = |_| select! { recv(one.1) -> _ => 0_u64, recv(two.1) -> _ => 1 };
        (0..64).map(next).fold(0, |all, one| all << 1 | one)
    };
    let all = || (1..10).step_by(2).map(|seed| seeded(seed, order)).collect::<Vec<u64>>();
    let orders = all();
    assert_eq!(orders, all());
    assert!(orders.windows(2).all(|two| two[0] != two[1]), "{orders:?}");
}

#[test]
fn a_select_takes_no_time_of_the_clock() {
    virtually(|| {
        let start = time::now();
        let event = Event::new();
        event.set();
        (0..1000).for_each(|_| select! { wait(event) => {}, after(ms(1)) => unreachable!() });
        assert_eq!(time::now(), start);
        assert!(hub::next_deadline().is_none());
    });
}
