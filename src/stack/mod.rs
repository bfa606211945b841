//! Stacks: guarded slots of big mappings, kept warm for the next green thread.
//!
//! A stack is a slot of address space. Only the pages that were touched take memory, from one page up. A freed stack
//! stays warm, and waits for the next spawn on the same OS thread. When the hub is idle, stacks that were not needed
//! for a second go back to the system; [`trim`] gives back all that are free.
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
//! All sizes are the bytes that can be used; the guard comes on top. A size is rounded up, by an eighth at most.
//!
//! | of | bytes | to change one | to change all |
//! |---|---|---|---|
//! | `spawn`, `run`, `scope`, futures, servers, pools, the event loop | [`DEFAULT_SIZE`], 1 MiB | [`Builder::stack_size`](crate::thread::Builder::stack_size), or `stack_size` of what spawns it | [`set_default_size`], `GREEN_STACK`, `RUST_MIN_STACK` |
//! | `spawn_local` | [`LOCAL_SIZE`], 192 KiB | [`Builder::stack_size`](crate::thread::Builder::stack_size) | [`set_local_size`], `GREEN_LOCAL_STACK` |
//! | greenlets, generators | [`LOCAL_SIZE`] | [`greenlet::Builder::stack_size`](crate::greenlet::Builder::stack_size), [`Generator::with_stack_size`](crate::generator::Generator::with_stack_size) | as above |
//!
//! The environment variables are numbers of bytes, such as `1048576` or `1M`; `GREEN_STACK` takes precedence over
//! `RUST_MIN_STACK`. A slot costs page tables from the moment that it is guarded, whether or not it is touched: 8 bytes
//! for each 4 KiB, so 520 bytes for a slot of `LOCAL_SIZE` and 2,184 for one of `DEFAULT_SIZE`.
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
//! - **STACK-1** A slot has at most one `Stack`, and a slab is unmapped only when all its slots are free.
//! - **STACK-2** The guard, [`GUARD_SIZE`] bytes at the slot's low end, faults from before its first use until it is
//!   unmapped.
//! - **STACK-3** A `Stack` is made and dropped on one OS thread (it is `!Send`), so the pool needs no lock.
//! - **STACK-4** Of a free stack other than a warmest one, at most 16 KiB stay resident once `tidy` has come to it.

mod guarded;
mod overflow;
mod pool;
mod size;

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

use once_cell::race::OnceBox;

pub(crate) use guarded::{Home, Stack, flush, home, plant};

/// The default size of the stack of an isolated green thread, and of what polls futures: 1 MiB that can be used.
pub const DEFAULT_SIZE: usize = 1 << 20;

/// The default size of the stack of a local green thread, a greenlet or a generator: 192 KiB that can be used, in a
/// slot of 256 KiB.
pub const LOCAL_SIZE: usize = 256 * 1024 - GUARD_SIZE;

/// The part of each stack that must not be touched: a frame of C code that overshoots by as much is still caught.
pub const GUARD_SIZE: usize = 64 * 1024;

static CACHE_LIMIT: AtomicUsize = AtomicUsize::new(1 << 30);

pub use size::{default_size, local_size, set_default_size, set_local_size};

/// The counts of an OS thread's stacks; see [`stats`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Bytes of address space.
    pub mapped: usize,
    /// Slots that are guarded and ready for use.
    pub slots: usize,
    /// Stacks in use.
    pub in_use: usize,
    /// Free stacks that keep their memory.
    pub warm: usize,
    /// Free stacks that gave their memory back.
    pub cold: usize,
}

/// Counts the stacks of this OS thread.
pub fn stats() -> Stats {
    flush();
    pool::stats()
}

/// Gives the memory of all free stacks of this OS thread back to the system, and returns how many bytes of address
/// space they had.
///
/// Slabs that are entirely free are unmapped. Other memory that green threads have left for reuse goes too: sets of
/// thread-locals, control blocks. A hub that is idle gives back by itself what was not needed for a second.
pub fn trim() -> usize {
    flush();
    let bytes = pool::trim();
    if let Some(rest) = TRIM_REST.get() {
        rest();
    }
    bytes
}

/// What [`trim`] calls in addition: a function of the hub's.
static TRIM_REST: OnceBox<fn()> = OnceBox::new();

/// Makes [`trim`] call `rest` too.
pub(crate) fn set_trim(rest: fn()) {
    // Each hub sets the same function: the first one is kept.
    let _ = TRIM_REST.set(Box::new(rest));
}

