//! Futexes, by which std's locks, condition variables, channels and `thread::park` wait; and the closing of descriptors
//! that green threads wait for.
//!
//! A green thread that waits by futex is linked into a table of this module, under the futex's address. An OS thread
//! waits in the kernel, as without patching. A wake looks into the table first, and then asks the kernel to wake the
//! rest of its count. Waits for a descriptor are in the same table, under a key made of the descriptor's number, so
//! that `close` finds them.
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
//! - **X1** A node is linked only while its `Waiting` lives: the drop of `Waiting` unlinks it. The links and the waiter
//!   are accessed only under the bucket's lock.
//! - **X2** A green waiter is woken exactly when a waker unlinks its node. A wake counts the nodes that it unlinks
//!   (those of dead tasks aside), and a waiter that times out but finds its node unlinked was woken.
//! - **X3** The bucket's lock is a spin lock of this module, held for a few instructions: no system call, no wake and
//!   no allocation happens under it.
//! - **X4** An OS thread with a hub that waits in the kernel links a *native* node, which no waker unlinks. If green
//!   threads use up a wake's whole count, it then wakes one OS thread in the kernel as well. Otherwise the wake could
//!   be lost: the woken green thread cannot run if its own OS thread waits in the kernel for the same futex (an
//!   allocator's lock, inside this crate).

use std::cell::{Cell, UnsafeCell};
use std::os::fd::RawFd;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering, fence};
use std::time::Duration;

use libc::{c_int, c_long, c_uint, timespec};

use super::{accept, contained, errno, fail, gate, names, set_errno, sleep};
use crate::hub::{Hub, Mode, Parker, Waiter, Wake, Why};

/// The number of `Waiting`s, that is of nodes that are linked or about to be.
static WAITERS: AtomicUsize = AtomicUsize::new(0);
/// The number of OS threads with a hub that wait in the kernel (X4).
static NATIVES: AtomicUsize = AtomicUsize::new(0);

struct Bucket {
    locked: AtomicBool,
    first: Cell<*const Node>,
    last: Cell<*const Node>,
}

// SAFETY: X1: `first` and `last` are accessed only by the OS thread that holds `locked`.
unsafe impl Sync for Bucket {}

const BUCKETS: usize = 256;
static TABLE: [Bucket; BUCKETS] = [const {
    Bucket {
        locked: AtomicBool::new(false),
        first: Cell::new(ptr::null()),
        last: Cell::new(ptr::null()),
    }
}; BUCKETS];

/// A waiter in a bucket's list.
struct Node {
    key: usize,
    /// The node stands for an OS thread that waits in the kernel (X4).
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

/// Runs `f`, a wait of this OS thread in the kernel, while a native node is linked (X4).
fn natively<R>(key: usize, f: impl FnOnce() -> R) -> R {
    let node = Node::new(key, 0, true);
    // Counted before it is linked, so that a waker that finds the count at 0 misses no node.
    NATIVES.fetch_add(1, Ordering::SeqCst);
    Bucket::of(key).lock().link(&node);
    let result = f();
    Bucket::of(key).lock().unlink(&node);
    NATIVES.fetch_sub(1, Ordering::SeqCst);
    result
}

/// Whether an OS thread with a hub waits in the kernel for `key` (X4).
fn any_native(key: usize) -> bool {
    if NATIVES.load(Ordering::SeqCst) == 0 {
        return false;
    }
    let locked = Bucket::of(key).lock();
    let mut at = locked.0.first.get();
    // SAFETY: X1: a linked node lives, and no node is unlinked while this function holds the lock.
    while let Some(node) = unsafe { at.as_ref() } {
        if node.is_native && node.key == key {
            return true;
        }
        at = node.next.get();
    }
    false
}

/// The lock of a bucket, released by its drop.
struct Locked(&'static Bucket);

impl Bucket {
    /// The bucket of a key, by the upper 8 bits of a multiplicative hash: there are 256 buckets.
    fn of(key: usize) -> &'static Bucket {
        &TABLE[key.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (usize::BITS - 8)]
    }

    fn lock(&'static self) -> Locked {
        let mut tries = 0_u32;
        while self.locked.swap(true, Ordering::Acquire) {
            tries += 1;
            if tries.is_multiple_of(64) {
                // The lock is held for a few instructions only (X3), so its holder was probably preempted: let it run.
                // SAFETY: `sched_yield` takes no arguments.
                unsafe { super::locks::original::sched_yield() };
            }
            std::hint::spin_loop();
        }
        Locked(self)
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        self.0.locked.store(false, Ordering::Release);
    }
}

impl Locked {
    fn link(&self, node: &Node) {
        // Append to the list, so that waiters are woken in the order in which they came.
        let last = self.0.last.replace(node);
        // SAFETY: X1: the last node is linked, so it lives.
        match unsafe { last.as_ref() } {
            Some(last) => last.next.set(node),
            None => self.0.first.set(node),
        }
        node.previous.set(last);
        node.next.set(ptr::null());
        node.linked.set(true);
    }

