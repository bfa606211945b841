//! connect, and the non-blocking flag that it needs.
//!
//! Linux connects without waiting only if the open file is non-blocking. So `O_NONBLOCK` of a stream socket that is
//! neither connected nor listening is set for the length of one system call. The rest of the process does not see it:
//! calls that read or change the flag (`fcntl`, `ioctl`, on any OS thread) wait until that system call is over.
//!
//! # Invariants
//! - **N1** Code that sets, clears or reads the flag of an open file holds the lock of its inode. Under the lock there
//!   are only a few system calls that do not wait.

use std::mem::{size_of, zeroed};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use libc::{c_int, c_ulong, sockaddr, socklen_t};

use super::fd::{self, Call, SOCKET};
use super::symbol::patch;
use super::{Cut, contained, errno, fail, files, interrupted, names, ready, set_errno};
use crate::hub::{Direction, Hub, Mode, Parker, Wake, Why};

patch! {
    SOCKETS connect(fd: c_int, address: *const sockaddr, len: socklen_t) -> c_int => connect_green;
}

/// The locks of open files' flags, by inode: each is 0, or the id of the OS thread that holds it.
static FLAGS: [AtomicU32; 64] = [const { AtomicU32::new(0) }; 64];

/// A lock of [`FLAGS`] (N1); `None` in a signal handler that has interrupted the holder.
struct Locked(Option<&'static AtomicU32>);

impl Locked {
    fn of(fd: c_int) -> Locked {
        // If it fails, the inode is 0; then the system call that follows fails as well.
        // SAFETY: `fstat` writes to a local `stat`, for which all-zero is valid.
        let inode = unsafe {
            let mut stat: libc::stat = zeroed();
            libc::fstat(fd, &raw mut stat);
            stat.st_ino
        };
        let lock = &FLAGS[(inode % FLAGS.len() as u64) as usize];
        let me = crate::sys::thread::id() as u32;
        let mut tries = 0_u32;
        while let Err(holder) = lock.compare_exchange_weak(0, me, Ordering::Acquire, Ordering::Relaxed) {
            // A signal handler on top of the holder must not wait for it: it would wait for ever.
            if holder == me {
                return Locked(None);
            }
            tries += 1;
            if tries.is_multiple_of(16) {
                rustix::thread::sched_yield();
            }
            std::hint::spin_loop();
        }
        Locked(Some(lock))
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        if let Some(lock) = self.0 {
            lock.store(0, Ordering::Release);
        }
    }
}

/// Runs in a forked child: a lock that is held is held by a thread of the parent, which does not exist here.
pub(super) fn forget_all() {
    FLAGS.iter().for_each(|lock| lock.store(0, Ordering::Release));
    PUT_BACK.store(SET.load(Ordering::SeqCst), Ordering::SeqCst);
}

/// Runs `call` under the lock of an open file's flag, if anything is armed.
#[inline(always)]
fn with_flag<R>(concerns: bool, fd: c_int, call: impl FnOnce() -> R) -> R {
    #[inline(never)]
    fn locked<R>(fd: c_int, call: impl FnOnce() -> R) -> R {
        let before = errno();
        let _locked = Locked::of(fd);
        set_errno(before);
        call()
    }
    if concerns && super::is_armed() {
        locked(fd, call)
    } else {
        call()
    }
}

/// libc's own definitions of the variadic calls. They have at most one variable argument, declared here as a `usize`.
pub(in crate::monkey) mod flags {
    use super::*;

    super::super::symbol::originals! {
        fcntl(fd: c_int, command: c_int, argument: usize) -> c_int;
        fcntl64(fd: c_int, command: c_int, argument: usize) -> c_int;
        ioctl(fd: c_int, request: c_ulong, argument: usize) -> c_int;
    }
}

pub(super) fn flag_symbols() -> impl Iterator<Item = super::symbol::Listed> {
    super::symbol::listed! { SOCKETS fcntl SOCKETS fcntl64 SOCKETS ioctl }
}

/// Defined ahead of libc's: shows the flag as the program set it, not as a connect has set it for a moment.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn fcntl(fd: c_int, command: c_int, argument: usize) -> c_int {
    let concerns = matches!(command, libc::F_GETFL | libc::F_SETFL);
    // SAFETY: the caller guarantees an argument that is valid for `command`; `files::lock` changes only whether it
    // waits.
    let call = |command| unsafe { flags::fcntl(fd, command, argument) };
    files::lock(command, call).unwrap_or_else(|| with_flag(concerns, fd, || call(command)))
}

