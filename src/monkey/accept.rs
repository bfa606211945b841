//! accept: by io_uring, which does not wait if it is told so; where there is none, on an OS thread in the caller's place.
//!
//! Waiting until a listener is readable and accepting then is not enough: another thread or process may be quicker, or the
//! connection gone (accept(2)), and the call would block the hub. The flag of the open file is not ours to set: others who
//! accept from it would be told that it would block.
//!
//! Where there is no io_uring (Linux before 6.10, seccomp, `GREEN_ACCEPT=thread` in the environment) each listener from
//! which green threads accept has an OS thread. It gets a copy of the descriptor once the listener is readable, accepts
//! one connection, and leaves it at the listener's *line*, where who waits finds it. If the one it was for is killed or
//! timed out meanwhile, it lies there for the next: no connection is lost. With the listener's last descriptor it is closed,
//! as what the kernel has queued is. A listener that is closed while another process was quicker than its OS thread stays
//! open in the kernel until one more connection comes, as with a blocking accept.
//!
//! ```text
//!   green thread                                  OS thread of the line
//!   anything left here? ── yes ─► take it
//!   is it working? ─ no ─► readable? ─ yes ─► job ─► accept, which may block
//!   park: for the listener, for the line          leave it here, wake all
//! ```
//!
//! # Invariants
//! - **A1** Lines are touched under their lock. Under it there is no call of the system, no wake and no allocation.
//! - **A2** A line exists while somebody accepts, its OS thread exists, or something lies there.

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
use crate::hub::Hub;
use crate::hub::park::{self, Mode, Parker, Wake, Why};
use crate::hub::reactor::Direction;

patch! {
    SOCKETS accept(fd: c_int, address: *mut sockaddr, len: *mut socklen_t) -> c_int => accept_green;
    SOCKETS accept4(fd: c_int, address: *mut sockaddr, len: *mut socklen_t, flags: c_int) -> c_int => accept4_green;
}

unsafe fn accept_green(hub: &'static Hub, fd: c_int, address: *mut sockaddr, len: *mut socklen_t) -> c_int {
    // SAFETY: the caller's, as libc's.
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
    // SAFETY: the caller's, as libc's.
    let accepted = unsafe {
        match by_ring(hub, &call, address, len, flags) {
            Some(accepted) => accepted,
            None => by_thread(hub, &call, address, len, flags),
        }
    };
    if accepted >= 0 {
        // Who serves the connection may begin before the next one is taken.
        fd::give_way(park::yield_now);
    }
    accepted
}

/// Whether io_uring is not to be used.
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

/// `None`: there is no ring.
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
        // SAFETY: the caller's, and a hub stays on its OS thread.
        match unsafe { hub.accepts.accept(call.fd, address, len, flags) } {
            Some(Ok(accepted)) => accepted as ssize_t,
            Some(Err(error)) => fail(error) as ssize_t,
            None => {
                is_gone.set(true);
                fail(libc::EIO) as ssize_t
            }
        }
    });
    (!is_gone.get()).then_some(accepted as c_int)
}

/// What an OS thread accepted, on its way to who wants it.
struct Taken {
    result: Result<OwnedFd, c_int>,
    address: sockaddr_storage,
    len: socklen_t,
    next: Option<Box<Taken>>,
}