    fn unlink(&self, node: &Node) {
        let (previous, next) = (node.previous.get(), node.next.get());
        // SAFETY: X1: the neighbours are linked, so they live.
        unsafe {
            match previous.as_ref() {
                Some(previous) => previous.next.set(next),
                None => self.0.first.set(next),
            }
            match next.as_ref() {
                Some(next) => next.previous.set(previous),
                None => self.0.last.set(previous),
            }
        }
        node.linked.set(false);
    }
}

/// A green thread's wait for a wake by `key`: the owner of a node (X1).
pub(super) struct Waiting {
    node: Node,
}

impl Waiting {
    pub(super) fn new(key: usize, mask: u32) -> Waiting {
        WAITERS.fetch_add(1, Ordering::SeqCst);
        Waiting {
            node: Node::new(key, mask, false),
        }
    }
    fn bucket(&self) -> &'static Bucket {
        Bucket::of(self.node.key)
    }

    /// Sets the waiter that a wake is to wake, and links the node if `check` returns true. Returns false if the node
    /// was woken already, or if `check` returned false.
    pub(super) fn arm(&self, waiter: Waiter, check: impl FnOnce() -> bool) -> bool {
        let locked = self.bucket().lock();
        // X2: a wake between two parks has unlinked the node. It must not be linked a second time, or that wake would
        // be lost.
        if self.is_woken() {
            return false;
        }
        if !self.node.linked.get() {
            // Check under the lock: a waker changes the value before it takes this lock. So either the check sees the
            // new value, or the waker finds the node.
            if !check() {
                return false;
            }
            locked.link(&self.node);
        }
        // A node that is still linked gets the ticket of its next park.
        // SAFETY: X1: `locked` guards the waiter.
        unsafe { *self.node.waiter.get() = Some(waiter) };
        true
    }

    fn is_woken(&self) -> bool {
        self.node.woken.load(Ordering::Acquire)
    }

