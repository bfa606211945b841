//! accept: by io_uring, which can accept without waiting; where there is none, on an OS thread in the caller's place.
//!
//! It is not enough to wait until a listener is readable and to call `accept` then. Another thread or process may
//! accept first, or the connection may be gone (accept(2)), and the call would block the hub. Nor may `O_NONBLOCK` be
//! set on the open file: other threads and processes that accept from it would get `EAGAIN`.
//!
//! Without io_uring (Linux before 6.10, seccomp, `GREEN_ACCEPT=thread` in the environment), each listener from which
//! green threads accept has an OS thread. It gets a copy of the descriptor once the listener is readable, accepts one
//! connection, and leaves it at the listener's *line*, a queue in this module, where the waiting green threads look. If
//! the green thread that asked for it is killed or timed out meanwhile, the next accept takes it: no connection is
//! lost. When the listener's last descriptor is closed, the connections at its line are closed too, like those that the
//! kernel has queued. If another process takes the connection before the OS thread does, the OS thread blocks in
//! `accept`; a listener that is closed meanwhile stays open in the kernel until one more connection comes, as with any
//! blocking accept.
//!
//! ```text
//!   green thread                                  OS thread of the line
//!   anything left here? ── yes ─► take it
//!   is it working? ─ no ─► readable? ─ yes ─► job ─► accept, which may block
//!   park: for the listener, for the line          leave it here, wake all
//! ```
//!
//! # Invariants
//! - **A1** The list of lines is accessed only under its lock. Under the lock there is no system call, no wake, no
//!   allocation and no free.
//! - **A2** A line exists while a green thread accepts from the listener, while its OS thread exists, or while it holds
//!   a connection.

use std::cell::{Cell, UnsafeCell};
use std::mem::{replace, size_of, zeroed};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::thread::Thread;
use std::time::Duration;

use libc::{c_int, sockaddr, sockaddr_storage, socklen_t, ssize_t};

use super::fd::{self, Call, SOCKET, is_nonblocking};
use super::symbol::patch;
use super::{Cut, contained, errno, fail, futex, interrupted, ready, set_errno, unpatched};
use crate::hub::{self, Direction, Hub, Mode, Parker, Wake, Why};

patch! {
    SOCKETS accept(fd: c_int, address: *mut sockaddr, len: *mut socklen_t) -> c_int => accept_green;
    SOCKETS accept4(fd: c_int, address: *mut sockaddr, len: *mut socklen_t, flags: c_int) -> c_int => accept4_green;
}

unsafe fn accept_green(hub: &'static Hub, fd: c_int, address: *mut sockaddr, len: *mut socklen_t) -> c_int {
    // SAFETY: the caller guarantees that `address` is null or has room for `*len` bytes.
    unsafe { accept4_green(hub, fd, address, len, 0) }
}

unsafe fn accept4_green(
    hub: &'static Hub,
    fd: c_int,
    address: *mut sockaddr,
    len: *mut socklen_t,
    flags: c_int,
) -> c_int {
    let call = Call::new(hub, fd, Direction::Read, "accept");
    if let Err(cut) = call.begin(false) {
        return cut as c_int;
    }
    // SAFETY: the caller guarantees that `address` is null or has room for `*len` bytes.
    let accepted = unsafe {
        match by_ring(hub, &call, address, len, flags) {
            Some(accepted) => accepted,
            None => by_thread(hub, &call, address, len, flags),
        }
    };
    if accepted >= 0 {
        // A loop that accepts would otherwise take all queued connections before a green thread serves the first one.
        fd::give_way(hub::yield_now);
    }
    accepted
}

/// Whether the environment forbids io_uring. Asked once.
fn only_by_thread() -> bool {
    static ASKED: AtomicU8 = AtomicU8::new(0);
    match ASKED.load(Ordering::Relaxed) {
        0 => {
            let asked = unpatched(|| std::env::var_os("GREEN_ACCEPT").is_some_and(|how| how == "thread"));
            ASKED.store(1 + u8::from(asked), Ordering::Relaxed);
            asked
        }
        known => known == 2,
    }
}

