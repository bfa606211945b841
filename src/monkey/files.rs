//! What may wait for another's hold of a file: locks on files, and the open of a FIFO, which waits for its other end.
//! There is nothing to be told by, so an OS thread waits in the caller's place.

use std::mem::zeroed;

use libc::{c_char, c_int, c_uint, off_t};

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

/// Tries, and has an OS thread wait if the try says that it would.
fn wait_if(would: impl Fn(c_int) -> bool, attempt: impl FnOnce() -> c_int, waits: impl FnOnce() -> c_int) -> c_int {
    let before = errno();
    let result = attempt();
    if result >= 0 || !would(errno()) {
        return result;
    }
    set_errno(before);
    apart(waits).unwrap_or_else(|| fail(libc::ENOMEM))
}

fn is_held(error: c_int) -> bool {
    matches!(error, libc::EAGAIN | libc::EACCES)
}

unsafe fn flock_green(_hub: &'static Hub, fd: c_int, operation: c_int) -> c_int {
    // SAFETY: no pointers.
    let lock = |operation| unsafe { original::flock(fd, operation) };
    if operation & (libc::LOCK_NB | libc::LOCK_UN) != 0 {
        return lock(operation);
    }
    wait_if(is_held, || lock(operation | libc::LOCK_NB), || lock(operation))
}

unsafe fn lockf_green(_hub: &'static Hub, fd: c_int, command: c_int, len: off_t) -> c_int {
    // SAFETY: no pointers.
    let lock = |command| unsafe { original::lockf(fd, command, len) };
    if command != libc::F_LOCK {
        return lock(command);
    }
    wait_if(is_held, || lock(libc::F_TLOCK), || lock(command))
}

/// A command of `fcntl` that may wait for a lock, by `call`, which takes a command; `None` for any other.
pub(super) fn lock(command: c_int, call: impl Fn(c_int) -> c_int) -> Option<c_int> {
    let at_once = match command {
        libc::F_SETLKW => libc::F_SETLK,
        libc::F_OFD_SETLKW => libc::F_OFD_SETLK,
        _ => return None,
    };
    gate(super::LOCKS)?;
    Some(wait_if(is_held, || call(at_once), || call(command)))
}

/// Whether an open with these flags waits for somebody to open the other end.
///
/// # Safety
/// As for `openat`.
unsafe fn waits_for_its_end(folder: c_int, path: *const c_char, flags: c_int) -> bool {
    let is_one_way = matches!(flags & libc::O_ACCMODE, libc::O_RDONLY | libc::O_WRONLY);
    if !is_one_way || flags & (libc::O_NONBLOCK | libc::O_PATH | libc::O_DIRECTORY) != 0 {
        return false;
    }
    let before = errno();
    // SAFETY: writes a `stat`, for which all-zero is valid; the path is the caller's.
    let (result, stat) = unsafe {
        let mut stat: libc::stat = zeroed();
        (libc::fstatat(folder, path, &raw mut stat, 0), stat)
    };
    set_errno(before);
    result == 0 && stat.st_mode & libc::S_IFMT == libc::S_IFIFO
}

unsafe fn openat_green(_hub: &'static Hub, folder: c_int, path: *const c_char, flags: c_int, mode: c_uint) -> c_int {
    // SAFETY: the caller's, as libc's.
    let open = || unsafe { original::openat(folder, path, flags, mode) };
    // SAFETY: as above.
    if unsafe { waits_for_its_end(folder, path, flags) } {
        return apart(open).unwrap_or_else(|| fail(libc::ENOMEM));
    }
    open()
}

unsafe fn open_green(hub: &'static Hub, path: *const c_char, flags: c_int, mode: c_uint) -> c_int {
    // SAFETY: the caller's, as libc's.
    unsafe { openat_green(hub, libc::AT_FDCWD, path, flags, mode) }
}

unsafe fn creat_green(hub: &'static Hub, path: *const c_char, mode: c_uint) -> c_int {
    let flags = libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC;
    // SAFETY: the caller's, as libc's.
    unsafe { openat_green(hub, libc::AT_FDCWD, path, flags, mode) }
}

/// The checked forms, which end the program where a mode is missing.
unsafe fn openat_2_green(hub: &'static Hub, folder: c_int, path: *const c_char, flags: c_int) -> c_int {
    // SAFETY: the caller's, as libc's.
    unsafe {
        if flags & libc::O_CREAT != 0 || flags & libc::O_TMPFILE == libc::O_TMPFILE {
            return original::__openat_2(folder, path, flags);
        }
        openat_green(hub, folder, path, flags, 0)
    }
}

unsafe fn open_2_green(hub: &'static Hub, path: *const c_char, flags: c_int) -> c_int {
    // SAFETY: the caller's, as libc's.
    unsafe { openat_2_green(hub, libc::AT_FDCWD, path, flags) }
}
