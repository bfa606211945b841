//! A promise: set once, waited for by many, from everywhere.

use std::sync::{Arc, Mutex};

use futures::executor::block_on as outside;
use greenthread::future::block_on;
use greenthread::sync::Promise;
use greenthread::{hub, sleep, spawn, spawn_local, timeout, yield_now};

use crate::support::fresh::{fresh, ms, virtually};

#[test]
fn all_who_wait_get_the_value_and_the_second_setter_gets_its_own_back() {
    virtually(|| {
        let promise = Promise::<u32>::new();
        let waiters: Vec<_> = (0..3)
            .map(|_| {
                let promise = promise.clone();
                spawn(move || promise.wait().to_string())
            })
            .collect();
        assert_eq!(promise.get(), None);
        let theirs = promise.clone();
        spawn_local(move || {
            sleep(ms(2000));
            theirs.set(666).unwrap();
        });
        assert_eq!(promise.wait_timeout(ms(1999)), None);
        assert_eq!(*promise.wait(), 666);
        assert_eq!(promise.set(7), Err(7));
        for waiter in waiters {
            assert_eq!(waiter.join().unwrap(), "666");
        }
        assert_eq!(promise.into_inner().unwrap(), 666);
    });
}

#[test]
fn one_that_was_killed_or_timed_out_leaves_nothing_behind() {
    virtually(|| {
        let promise = Promise::new();
        let theirs = promise.clone();
        let killed = spawn_local(move || *theirs.wait());
        yield_now();
        killed.kill();
        assert!(killed.join().unwrap_err().is_killed());
        assert!(timeout(ms(1), || *promise.wait()).is_err());
        promise.set(1).unwrap();
        assert_eq!(*promise.wait(), 1);
        assert!(promise.into_inner().is_ok(), "nobody holds it");
    });
}

#[test]
fn callbacks_come_soon_in_their_order_and_never_at_once() {
    fresh(|| {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let note = |name: &'static str| {
            let seen = seen.clone();
            move |value: &u32| seen.lock().unwrap().push((name, *value))
        };
        let promise = Promise::new();
        promise.on_set(note("first"));
        promise.on_set(note("second"));
        promise.set(5).unwrap();
        promise.on_set(note("late"));
        assert!(seen.lock().unwrap().is_empty(), "not within `set`");
        hub::idle();
        assert_eq!(*seen.lock().unwrap(), [("first", 5), ("second", 5), ("late", 5)]);
    });
}

#[test]
fn a_callback_runs_on_the_hub_that_asked_and_one_that_panics_harms_nobody() {
    fresh(|| {
        let promise = Promise::new();
        let here = std::thread::current().id();
        let done = Promise::new();
        let theirs = done.clone();
        promise.on_set(|_| panic!("a callback's own"));
        promise.on_set(move |_| theirs.set(std::thread::current().id()).unwrap());
        let setter = promise.clone();
        std::thread::spawn(move || setter.set(()).unwrap());
        assert_eq!(*done.wait(), here);
    });
}

#[test]
fn futures_wait_for_it_too() {
    fresh(|| {
        let promise = Promise::new();
        let theirs = promise.clone();
        let outsider = std::thread::spawn(move || outside(async { *theirs.wait_async().await }));
        let theirs = promise.clone();
        let green = spawn_local(move || block_on(async { *theirs.wait_async().await }));
        yield_now();
        promise.set(9).unwrap();
        assert_eq!(green.join().unwrap(), 9);
        assert_eq!(outsider.join().unwrap(), 9);
    });
}
