//! "This operation would block for ever": when it is true, and what it says.
//!
//! Primitives are `Send`, so any other OS thread may hold the other end. The claim is made only after 100 ms with nothing
//! ready, no timer and no descriptor waited for, and only if every other OS thread of the process is an equally idle hub
//! or an idle pool thread of ours: the kernel's list of threads is compared with the register here.
//!
//! # Two looks
//! One look at thread after thread is no picture of a moment: C wakes B and rests, B wakes the one that looks, and each was
//! seen at rest. So each thread counts how often it began and ended its rest ([`Idle`]), and all are looked at twice. If all
//! counts are the same they all rested at any moment between the two looks; and if nothing had been sent to them or queued
//! that they had not taken by then, nothing will ever happen. The proof needs the order in which both sides go:
//!
//! | a thread that gets something to do | the looks, at each thread |
//! |---|---|
//! | ends its rest, then takes the message or job | sees that no message or job waits, then reads the count |
//!
//! Checked with loom (`RUSTFLAGS="--cfg loom" cargo test --release --lib loom`).
#![forbid(unsafe_code)]

use std::fmt;
use std::sync::Arc;
#[cfg(not(all(test, loom)))]
use std::sync::atomic::AtomicU64;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

#[cfg(all(test, loom))]
use loom::sync::atomic::AtomicU64;

use super::Hub;
use super::remote::Shared;
use crate::sys::fork::{Global, Order};

/// How long a hub must have been idle before it may say so.
pub(super) const PATIENCE: Duration = Duration::from_millis(100);

/// Whether an OS thread rests: only a message or a job of ours gives it something to do. Odd while it does; it grows with each
/// change.
#[derive(Debug)]
pub(crate) struct Idle(AtomicU64);

impl Idle {
    fn new() -> Idle {
        Idle(AtomicU64::new(0))
    }

    /// Its OS thread is about to wait for a message or a job, and for nothing else.
    fn rest(&self) {
        self.0.fetch_or(1, Ordering::AcqRel);
    }

    /// It may do something from now on. Before it takes what it has got.
    fn rise(&self) {
        if self.0.load(Ordering::Relaxed) & 1 == 1 {
            self.0.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// The count, if it rests.
    fn look(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Acquire)).filter(|count| count & 1 == 1)
    }
}

/// How many jobs were queued and not taken.
static QUEUED: AtomicUsize = AtomicUsize::new(0);

/// A job that waits in a queue of ours for an OS thread of ours. Dropped when that has it, which has called
/// [`rise`](Registered::rise) before, or when it will not run.
#[derive(Debug)]
pub(crate) struct Waiting(());

impl Waiting {
    pub(crate) fn new() -> Waiting {
        QUEUED.fetch_add(1, Ordering::AcqRel);
        Waiting(())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        QUEUED.fetch_sub(1, Ordering::AcqRel);
    }
}

struct Known {
    thread: u64,
    idle: Arc<Idle>,
    /// Where messages to it wait.
    hub: Option<&'static Shared>,
}

impl Known {
    fn look(&self) -> Option<u64> {
        // In this order; see above.
        if self.hub.is_some_and(|shared| shared.inbox().is_pending()) {
            return None;
        }
        self.idle.look()
    }
}

static KNOWN: Global<Vec<Known>> = Global::new(Order::Known, Vec::new());

/// An OS thread of ours, registered until this is dropped. It says when it rests.
#[derive(Debug)]
pub(crate) struct Registered {
    idle: Arc<Idle>,
}

impl Registered {
    /// Registers the OS thread that calls.
    pub(crate) fn new() -> Registered {
        Registered::with(None)
    }

    /// Registers the OS thread that calls, which has this hub.
    pub(super) fn hub(shared: &'static Shared) -> Registered {
        Registered::with(Some(shared))
    }

    fn with(hub: Option<&'static Shared>) -> Registered {
        let idle = Arc::new(Idle::new());
        KNOWN.lock().push(Known {
            thread: crate::sys::thread::id(),
            idle: idle.clone(),
            hub,
        });
        Registered { idle }
    }

    /// It is about to wait for a message or a job, and for nothing else.
    pub(crate) fn rest(&self) {
        self.idle.rest();
    }

    /// It may do something from now on. To be called before it takes what it has got.
    pub(crate) fn rise(&self) {
        self.idle.rise();
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        KNOWN.lock().retain(|known| !Arc::ptr_eq(&known.idle, &self.idle));
    }
}

/// Two looks at all, and `meanwhile` between them; whether all rested all the time, and `meanwhile` says so too.
fn all_rest<T: PartialEq>(
    looks: &[impl Fn() -> Option<T>],
    queued: impl Fn() -> bool,
    meanwhile: impl FnOnce() -> bool,
) -> bool {
    let look = || -> Option<Vec<T>> {
        if queued() {
            return None;
        }
        looks.iter().map(|look| look()).collect()
    };
    let first = look();
    first.is_some() && meanwhile() && look() == first
}

