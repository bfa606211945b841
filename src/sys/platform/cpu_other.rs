//! Processors without a file of their own.

/// Pages have 4, 16 or 64 KiB; the system decides.
pub(crate) const LARGEST_PAGE: usize = 64 * 1024;

#[inline(always)]
pub(crate) fn prefetch(_at: *const u8) {}