    /// Ends the wait; returns whether it was woken.
    pub(super) fn disarm(&self) -> bool {
        // Under the lock: after this, no waker holds a reference to the node, and whether it was woken is settled (X2).
        let locked = self.bucket().lock();
        if self.node.linked.get() {
            locked.unlink(&self.node);
        }
        // SAFETY: X1: `locked` guards the waiter.
        unsafe { *self.node.waiter.get() = None };
        drop(locked);
        self.is_woken()
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.disarm();
        WAITERS.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Wakes up to `count` green waiters for `key` that have a bit of `mask`. Returns how many it woke (X2).
fn wake(key: usize, count: usize, mask: u32) -> usize {
    // A native node has an empty mask, so it is never selected (X4).
    wake_in(Bucket::of(key), count, |node| node.key == key && node.mask & mask != 0)
}

/// Wakes up to `count` waiters of a bucket that `which` selects. Returns how many it woke.
fn wake_in(bucket: &'static Bucket, count: usize, which: impl Fn(&Node) -> bool) -> usize {
    let mut woken = 0;
    // One node for each hold of the lock: the wake itself must happen outside of it (X3).
    while woken < count {
        let locked = bucket.lock();
        let mut at = locked.0.first.get();
        let mut found = None;
        // SAFETY: X1: a linked node lives, and no node is unlinked while this function holds the lock.
        while let Some(node) = unsafe { at.as_ref() } {
            if which(node) {
                locked.unlink(node);
                // Take the waiter out now: once the lock is released, the waiter's owner may free the node.
                // SAFETY: X1: `locked` guards the waiter.
                found = unsafe { (*node.waiter.get()).take() };
                node.woken.store(true, Ordering::Release);
                // A task of a hub that has ended never runs again. Do not count it, so that the wake goes to a live
                // waiter.
                if !found.as_ref().is_some_and(Waiter::is_dead) {
                    woken += 1;
                }
                break;
            }
            at = node.next.get();
        }
        drop(locked);
        // The whole list was searched without a hit.
        if at.is_null() {
            break;
        }
        if let Some(waiter) = found {
            waiter.wake();
        }
    }
    woken
}

/// Empties the table in a forked child. The waiters in it, and the holders of its locks, are threads of the parent,
/// which do not exist in the child.
pub(super) fn forget_all() {
    WAITERS.store(0, Ordering::SeqCst);
    NATIVES.store(0, Ordering::SeqCst);
    for bucket in &TABLE {
        bucket.first.set(ptr::null());
        bucket.last.set(ptr::null());
        bucket.locked.store(false, Ordering::Release);
    }
}

/// Whether a green thread is in the table, or about to be. The fence orders the caller's change of the value before the
/// look at the table, as the module's diagram needs it.
#[inline]
fn anybody_waits() -> bool {
    fence(Ordering::SeqCst);
    WAITERS.load(Ordering::SeqCst) != 0
}

/// The key of a descriptor. It is odd; the address of a futex is a multiple of 4.
fn key_of(fd: RawFd) -> usize {
    (fd as usize) << 1 | 1
}

/// A wait for a descriptor, which ends when the descriptor is closed.
pub(super) struct Watched<'a>(&'a Waiting);

impl Watched<'_> {
    /// Has a close wake `waiter`. If the close came before, [`is_closed`](Self::is_closed) says so.
    pub(super) fn start(&self, waiter: Waiter) {
        self.0.arm(waiter, || true);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.0.is_woken()
    }

    pub(super) fn stop(&self) {
        self.0.disarm();
    }
}

