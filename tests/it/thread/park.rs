//! Park, unpark, yield.

use std::cell::RefCell;
use std::rc::Rc;

use greenthread::{sleep, spawn, spawn_local, thread, time, yield_now};

use crate::support::fresh::{fresh, ms, secs, virtually};

#[test]
fn an_unpark_before_the_park_is_not_lost() {
    fresh(|| {
        let sleeper = spawn(|| {
            yield_now();
            thread::park();
            5
        });
        sleeper.thread().unpark();
        sleeper.thread().unpark(); // one token, not two
        assert_eq!(sleeper.join().unwrap(), 5);
    });
}

#[test]
fn tokens_do_not_add_up() {
    virtually(|| {
        let start = time::now();
        let sleeper = spawn(move || {
            yield_now();
            thread::park();
            thread::park_timeout(secs(9));
            time::now() - start
        });
        sleeper.thread().unpark();
        sleeper.thread().unpark();
        assert_eq!(sleeper.join().unwrap(), secs(9));
    });
}

#[test]
fn park_timeout_ends_by_time_or_by_unpark() {
    virtually(|| {
        let start = time::now();
        thread::park_timeout(secs(2)); // the native stack parks as well
        assert_eq!(time::now() - start, secs(2));
        let me = thread::current();
        spawn(move || {
            sleep(secs(1));
            me.unpark();
        });
        thread::park_timeout(secs(50));
        assert_eq!(time::now() - start, secs(3));
        thread::park_timeout(secs(0));
        assert_eq!(time::now() - start, secs(3));
    });
}

#[test]
fn an_unpark_does_not_end_another_kind_of_wait() {
    virtually(|| {
        let start = time::now();
        let sleeper = spawn(move || {
            sleep(secs(5));
            let slept = time::now() - start;
            thread::park(); // the token is still there
            slept
        });
        yield_now();
        sleeper.thread().unpark();
        assert_eq!(sleeper.join().unwrap(), secs(5));
        assert_eq!(time::now() - start, secs(5));
    });
}

#[test]
fn another_os_thread_unparks() {
    fresh(|| {
        let sleeper = spawn(|| {
            thread::park();
            7
        });
        yield_now();
        let who = sleeper.thread();
        let waker = std::thread::spawn(move || who.unpark());
        assert_eq!(sleeper.join().unwrap(), 7);
        waker.join().unwrap();
        let me = thread::current();
        let waker = std::thread::spawn(move || me.unpark());
        thread::park();
        waker.join().unwrap();
    });
}

#[test]
fn unparking_a_finished_one_is_nothing() {
    virtually(|| {
        let start = time::now();
        let old = spawn(|| ());
        let who = old.thread();
        old.join().unwrap();
        let next = spawn(move || {
            thread::park_timeout(secs(4));
            time::now() - start
        });
        yield_now();
        who.unpark();
        assert_eq!(next.join().unwrap(), secs(4));
    });
}

#[test]
fn yields_go_round() {
    fresh(|| {
        let order = Rc::new(RefCell::new(Vec::new()));
        let handles: Vec<_> = ['a', 'b', 'c']
            .into_iter()
            .map(|who| {
                let order = order.clone();
                spawn_local(move || {
                    for n in 0..3 {
                        order.borrow_mut().push((n, who));
                        yield_now();
                    }
                })
            })
            .collect();
        assert!(thread::join_all(handles).iter().all(Result::is_ok));
        let expected: Vec<_> = (0..3).flat_map(|n| ['a', 'b', 'c'].map(|who| (n, who))).collect();
        assert_eq!(*order.borrow(), expected);
    });
}

#[test]
fn main_yields_too() {
    fresh(|| {
        let handle = spawn(|| ());
        assert!(!handle.is_finished());
        yield_now();
        assert!(handle.is_finished());
        sleep(ms(0));
        handle.join().unwrap();
    });
}