/// Whether every other OS thread of this process is idle, and ours. `false` where that cannot be known.
pub(super) fn all_others_idle() -> bool {
    let me = crate::sys::thread::id();
    let known = KNOWN.lock();
    let mut others: Vec<_> = known.iter().filter(|known| known.thread != me).collect();
    // One look for each OS thread: that of a pool has a hub besides, if a job has used one, which rests while the job waits.
    others.sort_by_key(|known| known.thread);
    let threads: Vec<_> = others.chunk_by(|a, b| a.thread == b.thread).collect();
    let rests = |known: &[&Known]| known.iter().enumerate().find_map(|(i, known)| Some((i, known.look()?)));
    let looks: Vec<_> = threads.iter().map(|known| || rests(known)).collect();
    let are_ours = || {
        crate::sys::thread::all().is_some_and(|threads| {
            let mut threads = threads.into_iter().filter(|thread| *thread != me);
            threads.all(|thread| {
                crate::sys::report::is_writer(thread) || others.iter().any(|known| known.thread == thread)
            })
        })
    };
    all_rest(&looks, || QUEUED.load(Ordering::Acquire) > 0, are_ours)
}

/// Forgets all OS threads and jobs: this is a forked child, which has only the one.
pub(super) fn forget_all() {
    KNOWN.lock().clear();
    QUEUED.store(0, Ordering::Release);
}

/// The payload of the panic that ends a wait which nothing could end.
///
/// Its text says who waits for what, and where each was spawned.
///
/// ```no_run
/// use greenthread::{hub::LoopExit, thread};
/// let waited = std::panic::catch_unwind(|| thread::spawn(thread::park).join());
/// // In a program with no other OS thread: nothing can ever unpark it.
/// let exit = waited.unwrap_err().downcast::<LoopExit>().unwrap();
/// assert!(exit.to_string().starts_with("this operation would block forever"));
/// ```
///
/// # Coming from Python
/// `gevent.exceptions.LoopExit`.
#[derive(Clone, PartialEq, Eq)]
pub struct LoopExit {
    report: String,
}

impl LoopExit {
    pub(super) fn new(hub: &Hub) -> LoopExit {
        let mut report = String::from(
            "this operation would block forever: nothing is ready, and no timer, descriptor or other thread can wake ",
        );
        report.push_str(&format!("the native stack, which waits for {}", hub.native.why()));
        for line in super::lines(hub) {
            report.push_str("\n  ");
            report.push_str(&line);
        }
        LoopExit { report }
    }
}

impl fmt::Display for LoopExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.report)
    }
}

impl fmt::Debug for LoopExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoopExit").field("report", &self.report).finish()
    }
}

impl std::error::Error for LoopExit {}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::super::inbox::{Inbox, PARKED};
    use super::*;
    use loom::sync::{Condvar, Mutex};

    /// An OS thread with a hub: its inbox, its rest, and where it sleeps.
    struct Thread {
        inbox: Inbox<usize>,
        idle: Idle,
        bed: (Mutex<bool>, Condvar),
    }

    impl Thread {
        fn new() -> Thread {
            let inbox = Inbox::new();
            inbox.open();
            Thread {
                inbox,
                idle: Idle::new(),
                bed: (Mutex::new(false), Condvar::new()),
            }
        }

        fn send(&self, message: usize) {
            if self.inbox.send(message, || true) == Ok(PARKED) {
                *self.bed.0.lock().unwrap() = true;
                self.bed.1.notify_one();
            }
        }

        /// What a hub does until it gets a message: as `Hub::sleep`.
        fn receive(&self) -> usize {
            loop {
                if self.inbox.fall_asleep(PARKED) {
                    self.idle.rest();
                    let mut rung = self.bed.0.lock().unwrap();
                    while !*rung {
                        rung = self.bed.1.wait(rung).unwrap();
                    }
                    *rung = false;
                    drop(rung);
                    self.inbox.wake_up();
                    self.idle.rise();
                }
                let mut messages = Vec::new();
                self.inbox.drain(&mut messages);
                if let Some(message) = messages.pop() {
                    return message;
                }
            }
        }

        fn look(&self) -> Option<u64> {
            if self.inbox.is_pending() {
                return None;
            }
            self.idle.look()
        }
    }

    /// Two that rest, a message to one of them on its way, who wakes the other, who wakes the one that looks.
    #[test]
    fn loom_a_wake_on_its_way_along_a_chain_is_seen() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(|| {
            let threads: Arc<[Thread; 3]> = Arc::new([Thread::new(), Thread::new(), Thread::new()]);
            // To `first`, before anybody looks.
            threads[1].send(1);
            let chain = [1, 2].map(|me| {
                let threads = threads.clone();
                loom::thread::spawn(move || {
                    let message = threads[me].receive();
                    let next = if me == 1 { 2 } else { 0 };
                    threads[next].send(message + 1);
                    // And it rests again, for good.
                    if threads[me].inbox.fall_asleep(PARKED) {
                        threads[me].idle.rest();
                    }
                })
            });
            let looks = [1, 2].map(|thread| {
                let threads = threads.clone();
                move || threads[thread].look()
            });
            // As `Hub::sleep`: its own inbox last.
            let hopeless = all_rest(&looks, || false, || true) && !threads[0].inbox.is_pending();
            for link in chain {
                link.join().unwrap();
            }
            assert!(!hopeless, "a message was on its way");
        });
    }
}
