//! Locks on files, and the open of a FIFO, which waits until its other end is opened. No event tells of either, so an
//! OS thread waits in the caller's place.

use std::mem::zeroed;

use libc::{c_char, c_int, c_uint, off_t};

use super::fd;
use super::names::apart;
use super::symbol::patch;
use super::{errno, fail, gate, set_errno};
use crate::hub::Hub;

patch! {
    LOCKS flock(fd: c_int, operation: c_int) -> c_int => flock_green;
    LOCKS lockf(fd: c_int, command: c_int, len: off_t) -> c_int => lockf_green;
    LOCKS lockf64(fd: c_int, command: c_int, len: off_t) -> c_int => lockf_green;
    SOCKETS open(path: *const c_char, flags: c_int, mode: c_uint) -> c_int => open_green;
    SOCKETS open64(path: *const c_char, flags: c_int, mode: c_uint) -> c_int => open_green;
    SOCKETS openat(folder: c_int, path: *const c_char, flags: c_int, mode: c_uint) -> c_int => openat_green;
    SOCKETS openat64(folder: c_int, path: *const c_char, flags: c_int, mode: c_uint) -> c_int => openat_green;
    SOCKETS creat(path: *const c_char, mode: c_uint) -> c_int => creat_green;
    SOCKETS creat64(path: *const c_char, mode: c_uint) -> c_int => creat_green;
    SOCKETS __open_2(path: *const c_char, flags: c_int) -> c_int => open_2_green;
    SOCKETS __open64_2(path: *const c_char, flags: c_int) -> c_int => open_2_green;
    SOCKETS __openat_2(folder: c_int, path: *const c_char, flags: c_int) -> c_int => openat_2_green;
    SOCKETS __openat64_2(folder: c_int, path: *const c_char, flags: c_int) -> c_int => openat_2_green;
}

/// Runs `attempt`, which does not wait; if another process or open file holds the lock, an OS thread runs `waits`, unless
/// the call `never_waits`.
fn wait_if(
    (hub, name): (&'static Hub, &str),
    never_waits: bool,
    attempt: impl FnOnce() -> c_int,
    waits: impl FnOnce() -> c_int,
) -> c_int {
    // Nothing is delivered before the attempt, which may be an unlock.
    if let Err(failed) = fd::begin(hub, name, || true) {
        return failed;
    }
    let before = errno();
    let result = attempt();
    if never_waits || result >= 0 || !is_held(errno()) {
        return result;
    }
    set_errno(before);
    apart(waits).unwrap_or_else(|| fail(libc::ENOMEM))
}

/// Whether an attempt failed because another process or open file holds the lock.
fn is_held(error: c_int) -> bool {
    matches!(error, libc::EAGAIN | libc::EACCES)
}

unsafe fn flock_green(hub: &'static Hub, fd: c_int, operation: c_int) -> c_int {
    // SAFETY: no pointers are involved.
    let lock = |operation| unsafe { original::flock(fd, operation) };
    if operation & libc::LOCK_UN != 0 {
        return lock(operation);
    }
    let never_waits = operation & libc::LOCK_NB != 0;
    let attempt = || lock(operation | libc::LOCK_NB);
    wait_if((hub, "flock"), never_waits, attempt, || lock(operation))
}

unsafe fn lockf_green(hub: &'static Hub, fd: c_int, command: c_int, len: off_t) -> c_int {
    // SAFETY: no pointers are involved.
    let lock = |command| unsafe { original::lockf(fd, command, len) };
    if command != libc::F_LOCK {
        return lock(command);
    }
    wait_if((hub, "lockf"), false, || lock(libc::F_TLOCK), || lock(command))
}

/// Carries out a command of `fcntl` that may wait for a lock; `call` makes the call with a command. `None`: the command
/// does not wait, or the caller may not park.
pub(super) fn lock(command: c_int, call: impl Fn(c_int) -> c_int) -> Option<c_int> {
    let at_once = match command {
        libc::F_SETLKW => libc::F_SETLK,
        libc::F_OFD_SETLKW => libc::F_OFD_SETLK,
        _ => return None,
    };
    // `fcntl` is not defined by `patch!`, so the gate is asked here.
    let hub = gate(super::LOCKS)?;
    Some(wait_if((hub, "fcntl"), false, || call(at_once), || call(command)))
}

/// Whether an open with these flags waits for the other end: the path is a FIFO, opened for one direction only.
///
/// # Safety
/// As for `openat`.
unsafe fn waits_for_its_end(folder: c_int, path: *const c_char, flags: c_int) -> bool {
    // An open for both directions is its own other end, and the flags below make an open return at once.
    let is_one_way = matches!(flags & libc::O_ACCMODE, libc::O_RDONLY | libc::O_WRONLY);
    if !is_one_way || flags & (libc::O_NONBLOCK | libc::O_PATH | libc::O_DIRECTORY) != 0 {
        return false;
    }
    let before = errno();
    // SAFETY: `fstatat` writes to a local `stat`, for which all-zero is valid; `path` is a C string, as the caller
    // guarantees.
    let (result, stat) = unsafe {
        let mut stat: libc::stat = zeroed();
        (libc::fstatat(folder, path, &raw mut stat, 0), stat)
    };
    set_errno(before);
    result == 0 && stat.st_mode & libc::S_IFMT == libc::S_IFIFO
}

unsafe fn openat_green(_hub: &'static Hub, folder: c_int, path: *const c_char, flags: c_int, mode: c_uint) -> c_int {
    // SAFETY: the caller guarantees that `path` is a C string.
    let open = || unsafe { original::openat(folder, path, flags, mode) };
    // SAFETY: the caller guarantees that `path` is a C string.
    if unsafe { waits_for_its_end(folder, path, flags) } {
        return apart(open).unwrap_or_else(|| fail(libc::ENOMEM));
    }
    open()
}

unsafe fn open_green(hub: &'static Hub, path: *const c_char, flags: c_int, mode: c_uint) -> c_int {
    // SAFETY: the caller guarantees that `path` is a C string.
    unsafe { openat_green(hub, libc::AT_FDCWD, path, flags, mode) }
}

unsafe fn creat_green(hub: &'static Hub, path: *const c_char, mode: c_uint) -> c_int {
    let flags = libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC;
    // SAFETY: the caller guarantees that `path` is a C string.
    unsafe { openat_green(hub, libc::AT_FDCWD, path, flags, mode) }
}

/// The checked form of `openat` without a mode: libc's ends the program if the flags need one.
unsafe fn openat_2_green(hub: &'static Hub, folder: c_int, path: *const c_char, flags: c_int) -> c_int {
    // SAFETY: the caller guarantees that `path` is a C string.
    unsafe {
        if flags & libc::O_CREAT != 0 || flags & libc::O_TMPFILE == libc::O_TMPFILE {
            return original::__openat_2(folder, path, flags);
        }
        openat_green(hub, folder, path, flags, 0)
    }
}

unsafe fn open_2_green(hub: &'static Hub, path: *const c_char, flags: c_int) -> c_int {
    // SAFETY: the caller guarantees that `path` is a C string.
    unsafe { openat_2_green(hub, libc::AT_FDCWD, path, flags) }
}
