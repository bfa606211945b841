//! Sleeps, on the hub's timers; and C's times.
#![forbid(unsafe_code)]

use std::time::Duration;

use libc::{clockid_t, timespec};
use rustix::time::{ClockId, clock_gettime};

use super::gate::interrupted;
use crate::hub::{Handlers, Hub, Mode, Parker, Wake, Why, interrupt};

static SLEEP: &str = "a patched sleep";

/// Sleeps. Returns early after a kill or a time-out, because a sleep has no other way to report them. Each interrupt
/// ends one sleep only, so that a loop which sleeps until something has happened goes on at its pace. `Err`: a signal
/// handler has run, and so much time was left.
pub(super) fn pause(hub: &'static Hub, duration: Duration) -> Result<(), Duration> {
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

/// The time of the real-time clock, or else of the monotonic one.
pub(super) fn now(clock: clockid_t) -> Duration {
    let clock = match clock {
        libc::CLOCK_REALTIME => ClockId::Realtime,
        _ => ClockId::Monotonic,
    };
    Duration::try_from(clock_gettime(clock)).unwrap_or_default()
}