/// Defined ahead of libc's: as [`fcntl`].
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn fcntl64(fd: c_int, command: c_int, argument: usize) -> c_int {
    let concerns = matches!(command, libc::F_GETFL | libc::F_SETFL);
    // SAFETY: the caller guarantees an argument that is valid for `command`; `files::lock` changes only whether it
    // waits.
    let call = |command| unsafe { flags::fcntl64(fd, command, argument) };
    files::lock(command, call).unwrap_or_else(|| with_flag(concerns, fd, || call(command)))
}

/// Defined ahead of libc's: `FIONBIO` sets the flag, too.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn ioctl(fd: c_int, request: c_ulong, argument: usize) -> c_int {
    // SAFETY: the caller guarantees an argument that is valid for `request`.
    with_flag(request == libc::FIONBIO, fd, || unsafe {
        flags::ioctl(fd, request, argument)
    })
}

/// How many times a connect has set a flag, and how many times one has put it back.
static SET: AtomicU64 = AtomicU64::new(0);
static PUT_BACK: AtomicU64 = AtomicU64::new(0);

fn has_flag(fd: c_int) -> bool {
    // SAFETY: `F_GETFL` only reads flags.
    unsafe { flags::fcntl(fd, libc::F_GETFL, 0) & libc::O_NONBLOCK != 0 }
}

/// Whether the program made the open file non-blocking.
pub(super) fn is_nonblocking(fd: c_int) -> bool {
    let put_back = PUT_BACK.load(Ordering::SeqCst);
    let set = SET.load(Ordering::SeqCst);
    if !has_flag(fd) {
        return false;
    }
    // No connect held a flag before this read, and none has begun to: then it is the program's. Otherwise read it again under
    // the lock (N1).
    if put_back == set && SET.load(Ordering::SeqCst) == set {
        return true;
    }
    let before = errno();
    let _locked = Locked::of(fd);
    set_errno(before);
    has_flag(fd)
}

/// Runs `connect` while the open file is non-blocking (N1).
fn without_blocking(fd: c_int, connect: impl FnOnce() -> c_int) -> c_int {
    fn set(fd: c_int, nonblocking: c_int) {
        // Unlike `F_SETFL`, `FIONBIO` changes this one flag only, so a change of another flag meanwhile is not lost.
        // SAFETY: `FIONBIO` reads an integer from the address of a local.
        unsafe { flags::ioctl(fd, libc::FIONBIO, (&raw const nonblocking).expose_provenance()) };
    }
    let before = errno();
    let _locked = Locked::of(fd);
    let is_the_users = has_flag(fd);
    // A flag that the program has set stays set.
    if !is_the_users {
        SET.fetch_add(1, Ordering::SeqCst);
        set(fd, 1);
    }
    set_errno(before);
    let result = connect();
    // The flag is put back before the lock is released, whatever the result.
    let error = errno();
    if !is_the_users {
        set(fd, 0);
        PUT_BACK.fetch_add(1, Ordering::SeqCst);
    }
    set_errno(error);
    result
}

/// The value of an integer socket option; `None` if it cannot be asked for.
fn option(fd: c_int, name: c_int) -> Option<c_int> {
    let (mut value, mut len) = (0, size_of::<c_int>() as socklen_t);
    // SAFETY: `getsockopt` writes at most `len` bytes to a local integer.
    let result = unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, name, (&raw mut value).cast(), &raw mut len) };
    (result == 0).then_some(value)
}

/// Whether it is a socket with a peer.
fn is_connected(fd: c_int) -> bool {
    // SAFETY: `getpeername` writes at most `len` bytes to a local address, for which all-zero is valid.
    unsafe {
        let mut address: libc::sockaddr_storage = zeroed();
        let mut len = size_of::<libc::sockaddr_storage>() as socklen_t;
        libc::getpeername(fd, (&raw mut address).cast(), &raw mut len) == 0
    }
}

