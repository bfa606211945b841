//! poll, select and epoll: a look first, then a wait for an epoll descriptor, which is itself a descriptor.

use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use libc::{c_int, epoll_event, fd_set, nfds_t, pollfd, sigset_t, timespec, timeval};

use super::symbol::patch;
use super::{Cut, contained, fail, fd, interrupted, sleep};
use crate::hub::Hub;
use crate::hub::caught::Handlers;
use crate::hub::park::{Mode, Parker, Wake, Why};
use crate::hub::reactor::Direction;

patch! {
    READINESS poll(fds: *mut pollfd, count: nfds_t, timeout: c_int) -> c_int => poll_green;
    READINESS ppoll(fds: *mut pollfd, count: nfds_t, timeout: *const timespec, mask: *const sigset_t) -> c_int => ppoll_green;
    READINESS __ppoll_chk(fds: *mut pollfd, count: nfds_t, timeout: *const timespec, mask: *const sigset_t, room: libc::size_t) -> c_int => ppoll_chk_green;
    READINESS select(count: c_int, read: *mut fd_set, write: *mut fd_set, except: *mut fd_set, timeout: *mut timeval) -> c_int => select_green;
    READINESS pselect(count: c_int, read: *mut fd_set, write: *mut fd_set, except: *mut fd_set, timeout: *const timespec, mask: *const sigset_t) -> c_int => pselect_green;
    READINESS epoll_wait(fd: c_int, events: *mut epoll_event, count: c_int, timeout: c_int) -> c_int => epoll_wait_green;
    READINESS epoll_pwait(fd: c_int, events: *mut epoll_event, count: c_int, timeout: c_int, mask: *const sigset_t) -> c_int => epoll_pwait_green;
    READINESS epoll_pwait2(fd: c_int, events: *mut epoll_event, count: c_int, timeout: *const timespec, mask: *const sigset_t) -> c_int => epoll_pwait2_green;
}

/// A deadline from a time-out in milliseconds, of which a negative one is for ever.
fn deadline(hub: &Hub, timeout: c_int) -> Option<u64> {
    let timeout = u64::try_from(timeout).ok()?;
    Some(hub.after(Duration::from_millis(timeout)))
}

/// Whether there is something for one descriptor now; an error is something.
pub(super) fn is_ready(fd: c_int, events: i16) -> bool {
    let mut one = pollfd { fd, events, revents: 0 };
    // SAFETY: asks about one descriptor, without waiting.
    unsafe { original::poll(&raw mut one, 1, 0) != 0 }
}

/// Whether an error waits to be told by the next call.
pub(super) fn has_error(fd: c_int) -> bool {
    let mut one = pollfd {
        fd,
        events: 0,
        revents: 0,
    };
    // SAFETY: asks about one descriptor, without waiting.
    unsafe { original::poll(&raw mut one, 1, 0) > 0 && one.revents & libc::POLLERR != 0 }
}

/// Waits, between looks, until a look finds something, the deadline has passed, or the wait is cut short.
fn looking(
    hub: &'static Hub,
    deadline: Option<u64>,
    call: &str,
    interest: BorrowedFd<'_>,
    look: impl Fn() -> c_int,
) -> c_int {
    loop {
        match fd::wait_or_signal(hub, interest, Direction::Read, deadline, call, Handlers::All) {
            Ok(Ok(())) => {}
            Ok(Err(Cut::TimedOut)) => return look(),
            // Too deep for an epoll around it.
            Err(libc::ELOOP) => return napping(hub, deadline, call, look),
            Ok(Err(Cut::Interrupted(error))) | Err(error) => return fail(error),
        }
        let found = look();
        if found != 0 {
            return found;
        }
    }
}

