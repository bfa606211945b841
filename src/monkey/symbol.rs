//! The table of patched symbols, and the originals behind them.

use std::ffi::CStr;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// A symbol of libc's, looked up when first needed: the next definition after ours.
pub(super) struct Original {
    name: &'static CStr,
    found: AtomicPtr<()>,
}

impl Original {
    pub(super) const fn new(name: &'static CStr) -> Original {
        Original {
            name,
            found: AtomicPtr::new(ptr::null_mut()),
        }
    }

    #[inline(always)]
    pub(super) fn get(&self) -> *mut () {
        let found = self.found.load(Ordering::Relaxed);
        if found.is_null() { self.find() } else { found }
    }

    #[cold]
    fn find(&self) -> *mut () {
        // SAFETY: a search by name, after this object.
        let mut found: *mut () = unsafe { libc::dlsym(libc::RTLD_NEXT, self.name.as_ptr()) }.cast();
        if found.is_null() {
            found = missing as *mut ();
        }
        self.found.store(found, Ordering::Relaxed);
        found
    }
}

/// In place of what an older libc has not.
unsafe extern "C" fn missing() -> isize {
    super::set_errno(libc::ENOSYS);
    -1
}

/// Defines patched symbols: each is its original, unless the gate says that it is to park, and then it is `patched`.
macro_rules! patch {
    ($($group:ident $name:ident($($argument:ident: $type:ty),*) -> $result:ty => $patched:path;)*) => {
        /// What libc does: the definitions behind ours.
        pub(in crate::monkey) mod original {
            #[allow(unused_imports)]
            use super::*;
            $(
                #[doc = concat!("libc's `", stringify!($name), "`, which blocks the OS thread.")]
                ///
                /// # Safety
                /// As in C.
                #[inline(always)]
                #[allow(clippy::too_many_arguments, reason = "they are the symbol's")]
                pub unsafe fn $name($($argument: $type),*) -> $result {
                    static ORIGINAL: $crate::monkey::symbol::Original = {
                        const NAME: &str = concat!(stringify!($name), "\0");
                        match std::ffi::CStr::from_bytes_with_nul(NAME.as_bytes()) {
                            Ok(name) => $crate::monkey::symbol::Original::new(name),
                            Err(_) => unreachable!(),
                        }
                    };
                    // SAFETY: libc's definition has this type; the arguments are the caller's affair.
                    unsafe {
                        let f = std::mem::transmute::<
                            *mut (),
                            unsafe extern "C-unwind" fn($($type),*) -> $result,
                        >(ORIGINAL.get());
                        f($($argument),*)
                    }
                }
            )*
        }
        $(
            /// Ahead of libc's.
            #[unsafe(no_mangle)]
            #[allow(clippy::too_many_arguments, reason = "they are the symbol's")]
            unsafe extern "C-unwind" fn $name($($argument: $type),*) -> $result {
                // SAFETY: the arguments are the caller's affair, as libc's are.
                unsafe {
                    match $crate::monkey::gate($crate::monkey::$group) {
                        None => original::$name($($argument),*),
                        Some(hub) => $patched(hub, $($argument),*),
                    }
                }
            }
        )*
        /// Name, our definition, group.
        pub(super) fn symbols() -> impl Iterator<Item = (&'static std::ffi::CStr, usize, u32)> {
            [$(
                (
                    match std::ffi::CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes()) {
                        Ok(name) => name,
                        Err(_) => c"",
                    },
                    $name as *const () as usize,
                    $crate::monkey::$group,
                ),
            )*].into_iter()
        }
    };
}
pub(super) use patch;

/// All patched symbols.
pub(super) fn all() -> impl Iterator<Item = (&'static CStr, usize, u32)> {
    let data = super::fd::symbols()
        .chain(super::bulk::symbols())
        .chain(super::ready::symbols());
    let rest = super::sleep::symbols().chain(super::names::symbols());
    let locks = super::futex::symbols()
        .chain(super::locks::symbols())
        .chain(super::locks::release_symbols());
    let threads = super::threads::symbols().chain(super::threads::join_symbols());
    data.chain(rest)
        .chain(super::child::symbols())
        .chain(locks)
        .chain(threads)
}

/// What the program's calls of `name` come to.
pub(super) fn resolved(name: &CStr) -> usize {
    // SAFETY: a search by name.
    unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) }.addr()
}
