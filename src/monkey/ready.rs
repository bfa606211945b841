//! poll, select and epoll: first a look without waiting, then a wait for an epoll descriptor. And the sleeps, which
//! wait for nothing but the time.
//!
//! An epoll descriptor is readable when one of its members is ready, so the hub can wait for it as for any descriptor.
//! For poll and select, one is made for the length of the call.

use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use libc::{c_int, c_uint, clockid_t, epoll_event, fd_set, nfds_t, pollfd, sigset_t, timespec, timeval, useconds_t};

use super::call::{self, Waited, nap, wait_or_signal};
use super::offload::on_own_thread_or_fail;
use super::sleep;
use super::symbol::{Lent, errno, fail, patch};
use crate::hub::{Direction, Handlers, Hub, Why};
use crate::sys::plain::plainly;

patch! {
    TIME nanosleep(time: *const timespec, left: *mut timespec) -> c_int => nanosleep_green;
    TIME clock_nanosleep(clock: clockid_t, flags: c_int, time: *const timespec, left: *mut timespec) -> c_int => clock_nanosleep_green;
    TIME usleep(time: useconds_t) -> c_int => usleep_green;
    TIME sleep(seconds: c_uint) -> c_uint => sleep_green;
    TIME thrd_sleep(time: *const timespec, left: *mut timespec) -> c_int => thrd_sleep_green;
    READINESS poll(fds: *mut pollfd, count: nfds_t, timeout: c_int) -> c_int => poll_green;
    READINESS ppoll(fds: *mut pollfd, count: nfds_t, timeout: *const timespec, mask: *const sigset_t) -> c_int => ppoll_green;
    READINESS __ppoll_chk(fds: *mut pollfd, count: nfds_t, timeout: *const timespec, mask: *const sigset_t, room: libc::size_t) -> c_int => ppoll_chk_green;
    READINESS select(count: c_int, read: *mut fd_set, write: *mut fd_set, except: *mut fd_set, timeout: *mut timeval) -> c_int => select_green;
    READINESS pselect(count: c_int, read: *mut fd_set, write: *mut fd_set, except: *mut fd_set, timeout: *const timespec, mask: *const sigset_t) -> c_int => pselect_green;
    READINESS epoll_wait(fd: c_int, events: *mut epoll_event, count: c_int, timeout: c_int) -> c_int => epoll_wait_green;
    READINESS epoll_pwait(fd: c_int, events: *mut epoll_event, count: c_int, timeout: c_int, mask: *const sigset_t) -> c_int => epoll_pwait_green;
    READINESS epoll_pwait2(fd: c_int, events: *mut epoll_event, count: c_int, timeout: *const timespec, mask: *const sigset_t) -> c_int => epoll_pwait2_green;
}

/// The deadline of a time-out in milliseconds; a negative time-out means no deadline.
fn deadline(hub: &Hub, timeout: c_int) -> Option<u64> {
    let timeout = u64::try_from(timeout).ok()?;
    Some(hub.deadline_in(Duration::from_millis(timeout)))
}

/// Waits for `interest` and looks, until a look finds something, the deadline has passed, or the wait is cut short.
fn wait_and_look(
    hub: &'static Hub,
    deadline: Option<u64>,
    call: &str,
    interest: BorrowedFd<'_>,
    look: impl Fn() -> c_int,
) -> c_int {
    loop {
        match wait_or_signal(
            hub,
            interest.as_raw_fd(),
            Direction::Read,
            deadline,
            call,
            Handlers::All,
        ) {
            Waited::Ready => {}
            // A last look: an event may have come together with the deadline.
            Waited::TimedOut => return look(),
            // The kernel limits how deep epolls may be nested, and the hub's poller would be one level more.
            Waited::Failed(libc::ELOOP) => return sleep_and_look(hub, deadline, call, look),
            Waited::Interrupted(error) | Waited::Failed(error) => return fail(error),
        }
        // The event may be gone again (another OS thread has read the bytes): then wait on.
        let found = look();
        if found != 0 {
            return found;
        }
    }
}

