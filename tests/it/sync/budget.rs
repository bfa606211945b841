//! What succeeds at once gives way all the same, is told of a kill there, and has nothing in hand then.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use greenthread::sync::channel;
use greenthread::sync::queue::Queue;
use greenthread::sync::{BoundedSemaphore, Event, Mutex, Promise, ReentrantLock, RwLock, Semaphore};
use greenthread::{future, select, spawn_local, timeout, yield_now};

use crate::support::fresh::{fresh, ms, virtually};

/// How often another green thread has its turn while `f` does it `times`.
fn turns(times: u32, mut f: impl FnMut() + 'static) -> u32 {
    let (turns, over) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(false)));
    let theirs = (turns.clone(), over.clone());
    let other = spawn_local(move || {
        while !theirs.1.get() {
            theirs.0.set(theirs.0.get() + 1);
            yield_now();
        }
    });
    let busy = spawn_local(move || (0..times).for_each(|_| f()));
    busy.join().unwrap();
    over.set(true);
    other.join().unwrap();
    turns.get()
}

/// An operation, and its name.
type Named = (&'static str, Box<dyn FnMut()>);

/// Everything that could wait, and does not.
fn ready() -> Vec<Named> {
    let full = || {
        let (sender, receiver) = channel::unbounded();
        (0..3000).for_each(|_| sender.send(()).unwrap());
        (sender, receiver)
    };
    let (mutex, lock, reentrant) = (Mutex::new(()), RwLock::new(()), ReentrantLock::new(()));
    let lock = Rc::new(lock);
    let (reads, read_later) = (lock.clone(), lock.clone());
    let (semaphore, bounded_semaphore) = (Semaphore::new(1), BoundedSemaphore::new(1));
    let (event, promise) = (Event::new(), Promise::new());
    event.set();
    promise.set(1).unwrap();
    let (received, timed, iterated, selected) = (full(), full(), full(), full());
    let (room, kept) = channel::bounded(3000);
    let queue = Rc::new(Queue::bounded(3000));
    let theirs = queue.clone();
    let set = Event::new();
    set.set();
    vec![
        ("lock", Box::new(move || drop(mutex.lock()))),
        ("read", Box::new(move || drop(reads.read()))),
        ("write", Box::new(move || drop(lock.write()))),
        ("write_timeout", Box::new(move || drop(read_later.write_timeout(ms(1))))),
        ("reentrant", Box::new(move || drop(reentrant.lock()))),
        ("acquire", Box::new(move || drop(semaphore.acquire()))),
        ("bounded acquire", Box::new(move || drop(bounded_semaphore.acquire()))),
        ("event", Box::new(move || event.wait())),
        ("promise", Box::new(move || assert_eq!(*promise.wait(), 1))),
        ("recv", Box::new(move || received.1.recv().unwrap())),
        ("recv_timeout", Box::new(move || timed.1.recv_timeout(ms(1)).unwrap())),
        ("iter", Box::new(move || iterated.1.iter().next().unwrap())),
        (
            "send",
            Box::new(move || {
                room.send(()).unwrap();
                let _ = &kept;
            }),
        ),
        ("put", Box::new(move || theirs.put(1).unwrap())),
        ("get", Box::new(move || assert_eq!(queue.get(), Ok(1)))),
        (
            "select",
            Box::new(move || select! { recv(selected.1) -> got => got.unwrap(), after(ms(1)) => panic!() }),
        ),
        (
            "select of an event",
            Box::new(move || select! { wait(set) => {}, default(ms(1)) => panic!() }),
        ),
    ]
}

#[test]
fn what_could_wait_and_need_not_gives_way() {
    virtually(|| {
        for (what, f) in ready() {
            let turns = turns(2000, f);
            assert!(
                (10..=40).contains(&turns),
                "{what}: {turns} turns beside 2000 of 128 each"
            );
        }
    });
}

#[test]
fn what_never_waits_does_not_give_way() {
    virtually(|| {
        let (sender, receiver) = channel::unbounded();
        let (queue, event, semaphore, mutex) = (Queue::unbounded(), Event::new(), Semaphore::new(0), Mutex::new(()));
        let borrowed = RefCell::new(0);
        let turns = turns(2000, move || {
            let mut held = borrowed.borrow_mut();
            sender.send(1).unwrap();
            assert_eq!(receiver.try_recv(), Ok(1));
            queue.put(1).unwrap();
            assert_eq!(queue.try_get(), Ok(1));
            event.set();
            event.clear();
            semaphore.add(1);
            drop((semaphore.try_acquire().unwrap(), mutex.try_lock().unwrap()));
            select! { recv(receiver) -> _ => unreachable!(), default => *held += 1 }
        });
        assert!(turns <= 3, "{turns}");
    });
}

#[test]
fn futures_that_are_ready_give_way() {
    virtually(|| {
        let mutex = Rc::new(Mutex::new(()));
        let (over, turns) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(0)));
        let (theirs, counts) = (over.clone(), turns.clone());
        let other = future::spawn(async move {
            while !theirs.get() {
                counts.set(counts.get() + 1);
                future::spawn(async {}).await.unwrap();
            }
        });
        let task = future::spawn(async move {
            let (sender, receiver) = channel::unbounded();
            for _ in 0..1000 {
                drop(mutex.lock_async().await);
                sender.send_async(1).await.unwrap();
                assert_eq!(receiver.recv_async().await, Ok(1));
            }
        });
        task.join().unwrap();
        over.set(true);
        other.join().unwrap();
        assert!(turns.get() >= 8, "{}", turns.get());
    });
}

/// A future that is polled but once is not told that it has to wait.
#[test]
fn a_select_that_does_not_wait_finds_what_is_there() {
    virtually(|| {
        spawn_local(|| {
            let (sender, receiver) = channel::unbounded();
            for _ in 0..1000 {
                sender.send(1).unwrap();
                select! { recv(receiver) -> got => assert_eq!(got, Ok(1)), default => panic!("it is there") }
            }
        })
        .join()
        .unwrap();
    });
}

#[test]
fn a_kill_finds_it_with_nothing_in_hand() {
    virtually(|| {
        for turns in 0..20 {
            let (sender, receiver) = channel::unbounded();
            (0..100_000).for_each(|n| sender.send(n).unwrap());
            let (semaphore, mutex) = (Rc::new(Semaphore::new(1)), Rc::new(Mutex::new(())));
            let got = Rc::new(Cell::new(0));
            let theirs = (receiver.clone(), semaphore.clone(), mutex.clone(), got.clone());
            let busy = spawn_local(move || {
                loop {
                    // Each may be the one that gives way.
                    let message = theirs.0.recv().unwrap();
                    assert_eq!(message, theirs.3.replace(message + 1), "in order, and none is lost");
                    let _permit = theirs.1.acquire();
                    let _held = theirs.2.lock().unwrap();
                }
            });
            (0..turns).for_each(|_| yield_now());
            busy.kill();
            assert!(busy.join().unwrap_err().is_killed());
            assert_eq!(semaphore.available(), 1);
            assert!(mutex.try_lock().is_ok());
            assert_eq!(receiver.len(), 100_000 - got.get());
        }
    });
}

#[test]
fn a_time_out_strikes_one_that_never_waits() {
    fresh(|| {
        let mutex = Arc::new(Mutex::new(0_u64));
        let busy = spawn_local(move || {
            timeout(ms(20), || {
                loop {
                    *mutex.lock().unwrap() += 1;
                }
            })
        });
        let elapsed: Result<(), _> = busy.join().unwrap();
        assert!(elapsed.is_err());
    });
}