unsafe fn connect_green(hub: &'static Hub, fd: c_int, address: *const sockaddr, len: socklen_t) -> c_int {
    // SAFETY: the caller guarantees `len` readable bytes at `address`.
    let connect = || unsafe { original::connect(fd, address, len) };
    let before = errno();
    let call = Call::new(hub, fd, Direction::Write, "connect");
    if let Err(cut) = call.begin(false) {
        return cut as c_int;
    }
    // A datagram or raw socket connects at once: that only sets the peer's address.
    let waits = option(fd, libc::SO_TYPE).is_some_and(|kind| !matches!(kind, libc::SOCK_DGRAM | libc::SOCK_RAW));
    // The program's own non-blocking connect does not wait either.
    if !waits || is_nonblocking(fd) {
        return connect();
    }
    if is_connected(fd) || option(fd, libc::SO_ACCEPTCONN) == Some(1) {
        // The call fails. But on a Unix socket it may block first, until the listener that it names has room, and the
        // flag must not be set here: other threads may read from the connection.
        return names::apart(connect).unwrap_or_else(|| fail(libc::ENOMEM));
    }
    set_errno(before);
    let begun = begin(hub, &call, connect);
    if begun == 0 || !matches!(errno(), libc::EINPROGRESS | libc::EALREADY) {
        return begun;
    }
    // A wake may be stale (from an earlier file with the same descriptor number), so ask the kernel each time.
    while !ready::is_ready(fd, libc::POLLOUT) {
        // SAFETY: the attempt did not fail with `EBADF`, so `fd` is not -1, and a close ends the wait.
        let borrowed = unsafe { fd::borrow(fd) };
        match fd::wait(hub, borrowed, Direction::Write, call.deadline(), "connect") {
            Ok(Ok(())) => {}
            // What connect reports when `SO_SNDTIMEO` has passed; the connection goes on.
            Ok(Err(Cut::TimedOut)) => return fail(libc::EINPROGRESS),
            Ok(Err(Cut::Interrupted(error))) | Err(error) => return fail(error),
        }
    }
    settle(fd, before, connect)
}

/// The first attempt. While the queue of a Unix listener is full (`EAGAIN`), it sleeps and tries again, because no
/// event tells when there is room.
fn begin(hub: &'static Hub, call: &Call, connect: impl Fn() -> c_int) -> c_int {
    let mut nap = Duration::from_millis(1);
    loop {
        let result = without_blocking(call.fd, &connect);
        if result == 0 || errno() != libc::EAGAIN {
            return result;
        }
        let until = call.deadline().unwrap_or(u64::MAX);
        let wake = contained(|| {
            // Parked like a wait for a descriptor, so that a kill, a time-out or a signal ends it.
            let at = hub.deadline_in(nap).min(until);
            let parker = Parker::new();
            let hears = hub.hear_signals(parker.named(), fd::handlers(call.deadline()));
            let wake = parker.park(Some(at), Mode::Cancel, Why::new(&SOCKET, call.fd as usize));
            (wake, hub.was_cut(hears))
        });
        if wake == Some((Wake::Ready, true)) {
            return fail(libc::EINTR);
        }
        let wake = wake.map(|(wake, _)| wake);
        if wake == Some(Wake::Interrupted)
            && let Cut::Interrupted(error) = interrupted(hub, "connect")
        {
            return fail(error);
        }
        // `SO_SNDTIMEO` has passed: a Unix socket reports `EAGAIN`.
        if hub.clock.now() >= until {
            return fail(libc::EAGAIN);
        }
        nap = (nap * 2).min(Duration::from_millis(50));
    }
}

/// The result of a connect that has completed in the background. A TCP socket gets a second connect, as from the
/// kernel's blocking connect: only that moves it to the connected state, or, after a failure, makes it ready for
/// another attempt.
fn settle(fd: c_int, before: c_int, connect: impl FnOnce() -> c_int) -> c_int {
    // Read before the second connect, which would take the error.
    let error = option(fd, libc::SO_ERROR).unwrap_or(libc::EIO);
    if matches!(option(fd, libc::SO_DOMAIN), Some(libc::AF_INET | libc::AF_INET6)) {
        without_blocking(fd, connect);
    }
    if error == 0 {
        set_errno(before);
        0
    } else {
        fail(error)
    }
}
