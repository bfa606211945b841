//! Waits for child processes: by pidfd for one child, and by an OS thread for any child or for a stop.

use std::os::fd::{AsFd, FromRawFd, OwnedFd};

use libc::{c_int, id_t, idtype_t, pid_t, rusage, siginfo_t};

use super::names::apart;
use super::symbol::patch;
use super::{Cut, fail, fd};
use crate::hub::{Direction, Hub};

patch! {
    PROCESSES wait(status: *mut c_int) -> pid_t => wait_green;
    PROCESSES waitpid(pid: pid_t, status: *mut c_int, options: c_int) -> pid_t => waitpid_green;
    PROCESSES wait4(pid: pid_t, status: *mut c_int, options: c_int, usage: *mut rusage) -> pid_t => wait4_green;
    PROCESSES waitid(kind: idtype_t, id: id_t, info: *mut siginfo_t, options: c_int) -> c_int => waitid_green;
}

/// Waits by pidfd until `look` finds that the child has ended. It looks after each wake, because a wake may be stale
/// (from an earlier file with the pidfd's number). `None`: the child cannot be waited for by pidfd.
fn ended(hub: &'static Hub, pid: pid_t, look: impl Fn() -> bool) -> Option<Result<(), c_int>> {
    // SAFETY: `pidfd_open` has no pointer arguments.
    let raw = unsafe { super::futex::original::syscall(libc::SYS_pidfd_open, i64::from(pid), 0, 0, 0, 0, 0) };
    let raw = c_int::try_from(raw).ok().filter(|raw| *raw >= 0)?;
    // SAFETY: the descriptor was just made, and nothing else owns it.
    let pidfd = unsafe { OwnedFd::from_raw_fd(raw) };
    while !look() {
        // A failure to wait (no descriptor is left for the poller, say) makes the caller use an OS thread.
        match fd::wait(hub, pidfd.as_fd(), Direction::Read, None, "waitpid").ok()? {
            Ok(()) | Err(Cut::TimedOut) => {}
            Err(Cut::Interrupted(errno)) => return Some(Err(errno)),
        }
    }
    Some(Ok(()))
}

unsafe fn wait_green(hub: &'static Hub, status: *mut c_int) -> pid_t {
    // SAFETY: the caller guarantees that `status` is null or writable.
    unsafe { wait4_green(hub, -1, status, 0, std::ptr::null_mut()) }
}

unsafe fn waitpid_green(hub: &'static Hub, pid: pid_t, status: *mut c_int, options: c_int) -> pid_t {
    // SAFETY: the caller guarantees that `status` is null or writable.
    unsafe { wait4_green(hub, pid, status, options, std::ptr::null_mut()) }
}

unsafe fn wait4_green(hub: &'static Hub, pid: pid_t, status: *mut c_int, options: c_int, usage: *mut rusage) -> pid_t {
    if let Err(error) = fd::begin(hub, "wait", || options & libc::WNOHANG != 0) {
        return error;
    }
    // SAFETY: the caller guarantees that `status` and `usage` are null or writable. With `WNOHANG` it does not wait.
    let now = unsafe { original::wait4(pid, status, options | libc::WNOHANG, usage) };
    if now != 0 || options & libc::WNOHANG != 0 {
        return now;
    }
    // A pidfd is readable when the child has ended, but not when it is stopped or continued.
    if pid > 0 && options & (libc::WUNTRACED | libc::WCONTINUED) == 0 {
        let done = std::cell::Cell::new(0);
        let look = || {
            // SAFETY: the caller guarantees that `status` and `usage` are null or writable.
            done.set(unsafe { original::wait4(pid, status, options | libc::WNOHANG, usage) });
            done.get() != 0
        };
        match ended(hub, pid, look) {
            Some(Err(errno)) => return fail(errno),
            // `look` has reaped the child: its result is the call's.
            Some(Ok(())) => return done.get(),
            None => {}
        }
    }
    // Any child, a process group, or a stop: no descriptor tells of these, so an OS thread waits.
    // SAFETY: the caller guarantees that `status` and `usage` are null or writable.
    apart(|| unsafe { original::wait4(pid, status, options, usage) }).unwrap_or_else(|| fail(libc::ENOMEM))
}

unsafe fn waitid_green(hub: &'static Hub, kind: idtype_t, id: id_t, info: *mut siginfo_t, options: c_int) -> c_int {
    let only_the_end = options & (libc::WEXITED | libc::WSTOPPED | libc::WCONTINUED) == libc::WEXITED;
    // SAFETY: the caller guarantees that `info` is null or writable.
    let plainly = || unsafe { original::waitid(kind, id, info, options) };
    if let Err(error) = fd::begin(hub, "waitid", || options & libc::WNOHANG != 0) {
        return error;
    }
    if options & libc::WNOHANG != 0 {
        return plainly();
    }
    if kind == libc::P_PID
        && only_the_end
        && let Ok(pid) = pid_t::try_from(id)
    {
        let look = || {
            // `WNOWAIT` leaves the child to be reaped by the caller's own call, which has other options.
            // SAFETY: `waitid` writes to a local `siginfo_t`, for which all-zero is valid.
            unsafe {
                let mut ended: siginfo_t = std::mem::zeroed();
                let looks = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
                original::waitid(kind, id, &raw mut ended, looks) != 0 || ended.si_pid() != 0
            }
        };
        match ended(hub, pid, look) {
            Some(Err(errno)) => return fail(errno),
            // The child has ended, so the call does not wait.
            Some(Ok(())) => return plainly(),
            None => {}
        }
    }
    apart(plainly).unwrap_or_else(|| fail(libc::ENOMEM))
}
