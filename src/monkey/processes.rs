//! Waits for other processes: children, message queues and semaphores, locks on files, and the open of a FIFO, which
//! waits until its other end is opened.
//!
//! A child is waited for by pidfd, or by looks in pauses, and a POSIX queue is a descriptor. No event tells of the
//! others (any child, a stop, System V's queues and semaphores, locks on files, FIFOs), so an OS thread waits in the
//! caller's place.

use std::cell::Cell;
use std::mem::zeroed;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use libc::{
    c_char, c_int, c_long, c_uint, c_ulong, c_void, id_t, idtype_t, mqd_t, off_t, pid_t, rusage, sembuf, siginfo_t,
    size_t, ssize_t, timespec,
};

use super::call::{self, Waited, nap, wait_or_signal, with_flag};
use super::gate::{LOCKS, gate};
use super::offload::on_own_thread_or_fail;
use super::sleep;
use super::symbol::{Lent, errno, fail, flags, patch, set_errno};
use crate::hub::{Direction, Handlers, Hub, Why};

patch! {
    PROCESSES wait(status: *mut c_int) -> pid_t => wait_green;
    PROCESSES waitpid(pid: pid_t, status: *mut c_int, options: c_int) -> pid_t => waitpid_green;
    PROCESSES wait4(pid: pid_t, status: *mut c_int, options: c_int, usage: *mut rusage) -> pid_t => wait4_green;
    PROCESSES waitid(kind: idtype_t, id: id_t, info: *mut siginfo_t, options: c_int) -> c_int => waitid_green;
    LOCKS mq_receive(queue: mqd_t, buffer: *mut c_char, len: size_t, priority: *mut c_uint) -> ssize_t => mq_receive_green;
    LOCKS mq_timedreceive(queue: mqd_t, buffer: *mut c_char, len: size_t, priority: *mut c_uint, until: *const timespec) -> ssize_t => mq_timedreceive_green;
    LOCKS mq_send(queue: mqd_t, message: *const c_char, len: size_t, priority: c_uint) -> c_int => mq_send_green;
    LOCKS mq_timedsend(queue: mqd_t, message: *const c_char, len: size_t, priority: c_uint, until: *const timespec) -> c_int => mq_timedsend_green;
    LOCKS msgrcv(queue: c_int, message: *mut c_void, len: size_t, kind: c_long, flags: c_int) -> ssize_t => msgrcv_green;
    LOCKS msgsnd(queue: c_int, message: *const c_void, len: size_t, flags: c_int) -> c_int => msgsnd_green;
    LOCKS semop(set: c_int, operations: *mut sembuf, count: size_t) -> c_int => semop_green;
    LOCKS semtimedop(set: c_int, operations: *mut sembuf, count: size_t, time: *const timespec) -> c_int => semtimedop_green;
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

static CHILD: &str = "a patched wait for a child";

/// Waits until `look` finds that the child has ended: by pidfd, or else by looks in pauses. It looks after each wake,
/// because a wake may be stale (from an earlier file with the pidfd's number).
fn ended(hub: &'static Hub, pid: pid_t, look: impl Fn() -> bool) -> Result<(), c_int> {
    // SAFETY: `pidfd_open` has no pointer arguments.
    let raw = unsafe { libc::syscall(libc::SYS_pidfd_open, c_long::from(pid), c_long::from(0)) };
    let Some(raw) = c_int::try_from(raw).ok().filter(|raw| *raw >= 0) else {
        return asked(hub, look);
    };
    // SAFETY: the descriptor was just made, and nothing else owns it.
    let pidfd = unsafe { OwnedFd::from_raw_fd(raw) };
    while !look() {
        match call::wait(hub, pidfd.as_raw_fd(), Direction::Read, None, "waitpid") {
            Waited::Ready | Waited::TimedOut => {}
            Waited::Interrupted(error) => return Err(error),
            // The pidfd cannot be waited for; for example, no descriptor is left for the poller.
            Waited::Failed(_) => return asked(hub, look),
        }
    }
    Ok(())
}

/// As [`ended`] without a pidfd (Linux before 5.3, a filter of system calls, no descriptor left): looks in pauses that
/// grow. An OS thread that waits in the caller's place would do too, but no kill could end its wait.
fn asked(hub: &'static Hub, look: impl Fn() -> bool) -> Result<(), c_int> {
    const LONGEST_PAUSE: Duration = Duration::from_millis(50);
    let mut pause = Duration::from_millis(1);
    while !look() {
        let until = hub.deadline_in(pause);
        nap(hub, until, call::handlers_for(None), "waitpid", Why::new(&CHILD, 0))?;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    Ok(())
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
    if let Err(error) = call::begin(hub, "wait", || options & libc::WNOHANG != 0) {
        return error;
    }
    // SAFETY: the caller guarantees that `status` and `usage` are null or writable. With `WNOHANG` it does not wait.
    let now = unsafe { original::wait4(pid, status, options | libc::WNOHANG, usage) };
    if now != 0 || options & libc::WNOHANG != 0 {
        return now;
    }
    // A pidfd is readable when the child has ended, but not when it is stopped or continued.
    if pid > 0 && options & (libc::WUNTRACED | libc::WCONTINUED) == 0 {
        let done = Cell::new(0);
        let look = || {
            // SAFETY: the caller guarantees that `status` and `usage` are null or writable.
            done.set(unsafe { original::wait4(pid, status, options | libc::WNOHANG, usage) });
            done.get() != 0
        };
        return match ended(hub, pid, look) {
            Err(error) => fail(error),
            // `look` has reaped the child: its result is the call's.
            Ok(()) => done.get(),
        };
    }
    // Any child, a process group, or a stop: no descriptor tells of these, so an OS thread waits.
    // SAFETY: the caller guarantees that `status` and `usage` are null or writable, for the time of the call.
    unsafe { on_own_thread_or_fail(Lent::new(|| original::wait4(pid, status, options, usage))) }
}

unsafe fn waitid_green(hub: &'static Hub, kind: idtype_t, id: id_t, info: *mut siginfo_t, options: c_int) -> c_int {
    let only_the_end = options & (libc::WEXITED | libc::WSTOPPED | libc::WCONTINUED) == libc::WEXITED;
    // SAFETY: the caller guarantees that `info` is null or writable.
    let plainly = || unsafe { original::waitid(kind, id, info, options) };
    if let Err(error) = call::begin(hub, "waitid", || options & libc::WNOHANG != 0) {
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
                let mut ended: siginfo_t = zeroed();
                let looks = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
                original::waitid(kind, id, &raw mut ended, looks) != 0 || ended.si_pid() != 0
            }
        };
        return match ended(hub, pid, look) {
            Err(error) => fail(error),
            // The child has ended, so the call does not wait.
            Ok(()) => plainly(),
        };
    }
    // SAFETY: the caller guarantees that `info` is null or writable, for the time of the call.
    unsafe { on_own_thread_or_fail(Lent::new(plainly)) }
}

