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
//! - **ACCEPT-1** The list of lines is accessed only under its lock. Under the lock there is no system call, no wake,
//!   no allocation and no free.
//! - **ACCEPT-2** A line exists while a green thread accepts from the listener, while its OS thread exists, or while it
//!   holds a connection.

#![forbid(unsafe_code)]

use std::cell::Cell;
use std::mem::replace;
use std::os::fd::{IntoRawFd, OwnedFd};
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::thread::Thread;
use std::time::Duration;

use libc::{c_int, sockaddr_storage, socklen_t, ssize_t};

use super::call::{self, Call, SOCKET, handlers_for, is_nonblocking};
use super::gate::{contained, interrupted};
use super::symbol::{errno, fail, set_errno};
use super::table::{self, Waiting};
use crate::hub::{self, Direction, Mode, Parker, Wake, Why};
use crate::sys::fork::InChild;
use crate::sys::plain::plainly;
use crate::sys::probe::{self, is_ready, listener};
use crate::sys::spin::Spin;

/// The ways to make one `accept4`.
pub(super) struct Ways<'a> {
    /// By the hub's io_uring: the descriptor or an errno. `None`: there is no io_uring.
    pub(super) by_ring: &'a dyn Fn() -> Option<Result<c_int, c_int>>,
    /// As it is: it may block the OS thread.
    pub(super) plainly: &'a dyn Fn() -> c_int,
    /// The caller has a place for an address, and none for its length.
    pub(super) is_bad: bool,
    /// Stores the peer's address for the caller.
    pub(super) deliver: &'a dyn Fn(&sockaddr_storage, socklen_t),
}

/// Accepts a connection.
pub(super) fn accept(call: &Call, flags: c_int, ways: &Ways<'_>) -> c_int {
    if let Err(failed) = call.begin(false) {
        return failed as c_int;
    }
    let accepted = by_ring(call, ways).unwrap_or_else(|| by_thread(call, flags, ways));
    if accepted >= 0 {
        // A loop that accepts would otherwise take all queued connections before a green thread serves the first one.
        call::give_way(hub::yield_now);
    }
    accepted
}

/// Whether the environment forbids io_uring. Asked once.
fn only_by_thread() -> bool {
    static ASKED: AtomicU8 = AtomicU8::new(0);
    match ASKED.load(Ordering::Relaxed) {
        0 => {
            let asked = plainly(|| std::env::var_os("GREEN_ACCEPT").is_some_and(|how| how == "thread"));
            ASKED.store(1 + u8::from(asked), Ordering::Relaxed);
            asked
        }
        known => known == 2,
    }
}

