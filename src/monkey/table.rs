//! The table of green threads that wait for a wake: by the address of a futex or of a C lock, by a descriptor that may
//! be closed, by a listener's [line](super::accept).
//!
//! A green thread's wait is linked into a list under its key. An OS thread waits in the kernel, as without patching. A
//! wake looks into the table first, and then asks the kernel to wake the rest of its count.
//!
//! ```text
//!  waiter                                     waker (any thread)
//!  WAITERS += 1                               changes the value
//!  lock bucket                                fence
//!  value as expected? no: EAGAIN              WAITERS = 0? only the kernel
//!  link, unlock, park                         lock bucket, unlink, unlock, wake
//! ```
//!
//! Whatever the order of the two sides, the waiter sees the changed value or the waker sees the waiter.
//!
//! # Invariants
//! - **FUTEX-1** A node is linked only while its `Waiting` lives: the drop of `Waiting` unlinks it. The links and the
//!   waiter are accessed only under the bucket's lock.
//! - **FUTEX-2** A green waiter is woken exactly when a waker unlinks its node. A wake counts the nodes that it unlinks
//!   (those of dead tasks aside), and a waiter that times out but finds its node unlinked was woken.
//! - **FUTEX-3** A bucket's lock is held for a few instructions: no system call, no wake and no allocation happens
//!   under it.
//! - **FUTEX-4** An OS thread with a hub that waits in the kernel has a *native* node, which no waker unlinks. A wake
//!   whose whole count went to green threads then also wakes one OS thread in the kernel: a woken green thread cannot
//!   run while its own OS thread waits for the same futex (an allocator's lock, inside this crate).

use std::cell::{Cell, UnsafeCell};
use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};

use libc::{c_int, c_uint};

use crate::hub::{Direction, Parker, Waiter, Wake, Why};
use crate::sys::fork::InChild;
use crate::sys::spin::Spin;

/// The number of `Waiting`s, that is of nodes that are linked or about to be.
static WAITERS: AtomicUsize = AtomicUsize::new(0);
/// The number of OS threads with a hub that wait in the kernel (FUTEX-4).
static NATIVES: AtomicUsize = AtomicUsize::new(0);

/// The linked nodes of a bucket, in the order in which they came.
struct List {
    first: *const Node,
    last: *const Node,
}

// SAFETY: FUTEX-1: a linked node lives, and what other OS threads access of it is atomic or guarded by the lock of the
// list.
unsafe impl Send for List {}

type Bucket = Spin<List>;

const BUCKETS: usize = 256;
static TABLE: [Bucket; BUCKETS] = [const { Spin::new(List::NEW) }; BUCKETS];

/// The bucket of a key, by the upper 8 bits of a multiplicative hash: there are 256 buckets.
fn bucket_of(key: usize) -> &'static Bucket {
    &TABLE[key.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (usize::BITS - 8)]
}

/// A waiter in a bucket's list.
struct Node {
    key: usize,
    /// The node stands for an OS thread that waits in the kernel (FUTEX-4).
    is_native: bool,
    /// A wake selects the node if it has a bit of this mask, as for `FUTEX_WAIT_BITSET`; 0 in a native node.
    mask: u32,
    linked: Cell<bool>,
    woken: AtomicBool,
    previous: Cell<*const Node>,
    next: Cell<*const Node>,
    waiter: UnsafeCell<Option<Waiter>>,
}

impl Node {
    fn new(key: usize, mask: u32, is_native: bool) -> Node {
        Node {
            key,
            is_native,
            mask,
            linked: Cell::new(false),
            woken: AtomicBool::new(false),
            previous: Cell::new(ptr::null()),
            next: Cell::new(ptr::null()),
            waiter: UnsafeCell::new(None),
        }
    }
}

/// Runs `f`, a wait of this OS thread in the kernel, while a native node is linked (FUTEX-4).
pub(super) fn natively<R>(key: usize, f: impl FnOnce() -> R) -> R {
    let node = Node::new(key, 0, true);
    // Counted before it is linked, so that a waker that finds the count at 0 misses no node.
    NATIVES.fetch_add(1, Ordering::SeqCst);
    bucket_of(key).lock().link(&node);
    let result = f();
    bucket_of(key).lock().unlink(&node);
    NATIVES.fetch_sub(1, Ordering::SeqCst);
    result
}

/// Whether an OS thread with a hub waits in the kernel for `key` (FUTEX-4).
pub(super) fn has_native(key: usize) -> bool {
    if NATIVES.load(Ordering::SeqCst) == 0 {
        return false;
    }
    let list = bucket_of(key).lock();
    list.nodes().any(|node| node.is_native && node.key == key)
}

impl List {
    const NEW: List = List {
        first: ptr::null(),
        last: ptr::null(),
    };

    /// The nodes, the oldest first. None is unlinked meanwhile: the list is locked.
    fn nodes(&self) -> impl Iterator<Item = &Node> {
        // SAFETY: FUTEX-1: a linked node lives.
        let mut at = unsafe { self.first.as_ref() };
        std::iter::from_fn(move || {
            let node = at?;
            // SAFETY: FUTEX-1: a linked node lives.
            at = unsafe { node.next.get().as_ref() };
            Some(node)
        })
    }

