//! The inbox of a hub: a queue that any OS thread may put messages into, and the protocol that wakes its owner.
//!
//! | | owner, about to sleep | sender |
//! |---|---|---|
//! | 1 | swap `sleeping` to how it will sleep | put the message in the queue |
//! | 2 | look at `pending`, by a read-modify-write | swap `pending` to true |
//! | 3 | if it was set, do not sleep | swap `sleeping` to `AWAKE` |
//! | 4 | sleep | if that was not `AWAKE`, wake it that way |
//!
//! The owner's steps 1 and 2 and the sender's steps 2 and 3 are read-modify-writes (acquire and release), which always
//! see the latest value. If the owner's step 2 comes before the sender's, then the sender's step 3 comes after the
//! owner's step 1. So one of them sees the other: the owner sees that a message is pending, or the sender sees that the
//! owner sleeps.
//!
//! Nothing is allocated or freed under the queue's lock. Of several senders only the one whose step 3 finds that the
//! owner sleeps pays for a system call.
//!
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

/// The owner runs, or will look at `pending` before it sleeps.
pub(super) const AWAKE: u8 = 0;
/// The owner sleeps in `thread::park`.
pub(super) const PARKED: u8 = 1;
/// The owner sleeps in its poller, or a foreign event loop waits on the poller's descriptor in its place.
pub(super) const POLLING: u8 = 2;

/// The queue, and the two words of the protocol above.
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

    /// Puts a message in, and says how the caller is to wake the owner ([`AWAKE`]: not at all). Gives the message back
    /// if the inbox is closed or `accept`, asked under the queue's lock, refuses.
    pub(super) fn send(&self, message: M, accept: impl FnOnce() -> bool) -> Result<u8, M> {
        // Step 1. Before `pending` is set: an owner that sees it must find the message.
        self.put(message, accept)?;
        // Step 2.
        self.pending.swap(true, Ordering::AcqRel);
        // Step 3. Of several senders only one finds that the owner sleeps, and wakes it.
        Ok(self.sleeping.swap(AWAKE, Ordering::AcqRel))
    }

    /// A send without a message, from a signal handler of the owner's OS thread, which takes no lock. Gives whether the
    /// caller is to wake the owner in its poller. A caller that cannot do that passes `rings: false`: then `sleeping`
    /// is left alone, so that the next sender wakes the owner.
    #[cfg(feature = "monkey")]
    pub(super) fn nudge(&self, rings: bool) -> bool {
        self.pending.swap(true, Ordering::AcqRel);
        let wakes = || {
            self.sleeping
                .compare_exchange(POLLING, AWAKE, Ordering::AcqRel, Ordering::Acquire)
        };
        // Only an owner in its poller is woken: an owner that sleeps without a poller waits for no signal.
        rings && wakes().is_ok()
    }

    /// Step 1. The queue grows outside of its lock: an allocator that releases its own lock may wake a task, and so
    /// send to this inbox while the queue is locked.
    fn put(&self, message: M, accept: impl FnOnce() -> bool) -> Result<(), M> {
        let lock = || self.queue.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let mut room = Vec::new();
        let mut queue = lock();
        loop {
            let len = queue.messages.len();
            if len < queue.messages.capacity() {
                break;
            }
            // The room made below is still enough: move the messages there. The old vector is freed after the unlock.
            if len < room.capacity() {
                room.append(&mut queue.messages);
                std::mem::swap(&mut queue.messages, &mut room);
                break;
            }
            // Allocate unlocked, then look again: other senders may have changed the queue meanwhile.
            drop(queue);
            room = Vec::with_capacity((len * 2).max(8));
            queue = lock();
        }
        // Under the lock, as `close` is: a message is either refused here, or given back by `close`.
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
        // Cleared before the queue is taken. A sender sets `pending` after it has unlocked the queue, so a message that
        // is missed here sets it again.
        self.pending.swap(false, Ordering::AcqRel);
        self.lock(|queue| std::mem::swap(&mut queue.messages, into));
    }

    /// The owner has taken more messages than it handles now: the inbox counts as pending until it has handled them.
    pub(super) fn remind(&self) {
        self.pending.swap(true, Ordering::AcqRel);
    }

    /// The owner's steps 1 to 3; `false` if a message is pending, so that the owner must not sleep.
    pub(super) fn fall_asleep(&self, how: u8) -> bool {
        // Step 1. A sender that comes to its step 3 from here on wakes the owner.
        self.sleeping.swap(how, Ordering::AcqRel);
        // Step 2. A load could miss the sender's swap of `pending` although that came first; a read-modify-write
        // cannot.
        let pending = self.pending.fetch_or(false, Ordering::AcqRel);
        // Step 3.
        if pending {
            self.wake_up();
        }
        !pending
    }

    /// The owner is awake again, or does not sleep after all. Senders need not wake it from now on.
    pub(super) fn wake_up(&self) {
        self.sleeping.swap(AWAKE, Ordering::AcqRel);
    }

    pub(super) fn open(&self) {
        self.lock(|queue| queue.open = true);
    }

    /// Refuses messages from now on, and gives back those in the queue.
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

    /// A sleep that the sender ends when the inbox tells it to.
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
