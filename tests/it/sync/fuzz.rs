//! Random small programs of sends, receives, selects, permits and locks: a value is delivered exactly if the branch
//! that sent it ran, and once; and in the end everything is free.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex as StdMutex};
use std::time::Duration;

use greenthread::sync::channel::{self, Receiver, Sender};
use greenthread::sync::queue::Queue;
use greenthread::sync::select::Select;
use greenthread::sync::{Event, Mutex, Semaphore};
use greenthread::time::sleep_async;
use greenthread::{JoinHandle, hub, spawn_local, yield_now};

use crate::support::fresh::{fresh, ms};

const PERMITS: usize = 2;

/// Numbers that look random, and are the same each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % most
    }

    fn time(&mut self) -> Duration {
        ms(self.below(3) as u64)
    }
}

#[derive(Default)]
struct Log {
    sent: Vec<u32>,
    received: Vec<u32>,
    /// What one that was killed was about to send.
    perhaps: Vec<u32>,
}

struct World {
    channels: Vec<(Sender<u32>, Receiver<u32>)>,
    events: [Event; 2],
    semaphore: Semaphore,
    mutex: Mutex<()>,
    queue: Queue<u32>,
    next: AtomicU32,
    /// Who has a permit, and who has the lock.
    inside: [AtomicUsize; 2],
    log: StdMutex<Log>,
}

enum Out {
    Sent(u32),
    Received(u32),
    Other,
}

type Branch<'a> = Pin<Box<dyn Future<Output = Out> + 'a>>;

impl World {
    fn new() -> World {
        World {
            channels: [0, 0, 1, 2].map(channel::bounded).into(),
            events: [Event::new(), Event::new()],
            semaphore: Semaphore::new(PERMITS),
            mutex: Mutex::new(()),
            queue: Queue::bounded(1),
            next: AtomicU32::new(0),
            inside: [AtomicUsize::new(0), AtomicUsize::new(0)],
            log: StdMutex::default(),
        }
    }

    fn log<R>(&self, f: impl FnOnce(&mut Log) -> R) -> R {
        f(&mut self.log.lock().unwrap())
    }

    /// Holds something of which there is so much.
    fn holds(&self, what: usize, f: impl FnOnce()) {
        let others = self.inside[what].fetch_add(1, Ordering::SeqCst);
        assert!(others < [PERMITS, 1][what], "more than there are");
        f();
        self.inside[what].fetch_sub(1, Ordering::SeqCst);
    }

