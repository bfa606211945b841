//! Sleeps, on the hub's timers.

use std::time::Duration;

use libc::{c_int, c_uint, clockid_t, timespec, useconds_t};

use super::gate::{fail, interrupted, patch};
use crate::hub::{Handlers, Hub, Mode, Parker, Wake, Why, interrupt};

patch! {
    TIME nanosleep(time: *const timespec, left: *mut timespec) -> c_int => nanosleep_green;
    TIME clock_nanosleep(clock: clockid_t, flags: c_int, time: *const timespec, left: *mut timespec) -> c_int => clock_nanosleep_green;
    TIME usleep(time: useconds_t) -> c_int => usleep_green;
    TIME sleep(seconds: c_uint) -> c_uint => sleep_green;
    TIME thrd_sleep(time: *const timespec, left: *mut timespec) -> c_int => thrd_sleep_green;
}

static SLEEP: &str = "a patched sleep";

/// Sleeps. Returns early after a kill or a time-out, because a sleep has no other way to report them. Each interrupt
/// ends one sleep only, so that a loop which sleeps until something has happened goes on at its pace. `Err`: a signal
/// handler has run, and so much time was left.
fn pause(hub: &'static Hub, duration: Duration) -> Result<(), Duration> {
    let parker = Parker::new();
    let until = hub.deadline_in(duration);
    let hears = hub.hear_signals(parker.named(), Handlers::All);
    let sleep = || parker.park(Some(until), Mode::Cancel, Why::new(&SLEEP, 0));
    match interrupt::cut_once(hub.running(), sleep) {
        Wake::Interrupted => _ = interrupted(hub, "sleep"),
        Wake::Ready if hub.was_cut(hears) => return Err(Duration::from_nanos(until.saturating_sub(hub.clock.now()))),
        _ => {}
    }
    Ok(())
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

/// `time` as a duration; `None` if it is invalid.
pub(super) fn duration(time: &timespec) -> Option<Duration> {
    let nanos = u32::try_from(time.tv_nsec)
        .ok()
        .filter(|nanos| *nanos < 1_000_000_000)?;
    Some(Duration::new(u64::try_from(time.tv_sec).ok()?, nanos))
}

/// `time` as a moment on a clock; 0 if it lies before the clock's beginning; `None` if it is invalid.
pub(super) fn moment(time: &timespec) -> Option<Duration> {
    if time.tv_sec < 0 && (0..1_000_000_000).contains(&time.tv_nsec) {
        return Some(Duration::ZERO);
    }
    duration(time)
}

unsafe fn nanosleep_green(hub: &'static Hub, time: *const timespec, left: *mut timespec) -> c_int {
    if time.is_null() {
        // The kernel reports the error.
        // SAFETY: the caller guarantees that `left` is null or writable; the kernel checks `time`.
        return unsafe { original::nanosleep(time, left) };
    }
    // SAFETY: `time` is not null, so it is readable as the caller guarantees.
    match duration(unsafe { &*time }) {
        Some(duration) => match pause(hub, duration) {
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
    let Some(mut wait) = duration(unsafe { &*time }) else {
        return libc::EINVAL;
    };
    if flags == libc::TIMER_ABSTIME {
        wait = wait.saturating_sub(now(clock));
    }
    match pause(hub, wait) {
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

/// The time of a clock now.
pub(super) fn now(clock: clockid_t) -> Duration {
    let mut now = timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `clock_gettime` writes to a local.
    unsafe { libc::clock_gettime(clock, &raw mut now) };
    duration(&now).unwrap_or_default()
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
