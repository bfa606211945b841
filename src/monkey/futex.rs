//! Futexes: std's locks, condition variables, channels and `thread::park` wait by them. And closed descriptors, whose
//! waiters are found in the same table.
//!
//! Green waiters lie in a table of our own, by address; OS threads wait in the kernel as ever. Whoever wakes looks into the
//! table first, and then goes to the kernel for what is left of his number.
//!
//! ```text
//!  waiter                                     waker (any thread)
//!  WAITERS += 1                               changes the value
//!  lock bucket                                fence
//!  value as expected? no: EAGAIN              WAITERS = 0? only the kernel
//!  link, unlock, park                         lock bucket, unlink, unlock, wake
//! ```
//!
//! One of the two orders holds: the waiter sees the changed value, or the waker sees the waiter.
//!
//! # Invariants
//! - **X1** A node is linked only while its `Waiting` lives, whose drop unlinks it; links and waiter are touched under the
//!   bucket's lock alone.
//! - **X2** To be unlinked by a waker *is* to be woken: it is what a wake counts, and a time-out that finds itself unlinked
//!   was woken.
//! - **X3** The bucket's lock is a spin lock of our own, held for a few instructions: no call of the system, no wake, no
//!   allocation under it.
//! - **X4** An OS thread with a hub that waits in the kernel says so in the table, in a node that no waker unlinks. A wake
//!   that goes to one of its green threads meanwhile goes to the kernel too: who holds the baton could not run, for its OS
//!   thread waits for the same (an allocator's lock, inside this crate).

use std::cell::{Cell, UnsafeCell};
use std::os::fd::RawFd;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering, fence};
use std::time::Duration;

use libc::{c_int, c_long, c_uint, timespec};

use super::{accept, contained, errno, fail, gate, names, set_errno, sleep};
use crate::hub::Hub;
use crate::hub::park::{Mode, Parker, Waiter, Wake, Why};

/// How many nodes are linked or about to be.
static WAITERS: AtomicUsize = AtomicUsize::new(0);
/// How many OS threads with a hub wait in the kernel (X4).
static NATIVES: AtomicUsize = AtomicUsize::new(0);

struct Bucket {
    locked: AtomicBool,
    first: Cell<*const Node>,
    last: Cell<*const Node>,
}

// SAFETY: X1: `first` and `last` are touched under `locked`.
unsafe impl Sync for Bucket {}

const BUCKETS: usize = 256;
static TABLE: [Bucket; BUCKETS] = [const {
    Bucket {
        locked: AtomicBool::new(false),
        first: Cell::new(ptr::null()),
        last: Cell::new(ptr::null()),
    }
}; BUCKETS];

