//! The pool of one OS thread: slabs of slots, and the free ones among them.
//!
//! A stack is taken warm if there is one (the last freed first), else cold, else carved from the newest slab, else from a
//! new slab. A freed one goes warm; when more are warm than the limit allows, the oldest go cold, in batches of
//! neighbours. See S1–S3 in [`stack`](super).

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;

use corosensei::stack::valgrind::ValgrindStackRegistration;

use super::{DEFAULT_SIZE, GUARD_SIZE, Stats, cache_limit, end, overflow, stride};
use crate::sys::{mem, signal};

/// What a freed stack keeps when it is tidied.
pub(super) const KEPT: usize = 16 * 1024;

/// Stacks begin a few cache lines apart within their top page, or their hot lines would share one set of the cache.
const COLOURS: usize = 16;
const LINE: usize = 64;

/// How many go cold at once.
const BATCH: usize = 64;

/// One mapping.
struct Slab {
    at: usize,
    slots: usize,
    /// How many, from the low end, have been used at all.
    carved: usize,
    report: overflow::Entry,
}

/// All of one size.
struct Class {
    size: usize,
    slabs: Vec<Slab>,
    warm: VecDeque<usize>,
    cold: Vec<usize>,
    /// How many at the back of `warm` have not been looked at.
    unchecked: usize,
    in_use: usize,
}

#[derive(Default)]
struct Pool {
    classes: Vec<Class>,
    unchecked: usize,
}

thread_local! {
    static POOL: RefCell<Pool> = const { RefCell::new(Pool { classes: Vec::new(), unchecked: 0 }) };
}

impl Pool {
    fn class(&mut self, size: usize) -> &mut Class {
        let at = self
            .classes
            .iter()
            .position(|class| class.size == size)
            .unwrap_or_else(|| {
                self.classes.push(Class {
                    size,
                    slabs: Vec::new(),
                    warm: VecDeque::new(),
                    cold: Vec::new(),
                    unchecked: 0,
                    in_use: 0,
                });
                self.classes.len() - 1
            });
        &mut self.classes[at]
    }
}

impl Class {
    fn take(&mut self) -> io::Result<usize> {
        let base = match self.warm.pop_back().or_else(|| self.cold.pop()) {
            Some(base) => base,
            None => self.carve()?,
        };
        self.unchecked = self.unchecked.min(self.warm.len());
        self.in_use += 1;
        Ok(base)
    }

    /// A slot that was never used.
    #[cold]
    fn carve(&mut self) -> io::Result<usize> {
        if self.slabs.last().is_none_or(|slab| slab.carved == slab.slots) {
            self.grow()?;
        }
        let size = self.size;
        let Some(slab) = self.slabs.last_mut() else {
            return Err(io::ErrorKind::OutOfMemory.into());
        };
        let at = slab.at + slab.carved * stride(size);
        let colour = slab.carved % COLOURS * LINE;
        // SAFETY: S2: the low end of a slot of our own slab that nobody has used.
        unsafe { mem::guard(at, GUARD_SIZE)? };
        slab.carved += 1;
        if mem::under_valgrind() {
            // Valgrind is to know it as long as the program runs: slots are reused.
            std::mem::forget(ValgrindStackRegistration::new(
                (at + GUARD_SIZE) as *mut u8,
                stride(size) - GUARD_SIZE,
            ));
        }
        Ok(at + stride(size) - colour)
    }

    /// A new slab: four times the last, up to 1024 slots or 256 MiB.
    fn grow(&mut self) -> io::Result<()> {
        overflow::install();
        signal::ensure_alt_stack();
        let most = (1024 * DEFAULT_SIZE / self.size).clamp(1, 1024);
        let slots = self.slabs.last().map_or(16, |slab| slab.slots * 4).min(most);
        let at = mem::map(slots * stride(self.size))?;
        let report = overflow::add(at, slots * stride(self.size), stride(self.size));
        self.slabs.push(Slab {
            at,
            slots,
            carved: 0,
            report,
        });
        Ok(())
    }

    fn give(&mut self, base: usize) {
        self.in_use -= 1;
        self.warm.push_back(base);
        self.unchecked += 1;
        if self.warm.len() * mem::page() >= cache_limit() + BATCH * mem::page() {
            self.cool(BATCH);
        }
    }

