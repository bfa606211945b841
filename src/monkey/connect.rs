//! connect, and the flag that it needs.
//!
//! Linux connects without waiting only if the open file is non-blocking. So the flag of a stream socket that is neither
//! connected nor listening is set for the length of one system call, and nobody in the process sees it: what asks for the
//! flag or sets it (`fcntl`, `ioctl`, on any OS thread) waits until that is over.
//!
//! # Invariants
//! - **N1** Who sets, clears or asks for the flag of an open file has the lock of its inode; under it there is nothing but a
//!   few system calls that do not wait.

use std::mem::{size_of, zeroed};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use libc::{c_int, c_ulong, sockaddr, socklen_t};

use super::fd::{self, Call, SOCKET, is_nonblocking};
use super::symbol::patch;
use super::{Cut, contained, errno, fail, files, interrupted, names, ready, set_errno};
use crate::hub::Hub;
use crate::hub::park::{Mode, Parker, Wake, Why};
use crate::hub::reactor::Direction;

patch! {
    SOCKETS connect(fd: c_int, address: *const sockaddr, len: socklen_t) -> c_int => connect_green;
}

/// The flag of open files, by inode; 0 or the OS thread that has it.
static FLAGS: [AtomicU32; 64] = [const { AtomicU32::new(0) }; 64];

/// A lock of [`FLAGS`] (N1); none in a signal handler that interrupts its holder.
struct Locked(Option<&'static AtomicU32>);

impl Locked {
    fn of(fd: c_int) -> Locked {
        // SAFETY: writes a `stat`, for which all-zero is valid.
        let inode = unsafe {
            let mut stat: libc::stat = zeroed();
            libc::fstat(fd, &raw mut stat);
            stat.st_ino
        };
        let lock = &FLAGS[(inode % FLAGS.len() as u64) as usize];
        let me = crate::sys::thread::id() as u32;
        let mut tries = 0_u32;
        while let Err(holder) = lock.compare_exchange_weak(0, me, Ordering::Acquire, Ordering::Relaxed) {
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

/// In a forked child: who had a lock was another thread of the parent's.
pub(super) fn forget_all() {
    FLAGS.iter().for_each(|lock| lock.store(0, Ordering::Release));
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

/// libc's own of what has a variable number of arguments, of which there is one at most.
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

/// Ahead of libc's: the flag is the user's, not a connect's.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn fcntl(fd: c_int, command: c_int, argument: usize) -> c_int {
    let concerns = matches!(command, libc::F_GETFL | libc::F_SETFL);
    // SAFETY: the caller's, as libc's.
    let call = |command| unsafe { flags::fcntl(fd, command, argument) };
    files::lock(command, call).unwrap_or_else(|| with_flag(concerns, fd, || call(command)))
}

/// Ahead of libc's.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn fcntl64(fd: c_int, command: c_int, argument: usize) -> c_int {
    let concerns = matches!(command, libc::F_GETFL | libc::F_SETFL);
    // SAFETY: the caller's, as libc's.
    let call = |command| unsafe { flags::fcntl64(fd, command, argument) };
    files::lock(command, call).unwrap_or_else(|| with_flag(concerns, fd, || call(command)))
}

/// Ahead of libc's.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn ioctl(fd: c_int, request: c_ulong, argument: usize) -> c_int {
    // SAFETY: the caller's, as libc's.
    with_flag(request == libc::FIONBIO, fd, || unsafe {
        flags::ioctl(fd, request, argument)
    })
}

/// Runs `connect` with the open file non-blocking.
fn without_blocking(fd: c_int, connect: impl FnOnce() -> c_int) -> c_int {
    fn set(fd: c_int, nonblocking: c_int) {
        // SAFETY: reads a number. It changes that one flag, whatever else is set meanwhile.
        unsafe { flags::ioctl(fd, libc::FIONBIO, (&raw const nonblocking).expose_provenance()) };
    }
    let before = errno();
    let _locked = Locked::of(fd);
    let is_the_users = is_nonblocking(fd);
    if !is_the_users {
        set(fd, 1);
    }
    set_errno(before);
    let result = connect();
    let error = errno();
    if !is_the_users {
        set(fd, 0);
    }
    set_errno(error);
    result
}

/// A number that a socket option is.
fn option(fd: c_int, name: c_int) -> Option<c_int> {
    let (mut value, mut len) = (0, size_of::<c_int>() as socklen_t);
    // SAFETY: writes a number.
    let result = unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, name, (&raw mut value).cast(), &raw mut len) };
    (result == 0).then_some(value)
}

fn is_connected(fd: c_int) -> bool {
    // SAFETY: writes an address, for which all-zero is valid.
    unsafe {
        let mut address: libc::sockaddr_storage = zeroed();
        let mut len = size_of::<libc::sockaddr_storage>() as socklen_t;
        libc::getpeername(fd, (&raw mut address).cast(), &raw mut len) == 0
    }
}

unsafe fn connect_green(hub: &'static Hub, fd: c_int, address: *const sockaddr, len: socklen_t) -> c_int {
    // SAFETY: the caller's, as libc's.
    let connect = || unsafe { original::connect(fd, address, len) };
    let before = errno();
    let call = Call::new(hub, fd, Direction::Write, "connect");
    if let Err(cut) = call.begin(false) {
        return cut as c_int;
    }
    let waits = option(fd, libc::SO_TYPE).is_some_and(|kind| !matches!(kind, libc::SOCK_DGRAM | libc::SOCK_RAW));
    if !waits || is_nonblocking(fd) {
        return connect();
    }
    if is_connected(fd) || option(fd, libc::SO_ACCEPTCONN) == Some(1) {
        // Refused, but of a Unix socket only once its peer has room.
        return names::apart(connect).unwrap_or_else(|| fail(libc::ENOMEM));
    }
    set_errno(before);
    let begun = begin(hub, &call, connect);
    if begun == 0 || !matches!(errno(), libc::EINPROGRESS | libc::EALREADY) {
        return begun;
    }
    // A wake may be an older descriptor's of the same number: it counts when the kernel says so.
    while !ready::is_ready(fd, libc::POLLOUT) {
        // SAFETY: it was good a moment ago.
        let borrowed = unsafe { fd::borrow(fd) };
        match fd::wait(hub, borrowed, Direction::Write, call.deadline(), "connect") {
            Ok(Ok(())) => {}
            Ok(Err(Cut::TimedOut)) => return fail(libc::EINPROGRESS),
            Ok(Err(Cut::Interrupted(error))) | Err(error) => return fail(error),
        }
    }
    settle(fd, before, connect)
}

/// The first attempt; again and again while the queue of a Unix listener has no room, for nothing tells when it has.
fn begin(hub: &'static Hub, call: &Call, connect: impl Fn() -> c_int) -> c_int {
    let mut nap = Duration::from_millis(1);
    loop {
        let result = without_blocking(call.fd, &connect);
        if result == 0 || errno() != libc::EAGAIN {
            return result;
        }
        let until = call.deadline().unwrap_or(u64::MAX);
        let wake = contained(|| {
            let at = hub.after(nap).min(until);
            let parker = Parker::new();
            let hears = hub.hear_signals(&parker, fd::handlers(call.deadline()));
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
        if hub.clock.now() >= until {
            return fail(libc::EAGAIN);
        }
        nap = (nap * 2).min(Duration::from_millis(50));
    }
}

/// What came of a connect that was under way. TCP is asked by another connect, as its socket would be by the blocking one:
/// only then it knows itself connected, or ready for another try.
fn settle(fd: c_int, before: c_int, connect: impl FnOnce() -> c_int) -> c_int {
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
