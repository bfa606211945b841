//! Memory by the page: map, guard, give back.
//!
//! ```text
//!  map:      ░░░░░░░░░░░░░░░░░░░░   zeros, nothing resident, never huge pages
//!  guard:    ▓▓▓▓░░░░░░░░░░░░░░░░   ▓ faults: a marker in the page table, or (two mappings more) PROT_NONE
//!  discard:  ▓▓▓▓░░░░░░░░████████   ░ given back, reads as zeros; guards stay, whichever kind they are
//! ```
//!
//! # Invariants
//! - **MEM-1** Only whole pages of a mapping that [`map`] made are ever guarded, discarded or unmapped.
//! - **MEM-2** A guard stays until its mapping is unmapped.
//! - **MEM-3** A mapping that [`map`] made begins at a multiple of [`LARGEST_PAGE`]. The pool of stacks finds the end
//!   of a slot by rounding up to that. If a mapping began at another address, rounding up would end in the next
//!   mapping, and the pool would discard memory there.

use std::io;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

use once_cell::race::OnceNonZeroUsize;

use super::platform::{Advice, Pages, os};
pub(crate) use super::platform::{RANGES, cpu::LARGEST_PAGE};

/// Whether this system refuses guard markers (an older kernel, `mlockall`, seccomp). Then `mprotect` makes the guards,
/// at two mappings each.
static NO_MARKERS: AtomicBool = AtomicBool::new(false);

/// The size of a page.
pub(crate) fn page() -> usize {
    static PAGE: OnceNonZeroUsize = OnceNonZeroUsize::new();
    let size = PAGE.get_or_init(|| {
        // SAFETY: reads a number.
        let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        usize::try_from(size)
            .ok()
            .and_then(std::num::NonZero::new)
            .unwrap_or(std::num::NonZero::<usize>::MIN)
    });
    size.get()
}

/// Maps `len` bytes of zeros, at a multiple of [`LARGEST_PAGE`]. None of them is resident, and the kernel never uses
/// huge pages for them.
pub(crate) fn map(len: usize) -> io::Result<usize> {
    if page() >= LARGEST_PAGE {
        return map_anywhere(len);
    }
    let whole = len.next_multiple_of(page()) + LARGEST_PAGE;
    let low = map_anywhere(whole)?;
    let (at, high) = (low.next_multiple_of(LARGEST_PAGE), low + whole);
    let end = at + len.next_multiple_of(page());
    // SAFETY: the ends of the mapping made above, which nothing refers to yet.
    unsafe {
        for (from, to) in [(low, at), (end, high)] {
            if from < to {
                unmap(from, to - from);
            }
        }
    }
    Ok(at)
}

fn map_anywhere(len: usize) -> io::Result<usize> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a fresh mapping, at an address that the kernel chooses.
    let at = unsafe { libc::mmap(ptr::null_mut(), len, protection, os::MAP_FLAGS, -1, 0) };
    if at == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the mapping made above.
    unsafe { os::avoid_huge_pages(at.addr(), len) };
    Ok(at.addr())
}

/// Unmaps a whole mapping.
///
/// # Safety
/// The mapping came from [`map`], and nothing refers to it any more.
pub(crate) unsafe fn unmap(at: usize, len: usize) {
    // SAFETY: the caller guarantees that this is a whole mapping of `map`, and that nothing refers to it.
    unsafe {
        // The kernel joins neighbouring mappings. To cut one out of the middle makes one more, which it refuses if the
        // process has as many as it may have. Then at least the memory goes back.
        if libc::munmap(at as *mut _, len) != 0 {
            discard(at, len);
        }
    }
}

/// Memory that [`map`] has mapped, and that is this value's alone. It hands out no references. Code that is given an
/// address in it, and uses that, relies on the owner of this value. Without an [`unmap`](Self::unmap) it stays mapped.
pub(crate) struct Mapping {
    at: usize,
    len: usize,
}

impl Mapping {
    pub(crate) fn new(len: usize) -> io::Result<Mapping> {
        map(len).map(|at| Mapping { at, len })
    }

    /// The address of the mapping's low end.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// The address of the mapping's high end.
    pub(crate) fn end(&self) -> usize {
        self.at + self.len
    }

    /// Panics if not all of the range belongs to the mapping.
    fn check(&self, (at, len): Pages) {
        let has_all = self.at <= at && at <= self.end() && len <= self.end() - at;
        assert!(has_all, "a range of another mapping");
    }

    /// Unmaps the mapping.
    ///
    /// # Safety
    /// No code uses an address in it any more.
    pub(crate) unsafe fn unmap(self) {
        // SAFETY: a whole mapping of `map` (MEM-1), of which the caller guarantees that nothing uses it.
        unsafe { unmap(self.at, self.len) };
    }

