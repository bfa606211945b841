//! Memory by the page: map, guard, give back.
//!
//! ```text
//!  map:      ░░░░░░░░░░░░░░░░░░░░   zeros, nothing resident, never huge pages
//!  guard:    ▓▓▓▓░░░░░░░░░░░░░░░░   ▓ faults: a marker in the page table, or (two mappings more) PROT_NONE
//!  discard:  ▓▓▓▓░░░░░░░░████████   ░ given back, reads as zeros; guards stay, whichever kind they are
//! ```
//!
//! # Invariants
//! - **M1** Whole pages of a mapping that [`map`] made are all that is ever guarded, discarded or unmapped.
//! - **M2** A guard stays until its mapping is unmapped.

use std::io;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

use once_cell::race::OnceNonZeroUsize;

/// `MADV_GUARD_INSTALL` of Linux 6.13: pages that fault, without splitting the mapping.
const MADV_GUARD_INSTALL: libc::c_int = 102;

/// Whether this system refuses it (an older kernel, `mlockall`, seccomp): then `mprotect` does, at two mappings a guard.
static NO_MARKERS: AtomicBool = AtomicBool::new(false);

/// The size of a page.
pub(crate) fn page() -> usize {
    static PAGE: OnceNonZeroUsize = OnceNonZeroUsize::new();
    let size = PAGE.get_or_init(|| {
        // SAFETY: asks a number.
        let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        usize::try_from(size)
            .ok()
            .and_then(std::num::NonZero::new)
            .unwrap_or(std::num::NonZero::<usize>::MIN)
    });
    size.get()
}

/// Maps `len` bytes of zeros, of which nothing is resident, and never in huge pages.
pub(crate) fn map(len: usize) -> io::Result<usize> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a fresh mapping, at an address of the system's choice.
    let at = unsafe { libc::mmap(ptr::null_mut(), len, protection, flags, -1, 0) };
    if at == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: our own mapping. Refused where there are no huge pages, which is as good.
    unsafe { libc::madvise(at, len, libc::MADV_NOHUGEPAGE) };
    Ok(at.addr())
}

/// Unmaps a whole mapping.
///
/// # Safety
/// It came from [`map`], and nothing refers to it any more.
pub(crate) unsafe fn unmap(at: usize, len: usize) {
    // SAFETY: the caller's.
    unsafe { libc::munmap(at as *mut _, len) };
}

