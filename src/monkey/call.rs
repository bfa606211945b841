//! One libc call on a descriptor: try without waiting, park until the descriptor is ready, try again.
//!
//! A descriptor that the program made non-blocking behaves so here too. Time-outs set by `SO_RCVTIMEO` and
//! `SO_SNDTIMEO` hold, once for the whole call. An attempt never sets `O_NONBLOCK`, which belongs to the open file and
//! is visible to other threads and processes. Only `connect` needs the flag, for one system call: Linux connects
//! without waiting only if the open file is non-blocking. The rest of the process does not see it: calls that read or
//! change the flag (`fcntl`, `ioctl`, on any OS thread) wait until that system call is over.
//!
//! # Invariants
//! - **FD-1** A call looks at the budget and at interrupts before it has moved anything. Between its parts it looks at
//!   the budget only. So a call never reports a kill or a time-out after it has moved bytes: those bytes would be lost.
//! - **CONNECT-1** Code that sets, clears or reads the flag of an open file holds the lock of its inode. Under the lock
//!   there are only a few system calls that do not wait.
#![forbid(unsafe_code)]

use std::cell::OnceCell;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use libc::{c_int, ssize_t};

use super::gate::{contained, interrupted, is_armed};
use super::symbol::{errno, fail, has_flag, set_errno, set_flag};
use super::table;
use crate::hub::{Direction, Handlers, Hub, Mode, Parker, Wake, Why, budget};
use crate::sys::fork::InChild;
use crate::sys::probe::{self, File, has_error, kind};
use crate::sys::spin::{ByThread, Locked, Spin};

pub(super) static SOCKET: &str = "a patched call on descriptor";

/// How a wait for a descriptor has ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Waited {
    /// The descriptor may be ready.
    Ready,
    TimedOut,
    /// By a kill, a time-out or a signal handler, reported by this errno.
    Interrupted(c_int),
    /// With this errno: `EBADF` if the descriptor was closed meanwhile.
    Failed(c_int),
}

/// Waits until a descriptor may be ready, or is closed.
pub(super) fn wait(hub: &'static Hub, fd: RawFd, direction: Direction, deadline: Option<u64>, call: &str) -> Waited {
    wait_or_signal(hub, fd, direction, deadline, call, handlers_for(deadline))
}

/// As [`wait`]; `handlers` says which signal handlers end the main green thread's wait, with `EINTR`.
pub(super) fn wait_or_signal(
    hub: &'static Hub,
    fd: RawFd,
    direction: Direction,
    deadline: Option<u64>,
    call: &str,
    handlers: Handlers,
) -> Waited {
    match parked(hub, fd, direction, deadline, handlers) {
        Ok(Wake::Ready | Wake::Early) => Waited::Ready,
        Ok(Wake::TimedOut) => Waited::TimedOut,
        Ok(Wake::Interrupted) => Waited::Interrupted(interrupted(hub, call)),
        Err(libc::EINTR) => Waited::Interrupted(libc::EINTR),
        Err(error) => Waited::Failed(error),
    }
}

/// The handlers that interrupt a call with this deadline. The kernel never restarts a call on a socket that has a
/// time-out, whatever `SA_RESTART` says.
pub(super) fn handlers_for(deadline: Option<u64>) -> Handlers {
    if deadline.is_some() {
        Handlers::All
    } else {
        Handlers::NotRestarting
    }
}

/// As [`wait_or_signal`], but an interrupt is returned as such: the caller decides whether to report it. Fails with an
/// errno.
fn parked(
    hub: &'static Hub,
    fd: RawFd,
    direction: Direction,
    deadline: Option<u64>,
    handlers: Handlers,
) -> Result<Wake, c_int> {
    let parked = contained(|| {
        table::watching(fd, |watched| {
            let parker = Parker::new();
            // Before the descriptor is registered with the poller: a close that comes before `start` makes the
            // registration fail, and a close that comes after it wakes this park.
            watched.start(parker.waiter());
            let hears = hub.hear_signals(parker.named(), handlers);
            let wake = watched.park(parker, direction, deadline, Why::new(&SOCKET, fd as usize));
            watched.stop();
            // A signal ends the park like a wake, so ask whether it was one.
            wake.map(|wake| (wake, hub.was_cut(hears)))
        })
    });
    match parked {
        // A deadline or an interrupt that has ended the park takes precedence over a signal.
        Some(Ok((Wake::Ready | Wake::Early, true))) => Err(libc::EINTR),
        Some(Ok((wake, _))) => Ok(wake),
        Some(Err(error)) => Err(error.raw_os_error().unwrap_or(libc::EIO)),
        // The code above panicked, and nothing may unwind out of a patched call.
        None => Err(libc::EIO),
    }
}

