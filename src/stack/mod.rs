//! Stacks: guarded slots of big mappings, kept warm for the next green thread.
//!
//! A stack is a slot of address space; memory is what is touched of it, from one page up. Freed stacks wait, as warm as
//! they are, for the next that is spawned on the same OS thread. What was not needed for a second goes back to the system
//! when the hub is idle, and all that is free by [`trim`].
//!
//! ```text
//!  limit                                                    base
//!  ┌────────────────┬──────────────────────────────────────┐
//!  │ guard, 64 KiB  │  ◄── grows down        touched pages │   one slot: a stack and its guard
//!  └────────────────┴──────────────────────────────────────┘
//!  ◄────────────────────── slab: 16 to 1024 slots, one mapping ──────────────────────►
//! ```
//!
//! # Sizes
//! All sizes are what can be used; the guard comes on top. A size is rounded up by an eighth at most.
//!
//! | of | bytes | to change one | to change all |
//! |---|---|---|---|
//! | `spawn`, `run`, `scope`, futures, servers, pools, the event loop | [`DEFAULT_SIZE`], 1 MiB | [`Builder::stack_size`](crate::thread::Builder::stack_size), or `stack_size` of what spawns it | [`set_default_size`], `GREEN_STACK`, `RUST_MIN_STACK` |
//! | `spawn_local` | [`LOCAL_SIZE`], 192 KiB | [`Builder::stack_size`](crate::thread::Builder::stack_size) | [`set_local_size`], `GREEN_LOCAL_STACK` |
//! | greenlets, generators | [`LOCAL_SIZE`] | [`greenlet::Builder::stack_size`](crate::greenlet::Builder::stack_size), [`Generator::with_stack_size`](crate::generator::Generator::with_stack_size) | as above |
//!
//! The variables of the environment are numbers of bytes, as `1048576` or `1M`; `GREEN_STACK` goes before `RUST_MIN_STACK`. A
//! slot costs page tables from the moment that it is guarded, whatever is touched of it: 8 bytes for each 4 KiB, so 520 bytes
//! for one of `LOCAL_SIZE` and 2,184 for one of `DEFAULT_SIZE`.
//!
//! ```
//! use greenthread::{spawn, stack};
//! spawn(|| ()).join().unwrap();
//! assert!(stack::stats().warm >= 1);
//! stack::trim();
//! assert_eq!(stack::stats().warm, 0);
//! ```
//!
//! # Invariants
//! - **S1** A slot has at most one `Stack`, and a slab is unmapped only when all its slots are free.
//! - **S2** The guard, [`GUARD_SIZE`] bytes at the slot's low end, faults from before its first use until it is unmapped.
//! - **S3** A `Stack` is made and dropped on one OS thread (it is `!Send`), so the pool needs no lock.
//! - **S4** Of a free stack but the warmest, at most 16 KiB stay resident once `tidy` has come to it.

mod overflow;
mod pool;
mod size;

use std::cell::Cell;
use std::io;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicUsize, Ordering};

use corosensei::stack::StackPointer;

/// The size of the stack of an isolated green thread, and of what polls futures, if nothing else is asked for: 1 MiB that can
/// be used.
pub const DEFAULT_SIZE: usize = 1 << 20;

/// The size of the stack of a local green thread, a greenlet or a generator, if nothing else is asked for: 192 KiB that can be
/// used, of a slot of 256 KiB.
pub const LOCAL_SIZE: usize = 256 * 1024 - GUARD_SIZE;

/// The part of each stack that must not be touched: a C frame may overshoot by as much and still be caught.
pub const GUARD_SIZE: usize = 64 * 1024;

static CACHE_LIMIT: AtomicUsize = AtomicUsize::new(1 << 30);

/// A slot of address space to run on.
pub(crate) struct Stack {
    base: usize,
    limit: usize,
    _not_send: PhantomData<*const ()>,
}

// SAFETY: S2; the limit is page-aligned, the base aligned, and at least `size::LEAST` lies between base and guard.
unsafe impl corosensei::stack::Stack for Stack {
    #[inline]
    fn base(&self) -> StackPointer {
        // SAFETY: the high end of a mapping is not null.
        unsafe { StackPointer::new_unchecked(self.base) }
    }

    #[inline]
    fn limit(&self) -> StackPointer {
        // SAFETY: nor is the low end: the system maps nothing at 0.
        unsafe { StackPointer::new_unchecked(self.limit) }
    }
}

/// The warmest free stack of a kind: the one that a spawn takes and an end leaves.
struct Warmest {
    base: Cell<usize>,
    slot: Cell<usize>,
}

