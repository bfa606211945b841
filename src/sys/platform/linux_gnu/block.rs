//! The words of a thread control block.

/// # Safety
/// `at` is the address of an aligned word that may be read.
#[inline]
pub(super) unsafe fn word(at: usize) -> usize {
    // SAFETY: the caller guarantees that `at` is an aligned word that may be read.
    unsafe { *(at as *const usize) }
}

/// The address `offset` bytes from `block`.
#[inline]
pub(super) fn at(block: usize, offset: isize) -> usize {
    block.wrapping_add_signed(offset)
}

/// # Safety
/// `at` is the address of an aligned word that may be written.
#[inline]
pub(super) unsafe fn set_word(at: usize, value: usize) {
    // SAFETY: the caller guarantees that `at` is an aligned word that may be written.
    unsafe { *(at as *mut usize) = value };
}
