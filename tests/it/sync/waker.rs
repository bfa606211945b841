//! Futures of primitives whose wakers do what none should (they lock, and panic), and that are dropped too late.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Wake, Waker};

use greenthread::sync::{BoundedSemaphore, Condvar, Event, Mutex};
use greenthread::{spawn, yield_now};

use crate::support::fresh::{PATIENCE, fresh};

struct Calls<F>(F);

impl<F: Fn() + Send + Sync + 'static> Wake for Calls<F> {
    fn wake(self: Arc<Self>) {
        self.0();
    }
}

/// Polls once; `f` is called when it is to be polled again.
fn poll_once(future: Pin<&mut impl Future>, f: impl Fn() + Send + Sync + 'static) {
    let waker = Waker::from(Arc::new(Calls(f)));
    assert!(future.poll(&mut Context::from_waker(&waker)).is_pending());
}

#[test]
fn a_waker_that_locks_is_not_let_in_by_the_wake_of_whoever_called_it() {
    fresh(|| {
        let (outer, inner, notice) = (
            Arc::new(Mutex::new(())),
            Arc::new(Mutex::new(0)),
            Arc::new(Condvar::new()),
        );
        let held = inner.lock().unwrap();
        let (theirs, theirs_notice) = (outer.clone(), notice.clone());
        let waits = spawn(move || {
            let guard = theirs.lock().unwrap();
            yield_now();
            // In line for the notice it unlocks `outer`: so the waker is called, and waits for `inner`.
            drop(theirs_notice.wait(guard));
        });
        yield_now();
        let mut next = Box::pin(outer.lock_async());
        let theirs = inner.clone();
        poll_once(next.as_mut(), move || *theirs.lock().unwrap() += 1);
        yield_now();
        notice.notify_one();
        yield_now();
        assert_eq!(*held, 0, "two had the lock at once");
        drop((held, next));
        assert!(waits.join().is_ok());
        assert_eq!(*inner.lock().unwrap(), 1);
    });
}

#[test]
fn all_are_woken_though_a_waker_panics() {
    fresh(|| {
        let event = Arc::new(Event::new());
        let mut evil = pin!(event.wait_async());
        poll_once(evil.as_mut(), || panic!("not me"));
        let theirs = event.clone();
        let mut waits = spawn(move || theirs.wait());
        yield_now();
        assert!(catch_unwind(AssertUnwindSafe(|| event.set())).is_err());
        assert!(waits.join_timeout(PATIENCE).is_some());
    });
}

#[test]
fn a_permit_that_comes_back_from_a_dropped_future_is_not_one_too_many() {
    fresh(|| {
        let one = BoundedSemaphore::new(1);
        one.acquire().forget();
        let mut next = Box::pin(one.acquire_async());
        poll_once(next.as_mut(), || {});
        assert!(one.release().is_ok(), "it is handed over");
        assert!(one.release().is_ok(), "and nobody knows of it yet");
        drop(next);
        assert_eq!(one.available(), 1);
    });
}