thread_local! {
    /// One of the small ones (locals), one of the large ones (isolated).
    static WARMEST: [Warmest; 2] = const { [Warmest::none(), Warmest::none()] };
}

impl Warmest {
    const fn none() -> Warmest {
        Warmest {
            base: Cell::new(0),
            slot: Cell::new(0),
        }
    }

    /// Which of the two is for slots of this size.
    #[inline(always)]
    const fn index(slot: usize) -> usize {
        (slot > 512 * 1024) as usize
    }
}

impl Stack {
    /// A stack of `size` usable bytes, rounded up.
    ///
    /// # Errors
    /// A size of zero or of more than 64 GiB; no memory for it.
    #[inline]
    pub(crate) fn new(size: usize) -> io::Result<Stack> {
        let slot = size.wrapping_add(GUARD_SIZE);
        let base = WARMEST.with(|both| {
            let warmest = &both[Warmest::index(slot)];
            if warmest.slot.get() == slot {
                warmest.base.replace(0)
            } else {
                0
            }
        });
        let base = if base == 0 { pool::take_warm(size) } else { base };
        if base != 0 {
            return Ok(Stack::at(base, slot));
        }
        pool::take(size).map(|(base, slot)| Stack::at(base, slot))
    }

    /// Its high end.
    #[inline]
    pub(crate) fn top(&self) -> *const u8 {
        self.base as *const u8
    }

    #[inline]
    fn at(base: usize, slot: usize) -> Stack {
        Stack {
            base,
            limit: end(base) - stride(slot),
            _not_send: PhantomData,
        }
    }
}

/// How far slots lie apart: a page more than they need, or all stacks would begin in the same sets of the
/// second-level cache (1,000 green threads yield in 12 ns instead of 22).
#[inline]
const fn stride(slot: usize) -> usize {
    slot + PAGE
}

/// The high end of the slot whose stack begins at `base`.
#[inline]
const fn end(base: usize) -> usize {
    base.next_multiple_of(PAGE)
}

/// A multiple of the size of a page on any system of this architecture.
const PAGE: usize = if cfg!(any(target_arch = "x86_64", target_arch = "x86")) {
    4096
} else {
    64 * 1024
};

impl Drop for Stack {
    #[inline]
    fn drop(&mut self) {
        let slot = end(self.base) - self.limit - PAGE;
        let (before, its_slot) = WARMEST.with(|both| {
            let warmest = &both[Warmest::index(slot)];
            (warmest.base.replace(self.base), warmest.slot.replace(slot))
        });
        if before != 0 {
            pool::give(before, its_slot);
        }
    }
}

pub use size::{default_size, local_size, set_default_size, set_local_size};

/// What the stacks of an OS thread amount to; see [`stats`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Bytes of address space.
    pub mapped: usize,
    /// Slots that are guarded and ready for use.
    pub slots: usize,
    /// Stacks in use.
    pub in_use: usize,
    /// Free stacks whose memory is kept.
    pub warm: usize,
    /// Free stacks whose memory was given back.
    pub cold: usize,
}

/// Counts this OS thread's stacks.
pub fn stats() -> Stats {
    flush();
    pool::stats()
}

/// Gives the memory of all free stacks of this OS thread back to the system; says how many bytes of address space they
/// had. Slabs that are free altogether are unmapped. What else its green threads have left to be used again goes too:
/// sets of thread-locals, control blocks.
///
/// A hub that is idle gives back by itself what was not needed for a second.
pub fn trim() -> usize {
    flush();
    let bytes = pool::trim();
    let rest = TRIM_REST.load(Ordering::Acquire);
    if rest != 0 {
        // SAFETY: what `set_trim` stored.
        unsafe { std::mem::transmute::<usize, fn()>(rest)() };
    }
    bytes
}

/// What [`trim`] does beside, the hub's: 0, or a `fn()`.
static TRIM_REST: AtomicUsize = AtomicUsize::new(0);

/// Has `rest` called by [`trim`] too.
pub(crate) fn set_trim(rest: fn()) {
    TRIM_REST.store(rest as usize, Ordering::Release);
}

/// How many bytes of memory the free stacks of each size on each OS thread may keep; 1 GiB at first.
///
/// Counted at a page each, which is what most touch, and the page tables; one that a deep call touched keeps up to 16 KiB.
/// A hub keeps to it when it has nothing else to do; in the middle of a burst up to four times as much is kept.
pub fn set_cache_limit(bytes: usize) {
    CACHE_LIMIT.store(bytes, Ordering::Relaxed);
}

fn cache_limit() -> usize {
    CACHE_LIMIT.load(Ordering::Relaxed)
}