/// A deadline long past, or a time-out of 0: a call with it does not wait.
const PAST: timespec = timespec { tv_sec: 0, tv_nsec: 0 };

/// A send to or a receive from a POSIX queue: `attempt` makes the call with a deadline. Waits for the queue until
/// `until`.
///
/// # Safety
/// `until` is null or readable.
unsafe fn on_queue(
    hub: &'static Hub,
    queue: mqd_t,
    direction: Direction,
    call: &str,
    until: *const timespec,
    attempt: impl Fn(*const timespec) -> ssize_t,
) -> ssize_t {
    if let Err(failed) = call::begin(hub, call, || false) {
        return failed as ssize_t;
    }
    let before = errno();
    // The gate does this for every group but `LOCKS`, to which queues belong: signals that came before do not
    // interrupt.
    hub.forget_signals();
    // SAFETY: `until` is null or readable, as the caller guarantees.
    let deadline = match unsafe { until.as_ref() } {
        None => None,
        Some(time) => match sleep::duration(time) {
            Some(at) => Some(hub.deadline_in(at.saturating_sub(sleep::now(libc::CLOCK_REALTIME)))),
            // An invalid time: the kernel reports the error, if it would have to wait.
            None => return attempt(until),
        },
    };
    // With a deadline that has passed, the kernel does what is possible at once, and fails with `ETIMEDOUT` otherwise.
    let first = attempt(&PAST);
    if first >= 0 || errno() != libc::ETIMEDOUT {
        return first;
    }
    loop {
        match wait_or_signal(hub, queue, direction, deadline, call, Handlers::NotRestarting) {
            Waited::Ready => {}
            Waited::TimedOut => return fail(libc::ETIMEDOUT) as ssize_t,
            Waited::Interrupted(error) | Waited::Failed(error) => return fail(error) as ssize_t,
        }
        // Another thread or process may have been faster: then wait on.
        set_errno(before);
        let result = attempt(&PAST);
        if result >= 0 || errno() != libc::ETIMEDOUT {
            return result;
        }
    }
}