/// Accepts by the hub's io_uring. `None`: there is none, and nothing was accepted.
fn by_ring(call: &Call, ways: &Ways<'_>) -> Option<c_int> {
    if only_by_thread() {
        return None;
    }
    let is_gone = Cell::new(false);
    let accepted = call.attempt(false, || match (ways.by_ring)() {
        Some(Ok(accepted)) => accepted as ssize_t,
        Some(Err(error)) => fail(error) as ssize_t,
        None => {
            // Any errno except `EAGAIN`, so that `attempt` returns instead of waiting.
            is_gone.set(true);
            fail(libc::EIO) as ssize_t
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
        let (result, address, len) = probe::accept_next(listener);
        Box::new(Taken {
            result,
            address,
            len,
            next: None,
        })
    }

    /// Returns the result to the caller of accept, as `accept4` would.
    fn deliver(self, flags: c_int, ways: &Ways<'_>) -> c_int {
        let accepted = match self.result {
            Ok(accepted) => accepted,
            Err(error) => return fail(error),
        };
        (ways.deliver)(&self.address, self.len);
        // The OS thread accepts with `SOCK_CLOEXEC`: the descriptor may exist for long before a caller takes it, and
        // must not leak into a child that is spawned meanwhile.
        probe::set_flags(&accepted, flags);
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

/// The first line (ACCEPT-1).
static LINES: Spin<Option<Box<Line>>> = Spin::new(None);

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
    inode.filter(|inode| at_line(*inode, |line| line.taken.is_some()) == Some(true))
}

/// Called when a descriptor of the listener was closed. If it was the last one, the connections at its line are closed,
/// like those that the kernel has queued.
#[cold]
pub(super) fn closed(inode: u64) {
    let before = errno();
    if !is_open(inode) {
        // Taken under the lock, and closed outside of it (ACCEPT-1).
        let mut taken = at_line(inode, |line| line.taken.take()).flatten();
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
        && let Some(inode) = with_lines(|first| next_taken(first.as_deref(), after))
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
pub(super) fn forget_all(child: &InChild) {
    KEPT.store(0, Ordering::Relaxed);
    LINES.renew(None, child);
}

/// Runs `f` with the first line, under the lock.
fn with_lines<R>(f: impl FnOnce(&mut Option<Box<Line>>) -> R) -> R {
    f(&mut LINES.lock())
}

/// Runs `f` with the line of a listener, if there is one, and removes the line if it is no longer needed (ACCEPT-2).
fn at_line<R>(inode: u64, f: impl FnOnce(&mut Line) -> R) -> Option<R> {
    let mut unused = None;
    let result = with_lines(|first| {
        let place = find(first, inode);
        let line = place.as_mut()?;
        let result = f(line);
        if line.accepters == 0 && line.taken.is_none() && matches!(line.work, Work::None) {
            // Freed outside of the lock (ACCEPT-1).
            let next = line.next.take();
            unused = replace(place, next);
        }
        Some(result)
    });
    drop(unused);
    result
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

/// A green thread's accept from a listener; keeps its line alive (ACCEPT-2).
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
        // Allocated before the lock is taken (ACCEPT-1), and dropped after it if the line exists.
        let mut fresh = Some(Box::new(Line {
            inode,
            accepters: 0,
            work: Work::None,
            taken: None,
            next: None,
        }));
        with_lines(|first| {
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

    /// The line's key in the table of [`table`].
    fn key(&self) -> usize {
        key_of(self.inode)
    }

    /// Takes the oldest result at the line, or says whether one is under way.
    fn look(&self) -> Found {
        let found = at_line(self.inode, |line| match line.taken.take() {
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
        // So that the OS thread's `accept` is not hit by a close and a reuse of the caller's number.
        let copy = probe::duplicate(fd)?;
        let mut copy = Some(copy);
        // The state before. If another green thread has given a job meanwhile, that one serves both: it is taken as
        // `Accepts`.
        let before = at_line(self.inode, |line| match line.work {
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
                    at_line(inode, |line| replace(&mut line.work, Work::None));
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
        at_line(self.inode, |line| line.accepters -= 1);
    }
}

/// The key of a line in the table of [`table`]: even but no multiple of 4, so it is neither a descriptor's key nor the
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
        let job = at_line(inode, |line| match replace(&mut line.work, Work::Accepts) {
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
        let ends = at_line(inode, |line| {
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
    let is_wanted = at_line(inode, |line| line.accepters > 0) == Some(true);
    // Without an accepter an error concerns no caller. A connection is kept for the next accept while the listener is
    // open.
    let is_kept = !is_nothing && (is_wanted || taken.result.is_ok() && is_open(inode));
    let mut taken = is_kept.then_some(taken);
    let mut rests = Work::Rests(me);
    at_line(inode, |line| {
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
    table::wake_by(key_of(inode), usize::MAX);
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

/// Accepts by an OS thread and the listener's line.
fn by_thread(call: &Call, flags: c_int, ways: &Ways<'_>) -> c_int {
    let before = errno();
    let is_right = flags & !(libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK) == 0;
    // Not a listener, unknown flags, or non-blocking: the call fails or returns at once, so it is made here.
    let Some(inode) = listener(call.fd).filter(|_| is_right && !is_nonblocking(call.fd)) else {
        set_errno(before);
        return (ways.plainly)();
    };
    if ways.is_bad {
        return fail(libc::EFAULT);
    }
    let accepter = Accepter::new(inode);
    loop {
        // Read before the look at the line: see `LEFT`.
        let left = LEFT.load(Ordering::SeqCst);
        let mut found = accepter.look();
        // A job is given only when there seems to be a connection, so that the OS thread rarely blocks in `accept`.
        if matches!(found, Found::Nothing) && is_ready(call.fd, libc::POLLIN) {
            if let Err(error) = accepter.start(call.fd) {
                return fail(error);
            }
            found = Found::Working;
        }
        let works = match found {
            Found::Taken(taken) => {
                set_errno(before);
                return taken.deliver(flags, ways);
            }
            Found::Working => true,
            Found::Nothing => false,
        };
        match wait(call, &accepter, left, works) {
            Ok(Wake::Ready | Wake::Early) => {}
            Ok(Wake::TimedOut) => return fail(libc::EAGAIN),
            Ok(Wake::Interrupted) => return fail(interrupted(call.hub, "accept")),
            Err(error) => return fail(error),
        }
    }
}

/// Waits until a result is left at the line, or the listener is closed; unless the OS thread is at work (`works`), also
/// until the listener is readable.
fn wait(call: &Call, accepter: &Accepter, left: u64, works: bool) -> Result<Wake, c_int> {
    let (hub, fd, deadline) = (call.hub, call.fd, call.deadline());
    let parked = contained(|| {
        table::watching(fd, |watched| {
            let parker = Parker::new();
            watched.start(parker.waiter());
            // Two waits with one ticket: the first wake ends the park, and the other becomes stale.
            let line = Waiting::new(accepter.key(), u32::MAX);
            // A result that was left since the look at the line is not waited for: look again.
            if !line.arm(parker.waiter(), || LEFT.load(Ordering::SeqCst) == left) {
                return Ok(Wake::Early);
            }
            let hears = hub.hear_signals(parker.named(), handlers_for(deadline));
            let why = Why::new(&SOCKET, fd as usize);
            // While the OS thread works, the listener may stay readable with the connection that it is about to accept.
            let wake = if works {
                Ok(parker.park(deadline, Mode::Cancel, why))
            } else {
                watched.park(parker, Direction::Read, deadline, why)
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
