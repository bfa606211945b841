//! The hub from other OS threads: handles, calls, stop; and nothing is lost.

use std::cell::RefCell;
use std::io::ErrorKind;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Instant;

use greenthread::{hub, sleep, spawn, spawn_local, thread, threadpool, yield_now};

use crate::support::fresh::{fresh, ms, secs};

/// A hub in `run_forever` on an OS thread of its own; what the closure gives, its handle, and the OS thread.
fn server() -> (hub::Handle, std::thread::JoinHandle<()>) {
    let (send, receive) = mpsc::channel();
    let os_thread = std::thread::spawn(move || {
        send.send(hub::handle()).unwrap();
        hub::run_forever();
    });
    (receive.recv().unwrap(), os_thread)
}

#[test]
fn calls_run_in_order_on_the_hub() {
    fresh(|| {
        let log = Rc::new(RefCell::new(Vec::new()));
        for n in 0..100 {
            let log = log.clone();
            hub::call_soon(move || log.borrow_mut().push(n));
        }
        assert!(log.borrow().is_empty());
        hub::idle();
        assert_eq!(*log.borrow(), (0..100).collect::<Vec<_>>());
    });
}

#[test]
fn a_call_made_in_a_call_runs_in_a_later_turn() {
    fresh(|| {
        let log = Rc::new(RefCell::new(Vec::new()));
        let (first, second) = (log.clone(), log.clone());
        hub::call_soon(move || {
            let inner = first.clone();
            hub::call_soon(move || inner.borrow_mut().push("inner"));
            assert!(hub::is_running());
            first.borrow_mut().push("first");
        });
        hub::call_soon(move || second.borrow_mut().push("second"));
        hub::idle();
        assert_eq!(*log.borrow(), ["first", "second", "inner"]);
    });
}

#[test]
fn another_os_thread_spawns_calls_and_stops() {
    let (handle, os_thread) = server();
    let spawned = handle
        .spawn(move || {
            sleep(ms(1));
            rustix::thread::gettid()
        })
        .unwrap();
    let theirs = spawned.join().unwrap();
    assert_ne!(theirs, rustix::thread::gettid());
    assert_eq!(handle.spawn(rustix::thread::gettid).unwrap().join().unwrap(), theirs);
    let log: Arc<Mutex<Vec<u32>>> = Arc::default();
    for n in 0..1000 {
        let log = log.clone();
        handle.call_soon(move || log.lock().unwrap().push(n)).unwrap();
    }
    // The last call comes after all others. A green thread may run before them: callbacks have a share of each turn.
    let (send, receive) = mpsc::channel();
    handle.call_soon(move || send.send(()).unwrap()).unwrap();
    receive.recv_timeout(secs(20)).unwrap();
    assert_eq!(*log.lock().unwrap(), (0..1000).collect::<Vec<_>>());
    let bad = handle.spawn(|| panic!("far away")).unwrap();
    assert!(bad.join().unwrap_err().is_panic());
    handle.stop().unwrap();
    os_thread.join().unwrap();
}

#[test]
fn later_calls_come_in_time_and_cancelled_ones_do_not() {
    let (handle, os_thread) = server();
    let (send, receive) = mpsc::channel();
    let tell = |what: &'static str| {
        let send = send.clone();
        move || send.send((what, Instant::now())).unwrap()
    };
    let start = Instant::now();
    let cancelled = handle.call_later(ms(10), tell("cancelled")).unwrap();
    handle.call_at(start + ms(30), tell("at")).unwrap();
    handle.call_later(ms(15), tell("later")).unwrap();
    cancelled.cancel();
    assert!(cancelled.is_cancelled());
    let (first, second) = (
        receive.recv_timeout(secs(20)).unwrap(),
        receive.recv_timeout(secs(20)).unwrap(),
    );
    assert_eq!((first.0, second.0), ("later", "at"));
    assert!(first.1 - start >= ms(15) && second.1 - start >= ms(30));
    handle.stop().unwrap();
    os_thread.join().unwrap();
    assert!(receive.try_recv().is_err());
}

#[test]
fn another_os_thread_kills_through_the_handle() {
    let (handle, os_thread) = server();
    let parked = handle.spawn(thread::park).unwrap();
    handle.kill(&parked.thread()).unwrap();
    assert!(parked.join().unwrap_err().is_killed());
    handle.stop().unwrap();
    os_thread.join().unwrap();
}