    fn link(&mut self, node: &Node) {
        // Append to the list, so that waiters are woken in the order in which they came.
        let last = std::mem::replace(&mut self.last, node);
        // SAFETY: FUTEX-1: the last node is linked, so it lives.
        match unsafe { last.as_ref() } {
            Some(last) => last.next.set(node),
            None => self.first = node,
        }
        node.previous.set(last);
        node.next.set(ptr::null());
        node.linked.set(true);
    }

    fn unlink(&mut self, node: &Node) {
        let (previous, next) = (node.previous.get(), node.next.get());
        // SAFETY: FUTEX-1: the neighbours are linked, so they live.
        unsafe {
            match previous.as_ref() {
                Some(previous) => previous.next.set(next),
                None => self.first = next,
            }
            match next.as_ref() {
                Some(next) => next.previous.set(previous),
                None => self.last = previous,
            }
        }
        node.linked.set(false);
    }

    /// Unlinks the first node that `which` selects, and takes its waiter.
    fn take(&mut self, which: impl Fn(&Node) -> bool) -> Option<Option<Waiter>> {
        let node = ptr::from_ref(self.nodes().find(|node| which(node))?);
        // SAFETY: FUTEX-1: the node was found in the list, so it lives until it is unlinked and the lock is released.
        let node = unsafe { &*node };
        self.unlink(node);
        // Take the waiter out now: once the lock is released, the waiter's owner may free the node.
        // SAFETY: FUTEX-1: the lock guards the waiter.
        let waiter = unsafe { (*node.waiter.get()).take() };
        node.woken.store(true, Ordering::Release);
        Some(waiter)
    }
}

/// A green thread's wait for a wake by `key`: the owner of a node (FUTEX-1).
pub(super) struct Waiting {
    node: Node,
    /// Whether the node may be linked: only the owner links it.
    is_armed: Cell<bool>,
}

impl Waiting {
    pub(super) fn new(key: usize, mask: u32) -> Waiting {
        WAITERS.fetch_add(1, Ordering::SeqCst);
        Waiting {
            node: Node::new(key, mask, false),
            is_armed: Cell::new(false),
        }
    }

    pub(super) fn key(&self) -> usize {
        self.node.key
    }

    /// Sets the waiter that a wake is to wake, and links the node if `check` returns true. Returns false if the node
    /// was woken already, or if `check` returned false.
    pub(super) fn arm(&self, waiter: Waiter, check: impl FnOnce() -> bool) -> bool {
        let mut list = bucket_of(self.node.key).lock();
        // FUTEX-2: a wake between two parks has unlinked the node. It must not be linked a second time, or that wake
        // would be lost.
        if self.is_woken() {
            return false;
        }
        if !self.node.linked.get() {
            // Check under the lock: a waker changes the value before it takes this lock. So either the check sees the
            // new value, or the waker finds the node.
            if !check() {
                return false;
            }
            list.link(&self.node);
        }
        // A node that is still linked gets the ticket of its next park.
        // SAFETY: FUTEX-1: the lock guards the waiter.
        unsafe { *self.node.waiter.get() = Some(waiter) };
        self.is_armed.set(true);
        true
    }

    fn is_woken(&self) -> bool {
        self.node.woken.load(Ordering::Acquire)
    }

    /// Ends the wait; returns whether it was woken.
    pub(super) fn disarm(&self) -> bool {
        if !self.is_armed.replace(false) {
            return self.is_woken();
        }
        // Under the lock: after this, no waker holds a reference to the node, and whether it was woken is settled
        // (FUTEX-2).
        let mut list = bucket_of(self.node.key).lock();
        if self.node.linked.get() {
            list.unlink(&self.node);
        }
        // SAFETY: FUTEX-1: the lock guards the waiter.
        unsafe { *self.node.waiter.get() = None };
        drop(list);
        self.is_woken()
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.disarm();
        WAITERS.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Wakes up to `count` green waiters for `key` that have a bit of `mask`. Returns how many it woke (FUTEX-2).
pub(super) fn wake(key: usize, count: usize, mask: u32) -> usize {
    // A native node has an empty mask, so it is never selected (FUTEX-4).
    wake_in(bucket_of(key), count, |node| node.key == key && node.mask & mask != 0)
}

/// Wakes up to `count` waiters of a bucket that `which` selects. Returns how many it woke.
fn wake_in(bucket: &Bucket, count: usize, which: impl Fn(&Node) -> bool) -> usize {
    let mut woken = 0;
    // One node for each hold of the lock: the wake itself must happen outside of it (FUTEX-3).
    while woken < count {
        let taken = bucket.lock().take(&which);
        // The whole list was searched without a hit.
        let Some(waiter) = taken else { break };
        // A task of a hub that has ended never runs again. Do not count it, so that the wake goes to a live waiter.
        if !waiter.as_ref().is_some_and(Waiter::is_lost) {
            woken += 1;
        }
        if let Some(waiter) = waiter {
            waiter.wake();
        }
    }
    woken
}

/// Empties the table in a forked child. The waiters in it, and the holders of its locks, are threads of the parent,
/// which do not exist in the child.
pub(super) fn forget_all(child: &InChild) {
    WAITERS.store(0, Ordering::SeqCst);
    NATIVES.store(0, Ordering::SeqCst);
    for bucket in &TABLE {
        bucket.renew(List::NEW, child);
    }
}

/// Whether a green thread is in the table, or about to be. The fence orders the caller's change of the value before the
/// look at the table, as the module's diagram needs it.
#[inline]
pub(super) fn has_waiters() -> bool {
    fence(Ordering::SeqCst);
    WAITERS.load(Ordering::SeqCst) != 0
}

/// The key of a descriptor. It is odd; the address of a futex is a multiple of 4.
fn key_of(fd: RawFd) -> usize {
    (fd as usize) << 1 | 1
}

/// A wait for a descriptor, which ends when the descriptor is closed.
pub(super) struct Watched<'a> {
    waiting: &'a Waiting,
    fd: RawFd,
}

impl Watched<'_> {
    /// Has a close wake `waiter`. If the close came before, [`is_closed`](Self::is_closed) says so.
    pub(super) fn start(&self, waiter: Waiter) {
        self.waiting.arm(waiter, || true);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.waiting.is_woken()
    }

