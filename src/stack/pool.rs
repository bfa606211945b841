//! The pool of one OS thread: slabs of slots, and the free slots among them.
//!
//! A stack is taken from the first of these that has one: the warm ones (the last freed first), the cold ones, the part
//! of the newest slab that is not carved yet, a new slab. Several slots are carved at a time. A freed stack goes warm.
//! If more are warm than the limit allows, the oldest go cold as soon as there is time, in batches of neighbours. So do
//! those that were not needed for a whole period; the hub decides how long a period is. After that, slabs that are
//! entirely free are unmapped. See STACK-1 to STACK-4 in [`stack`](super).
//!
//! ```text
//!  slab   ┌──────┬──────┬──────┬──────┬──────────────────────────────┐
//!         │ slot │ slot │ slot │ slot │ not carved: no guard yet     │
//!         └──────┴──────┴──────┴──────┴──────────────────────────────┘
//!  warm   oldest ◄─ spilled ── [ looked at │ unchecked ] ── taken, given ─► newest
//!  cold   memory given back; guards and page tables stay
//! ```
//!
//! # Invariants
//! - **POOL-1** Each carved slot is in use, or is once in `warm` or `cold` of its class, or is a warmest one of its OS
//!   thread (which counts as in use).
//! - **POOL-2** The last `unchecked` entries of `warm` are those that were freed since [`tidy`] looked. The pool's
//!   count is never below the sum of the classes' counts.
//! - **POOL-3** Only the last slab of a class has slots that are not carved.
//! - **POOL-4** `low` is the least length of `warm` since the period began: that many stacks were not needed in it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;

use corosensei::stack::valgrind::ValgrindStackRegistration;

use super::guarded::with;
use super::size::{PAGE, end, stride};
use super::{GUARD_SIZE, Stats, cache_limit, overflow, size};
use crate::sys::mem::{self, Mapping};
use crate::sys::signal;

/// How many bytes a freed stack keeps when it is tidied.
pub(super) const KEPT: usize = 16 * 1024;

/// Stacks begin a few cache lines apart within their top page. Otherwise their hot lines would share one set of the
/// cache.
const COLOURS: usize = 16;
const LINE: usize = 64;

/// How far below the high end of its slot the stack of the slot `index` begins: less than [`PAGE`].
fn colour(index: usize) -> usize {
    index % (PAGE / mem::page()).max(1) * mem::page() + index % COLOURS * LINE
}

/// The high end of the topmost page of the stack that begins at `base`.
fn top(base: usize) -> usize {
    base.next_multiple_of(mem::page())
}

/// How many stacks go cold at once.
const BATCH: usize = 64;

/// How many times the limit may be warm while there is no time to tidy. Giving memory back in the middle of a burst,
/// and taking it again in the next, costs more than everything else that a green thread does.
const BUSY: usize = 4;

/// How many slabs are unmapped in one call, while there is time.
const SLABS: usize = 16;

/// The most that a slab takes: bytes of address space, and slots.
const SLAB: usize = 256 << 20;
const SLOTS: usize = 1024;

/// One mapping, which is divided into slots.
struct Slab {
    pages: Mapping,
    slots: usize,
    /// How many slots, from the low end, are carved: guarded, and ready for use.
    carved: usize,
    report: overflow::Entry,
}

/// All slots of one size.
struct Class {
    size: usize,
    /// How many bytes of page tables a slot costs, from the moment that it is guarded.
    tables: usize,
    slabs: Vec<Slab>,
    warm: VecDeque<usize>,
    cold: Vec<usize>,
    /// How many entries at the back of `warm` have not been looked at (POOL-2).
    unchecked: usize,
    in_use: usize,
    /// See POOL-4. `surplus`: how many of the oldest are still to go cold since the last period.
    low: usize,
    surplus: usize,
    /// The length of `warm` at which the limit is checked again.
    look_at: usize,
    /// Whether stacks went cold since the slabs were last looked at.
    may_unmap: bool,
}

/// The slabs of one OS thread.
pub(super) struct Pool {
    classes: Vec<Class>,
    unchecked: usize,
    /// Whether a class has surplus, or a slab that may be free.
    has_surplus: bool,
}

/// Whether the pool is being changed at this moment.
#[cfg(feature = "monkey")]
pub(crate) fn is_borrowed() -> bool {
    with(|pool| pool.try_borrow_mut().is_err()).unwrap_or(false)
}

