//! Storms of wakes: four OS threads call the waker of one future, which must miss none, and be polled no more often
//! than it was woken.

use std::future::{Future, poll_fn};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Poll, Waker};

use greenthread::future::{asyncify, await_, block_on, spawn};
use greenthread::{spawn as spawn_green, spawn_local, yield_now};

use crate::support::fresh::fresh;

const THREADS: usize = 4;
const WAKES: usize = 100_000;

#[derive(Default)]
struct Storm {
    asked: AtomicUsize,
    polls: AtomicUsize,
    waker: OnceLock<Waker>,
}

impl Storm {
    /// Ready when all have asked, each of whom wakes after that.
    fn future(self: &Arc<Storm>) -> impl Future<Output = ()> + Send + use<> {
        let storm = self.clone();
        poll_fn(move |context| {
            storm.polls.fetch_add(1, Ordering::Relaxed);
            // Ours stays the same for as long as it is waited for.
            assert!(
                storm
                    .waker
                    .get_or_init(|| context.waker().clone())
                    .will_wake(context.waker())
            );
            if storm.asked.load(Ordering::Relaxed) == THREADS * WAKES {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
    }
}

/// `run` waits for the future. That it comes back is the test: the last one to ask has been heard.
fn rages(run: impl FnOnce(&Arc<Storm>) + Send + 'static) {
    let storm = Arc::new(Storm::default());
    let theirs = storm.clone();
    let wakers = std::thread::spawn(move || {
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    let waker = theirs.waker.wait();
                    for _ in 0..WAKES {
                        theirs.asked.fetch_add(1, Ordering::Relaxed);
                        waker.wake_by_ref();
                    }
                });
            }
        });
    });
    let waited = storm.clone();
    fresh(move || run(&waited));
    wakers.join().unwrap();
    let polls = storm.polls.load(Ordering::Relaxed);
    assert!(polls <= THREADS * WAKES + 1, "{polls} polls");
}

#[test]
fn storm_of_wakes_on_a_task() {
    rages(|storm| spawn(storm.future()).join().unwrap());
}

#[test]
fn storm_of_wakes_on_a_block_on_of_a_green_thread_and_of_main() {
    rages(|storm| {
        let future = storm.future();
        spawn_green(move || block_on(future)).join().unwrap();
    });
    rages(|storm| block_on(storm.future()));
}

#[test]
fn storm_of_wakes_on_a_future_with_a_stack() {
    rages(|storm| {
        let future = storm.future();
        spawn(asyncify(|| await_(future))).join().unwrap();
    });
}

#[test]
fn storm_of_wakes_on_a_busy_hub() {
    rages(|storm| {
        let task = spawn(storm.future());
        while !task.is_finished() {
            yield_now();
        }
    });
}

#[test]
fn wakes_within_a_poll_make_one_more() {
    fn thousand(waker: &Waker) {
        (0..1000).for_each(|_| waker.wake_by_ref());
        std::thread::scope(|scope| {
            scope.spawn(|| (0..1000).for_each(|_| waker.wake_by_ref()));
        });
    }
    /// Ready at the third poll, which nothing but `release` brings about.
    fn counted() -> (impl Future<Output = ()> + Send, Arc<AtomicUsize>, Arc<OnceLock<Waker>>) {
        let (polls, release) = (Arc::new(AtomicUsize::new(0)), Arc::new(OnceLock::<Waker>::new()));
        let (counts, place) = (polls.clone(), release.clone());
        let future = poll_fn(move |context| match counts.fetch_add(1, Ordering::Relaxed) {
            0 => {
                thousand(context.waker());
                Poll::Pending
            }
            1 => {
                let _ = place.set(context.waker().clone());
                Poll::Pending
            }
            _ => Poll::Ready(()),
        });
        (future, polls, release)
    }
    fresh(|| {
        for as_task in [false, true] {
            let (future, polls, release) = counted();
            let waits = if as_task {
                spawn(future).into()
            } else {
                spawn_local(|| block_on(future))
            };
            (0..10).for_each(|_| yield_now());
            assert_eq!(polls.load(Ordering::Relaxed), 2, "two thousand wakes are one");
            release.get().unwrap().wake_by_ref();
            waits.join().unwrap();
            assert_eq!(polls.load(Ordering::Relaxed), 3);
        }
    });
}