/// Accepts by the hub's io_uring. `None`: there is none, and nothing was accepted.
///
/// # Safety
/// As for `accept4`.
unsafe fn by_ring(
    hub: &'static Hub,
    call: &Call,
    address: *mut sockaddr,
    len: *mut socklen_t,
    flags: c_int,
) -> Option<c_int> {
    if only_by_thread() {
        return None;
    }
    let is_gone = Cell::new(false);
    let accepted = call.attempt(false, || {
        // SAFETY: the caller guarantees that `address` is null or has room for `*len` bytes; a hub never leaves its OS
        // thread, so the ring is used on the one that made it.
        match unsafe { hub.patched.accepts.accept(call.fd, address, len, flags) } {
            Some(Ok(accepted)) => accepted as ssize_t,
            Some(Err(error)) => fail(error) as ssize_t,
            None => {
                // Any errno except `EAGAIN`, so that `attempt` returns instead of waiting.
                is_gone.set(true);
                fail(libc::EIO) as ssize_t
            }
        }
    });
    (!is_gone.get()).then_some(accepted as c_int)
}

/// The result of an OS thread's accept, on its way to a green thread that accepts.
struct Taken {
    result: Result<OwnedFd, c_int>,
    address: sockaddr_storage,
    len: socklen_t,
    next: Option<Box<Taken>>,
}

impl Taken {
    /// Accepts; may block. Runs on the line's OS thread.
    fn from(listener: &OwnedFd) -> Box<Taken> {
        // SAFETY: `accept4` writes to a local address, for which all-zero is valid; the new descriptor has no other
        // owner.
        unsafe {
            let mut address: sockaddr_storage = zeroed();
            let mut len = size_of::<sockaddr_storage>() as socklen_t;
            let raw = original::accept4(
                listener.as_raw_fd(),
                (&raw mut address).cast(),
                &raw mut len,
                libc::SOCK_CLOEXEC,
            );
            let result = if raw < 0 {
                Err(errno())
            } else {
                Ok(OwnedFd::from_raw_fd(raw))
            };
            Box::new(Taken {
                result,
                address,
                len,
                next: None,
            })
        }
    }

    /// Returns the result to the caller of accept, as `accept4` would.
    ///
    /// # Safety
    /// As for `accept4`.
    unsafe fn deliver(self, address: *mut sockaddr, len: *mut socklen_t, flags: c_int) -> c_int {
        let accepted = match self.result {
            Ok(accepted) => accepted,
            Err(error) => return fail(error),
        };
        // SAFETY: `address` is null or has room for `*len` bytes, as the caller guarantees. This call owns the
        // descriptor.
        unsafe {
            if !address.is_null() {
                // A shorter place gets a part of the address, and `len` the full length.
                let room = (*len).min(self.len) as usize;
                std::ptr::copy_nonoverlapping((&raw const self.address).cast::<u8>(), address.cast::<u8>(), room);
                *len = self.len;
            }
            // The OS thread accepts with `SOCK_CLOEXEC`: the descriptor may exist for long before a caller takes it,
            // and must not leak into a child that is spawned meanwhile.
            if flags & libc::SOCK_CLOEXEC == 0 {
                libc::fcntl(accepted.as_raw_fd(), libc::F_SETFD, 0);
            }
            if flags & libc::SOCK_NONBLOCK != 0 {
                libc::fcntl(accepted.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK);
            }
        }
        accepted.into_raw_fd()
    }
}

/// The state of a line's OS thread.
enum Work {
    /// There is no OS thread.
    None,
    /// It waits for a job, parked.
    Rests(Thread),
    /// It was given a job, the listener to accept from, and has not begun.
    Job(OwnedFd),
    /// It is in `accept`, which may block.
    Accepts,
}

