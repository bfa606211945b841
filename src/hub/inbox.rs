//! The one cross-thread door: a queue that any OS thread may put into, and the protocol that wakes its owner.
//!
//! | | owner, about to sleep | sender |
//! |---|---|---|
//! | 1 | swap `sleeping` to how it will sleep | put the message in the queue |
//! | 2 | look at `pending`, by a read-modify-write | swap `pending` to true |
//! | 3 | if it was set, do not sleep | swap `sleeping` to `AWAKE` |
//! | 4 | sleep | if that was not `AWAKE`, wake it that way |
//!
//! All four are read-modify-writes (acquire and release), which always see the latest value: if the owner's 2 comes before
//! the sender's, then the sender's 3 comes after the owner's 1. So one of them sees the other: the owner the message, or
//! the sender the sleeper. Nothing is allocated or freed under the queue's lock. Only the sender that takes `sleeping` away pays for a system call.
//! Checked with loom (`RUSTFLAGS="--cfg loom" cargo test --release --lib loom`).
#![forbid(unsafe_code)]

#[cfg(all(test, loom))]
use loom::sync::{
    Mutex,
    atomic::{AtomicBool, AtomicU8, Ordering},
};
#[cfg(not(all(test, loom)))]
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

#[cfg(not(all(test, loom)))]
use crate::sys::inside::Mutex;

/// The owner runs, or will look before it sleeps.
pub(super) const AWAKE: u8 = 0;
/// The owner sleeps in `thread::park`.
pub(super) const PARKED: u8 = 1;
/// The owner sleeps in its poller, or somebody else's loop does it in its place.
pub(super) const POLLING: u8 = 2;

pub(super) struct Inbox<M> {
    queue: Mutex<Queue<M>>,
    pending: AtomicBool,
    sleeping: AtomicU8,
}

struct Queue<M> {
    messages: Vec<M>,
    open: bool,
}

impl<M> Inbox<M> {
    pub(super) fn new() -> Inbox<M> {
        let queue = Mutex::new(Queue {
            messages: Vec::new(),
            open: false,
        });
        Inbox {
            queue,
            pending: AtomicBool::new(false),
            sleeping: AtomicU8::new(AWAKE),
        }
    }

    fn lock<R>(&self, f: impl FnOnce(&mut Queue<M>) -> R) -> R {
        f(&mut self.queue.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))
    }

    /// Puts a message in. Says how the owner is to be woken, if it sleeps; gives the message back if it is gone.
    pub(super) fn send(&self, message: M, accept: impl FnOnce() -> bool) -> Result<u8, M> {
        self.put(message, accept)?;
        self.pending.swap(true, Ordering::AcqRel);
        Ok(self.sleeping.swap(AWAKE, Ordering::AcqRel))
    }

    /// A send without a message, from a signal handler of the owner's OS thread: it takes no lock. Whether the owner is to be
    /// woken in its poller, which only who can do that takes from other senders (`rings`).
    #[cfg(feature = "monkey")]
    pub(super) fn nudge(&self, rings: bool) -> bool {
        self.pending.swap(true, Ordering::AcqRel);
        let wakes = || {
            self.sleeping
                .compare_exchange(POLLING, AWAKE, Ordering::AcqRel, Ordering::Acquire)
        };
        rings && wakes().is_ok()
    }

    /// The queue grows outside of its lock: an allocator may wake somebody as its own lock is released, and so come here
    /// again.
    fn put(&self, message: M, accept: impl FnOnce() -> bool) -> Result<(), M> {
        let lock = || self.queue.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let mut room = Vec::new();
        let mut queue = lock();
        loop {
            let len = queue.messages.len();
            if len < queue.messages.capacity() {
                break;
            }
            if len < room.capacity() {
                room.append(&mut queue.messages);
                std::mem::swap(&mut queue.messages, &mut room);
                break;
            }
            drop(queue);
            room = Vec::with_capacity((len * 2).max(8));
            queue = lock();
        }
        let is_accepted = queue.open && accept();
        let refused = if is_accepted {
            queue.messages.push(message);
            None
        } else {
            Some(message)
        };
        drop(queue);
        refused.map_or(Ok(()), Err)
    }

    #[inline]
    pub(super) fn is_pending(&self) -> bool {
        self.pending.load(Ordering::Acquire)
    }

    /// Takes all messages, into an empty vector.
    pub(super) fn drain(&self, into: &mut Vec<M>) {
        // A sender sets `pending` after it left the lock: what is missed now sets it again.
        self.pending.swap(false, Ordering::AcqRel);
        self.lock(|queue| std::mem::swap(&mut queue.messages, into));
    }

    /// The owner has left some of what it took for later: until then the inbox counts as pending.
    pub(super) fn remind(&self) {
        self.pending.swap(true, Ordering::AcqRel);
    }

    /// The owner's steps 1–3; `false` if there is something to do.
    pub(super) fn fall_asleep(&self, how: u8) -> bool {
        self.sleeping.swap(how, Ordering::AcqRel);
        let pending = self.pending.fetch_or(false, Ordering::AcqRel);
        if pending {
            self.wake_up();
        }
        !pending
    }

    pub(super) fn wake_up(&self) {
        self.sleeping.swap(AWAKE, Ordering::AcqRel);
    }

    pub(super) fn open(&self) {
        self.lock(|queue| queue.open = true);
    }

    /// Refuses messages from now on and gives back those that wait.
    pub(super) fn close(&self) -> Vec<M> {
        self.lock(|queue| {
            queue.open = false;
            std::mem::take(&mut queue.messages)
        })
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::sync::Arc;
    use loom::sync::Condvar;

    /// A sleep that the sender ends by the way the inbox told it.
    struct Bed(Mutex<bool>, Condvar);

    #[test]
    fn loom_no_wake_is_lost() {
        let mut model = loom::model::Builder::new();
        // Two senders and a sleeper are too many for every interleaving; three switches find the planted bugs.
        model.preemption_bound = Some(3);
        model.check(|| {
            let inbox = Arc::new(Inbox::new());
            inbox.open();
            let bed = Arc::new(Bed(Mutex::new(false), Condvar::new()));
            let senders: Vec<_> = (0..2)
                .map(|n| {
                    let (inbox, bed) = (inbox.clone(), bed.clone());
                    loom::thread::spawn(move || {
                        if inbox.send(n, || true).unwrap() != AWAKE {
                            *bed.0.lock().unwrap() = true;
                            bed.1.notify_one();
                        }
                    })
                })
                .collect();
            let mut got = Vec::new();
            while got.len() < 2 {
                let mut some = Vec::new();
                if inbox.is_pending() {
                    inbox.drain(&mut some);
                }
                let none = some.is_empty();
                got.extend(some);
                if none && inbox.fall_asleep(PARKED) {
                    let mut woken = bed.0.lock().unwrap();
                    while !*woken {
                        woken = bed.1.wait(woken).unwrap();
                    }
                    *woken = false;
                    inbox.wake_up();
                }
            }
            for sender in senders {
                sender.join().unwrap();
            }
        });
    }

    #[test]
    fn loom_a_closed_inbox_gives_every_message_back() {
        loom::model(|| {
            let inbox = Arc::new(Inbox::new());
            inbox.open();
            let sender = {
                let inbox = inbox.clone();
                loom::thread::spawn(move || inbox.send(7, || true).is_ok())
            };
            let left = inbox.close();
            assert_eq!(sender.join().unwrap(), left.len() == 1);
        });
    }
}