/// As [`wait_and_look`], where no epoll descriptor can be used: sleeps between looks, at most 20 ms each time.
fn sleep_and_look(hub: &'static Hub, deadline: Option<u64>, call: &str, look: impl Fn() -> c_int) -> c_int {
    let mut time = Duration::from_millis(1);
    loop {
        let until = hub.deadline_in(time).min(deadline.unwrap_or(u64::MAX));
        if let Err(error) = nap(hub, until, Handlers::All, call, Why::new(&LOOK, 0)) {
            return fail(error);
        }
        let found = look();
        if found != 0 || deadline.is_some_and(|deadline| hub.clock.now() >= deadline) {
            return found;
        }
        // Longer naps cost less, but delay the caller: at most 20 ms.
        time = (time * 2).min(Duration::from_millis(20));
    }
}

static LOOK: &str = "a patched poll without a descriptor to wait by";

/// An epoll descriptor that is readable when one of `fds` is ready. Fails if none can be made (no descriptor is left,
/// say).
fn epoll_of(fds: &[pollfd]) -> Result<OwnedFd, ()> {
    // SAFETY: no pointers are involved.
    let raw = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
    if raw < 0 {
        return Err(());
    }
    // SAFETY: the descriptor was just made, and nothing else owns it.
    let all = unsafe { OwnedFd::from_raw_fd(raw) };
    // The union of the events of each descriptor; filled when the list has one twice, for an epoll has each only once.
    let mut twice: HashMap<c_int, u32> = HashMap::new();
    for one in fds.iter().filter(|one| one.fd >= 0) {
        let mut event = epoll_event {
            // The lower 16 bits mean the same in poll and in epoll.
            events: u32::from(one.events as u16),
            u64: 0,
        };
        // SAFETY: `event` is a valid local event, and the kernel checks the numbers.
        unsafe {
            if libc::epoll_ctl(all.as_raw_fd(), libc::EPOLL_CTL_ADD, one.fd, &raw mut event) == 0 {
                continue;
            }
            match errno() {
                libc::EEXIST => {}
                // A file cannot be in an epoll, nor can a closed descriptor. poll reports both at once, so the look
                // before has found them.
                libc::EPERM | libc::EBADF => continue,
                // Epolls nested too deep, or no memory.
                _ => return Err(()),
            }
            // Filled once, for all duplicates of the list.
            if twice.is_empty() {
                for one in fds {
                    *twice.entry(one.fd).or_default() |= u32::from(one.events as u16);
                }
            }
            event.events = twice.get(&one.fd).copied().unwrap_or(event.events);
            // The entry that is there gets the events of all of them.
            libc::epoll_ctl(all.as_raw_fd(), libc::EPOLL_CTL_MOD, one.fd, &raw mut event);
        }
    }
    Ok(all)
}

pub(super) unsafe fn poll_green(hub: &'static Hub, fds: *mut pollfd, count: nfds_t, timeout: c_int) -> c_int {
    if let Err(error) = call::begin(hub, "poll", || timeout == 0) {
        return error;
    }
    // SAFETY: the caller guarantees `count` `pollfd`s at `fds`; the time-out is 0.
    let look = || unsafe { original::poll(fds, count, 0) };
    let found = look();
    if found != 0 || timeout == 0 {
        return found;
    }
    // A poll of nothing is a sleep.
    if count == 0 {
        return wait_for_signal(hub, deadline(hub, timeout));
    }
    // SAFETY: the kernel has just read `count` `pollfd`s there.
    let list = unsafe { std::slice::from_raw_parts(fds, count as usize) };
    match epoll_of(list) {
        Ok(all) => wait_and_look(hub, deadline(hub, timeout), "poll", all.as_fd(), look),
        Err(()) => sleep_and_look(hub, deadline(hub, timeout), "poll", look),
    }
}