    /// Parks until the descriptor may be ready, or is closed.
    pub(super) fn park(
        &self,
        parker: Parker,
        direction: Direction,
        deadline: Option<u64>,
        why: Why,
    ) -> io::Result<Wake> {
        if self.fd < 0 {
            return Err(rustix::io::Errno::BADF.into());
        }
        // SAFETY: not -1. The descriptor is the caller's of a patched call. The poller only gets its number, and a
        // close meanwhile ends the park, so that the number is not used again when it may be another file's.
        let fd = unsafe { BorrowedFd::borrow_raw(self.fd) };
        let reactor = &parker.hub.reactor;
        reactor.wait_foreign(parker, fd, direction, deadline, why, || self.is_closed())
    }

    pub(super) fn stop(&self) {
        self.waiting.disarm();
    }
}

/// Runs `f`, a wait for `fd`, with the means to be woken when `fd` is closed.
pub(super) fn watching<R>(fd: RawFd, f: impl FnOnce(&Watched<'_>) -> R) -> R {
    let waiting = Waiting::new(key_of(fd), u32::MAX);
    f(&Watched { waiting: &waiting, fd })
}

/// Wakes up to `count` green waiters for `key`. Costs one fence and one load while the table is empty.
#[inline]
pub(super) fn wake_by(key: usize, count: usize) {
    if has_waiters() {
        wake(key, count, u32::MAX);
    }
}

/// Called before a descriptor is closed: every green thread that waits for it, on any OS thread, fails with `EBADF`.
#[inline]
pub(super) fn closing(fd: RawFd) {
    wake_by(key_of(fd), usize::MAX);
}

/// Called after a descriptor was closed: wakes green threads that began to wait between [`closing`] and the close, so
/// that they try again. Their nodes stay linked, for the number may be another open file's by now, and they may rightly
/// wait for that.
#[inline(never)]
pub(super) fn closed(fd: RawFd) {
    let key = key_of(fd);
    // The number of waiters that were woken so far. Nodes stay linked, so each search skips as many.
    for seen in 0.. {
        let list = bucket_of(key).lock();
        // SAFETY: FUTEX-1: the lock guards the waiter.
        let waiter = |node: &Node| unsafe { (*node.waiter.get()).as_ref() }.and_then(Waiter::copy);
        let found = list.nodes().filter(|node| node.key == key).nth(seen).and_then(waiter);
        drop(list);
        match found {
            // Outside of the lock (FUTEX-3).
            Some(waiter) => waiter.wake(),
            None => return,
        }
    }
}

/// [`closing`] for each descriptor of a range.
#[cold]
pub(super) fn range_closing(first: c_uint, last: c_uint) {
    // The range may be all numbers, so search the buckets for odd keys (see `key_of`) instead of one key at a time.
    for bucket in &TABLE {
        wake_in(bucket, usize::MAX, |node| node.is_of(first, last));
    }
}

/// [`closed`] for each descriptor of a range that a green thread waits for.
#[cold]
pub(super) fn range_closed(first: c_uint, last: c_uint) {
    for bucket in &TABLE {
        let mut from = first;
        while let Some(fd) = lowest_in(bucket, from, last) {
            closed(fd as c_int);
            match fd.checked_add(1) {
                Some(next) => from = next,
                None => break,
            }
        }
    }
}

/// The lowest descriptor of a range that a green thread waits for, of those in a bucket.
fn lowest_in(bucket: &Bucket, first: c_uint, last: c_uint) -> Option<c_uint> {
    let list = bucket.lock();
    let fds = list.nodes().filter(|node| node.is_of(first, last));
    fds.map(|node| (node.key >> 1) as c_uint).min()
}

impl Node {
    /// Whether it waits for a descriptor of this range.
    fn is_of(&self, first: c_uint, last: c_uint) -> bool {
        self.key & 1 == 1 && (first..=last).contains(&((self.key >> 1) as c_uint))
    }
}