#[test]
fn after_the_hubs_end_every_method_says_not_connected_and_drops_its_closure() {
    let (handle, os_thread) = server();
    let thread = handle.spawn(thread::current).unwrap().join().unwrap();
    assert!(handle.is_alive());
    assert_eq!(handle, handle.clone());
    handle.stop().unwrap();
    os_thread.join().unwrap();
    assert!(!handle.is_alive());
    // Another hub in its place is another hub.
    let (other, other_thread) = server();
    assert_ne!(handle, other);
    let owned = Arc::new(());
    let hold = || {
        let owned = owned.clone();
        move || drop(owned)
    };
    let errors = [
        handle.spawn(hold()).map(drop).unwrap_err(),
        handle.call_soon(hold()).map(drop).unwrap_err(),
        handle.call_later(ms(1), hold()).map(drop).unwrap_err(),
        handle.call_at(Instant::now(), hold()).map(drop).unwrap_err(),
        handle.stop().unwrap_err(),
        handle.kill(&thread).unwrap_err(),
    ];
    assert!(
        errors.iter().all(|error| error.kind() == ErrorKind::NotConnected),
        "{errors:?}"
    );
    assert_eq!(Arc::strong_count(&owned), 1);
    thread.unpark();
    thread.kill();
    other.spawn(|| ()).unwrap().join().unwrap();
    other.stop().unwrap();
    other_thread.join().unwrap();
}

#[test]
fn what_was_sent_but_never_run_is_dropped_and_lost() {
    let (send, receive) = mpsc::channel();
    let (go, gate) = mpsc::channel::<()>();
    let os_thread = std::thread::spawn(move || {
        send.send(hub::handle()).unwrap();
        gate.recv().unwrap();
    });
    let handle = receive.recv().unwrap();
    let owned = Arc::new(());
    let (a, b) = (owned.clone(), owned.clone());
    let never = handle.spawn(move || drop(a)).unwrap();
    handle.call_soon(move || drop(b)).unwrap();
    go.send(()).unwrap();
    os_thread.join().unwrap();
    assert!(never.join().unwrap_err().is_lost());
    assert_eq!(Arc::strong_count(&owned), 1);
}

#[test]
fn stop_from_a_green_thread_and_for_several() {
    fresh(|| {
        let inner = spawn(hub::run_forever);
        spawn(|| {
            sleep(ms(2));
            hub::stop();
        });
        hub::run_forever();
        inner.join().unwrap();
        hub::stop(); // nobody runs: nothing
        assert_eq!(spawn(|| 1).join().unwrap(), 1);
    });
}

#[test]
fn is_running_tells_pumped_code_from_plain_code() {
    fresh(|| {
        assert!(!hub::is_running());
        assert!(spawn(hub::is_running).join().unwrap());
        assert!(!hub::is_running());
        assert!(!threadpool::unblock(hub::is_running));
    });
}

#[test]
fn idle_waits_until_nobody_is_ready_but_not_for_sleepers() {
    fresh(|| {
        let busy = spawn(|| (0..500).for_each(|_| yield_now()));
        let sleeper = spawn(thread::park);
        hub::idle();
        assert!(busy.is_finished() && !sleeper.is_finished());
        busy.join().unwrap();
        sleeper.thread().unpark();
        sleeper.join().unwrap();
    });
}

#[test]
fn of_twenty_thousand_wakes_from_four_os_threads_none_is_lost() {
    const EACH: usize = 5000;
    fresh(|| {
        let woken = Rc::new(std::cell::Cell::new(0));
        let pairs: Vec<_> = (0..4)
            .map(|_| {
                let (count, woken) = (Arc::new(AtomicUsize::new(0)), woken.clone());
                let theirs = count.clone();
                let sleeper = spawn_local(move || {
                    for n in 1..=EACH {
                        while theirs.load(Ordering::Acquire) < n {
                            thread::park();
                        }
                        woken.set(woken.get() + 1);
                    }
                });
                let who = sleeper.thread();
                let waker = std::thread::spawn(move || {
                    for n in 0..EACH {
                        count.fetch_add(1, Ordering::Release);
                        who.unpark();
                        if n % 64 == 0 {
                            std::thread::yield_now();
                        }
                    }
                });
                (sleeper, waker)
            })
            .collect();
        for (sleeper, waker) in pairs {
            sleeper.join().unwrap();
            waker.join().unwrap();
        }
        assert_eq!(woken.get(), 4 * EACH);
    });
}

#[test]
fn calls_and_spawns_from_four_os_threads_all_arrive() {
    let (handle, os_thread) = server();
    let count = Arc::new(AtomicUsize::new(0));
    let senders: Vec<_> = (0..4)
        .map(|_| {
            let (handle, count) = (handle.clone(), count.clone());
            std::thread::spawn(move || {
                let mut joins = Vec::new();
                for _ in 0..500 {
                    let (a, b) = (count.clone(), count.clone());
                    handle.call_soon(move || _ = a.fetch_add(1, Ordering::SeqCst)).unwrap();
                    joins.push(handle.spawn(move || _ = b.fetch_add(1, Ordering::SeqCst)).unwrap());
                }
                joins.into_iter().for_each(|join| join.join().unwrap());
            })
        })
        .collect();
    senders.into_iter().for_each(|sender| sender.join().unwrap());
    assert_eq!(count.load(Ordering::SeqCst), 4000);
    handle.stop().unwrap();
    os_thread.join().unwrap();
}