/// Waits for the deadline, or for a signal handler that interrupts it.
pub(super) fn wait_for_signal(hub: &'static Hub, deadline: Option<u64>) -> c_int {
    // An empty epoll is never ready.
    match epoll_of(&[]) {
        Ok(all) => wait_and_look(hub, deadline, "poll", all.as_fd(), || 0),
        Err(()) => sleep_and_look(hub, deadline, "poll", || 0),
    }
}

/// Whether a call with this signal mask changes nothing: the mask is null, or equals that of this OS thread.
///
/// # Safety
/// `mask` is null or readable.
pub(super) unsafe fn is_in_force(mask: *const sigset_t) -> bool {
    /// The kernel's 64 signals, without those that cannot be blocked: SIGKILL, SIGSTOP, and the two that glibc
    /// reserves.
    fn words(set: *const sigset_t) -> u64 {
        let unblockable = [libc::SIGKILL, libc::SIGSTOP, 32, 33];
        let bits = unblockable.iter().fold(0, |bits, signal| bits | 1_u64 << (signal - 1));
        // SAFETY: the callers pass a readable set, and its first 8 bytes are the kernel's set.
        unsafe { set.cast::<u64>().read_unaligned() & !bits }
    }
    if mask.is_null() {
        return true;
    }
    // SAFETY: a null set makes `pthread_sigmask` only write the present mask to a local, for which all-zero is valid;
    // `mask` is not null, so it is readable.
    unsafe {
        let mut now: sigset_t = std::mem::zeroed();
        libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), &raw mut now);
        words(&raw const now) == words(mask)
    }
}

/// Makes a call with a signal mask of its own: first here, without waiting, and if it found nothing, on another OS
/// thread. A mask belongs to the OS thread, and on this one other green threads run during the wait.
///
/// # Safety
/// `call` may be made on another OS thread, while the caller waits.
unsafe fn masked(timeout: *const timespec, call: impl Fn(*const timespec) -> c_int) -> c_int {
    // The look is made here because signals that are pending for this OS thread, and not in the mask, are delivered by
    // it.
    let now = call(&timespec { tv_sec: 0, tv_nsec: 0 });
    if now != 0 {
        return now;
    }
    // SAFETY: as the caller guarantees.
    unsafe { on_own_thread_or_fail(Lent::new(|| call(timeout))) }
}

unsafe fn ppoll_green(
    hub: &'static Hub,
    fds: *mut pollfd,
    count: nfds_t,
    timeout: *const timespec,
    mask: *const sigset_t,
) -> c_int {
    // SAFETY: the caller guarantees `count` `pollfd`s at `fds`; `timeout` and `mask` are null or readable.
    unsafe {
        if !is_in_force(mask) {
            return masked(timeout, |time| original::ppoll(fds, count, time, mask));
        }
        let Some(timeout) = timeout.as_ref() else {
            return poll_green(hub, fds, count, -1);
        };
        match sleep::duration(timeout) {
            Some(time) => {
                // Rounded up: a wait must not end before its time.
                let millis = time.as_nanos().div_ceil(1_000_000);
                poll_green(hub, fds, count, c_int::try_from(millis).unwrap_or(c_int::MAX))
            }
            None => fail(libc::EINVAL),
        }
    }
}

unsafe fn ppoll_chk_green(
    hub: &'static Hub,
    fds: *mut pollfd,
    count: nfds_t,
    timeout: *const timespec,
    mask: *const sigset_t,
    room: libc::size_t,
) -> c_int {
    // libc's definition ends the program if the buffer is too small for `count`.
    // SAFETY: the caller guarantees what `ppoll` requires.
    unsafe {
        if room / size_of::<pollfd>() < count as usize {
            return original::__ppoll_chk(fds, count, timeout, mask, room);
        }
        ppoll_green(hub, fds, count, timeout, mask)
    }
}

