//! Tasks on many threads of tokio's, and a green thread, that lose patience in the midst of their waits: what a
//! primitive sets aside for one that is gone must go to another, at whatever moment it went.

use std::collections::HashSet;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use greenthread::future::block_on;
use greenthread::sync::{Event, Mutex, RwLock, Semaphore, channel};

const TASKS: usize = 12;
const ROUNDS: usize = 1000;

/// A few numbers in no order.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// Gives way to others, whoever polls.
async fn give_way() {
    let mut polled = false;
    poll_fn(|context| {
        if std::mem::replace(&mut polled, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Polls at most so many times, giving way in between, and drops the future then.
async fn hasty<F: Future>(polls: u64, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    for _ in 0..polls {
        let polled = poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await;
        if let Poll::Ready(output) = polled {
            return Some(output);
        }
        give_way().await;
    }
    None
}

/// Runs a dozen of `task`, all but the first on four threads of tokio's, and that one in a green thread.
fn storm<F: Future<Output = ()> + Send + 'static>(task: impl Fn(usize, Dice) -> F) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_time()
        .build()
        .unwrap();
    let tasks: Vec<_> = (1..TASKS)
        .map(|n| runtime.spawn(task(n, Dice((n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)))))
        .collect();
    let green = task(0, Dice(7));
    let green = std::thread::spawn(|| greenthread::run(|| block_on(green)));
    runtime.block_on(async {
        for task in tasks {
            let ended = tokio::time::timeout(Duration::from_secs(60), task).await;
            ended.expect("somebody waits for ever").unwrap();
        }
    });
    green.join().unwrap();
}

#[test]
fn compat_storm_of_drops_loses_no_permit() {
    let (semaphore, inside) = (Arc::new(Semaphore::new(3)), Arc::new(AtomicUsize::new(0)));
    storm(|_, mut dice| {
        let (semaphore, inside) = (semaphore.clone(), inside.clone());
        async move {
            for _ in 0..ROUNDS {
                if let Some(_permit) = hasty(dice.roll(4), semaphore.acquire_async()).await {
                    assert!(inside.fetch_add(1, Ordering::SeqCst) < 3);
                    give_way().await;
                    inside.fetch_sub(1, Ordering::SeqCst);
                }
            }
            // Patiently: nobody may have taken its wake along.
            drop(semaphore.acquire_async().await);
        }
    });
    assert_eq!(semaphore.available(), 3);
}

#[test]
fn compat_storm_of_drops_keeps_locks() {
    let (locks, had) = (Arc::new((Mutex::new(0), RwLock::new(0))), Arc::new(AtomicUsize::new(0)));
    storm(|_, mut dice| {
        let (locks, had) = (locks.clone(), had.clone());
        async move {
            for _ in 0..ROUNDS {
                if let Some(value) = hasty(dice.roll(4), locks.0.lock_async()).await {
                    let mut value = value.unwrap();
                    let before = *value;
                    give_way().await;
                    *value = before + 1;
                    had.fetch_add(1, Ordering::SeqCst);
                }
                if let Some(value) = hasty(dice.roll(4), locks.1.read_async()).await {
                    let value = value.unwrap();
                    let before = *value;
                    give_way().await;
                    assert_eq!(*value, before, "somebody writes while this reads");
                }
                if let Some(value) = hasty(dice.roll(4), locks.1.write_async()).await {
                    let mut value = value.unwrap();
                    let before = *value;
                    give_way().await;
                    *value = before + 1;
                    had.fetch_add(1, Ordering::SeqCst);
                }
            }
            // Patiently: nobody may have taken its wake along.
            drop(locks.0.lock_async().await);
            drop(locks.1.write_async().await);
        }
    });
    let both = *locks.0.try_lock().unwrap() + *locks.1.try_write().unwrap();
    assert_eq!(both, had.load(Ordering::SeqCst));
}

#[test]
fn compat_storm_of_drops_loses_no_message_and_doubles_none() {
    for capacity in [0, 1, 8] {
        let (sender, receiver) = channel::bounded(capacity);
        let (sent, got) = (
            Arc::new(std::sync::Mutex::new(Vec::new())),
            Arc::new(std::sync::Mutex::new(Vec::new())),
        );
        let (senders, number) = (Arc::new(AtomicUsize::new(TASKS / 2)), Arc::new(AtomicUsize::new(0)));
        let over = Arc::new(Event::new());
        storm(|n, mut dice| {
            let (sender, receiver, sent, got) = (sender.clone(), receiver.clone(), sent.clone(), got.clone());
            let (senders, number, over) = (senders.clone(), number.clone(), over.clone());
            async move {
                if n % 2 == 0 {
                    for _ in 0..ROUNDS / 5 {
                        let message = number.fetch_add(1, Ordering::SeqCst);
                        if let Some(result) = hasty(dice.roll(6), sender.send_async(message)).await {
                            result.unwrap();
                            sent.lock().unwrap().push(message);
                        }
                    }
                    if senders.fetch_sub(1, Ordering::SeqCst) == 1 {
                        over.set();
                    }
                } else {
                    while !over.is_set() || !receiver.is_empty() {
                        if let Some(message) = hasty(dice.roll(4), receiver.recv_async()).await {
                            got.lock().unwrap().push(message.unwrap());
                        }
                        give_way().await;
                    }
                }
            }
        });
        got.lock().unwrap().extend(receiver.try_iter());
        let got = std::mem::take(&mut *got.lock().unwrap());
        let once: HashSet<usize> = got.iter().copied().collect();
        assert_eq!(once.len(), got.len(), "capacity {capacity}: a message came twice");
        let sent = std::mem::take(&mut *sent.lock().unwrap());
        assert!(!sent.is_empty() && sent.iter().all(|message| once.contains(message)));
    }
}