struct Node {
    key: usize,
    /// For an OS thread, which waits in the kernel (X4).
    is_native: bool,
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

/// Runs `f`, a wait of this OS thread in the kernel, with a node that says so (X4).
fn natively<R>(key: usize, f: impl FnOnce() -> R) -> R {
    let node = Node::new(key, 0, true);
    NATIVES.fetch_add(1, Ordering::SeqCst);
    Bucket::of(key).lock().link(&node);
    let result = f();
    Bucket::of(key).lock().unlink(&node);
    NATIVES.fetch_sub(1, Ordering::SeqCst);
    result
}

/// Whether an OS thread with a hub waits in the kernel for `key`.
fn any_native(key: usize) -> bool {
    if NATIVES.load(Ordering::SeqCst) == 0 {
        return false;
    }
    let locked = Bucket::of(key).lock();
    let mut at = locked.0.first.get();
    // SAFETY: X1: linked nodes live, and stay linked under the lock.
    while let Some(node) = unsafe { at.as_ref() } {
        if node.is_native && node.key == key {
            return true;
        }
        at = node.next.get();
    }
    false
}

/// A lock of a bucket, released when it is dropped.
struct Locked(&'static Bucket);

impl Bucket {
    fn of(key: usize) -> &'static Bucket {
        &TABLE[key.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (usize::BITS - 8)]
    }

    fn lock(&'static self) -> Locked {
        let mut tries = 0_u32;
        while self.locked.swap(true, Ordering::Acquire) {
            tries += 1;
            if tries.is_multiple_of(64) {
                // Its holder has lost the processor.
                // SAFETY: no pointers are involved.
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
        // At the end, so that who came first is woken first.
        let last = self.0.last.replace(node);
        // SAFETY: X1: linked nodes live.
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

/// Somebody who may be woken by a key.
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

    /// Says whom to wake from now on; links it if `check` agrees. `false`: it was woken already, or `check` did not.
    pub(super) fn arm(&self, waiter: Waiter, check: impl FnOnce() -> bool) -> bool {
        let locked = self.bucket().lock();
        if self.is_woken() {
            return false;
        }
        if !self.node.linked.get() {
            if !check() {
                return false;
            }
            locked.link(&self.node);
        }
        // SAFETY: X1: under the lock.
        unsafe { *self.node.waiter.get() = Some(waiter) };
        true
    }

    fn is_woken(&self) -> bool {
        self.node.woken.load(Ordering::Acquire)
    }

    /// Not waiting any more; whether it was woken.
    pub(super) fn disarm(&self) -> bool {
        let locked = self.bucket().lock();
        if self.node.linked.get() {
            locked.unlink(&self.node);
        }
        // SAFETY: X1: under the lock.
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

/// Wakes up to `count` that wait for `key` with a bit of `mask`; says how many (X2).
fn wake(key: usize, count: usize, mask: u32) -> usize {
    // A node of an OS thread has no bit.
    wake_in(Bucket::of(key), count, |node| node.key == key && node.mask & mask != 0)
}

fn wake_in(bucket: &'static Bucket, count: usize, which: impl Fn(&Node) -> bool) -> usize {
    let mut woken = 0;
    while woken < count {
        let locked = bucket.lock();
        let mut at = locked.0.first.get();
        let mut found = None;
        // SAFETY: X1: linked nodes live, and stay linked under the lock.
        while let Some(node) = unsafe { at.as_ref() } {
            if which(node) {
                locked.unlink(node);
                // SAFETY: X1: under the lock. After `woken` the node may be gone.
                found = unsafe { (*node.waiter.get()).take() };
                node.woken.store(true, Ordering::Release);
                // One whose hub has ended never runs again: it is not whom a wake is for.
                if !found.as_ref().is_some_and(Waiter::is_dead) {
                    woken += 1;
                }
                break;
            }
            at = node.next.get();
        }
        drop(locked);
        if at.is_null() {
            break;
        }
        if let Some(waiter) = found {
            waiter.wake();
        }
    }
    woken
}

/// Empties the table, in a forked child: those in it, and who held a lock of it, are other threads' and the parent's.
pub(super) fn forget_all() {
    WAITERS.store(0, Ordering::SeqCst);
    NATIVES.store(0, Ordering::SeqCst);
    for bucket in &TABLE {
        bucket.first.set(ptr::null());
        bucket.last.set(ptr::null());
        bucket.locked.store(false, Ordering::Release);
    }
}

/// Whether anybody is in the table, or about to be.
#[inline]
fn anybody_waits() -> bool {
    fence(Ordering::SeqCst);
    WAITERS.load(Ordering::SeqCst) != 0
}

/// The key of a descriptor; an address of a futex is never odd.
fn key_of(fd: RawFd) -> usize {
    (fd as usize) << 1 | 1
}

/// Somebody who waits for a descriptor and is to be told when it is closed.
pub(super) struct Watched<'a>(&'a Waiting);

impl Watched<'_> {
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

/// Runs `f`, a wait for `fd`.
pub(super) fn watching<R>(fd: RawFd, f: impl FnOnce(&Watched<'_>) -> R) -> R {
    let waiting = Waiting::new(key_of(fd), u32::MAX);
    f(&Watched(&waiting))
}

/// Wakes up to `count` that wait for `key`, if anybody waits at all.
#[inline]
pub(super) fn wake_by(key: usize, count: usize) {
    if anybody_waits() {
        wake(key, count, u32::MAX);
    }
}

/// A descriptor is about to be closed: all who wait for it get `EBADF`, on whatever OS thread.
#[inline]
fn closing(fd: RawFd) {
    wake_by(key_of(fd), usize::MAX);
}

/// What libc does.
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

/// The descriptor is closed: who began to wait while that was under way looks again.
#[inline(never)]
fn closed(fd: RawFd) {
    let key = key_of(fd);
    let mut seen = 0;
    loop {
        let locked = Bucket::of(key).lock();
        let mut at = locked.0.first.get();
        let mut skip = seen;
        let mut found = None;
        // SAFETY: X1: linked nodes live, and stay linked under the lock.
        while let Some(node) = unsafe { at.as_ref() } {
            if node.key == key {
                if skip == 0 {
                    // SAFETY: X1: under the lock.
                    found = unsafe { (*node.waiter.get()).as_ref() }.and_then(Waiter::copy);
                    break;
                }
                skip -= 1;
            }
            at = node.next.get();
        }
        drop(locked);
        match found {
            Some(waiter) => waiter.wake(),
            None => return,
        }
        seen += 1;
    }
}

/// Ahead of libc's: wakes who waits.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn close(fd: c_int) -> c_int {
    #[inline(never)]
    unsafe extern "C-unwind" fn armed(fd: c_int) -> c_int {
        closing(fd);
        let listener = accept::kept(fd);
        // SAFETY: the caller's, as libc's.
        let result = unsafe { original::close(fd) };
        if anybody_waits() {
            closed(fd);
        }
        listener.into_iter().for_each(accept::closed);
        result
    }
    // SAFETY: as above.
    unsafe {
        if super::is_armed() {
            armed(fd)
        } else {
            original::close(fd)
        }
    }
}

/// Whether a call that closes `new` as it makes it a copy of `old` will do so.
fn will_copy(old: c_int, new: c_int) -> bool {
    // SAFETY: asks for flags.
    old != new && anybody_waits() && unsafe { libc::fcntl(old, libc::F_GETFD) } >= 0
}

/// Ahead of libc's: the new number is closed by it.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn dup2(old: c_int, new: c_int) -> c_int {
    if will_copy(old, new) {
        closing(new);
    }
    let listener = accept::kept(new);
    // SAFETY: the caller's, as libc's.
    let result = unsafe { original::dup2(old, new) };
    listener.into_iter().for_each(accept::closed);
    if result >= 0 && old != new && anybody_waits() {
        closed(new);
    }
    result
}

/// Ahead of libc's.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn dup3(old: c_int, new: c_int, flags: c_int) -> c_int {
    if flags & !libc::O_CLOEXEC == 0 && will_copy(old, new) {
        closing(new);
    }
    let listener = accept::kept(new);
    // SAFETY: the caller's, as libc's.
    let result = unsafe { original::dup3(old, new, flags) };
    listener.into_iter().for_each(accept::closed);
    if result >= 0 && anybody_waits() {
        closed(new);
    }
    result
}

/// Ahead of libc's.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn close_range(first: c_uint, last: c_uint, flags: c_int) -> c_int {
    // One that only sets a flag closes nothing, and neither does one that fails.
    if first <= last && flags & !(libc::CLOSE_RANGE_UNSHARE as c_int) == 0 && anybody_waits() {
        let closes = |node: &Node| node.key & 1 == 1 && (first..=last).contains(&((node.key >> 1) as c_uint));
        for bucket in &TABLE {
            wake_in(bucket, usize::MAX, closes);
        }
    }
    // SAFETY: the caller's, as libc's.
    unsafe { original::close_range(first, last, flags) }
}

/// Ahead of libc's: std asks for a queue of 128, which thousands of green threads that connect at once overflow.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn listen(fd: c_int, backlog: c_int) -> c_int {
    const QUEUE: c_int = 4096;
    let backlog = match gate(super::SOCKETS) {
        Some(_) if backlog == 128 => QUEUE,
        _ => backlog,
    };
    // SAFETY: the caller's, as libc's.
    unsafe { original::listen(fd, backlog) }
}

/// Whether a time-out of a socket was ever set: most programs never do, and need not be asked at each wait.
static LIMITED: AtomicBool = AtomicBool::new(false);

/// Whether sockets may have time-outs.
pub(super) fn has_time_limits() -> bool {
    LIMITED.load(Ordering::Relaxed)
}

/// Ahead of libc's: notes that there are time-outs.
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
    // SAFETY: the caller's, as libc's.
    unsafe { original::setsockopt(fd, level, name, value, len) }
}