/// Parks until `until`, where no event tells when to look again. `Err`: what ended it early, as an errno.
pub(super) fn nap(hub: &'static Hub, until: u64, handlers: Handlers, call: &str, why: Why) -> Result<(), c_int> {
    let napped = contained(|| {
        let parker = Parker::new();
        let hears = hub.hear_signals(parker.named(), handlers);
        let wake = parker.park(Some(until), Mode::Cancel, why);
        (wake, hub.was_cut(hears))
    });
    match napped {
        Some((Wake::Ready, true)) => Err(libc::EINTR),
        Some((Wake::Interrupted, _)) => Err(interrupted(hub, call)),
        _ => Ok(()),
    }
}

/// Whether a time-out of a socket was ever set. Most programs set none; then a wait need not ask for the socket's.
static LIMITED: AtomicBool = AtomicBool::new(false);

/// A socket of this process gets a time-out.
pub(super) fn note_time_limit() {
    LIMITED.store(true, Ordering::Relaxed);
}

/// The deadline of a call that begins to wait now, by the socket's time-out. `None`: it has no time-out.
pub(super) fn time_limit(hub: &Hub, fd: c_int, direction: Direction) -> Option<u64> {
    if !LIMITED.load(Ordering::Relaxed) {
        return None;
    }
    let option = match direction {
        Direction::Read => libc::SO_RCVTIMEO,
        Direction::Write => libc::SO_SNDTIMEO,
    };
    let time = probe::time_option(fd, option);
    (!time.is_zero()).then(|| hub.deadline_in(time))
}

/// Runs `yields`, which lets other green threads run, and leaves errno as it is. An interrupt is not reported.
pub(super) fn give_way(yields: impl FnOnce() -> Wake) {
    let before = errno();
    contained(yields);
    set_errno(before);
}

/// Takes a step of the budget before the first attempt of a call; see [`Call::begin`].
pub(super) fn begin(hub: &'static Hub, name: &str, never_waits: impl FnOnce() -> bool) -> Result<(), c_int> {
    let before = errno();
    // With `Mode::Must` nothing is delivered: the original of a call that never waits reports no interrupt either.
    let wake = contained(|| budget::spend_with(|| if never_waits() { Mode::Must } else { Mode::Cancel }));
    set_errno(before);
    if wake == Some(Wake::Interrupted) {
        return Err(fail(interrupted(hub, name)));
    }
    Ok(())
}

/// One libc call on a descriptor. It has one deadline, in however many parts it is done.
pub(super) struct Call {
    pub(super) hub: &'static Hub,
    pub(super) fd: c_int,
    direction: Direction,
    name: &'static str,
    /// Set when the call first has to wait: most calls never ask the socket for its time-out.
    deadline: OnceCell<Option<u64>>,
}

impl Call {
    pub(super) fn new(hub: &'static Hub, fd: c_int, direction: Direction, name: &'static str) -> Call {
        Call {
            hub,
            fd,
            direction,
            name,
            deadline: OnceCell::new(),
        }
    }

    /// Called before the first attempt (FD-1): lets others run if this green thread has used up its budget, and fails
    /// if a kill or a time-out is due. The error is the call's result, with errno set. A call that never waits, by its
    /// flags or by the kind of its descriptor, does not fail.
    pub(super) fn begin(&self, never_waits: bool) -> Result<(), ssize_t> {
        let never_waits = || never_waits || is_nonblocking(self.fd) || kind(self.fd) == File::Other;
        begin(self.hub, self.name, never_waits).map_err(|error| error as ssize_t)
    }

    /// When the call's waits end. The time runs from the first use.
    pub(super) fn deadline(&self) -> Option<u64> {
        *self
            .deadline
            .get_or_init(|| time_limit(self.hub, self.fd, self.direction))
    }

    /// Repeats `attempt` until it returns something else than `EAGAIN`, and parks between attempts. Returns `EAGAIN`
    /// itself if the file is non-blocking or the socket's time-out has passed. If earlier parts of the call have moved
    /// bytes (`begun`), an error or an interrupt that comes during the wait ends it with `EAGAIN`, and is left for the
    /// next call.
    pub(super) fn attempt(&self, begun: bool, mut attempt: impl FnMut() -> ssize_t) -> ssize_t {
        let before = errno();
        let result = attempt();
        if result >= 0 || errno() != libc::EAGAIN {
            // It did not park: large transfers use up more of the budget, so that one green thread cannot keep the hub.
            budget::charge(usize::try_from(result).unwrap_or(0));
            return result;
        }
        // The flag is looked at only after an attempt, so that a call that succeeds at once costs one system call.
        if is_nonblocking(self.fd) {
            return fail(libc::EAGAIN) as ssize_t;
        }
        loop {
            let deadline = self.deadline();
            match parked(self.hub, self.fd, self.direction, deadline, handlers_for(deadline)) {
                Ok(Wake::Ready | Wake::Early) => {}
                // Nothing was moved, so the interrupt can be reported (FD-1).
                Ok(Wake::Interrupted) if !begun => return fail(interrupted(self.hub, self.name)) as ssize_t,
                // Otherwise the interrupt stays due, and the next call reports it.
                Ok(Wake::TimedOut | Wake::Interrupted) => return fail(libc::EAGAIN) as ssize_t,
                Err(error) => return fail(error) as ssize_t,
            }
            // Another attempt would take the socket's pending error, and the call could not report it beside its count.
            if begun && has_error(self.fd) {
                return fail(libc::EAGAIN) as ssize_t;
            }
            // The wait has changed errno; a successful call leaves the caller's as it was.
            set_errno(before);
            let result = attempt();
            if result >= 0 || errno() != libc::EAGAIN {
                return result;
            }
        }
    }