/// Runs `f`, a wait for `fd`, with the means to be woken when `fd` is closed.
pub(super) fn watching<R>(fd: RawFd, f: impl FnOnce(&Watched<'_>) -> R) -> R {
    let waiting = Waiting::new(key_of(fd), u32::MAX);
    f(&Watched(&waiting))
}

/// Wakes up to `count` green waiters for `key`. Costs one fence and one load while the table is empty.
#[inline]
pub(super) fn wake_by(key: usize, count: usize) {
    if anybody_waits() {
        wake(key, count, u32::MAX);
    }
}

/// Called before a descriptor is closed: every green thread that waits for it, on any OS thread, fails with `EBADF`.
#[inline]
fn closing(fd: RawFd) {
    wake_by(key_of(fd), usize::MAX);
}

/// libc's own definitions.
pub(in crate::monkey) mod original {
    use super::*;

    super::super::symbol::originals! {
        syscall(number: c_long, a: c_long, b: c_long, c: c_long, d: c_long, e: c_long, f: c_long) -> c_long;
        close(fd: c_int) -> c_int;
        dup2(old: c_int, new: c_int) -> c_int;
        dup3(old: c_int, new: c_int, flags: c_int) -> c_int;
        close_range(first: c_uint, last: c_uint, flags: c_int) -> c_int;
        listen(fd: c_int, backlog: c_int) -> c_int;
        setsockopt(fd: c_int, level: c_int, name: c_int, value: *const libc::c_void, len: libc::socklen_t) -> c_int;
    }
}

pub(super) fn symbols() -> impl Iterator<Item = super::symbol::Listed> {
    super::symbol::listed! {
        LOCKS syscall
        SOCKETS close SOCKETS dup2 SOCKETS dup3 SOCKETS close_range SOCKETS listen SOCKETS setsockopt
    }
}

/// Called after a descriptor was closed: wakes green threads that began to wait between [`closing`] and the close, so
/// that they try again. Their nodes stay linked, for the number may be another open file's by now, and they may rightly
/// wait for that.
#[inline(never)]
fn closed(fd: RawFd) {
    let key = key_of(fd);
    let mut seen = 0;
    // The number of waiters that were woken so far. Nodes stay linked, so each search skips as many.
    loop {
        let locked = Bucket::of(key).lock();
        let mut at = locked.0.first.get();
        let mut skip = seen;
        let mut found = None;
        // SAFETY: X1: a linked node lives, and no node is unlinked while this function holds the lock.
        while let Some(node) = unsafe { at.as_ref() } {
            if node.key == key {
                if skip == 0 {
                    // SAFETY: X1: `locked` guards the waiter.
                    found = unsafe { (*node.waiter.get()).as_ref() }.and_then(Waiter::copy);
                    break;
                }
                skip -= 1;
            }
            at = node.next.get();
        }
        drop(locked);
        match found {
            // Outside of the lock (X3).
            Some(waiter) => waiter.wake(),
            None => return,
        }
        seen += 1;
    }
}

/// Defined ahead of libc's: wakes the green threads that wait for the descriptor.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn close(fd: c_int) -> c_int {
    #[inline(never)]
    unsafe extern "C-unwind" fn armed(fd: c_int) -> c_int {
        // Before the close: afterwards the number may be given to a new file, and a waiter could read from that.
        closing(fd);
        // The listener's inode can only be asked for while it is open.
        let listener = accept::kept(fd);
        // SAFETY: the caller gives `close` a descriptor that it owns; it is passed on.
        let result = unsafe { original::close(fd) };
        // A green thread that began to wait after `closing` is woken now, and finds the descriptor closed.
        if anybody_waits() {
            closed(fd);
        }
        listener.into_iter().for_each(accept::closed);
        result
    }
    // SAFETY: the caller gives `close` a descriptor that it owns; it is passed on.
    unsafe {
        if super::is_armed() {
            armed(fd)
        } else {
            original::close(fd)
        }
    }
}

/// Whether `dup2(old, new)` will close `new`: not if `old` is not open, or is `new` itself.
fn will_copy(old: c_int, new: c_int) -> bool {
    // SAFETY: `F_GETFD` only reads flags, and fails if `old` is not open.
    old != new && anybody_waits() && unsafe { libc::fcntl(old, libc::F_GETFD) } >= 0
}

/// Defined ahead of libc's: the call closes `new`, so the green threads that wait for `new` are woken as by `close`.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn dup2(old: c_int, new: c_int) -> c_int {
    if will_copy(old, new) {
        closing(new);
    }
    let listener = accept::kept(new);
    // SAFETY: the caller lets `dup2` replace `new`; the arguments are passed on.
    let result = unsafe { original::dup2(old, new) };
    listener.into_iter().for_each(accept::closed);
    if result >= 0 && old != new && anybody_waits() {
        closed(new);
    }
    result
}

/// Defined ahead of libc's: as [`dup2`].
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn dup3(old: c_int, new: c_int, flags: c_int) -> c_int {
    // With any other flag the call fails, and closes nothing.
    if flags & !libc::O_CLOEXEC == 0 && will_copy(old, new) {
        closing(new);
    }
    let listener = accept::kept(new);
    // SAFETY: the caller lets `dup3` replace `new`; the arguments are passed on.
    let result = unsafe { original::dup3(old, new, flags) };
    listener.into_iter().for_each(accept::closed);
    if result >= 0 && anybody_waits() {
        closed(new);
    }
    result
}

