//! The pace of a turn: how many resumes it makes, and when it reads the clock.
//!
//! # Invariant
//! - **PACE-1** A turn resumes at most [`RESUMES`] tasks from each queue, and fewer if [`SLICE`] has passed. The
//!   clock is read after a *stride* of resumes, which is 1 after a long one and doubles while they are short. It is not
//!   read while there is no timer, no descriptor and no message. The first timer or descriptor ends the current stride.
//!
//! With a virtual clock only resumes are counted, so that the order does not depend on the machine.
#![forbid(unsafe_code)]

use std::cell::Cell;

use super::clock::Clock;

/// How long green threads run before timers and descriptors are looked at again, in nanoseconds.
const SLICE: u64 = 1_000_000;

/// Resumes from one queue, before the turn goes on to the other one, and then to timers and descriptors.
const RESUMES: u32 = 128;

/// The longest stride, in resumes.
const STRIDE: u32 = 32;

/// What the callbacks of a turn may take of it, and what its messages may: half a slice each. With a virtual clock
/// there is no limit, so that the order does not depend on the machine.
#[derive(Default)]
pub(super) struct Share {
    began: Option<u64>,
}

impl Share {
    /// Whether the share is used up before step `n`. The clock is read after the first step, which is often the only
    /// one, and then less and less often, down to once in a [`STRIDE`].
    pub(super) fn is_over(&mut self, clock: &Clock, n: usize) -> bool {
        let looks = n.is_power_of_two() || n > 0 && n.is_multiple_of(STRIDE as usize);
        if !looks || clock.is_virtual() {
            return false;
        }
        let now = clock.now();
        now - *self.began.get_or_insert(now) >= SLICE / 2
    }
}

pub(super) struct Pace {
    /// When the turn last looked at timers and descriptors, by the hub's clock; `None` if that is not known.
    looked: Cell<Option<u64>>,
    /// The number of resumes between two looks at the clock; how many are left until the next look, and how many of the
    /// batch after that.
    stride: Cell<u32>,
    in_stride: Cell<u32>,
    in_batch: Cell<u32>,
    /// How many turns in a row ended because the native task came up.
    natives: Cell<u32>,
}

impl Pace {
    pub(super) fn new() -> Pace {
        Pace {
            looked: Cell::new(None),
            stride: Cell::new(1),
            in_stride: Cell::new(0),
            in_batch: Cell::new(0),
            natives: Cell::new(0),
        }
    }

    /// Begins the batch of a queue.
    #[inline]
    pub(super) fn begin_batch(&self) {
        let stride = self.stride.get();
        self.in_stride.set(stride);
        self.in_batch.set(RESUMES - stride);
    }

    /// Takes one resume from the stride; `false` if the stride is over.
    #[inline(always)]
    pub(super) fn takes_resume(&self) -> bool {
        let (left, is_over) = self.in_stride.get().overflowing_sub(1);
        if !is_over {
            self.in_stride.set(left);
        }
        !is_over
    }

    /// The stride is over: begins the next one and takes a resume from it, unless the batch is over or the turn is
    /// late. With `None` for the clock nothing can be late.
    pub(super) fn begins_stride(&self, clock: Option<&Clock>) -> bool {
        let Some(clock) = clock else {
            // No look at the clock, and the longest stride.
            self.stride.set(STRIDE);
            return self.takes_stride(STRIDE);
        };
        // The clock is read here, once in a stride. `is_late` also sets the length of the next one.
        self.in_batch.get() > 0 && !self.is_late(clock) && self.takes_stride(self.stride.get())
    }

    /// Takes a stride, or what is left of it, from the batch, and one resume from the stride; `false` if nothing was
    /// left.
    #[inline(always)]
    fn takes_stride(&self, stride: u32) -> bool {
        let left = self.in_batch.get();
        self.in_batch.set(left.saturating_sub(stride));
        self.in_stride.set(stride.min(left).saturating_sub(1));
        left > 0
    }

    /// From now on something may be late. The current stride may be long, so it ends here.
    #[inline]
    pub(super) fn watch_clock(&self) {
        self.stride.set(1);
        self.in_stride.set(0);
    }

    /// Notes that timers and descriptors are looked at now. `None`: the clock was not read, and the slice begins at the
    /// next look at it.
    pub(super) fn looks(&self, now: Option<u64>) {
        self.looked.set(now);
    }

    /// After a sleep: the kernel was asked just now, but the clock was not read.
    pub(super) fn begin_after_sleep(&self) {
        self.looks(None);
        self.stride.set(1);
    }

    /// Whether the last look at timers and descriptors was a slice ago. If its time is not known, the slice begins when
    /// this is first called. Also sets the stride.
    #[inline(never)]
    pub(super) fn is_late(&self, clock: &Clock) -> bool {
        let now = clock.now();
        let Some(looked) = self.looked.get() else {
            // After a sleep the time of the look is not known: begin the slice now.
            self.looked.set(Some(now));
            return false;
        };
        let passed = now.saturating_sub(looked);
        if passed >= SLICE {
            // The last resumes were long: read the clock after each one until they are short again.
            self.watch_clock();
        } else if passed < SLICE / 8 {
            self.stride.set((self.stride.get() * 2).min(STRIDE));
        }
        passed >= SLICE
    }

    /// The native task came up, and the turn ended early. Gives whether timers and descriptors must be looked at in any
    /// case, and whether they are to be looked at if something is late: the clock is read as rarely as between resumes.
    pub(super) fn native_came_up(&self) -> (bool, bool) {
        const TURNS: u32 = 16;
        let natives = self.natives.get() + 1;
        self.natives.set(natives);
        (natives >= TURNS, natives >= self.stride.get().min(TURNS))
    }

    /// Timers and descriptors are being looked at.
    pub(super) fn forget_natives(&self) {
        self.natives.set(0);
    }
}