impl Pool {
    pub(super) const NEW: Pool = Pool {
        classes: Vec::new(),
        unchecked: 0,
        has_surplus: false,
    };

    fn class(&mut self, size: usize) -> &mut Class {
        let at = self
            .classes
            .iter()
            .position(|class| class.size == size)
            .unwrap_or_else(|| {
                self.classes.push(Class::new(size));
                self.classes.len() - 1
            });
        &mut self.classes[at]
    }

    fn trim(&mut self) -> usize {
        self.classes.iter_mut().map(Class::trim).sum()
    }
}

/// How many bytes of page tables a slot costs: 8 for each of its pages, in tables of one page each. The tables of the
/// part between guard and base need not exist, so it is at most two.
fn tables(slot: usize) -> usize {
    (stride(slot) / mem::page() * 8).min(2 * mem::page())
}

impl Class {
    fn new(size: usize) -> Class {
        Class {
            size,
            tables: tables(size),
            slabs: Vec::new(),
            warm: VecDeque::new(),
            cold: Vec::new(),
            unchecked: 0,
            in_use: 0,
            low: 0,
            surplus: 0,
            look_at: BATCH,
            may_unmap: false,
        }
    }

    #[inline]
    fn take_warm(&mut self) -> Option<usize> {
        let base = self.warm.pop_back()?;
        self.unchecked = self.unchecked.saturating_sub(1);
        self.low = self.low.min(self.warm.len());
        self.in_use += 1;
        Some(base)
    }

    fn take(&mut self) -> io::Result<usize> {
        if let Some(base) = self.take_warm() {
            return Ok(base);
        }
        self.low = 0;
        let base = self.cold.pop().map_or_else(|| self.carve(), Ok)?;
        self.in_use += 1;
        Ok(base)
    }

    /// Carves a slot that was never used, along with as many more as there were before. One call for each guard, and
    /// one fault for each first touch, would cost more than all other steps of making a stack.
    fn carve(&mut self) -> io::Result<usize> {
        if self.slabs.last().is_none_or(|slab| slab.carved == slab.slots) {
            self.grow()?;
        }
        let stride = stride(self.size);
        let Some(slab) = self.slabs.last_mut() else {
            return Err(io::ErrorKind::OutOfMemory.into());
        };
        let mut count = slab.carved.clamp(1, mem::RANGES).min(slab.slots - slab.carved);
        let (at, from) = (slab.pages.at(), slab.carved);
        let slot = move |slot| at + slot * stride;
        // SAFETY: POOL-1: slots from `carved` on were never given out, so nothing uses them. Slots begin at whole
        // pages.
        while let Err(error) = unsafe { slab.pages.guard((from..from + count).map(|i| (slot(i), GUARD_SIZE))) } {
            // The kernel may lack memory for all these guards, and still have enough for one.
            if count == 1 {
                return Err(error);
            }
            count = 1;
        }
        let base = |i: usize| slot(i + 1) - colour(i);
        let page = mem::page();
        slab.pages
            .populate((from..from + count).map(|i| (top(base(i)) - page, page)));
        slab.carved += count;
        if mem::under_valgrind() {
            // Valgrind must know the stacks as long as the program runs, because slots are reused.
            for at in (from..from + count).map(slot) {
                let high = stride - GUARD_SIZE;
                std::mem::forget(ValgrindStackRegistration::new((at + GUARD_SIZE) as *mut u8, high));
            }
        }
        self.warm.extend((from + 1..from + count).rev().map(base));
        Ok(base(from))
    }