/// Defined ahead of libc's: wakes the green threads that wait for a descriptor of the range.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn close_range(first: c_uint, last: c_uint, flags: c_int) -> c_int {
    // With `CLOSE_RANGE_CLOEXEC` the call only sets a flag, and with an unknown flag or an empty range it fails: then
    // it closes nothing.
    let closes = first <= last && flags & !(libc::CLOSE_RANGE_UNSHARE as c_int) == 0;
    if closes && anybody_waits() {
        // The range may be all numbers, so search the buckets for odd keys (see `key_of`) instead of one key at a time.
        for bucket in &TABLE {
            wake_in(bucket, usize::MAX, |node| node.is_of(first, last));
        }
    }
    // SAFETY: the caller owns the descriptors of the range; the arguments are passed on.
    let result = unsafe { original::close_range(first, last, flags) };
    if closes && result == 0 {
        // As in `close`: waits that began meanwhile are woken, and connections of closed listeners are closed.
        if anybody_waits() {
            range_closed(first, last);
        }
        accept::many_closed();
    }
    result
}

/// [`closed`] for each descriptor of a range that a green thread waits for.
#[cold]
fn range_closed(first: c_uint, last: c_uint) {
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
fn lowest_in(bucket: &'static Bucket, first: c_uint, last: c_uint) -> Option<c_uint> {
    let locked = bucket.lock();
    let mut at = locked.0.first.get();
    let mut lowest = None;
    // SAFETY: X1: a linked node lives, and no node is unlinked while this function holds the lock.
    while let Some(node) = unsafe { at.as_ref() } {
        let fd = (node.key >> 1) as c_uint;
        if node.is_of(first, last) && lowest.is_none_or(|lowest| fd < lowest) {
            lowest = Some(fd);
        }
        at = node.next.get();
    }
    lowest
}

impl Node {
    /// Whether it waits for a descriptor of this range.
    fn is_of(&self, first: c_uint, last: c_uint) -> bool {
        self.key & 1 == 1 && (first..=last).contains(&((self.key >> 1) as c_uint))
    }
}

/// Defined ahead of libc's: std asks for a queue of 128 connections, which overflows when thousands of green threads
/// connect at once. The kernel limits the larger number by its own maximum.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn listen(fd: c_int, backlog: c_int) -> c_int {
    const QUEUE: c_int = 4096;
    let backlog = match gate(super::SOCKETS) {
        Some(_) if backlog == 128 => QUEUE,
        _ => backlog,
    };
    // SAFETY: no pointers are involved.
    unsafe { original::listen(fd, backlog) }
}

/// Whether a time-out of a socket was ever set. Most programs set none; then a wait need not ask for the socket's.
static LIMITED: AtomicBool = AtomicBool::new(false);

/// Whether a socket of this process may have a time-out.
pub(super) fn has_time_limits() -> bool {
    LIMITED.load(Ordering::Relaxed)
}

/// Defined ahead of libc's: notes that a socket has a time-out.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn setsockopt(
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *const libc::c_void,
    len: libc::socklen_t,
) -> c_int {
    if level == libc::SOL_SOCKET && matches!(name, libc::SO_RCVTIMEO | libc::SO_SNDTIMEO) {
        LIMITED.store(true, Ordering::Relaxed);
    }
    // SAFETY: the caller guarantees that `value` points to `len` bytes; the arguments are passed on.
    unsafe { original::setsockopt(fd, level, name, value, len) }
}

