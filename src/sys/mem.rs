//! Memory by the page: map, guard, give back.

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
        NO_MARKERS.store(true, Ordering::Relaxed);
    }
    // SAFETY: the caller's.
    match unsafe { libc::mprotect(at as *mut _, len, libc::PROT_NONE) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
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

/// How many bytes from `at` up to the first resident page: what was never touched of a stack that grows down.
pub(crate) fn untouched(at: usize, len: usize) -> usize {
    const MOST: usize = 512;
    let mut pages = [0u8; MOST];
    let mut seen = 0;
    while seen < len {
        let part = (len - seen).min(MOST * page());
        // SAFETY: mincore writes a byte for each page of `part`, of which there are at most `MOST`.
        if unsafe { libc::mincore((at + seen) as *mut _, part, pages.as_mut_ptr()) } != 0 {
            return len;
        }
        if let Some(first) = pages[..part / page()].iter().position(|page| page & 1 != 0) {
            return seen + first * page();
        }
        seen += part;
    }
    len
}

/// Whether this process runs under valgrind, which must be told of stacks.
pub(crate) fn under_valgrind() -> bool {
    static ANSWER: once_cell::race::OnceBool = once_cell::race::OnceBool::new();
    let preloaded =
        || std::env::var_os("LD_PRELOAD").is_some_and(|value| value.to_string_lossy().contains("vgpreload"));
    ANSWER.get_or_init(preloaded)
}
