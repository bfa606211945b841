//! Message queues and semaphores between processes, and waits for signals.
//!
//! A POSIX queue is a descriptor, and a signalfd is readable when a signal is pending, so the hub can wait for both.
//! System V's queues and semaphores have no descriptor: an OS thread waits in the caller's place.

use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::time::Duration;

use libc::{c_char, c_int, c_long, c_uint, c_void, mqd_t, sembuf, siginfo_t, sigset_t, size_t, ssize_t, timespec};

use super::symbol::patch;
use super::{Cut, device, errno, fail, fd, ready, set_errno, sleep};
use crate::hub::{Direction, Handlers, Hub};

patch! {
    LOCKS mq_receive(queue: mqd_t, buffer: *mut c_char, len: size_t, priority: *mut c_uint) -> ssize_t => mq_receive_green;
    LOCKS mq_timedreceive(queue: mqd_t, buffer: *mut c_char, len: size_t, priority: *mut c_uint, until: *const timespec) -> ssize_t => mq_timedreceive_green;
    LOCKS mq_send(queue: mqd_t, message: *const c_char, len: size_t, priority: c_uint) -> c_int => mq_send_green;
    LOCKS mq_timedsend(queue: mqd_t, message: *const c_char, len: size_t, priority: c_uint, until: *const timespec) -> c_int => mq_timedsend_green;
    LOCKS msgrcv(queue: c_int, message: *mut c_void, len: size_t, kind: c_long, flags: c_int) -> ssize_t => msgrcv_green;
    LOCKS msgsnd(queue: c_int, message: *const c_void, len: size_t, flags: c_int) -> c_int => msgsnd_green;
    LOCKS semop(set: c_int, operations: *mut sembuf, count: size_t) -> c_int => semop_green;
    LOCKS semtimedop(set: c_int, operations: *mut sembuf, count: size_t, time: *const timespec) -> c_int => semtimedop_green;
    READINESS sigtimedwait(set: *const sigset_t, info: *mut siginfo_t, time: *const timespec) -> c_int => sigtimedwait_green;
    READINESS sigwaitinfo(set: *const sigset_t, info: *mut siginfo_t) -> c_int => sigwaitinfo_green;
    READINESS sigwait(set: *const sigset_t, signal: *mut c_int) -> c_int => sigwait_green;
    READINESS pause() -> c_int => pause_green;
    READINESS sigsuspend(mask: *const sigset_t) -> c_int => sigsuspend_green;
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
    if let Err(failed) = fd::begin(hub, call, || false) {
        return failed as ssize_t;
    }
    let before = errno();
    // The gate does this for every group but `LOCKS`, to which queues belong: signals that came before do not
    // interrupt.
    hub.forget_signals();
    // SAFETY: `until` is null or readable, as the caller guarantees.
    let deadline = match unsafe { until.as_ref() } {
        None => None,
        // SAFETY: a reference is readable.
        Some(time) => match unsafe { sleep::duration(time) } {
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
    // SAFETY: the attempt did not fail with `EBADF`, so the queue is not -1, and a close ends the wait.
    let end = unsafe { fd::borrow(queue) };
    loop {
        match fd::wait_or_signal(hub, end, direction, deadline, call, Handlers::NotRestarting) {
            Ok(Ok(())) => {}
            Ok(Err(Cut::TimedOut)) => return fail(libc::ETIMEDOUT) as ssize_t,
            Ok(Err(Cut::Interrupted(error))) | Err(error) => return fail(error) as ssize_t,
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

/// Runs `attempt`, which does not wait; if it fails with an error of `would` (wait), an OS thread runs `waits`, unless the
/// call `never_waits`.
fn apart(
    (hub, name): (&'static Hub, &str),
    never_waits: bool,
    would: &[c_int],
    attempt: impl FnOnce() -> ssize_t,
    waits: impl FnOnce() -> ssize_t,
) -> ssize_t {
    if let Err(failed) = fd::begin(hub, name, || never_waits) {
        return failed as ssize_t;
    }
    let before = errno();
    let result = attempt();
    if never_waits || result >= 0 || !would.contains(&errno()) {
        return result;
    }
    set_errno(before);
    device::apart(waits)
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
    let attempt = || receive(flags | libc::IPC_NOWAIT);
    apart((hub, "msgrcv"), never_waits, &[libc::ENOMSG], attempt, || {
        receive(flags)
    })
}

unsafe fn msgsnd_green(hub: &'static Hub, queue: c_int, message: *const c_void, len: size_t, flags: c_int) -> c_int {
    // SAFETY: the caller guarantees a message of `len` bytes.
    let send = |flags| unsafe { original::msgsnd(queue, message, len, flags) as ssize_t };
    let never_waits = flags & libc::IPC_NOWAIT != 0;
    let attempt = || send(flags | libc::IPC_NOWAIT);
    apart((hub, "msgsnd"), never_waits, &[libc::EAGAIN], attempt, || send(flags)) as c_int
}

unsafe fn semtimedop_green(
    hub: &'static Hub,
    set: c_int,
    operations: *mut sembuf,
    count: size_t,
    time: *const timespec,
) -> c_int {
    // SAFETY: the caller guarantees `count` operations; `time` is null or readable.
    let operate = |time| unsafe { original::semtimedop(set, operations, count, time) as ssize_t };
    // `EAGAIN` is also the error of an operation with `IPC_NOWAIT`. Then the second call, on the OS thread, fails at
    // once.
    apart(
        (hub, "semop"),
        false,
        &[libc::EAGAIN],
        || operate(&PAST),
        || operate(time),
    ) as c_int
}

unsafe fn semop_green(hub: &'static Hub, set: c_int, operations: *mut sembuf, count: size_t) -> c_int {
    // SAFETY: the caller guarantees `count` operations.
    unsafe { semtimedop_green(hub, set, operations, count, std::ptr::null()) }
}

unsafe fn sigtimedwait_green(
    hub: &'static Hub,
    set: *const sigset_t,
    info: *mut siginfo_t,
    time: *const timespec,
) -> c_int {
    // SAFETY: the caller guarantees a set, and that `info` is null or writable. With a time-out of 0 it does not wait.
    let look = || unsafe { original::sigtimedwait(set, info, &PAST) };
    // SAFETY: `time` is null or readable, as the caller guarantees.
    let time = match unsafe { time.as_ref() } {
        None => None,
        // SAFETY: a reference is readable.
        Some(time) => match unsafe { sleep::duration(time) } {
            Some(time) => Some(time),
            None => return fail(libc::EINVAL),
        },
    };
    if let Err(failed) = fd::begin(hub, "sigtimedwait", || time == Some(Duration::ZERO)) {
        return failed;
    }
    let before = errno();
    let found = look();
    if found >= 0 || errno() != libc::EAGAIN || time == Some(Duration::ZERO) {
        return found;
    }
    // The signalfd is only waited for: the signal itself is taken by `look`, which fills in `info`.
    // SAFETY: the caller guarantees a set; the descriptor was just made, and nothing else owns it.
    let signals = unsafe {
        let raw = libc::signalfd(-1, set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        if raw < 0 {
            return -1;
        }
        OwnedFd::from_raw_fd(raw)
    };
    let deadline = time.map(|time| hub.deadline_in(time));
    loop {
        let (signals, handlers) = (signals.as_fd(), Handlers::All);
        match fd::wait_or_signal(hub, signals, Direction::Read, deadline, "sigtimedwait", handlers) {
            Ok(Ok(())) => {}
            Ok(Err(Cut::TimedOut)) => return look(),
            Ok(Err(Cut::Interrupted(error))) | Err(error) => return fail(error),
        }
        set_errno(before);
        // Another thread may have taken the signal: then wait on.
        let found = look();
        if found >= 0 || errno() != libc::EAGAIN {
            return found;
        }
    }
}

unsafe fn sigwaitinfo_green(hub: &'static Hub, set: *const sigset_t, info: *mut siginfo_t) -> c_int {
    // SAFETY: the caller guarantees a set, and that `info` is null or writable.
    unsafe { sigtimedwait_green(hub, set, info, std::ptr::null()) }
}

unsafe fn sigwait_green(hub: &'static Hub, set: *const sigset_t, signal: *mut c_int) -> c_int {
    let before = errno();
    loop {
        // SAFETY: the caller guarantees a set.
        let found = unsafe { sigtimedwait_green(hub, set, std::ptr::null_mut(), std::ptr::null()) };
        // sigwait returns its error, leaves errno alone, and never fails with `EINTR`.
        let error = errno();
        set_errno(before);
        match error {
            _ if found > 0 => {
                // SAFETY: the caller guarantees that `signal` is writable.
                unsafe { *signal = found };
                return 0;
            }
            libc::EINTR => {}
            error => return error,
        }
    }
}

/// Waits until a signal handler has run. Handlers interrupt the main green thread only; any other one waits until it is
/// killed.
unsafe fn pause_green(hub: &'static Hub) -> c_int {
    ready::rest(hub, None)
}

unsafe fn sigsuspend_green(hub: &'static Hub, mask: *const sigset_t) -> c_int {
    // SAFETY: the caller guarantees a mask.
    unsafe {
        if ready::is_in_force(mask) {
            return ready::rest(hub, None);
        }
        ready::elsewhere(|| original::sigsuspend(mask))
    }
}
