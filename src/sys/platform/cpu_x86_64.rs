//! x86-64: a hint to the processor, and its pages.

/// The size of a page, whatever the system.
pub(crate) const LARGEST_PAGE: usize = if cfg!(green_large_page) { 64 * 1024 } else { 4096 };

#[inline(always)]
pub(crate) fn prefetch(at: *const u8) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: a prefetch is a hint: it reads nothing, and any address is allowed.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
}