    /// As [`attempt`](Self::attempt), for a call that a blocking descriptor carries out to the end: repeats `step`
    /// until `len()` bytes are moved. `step` gets the number of bytes moved so far. `len` is first called after the
    /// first step, when the kernel has checked the caller's pointers.
    pub(super) fn attempt_all(&self, len: impl Fn() -> usize, mut step: impl FnMut(usize) -> ssize_t) -> ssize_t {
        let mut done = 0;
        loop {
            let result = self.attempt(done > 0, || step(done));
            match usize::try_from(result) {
                Ok(0) => return done as ssize_t,
                Ok(more) => done += more,
                // A partial result takes precedence over an error, as in the kernel.
                Err(_) if done > 0 => return done as ssize_t,
                Err(_) => return result,
            }
            if done >= len() {
                return done as ssize_t;
            }
            // Between parts others may run, but no interrupt is delivered (FD-1).
            give_way(|| budget::spend(Mode::Must));
            // Stop at an error that came meanwhile: another attempt would take it, and this call can only report its
            // count.
            if is_nonblocking(self.fd) || has_error(self.fd) {
                return done as ssize_t;
            }
        }
    }
}

/// The locks of open files' flags, by inode (CONNECT-1).
static FLAGS: [Spin<(), ByThread>; 64] = [const { Spin::with_lock((), ByThread::new()) }; 64];

/// Locks the flag of an open file (CONNECT-1). `None` in a signal handler that has interrupted the holder.
fn lock_flag(fd: c_int) -> Option<Locked<'static, (), ByThread>> {
    // If the inode cannot be found, the system call that follows fails as well.
    let inode = probe::inode_of(fd).unwrap_or_default();
    FLAGS[(inode % FLAGS.len() as u64) as usize].lock_unless_mine()
}

/// Runs in a forked child: a lock that is held is held by a thread of the parent, which does not exist here.
pub(super) fn forget_all(child: &InChild) {
    FLAGS.iter().for_each(|lock| lock.renew((), child));
    PUT_BACK.store(SET.load(Ordering::SeqCst), Ordering::SeqCst);
}

/// Runs `call` under the lock of an open file's flag, if anything is armed.
#[inline(always)]
pub(super) fn with_flag<R>(concerns: bool, fd: c_int, call: impl FnOnce() -> R) -> R {
    #[inline(never)]
    fn locked<R>(fd: c_int, call: impl FnOnce() -> R) -> R {
        let before = errno();
        let _locked = lock_flag(fd);
        set_errno(before);
        call()
    }
    if concerns && is_armed() {
        locked(fd, call)
    } else {
        call()
    }
}

/// How many times a connect has set a flag, and how many times one has put it back.
static SET: AtomicU64 = AtomicU64::new(0);
static PUT_BACK: AtomicU64 = AtomicU64::new(0);

/// Whether the program made the open file non-blocking.
pub(super) fn is_nonblocking(fd: c_int) -> bool {
    let put_back = PUT_BACK.load(Ordering::SeqCst);
    let set = SET.load(Ordering::SeqCst);
    if !has_flag(fd) {
        return false;
    }
    // No connect held a flag before this read, and none has begun to: then it is the program's. Otherwise read it again
    // under the lock (CONNECT-1).
    if put_back == set && SET.load(Ordering::SeqCst) == set {
        return true;
    }
    let before = errno();
    let _locked = lock_flag(fd);
    set_errno(before);
    has_flag(fd)
}

/// Runs `connect` while the open file is non-blocking (CONNECT-1).
pub(super) fn without_blocking(fd: c_int, connect: impl FnOnce() -> c_int) -> c_int {
    let before = errno();
    let _locked = lock_flag(fd);
    let is_the_users = has_flag(fd);
    // A flag that the program has set stays set.
    if !is_the_users {
        SET.fetch_add(1, Ordering::SeqCst);
        set_flag(fd, true);
    }
    set_errno(before);
    let result = connect();
    // The flag is put back before the lock is released, whatever the result.
    let error = errno();
    if !is_the_users {
        set_flag(fd, false);
        PUT_BACK.fetch_add(1, Ordering::SeqCst);
    }
    set_errno(error);
    result
}
