//! The half of a hub that other OS threads may touch: its inbox, and the way to wake it.
//!
//! A `Shared` block is leaked and recycled, so `&'static Shared` is always valid. Each hub that has the block is one
//! *life* of it, with a generation of its own. A message for an older life is given back to its sender.
#![forbid(unsafe_code)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::Thread;

use super::inbox::{AWAKE, Inbox, PARKED};
use super::task::block::TaskRef;
use crate::sys::fork::{Global, Order, fork_epoch};
use crate::sys::inside::Mutex;
use crate::sys::plain::plainly;
use crate::sys::poison::IgnorePoison;

/// What one OS thread may ask of the hub of another.
pub(crate) enum Message {
    /// Wake the park with this (task, ticket).
    Wake(TaskRef, u64),
    /// Poll this stackless task.
    Poll(TaskRef),
    /// Kill the green thread with this (task, id).
    Kill(TaskRef, u64),
    /// Give the green thread with this (task, id) an unpark token.
    Unpark(TaskRef, u64),
    /// Run this as a callback.
    Call(Box<dyn FnOnce() + Send>),
    /// Run this in the turn itself, not as a callback: it is this crate's, and calls no code of the user but
    /// destructors, by `discard`.
    Internal(Box<dyn FnOnce() + Send>),
    /// Let `run_forever` return.
    Stop,
}

/// The half of a hub that any OS thread may touch.
pub(crate) struct Shared {
    inbox: Inbox<Message>,
    generation: AtomicU64,
    /// The fork epoch of the process in which its hub was made.
    fork_epoch: AtomicU64,
    bell: Mutex<Bell>,
}

/// How to wake the owner: by unparking its OS thread, or by a notification to its poller.
#[derive(Default)]
struct Bell {
    thread: Option<Thread>,
    poller: Option<Arc<polling::Poller>>,
}

static SPARE: Global<Vec<&'static Shared>> = Global::new(Order::Spare, Vec::new());
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// The next number for a green thread, on any OS thread.
pub(super) fn next_id() -> u64 {
    NEXT_ID.fetch_add(1, Ordering::Relaxed)
}

/// The first of `count` numbers. A hub takes many at once, so that it rarely touches the shared counter.
pub(super) fn take_ids(count: u64) -> u64 {
    NEXT_ID.fetch_add(count, Ordering::Relaxed)
}

impl Shared {
    /// A block for a new hub of this OS thread.
    pub(super) fn take() -> &'static Shared {
        let spare = SPARE.lock().pop();
        let shared = spare.unwrap_or_else(|| {
            Box::leak(Box::new(Shared {
                inbox: Inbox::new(),
                generation: AtomicU64::new(0),
                fork_epoch: AtomicU64::new(0),
                bell: Mutex::default(),
            }))
        });
        let thread = std::thread::current();
        shared.with_bell(|bell| bell.thread = Some(thread));
        shared.fork_epoch.store(fork_epoch(), Ordering::Relaxed);
        // The generation changes before the inbox opens. So a sender for the earlier life finds the inbox closed or the
        // generation changed, both of which it looks at under the queue's lock.
        shared.generation.fetch_add(1, Ordering::Release);
        shared.inbox.open();
        shared
    }

    /// In a forked child: forgets the spare blocks. Another OS thread of the parent may have held a lock of one (with
    /// an old waiter, say) at the moment of the fork, and in the child that lock is never released.
    pub(super) fn forget_spare() {
        SPARE.lock().clear();
    }

    /// The hub ends: refuses messages from now on, and gives back those that wait.
    pub(super) fn close(&'static self) -> Vec<Message> {
        let left = self.inbox.close();
        // From here on every handle and registration of this life is stale.
        self.generation.fetch_add(1, Ordering::Release);
        // Taken out under the lock, dropped after it: see `with_bell`.
        drop(self.with_bell(std::mem::take));
        left
    }

    /// Frees the block for another hub, once nothing names the hub that had it.
    pub(super) fn spare(&'static self) {
        SPARE.lock().push(self);
    }

    /// Calls `f` under the bell's lock. `f` must not allocate or free: every wake takes this lock, and an allocator may
    /// wake a task when it releases a lock of its own.
    fn with_bell<R>(&self, f: impl FnOnce(&mut Bell) -> R) -> R {
        f(&mut self.bell.lock().ignore_poison())
    }

    pub(super) fn set_poller(&self, poller: Arc<polling::Poller>) {
        self.with_bell(|bell| bell.poller = Some(poller));
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Whether this process was forked since the hub was made: then the hub is the parent's.
    pub(super) fn is_of_parent(&self) -> bool {
        self.fork_epoch.load(Ordering::Relaxed) != fork_epoch()
    }

    /// Sends to the hub that has this block now. For messages that carry a ticket or an id: if the message was meant
    /// for an earlier life of the block, it matches no task.
    pub(crate) fn send(&self, message: Message) {
        if let Err(message) = self.send_if(message, || true) {
            drop(message);
        }
    }

    /// Sends, unless `accept`, asked under the queue's lock, refuses; gives a message back that was not sent.
    pub(super) fn send_if(&self, message: Message, accept: impl FnOnce() -> bool) -> Result<(), Message> {
        // In a forked child the parent's hub does not run, so nothing would take the message out. And the queue may be
        // locked for good, by an OS thread that the child does not have.
        if self.is_of_parent() {
            return Err(message);
        }
        // If `sleeping` was not `AWAKE`, this send has set it to `AWAKE`. So no other sender wakes the owner: this one
        // must. If the owner is not asleep yet, the wake is kept: an `unpark` leaves a token, and a notified poller
        // returns at once.
        match self.inbox.send(message, accept)? {
            AWAKE => {}
            PARKED => self.with_bell(|bell| bell.thread.iter().for_each(Thread::unpark)),
            _ => self.with_bell(|bell| {
                if let Some(poller) = &bell.poller {
                    // It fails only if the eventfd is closed, and then the hub has ended.
                    let _ = plainly(|| poller.notify());
                }
            }),
        }
        Ok(())
    }

    #[inline]
    pub(super) fn inbox(&self) -> &Inbox<Message> {
        &self.inbox
    }
}