/// The accepts from one listener without io_uring.
struct Line {
    /// Identifies the listener, whatever descriptor it has.
    inode: u64,
    /// Green threads, of any hub, that accept from the listener now.
    accepters: usize,
    work: Work,
    /// What was accepted and not yet fetched, the oldest first.
    taken: Option<Box<Taken>>,
    next: Option<Box<Line>>,
}

struct Lines {
    locked: AtomicBool,
    first: UnsafeCell<Option<Box<Line>>>,
}

// SAFETY: A1: `first` is accessed only by the OS thread that holds `locked`.
unsafe impl Sync for Lines {}

static LINES: Lines = Lines {
    locked: AtomicBool::new(false),
    first: UnsafeCell::new(None),
};

/// How many results were left at any line so far. A green thread that has found nothing parks only if the number has
/// not changed since.
static LEFT: AtomicU64 = AtomicU64::new(0);

/// How many results all lines hold now.
static KEPT: AtomicUsize = AtomicUsize::new(0);

/// The inode of a listener that is about to be closed, if its line holds connections. Costs one load if no line does.
#[inline]
pub(super) fn kept(fd: c_int) -> Option<u64> {
    if KEPT.load(Ordering::Relaxed) == 0 {
        return None;
    }
    let before = errno();
    let inode = listener(fd);
    set_errno(before);
    inode.filter(|inode| LINES.at(*inode, |line| line.taken.is_some()) == Some(true))
}

/// Called when a descriptor of the listener was closed. If it was the last one, the connections at its line are closed,
/// like those that the kernel has queued.
#[cold]
pub(super) fn closed(inode: u64) {
    let before = errno();
    if !is_open(inode) {
        // Taken under the lock, and closed outside of it (A1).
        let mut taken = LINES.at(inode, |line| line.taken.take()).flatten();
        while let Some(mut one) = taken {
            KEPT.fetch_sub(1, Ordering::Relaxed);
            taken = one.next.take();
        }
    }
    set_errno(before);
}

/// The same when any number of descriptors was closed at once. Costs one load if no line holds connections.
pub(super) fn many_closed() {
    // The lines in the order of the inodes, one for each hold of the lock: `closed` takes the lock itself.
    let mut after = None;
    while KEPT.load(Ordering::Relaxed) != 0
        && let Some(inode) = LINES.with(|first| next_taken(first.as_deref(), after))
    {
        closed(inode);
        after = Some(inode);
    }
}

/// The lowest inode above `after` of a line that holds connections.
fn next_taken(mut at: Option<&Line>, after: Option<u64>) -> Option<u64> {
    let mut lowest = None;
    while let Some(line) = at {
        if line.taken.is_some() && Some(line.inode) > after && lowest.is_none_or(|lowest| line.inode < lowest) {
            lowest = Some(line.inode);
        }
        at = line.next.as_deref();
    }
    lowest
}

/// Runs in a forked child: the lines' OS threads are the parent's and do not exist here. Leaks the lines.
pub(super) fn forget_all() {
    KEPT.store(0, Ordering::Relaxed);
    // SAFETY: the child has one thread, so nothing else accesses the lines.
    std::mem::forget(unsafe { (*LINES.first.get()).take() });
    LINES.locked.store(false, Ordering::Release);
}

impl Lines {
    /// Runs `f` with the first line, under the lock.
    fn with<R>(&self, f: impl FnOnce(&mut Option<Box<Line>>) -> R) -> R {
        while self.locked.swap(true, Ordering::Acquire) {
            rustix::thread::sched_yield();
        }
        // SAFETY: A1: this OS thread holds the lock.
        let result = f(unsafe { &mut *self.first.get() });
        self.locked.store(false, Ordering::Release);
        result
    }