/// Defined ahead of libc's: intercepts futex calls and nothing else. C's `syscall` is variadic; its arguments arrive in
/// the same registers and stack slots as the seven of this definition.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn syscall(
    number: c_long,
    a: c_long,
    b: c_long,
    c: c_long,
    d: c_long,
    e: c_long,
    f: c_long,
) -> c_long {
    #[inline(never)]
    unsafe extern "C-unwind" fn armed(
        number: c_long,
        a: c_long,
        b: c_long,
        c: c_long,
        d: c_long,
        e: c_long,
        f: c_long,
    ) -> c_long {
        let (time, second) = (d as *const timespec, e as usize);
        // SAFETY: the caller of `syscall` passes the arguments of a futex call, which `futex` requires.
        unsafe {
            match futex(a as usize, b as c_int, c as u32, time, second, f as u32) {
                Some(result) => result,
                None => original::syscall(number, a, b, c, d, e, f),
            }
        }
    }
    // SAFETY: the caller's arguments are valid for the system call `number`; they are passed on.
    unsafe {
        // Code that never parks (the native stack) matters only while the table has waiters: it may wake one, or must
        // link a native node (X4).
        if number == libc::SYS_futex && super::is_armed() && (!super::passes() || anybody_waits()) {
            armed(number, a, b, c, d, e, f)
        } else {
            original::syscall(number, a, b, c, d, e, f)
        }
    }
}

/// Does the part of a futex call that concerns green threads. `None`: the call is to be made by the kernel alone.
///
/// # Safety
/// The arguments are those of a futex system call: `address` is the futex's, and `time` is null or readable where the
/// command has a time-out.
#[inline]
unsafe fn futex(
    address: usize,
    op: c_int,
    value: u32,
    time: *const timespec,
    second: usize,
    mask: u32,
) -> Option<c_long> {
    let command = op & !(libc::FUTEX_PRIVATE_FLAG | libc::FUTEX_CLOCK_REALTIME);
    match command {
        libc::FUTEX_WAIT | libc::FUTEX_WAIT_BITSET => {
            let Some(hub) = gate(super::LOCKS) else {
                if !anybody_waits() || Hub::try_current().is_none() {
                    // This code may not park (M1): the OS thread waits in the kernel. No native node is needed without
                    // green waiters, nor on an OS thread that has no green threads.
                    return None;
                }
                let (a, b, c) = (address as c_long, c_long::from(op), c_long::from(value));
                let (d, e, f) = (time as c_long, second as c_long, c_long::from(mask));
                // SAFETY: the caller guarantees that these are the arguments of a futex call.
                let wait = || unsafe { original::syscall(libc::SYS_futex, a, b, c, d, e, f) };
                return Some(natively(address, wait));
            };
            let mask = if command == libc::FUTEX_WAIT { u32::MAX } else { mask };
            // SAFETY: the caller guarantees that these are the arguments of a futex call.
            Some(unsafe { wait(hub, address, op, value, time, mask) })
        }
        libc::FUTEX_WAKE | libc::FUTEX_WAKE_BITSET => {
            if !anybody_waits() {
                return None;
            }
            let bits = if command == libc::FUTEX_WAKE { u32::MAX } else { mask };
            // Green waiters first; OS threads in the kernel get the rest of the count.
            let green = wake(address, value as usize, bits);
            let mut left = (value as usize).saturating_sub(green);
            if left == 0 {
                if !any_native(address) {
                    return Some(green as c_long);
                }
                // X4: the woken green threads may be unable to run until the OS thread in the kernel has run.
                left = 1;
            }
            let (address, left) = (address as c_long, left as c_long);
            let (op, mask) = (c_long::from(op), c_long::from(mask));
            // SAFETY: the caller guarantees that these are the arguments of a futex call; only the count differs.
            let others = unsafe {
                original::syscall(
                    libc::SYS_futex,
                    address,
                    op,
                    left,
                    time as c_long,
                    second as c_long,
                    mask,
                )
            };
            let woken = others.max(0) + green as c_long;
            Some(if others < 0 && green == 0 {
                // An error counts only if nothing was woken. The extra wake of X4 is not reported: never more than
                // asked for.
                others
            } else {
                woken.min(value.into())
            })
        }
        // Green waiters are not moved to another futex, nor is the operation of `FUTEX_WAKE_OP` evaluated for them: all
        // are woken, and look at the value again. The kernel does the call for OS threads.
        libc::FUTEX_REQUEUE | libc::FUTEX_CMP_REQUEUE | libc::FUTEX_WAKE_OP => {
            if anybody_waits() {
                wake(address, usize::MAX, u32::MAX);
                if command == libc::FUTEX_WAKE_OP {
                    wake(second, usize::MAX, u32::MAX);
                }
            }
            None
        }
        _ => None,
    }
}