/// Makes pages of a mapping fault at any access.
///
/// # Safety
/// The pages belong to a mapping of [`map`], and nothing refers to them.
pub(crate) unsafe fn guard(at: usize, len: usize) -> io::Result<()> {
    if !NO_MARKERS.load(Ordering::Relaxed) {
        // SAFETY: the caller's.
        if unsafe { libc::madvise(at as *mut _, len, MADV_GUARD_INSTALL) } == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            // No memory for the page table: this one time. PROT_NONE would need yet more.
            Some(libc::ENOMEM) => return Err(error),
            // Interrupted: only this guard is of the dear kind.
            Some(libc::EINTR | libc::EAGAIN) => {}
            _ => NO_MARKERS.store(true, Ordering::Relaxed),
        }
    }
    // SAFETY: the caller's.
    match unsafe { libc::mprotect(at as *mut _, len, libc::PROT_NONE) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A range of pages: where it begins, how many bytes.
pub(crate) type Pages = (usize, usize);

/// The most ranges that [`guard_all`] and [`populate`] take.
pub(crate) const RANGES: usize = 64;

/// As [`guard`] for each range, in one call where the system can.
///
/// # Safety
/// As for [`guard`]; at most [`RANGES`].
pub(crate) unsafe fn guard_all(ranges: impl Iterator<Item = Pages> + Clone) -> io::Result<()> {
    // SAFETY: the caller's.
    if !NO_MARKERS.load(Ordering::Relaxed) && unsafe { advise_all(ranges.clone(), MADV_GUARD_INSTALL) } {
        return Ok(());
    }
    // SAFETY: the caller's. To install a guard again is harmless.
    ranges.into_iter().try_for_each(|(at, len)| unsafe { guard(at, len) })
}

/// Has the pages resident, as a touch would, but all in one call; where the system cannot, the touch will do it.
///
/// # Safety
/// Pages of a mapping of [`map`], without guards; at most [`RANGES`] ranges.
pub(crate) unsafe fn populate(ranges: impl Iterator<Item = Pages>) {
    // SAFETY: the caller's.
    unsafe { advise_all(ranges, libc::MADV_POPULATE_WRITE) };
}

/// One piece of advice for many ranges of this process (Linux 6.14); whether it was taken for all.
unsafe fn advise_all(ranges: impl Iterator<Item = Pages>, advice: libc::c_int) -> bool {
    const PIDFD_SELF: libc::c_int = -10_000;
    static REFUSED: AtomicBool = AtomicBool::new(false);
    if REFUSED.load(Ordering::Relaxed) || under_valgrind() {
        return false;
    }
    let mut vectors = [libc::iovec {
        iov_base: ptr::null_mut(),
        iov_len: 0,
    }; RANGES];
    let (mut count, mut total) = (0, 0);
    for (vector, (at, len)) in vectors.iter_mut().zip(ranges) {
        *vector = libc::iovec {
            iov_base: at as *mut _,
            iov_len: len,
        };
        count += 1;
        total += len;
    }
    // SAFETY: `count` vectors, of pages that the caller may advise.
    let done = unsafe {
        libc::syscall(
            libc::SYS_process_madvise,
            PIDFD_SELF,
            &raw const vectors,
            count,
            advice,
            0,
        )
    };
    if done < 0
        && !matches!(
            io::Error::last_os_error().raw_os_error(),
            Some(libc::ENOMEM | libc::EINTR | libc::EAGAIN)
        )
    {
        REFUSED.store(true, Ordering::Relaxed);
    }
    usize::try_from(done) == Ok(total)
}

/// Has [`guard`] use `mprotect` from now on, as on a system without guard markers.
#[cfg(test)]
pub(crate) fn forget_markers(yes: bool) {
    NO_MARKERS.store(yes, Ordering::Relaxed);
}

/// Gives pages back to the system; they read as zeros afterwards. Guards stay.
///
/// # Safety
/// The pages belong to a mapping of [`map`], and nothing in them is needed.
pub(crate) unsafe fn discard(at: usize, len: usize) {
    // SAFETY: the caller's.
    unsafe { libc::madvise(at as *mut _, len, libc::MADV_DONTNEED) };
}

/// Has malloc give back what it keeps of freed memory, as far as it can.
pub(crate) fn trim_heap() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it may be called at any time, from any OS thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// How many bytes are resident.
#[cfg(test)]
pub(crate) fn resident(at: usize, len: usize) -> usize {
    let mut pages = vec![0u8; len / page()];
    // SAFETY: mincore writes a byte for each page.
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

/// Has the process get no more address space than that, for good.
#[cfg(test)]
pub(crate) fn limit_address_space(bytes: u64) {
    let limit = libc::rlimit {
        rlim_cur: bytes,
        rlim_max: bytes,
    };
    // SAFETY: a whole `rlimit`.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &limit) }, 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_discarded_is_not_resident_and_zero() {
        let (at, len) = (map(16 * page()).unwrap(), 16 * page());
        assert_eq!(resident(at, len), 0);
        // SAFETY: our own mapping, all of it (M1).
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
        let at = map(2 * page()).unwrap();
        // SAFETY: our own mapping; the kernel, told to write there, answers EFAULT instead of a signal.
        unsafe {
            guard(at, page()).unwrap();
            discard(at, 2 * page());
            assert_eq!(libc::sigaltstack(std::ptr::null(), at as *mut _), -1);
            assert_eq!(io::Error::last_os_error().raw_os_error(), Some(libc::EFAULT));
            assert_eq!(libc::sigaltstack(std::ptr::null(), (at + page()) as *mut _), 0);
            unmap(at, 2 * page());
        }
    }

    #[test]
    fn a_mapping_too_large_is_an_error() {
        assert!(map(1 << 60).is_err());
    }
}