unsafe fn mq_timedreceive_green(
    hub: &'static Hub,
    queue: mqd_t,
    buffer: *mut c_char,
    len: size_t,
    priority: *mut c_uint,
    until: *const timespec,
) -> ssize_t {
    // SAFETY: the caller guarantees `len` writable bytes at `buffer`; `priority` and `until` are null or valid.
    unsafe {
        on_queue(hub, queue, Direction::Read, "mq_receive", until, |until| {
            original::mq_timedreceive(queue, buffer, len, priority, until)
        })
    }
}

unsafe fn mq_receive_green(
    hub: &'static Hub,
    queue: mqd_t,
    buffer: *mut c_char,
    len: size_t,
    priority: *mut c_uint,
) -> ssize_t {
    // SAFETY: the caller guarantees `len` writable bytes at `buffer`; `priority` is null or writable.
    unsafe { mq_timedreceive_green(hub, queue, buffer, len, priority, std::ptr::null()) }
}

unsafe fn mq_timedsend_green(
    hub: &'static Hub,
    queue: mqd_t,
    message: *const c_char,
    len: size_t,
    priority: c_uint,
    until: *const timespec,
) -> c_int {
    // SAFETY: the caller guarantees `len` readable bytes at `message`; `until` is null or readable.
    let sent = unsafe {
        on_queue(hub, queue, Direction::Write, "mq_send", until, |until| {
            original::mq_timedsend(queue, message, len, priority, until) as ssize_t
        })
    };
    sent as c_int
}

unsafe fn mq_send_green(
    hub: &'static Hub,
    queue: mqd_t,
    message: *const c_char,
    len: size_t,
    priority: c_uint,
) -> c_int {
    // SAFETY: the caller guarantees `len` readable bytes at `message`.
    unsafe { mq_timedsend_green(hub, queue, message, len, priority, std::ptr::null()) }
}

/// Runs `attempt`, which does not wait. If it fails with one of the `waits` errors, which say that the call would have
/// to wait, `elsewhere` makes it on another OS thread.
fn attempt_first<R: From<i8> + PartialOrd>(
    waits: &[c_int],
    attempt: impl FnOnce() -> R,
    elsewhere: impl FnOnce() -> R,
) -> R {
    let before = errno();
    let result = attempt();
    if result >= R::from(0) || !waits.contains(&errno()) {
        return result;
    }
    set_errno(before);
    elsewhere()
}

unsafe fn msgrcv_green(
    hub: &'static Hub,
    queue: c_int,
    message: *mut c_void,
    len: size_t,
    kind: c_long,
    flags: c_int,
) -> ssize_t {
    // SAFETY: the caller guarantees room for a message of `len` bytes.
    let receive = |flags| unsafe { original::msgrcv(queue, message, len, kind, flags) };
    let never_waits = flags & libc::IPC_NOWAIT != 0;
    if let Err(failed) = call::begin(hub, "msgrcv", || never_waits) {
        return failed as ssize_t;
    }
    if never_waits {
        return receive(flags);
    }
    attempt_first(
        &[libc::ENOMSG],
        || receive(flags | libc::IPC_NOWAIT),
        // SAFETY: the caller's memory stays as it is for the time of the call.
        || unsafe { on_own_thread_or_fail(Lent::new(|| receive(flags))) },
    )
}

unsafe fn msgsnd_green(hub: &'static Hub, queue: c_int, message: *const c_void, len: size_t, flags: c_int) -> c_int {
    // SAFETY: the caller guarantees a message of `len` bytes.
    let send = |flags| unsafe { original::msgsnd(queue, message, len, flags) };
    let never_waits = flags & libc::IPC_NOWAIT != 0;
    if let Err(failed) = call::begin(hub, "msgsnd", || never_waits) {
        return failed;
    }
    if never_waits {
        return send(flags);
    }
    attempt_first(
        &[libc::EAGAIN],
        || send(flags | libc::IPC_NOWAIT),
        // SAFETY: the caller's memory stays as it is for the time of the call.
        || unsafe { on_own_thread_or_fail(Lent::new(|| send(flags))) },
    )
}

unsafe fn semtimedop_green(
    hub: &'static Hub,
    set: c_int,
    operations: *mut sembuf,
    count: size_t,
    time: *const timespec,
) -> c_int {
    // SAFETY: the caller guarantees `count` operations; `time` is null or readable.
    let operate = |time| unsafe { original::semtimedop(set, operations, count, time) };
    if let Err(failed) = call::begin(hub, "semop", || false) {
        return failed;
    }
    // `EAGAIN` is also the error of an operation with `IPC_NOWAIT`. Then the second call, on the OS thread, fails at
    // once.
    attempt_first(
        &[libc::EAGAIN],
        || operate(&PAST),
        // SAFETY: the caller's memory stays as it is for the time of the call.
        || unsafe { on_own_thread_or_fail(Lent::new(|| operate(time))) },
    )
}