/// As [`looking`], where no descriptor is left to wait by: looks now and then.
fn napping(hub: &'static Hub, deadline: Option<u64>, call: &str, look: impl Fn() -> c_int) -> c_int {
    let mut nap = Duration::from_millis(1);
    loop {
        let until = hub.after(nap).min(deadline.unwrap_or(u64::MAX));
        let wake = contained(|| {
            let parker = Parker::new();
            let hears = hub.hear_signals(&parker, Handlers::All);
            let wake = parker.park(Some(until), Mode::Cancel, Why::new(&LOOK, 0));
            (wake, hub.was_cut(hears))
        });
        if wake == Some((Wake::Ready, true)) {
            return fail(libc::EINTR);
        }
        if wake.is_some_and(|(wake, _)| wake == Wake::Interrupted)
            && let Cut::Interrupted(error) = interrupted(hub, call)
        {
            return fail(error);
        }
        let found = look();
        if found != 0 || deadline.is_some_and(|deadline| hub.clock.now() >= deadline) {
            return found;
        }
        nap = (nap * 2).min(Duration::from_millis(20));
    }
}

static LOOK: &str = "a patched poll without a descriptor to wait by";

/// An epoll descriptor that is readable when one of `fds` is ready; none if no descriptor is left.
fn gather(fds: &[pollfd]) -> Result<OwnedFd, ()> {
    // SAFETY: asks for a descriptor.
    let raw = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
    if raw < 0 {
        return Err(());
    }
    // SAFETY: a fresh descriptor, ours alone.
    let all = unsafe { OwnedFd::from_raw_fd(raw) };
    // What is wanted of those that are in the list twice.
    let mut twice: HashMap<c_int, u32> = HashMap::new();
    for one in fds.iter().filter(|one| one.fd >= 0) {
        let mut event = epoll_event {
            // The first bits of both are the same.
            events: u32::from(one.events as u16),
            u64: 0,
        };
        // SAFETY: registers a number with a valid event. A file is refused: the look has found it ready.
        unsafe {
            if libc::epoll_ctl(all.as_raw_fd(), libc::EPOLL_CTL_ADD, one.fd, &raw mut event) == 0 {
                continue;
            }
            match super::errno() {
                libc::EEXIST => {}
                libc::EPERM | libc::EBADF => continue,
                // An epoll in an epoll in an epoll, or no memory.
                _ => return Err(()),
            }
            if twice.is_empty() {
                for one in fds {
                    *twice.entry(one.fd).or_default() |= u32::from(one.events as u16);
                }
            }
            event.events = twice.get(&one.fd).copied().unwrap_or(event.events);
            libc::epoll_ctl(all.as_raw_fd(), libc::EPOLL_CTL_MOD, one.fd, &raw mut event);
        }
    }
    Ok(all)
}

pub(super) unsafe fn poll_green(hub: &'static Hub, fds: *mut pollfd, count: nfds_t, timeout: c_int) -> c_int {
    if let Err(error) = fd::begin(hub, "poll", || timeout == 0) {
        return error;
    }
    // SAFETY: the caller's, as libc's; it returns at once.
    let look = || unsafe { original::poll(fds, count, 0) };
    let found = look();
    if found != 0 || timeout == 0 {
        return found;
    }
    if count == 0 {
        return rest(hub, deadline(hub, timeout));
    }
    // SAFETY: the kernel has just read as many.
    let list = unsafe { std::slice::from_raw_parts(fds, count as usize) };
    match gather(list) {
        Ok(all) => looking(hub, deadline(hub, timeout), "poll", all.as_fd(), look),
        Err(()) => napping(hub, deadline(hub, timeout), "poll", look),
    }
}

/// Nothing to wait for but time.
pub(super) fn rest(hub: &'static Hub, deadline: Option<u64>) -> c_int {
    // An epoll descriptor of nothing is never ready.
    match gather(&[]) {
        Ok(all) => looking(hub, deadline, "poll", all.as_fd(), || 0),
        Err(()) => napping(hub, deadline, "poll", || 0),
    }
}