#[cfg(feature = "monkey")]
pub(crate) use pool::is_borrowed;
pub(crate) use pool::{Home, home, plant};

/// Whether there can be a stack of so many bytes at all.
///
/// # Errors
/// A size of zero or of more than 64 GiB.
pub(crate) fn check_size(size: usize) -> io::Result<()> {
    size::slot(size).map(drop)
}

/// Puts the warmest ones with the others.
pub(crate) fn flush() {
    for (base, slot) in take_warmest() {
        pool::give(base, slot);
    }
}

fn take_warmest() -> impl Iterator<Item = (usize, usize)> {
    let both = WARMEST.with(|both| both.each_ref().map(|one| (one.base.replace(0), one.slot.get())));
    both.into_iter().filter(|(base, _)| *base != 0)
}

/// Ends a period: what was not needed in it is surplus, which [`tidy`] gives back.
pub(crate) fn end_period() {
    pool::end_period();
}

/// Whether there are free stacks whose memory is kept.
pub(crate) fn has_free() -> bool {
    pool::has_free()
}

/// Gives back what is surplus, and what deep calls touched of stacks freed since the last call, of up to `budget` stacks;
/// says whether there are more. Free when there are none, 0.6 µs for each otherwise.
#[inline]
pub(crate) fn tidy(budget: usize) -> bool {
    pool::tidy(budget)
}

/// The least of a stack that lies between its base and its guard.
#[cfg(feature = "monkey")]
pub(crate) const LEAST_USABLE: usize = size::LEAST;

/// Whether an address lies on a stack of ours, of whatever OS thread. For a signal handler, too.
#[cfg(feature = "monkey")]
pub(crate) fn is_on_one(address: usize) -> bool {
    overflow::stack_of(address).is_some()
}

pub(crate) use overflow::Whose;

/// Sets what says whose stack a slot is, for the report of an overflow: it gets the slot's ends, and writes the name.
pub(crate) fn set_describe(f: overflow::Describe) {
    overflow::set_describe(f);
}

