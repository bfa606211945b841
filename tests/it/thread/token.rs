//! Tokens: children, waits, runs, nurseries.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use greenthread::thread::CancelToken;
use greenthread::{future, select, sleep, spawn, thread, time, timeout, yield_now};

use crate::support::fresh::{fresh, ms, secs, virtually};

#[test]
fn a_cancel_reaches_children_and_grandchildren_but_no_parent() {
    fresh(|| {
        let root = CancelToken::new();
        let child = root.child();
        let (grandchild, other) = (child.child(), root.child());
        child.cancel();
        child.cancel();
        let all = [&root, &child, &grandchild, &other].map(CancelToken::is_cancelled);
        assert_eq!(all, [false, true, true, false]);
        assert!(child.child().is_cancelled());
        root.cancel();
        assert!(other.is_cancelled() && root.child().child().is_cancelled());
    });
}

#[test]
fn waits_end_with_the_cancel_in_all_faces() {
    virtually(|| {
        let token = CancelToken::new();
        assert!(!token.wait_timeout(secs(1)) && timeout(secs(1), || token.wait()).is_err());
        let theirs = [(); 4].map(|()| token.clone());
        let [blocking, selecting, polled, elsewhere] = theirs;
        let waiters = [
            spawn(move || blocking.wait()),
            spawn(move || {
                select! {
                    wait(selecting) => {},
                    after(secs(60)) => unreachable!("late"),
                }
            }),
            spawn(move || future::block_on(polled.wait_async())),
        ];
        let os_thread = std::thread::spawn(move || elsewhere.wait());
        yield_now();
        token.cancel();
        waiters.into_iter().for_each(|waiter| waiter.join().unwrap());
        os_thread.join().unwrap();
        token.wait();
    });
}

#[test]
fn run_is_cut_short_and_leaves_nothing_behind() {
    virtually(|| {
        let token = CancelToken::new();
        let start = time::now();
        let theirs = token.clone();
        let sleeper = spawn(move || {
            let cut = theirs.run(|| sleep(secs(60)));
            sleep(secs(1)); // not cut: the cancel is over
            cut.is_err()
        });
        sleep(secs(2));
        assert_eq!(token.run(|| 7), Ok(7));
        token.cancel();
        assert!(sleeper.join().unwrap());
        assert_eq!(time::now() - start, secs(3));
        let called = AtomicUsize::new(0);
        assert!(token.run(|| called.fetch_add(1, Ordering::Relaxed)).is_err());
        assert_eq!(called.into_inner(), 0);
    });
}

#[test]
fn run_ends_by_a_cancel_of_another_os_thread_and_by_a_kill() {
    fresh(|| {
        let token = CancelToken::new();
        let theirs = token.clone();
        let canceller = std::thread::spawn(move || theirs.cancel());
        assert!(token.run(|| sleep(secs(60))).is_err());
        canceller.join().unwrap();

        let token = CancelToken::new();
        let killed = spawn(move || _ = token.run(thread::park));
        yield_now();
        killed.kill();
        assert!(killed.join().unwrap_err().is_killed());
    });
}

#[test]
fn a_future_is_dropped_by_the_cancel() {
    virtually(|| {
        let token = CancelToken::new();
        let alive = Arc::new(());
        let (theirs, owned) = (token.clone(), alive.clone());
        let task = future::spawn(async move {
            let sleeps = async move {
                let _owned = owned;
                time::sleep_async(secs(60)).await;
            };
            theirs.run_async(sleeps).await.is_err()
        });
        sleep(ms(1));
        token.cancel();
        assert!(task.join().unwrap());
        assert_eq!(Arc::strong_count(&alive), 1);
    });
}

#[test]
fn long_chains_of_children_are_cancelled_and_dropped_without_recursion() {
    fresh(|| {
        let root = CancelToken::new();
        let mut last = root.child();
        for _ in 0..100_000 {
            last = last.child();
        }
        root.cancel();
        assert!(last.is_cancelled());
        drop(last);
        let mut last = root.child();
        for _ in 0..10 {
            last = last.child();
        }
        drop(root);
        assert!(last.is_cancelled());
    });
}

#[test]
fn children_that_are_dropped_leave_their_parent() {
    fresh(|| {
        let root = CancelToken::new();
        for _ in 0..1000 {
            drop(root.child().child());
        }
        let text = format!("{:?}", root.child());
        assert!(text.contains("is_cancelled: false"), "{text}");
        root.cancel(); // finds nothing that was dropped
    });
}