    /// Maps a new slab: four times the slots of the last one, up to [`SLOTS`] or [`SLAB`], and fewer where address
    /// space is short.
    fn grow(&mut self) -> io::Result<()> {
        overflow::install();
        signal::ensure_alt_stack();
        let most = (SLAB / self.size).clamp(1, SLOTS);
        let mut slots = self.slabs.last().map_or(16, |slab| slab.slots * 4).min(most);
        let pages = loop {
            match Mapping::new(slots * stride(self.size)) {
                Ok(pages) => break pages,
                Err(error) if slots == 1 => return Err(error),
                Err(_) => slots = slots.div_ceil(4),
            }
        };
        let report = overflow::add(pages.at(), slots * stride(self.size), stride(self.size));
        self.slabs.push(Slab {
            pages,
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
        if self.warm.len() >= self.look_at {
            self.look();
        }
    }

    /// Checks now and then whether more stacks are warm than a burst may leave.
    #[cold]
    fn look(&mut self) {
        let most = self.room().saturating_mul(BUSY).saturating_add(BATCH);
        if self.warm.len() >= most {
            self.cool(BATCH);
        }
        self.look_at = most.min(self.warm.len() + BATCH).max(BATCH);
    }

    /// How many stacks may be warm, within what the cold ones leave of the limit.
    fn room(&self) -> usize {
        let left = cache_limit().saturating_sub(self.cold.len() * self.tables);
        left / (mem::page() + self.tables)
    }

    /// How many of the oldest must go cold, because more are warm than the limit allows or than were needed.
    fn excess(&self) -> usize {
        self.warm.len().saturating_sub(self.room()).max(self.surplus)
    }

    /// Makes the oldest `count` warm stacks cold, with one system call for each run of neighbours.
    #[cold]
    fn cool(&mut self, count: usize) {
        let mut going: Vec<usize> = self.warm.drain(..count.min(self.warm.len())).collect();
        self.unchecked = self.unchecked.min(self.warm.len());
        self.low = self.low.min(self.warm.len());
        self.surplus = self.surplus.saturating_sub(going.len());
        self.look_at = self.look_at.min(self.warm.len() + BATCH);
        self.may_unmap = true;
        going.sort_unstable();
        for run in going.chunk_by(|a, b| end(*b) - end(*a) == stride(self.size)) {
            let (low, high) = (end(run[0]) - stride(self.size), end(run[run.len() - 1]));
            // Neighbours may be of two slabs.
            for slab in &mut self.slabs {
                let part = (low.max(slab.pages.at()), high.min(slab.pages.end()));
                if part.0 < part.1 {
                    // SAFETY: POOL-1: they were in `warm`, so these are whole free slots, and nothing between their
                    // guards is needed.
                    unsafe { slab.pages.discard_slots(part, stride(self.size), GUARD_SIZE) };
                }
            }
        }
        self.cold.extend(going);
    }

    /// Makes excess stacks cold. If there are none, it gives back what deep calls touched of the stacks that were freed
    /// last. Returns how many stacks it dealt with.
    ///
    /// It does not look first whether there is anything to give back: giving back nothing costs 0.6 µs, and looking
    /// 1.2.
    fn tidy(&mut self, budget: usize) -> usize {
        self.surplus = self.surplus.min(self.warm.len());
        let excess = self.excess().min(budget);
        if excess > 0 {
            self.cool(excess);
            return excess;
        }
        let count = self.unchecked.min(budget);
        let first = self.warm.len() - self.unchecked;
        for base in self.warm.range(first..first + count) {
            let low = end(*base) - stride(self.size) + GUARD_SIZE;
            let deep = top(*base) - KEPT.max(mem::page());
            if let Some(slab) = self.slabs.iter_mut().find(|slab| slab.holds(low)) {
                // SAFETY: POOL-1: the low part, above the guard, of a stack in `warm`, which is free.
                unsafe { slab.pages.discard(low, deep - low) };
            }
        }
        self.unchecked -= count;
        count
    }

    /// Ends a period: stacks that were not needed in it are surplus.
    fn end_period(&mut self) {
        self.surplus = self.low;
        self.low = self.warm.len();
    }

    /// Unmaps up to `most` slabs of which all slots are cold.
    fn unmap(&mut self, most: usize) {
        let cold = &mut self.cold;
        cold.sort_unstable();
        let mut left = most;
        let free = self.slabs.extract_if(.., |slab| {
            let from = cold.partition_point(|base| *base <= slab.pages.at());
            let to = cold.partition_point(|base| *base <= slab.pages.end());
            if to - from < slab.carved || left == 0 {
                return false;
            }
            left -= 1;
            cold.drain(from..to);
            true
        });
        // SAFETY: POOL-1: as many of its slots were cold, so free, as were ever carved; they have left the list.
        free.for_each(|slab| unsafe { slab.unmap() });
        // The lists of a hundred thousand stacks take a megabyte each.
        self.cold.shrink_to(self.cold.len() * 2);
        self.warm.shrink_to((self.warm.len() * 2).max(BATCH));
        self.may_unmap = left == 0;
    }

    fn trim(&mut self) -> usize {
        self.cool(self.warm.len());
        let bytes = self.cold.len() * self.size;
        self.unmap(usize::MAX);
        bytes
    }
}

impl Slab {
    fn holds(&self, address: usize) -> bool {
        (self.pages.at()..self.pages.end()).contains(&address)
    }

    /// Unmaps the slab.
    ///
    /// # Safety
    /// All its slots are free (STACK-1), and are in no list of the pool any more.
    unsafe fn unmap(self) {
        self.report.remove();
        // SAFETY: the caller guarantees that no slot is used.
        unsafe { self.pages.unmap() };
    }
}

impl Drop for Pool {
    /// The OS thread ends: free slabs are unmapped, slabs with a leaked stack stay.
    fn drop(&mut self) {
        for (base, slot) in super::guarded::take_warmest() {
            self.class(slot).give(base);
        }
        self.trim();
    }
}

/// The base of a warm slot that has exactly `size` usable bytes; 0 if there is none.
#[inline(never)]
pub(super) fn take_warm(size: usize) -> usize {
    let slot = size.wrapping_add(GUARD_SIZE);
    let taken = with(|pool| {
        let mut pool = pool.borrow_mut();
        let class = pool.classes.iter_mut().find(|class| class.size == slot)?;
        class.take_warm()
    });
    taken.flatten().unwrap_or(0)
}

/// The base of a free slot that has at least `size` usable bytes, and the size of the slot.
#[cold]
#[inline(never)]
pub(super) fn take(size: usize) -> io::Result<(usize, usize)> {
    let slot = size::slot(size)?;
    let take = || with(|pool| pool.borrow_mut().class(slot).take());
    let taken = take().map(|taken| {
        taken.or_else(|error| {
            // Other sizes may keep what is missing. So may a warmest stack: its slab cannot be unmapped.
            super::flush();
            trim();
            take().unwrap_or(Err(error)).map_err(mem::explained)
        })
    });
    let base = taken.unwrap_or_else(|| {
        Err(io::Error::other(
            "this OS thread is ending, and can make no more stacks for green threads",
        ))
    })?;
    Ok((base, slot))
}

/// Takes a stack back. `None` if the OS thread is ending, and has no pool any more.
#[inline(never)]
pub(super) fn give(base: usize, size: usize) -> Option<()> {
    with(|pool| {
        let mut pool = pool.borrow_mut();
        pool.class(size).give(base);
        pool.unchecked += 1;
    })
}

pub(super) fn tidy(budget: usize) -> bool {
    let tidied = with(|pool| {
        let mut pool = pool.borrow_mut();
        if pool.unchecked == 0 && !pool.has_surplus {
            return false;
        }
        let mut left = budget;
        pool.unchecked = 0;
        pool.has_surplus = false;
        let Pool {
            classes,
            unchecked,
            has_surplus,
        } = &mut *pool;
        for class in classes {
            let done = class.tidy(left);
            left -= done;
            // Only once the surplus is cold: a slab with warm stacks cannot go.
            if class.surplus == 0 && class.may_unmap && done == 0 && left > 0 {
                class.unmap(SLABS);
            }
            *has_surplus |= class.surplus > 0 || class.may_unmap;
            *unchecked += class.unchecked;
        }
        *unchecked > 0 || *has_surplus
    });
    tidied.unwrap_or(false)
}

pub(super) fn end_period() {
    with(|pool| {
        let mut pool = pool.borrow_mut();
        let Pool {
            classes, has_surplus, ..
        } = &mut *pool;
        classes.iter_mut().for_each(Class::end_period);
        *has_surplus |= classes.iter().any(|class| class.surplus > 0 || class.may_unmap);
    });
}

pub(super) fn has_free() -> bool {
    with(|pool| pool.borrow().classes.iter().any(|class| !class.warm.is_empty())).unwrap_or(false)
}

pub(super) fn trim() -> usize {
    with(|pool| pool.borrow_mut().trim()).unwrap_or(0)
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
    with(count).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::{LOCAL_SIZE, Stack, alone};
    use super::*;

    #[test]
    fn without_address_space_it_is_an_error_and_the_process_goes_on() {
        if let Some(child) = alone("stack::pool::tests::without_address_space_it_is_an_error_and_the_process_goes_on") {
            return assert!(child.status.success(), "{child:?}");
        }
        let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
        let now = pages.split(' ').next().unwrap().parse::<u64>().unwrap() * mem::page() as u64;
        // Larger pages make larger slots.
        mem::limit_address_space(now + (16 << 20) + 64 * (PAGE - 4096) as u64);
        let mut held = Vec::new();
        let error = loop {
            match Stack::new(LOCAL_SIZE) {
                Ok(stack) => held.push(stack),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::OutOfMemory);
        assert!(held.len() >= 40, "most of 16 MiB is used: {}", held.len());
        assert_eq!(
            Stack::new(1 << 30).err().map(|e| e.kind()),
            Some(io::ErrorKind::OutOfMemory)
        );
        held.pop();
        held.push(Stack::new(LOCAL_SIZE).unwrap());
        // Memory that one size has set free serves another.
        drop(held);
        let held: Vec<_> = (0..8).map(|_| Stack::new(1 << 20).unwrap()).collect();
        drop(held);
        drop((0..40).map(|_| Stack::new(LOCAL_SIZE).unwrap()).collect::<Vec<_>>());
    }

    #[test]
    fn without_guard_markers_mprotect_does_until_the_map_count_ends() {
        if let Some(child) = alone("stack::pool::tests::without_guard_markers_mprotect_does_until_the_map_count_ends") {
            return assert!(child.status.success(), "{child:?}");
        }
        mem::forget_markers(true);
        let Some(most) = mem::most_mappings() else {
            return eprintln!("not here: vm.max_map_count is too large for a test");
        };
        let mut held = Vec::with_capacity(most);
        let error = loop {
            match Stack::new(64 * 1024) {
                Ok(stack) => held.push(stack),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::OutOfMemory);
        assert!(error.to_string().contains("vm.max_map_count"), "{error}");
        assert!(held.len() > most / 2 - 500, "{}", held.len());
        drop(held);
        super::super::trim();
        Stack::new(LOCAL_SIZE).unwrap();
    }

    /// A container with a low `vm.max_map_count`: the guards of a few stacks by `mprotect` reach the limit.
    #[test]
    fn a_spawn_at_the_end_of_the_map_count_is_an_error_and_nothing_is_lost() {
        const NAME: &str = "stack::pool::tests::a_spawn_at_the_end_of_the_map_count_is_an_error_and_nothing_is_lost";
        use crate::thread::{Builder, kill_all, park};
        if let Some(child) = alone(NAME) {
            let said = String::from_utf8_lossy(&child.stderr);
            assert!(child.status.success(), "{said}");
            let lost = "greenthread: a green thread that another OS thread has spawned is lost, for there is no stack";
            assert!(said.contains(lost) && said.contains("vm.max_map_count"), "{said}");
            return;
        }
        let Some(most) = mem::most_mappings() else {
            return eprintln!("not here: vm.max_map_count is too large for a test");
        };
        mem::forget_markers(true);
        let owned = std::rc::Rc::new(());
        let parked = |owned: std::rc::Rc<()>| {
            let body = move || {
                park();
                drop(owned);
            };
            Builder::new().spawn_local(body)
        };
        let mut held = vec![parked(owned.clone()).unwrap()];
        let taken = mem::take_mappings(most, 80);
        let error = loop {
            match parked(owned.clone()) {
                Ok(handle) => held.push(handle),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::OutOfMemory);
        assert!(error.to_string().contains("vm.max_map_count"), "{error}");
        assert!((20..60).contains(&held.len()), "{}", held.len());
        assert_eq!(
            std::rc::Rc::strong_count(&owned),
            held.len() + 1,
            "the refused closure is dropped"
        );
        // A green thread that another OS thread spawns comes by message, so its spawner gets no error: it is lost.
        let sent = crate::hub::handle()
            .start(|| 1, None, std::panic::Location::caller())
            .unwrap();
        let lost = crate::thread::JoinHandle::new(sent).join();
        assert!(lost.is_err_and(|error| error.is_lost()));
        // SAFETY: nothing was placed in these mappings.
        unsafe { taken.unmap() };
        assert!(kill_all(held).len() >= 20);
        assert_eq!(std::rc::Rc::strong_count(&owned), 1);
        assert!(parked(owned).is_ok());
    }
}