    /// Runs `f` with the line of a listener, if there is one, and removes the line if it is no longer needed (A2).
    fn at<R>(&self, inode: u64, f: impl FnOnce(&mut Line) -> R) -> Option<R> {
        let mut unused = None;
        let result = self.with(|first| {
            let place = find(first, inode);
            let line = place.as_mut()?;
            let result = f(line);
            if line.accepters == 0 && line.taken.is_none() && matches!(line.work, Work::None) {
                // Freed outside of the lock (A1).
                let next = line.next.take();
                unused = replace(place, next);
            }
            Some(result)
        });
        drop(unused);
        result
    }
}

/// The place of a listener's line: where it is, or, if there is none, the end of the list.
fn find(at: &mut Option<Box<Line>>, inode: u64) -> &mut Option<Box<Line>> {
    if at.as_ref().is_none_or(|line| line.inode == inode) {
        return at;
    }
    match at {
        Some(line) => find(&mut line.next, inode),
        None => at,
    }
}

/// A green thread's accept from a listener; keeps its line alive (A2).
struct Accepter {
    inode: u64,
}

/// What an accepter finds.
enum Found {
    Taken(Box<Taken>),
    /// Nothing yet, but the OS thread has a job or is in `accept`.
    Working,
    Nothing,
}

impl Accepter {
    fn new(inode: u64) -> Accepter {
        // Allocated before the lock is taken (A1), and dropped after it if the line exists.
        let mut fresh = Some(Box::new(Line {
            inode,
            accepters: 0,
            work: Work::None,
            taken: None,
            next: None,
        }));
        LINES.with(|first| {
            let place = find(first, inode);
            if place.is_none() {
                *place = fresh.take();
            }
            if let Some(line) = place {
                line.accepters += 1;
            }
        });
        Accepter { inode }
    }

    /// The line's key in the table of [`futex`].
    fn key(&self) -> usize {
        key_of(self.inode)
    }

    /// Takes the oldest result at the line, or says whether one is under way.
    fn look(&self) -> Found {
        let found = LINES.at(self.inode, |line| match line.taken.take() {
            Some(mut first) => {
                line.taken = first.next.take();
                KEPT.fetch_sub(1, Ordering::Relaxed);
                Found::Taken(first)
            }
            None if matches!(line.work, Work::Job(_) | Work::Accepts) => Found::Working,
            None => Found::Nothing,
        });
        found.unwrap_or(Found::Nothing)
    }

    /// Gives the line's OS thread the job to accept one connection; starts the OS thread if there is none. Fails with
    /// an errno.
    fn start(&self, fd: c_int) -> Result<(), c_int> {
        // A copy, so that the OS thread's `accept` is not hit by a close and a reuse of the caller's number.
        // SAFETY: `F_DUPFD_CLOEXEC` makes a new descriptor, which has no other owner.
        let copy = unsafe {
            let raw = libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 0);
            if raw < 0 {
                return Err(errno());
            }
            OwnedFd::from_raw_fd(raw)
        };
        let mut copy = Some(copy);
        // The state before. If another green thread has given a job meanwhile, that one serves both: it is taken as
        // `Accepts`.
        let before = LINES.at(self.inode, |line| match line.work {
            Work::Job(_) | Work::Accepts => Work::Accepts,
            Work::None | Work::Rests(_) => match copy.take() {
                Some(copy) => replace(&mut line.work, Work::Job(copy)),
                None => Work::Accepts,
            },
        });
        match before {
            Some(Work::Rests(thread)) => thread.unpark(),
            Some(Work::None) => {
                let inode = self.inode;
                if crate::sys::thread::start("greenthread-accept", move || serve(inode)).is_err() {
                    // Without an OS thread the job is taken back, or later accepts would wait for it.
                    LINES.at(inode, |line| replace(&mut line.work, Work::None));
                    return Err(libc::ENOMEM);
                }
            }
            _ => {}
        }
        Ok(())
    }
}

impl Drop for Accepter {
    fn drop(&mut self) {
        LINES.at(self.inode, |line| line.accepters -= 1);
    }
}