/// Ahead of libc's: only futexes are looked at. It has a variable number of arguments, all in the same places.
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
        // SAFETY: the caller's, as libc's.
        unsafe {
            match futex(a as usize, b as c_int, c as u32, time, second, f as u32) {
                Some(result) => result,
                None => original::syscall(number, a, b, c, d, e, f),
            }
        }
    }
    // SAFETY: as above.
    unsafe {
        // On an OS thread there is only somebody to wake.
        if number == libc::SYS_futex && super::is_armed() && (!super::passes() || anybody_waits()) {
            armed(number, a, b, c, d, e, f)
        } else {
            original::syscall(number, a, b, c, d, e, f)
        }
    }
}

/// A futex call as far as it concerns green threads; `None`: the kernel's alone.
///
/// # Safety
/// The arguments are those of a futex call.
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
                    return None;
                }
                let (a, b, c) = (address as c_long, c_long::from(op), c_long::from(value));
                let (d, e, f) = (time as c_long, second as c_long, c_long::from(mask));
                // SAFETY: the caller's.
                let wait = || unsafe { original::syscall(libc::SYS_futex, a, b, c, d, e, f) };
                return Some(natively(address, wait));
            };
            let mask = if command == libc::FUTEX_WAIT { u32::MAX } else { mask };
            // SAFETY: the caller's.
            Some(unsafe { wait(hub, address, op, value, time, mask) })
        }
        libc::FUTEX_WAKE | libc::FUTEX_WAKE_BITSET => {
            if !anybody_waits() {
                return None;
            }
            let bits = if command == libc::FUTEX_WAKE { u32::MAX } else { mask };
            let green = wake(address, value as usize, bits);
            let mut left = (value as usize).saturating_sub(green);
            if left == 0 {
                if !any_native(address) {
                    return Some(green as c_long);
                }
                left = 1;
            }
            let (address, left) = (address as c_long, left as c_long);
            let (op, mask) = (c_long::from(op), c_long::from(mask));
            // SAFETY: the caller's.
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
                others
            } else {
                woken.min(value.into())
            })
        }
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