/// Whether a mask of signals changes nothing: there is none, or it is the one of this OS thread.
///
/// # Safety
/// It is null or may be read.
pub(super) unsafe fn is_in_force(mask: *const sigset_t) -> bool {
    /// As many as the kernel knows, without those that nothing blocks: SIGKILL, SIGSTOP, and the two that glibc keeps.
    fn words(set: *const sigset_t) -> u64 {
        let unblockable = [libc::SIGKILL, libc::SIGSTOP, 32, 33];
        let bits = unblockable.iter().fold(0, |bits, signal| bits | 1_u64 << (signal - 1));
        // SAFETY: the first word of a set.
        unsafe { set.cast::<u64>().read_unaligned() & !bits }
    }
    if mask.is_null() {
        return true;
    }
    // SAFETY: asks for the present one; all-zero is a valid set.
    unsafe {
        let mut now: sigset_t = std::mem::zeroed();
        libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), &raw mut now);
        words(&raw const now) == words(mask)
    }
}

/// Waits with a mask of its own, on an OS thread in the caller's place: the mask is the OS thread's, and here others run.
pub(super) fn elsewhere(call: impl FnOnce() -> c_int) -> c_int {
    super::names::apart(call).unwrap_or_else(|| fail(libc::ENOMEM))
}

/// Looks with a mask of its own, here, where signals that are blocked so long are delivered; and waits elsewhere.
fn masked(timeout: *const timespec, call: impl Fn(*const timespec) -> c_int) -> c_int {
    let now = call(&timespec { tv_sec: 0, tv_nsec: 0 });
    if now != 0 {
        return now;
    }
    elsewhere(|| call(timeout))
}

