//! The hub's clock: nanoseconds since it was made, real or virtual.
//!
//! A virtual clock stands still while anything runs, and jumps to the next deadline when nothing does. So a test with
//! an hour of sleeps takes no time, and always goes the same way.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::time::{Duration, Instant};

#[derive(Debug)]
pub(crate) struct Clock {
    origin: Instant,
    /// The time of a virtual clock; `None` for a real one.
    now: Option<Cell<u64>>,
}

impl Clock {
    pub(super) fn real() -> Clock {
        Clock {
            origin: Instant::now(),
            now: None,
        }
    }

    pub(super) fn virtual_() -> Clock {
        Clock {
            origin: Instant::now(),
            now: Some(Cell::new(0)),
        }
    }

    pub(super) fn is_virtual(&self) -> bool {
        self.now.is_some()
    }

    /// Nanoseconds since the hub was made. They suffice for 584 years.
    #[inline]
    pub(crate) fn now(&self) -> u64 {
        match &self.now {
            None => nanos(self.origin.elapsed()),
            Some(now) => now.get(),
        }
    }

    /// The current time as an `Instant`; the clock's origin if a virtual time is too far away for one.
    pub(crate) fn instant(&self) -> Instant {
        match &self.now {
            None => Instant::now(),
            Some(now) => self
                .origin
                .checked_add(Duration::from_nanos(now.get()))
                .unwrap_or(self.origin),
        }
    }

    /// An `Instant` as nanoseconds of this clock. A time before the hub was made is 0.
    #[inline]
    pub(crate) fn nanos(&self, at: Instant) -> u64 {
        nanos(at.saturating_duration_since(self.origin))
    }

    /// A time of this clock as an `Instant`; `None` if it is too far away for one.
    pub(crate) fn at(&self, nanos: u64) -> Option<Instant> {
        self.origin.checked_add(Duration::from_nanos(nanos))
    }

    /// Moves a virtual clock forward to `at`; `false` if the clock is real.
    pub(super) fn jump_to(&self, at: u64) -> bool {
        let Some(now) = &self.now else { return false };
        // Never back: `at` lies in the past if a timer is late.
        now.set(now.get().max(at));
        true
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