/// # Safety
/// As for [`futex`].
unsafe fn wait(hub: &'static Hub, address: usize, op: c_int, value: u32, time: *const timespec, mask: u32) -> c_long {
    let before = errno();
    let zero = timespec { tv_sec: 0, tv_nsec: 0 };
    let plain = |time: *const timespec| {
        let (op, address, value) = (c_long::from(op), address as c_long, c_long::from(value));
        // SAFETY: the caller's.
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
        // Shared with other processes, which know nothing of our table.
        return names::apart(|| plain(time) as c_int).map_or_else(|| plain(time), c_long::from);
    }
    // The kernel's look: a bad address, a bad time, another value. Time zero, or long past, is over at once.
    if plain(&raw const zero) == 0 {
        // Woken in passing.
        return 0;
    }
    if errno() != libc::ETIMEDOUT {
        return -1;
    }
    let mut deadline = None;
    if !time.is_null() {
        // SAFETY: the caller's: not null.
        let Some(mut left) = (unsafe { sleep::duration(time) }) else {
            return c_long::from(fail(libc::EINVAL));
        };
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
        deadline = Some(hub.after(left));
    }
    set_errno(before);
    // SAFETY: the kernel has just read it; std and C keep a futex while somebody waits for it.
    let word = unsafe { AtomicU32::from_ptr(address as *mut u32) };
    let parked = contained(|| {
        let waiting = Waiting::new(address, mask);
        let mut is_first = true;
        loop {
            let parker = Parker::new();
            if !waiting.arm(parker.waiter(), || word.load(Ordering::SeqCst) == value) {
                return if is_first { libc::EAGAIN } else { 0 };
            }
            is_first = false;
            let wake = parker.park(deadline, Mode::Must, Why::new(&LOCK, 0));
            if wake == Wake::TimedOut {
                return if waiting.disarm() { 0 } else { libc::ETIMEDOUT };
            }
        }
    });
    match parked {
        Some(0) => 0,
        Some(error) => c_long::from(fail(error)),
        // It could not park: the OS thread waits.
        None => plain(time),
    }
}
