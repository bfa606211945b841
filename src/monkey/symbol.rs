//! The table of patched symbols, and the originals behind them.

use std::ffi::CStr;

/// A name as C has it.
pub(super) const fn c_name(with_zero: &'static str) -> &'static CStr {
    match CStr::from_bytes_with_nul(with_zero.as_bytes()) {
        Ok(name) => name,
        Err(_) => unreachable!(),
    }
}

/// The definition of libc's: the next after ours.
#[cold]
pub(super) fn find(name: &CStr) -> *mut () {
    // SAFETY: a search by name, after this object.
    let found: *mut () = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) }.cast();
    if found.is_null() { missing as *mut () } else { found }
}

/// In place of what an older libc has not.
unsafe extern "C" fn missing() -> isize {
    super::set_errno(libc::ENOSYS);
    -1
}

/// Defines calls of libc's own definitions, which are looked up at the first call.
macro_rules! originals {
    ($($name:ident($($argument:ident: $type:ty),*) -> $result:ty;)*) => {$(
        #[doc = concat!("libc's `", stringify!($name), "`, unpatched.")]
        ///
        /// # Safety
        /// As in C.
        #[inline(always)]
        #[allow(clippy::too_many_arguments, reason = "they are the symbol's")]
        pub unsafe fn $name($($argument: $type),*) -> $result {
            use std::sync::atomic::{AtomicPtr, Ordering};
            use $crate::monkey::symbol;

            type Call = unsafe extern "C-unwind" fn($($type),*) -> $result;
            static FOUND: AtomicPtr<()> = AtomicPtr::new(at_first as Call as *mut ());

            #[allow(clippy::too_many_arguments, reason = "they are the symbol's")]
            unsafe extern "C-unwind" fn at_first($($argument: $type),*) -> $result {
                let found = symbol::find(const { symbol::c_name(concat!(stringify!($name), "\0")) });
                FOUND.store(found, Ordering::Relaxed);
                // SAFETY: as below.
                unsafe { $name($($argument),*) }
            }
            // SAFETY: libc's definition has this type; the arguments are the caller's affair.
            unsafe { std::mem::transmute::<*mut (), Call>(FOUND.load(Ordering::Relaxed))($($argument),*) }
        }
    )*};
}
pub(super) use originals;

/// Lists definitions of ours: name, address, group.
macro_rules! listed {
    ($($group:ident $name:ident)*) => {
        [$((
            const { $crate::monkey::symbol::c_name(concat!(stringify!($name), "\0")) },
            $name as *const () as usize,
            $crate::monkey::$group,
        )),*]
        .into_iter()
    };
}
pub(super) use listed;

/// What [`listed`] lists.
pub(super) type Listed = (&'static CStr, usize, u32);

/// Defines patched symbols: each is its original, unless the gate says that it is to park, and then it is `patched`.
///
/// On an OS thread that is a comparison and two jumps: what saves registers is apart.
macro_rules! patch {
    ($($group:ident $name:ident($($argument:ident: $type:ty),*) -> $result:ty => $patched:path;)*) => {
        /// What libc does: the definitions behind ours.
        pub(in crate::monkey) mod original {
            #[allow(unused_imports)]
            use super::*;
            $crate::monkey::symbol::originals! { $($name($($argument: $type),*) -> $result;)* }
        }
        $(
            /// Ahead of libc's.
            #[unsafe(no_mangle)]
            #[allow(clippy::too_many_arguments, reason = "they are the symbol's")]
            unsafe extern "C-unwind" fn $name($($argument: $type),*) -> $result {
                #[inline(never)]
                #[allow(clippy::too_many_arguments, reason = "they are the symbol's")]
                unsafe extern "C-unwind" fn in_context($($argument: $type),*) -> $result {
                    // SAFETY: the arguments are the caller's affair, as libc's are.
                    unsafe {
                        match $crate::monkey::gate($crate::monkey::$group) {
                            None => original::$name($($argument),*),
                            Some(hub) => $patched(hub, $($argument),*),
                        }
                    }
                }
                // SAFETY: as above.
                unsafe {
                    if $crate::monkey::passes() {
                        original::$name($($argument),*)
                    } else {
                        in_context($($argument),*)
                    }
                }
            }
        )*
        /// Name, our definition, group.
        pub(super) fn symbols() -> impl Iterator<Item = $crate::monkey::symbol::Listed> {
            $crate::monkey::symbol::listed! { $($group $name)* }
        }
    };
}
pub(super) use patch;

/// All patched symbols.
pub(super) fn all() -> impl Iterator<Item = Listed> {
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