unsafe fn select_green(
    hub: &'static Hub,
    count: c_int,
    read: *mut fd_set,
    write: *mut fd_set,
    except: *mut fd_set,
    timeout: *mut timeval,
) -> c_int {
    // SAFETY: `timeout` is null or readable, as the caller guarantees.
    let time = match unsafe { timeout.as_ref() } {
        Some(time) if time.tv_sec < 0 || time.tv_usec < 0 => return fail(libc::EINVAL),
        Some(time) => {
            Some(Duration::from_secs(time.tv_sec as u64).saturating_add(Duration::from_micros(time.tv_usec as u64)))
        }
        None => None,
    };
    // To tell the caller at the end how much of the time is left.
    let begun = hub.clock.now();
    // SAFETY: the caller guarantees that the sets are null or have `count` bits.
    let found = unsafe { select_until(hub, count, read, write, except, time) };
    if let Some(time) = time {
        let left = time.saturating_sub(Duration::from_nanos(hub.clock.now() - begun));
        // Linux's select writes what is left of the time.
        // SAFETY: `timeout` is not null, and writable as the caller guarantees.
        unsafe {
            (*timeout).tv_sec = left.as_secs() as libc::time_t;
            (*timeout).tv_usec = libc::suseconds_t::from(left.subsec_micros());
        }
    }
    found
}

unsafe fn pselect_green(
    hub: &'static Hub,
    count: c_int,
    read: *mut fd_set,
    write: *mut fd_set,
    except: *mut fd_set,
    timeout: *const timespec,
    mask: *const sigset_t,
) -> c_int {
    // SAFETY: the caller guarantees that the sets are null or have `count` bits; `timeout` and `mask` are null or
    // readable.
    unsafe {
        if !is_in_force(mask) {
            return on_own_thread_or_fail(Lent::new(|| {
                original::pselect(count, read, write, except, timeout, mask)
            }));
        }
        let Some(timeout) = timeout.as_ref() else {
            return select_until(hub, count, read, write, except, None);
        };
        match sleep::duration(timeout) {
            Some(time) => select_until(hub, count, read, write, except, Some(time)),
            None => fail(libc::EINVAL),
        }
    }
}

/// How many bits of a set the kernel looks at: at most the size of the process's table of descriptors.
fn most_descriptors(count: c_int) -> usize {
    if count <= libc::FD_SETSIZE as c_int {
        return libc::FD_SETSIZE;
    }
    // Only programs with sets larger than `fd_set` come here.
    let status = plainly(|| std::fs::read_to_string("/proc/self/status")).unwrap_or_default();
    let size = status
        .lines()
        .find_map(|line| line.strip_prefix("FDSize:")?.trim().parse().ok());
    size.unwrap_or(libc::FD_SETSIZE)
}

/// `select` with a time-out as a `Duration`.
///
/// # Safety
/// As for `select`.
unsafe fn select_until(
    hub: &'static Hub,
    count: c_int,
    read: *mut fd_set,
    write: *mut fd_set,
    except: *mut fd_set,
    time: Option<Duration>,
) -> c_int {
    if let Err(error) = call::begin(hub, "select", || time.is_some_and(|time| time.is_zero())) {
        return error;
    }
    // The number of words that the kernel looks at, which may be more or fewer than an `fd_set` has.
    let words = usize::try_from(count)
        .unwrap_or(0)
        .min(most_descriptors(count))
        .div_ceil(64);
    let sets = [read, write, except].map(|set| set.cast::<u64>());
    // select overwrites its sets, so each look needs them afresh.
    // SAFETY: the sets are null or have `count` bits, as the caller guarantees.
    let before = sets.map(|set| (!set.is_null()).then(|| unsafe { std::slice::from_raw_parts(set, words) }.to_vec()));
    let look = || {
        let mut zero = timeval { tv_sec: 0, tv_usec: 0 };
        for (set, before) in sets.iter().zip(&before) {
            if let Some(before) = before {
                // SAFETY: `before` is `Some` only for a set that is not null, and has as many words.
                unsafe { std::slice::from_raw_parts_mut(*set, words) }.copy_from_slice(before);
            }
        }
        // SAFETY: the sets are null or have `count` bits, as the caller guarantees; the time-out is 0.
        unsafe { original::select(count, read, write, except, &raw mut zero) }
    };
    let found = look();
    if found != 0 || time.is_some_and(|time| time.is_zero()) {
        return found;
    }
    let deadline = time.map(|time| hub.deadline_in(time));
    // The same question as a list for `epoll_of`.
    let mut fds = Vec::new();
    for (set, events) in before.iter().zip([libc::POLLIN, libc::POLLOUT, libc::POLLPRI]) {
        let Some(set) = set else { continue };
        for fd in (0..count.min(words as c_int * 64)).filter(|fd| set[*fd as usize / 64] >> (fd % 64) & 1 == 1) {
            fds.push(pollfd { fd, events, revents: 0 });
        }
    }
    match epoll_of(&fds) {
        Ok(all) => wait_and_look(hub, deadline, "select", all.as_fd(), look),
        Err(()) => sleep_and_look(hub, deadline, "select", look),
    }
}