    fn branch(&self, kind: usize, at: usize, value: u32, time: Duration) -> Branch<'_> {
        let (sender, receiver) = &self.channels[at % 4];
        match kind {
            0 | 1 => Box::pin(async move {
                sender.send_async(value).await.unwrap();
                Out::Sent(value)
            }),
            2 | 3 => Box::pin(async move { Out::Received(receiver.recv_async().await.unwrap()) }),
            4 => Box::pin(async move {
                self.queue.put_async(value).await.unwrap();
                Out::Sent(value)
            }),
            5 => Box::pin(async move { Out::Received(self.queue.get_async().await.unwrap()) }),
            6 => Box::pin(async move {
                self.events[at % 2].wait_async().await;
                Out::Other
            }),
            7 => Box::pin(async move {
                let _permit = self.semaphore.acquire_async().await;
                self.holds(0, || ());
                Out::Other
            }),
            8 => Box::pin(async move {
                let _held = self.mutex.lock_async().await.unwrap();
                self.holds(1, || ());
                Out::Other
            }),
            9 => Box::pin(async move {
                let (sender, _) = &self.channels[2 + at % 2];
                sender.reserve_async().await.unwrap().send(value).unwrap();
                Out::Sent(value)
            }),
            _ => Box::pin(async move {
                sleep_async(time).await;
                Out::Other
            }),
        }
    }

    fn select(&self, dice: &mut Dice) {
        let (mut select, mut values) = (Select::new(), Vec::new());
        for _ in 0..1 + dice.below(4) {
            let (kind, at, time) = (dice.below(11), dice.below(4), dice.time());
            let value = self.next.fetch_add(1, Ordering::Relaxed);
            values.push(value);
            select.add(move || self.branch(kind, at, value, time));
        }
        self.log(|log| log.perhaps.extend(&values));
        let first = match dice.below(4) {
            0 => select.try_wait(),
            _ => select.wait_timeout(dice.time()),
        };
        self.note(first.map(|(_, out)| out), &values);
    }

    /// What came of an operation, that may have sent one of these.
    fn note(&self, out: Option<Out>, values: &[u32]) {
        self.log(|log| {
            log.perhaps.retain(|value| !values.contains(value));
            match out {
                Some(Out::Sent(value)) => log.sent.push(value),
                Some(Out::Received(value)) => log.received.push(value),
                Some(Out::Other) | None => {}
            }
        });
    }

    fn step(&self, dice: &mut Dice) {
        let (at, time) = (dice.below(4), dice.time());
        let (sender, receiver) = &self.channels[at];
        match dice.below(18) {
            0 => {
                let value = self.next.fetch_add(1, Ordering::Relaxed);
                self.log(|log| log.perhaps.push(value));
                let sent = sender.send_timeout(value, time).is_ok();
                self.note(sent.then_some(Out::Sent(value)), &[value]);
            }
            1 => self.note(receiver.recv_timeout(time).ok().map(Out::Received), &[]),
            2 => {
                let value = self.next.fetch_add(1, Ordering::Relaxed);
                self.log(|log| log.perhaps.push(value));
                let put = self.queue.put_timeout(value, time).is_ok();
                self.note(put.then_some(Out::Sent(value)), &[value]);
            }
            3 => self.note(self.queue.get_timeout(time).ok().map(Out::Received), &[]),
            4 => self.events[at % 2].set(),
            5 => self.events[at % 2].clear(),
            6 => {
                let permit = self.semaphore.acquire_timeout(time);
                permit.inspect(|_| self.holds(0, yield_in_peace));
            }
            7 => {
                let held = self.mutex.lock_timeout(time);
                held.into_iter().for_each(|_held| self.holds(1, yield_in_peace));
            }
            8 => yield_now(),
            9 | 10 => {
                let value = self.next.fetch_add(1, Ordering::Relaxed);
                self.log(|log| log.perhaps.push(value));
                let permit = self.channels[2 + at % 2].0.reserve_timeout(time).ok();
                yield_in_peace();
                let used = permit.filter(|_| dice.below(3) > 0);
                let sent = used.map(|permit| permit.send(value).unwrap());
                self.note(sent.map(|()| Out::Sent(value)), &[value]);
            }
            _ => self.select(dice),
        }
    }

    fn check(&self, what: impl std::fmt::Debug) {
        let left: Vec<u32> = self
            .channels
            .iter()
            .flat_map(|(_, receiver)| receiver.try_iter())
            .collect();
        self.log(|log| {
            log.received.extend(left);
            log.received.extend(self.queue.try_iter());
            let killed: Vec<u32> = log
                .received
                .iter()
                .copied()
                .filter(|value| log.perhaps.contains(value))
                .collect();
            log.sent.extend(killed);
            log.sent.sort_unstable();
            log.received.sort_unstable();
            assert_eq!(log.sent, log.received, "{what:?}");
        });
        for (sender, _) in &self.channels[2..] {
            let all: Vec<_> = (0..sender.capacity().unwrap()).map(|_| sender.try_reserve()).collect();
            assert!(all.iter().all(Result::is_ok), "room is lost: {what:?}");
            assert!(
                sender.try_reserve().is_err(),
                "there is more room than before: {what:?}"
            );
        }
        assert_eq!(self.semaphore.available(), PERMITS, "{what:?}");
        assert!(self.mutex.try_lock().is_ok(), "{what:?}");
    }
}

/// A kill here would leave `inside` as it is.
fn yield_in_peace() {
    greenthread::thread::shield(yield_now);
}

fn start(world: &Arc<World>, seed: u64, tasks: usize) -> Vec<JoinHandle<()>> {
    let task = |n| {
        let (world, mut dice) = (world.clone(), Dice(seed << 8 | n as u64));
        let steps = 2 + dice.below(8);
        spawn_local(move || (0..steps).for_each(|_| world.step(&mut dice)))
    };
    (0..tasks).map(task).collect()
}

#[test]
fn on_one_hub() {
    for seed in 0..60 {
        fresh(move || {
            hub::Builder::new().virtual_clock(true).seed(seed).install().unwrap();
            for program in 0..40 {
                let world = Arc::new(World::new());
                let mut dice = Dice(seed << 32 | program);
                let tasks = start(&world, seed << 16 | program, 2 + dice.below(4));
                let victim = dice.below(2 * tasks.len());
                (0..dice.below(12)).for_each(|_| yield_now());
                if let Some(victim) = tasks.get(victim) {
                    victim.kill();
                }
                for task in tasks {
                    if let Err(error) = task.join() {
                        assert!(error.is_killed(), "{seed} {program}: {error}");
                    }
                }
                world.check((seed, program));
            }
        });
    }
}

#[test]
fn on_several_os_threads() {
    for seed in 0..150 {
        fresh(move || {
            let world = Arc::new(World::new());
            let start = |n: u64| {
                let world = world.clone();
                std::thread::spawn(move || {
                    start(&world, seed << 8 | n, 3)
                        .into_iter()
                        .for_each(|task| task.join().unwrap());
                })
            };
            let os_threads: Vec<_> = (0..3).map(start).collect();
            os_threads.into_iter().for_each(|one| one.join().unwrap());
            world.check(seed);
        });
    }
}