/// Runs a test of this binary again in a process of its own; `None` in that process.
#[cfg(test)]
fn alone(test: &str) -> Option<std::process::Output> {
    const VARIABLE: &str = "GREENTHREAD_TEST_ALONE";
    if std::env::var_os(VARIABLE).is_some() {
        return None;
    }
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    child
        .args(["--exact", test, "--nocapture", "--include-ignored"])
        .env(VARIABLE, test);
    let output = child.output().unwrap();
    assert!(output.stdout.starts_with(b"\nrunning 1 test\n"), "no such test: {test}");
    Some(output)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOT: usize = LOCAL_SIZE + GUARD_SIZE;

    #[test]
    fn sizes_that_make_no_sense_are_errors() {
        assert_eq!(Stack::new(0).err().map(|e| e.kind()), Some(io::ErrorKind::InvalidInput));
        assert_eq!(
            Stack::new(usize::MAX).err().map(|e| e.kind()),
            Some(io::ErrorKind::InvalidInput)
        );
        assert_eq!(
            Stack::new(1 << 50).err().map(|e| e.kind()),
            Some(io::ErrorKind::InvalidInput)
        );
    }

    #[test]
    fn the_warmest_is_used_first() {
        let first = Stack::new(LOCAL_SIZE).unwrap();
        let second = Stack::new(LOCAL_SIZE).unwrap();
        let (a, b) = (first.base, second.base);
        drop(first);
        drop(second);
        assert_eq!(Stack::new(LOCAL_SIZE).unwrap().base, b);
        let (x, y) = (Stack::new(LOCAL_SIZE).unwrap(), Stack::new(LOCAL_SIZE).unwrap());
        assert_eq!((x.base, y.base), (b, a));
    }

    #[test]
    fn the_counts_add_up() {
        let held: Vec<_> = (0..40).map(|_| Stack::new(LOCAL_SIZE).unwrap()).collect();
        let big = Stack::new(1 << 20).unwrap();
        let now = stats();
        assert_eq!((now.in_use, now.slots), (41, now.in_use + now.warm + now.cold));
        drop((held, big));
        assert_eq!(stats().in_use, 0);
        assert!(trim() >= 40 * SLOT);
        assert_eq!(stats(), Stats::default());
    }

    #[test]
    fn what_a_deep_call_touched_is_given_back() {
        let stack = Stack::new(LOCAL_SIZE).unwrap();
        let low = stack.limit + GUARD_SIZE;
        for page in (low..stack.base - PAGE).step_by(PAGE) {
            // SAFETY: inside our own stack, which nobody runs on.
            unsafe { (page as *mut u8).write(1) };
        }
        let base = stack.base;
        let whole = end(base) - low;
        assert!(crate::sys::mem::resident(low, whole) >= whole - PAGE);
        drop(stack);
        flush();
        assert!(!tidy(16));
        let kept = crate::sys::mem::resident(low, whole);
        assert!(0 < kept && kept <= pool::KEPT, "{kept}");
        let again = Stack::new(LOCAL_SIZE).unwrap();
        assert_eq!(again.base, base);
    }

    #[test]
    fn tidy_keeps_to_its_budget_and_comes_to_all() {
        drop((0..40).map(|_| Stack::new(LOCAL_SIZE).unwrap()).collect::<Vec<_>>());
        drop((0..24).map(|_| Stack::new(1 << 20).unwrap()).collect::<Vec<_>>());
        // One of the default size is the warmest.
        assert_eq!((0..).take_while(|_| tidy(16)).count(), 3);
        assert!(!tidy(0));
        for _ in 0..5 {
            drop((0..4).map(|_| Stack::new(LOCAL_SIZE).unwrap()).collect::<Vec<_>>());
        }
        assert!(tidy(2) && !tidy(1), "each is tidied once");
    }

    #[test]
    fn trim_gives_memory_back() {
        let held: Vec<_> = (0..100).map(|_| Stack::new(LOCAL_SIZE).unwrap()).collect();
        let ranges: Vec<_> = held
            .iter()
            .map(|stack| (stack.limit + GUARD_SIZE, stride(SLOT) - GUARD_SIZE))
            .collect();
        for (at, len) in &ranges {
            // SAFETY: inside our own stacks, which nobody runs on.
            unsafe { (*at as *mut u8).write_bytes(1, *len) };
        }
        let resident = || {
            ranges
                .iter()
                .map(|(at, len)| crate::sys::mem::resident(*at, *len))
                .sum::<usize>()
        };
        let before = resident();
        let mut held = held;
        // The first of each slab (16, then 64, then 256) stay in use, so no slab can be unmapped.
        let kept = [held.remove(80), held.remove(16), held.remove(0)];
        drop(held);
        let was = stats();
        assert_eq!(trim(), (was.slots - 3) * SLOT);
        assert_eq!((before, resident()), (100 * ranges[0].1, 3 * ranges[0].1));
        let now = stats();
        let expected = (was.mapped, 3, 0, was.slots - 3);
        assert_eq!((now.mapped, now.in_use, now.warm, now.cold), expected);
        drop(kept);
        trim();
        assert_eq!(stats(), Stats::default());
    }

    #[test]
    fn what_a_period_did_not_need_is_given_back() {
        for size in [LOCAL_SIZE, DEFAULT_SIZE] {
            trim();
            let hundred = || drop((0..100).map(|_| Stack::new(size).unwrap()).collect::<Vec<_>>());
            hundred();
            // The first period had need of all; the next of ten.
            end_period();
            while tidy(7) {}
            assert!(stats().warm >= 99, "{:?}", stats());
            drop((0..10).map(|_| Stack::new(size).unwrap()).collect::<Vec<_>>());
            end_period();
            assert!(tidy(7), "a little at a time");
            while tidy(7) {}
            let now = stats();
            assert!((9..=11).contains(&now.warm), "{now:?}");
            // Then of none: slabs go as well, and nothing is left to be done. (Twice, for `stats` has added the warmest.)
            for _ in 0..2 {
                end_period();
                while tidy(7) {}
            }
            assert!(!has_free());
            end_period();
            assert!(!tidy(7));
            flush();
            end_period();
            end_period();
            while tidy(7) {}
            assert_eq!(stats(), Stats::default());
        }
    }

    #[test]
    fn both_defaults_have_a_warmest_one() {
        let (small, large) = (Stack::new(LOCAL_SIZE).unwrap(), Stack::new(DEFAULT_SIZE).unwrap());
        let (a, b) = (small.base, large.base);
        drop((small, large));
        assert_eq!(WARMEST.with(|both| both.each_ref().map(|one| one.base.get())), [a, b]);
        assert_eq!(Stack::new(LOCAL_SIZE).unwrap().base, a);
        // Another size in the same place is not mistaken for it, and the old one is not lost.
        drop(Stack::new(2 << 20).unwrap());
        assert_eq!(Stack::new(DEFAULT_SIZE).unwrap().base, b);
        flush();
        assert_eq!(stats().in_use, 0);
    }

    #[test]
    fn a_size_is_what_can_be_used() {
        for size in [LOCAL_SIZE, DEFAULT_SIZE, 3 << 20] {
            let stack = Stack::new(size).unwrap();
            let usable = stack.base - stack.limit - GUARD_SIZE;
            assert!(usable >= size - PAGE && usable <= size + PAGE, "{size}: {usable}");
        }
    }

    #[test]
    fn a_stack_left_behind_by_an_os_thread_stays_mapped() {
        let left = std::thread::spawn(|| {
            let all: Vec<_> = (0..20).map(|_| Stack::new(LOCAL_SIZE).unwrap()).collect();
            let at = all[0].limit + GUARD_SIZE;
            std::mem::forget(all.into_iter().next());
            at
        });
        let at = left.join().unwrap();
        // SAFETY: a leaked stack, of a slab that therefore is still mapped (S1).
        unsafe { (at as *mut u8).write(1) };
    }

    #[test]
    fn thread_locals_that_end_after_the_pool_may_hold_stacks() {
        thread_local!(static HELD: std::cell::RefCell<Vec<Stack>> = const { std::cell::RefCell::new(Vec::new()) });
        let held = std::thread::spawn(|| {
            // Its destructor is registered before the pool's, so one of the two orders is this one; the other is
            // that of every other test.
            HELD.with_borrow_mut(|held| held.reserve(8));
            for _ in 0..8 {
                let stack = Stack::new(LOCAL_SIZE).unwrap();
                HELD.with_borrow_mut(|held| held.push(stack));
            }
        });
        held.join().unwrap();
        let other = std::thread::spawn(|| {
            let stack = Stack::new(LOCAL_SIZE).unwrap();
            HELD.with_borrow_mut(|held| held.push(stack));
        });
        other.join().unwrap();
    }

    #[test]
    fn without_guard_markers_mprotect_does() {
        crate::sys::mem::forget_markers(true);
        let stack = Stack::new(1 << 22).unwrap();
        crate::sys::mem::forget_markers(false);
        let guarded = |at: usize| {
            let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
            let range = |line: &str| {
                let (low, high) = line.split(' ').next()?.split_once('-')?;
                Some(usize::from_str_radix(low, 16).ok()?..usize::from_str_radix(high, 16).ok()?)
            };
            maps.lines()
                .any(|line| line.contains(" ---p ") && range(line).is_some_and(|range| range.contains(&at)))
        };
        assert!(guarded(stack.limit) && guarded(stack.limit + GUARD_SIZE - 1));
        assert!(!guarded(stack.limit + GUARD_SIZE));
    }

    #[test]
    fn what_exceeds_the_limit_goes_cold() {
        let Some(child) = alone("stack::tests::what_exceeds_the_limit_goes_cold") else {
            return spill();
        };
        assert!(child.status.success(), "{child:?}");
    }

    fn spill() {
        // A page each, and 520 bytes of page tables.
        let each = mem_page() + SLOT / mem_page() * 8 + 8;
        set_cache_limit(64 * each);
        let held: Vec<_> = (0..1000).map(|_| Stack::new(LOCAL_SIZE).unwrap()).collect();
        drop(held);
        let now = stats();
        assert!(now.warm <= 4 * 64 + 64 && now.cold >= 600, "{now:?}");
        assert_eq!(now.warm + now.cold, now.slots);
        while tidy(100) {}
        // The cold ones' page tables are among what the limit allows: none may be warm.
        assert_eq!(stats().warm, 0);
        trim();
        set_cache_limit(64 * each);
        drop((0..65).map(|_| Stack::new(LOCAL_SIZE).unwrap()).collect::<Vec<_>>());
        while tidy(100) {}
        let now = stats();
        assert!((58..=64).contains(&now.warm), "{now:?}");
        assert!(now.warm * each + now.cold * (each - mem_page()) <= 65 * each, "{now:?}");
        // The greatest and the least limit are limits like others.
        for (limit, least) in [(usize::MAX, 1000), (0, 0)] {
            set_cache_limit(limit);
            trim();
            drop((0..1000).map(|_| Stack::new(LOCAL_SIZE).unwrap()).collect::<Vec<_>>());
            let warm = stats().warm;
            assert!(least <= warm && warm <= least + 64, "{limit}: {warm}");
        }
    }

    fn mem_page() -> usize {
        crate::sys::mem::page()
    }

    #[test]
    fn forty_thousand_guarded_stacks_fit_in_the_stock_map_count() {
        let held: Vec<_> = (0..40_000).map(|_| Stack::new(LOCAL_SIZE).unwrap()).collect();
        assert_eq!(stats().in_use, 40_000);
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap().lines().count();
        assert!(maps < 1000, "{maps} mappings");
        drop(held);
        trim();
        assert_eq!(stats(), Stats::default());
    }
}