/// Sets how many bytes of memory the free stacks of each size on each OS thread may keep; 1 GiB at first.
///
/// A free stack counts as one page, which is what most of them touch, and its page tables. One that a deep call touched
/// keeps up to 16 KiB. A hub keeps to the limit when it has nothing else to do; in the middle of a burst it keeps up to
/// four times as much.
pub fn set_cache_limit(bytes: usize) {
    CACHE_LIMIT.store(bytes, Ordering::Relaxed);
}

fn cache_limit() -> usize {
    CACHE_LIMIT.load(Ordering::Relaxed)
}

#[cfg(feature = "monkey")]
pub(crate) use pool::is_borrowed;

/// Whether a stack of this size is possible at all.
///
/// # Errors
/// A size of zero or of more than 64 GiB.
pub(crate) fn check_size(size: usize) -> io::Result<()> {
    size::slot(size).map(drop)
}

/// Ends a period. Stacks that were not needed in it are surplus, and [`tidy`] gives them back.
pub(crate) fn end_period() {
    pool::end_period();
}

/// Whether there are warm stacks: free ones that keep their memory.
pub(crate) fn has_free() -> bool {
    pool::has_free()
}

/// Gives back surplus stacks, and what deep calls touched of the stacks that were freed since the last call: at most
/// `budget` stacks. Says whether there are more. It costs nothing when there are none, and 0.6 µs for each otherwise.
#[inline]
pub(crate) fn tidy(budget: usize) -> bool {
    pool::tidy(budget)
}

/// The least number of bytes between the base of a stack and its guard.
#[cfg(feature = "monkey")]
pub(crate) const LEAST_USABLE: usize = size::LEAST;

/// Whether an address lies on a stack of this crate, of any OS thread. It may be called in a signal handler.
#[cfg(feature = "monkey")]
pub(crate) fn is_on_one(address: usize) -> bool {
    overflow::stack_of(address).is_some()
}

pub(crate) use overflow::Whose;

/// Sets the function that tells which stack a slot is, for the report of an overflow. It gets the ends of the slot, and
/// writes the name.
pub(crate) fn set_describe(f: &'static overflow::Describe) {
    overflow::set_describe(f);
}

/// Runs a test of this binary again in a process of its own. `None` in that process.
#[cfg(test)]
pub(crate) fn alone(test: &str) -> Option<std::process::Output> {
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
    use super::guarded::WARMEST;
    use super::size::{PAGE, end, stride};
    use super::*;
    use crate::sys::mem;

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
        for page in (low..stack.base - PAGE).step_by(mem::page()) {
            // SAFETY: inside of a stack that this test owns, and on which no code runs.
            unsafe { (page as *mut u8).write(1) };
        }
        let base = stack.base;
        let whole = end(base) - low;
        assert!(mem::resident(low, whole) >= whole - PAGE);
        drop(stack);
        flush();
        assert!(!tidy(16));
        let kept = mem::resident(low, whole);
        assert!(0 < kept && kept <= pool::KEPT, "{kept}");
        let again = Stack::new(LOCAL_SIZE).unwrap();
        assert_eq!(again.base, base);
    }

    /// Also where [`PAGE`] is larger than a page (`--cfg green_large_page`).
    #[test]
    fn a_stack_that_is_used_at_its_top_only_costs_one_page() {
        let held: Vec<_> = (0..40).map(|_| Stack::new(LOCAL_SIZE).unwrap()).collect();
        for stack in &held {
            // SAFETY: inside of a stack that this test owns, and on which no code runs.
            unsafe { ((stack.base - 512) as *mut u8).write(1) };
            let low = stack.limit + GUARD_SIZE;
            assert_eq!(mem::resident(low, end(stack.base) - low), mem::page());
        }
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
            // SAFETY: inside of stacks that this test owns, and on which no code runs.
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
        // The first stack of each slab (16, then 64, then 256) stays in use, so no slab can be unmapped.
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
            // The first period needed all of them; the next one needs ten.
            end_period();
            while tidy(7) {}
            assert!(stats().warm >= 99, "{:?}", stats());
            drop((0..10).map(|_| Stack::new(size).unwrap()).collect::<Vec<_>>());
            end_period();
            assert!(tidy(7), "a little at a time");
            while tidy(7) {}
            let now = stats();
            assert!((9..=11).contains(&now.warm), "{now:?}");
            // The next period needs none: slabs go as well, and nothing is left to do. (Twice, because `stats` has
            // added the warmest.)
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
        // SAFETY: a leaked stack is in use forever, so its slab is still mapped (STACK-1).
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
        // The page tables of cold stacks count towards the limit too, so none may stay warm.
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