/// The key of a line in the table of [`futex`]: even but no multiple of 4, so it is neither a descriptor's key nor the
/// address of a futex.
fn key_of(inode: u64) -> usize {
    (inode as usize) << 2 | 2
}

/// How long the OS thread of a line waits for another job before it ends.
const REST: Duration = Duration::from_secs(5);

/// The body of a line's OS thread.
fn serve(inode: u64) {
    let me = std::thread::current();
    loop {
        // Take the job and announce the accept in one step: until the result is left, green threads wait for this line
        // instead of giving another job.
        let job = LINES.at(inode, |line| match replace(&mut line.work, Work::Accepts) {
            Work::Job(listener) => Some(listener),
            other => {
                line.work = other;
                None
            }
        });
        let Some(Some(listener)) = job else { return };
        let taken = Taken::from(&listener);
        // Closed before the result is left: a green thread that has it may close the listener, and expects it closed.
        drop(listener);
        leave(inode, taken, me.clone());
        std::thread::park_timeout(REST);
        // If there is a new job, go on. Otherwise end, and say so under the lock, so that the next job starts an OS
        // thread.
        let ends = LINES.at(inode, |line| {
            let rests = matches!(line.work, Work::Rests(_));
            rests.then(|| replace(&mut line.work, Work::None))
        });
        if !matches!(ends, Some(None)) {
            return;
        }
    }
}

/// Leaves a result at the line, sets the state to `Rests`, and wakes the green threads that wait for the line.
fn leave(inode: u64, taken: Box<Taken>, me: Thread) {
    // An `EAGAIN` is from the listener's own time-out, and an `EINTR` from a signal to this OS thread: neither is an
    // error of the green thread that accepts.
    let is_nothing = matches!(taken.result, Err(libc::EAGAIN | libc::EINTR));
    let is_wanted = LINES.at(inode, |line| line.accepters > 0) == Some(true);
    // Without an accepter an error concerns no caller. A connection is kept for the next accept while the listener is
    // open.
    let is_kept = !is_nothing && (is_wanted || taken.result.is_ok() && is_open(inode));
    let mut taken = is_kept.then_some(taken);
    let mut rests = Work::Rests(me);
    LINES.at(inode, |line| {
        let mut last = &mut line.taken;
        while let Some(one) = last {
            last = &mut one.next;
        }
        KEPT.fetch_add(usize::from(taken.is_some()), Ordering::Relaxed);
        *last = taken.take();
        std::mem::swap(&mut line.work, &mut rests);
    });
    // After the result is at the line, and before the wake: a green thread that looked before sees the number changed
    // when it is about to park, or is in the table when the wake comes.
    LEFT.fetch_add(1, Ordering::SeqCst);
    futex::wake_by(key_of(inode), usize::MAX);
}

/// Whether this process has a descriptor of the socket; true if that cannot be found out.
fn is_open(inode: u64) -> bool {
    let name = format!("socket:[{inode}]");
    let Ok(all) = std::fs::read_dir("/proc/self/fd") else {
        return true;
    };
    all.flatten()
        .any(|one| std::fs::read_link(one.path()).is_ok_and(|target| target.as_os_str() == name.as_str()))
}

/// The inode of a descriptor that is a listening socket; `None` for any other.
fn listener(fd: c_int) -> Option<u64> {
    // SAFETY: the calls write to a local integer and a local `stat`, for which all-zero is valid.
    unsafe {
        let (mut listens, mut len) = (0, size_of::<c_int>() as socklen_t);
        let at = (&raw mut listens).cast();
        let asked = libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_ACCEPTCONN, at, &raw mut len);
        let mut stat: libc::stat = zeroed();
        (asked == 0 && listens == 1 && libc::fstat(fd, &raw mut stat) == 0).then_some(stat.st_ino)
    }
}