unsafe fn epoll_wait_green(
    hub: &'static Hub,
    fd: c_int,
    events: *mut epoll_event,
    count: c_int,
    timeout: c_int,
) -> c_int {
    let time = u64::try_from(timeout).ok().map(Duration::from_millis);
    // SAFETY: the caller guarantees room for `count` events.
    unsafe { epoll_until(hub, fd, events, count, time) }
}

/// `epoll_wait` with a time-out as a `Duration`.
///
/// # Safety
/// As for `epoll_wait`.
unsafe fn epoll_until(
    hub: &'static Hub,
    fd: c_int,
    events: *mut epoll_event,
    count: c_int,
    time: Option<Duration>,
) -> c_int {
    if let Err(error) = call::begin(hub, "epoll_wait", || time.is_some_and(|time| time.is_zero())) {
        return error;
    }
    // SAFETY: the caller guarantees room for `count` events; the time-out is 0.
    let look = || unsafe { original::epoll_wait(fd, events, count, 0) };
    let found = look();
    if found != 0 || time.is_some_and(|time| time.is_zero()) {
        return found;
    }
    // SAFETY: the look has succeeded, so `fd` is not -1, and a close ends the wait.
    let interest = unsafe { BorrowedFd::borrow_raw(fd) };
    wait_and_look(
        hub,
        time.map(|time| hub.deadline_in(time)),
        "epoll_wait",
        interest,
        look,
    )
}

unsafe fn epoll_pwait2_green(
    hub: &'static Hub,
    fd: c_int,
    events: *mut epoll_event,
    count: c_int,
    timeout: *const timespec,
    mask: *const sigset_t,
) -> c_int {
    // SAFETY: the caller guarantees room for `count` events; `timeout` and `mask` are null or readable.
    unsafe {
        if !is_in_force(mask) {
            return masked(timeout, |time| original::epoll_pwait2(fd, events, count, time, mask));
        }
        let Some(timeout) = timeout.as_ref() else {
            return epoll_until(hub, fd, events, count, None);
        };
        match sleep::duration(timeout) {
            Some(time) => epoll_until(hub, fd, events, count, Some(time)),
            None => fail(libc::EINVAL),
        }
    }
}

unsafe fn epoll_pwait_green(
    hub: &'static Hub,
    fd: c_int,
    events: *mut epoll_event,
    count: c_int,
    timeout: c_int,
    mask: *const sigset_t,
) -> c_int {
    // SAFETY: the caller guarantees room for `count` events; `mask` is null or readable.
    unsafe {
        if is_in_force(mask) {
            epoll_wait_green(hub, fd, events, count, timeout)
        } else {
            // As in `masked`.
            let now = original::epoll_pwait(fd, events, count, 0, mask);
            if now != 0 || timeout == 0 {
                return now;
            }
            on_own_thread_or_fail(Lent::new(|| original::epoll_pwait(fd, events, count, timeout, mask)))
        }
    }
}

