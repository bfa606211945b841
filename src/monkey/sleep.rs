//! Sleeps, on the hub's timers.

use std::time::Duration;

use libc::{c_int, c_uint, clockid_t, timespec, useconds_t};

use super::symbol::patch;
use super::{fail, interrupted};
use crate::hub::caught::Handlers;
use crate::hub::park::{Mode, Parker, Wake, Why};
use crate::hub::{Hub, interrupt};

patch! {
    TIME nanosleep(time: *const timespec, left: *mut timespec) -> c_int => nanosleep_green;
    TIME clock_nanosleep(clock: clockid_t, flags: c_int, time: *const timespec, left: *mut timespec) -> c_int => clock_nanosleep_green;
    TIME usleep(time: useconds_t) -> c_int => usleep_green;
    TIME sleep(seconds: c_uint) -> c_uint => sleep_green;
}

static SLEEP: &str = "a patched sleep";

/// Sleeps; early after a kill or a time-out, which a caller of sleep cannot be told otherwise. Once for each: a loop that
/// sleeps until something has happened then goes on at its pace. Early too when a signal handler has run: then it says how
/// much was left.
fn pause(hub: &'static Hub, duration: Duration) -> Result<(), Duration> {
    let parker = Parker::new();
    let until = hub.after(duration);
    let hears = hub.hear_signals(&parker, Handlers::All);
    let sleep = || parker.park(Some(until), Mode::Cancel, Why::new(&SLEEP, 0));
    match interrupt::cut_once(hub.running(), sleep) {
        Wake::Interrupted => drop(interrupted(hub, "sleep")),
        Wake::Ready if hub.was_cut(hears) => return Err(Duration::from_nanos(until.saturating_sub(hub.clock.now()))),
        _ => {}
    }
    Ok(())
}

/// Says how much is left of a time, where the caller has a place for it.
///
/// # Safety
/// `left` is null or may be written.
unsafe fn tell(left: *mut timespec, time: Duration) {
    // SAFETY: the caller's.
    if let Some(left) = unsafe { left.as_mut() } {
        left.tv_sec = time.as_secs() as libc::time_t;
        left.tv_nsec = time.subsec_nanos().into();
    }
}

/// What `time` says; `None` if it makes no sense.
///
/// # Safety
/// `time` may be read.
pub(super) unsafe fn duration(time: *const timespec) -> Option<Duration> {
    // SAFETY: the caller's.
    let time = unsafe { *time };
    let nanos = u32::try_from(time.tv_nsec)
        .ok()
        .filter(|nanos| *nanos < 1_000_000_000)?;
    Some(Duration::new(u64::try_from(time.tv_sec).ok()?, nanos))
}

/// The moment that `time` says: of one before the clock began, its beginning; `None` if it makes no sense.
///
/// # Safety
/// `time` may be read.
pub(super) unsafe fn moment(time: *const timespec) -> Option<Duration> {
    // SAFETY: the caller's.
    unsafe {
        if (*time).tv_sec < 0 && (0..1_000_000_000).contains(&(*time).tv_nsec) {
            return Some(Duration::ZERO);
        }
        duration(time)
    }
}

unsafe fn nanosleep_green(hub: &'static Hub, time: *const timespec, left: *mut timespec) -> c_int {
    if time.is_null() {
        // SAFETY: the kernel says what it thinks of it.
        return unsafe { original::nanosleep(time, left) };
    }
    // SAFETY: the caller's, as libc's: not null.
    match unsafe { duration(time) } {
        Some(duration) => match pause(hub, duration) {
            Ok(()) => 0,
            Err(time) => {
                // SAFETY: the caller's, as libc's.
                unsafe { tell(left, time) };
                fail(libc::EINTR)
            }
        },
        None => fail(libc::EINVAL),
    }
}

pub(super) unsafe fn clock_nanosleep_green(
    hub: &'static Hub,
    clock: clockid_t,
    flags: c_int,
    time: *const timespec,
    left: *mut timespec,
) -> c_int {
    let known =
        matches!(clock, libc::CLOCK_REALTIME | libc::CLOCK_MONOTONIC) && matches!(flags, 0 | libc::TIMER_ABSTIME);
    if time.is_null() || !known {
        // SAFETY: the kernel says what it thinks of it.
        return unsafe { original::clock_nanosleep(clock, flags, time, left) };
    }
    // SAFETY: the caller's, as libc's: not null.
    let Some(mut wait) = (unsafe { duration(time) }) else {
        return libc::EINVAL;
    };
    if flags == libc::TIMER_ABSTIME {
        wait = wait.saturating_sub(now(clock));
    }
    match pause(hub, wait) {
        Ok(()) => 0,
        Err(time) => {
            if flags != libc::TIMER_ABSTIME {
                // SAFETY: the caller's, as libc's.
                unsafe { tell(left, time) };
            }
            libc::EINTR
        }
    }
}

/// What a clock says now.
pub(super) fn now(clock: clockid_t) -> Duration {
    let mut now = timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes a time; the clock is one that there is.
    unsafe { libc::clock_gettime(clock, &raw mut now) };
    // SAFETY: a time of our own.
    unsafe { duration(&raw const now) }.unwrap_or_default()
}

unsafe fn usleep_green(hub: &'static Hub, time: useconds_t) -> c_int {
    match pause(hub, Duration::from_micros(u64::from(time))) {
        Ok(()) => 0,
        Err(_) => fail(libc::EINTR),
    }
}

unsafe fn sleep_green(hub: &'static Hub, seconds: c_uint) -> c_uint {
    match pause(hub, Duration::from_secs(u64::from(seconds))) {
        Ok(()) => 0,
        // What is left, in whole seconds.
        Err(time) => time.as_secs() as c_uint,
    }
}