    /// Makes the ranges fault at any access: with one system call where the kernel can. There are at most [`RANGES`] of
    /// them.
    ///
    /// # Safety
    /// The ranges are of whole pages, and no code uses an address in them.
    pub(crate) unsafe fn guard(&mut self, ranges: impl Iterator<Item = Pages> + Clone) -> io::Result<()> {
        ranges.clone().for_each(|range| self.check(range));
        // SAFETY: whole pages of this mapping (MEM-1), of which the caller guarantees that nothing uses them.
        if !NO_MARKERS.load(Ordering::Relaxed) && unsafe { os::advise_all(ranges.clone(), Advice::Guard) } {
            return Ok(());
        }
        // SAFETY: whole pages of this mapping (MEM-1), of which the caller guarantees that nothing uses them.
        // Installing a guard again is harmless.
        ranges.into_iter().try_for_each(|(at, len)| unsafe { guard(at, len) })
    }

    /// Makes the ranges, of whole pages, resident with one system call. Where the kernel cannot, the first access to
    /// each page does it. There are at most [`RANGES`] of them.
    pub(crate) fn populate(&mut self, ranges: impl Iterator<Item = Pages> + Clone) {
        ranges.clone().for_each(|range| self.check(range));
        // SAFETY: the pages belong to this mapping, and populating changes no byte.
        unsafe { os::advise_all(ranges, Advice::Populate) };
    }

    /// Gives pages back to the system. They read as zeros afterwards.
    ///
    /// # Safety
    /// The range is of whole pages without a guard (MEM-2), and nothing needs their contents.
    pub(crate) unsafe fn discard(&mut self, at: usize, len: usize) {
        self.check((at, len));
        // SAFETY: pages of this mapping (MEM-1); the caller guarantees the rest.
        unsafe { discard(at, len) };
    }

    /// Gives neighbouring slots of `stride` bytes, from `low` to `high`, back to the system, but not the guards of
    /// `guard` bytes at their low ends. It takes one system call where the guards survive it.
    ///
    /// # Safety
    /// The slots are of whole pages, have no other guards, and nothing needs their contents.
    pub(crate) unsafe fn discard_slots(&mut self, (low, high): (usize, usize), stride: usize, guard: usize) {
        if os::DISCARD_KEEPS_GUARDS {
            // SAFETY: the caller guarantees it; the guards in between survive (MEM-2).
            return unsafe { self.discard(low + guard, high - low - guard) };
        }
        for slot in (low..high).step_by(stride) {
            // SAFETY: the caller guarantees it; the part of one slot above its guard.
            unsafe { self.discard(slot + guard, stride - guard) };
        }
    }
}