/// Accepts by an OS thread and the listener's line.
///
/// # Safety
/// As for `accept4`.
unsafe fn by_thread(
    hub: &'static Hub,
    call: &Call,
    address: *mut sockaddr,
    len: *mut socklen_t,
    flags: c_int,
) -> c_int {
    let before = errno();
    let is_right = flags & !(libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK) == 0;
    // Not a listener, unknown flags, or non-blocking: the call fails or returns at once, so it is made here.
    let Some(inode) = listener(call.fd).filter(|_| is_right && !is_nonblocking(call.fd)) else {
        set_errno(before);
        // SAFETY: the caller guarantees that `address` is null or has room for `*len` bytes.
        return unsafe { original::accept4(call.fd, address, len, flags) };
    };
    if !address.is_null() && len.is_null() {
        return fail(libc::EFAULT);
    }
    let accepter = Accepter::new(inode);
    loop {
        // Read before the look at the line: see `LEFT`.
        let left = LEFT.load(Ordering::SeqCst);
        let mut found = accepter.look();
        // A job is given only when there seems to be a connection, so that the OS thread rarely blocks in `accept`.
        if matches!(found, Found::Nothing) && ready::is_ready(call.fd, libc::POLLIN) {
            if let Err(error) = accepter.start(call.fd) {
                return fail(error);
            }
            found = Found::Working;
        }
        let works = match found {
            Found::Taken(taken) => {
                set_errno(before);
                // SAFETY: the caller guarantees that `address` is null or has room for `*len` bytes.
                return unsafe { taken.deliver(address, len, flags) };
            }
            Found::Working => true,
            Found::Nothing => false,
        };
        match wait(hub, call, &accepter, left, works) {
            Ok(Wake::Ready | Wake::Early) => {}
            Ok(Wake::TimedOut) => return fail(libc::EAGAIN),
            Ok(Wake::Interrupted) => {
                if let Cut::Interrupted(error) = interrupted(hub, "accept") {
                    return fail(error);
                }
            }
            Err(error) => return fail(error),
        }
    }
}

/// Waits until a result is left at the line, or the listener is closed; unless the OS thread is at work (`works`), also
/// until the listener is readable.
fn wait(hub: &'static Hub, call: &Call, accepter: &Accepter, left: u64, works: bool) -> Result<Wake, c_int> {
    let (fd, deadline) = (call.fd, call.deadline());
    let why = Why::new(&SOCKET, fd as usize);
    let parked = contained(|| {
        futex::watching(fd, |watched| {
            let parker = Parker::new();
            watched.start(parker.waiter());
            // Two waits with one ticket: the first wake ends the park, and the other becomes stale.
            let line = futex::Waiting::new(accepter.key(), u32::MAX);
            // A result that was left since the look at the line is not waited for: look again.
            if !line.arm(parker.waiter(), || LEFT.load(Ordering::SeqCst) == left) {
                return Ok(Wake::Early);
            }
            let hears = hub.hear_signals(parker.named(), fd::handlers(deadline));
            // While the OS thread works, the listener may stay readable with the connection that it is about to accept.
            let wake = if works {
                Ok(parker.park(deadline, Mode::Cancel, why))
            } else {
                // SAFETY: it was a listener's descriptor before, so it is not -1, and a close ends the wait.
                let fd = unsafe { fd::borrow(fd) };
                let closed = || watched.is_closed();
                hub.reactor
                    .wait_foreign(parker, fd, Direction::Read, deadline, why, closed)
            };
            if watched.is_closed() {
                return Err(rustix::io::Errno::BADF.into());
            }
            if hub.was_cut(hears) {
                return Err(rustix::io::Errno::INTR.into());
            }
            wake
        })
    });
    match parked {
        Some(Ok(wake)) => Ok(wake),
        Some(Err(error)) => Err(error.raw_os_error().unwrap_or(libc::EIO)),
        None => Err(libc::EIO),
    }
}
