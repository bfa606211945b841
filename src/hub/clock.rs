//! The hub's clock: nanoseconds since it was made, real or virtual.
//!
//! A virtual clock stands still while anything runs, and jumps to the next deadline when nothing does, so that a test of
//! an hour's sleeps takes no time and always goes the same way.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::time::{Duration, Instant};

#[derive(Debug)]
pub(crate) struct Clock {
    origin: Instant,
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

    /// Nanoseconds since the hub was made; 584 years of them.
    #[inline]
    pub(crate) fn now(&self) -> u64 {
        match &self.now {
            None => nanos(self.origin.elapsed()),
            Some(now) => now.get(),
        }
    }

    /// The same as std's type. What is too far for it is an hour from now, again and again.
    pub(crate) fn instant(&self) -> Instant {
        match &self.now {
            None => Instant::now(),
            Some(now) => self
                .origin
                .checked_add(Duration::from_nanos(now.get()))
                .unwrap_or(self.origin),
        }
    }

    /// A point of std's time as nanoseconds of this clock; what lies before the hub is 0.
    #[inline]
    pub(crate) fn nanos(&self, at: Instant) -> u64 {
        nanos(at.saturating_duration_since(self.origin))
    }

    /// The same as std's type; none: too far for it.
    pub(crate) fn at(&self, nanos: u64) -> Option<Instant> {
        self.origin.checked_add(Duration::from_nanos(nanos))
    }

    /// A virtual clock goes to `at`, if that lies ahead.
    pub(super) fn jump_to(&self, at: u64) -> bool {
        let Some(now) = &self.now else { return false };
        now.set(now.get().max(at));
        true
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