/// Makes pages of a mapping fault at any access.
///
/// # Safety
/// The pages belong to a mapping of [`map`], and nothing refers to them.
unsafe fn guard(at: usize, len: usize) -> io::Result<()> {
    if !NO_MARKERS.load(Ordering::Relaxed) {
        // SAFETY: the caller guarantees that these are pages of a mapping of `map`, and that nothing refers to them.
        match unsafe { os::install_marker(at, len) }.map_err(|error| (error.raw_os_error(), error)) {
            Ok(()) if is_marked(at) => return Ok(()),
            // No memory for the page table. Fail this once; PROT_NONE would need even more.
            Err((Some(libc::ENOMEM), error)) => return Err(error),
            // The call was interrupted: make only this guard by `mprotect`, and use markers again for the next.
            Err((Some(libc::EINTR | libc::EAGAIN), _)) => {}
            _ => NO_MARKERS.store(true, Ordering::Relaxed),
        }
    }
    // SAFETY: the caller guarantees that these are pages of a mapping of `map`, and that nothing refers to them.
    match unsafe { libc::mprotect(at as *mut _, len, libc::PROT_NONE) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// An error for lack of memory, with what limits the number of guards if they are made by `mprotect`.
pub(crate) fn explained(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::OutOfMemory && NO_MARKERS.load(Ordering::Relaxed) {
        return io::Error::new(error.kind(), format!("{error}; {}", os::WITHOUT_MARKERS));
    }
    error
}

/// Whether the page at `at`, where a marker was just installed, is a guard. After the first such page it is not asked
/// for.
///
/// An emulator may take advice that it does not know for granted: qemu does, and installs nothing. So does a filter of
/// system calls that answers 0. Valgrind reads the path itself, which would end it: so there the answer is no.
#[cfg(target_os = "linux")]
fn is_marked(at: usize) -> bool {
    /// Only a yes is kept. Until the first one, each OS thread asks for the page that it has marked itself.
    static MARKED: AtomicBool = AtomicBool::new(false);
    if MARKED.load(Ordering::Relaxed) {
        return true;
    }
    if under_valgrind() {
        return false;
    }
    // SAFETY: the kernel reads a path at `at`, and says so if it cannot. On a page without a guard it is the empty one.
    let found = unsafe { libc::syscall(libc::SYS_faccessat, libc::AT_FDCWD, at, libc::F_OK) };
    let is = found != 0 && io::Error::last_os_error().raw_os_error() == Some(libc::EFAULT);
    MARKED.fetch_or(is, Ordering::Relaxed);
    is
}

#[cfg(not(target_os = "linux"))]
fn is_marked(_at: usize) -> bool {
    true
}

/// Has [`guard`] use `mprotect` from now on, as on a system without guard markers.
#[cfg(test)]
pub(crate) fn forget_markers(yes: bool) {
    NO_MARKERS.store(yes, Ordering::Relaxed);
}

/// Gives pages back to the system. They read as zeros afterwards.
///
/// # Safety
/// The pages belong to a mapping of [`map`], have no guard, and their contents are not needed any more.
pub(crate) unsafe fn discard(at: usize, len: usize) {
    // SAFETY: the caller guarantees that these are pages of a mapping of `map`, and that their contents are not needed.
    unsafe { os::discard(at, len) };
}

/// Makes malloc give back to the system what it keeps of freed memory, as far as it can.
pub(crate) fn trim_heap() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it may be called at any time, from any OS thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// How many bytes of the range are resident.
#[cfg(test)]
pub(crate) fn resident(at: usize, len: usize) -> usize {
    let mut pages = vec![0u8; len / page()];
    // SAFETY: `mincore` writes one byte for each page, for which there is room.
    assert_eq!(unsafe { libc::mincore(at as *mut _, len, pages.as_mut_ptr()) }, 0);
    pages.iter().filter(|page| **page & 1 != 0).count() * page()
}

/// Whether this process runs under valgrind, which must be told of stacks.
pub(crate) fn under_valgrind() -> bool {
    static ANSWER: once_cell::race::OnceBool = once_cell::race::OnceBool::new();
    let preloaded =
        || std::env::var_os("LD_PRELOAD").is_some_and(|value| value.to_string_lossy().contains("vgpreload"));
    ANSWER.get_or_init(preloaded)
}

/// How many mappings a process may have, unless that is too many for a test.
#[cfg(test)]
pub(crate) fn most_mappings() -> Option<usize> {
    let most = std::fs::read_to_string("/proc/sys/vm/max_map_count").ok()?;
    most.trim().parse().ok().filter(|most| *most <= 100_000)
}

/// Takes mappings until the process may have about `left` more, of `most`. [`Mapping::unmap`] gives them back.
#[cfg(test)]
pub(crate) fn take_mappings(most: usize, left: usize) -> Mapping {
    let taken = Mapping::new(2 * most * page()).unwrap();
    let at = taken.at();
    // Every other page gets another protection, which takes two mappings more.
    let protect = |pair: usize, protection| {
        // SAFETY: a page of the mapping made above, to which nothing refers.
        unsafe { libc::mprotect((at + (2 * pair + 1) * page()) as *mut _, page(), protection) == 0 }
    };
    let pairs = (0..most - 1).take_while(|pair| protect(*pair, libc::PROT_READ)).count();
    for pair in pairs - left.div_ceil(2)..pairs {
        assert!(protect(pair, libc::PROT_READ | libc::PROT_WRITE));
    }
    taken
}

/// Limits the address space of the process, for good.
#[cfg(test)]
pub(crate) fn limit_address_space(bytes: u64) {
    let limit = libc::rlimit {
        rlim_cur: bytes,
        rlim_max: bytes,
    };
    // SAFETY: the pointer is to a whole `rlimit`.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &limit) }, 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_discarded_is_not_resident_and_zero() {
        let (at, len) = (map(16 * page()).unwrap(), 16 * page());
        assert_eq!(resident(at, len), 0);
        // SAFETY: the mapping made above, all of it (MEM-1).
        unsafe {
            (at as *mut u8).write_bytes(7, len);
            assert_eq!(resident(at, len), len);
            discard(at, len - page());
            assert_eq!(resident(at, len), page());
            assert_eq!(((at as *mut u8).read(), ((at + len - 1) as *mut u8).read()), (0, 7));
            unmap(at, len);
        }
    }

    #[test]
    fn a_guard_refuses_the_kernel_too_and_outlives_a_discard() {
        let mut pages = Mapping::new(2 * page()).unwrap();
        let at = pages.at();
        // SAFETY: the mapping made above, which holds nothing. The kernel, told to write there, answers EFAULT instead
        // of sending a signal.
        unsafe {
            pages.guard([(at, page())].into_iter()).unwrap();
            pages.discard_slots((at, at + 2 * page()), 2 * page(), page());
            assert_eq!(libc::sigaltstack(std::ptr::null(), at as *mut _), -1);
            assert_eq!(io::Error::last_os_error().raw_os_error(), Some(libc::EFAULT));
            assert_eq!(libc::sigaltstack(std::ptr::null(), (at + page()) as *mut _), 0);
            pages.unmap();
        }
    }

    #[test]
    #[should_panic(expected = "a range of another mapping")]
    fn a_range_that_goes_over_the_end_is_refused() {
        let mut pages = Mapping::new(2 * page()).unwrap();
        let at = pages.at();
        // SAFETY: the mapping made above, which holds nothing; the part behind its end is refused.
        unsafe { pages.discard(at + page(), 2 * page()) };
    }

    /// Whether all pages of this range have a flag in the kernel's listing of mappings.
    fn has_flag(at: usize, flag: &str) -> bool {
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut here = false;
        for line in maps.lines() {
            let ends = line.split(' ').next().and_then(|ends| ends.split_once('-'));
            let ends = ends.map(|(low, high)| (usize::from_str_radix(low, 16), usize::from_str_radix(high, 16)));
            match ends {
                Some((Ok(low), Ok(high))) => here = (low..high).contains(&at),
                _ if here && line.starts_with("VmFlags:") => return line.split(' ').any(|known| known == flag),
                _ => {}
            }
        }
        false
    }

    /// As with huge pages for all memory (`transparent_hugepage=always`), where one byte would take 2 MiB.
    #[test]
    fn a_touched_page_stays_one_page_where_huge_pages_are_on() {
        const HUGE: usize = 2 << 20;
        let touched = |at: usize| {
            let middle = (at + HUGE).next_multiple_of(HUGE);
            // SAFETY: a byte of a mapping made below, of four huge pages.
            unsafe { (middle as *mut u8).write(1) };
            resident(at, 4 * HUGE)
        };
        let [plain, huge, neither] = [(); 3].map(|()| map(4 * HUGE).unwrap());
        // SAFETY: the mappings made above, all of each (MEM-1).
        unsafe {
            for at in [huge, neither] {
                libc::madvise(at as *mut _, 4 * HUGE, libc::MADV_HUGEPAGE);
            }
            os::avoid_huge_pages(neither, 4 * HUGE);
            let huge_pages = touched(huge);
            if huge_pages < HUGE {
                eprintln!("not here: the kernel gives no huge pages");
            }
            assert_eq!([touched(plain), touched(neither)], [page(); 2], "{huge_pages}");
            assert!(
                has_flag(plain, "nh") && has_flag(huge, "hg"),
                "no huge pages, and huge pages"
            );
            [plain, huge, neither].into_iter().for_each(|at| unmap(at, 4 * HUGE));
        }
    }

    #[test]
    fn what_cannot_be_unmapped_gives_its_memory_back() {
        // For a moment the process can map nothing: so in a process without other tests.
        let child = crate::stack::alone("sys::mem::tests::what_cannot_be_unmapped_gives_its_memory_back");
        if let Some(child) = child {
            return assert!(child.status.success(), "{child:?}");
        }
        let (at, len) = (map(3 * 16 * page()).unwrap(), 16 * page());
        let Some(most) = most_mappings() else {
            return eprintln!("not here: vm.max_map_count is too large for a test");
        };
        let held = take_mappings(most, 0);
        // SAFETY: the mapping made above; its middle stands for a slab whose neighbours the kernel has joined to it.
        unsafe {
            ((at + len) as *mut u8).write_bytes(7, len);
            assert_eq!(resident(at + len, len), len);
            assert_ne!(libc::munmap((at + len) as *mut _, len), 0, "one mapping too many");
            unmap(at + len, len);
            assert_eq!(resident(at + len, len), 0);
            held.unmap();
            unmap(at, 3 * len);
        }
    }

    /// This test can fail only where [`LARGEST_PAGE`] is larger than a page (`--cfg green_large_page`).
    #[test]
    fn a_mapping_begins_at_a_multiple_of_the_largest_page() {
        for pages in 1..40 {
            let len = pages * page();
            let at = map(len).unwrap();
            assert_eq!(at % LARGEST_PAGE, 0);
            // SAFETY: the mapping made above, all of it (MEM-1). It may be written to its end.
            unsafe {
                ((at + len - 1) as *mut u8).write(1);
                unmap(at, len);
            }
        }
    }

    #[test]
    fn a_mapping_too_large_is_an_error() {
        assert!(map(1 << 60).is_err());
    }
}