impl Taken {
    /// Accepts, and may block.
    fn from(listener: &OwnedFd) -> Box<Taken> {
        // SAFETY: writes an address of our own, for which all-zero is valid, and makes a descriptor.
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

    /// Hands it over as `accept4` would.
    ///
    /// # Safety
    /// As for `accept4`.
    unsafe fn deliver(self, address: *mut sockaddr, len: *mut socklen_t, flags: c_int) -> c_int {
        let accepted = match self.result {
            Ok(accepted) => accepted,
            Err(error) => return fail(error),
        };
        // SAFETY: the caller's: room for as many bytes as it says. The descriptor is ours alone.
        unsafe {
            if !address.is_null() {
                let room = (*len).min(self.len) as usize;
                std::ptr::copy_nonoverlapping((&raw const self.address).cast::<u8>(), address.cast::<u8>(), room);
                *len = self.len;
            }
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

/// What the OS thread of a line does.
enum Work {
    /// There is none.
    None,
    /// It waits for a job.
    Rests(Thread),
    /// It has been given one.
    Job(OwnedFd),
    Accepts,
}

/// The accepts from one listener that cannot be made on the hub.
struct Line {
    inode: u64,
    accepters: usize,
    work: Work,
    taken: Option<Box<Taken>>,
    next: Option<Box<Line>>,
}

struct Lines {
    locked: AtomicBool,
    first: UnsafeCell<Option<Box<Line>>>,
}

// SAFETY: A1: `first` is touched under `locked`.
unsafe impl Sync for Lines {}

static LINES: Lines = Lines {
    locked: AtomicBool::new(false),
    first: UnsafeCell::new(None),
};

/// How often anything was left at a line.
static LEFT: AtomicU64 = AtomicU64::new(0);

/// How many connections lie at lines.
static KEPT: AtomicUsize = AtomicUsize::new(0);

/// A listener that a call is about to close, if connections lie at its line.
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

/// It was closed: unless it has other descriptors, what lies at its line goes, as what the kernel has queued does.
#[cold]
pub(super) fn closed(inode: u64) {
    let before = errno();
    if !is_open(inode) {
        let mut taken = LINES.at(inode, |line| line.taken.take()).flatten();
        while let Some(mut one) = taken {
            KEPT.fetch_sub(1, Ordering::Relaxed);
            taken = one.next.take();
        }
    }
    set_errno(before);
}

/// In a forked child: what lies there and works is the parent's.
pub(super) fn forget_all() {
    KEPT.store(0, Ordering::Relaxed);
    // SAFETY: the child has one thread.
    std::mem::forget(unsafe { (*LINES.first.get()).take() });
    LINES.locked.store(false, Ordering::Release);
}

impl Lines {
    fn with<R>(&self, f: impl FnOnce(&mut Option<Box<Line>>) -> R) -> R {
        while self.locked.swap(true, Ordering::Acquire) {
            rustix::thread::sched_yield();
        }
        // SAFETY: A1.
        let result = f(unsafe { &mut *self.first.get() });
        self.locked.store(false, Ordering::Release);
        result
    }

    /// What `f` makes of the line of a listener, if there is one. It is taken away if it is of no use any more (A2).
    fn at<R>(&self, inode: u64, f: impl FnOnce(&mut Line) -> R) -> Option<R> {
        let mut unused = None;
        let result = self.with(|first| {
            let place = find(first, inode);
            let line = place.as_mut()?;
            let result = f(line);
            if line.accepters == 0 && line.taken.is_none() && matches!(line.work, Work::None) {
                let next = line.next.take();
                unused = replace(place, next);
            }
            Some(result)
        });
        drop(unused);
        result
    }
}

/// The place of a listener's line: where it is, or is to be put.
fn find(at: &mut Option<Box<Line>>, inode: u64) -> &mut Option<Box<Line>> {
    if at.as_ref().is_none_or(|line| line.inode == inode) {
        return at;
    }
    match at {
        Some(line) => find(&mut line.next, inode),
        None => at,
    }
}

/// Somebody who accepts from a listener, by its line.
struct Accepter {
    inode: u64,
}

/// What an accepter finds.
enum Found {
    Taken(Box<Taken>),
    /// A connection may come from there: the OS thread works.
    Working,
    Nothing,
}

impl Accepter {
    fn new(inode: u64) -> Accepter {
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

    /// What who waits at the line waits for: no address of a futex, and no descriptor.
    fn key(&self) -> usize {
        key_of(self.inode)
    }

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

    /// Has the OS thread accept one; errno if that is not possible.
    fn start(&self, fd: c_int) -> Result<(), c_int> {
        // SAFETY: makes a descriptor of its own.
        let copy = unsafe {
            let raw = libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 0);
            if raw < 0 {
                return Err(errno());
            }
            OwnedFd::from_raw_fd(raw)
        };
        let mut copy = Some(copy);
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

fn key_of(inode: u64) -> usize {
    (inode as usize) << 2 | 2
}

/// How long the OS thread of a line waits for another job.
const REST: Duration = Duration::from_secs(5);

/// The OS thread of a line.
fn serve(inode: u64) {
    let me = std::thread::current();
    loop {
        let job = LINES.at(inode, |line| match replace(&mut line.work, Work::Accepts) {
            Work::Job(listener) => Some(listener),
            other => {
                line.work = other;
                None
            }
        });
        let Some(Some(listener)) = job else { return };
        let taken = Taken::from(&listener);
        drop(listener);
        leave(inode, taken, me.clone());
        std::thread::park_timeout(REST);
        // Woken for a job, or for nothing: then it ends.
        let ends = LINES.at(inode, |line| {
            let rests = matches!(line.work, Work::Rests(_));
            rests.then(|| replace(&mut line.work, Work::None))
        });
        if !matches!(ends, Some(None)) {
            return;
        }
    }
}

/// Leaves at the line what was accepted, and goes to rest.
fn leave(inode: u64, taken: Box<Taken>, me: Thread) {
    // A time-out of the listener is not an error of who accepts.
    let is_nothing = matches!(taken.result, Err(libc::EAGAIN | libc::EINTR));
    let is_wanted = LINES.at(inode, |line| line.accepters > 0) == Some(true);
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
    LEFT.fetch_add(1, Ordering::SeqCst);
    futex::wake_by(key_of(inode), usize::MAX);
}

/// Whether the listener is still open in this process.
fn is_open(inode: u64) -> bool {
    let name = format!("socket:[{inode}]");
    let Ok(all) = std::fs::read_dir("/proc/self/fd") else {
        return true;
    };
    all.flatten()
        .any(|one| std::fs::read_link(one.path()).is_ok_and(|target| target.as_os_str() == name.as_str()))
}

/// The inode of a socket that listens.
fn listener(fd: c_int) -> Option<u64> {
    // SAFETY: writes a number and a `stat`, for which all-zero is valid.
    unsafe {
        let (mut listens, mut len) = (0, size_of::<c_int>() as socklen_t);
        let at = (&raw mut listens).cast();
        let asked = libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_ACCEPTCONN, at, &raw mut len);
        let mut stat: libc::stat = zeroed();
        (asked == 0 && listens == 1 && libc::fstat(fd, &raw mut stat) == 0).then_some(stat.st_ino)
    }
}

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
    let Some(inode) = listener(call.fd).filter(|_| is_right && !is_nonblocking(call.fd)) else {
        set_errno(before);
        // SAFETY: the caller's; it does not wait.
        return unsafe { original::accept4(call.fd, address, len, flags) };
    };
    if !address.is_null() && len.is_null() {
        return fail(libc::EFAULT);
    }
    let accepter = Accepter::new(inode);
    loop {
        let left = LEFT.load(Ordering::SeqCst);
        let mut found = accepter.look();
        if matches!(found, Found::Nothing) && ready::is_ready(call.fd, libc::POLLIN) {
            if let Err(error) = accepter.start(call.fd) {
                return fail(error);
            }
            found = Found::Working;
        }
        let works = match found {
            Found::Taken(taken) => {
                set_errno(before);
                // SAFETY: the caller's.
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

/// Waits for something to be left at the line, and for the listener unless its OS thread works for it.
fn wait(hub: &'static Hub, call: &Call, accepter: &Accepter, left: u64, works: bool) -> Result<Wake, c_int> {
    let (fd, deadline) = (call.fd, call.deadline());
    let why = Why::new(&SOCKET, fd as usize);
    let parked = contained(|| {
        futex::watching(fd, |watched| {
            let parker = Parker::new();
            watched.start(parker.waiter());
            let line = futex::Waiting::new(accepter.key(), u32::MAX);
            if !line.arm(parker.waiter(), || LEFT.load(Ordering::SeqCst) == left) {
                return Ok(Wake::Early);
            }
            let hears = hub.hear_signals(&parker, fd::handlers(deadline));
            let wake = if works {
                Ok(parker.park(deadline, Mode::Cancel, why))
            } else {
                // SAFETY: it was good a moment ago.
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
