//! This crate's own system calls, which no patch may touch.
//!
//! rustix and polling call the system without libc, unless the program turns on rustix's feature `use-libc`. Then their
//! calls go through libc's symbols, which are the patched ones. A patched call may give way to another green thread,
//! and this crate makes such calls while it holds locks and borrows cells. So each call of rustix's or polling's that
//! has a patched symbol, and is made where green threads run, is made in [`plainly`].
#![forbid(unsafe_code)]

use super::inside;

/// Runs `f` with unpatched system calls: they block the OS thread, as any patched call [inside](inside) does. Code of
/// this crate must not park in `f`.
#[inline]
pub(crate) fn plainly<R>(f: impl FnOnce() -> R) -> R {
    let _inside = inside::enter();
    f()
}