unsafe fn semop_green(hub: &'static Hub, set: c_int, operations: *mut sembuf, count: size_t) -> c_int {
    // SAFETY: the caller guarantees `count` operations.
    unsafe { semtimedop_green(hub, set, operations, count, std::ptr::null()) }
}

/// A lock on a file: `attempt` does not wait, and `waits` does if another process or open file holds the lock.
///
/// # Safety
/// `waits` may be called on another OS thread, while the caller waits.
unsafe fn lock_file(
    (hub, name): (&'static Hub, &str),
    attempt: impl FnOnce() -> c_int,
    waits: impl FnOnce() -> c_int,
) -> c_int {
    // Nothing is delivered before the attempt, which may be an unlock.
    if let Err(failed) = call::begin(hub, name, || true) {
        return failed;
    }
    attempt_first(&[libc::EAGAIN, libc::EACCES], attempt, || {
        // SAFETY: as the caller guarantees.
        unsafe { on_own_thread_or_fail(Lent::new(waits)) }
    })
}

unsafe fn flock_green(hub: &'static Hub, fd: c_int, operation: c_int) -> c_int {
    // SAFETY: no pointers are involved.
    unsafe {
        let lock = |operation| original::flock(fd, operation);
        if operation & libc::LOCK_UN != 0 {
            return lock(operation);
        }
        if operation & libc::LOCK_NB != 0 {
            return call::begin(hub, "flock", || true).map_or_else(|failed| failed, |()| lock(operation));
        }
        lock_file((hub, "flock"), || lock(operation | libc::LOCK_NB), || lock(operation))
    }
}

unsafe fn lockf_green(hub: &'static Hub, fd: c_int, command: c_int, len: off_t) -> c_int {
    // SAFETY: no pointers are involved.
    unsafe {
        let lock = |command| original::lockf(fd, command, len);
        if command != libc::F_LOCK {
            return lock(command);
        }
        lock_file((hub, "lockf"), || lock(libc::F_TLOCK), || lock(command))
    }
}

pub(super) fn flag_symbols() -> impl Iterator<Item = super::symbol::Listed> {
    super::symbol::listed! { SOCKETS fcntl SOCKETS fcntl64 SOCKETS ioctl }
}

/// Carries out a command of `fcntl`: one that waits for a lock on a file, or one that shows the non-blocking flag. The
/// flag is shown as the program set it, not as a connect has set it for a moment.
///
/// # Safety
/// `call` makes the call with a command: the caller's, or that which does not wait.
#[inline(always)]
unsafe fn control(fd: c_int, command: c_int, call: impl Fn(c_int) -> c_int) -> c_int {
    let at_once = match command {
        libc::F_SETLKW => libc::F_SETLK,
        libc::F_OFD_SETLKW => libc::F_OFD_SETLK,
        _ => {
            let concerns = matches!(command, libc::F_GETFL | libc::F_SETFL);
            return with_flag(concerns, fd, || call(command));
        }
    };
    // `fcntl` is not defined by `patch!`, so the gate is asked here.
    match gate(LOCKS) {
        // SAFETY: the argument stays as it is for the time of the call.
        Some(hub) => unsafe { lock_file((hub, "fcntl"), || call(at_once), || call(command)) },
        None => call(command),
    }
}

/// Defined ahead of libc's.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn fcntl(fd: c_int, command: c_int, argument: usize) -> c_int {
    // SAFETY: the caller guarantees an argument that is valid for `command`, so for the form of it that does not wait.
    unsafe { control(fd, command, |command| flags::fcntl(fd, command, argument)) }
}

/// Defined ahead of libc's: as [`fcntl`].
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn fcntl64(fd: c_int, command: c_int, argument: usize) -> c_int {
    // SAFETY: the caller guarantees an argument that is valid for `command`, so for the form of it that does not wait.
    unsafe { control(fd, command, |command| flags::fcntl64(fd, command, argument)) }
}

/// Defined ahead of libc's: `FIONBIO` sets the flag, too.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn ioctl(fd: c_int, request: c_ulong, argument: usize) -> c_int {
    // SAFETY: the caller guarantees an argument that is valid for `request`.
    with_flag(request == libc::FIONBIO, fd, || unsafe {
        flags::ioctl(fd, request, argument)
    })
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
    // SAFETY: the caller guarantees that `path` is a C string, for the time of the call.
    unsafe {
        let open = || original::openat(folder, path, flags, mode);
        if waits_for_its_end(folder, path, flags) {
            return on_own_thread_or_fail(Lent::new(open));
        }
        open()
    }
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
