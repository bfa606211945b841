//! "This operation would block forever": when a hub may say so, and the report ([`LoopExit`]).
//!
//! Primitives are `Send`, so any other OS thread may hold the other end of a wait. A hub makes the claim only after 100
//! ms in which nothing was ready, no timer was pending and no descriptor was waited for. Every other OS thread of the
//! process must be an equally idle hub or an idle pool thread of this crate: the kernel's list of threads is compared
//! with the register in this file.
//!
//! # Two looks
//! Looking at one thread after the other does not give a snapshot. Say C wakes B and rests, and B then wakes the hub
//! that looks. The hub may have seen B at rest before C's wake, and C at rest after it, although a wake was on its way.
//! So each thread counts how often it began and ended its rest ([`Idle`]), and all threads are looked at twice. If all
//! counts are the same, all threads rested at each moment between the two looks. If at that time there was also no
//! message and no job that a thread had yet to take, nothing will ever happen. The proof needs this order on both
//! sides:
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

use super::shared::Shared;
use crate::sys::fork::{Global, Order};

/// How long a hub must have been idle before it may raise [`LoopExit`].
pub(super) const PATIENCE: Duration = Duration::from_millis(100);

/// Whether an OS thread *rests*: only a message or a job of this crate can give it something to do. The count is odd
/// while it rests, and grows with each change.
#[derive(Debug)]
pub(crate) struct Idle(AtomicU64);

impl Idle {
    fn new() -> Idle {
        Idle(AtomicU64::new(0))
    }

    /// The OS thread is about to wait for a message or a job, and for nothing else.
    fn rest(&self) {
        self.0.fetch_or(1, Ordering::AcqRel);
    }

    /// The OS thread may do something from now on. To be called before it takes the message or job.
    fn rise(&self) {
        // Only this OS thread changes its count, so a relaxed load sees the latest value.
        if self.0.load(Ordering::Relaxed) & 1 == 1 {
            self.0.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// The count, if the OS thread rests.
    fn look(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Acquire)).filter(|count| count & 1 == 1)
    }
}

/// How many jobs are queued and not yet taken.
static QUEUED: AtomicUsize = AtomicUsize::new(0);

/// A job that waits in a queue of this crate for an OS thread of a pool. It is dropped when an OS thread has taken the
/// job, after that thread has called [`rise`](Registered::rise), or when the job will not run.
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

/// An entry of the register.
struct Known {
    thread: u64,
    idle: Arc<Idle>,
    /// The hub of the OS thread, with the inbox where messages to it wait. `None` for an entry that a pool has made.
    hub: Option<&'static Shared>,
}

impl Known {
    fn look(&self) -> Option<u64> {
        // The inbox before the count. If it is empty here, each message before this look was taken, and the count had
        // changed before that. A message after this look changes the count, or is in the inbox at the second look.
        if self.hub.is_some_and(|shared| shared.inbox().is_pending()) {
            return None;
        }
        self.idle.look()
    }
}

static KNOWN: Global<Vec<Known>> = Global::new(Order::Known, Vec::new());

/// The registration of an OS thread of this crate, until this is dropped. The OS thread says through it when it rests.
#[derive(Debug)]
pub(crate) struct Registered {
    idle: Arc<Idle>,
}

impl Registered {
    /// Registers the calling OS thread.
    pub(crate) fn new() -> Registered {
        Registered::with(None)
    }

    /// Registers the calling OS thread, which has this hub.
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

    /// The OS thread is about to wait for a message or a job, and for nothing else.
    pub(crate) fn rest(&self) {
        self.idle.rest();
    }

    /// The OS thread may do something from now on. To be called before it takes the message or job.
    pub(crate) fn rise(&self) {
        self.idle.rise();
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        KNOWN.lock().retain(|known| !Arc::ptr_eq(&known.idle, &self.idle));
    }
}

/// Looks at all threads twice, and asks `meanwhile` in between. `true` if all rested the whole time and `meanwhile`
/// agrees.
fn all_rest<T: PartialEq>(
    looks: &[impl Fn() -> Option<T>],
    queued: impl Fn() -> bool,
    meanwhile: impl FnOnce() -> bool,
) -> bool {
    let look = || -> Option<Vec<T>> {
        // The queue before the counts, for the same reason as in `Known::look`.
        if queued() {
            return None;
        }
        looks.iter().map(|look| look()).collect()
    };
    // Equal counts: no thread has ended its rest between the two looks.
    let first = look();
    first.is_some() && meanwhile() && look() == first
}

/// Whether every other OS thread of this process belongs to this crate and is idle. `false` where that cannot be known.
pub(super) fn all_others_idle() -> bool {
    let me = crate::sys::thread::id();
    // Locked until the end: no OS thread of this crate can enter or leave the register between the two looks.
    let known = KNOWN.lock();
    let mut others: Vec<_> = known.iter().filter(|known| known.thread != me).collect();
    // One look for each OS thread, at all its entries. A pool's OS thread has a second entry if a job has used a hub on
    // it: that hub rests while the job waits, and the pool's own entry between jobs.
    others.sort_by_key(|known| known.thread);
    let threads: Vec<_> = others.chunk_by(|a, b| a.thread == b.thread).collect();
    // The position is part of the result, so that both looks must find the same entry at rest.
    let rests = |known: &[&Known]| known.iter().enumerate().find_map(|(i, known)| Some((i, known.look()?)));
    let looks: Vec<_> = threads.iter().map(|known| || rests(known)).collect();
    // An OS thread that is not registered may hold the other end of the wait and do anything. Only the thread that
    // writes reports to stderr is known to wake no task.
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

/// Forgets all OS threads and jobs: a forked child has only the OS thread that forked.
pub(super) fn forget_all() {
    KNOWN.lock().clear();
    QUEUED.store(0, Ordering::Release);
}

/// The payload of the panic that ends a wait which nothing could ever end.
///
/// Its text says what the native stack and each green thread wait for, and where they were spawned. It is never raised
/// where the system does not list the OS threads of a process, as without `/proc`: there such a wait lasts.
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
#[doc(alias("deadlock"))]
#[derive(Clone, PartialEq, Eq)]
pub struct LoopExit {
    report: String,
}

impl LoopExit {
    pub(super) fn new(report: String) -> LoopExit {
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

    /// An OS thread with a hub: its inbox, its rest count, and what it sleeps on.
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

        /// What a hub does until it gets a message, as in `Hub::sleep`.
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

    /// Two threads rest while a message to the first is on its way. The first wakes the second, which wakes the thread
    /// that looks.
    #[test]
    fn loom_a_wake_on_its_way_along_a_chain_is_seen() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(|| {
            let threads: Arc<[Thread; 3]> = Arc::new([Thread::new(), Thread::new(), Thread::new()]);
            // To the first thread of the chain, before thread 0 looks.
            threads[1].send(1);
            let chain = [1, 2].map(|me| {
                let threads = threads.clone();
                loom::thread::spawn(move || {
                    let message = threads[me].receive();
                    let next = if me == 1 { 2 } else { 0 };
                    threads[next].send(message + 1);
                    // Then it rests again, for good.
                    if threads[me].inbox.fall_asleep(PARKED) {
                        threads[me].idle.rest();
                    }
                })
            });
            let looks = [1, 2].map(|thread| {
                let threads = threads.clone();
                move || threads[thread].look()
            });
            // As in `Hub::sleep`: the looking thread's own inbox comes last.
            let hopeless = all_rest(&looks, || false, || true) && !threads[0].inbox.is_pending();
            for link in chain {
                link.join().unwrap();
            }
            assert!(!hopeless, "a message was on its way");
        });
    }
}