static LOCK: &str = "a lock, a channel or a parked std thread";

/// A futex wait of a green thread.
///
/// # Safety
/// As for [`futex`].
unsafe fn wait(hub: &'static Hub, address: usize, op: c_int, value: u32, time: *const timespec, mask: u32) -> c_long {
    let before = errno();
    let zero = timespec { tv_sec: 0, tv_nsec: 0 };
    let plain = |time: *const timespec| {
        let (op, address, value) = (c_long::from(op), address as c_long, c_long::from(value));
        // SAFETY: the caller guarantees that these are the arguments of a futex call; `time` is theirs or a local's.
        unsafe {
            original::syscall(
                libc::SYS_futex,
                address,
                op,
                value,
                time as c_long,
                0,
                c_long::from(mask),
            )
        }
    };
    if op & libc::FUTEX_PRIVATE_FLAG == 0 {
        // The futex may be shared with other processes, and their wakes do not look into this table: an OS thread waits
        // in the kernel in the caller's place.
        return names::apart(|| plain(time) as c_int).map_or_else(|| plain(time), c_long::from);
    }
    // Let the kernel check the arguments and the value, by a wait that ends at once: a relative time of 0 is over, and
    // so is the absolute time 0. It reports a bad address or a value that differs.
    if plain(&raw const zero) == 0 {
        // A wake hit that short wait. It is used up, so the caller is woken.
        return 0;
    }
    // Any other error (`EAGAIN` for a value that differs, `EFAULT`, `EINVAL`) is the result.
    if errno() != libc::ETIMEDOUT {
        return -1;
    }
    let mut deadline = None;
    if !time.is_null() {
        // SAFETY: not null, and readable as the caller guarantees.
        let Some(mut left) = (unsafe { sleep::duration(time) }) else {
            return c_long::from(fail(libc::EINVAL));
        };
        // `FUTEX_WAIT` has a relative time-out, `FUTEX_WAIT_BITSET` an absolute one.
        if op & !(libc::FUTEX_PRIVATE_FLAG | libc::FUTEX_CLOCK_REALTIME) == libc::FUTEX_WAIT_BITSET {
            let clock = if op & libc::FUTEX_CLOCK_REALTIME != 0 {
                libc::CLOCK_REALTIME
            } else {
                libc::CLOCK_MONOTONIC
            };
            left = left.saturating_sub(sleep::now(clock));
        }
        if left == Duration::ZERO {
            return c_long::from(fail(libc::ETIMEDOUT));
        }
        deadline = Some(hub.deadline_in(left));
    }
    set_errno(before);
    // SAFETY: the kernel has just read the word, so it is mapped and aligned. std and C keep a futex alive while a
    // thread waits for it.
    let word = unsafe { AtomicU32::from_ptr(address as *mut u32) };
    let parked = contained(|| {
        let waiting = Waiting::new(address, mask);
        let mut is_first = true;
        loop {
            // A new ticket for each park, so that a late wake of the one before is stale.
            let parker = Parker::new();
            // The first time, `arm` checks the value once more under the bucket's lock: it may have changed since the
            // kernel's look. Later a failure means that the node was unlinked, so this green thread was woken (X2).
            if !waiting.arm(parker.waiter(), || word.load(Ordering::SeqCst) == value) {
                return if is_first { libc::EAGAIN } else { 0 };
            }
            is_first = false;
            let wake = parker.park(deadline, Mode::Must, Why::new(&LOCK, 0));
            // A wake and the deadline may coincide. A waker that unlinked the node has counted it, so it is a wake
            // (X2).
            if wake == Wake::TimedOut {
                return if waiting.disarm() { 0 } else { libc::ETIMEDOUT };
            }
        }
    });
    match parked {
        Some(0) => 0,
        Some(error) => c_long::from(fail(error)),
        // The code above panicked: the OS thread waits in the kernel instead.
        None => plain(time),
    }
}