/// Stores the time that was left, if the caller has a place for it.
///
/// # Safety
/// `left` is null or writable.
unsafe fn store_left(left: *mut timespec, time: Duration) {
    // SAFETY: `left` is null or writable, as the caller guarantees.
    if let Some(left) = unsafe { left.as_mut() } {
        left.tv_sec = time.as_secs() as libc::time_t;
        left.tv_nsec = time.subsec_nanos().into();
    }
}

unsafe fn nanosleep_green(hub: &'static Hub, time: *const timespec, left: *mut timespec) -> c_int {
    if time.is_null() {
        // The kernel reports the error.
        // SAFETY: the caller guarantees that `left` is null or writable; the kernel checks `time`.
        return unsafe { original::nanosleep(time, left) };
    }
    // SAFETY: `time` is not null, so it is readable as the caller guarantees.
    match sleep::duration(unsafe { &*time }) {
        Some(duration) => match sleep::pause(hub, duration) {
            Ok(()) => 0,
            Err(time) => {
                // SAFETY: the caller guarantees that `left` is null or writable.
                unsafe { store_left(left, time) };
                fail(libc::EINTR)
            }
        },
        None => fail(libc::EINVAL),
    }
}

unsafe fn clock_nanosleep_green(
    hub: &'static Hub,
    clock: clockid_t,
    flags: c_int,
    time: *const timespec,
    left: *mut timespec,
) -> c_int {
    let known =
        matches!(clock, libc::CLOCK_REALTIME | libc::CLOCK_MONOTONIC) && matches!(flags, 0 | libc::TIMER_ABSTIME);
    if time.is_null() || !known {
        // Another clock (of CPU time, say) is the kernel's affair, and so are errors.
        // SAFETY: the caller guarantees that `left` is null or writable; the kernel checks the rest.
        return unsafe { original::clock_nanosleep(clock, flags, time, left) };
    }
    // SAFETY: `time` is not null, so it is readable as the caller guarantees.
    let Some(mut wait) = sleep::duration(unsafe { &*time }) else {
        return libc::EINVAL;
    };
    if flags == libc::TIMER_ABSTIME {
        wait = wait.saturating_sub(sleep::now(clock));
    }
    match sleep::pause(hub, wait) {
        Ok(()) => 0,
        Err(time) => {
            // For an absolute time nothing is stored, as in the kernel: the caller can use the same time again.
            if flags != libc::TIMER_ABSTIME {
                // SAFETY: the caller guarantees that `left` is null or writable.
                unsafe { store_left(left, time) };
            }
            libc::EINTR
        }
    }
}

unsafe fn usleep_green(hub: &'static Hub, time: useconds_t) -> c_int {
    match sleep::pause(hub, Duration::from_micros(u64::from(time))) {
        Ok(()) => 0,
        Err(_) => fail(libc::EINTR),
    }
}

unsafe fn sleep_green(hub: &'static Hub, seconds: c_uint) -> c_uint {
    match sleep::pause(hub, Duration::from_secs(u64::from(seconds))) {
        Ok(()) => 0,
        // sleep returns the time that is left, in whole seconds.
        Err(time) => time.as_secs() as c_uint,
    }
}

/// C11's sleep has results of its own: 0, -1 for a signal, another negative number for an error.
unsafe fn thrd_sleep_green(hub: &'static Hub, time: *const timespec, left: *mut timespec) -> c_int {
    let mut unused = timespec { tv_sec: 0, tv_nsec: 0 };
    let left = if left.is_null() { &raw mut unused } else { left };
    // SAFETY: the caller guarantees that `time` is readable, and `left` null or writable.
    match unsafe { clock_nanosleep_green(hub, libc::CLOCK_REALTIME, 0, time, left) } {
        0 => 0,
        libc::EINTR => -1,
        _ => -2,
    }
}