    /// The oldest `count` warm ones go cold; neighbours in one call.
    #[cold]
    fn cool(&mut self, count: usize) {
        let mut going: Vec<usize> = self.warm.drain(..count.min(self.warm.len())).collect();
        self.unchecked = self.unchecked.min(self.warm.len());
        going.sort_unstable();
        for run in going.chunk_by(|a, b| end(*b) - end(*a) == stride(self.size)) {
            let (low, high) = (end(run[0]) - stride(self.size), end(run[run.len() - 1]));
            // SAFETY: whole free slots of our own; guards survive it.
            unsafe { mem::discard(low + GUARD_SIZE, high - low - GUARD_SIZE) };
        }
        self.cold.extend(going);
    }

    /// Gives back what deep calls touched of the last freed ones; says how many it looked at.
    fn tidy(&mut self, budget: usize) -> usize {
        let count = self.unchecked.min(budget);
        let first = self.warm.len() - self.unchecked;
        for base in self.warm.range(first..first + count) {
            let low = end(*base) - stride(self.size) + GUARD_SIZE;
            let deep = end(*base) - KEPT;
            if mem::untouched(low, deep - low) < deep - low {
                // SAFETY: the low part of a free stack of our own.
                unsafe { mem::discard(low, deep - low) };
            }
        }
        self.unchecked -= count;
        count
    }

    fn trim(&mut self) -> usize {
        self.cool(self.warm.len());
        let bytes = self.cold.len() * self.size;
        let size = self.size;
        let cold = &mut self.cold;
        cold.sort_unstable();
        self.slabs.retain(|slab| {
            let (low, high) = (slab.at, slab.at + slab.slots * stride(size));
            let from = cold.partition_point(|base| *base <= low);
            let to = cold.partition_point(|base| *base <= high);
            if to - from < slab.carved {
                return true;
            }
            cold.drain(from..to);
            slab.free(size);
            false
        });
        bytes
    }
}

impl Slab {
    /// Unmaps it; all its slots are free (S1).
    fn free(&self, size: usize) {
        self.report.remove();
        // SAFETY: S1.
        unsafe { mem::unmap(self.at, self.slots * stride(size)) };
    }
}

impl Drop for Pool {
    /// The OS thread ends: what is free is unmapped, slabs with a leaked stack stay.
    fn drop(&mut self) {
        let warmest = super::WARMEST.replace(0);
        if warmest != 0 {
            self.class(DEFAULT_SIZE).give(warmest);
        }
        for class in &mut self.classes {
            class.trim();
        }
    }
}

/// The base of a free slot of `size` bytes.
#[cold]
#[inline(never)]
pub(super) fn take(size: usize) -> io::Result<usize> {
    let taken = POOL.try_with(|pool| pool.borrow_mut().class(size).take());
    taken.unwrap_or_else(|_| Err(io::Error::other("no stacks any more: this OS thread is ending")))
}

/// Takes a stack back.
#[inline(never)]
pub(super) fn give(base: usize, size: usize) {
    // Without a pool (the OS thread is ending) the slab has outlived it, with this stack in use: leaked, but emptied.
    let given = POOL.try_with(|pool| {
        let mut pool = pool.borrow_mut();
        pool.class(size).give(base);
        pool.unchecked += 1;
    });
    if given.is_err() {
        // SAFETY: a stack that nobody runs on any more.
        unsafe { mem::discard(end(base) - stride(size) + GUARD_SIZE, stride(size) - GUARD_SIZE) };
    }
}

pub(super) fn tidy(budget: usize) {
    let _ = POOL.try_with(|pool| {
        let mut pool = pool.borrow_mut();
        if pool.unchecked == 0 {
            return;
        }
        let looked: usize = pool.classes.iter_mut().map(|class| class.tidy(budget)).sum();
        pool.unchecked = if looked == 0 {
            0
        } else {
            pool.classes.iter().map(|class| class.unchecked).sum()
        };
    });
}

pub(super) fn trim() -> usize {
    POOL.try_with(|pool| pool.borrow_mut().classes.iter_mut().map(Class::trim).sum())
        .unwrap_or(0)
}

pub(super) fn stats() -> Stats {
    let count = |pool: &RefCell<Pool>| {
        pool.borrow().classes.iter().fold(Stats::default(), |sum, class| Stats {
            mapped: sum.mapped
                + class
                    .slabs
                    .iter()
                    .map(|slab| slab.slots * stride(class.size))
                    .sum::<usize>(),
            slots: sum.slots + class.slabs.iter().map(|slab| slab.carved).sum::<usize>(),
            in_use: sum.in_use + class.in_use,
            warm: sum.warm + class.warm.len(),
            cold: sum.cold + class.cold.len(),
        })
    };
    POOL.try_with(count).unwrap_or_default()
}