unsafe fn ppoll_green(
    hub: &'static Hub,
    fds: *mut pollfd,
    count: nfds_t,
    timeout: *const timespec,
    mask: *const sigset_t,
) -> c_int {
    // SAFETY: the caller's, as libc's.
    unsafe {
        if !is_in_force(mask) {
            return masked(timeout, |time| original::ppoll(fds, count, time, mask));
        }
        if timeout.is_null() {
            return poll_green(hub, fds, count, -1);
        }
        match sleep::duration(timeout) {
            Some(time) => {
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
    // SAFETY: the caller's, as libc's, which ends the program if there is not room enough.
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
    // SAFETY: the caller's: null or a time.
    let time = match unsafe { timeout.as_ref() } {
        Some(time) if time.tv_sec < 0 || time.tv_usec < 0 => return fail(libc::EINVAL),
        Some(time) => {
            Some(Duration::from_secs(time.tv_sec as u64).saturating_add(Duration::from_micros(time.tv_usec as u64)))
        }
        None => None,
    };
    let begun = hub.clock.now();
    // SAFETY: the caller's, as libc's.
    let found = unsafe { select_until(hub, count, read, write, except, time) };
    if let Some(time) = time {
        let left = time.saturating_sub(Duration::from_nanos(hub.clock.now() - begun));
        // SAFETY: as above, and not null: the kernel writes what is left of the time, too.
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
    // SAFETY: the caller's, as libc's.
    unsafe {
        if !is_in_force(mask) {
            return elsewhere(|| original::pselect(count, read, write, except, timeout, mask));
        }
        if timeout.is_null() {
            return select_until(hub, count, read, write, except, None);
        }
        match sleep::duration(timeout) {
            Some(time) => select_until(hub, count, read, write, except, Some(time)),
            None => fail(libc::EINVAL),
        }
    }
}

/// How many bits the kernel looks at in a set: no more than there is room for in the table of descriptors.
fn most_descriptors(count: c_int) -> usize {
    if count <= libc::FD_SETSIZE as c_int {
        return libc::FD_SETSIZE;
    }
    let status = super::unpatched(|| std::fs::read_to_string("/proc/self/status")).unwrap_or_default();
    let size = status
        .lines()
        .find_map(|line| line.strip_prefix("FDSize:")?.trim().parse().ok());
    size.unwrap_or(libc::FD_SETSIZE)
}

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
    if let Err(error) = fd::begin(hub, "select", || time.is_some_and(|time| time.is_zero())) {
        return error;
    }
    // As many words as the kernel looks at, which may be more or fewer than a `fd_set` has.
    let words = usize::try_from(count)
        .unwrap_or(0)
        .min(most_descriptors(count))
        .div_ceil(64);
    let sets = [read, write, except].map(|set| set.cast::<u64>());
    // SAFETY: the caller's, as libc's: null, or bits for `count` descriptors.
    let before = sets.map(|set| (!set.is_null()).then(|| unsafe { std::slice::from_raw_parts(set, words) }.to_vec()));
    let look = || {
        let mut zero = timeval { tv_sec: 0, tv_usec: 0 };
        for (set, before) in sets.iter().zip(&before) {
            if let Some(before) = before {
                // SAFETY: not null, as `before` says, and as long.
                unsafe { std::slice::from_raw_parts_mut(*set, words) }.copy_from_slice(before);
            }
        }
        // SAFETY: the caller's, as libc's; it returns at once.
        unsafe { original::select(count, read, write, except, &raw mut zero) }
    };
    let found = look();
    if found != 0 || time.is_some_and(|time| time.is_zero()) {
        return found;
    }
    let deadline = time.map(|time| hub.after(time));
    let mut fds = Vec::new();
    for (set, events) in before.iter().zip([libc::POLLIN, libc::POLLOUT, libc::POLLPRI]) {
        let Some(set) = set else { continue };
        for fd in (0..count.min(words as c_int * 64)).filter(|fd| set[*fd as usize / 64] >> (fd % 64) & 1 == 1) {
            fds.push(pollfd { fd, events, revents: 0 });
        }
    }
    match gather(&fds) {
        Ok(all) => looking(hub, deadline, "select", all.as_fd(), look),
        Err(()) => napping(hub, deadline, "select", look),
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
    // SAFETY: the caller's, as libc's.
    unsafe { epoll_until(hub, fd, events, count, time) }
}

/// # Safety
/// As for `epoll_wait`.
unsafe fn epoll_until(
    hub: &'static Hub,
    fd: c_int,
    events: *mut epoll_event,
    count: c_int,
    time: Option<Duration>,
) -> c_int {
    if let Err(error) = fd::begin(hub, "epoll_wait", || time.is_some_and(|time| time.is_zero())) {
        return error;
    }
    // SAFETY: the caller's, as libc's; it returns at once.
    let look = || unsafe { original::epoll_wait(fd, events, count, 0) };
    let found = look();
    if found != 0 || time.is_some_and(|time| time.is_zero()) {
        return found;
    }
    // SAFETY: it was good a moment ago.
    let interest = unsafe { BorrowedFd::borrow_raw(fd) };
    looking(hub, time.map(|time| hub.after(time)), "epoll_wait", interest, look)
}

unsafe fn epoll_pwait2_green(
    hub: &'static Hub,
    fd: c_int,
    events: *mut epoll_event,
    count: c_int,
    timeout: *const timespec,
    mask: *const sigset_t,
) -> c_int {
    // SAFETY: the caller's, as libc's.
    unsafe {
        if !is_in_force(mask) {
            return masked(timeout, |time| original::epoll_pwait2(fd, events, count, time, mask));
        }
        if timeout.is_null() {
            return epoll_until(hub, fd, events, count, None);
        }
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
    // SAFETY: the caller's, as libc's.
    unsafe {
        if is_in_force(mask) {
            epoll_wait_green(hub, fd, events, count, timeout)
        } else {
            let now = original::epoll_pwait(fd, events, count, 0, mask);
            if now != 0 || timeout == 0 {
                return now;
            }
            elsewhere(|| original::epoll_pwait(fd, events, count, timeout, mask))
        }
    }
}
