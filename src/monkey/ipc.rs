//! Message queues and semaphores between processes, and signals that are waited for.
//!
//! A POSIX queue is a descriptor, and what signals are waited for another tells (signalfd). System V's have none: an OS
//! thread waits in the caller's place.

use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::time::Duration;

use libc::{c_char, c_int, c_long, c_uint, c_void, mqd_t, sembuf, siginfo_t, sigset_t, size_t, ssize_t, timespec};

use super::symbol::patch;
use super::{Cut, device, errno, fail, fd, ready, set_errno, sleep};
use crate::hub::Hub;
use crate::hub::caught::Handlers;
use crate::hub::reactor::Direction;

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

/// Long past: a call with this deadline does what it can do at once.
const PAST: timespec = timespec { tv_sec: 0, tv_nsec: 0 };

/// One end of a POSIX queue: at once, or when it is ready, or not before the deadline.
///
/// # Safety
/// `until` is null or may be read.
unsafe fn on_queue(
    hub: &'static Hub,
    queue: mqd_t,
    direction: Direction,
    call: &str,
    until: *const timespec,
    attempt: impl Fn(*const timespec) -> ssize_t,
) -> ssize_t {
    let before = errno();
    hub.forget_signals();
    // SAFETY: the caller's.
    let deadline = match unsafe { until.as_ref() } {
        None => None,
        // SAFETY: as above.
        Some(time) => match unsafe { sleep::duration(time) } {
            Some(at) => Some(hub.after(at.saturating_sub(sleep::now(libc::CLOCK_REALTIME)))),
            // The kernel says what it thinks of it.
            None => return attempt(until),
        },
    };
    let first = attempt(&PAST);
    if first >= 0 || errno() != libc::ETIMEDOUT {
        return first;
    }
    // SAFETY: it was good a moment ago.
    let end = unsafe { fd::borrow(queue) };
    loop {
        match fd::wait_or_signal(hub, end, direction, deadline, call, Handlers::NotRestarting) {
            Ok(Ok(())) => {}
            Ok(Err(Cut::TimedOut)) => return fail(libc::ETIMEDOUT) as ssize_t,
            Ok(Err(Cut::Interrupted(error))) | Err(error) => return fail(error) as ssize_t,
        }
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
    // SAFETY: the caller's, as libc's.
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
    // SAFETY: the caller's, as libc's.
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
    // SAFETY: the caller's, as libc's.
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
    // SAFETY: the caller's, as libc's.
    unsafe { mq_timedsend_green(hub, queue, message, len, priority, std::ptr::null()) }
}

/// At once if that can be; else an OS thread waits, if the try says that it would.
fn apart(would: &[c_int], attempt: impl FnOnce() -> ssize_t, waits: impl FnOnce() -> ssize_t) -> ssize_t {
    let before = errno();
    let result = attempt();
    if result >= 0 || !would.contains(&errno()) {
        return result;
    }
    set_errno(before);
    device::apart(waits)
}

unsafe fn msgrcv_green(
    _hub: &'static Hub,
    queue: c_int,
    message: *mut c_void,
    len: size_t,
    kind: c_long,
    flags: c_int,
) -> ssize_t {
    // SAFETY: the caller's, as libc's.
    let receive = |flags| unsafe { original::msgrcv(queue, message, len, kind, flags) };
    if flags & libc::IPC_NOWAIT != 0 {
        return receive(flags);
    }
    apart(&[libc::ENOMSG], || receive(flags | libc::IPC_NOWAIT), || receive(flags))
}

unsafe fn msgsnd_green(_hub: &'static Hub, queue: c_int, message: *const c_void, len: size_t, flags: c_int) -> c_int {
    // SAFETY: the caller's, as libc's.
    let send = |flags| unsafe { original::msgsnd(queue, message, len, flags) as ssize_t };
    if flags & libc::IPC_NOWAIT != 0 {
        return send(flags) as c_int;
    }
    apart(&[libc::EAGAIN], || send(flags | libc::IPC_NOWAIT), || send(flags)) as c_int
}

unsafe fn semtimedop_green(
    _hub: &'static Hub,
    set: c_int,
    operations: *mut sembuf,
    count: size_t,
    time: *const timespec,
) -> c_int {
    // SAFETY: the caller's, as libc's; a time of zero waits for nothing.
    let operate = |time| unsafe { original::semtimedop(set, operations, count, time) as ssize_t };
    // It says the same of an operation that is not to wait, and says it again.
    apart(&[libc::EAGAIN], || operate(&PAST), || operate(time)) as c_int
}

unsafe fn semop_green(hub: &'static Hub, set: c_int, operations: *mut sembuf, count: size_t) -> c_int {
    // SAFETY: the caller's, as libc's.
    unsafe { semtimedop_green(hub, set, operations, count, std::ptr::null()) }
}

unsafe fn sigtimedwait_green(
    hub: &'static Hub,
    set: *const sigset_t,
    info: *mut siginfo_t,
    time: *const timespec,
) -> c_int {
    // SAFETY: the caller's, as libc's; it returns at once.
    let look = || unsafe { original::sigtimedwait(set, info, &PAST) };
    // SAFETY: the caller's: null or a time.
    let time = match unsafe { time.as_ref() } {
        None => None,
        // SAFETY: as above.
        Some(time) => match unsafe { sleep::duration(time) } {
            Some(time) => Some(time),
            None => return fail(libc::EINVAL),
        },
    };
    let before = errno();
    let found = look();
    if found >= 0 || errno() != libc::EAGAIN || time == Some(Duration::ZERO) {
        return found;
    }
    // SAFETY: asks for a descriptor that is ready when one of them has come; fresh, and ours alone.
    let signals = unsafe {
        let raw = libc::signalfd(-1, set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        if raw < 0 {
            return -1;
        }
        OwnedFd::from_raw_fd(raw)
    };
    let deadline = time.map(|time| hub.after(time));
    loop {
        let (signals, handlers) = (signals.as_fd(), Handlers::All);
        match fd::wait_or_signal(hub, signals, Direction::Read, deadline, "sigtimedwait", handlers) {
            Ok(Ok(())) => {}
            Ok(Err(Cut::TimedOut)) => return look(),
            Ok(Err(Cut::Interrupted(error))) | Err(error) => return fail(error),
        }
        set_errno(before);
        let found = look();
        if found >= 0 || errno() != libc::EAGAIN {
            return found;
        }
    }
}

unsafe fn sigwaitinfo_green(hub: &'static Hub, set: *const sigset_t, info: *mut siginfo_t) -> c_int {
    // SAFETY: the caller's, as libc's.
    unsafe { sigtimedwait_green(hub, set, info, std::ptr::null()) }
}

unsafe fn sigwait_green(hub: &'static Hub, set: *const sigset_t, signal: *mut c_int) -> c_int {
    let before = errno();
    loop {
        // SAFETY: the caller's, as libc's.
        let found = unsafe { sigtimedwait_green(hub, set, std::ptr::null_mut(), std::ptr::null()) };
        // It gives an error by value, and a handler is none.
        let error = errno();
        set_errno(before);
        match error {
            _ if found > 0 => {
                // SAFETY: the caller's place for it.
                unsafe { *signal = found };
                return 0;
            }
            libc::EINTR => {}
            error => return error,
        }
    }
}

/// Until a handler has run, which concerns main alone; others wait until they are killed.
unsafe fn pause_green(hub: &'static Hub) -> c_int {
    ready::rest(hub, None)
}

unsafe fn sigsuspend_green(hub: &'static Hub, mask: *const sigset_t) -> c_int {
    // SAFETY: the caller's, as libc's.
    unsafe {
        if ready::is_in_force(mask) {
            return ready::rest(hub, None);
        }
        ready::elsewhere(|| original::sigsuspend(mask))
    }
}
