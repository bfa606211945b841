//! Patched symbols, and libc's definitions behind them (the originals). The macro [`patch!`](super::gate::patch) defines most
//! symbols; here is what all have in common.

use std::ffi::CStr;

// The groups of calls that are armed together.
pub(super) const SOCKETS: u32 = 1;
pub(super) const TIME: u32 = 2;
pub(super) const READINESS: u32 = 4;
pub(super) const NAMES: u32 = 8;
pub(super) const PROCESSES: u32 = 16;
pub(super) const LOCKS: u32 = 32;
pub(super) const THREADS: u32 = 64;
pub(super) const SHARED: u32 = 128;

/// All groups of calls. A symbol of this group counts as armed when any group is.
pub(super) const ANY: u32 = SHARED - 1;

/// A string literal with a final `\0`, as a C string.
pub(super) const fn c_name(with_zero: &'static str) -> &'static CStr {
    match CStr::from_bytes_with_nul(with_zero.as_bytes()) {
        Ok(name) => name,
        Err(_) => unreachable!(),
    }
}

/// libc's definition of a symbol: the next one after this program's.
#[cold]
pub(super) fn find(name: &CStr) -> *mut () {
    // SAFETY: `name` is a C string; `dlsym` only searches.
    let found: *mut () = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) }.cast();
    if found.is_null() { missing as *mut () } else { found }
}

/// Stands in for a call that an older libc lacks: fails with `ENOSYS`.
unsafe extern "C" fn missing() -> isize {
    // SAFETY: the address of a live thread-local of the running thread.
    unsafe { *libc::__errno_location() = libc::ENOSYS };
    -1
}

/// Defines functions that call libc's own definitions. Their addresses are looked up before `main`, because a look-up
/// takes the loader's lock: a later call may come from code that holds it already, or from a signal handler.
macro_rules! originals {
    ($($name:ident($($argument:ident: $type:ty),*) -> $result:ty;)*) => {
        $(
            #[doc = concat!("libc's `", stringify!($name), "`, unpatched.")]
            ///
            /// # Safety
            /// As for libc's function.
            #[inline(always)]
            #[allow(clippy::too_many_arguments, reason = "they are the symbol's")]
            pub unsafe fn $name($($argument: $type),*) -> $result {
                type Call = unsafe extern "C-unwind" fn($($type),*) -> $result;
                // Relaxed is enough: each value that can be loaded, `first` or libc's, is a function that does the
                // call.
                let found = found::$name.load(std::sync::atomic::Ordering::Relaxed);
                // SAFETY: libc's definition has this type. The caller guarantees arguments that are valid for it.
                unsafe { std::mem::transmute::<*mut (), Call>(found)($($argument),*) }
            }
        )*
        /// The addresses of libc's definitions.
        #[allow(non_upper_case_globals, reason = "they are functions' names")]
        mod found {
            #[allow(unused_imports, reason = "types of arguments, if there are any")]
            use super::*;
            use std::sync::atomic::AtomicPtr;
            $(
                pub(super) static $name: AtomicPtr<()> =
                    AtomicPtr::new(first::$name as unsafe extern "C-unwind" fn($($type),*) -> $result as *mut ());
            )*
        }
        /// The addresses before `look_up` has run: a call that comes so early looks its own symbol up.
        mod first {
            #[allow(unused_imports, reason = "types of arguments, if there are any")]
            use super::*;
            $(
                #[allow(clippy::too_many_arguments, reason = "they are the symbol's")]
                pub(super) unsafe extern "C-unwind" fn $name($($argument: $type),*) -> $result {
                    super::look_up_one(&super::found::$name, concat!(stringify!($name), "\0"));
                    // SAFETY: the caller guarantees arguments that are valid for libc's definition.
                    unsafe { super::$name($($argument),*) }
                }
            )*
        }
        fn look_up_one(place: &std::sync::atomic::AtomicPtr<()>, name: &'static str) {
            let found = $crate::monkey::symbol::find($crate::monkey::symbol::c_name(name));
            place.store(found, std::sync::atomic::Ordering::Relaxed);
        }
        /// Runs before `main`, or when the library that contains this crate is loaded.
        #[used]
        #[unsafe(link_section = ".init_array")]
        static LOOK_UP: extern "C" fn() = look_up;

        extern "C" fn look_up() {
            $(look_up_one(&found::$name, concat!(stringify!($name), "\0"));)*
        }
    };
}
pub(super) use originals;

/// Lists definitions of this crate: name, address, group.
macro_rules! listed {
    ($($group:ident $name:ident)*) => {
        [$((
            const { $crate::monkey::symbol::c_name(concat!(stringify!($name), "\0")) },
            $name as *const () as usize,
            $crate::monkey::symbol::$group,
        )),*]
        .into_iter()
    };
}
pub(super) use listed;

/// A symbol as [`listed`] lists it.
pub(super) type Listed = (&'static CStr, usize, u32);

/// Defines symbols that act on every OS thread, whatever the gate says: `$around` gets the arguments, and libc's call with
/// these arguments, which it makes once. It runs on every call, so it first asks whether anything is armed.
macro_rules! around {
    ($($group:ident $name:ident($($argument:ident: $type:ty),*) -> $result:ty => $around:path;)*) => {
        /// libc's own definitions.
        pub(in crate::monkey) mod original {
            #[allow(unused_imports, reason = "types of arguments, if there are any")]
            use super::*;
            $crate::monkey::symbol::originals! { $($name($($argument: $type),*) -> $result;)* }
        }
        $(
            /// Defined ahead of libc's.
            #[unsafe(no_mangle)]
            unsafe extern "C-unwind" fn $name($($argument: $type),*) -> $result {
                // SAFETY: the caller guarantees arguments that are valid for libc's definition; they are passed on.
                $around($($argument,)* || unsafe { original::$name($($argument),*) })
            }
        )*
        /// The symbols of this module.
        pub(super) fn symbols() -> impl Iterator<Item = $crate::monkey::symbol::Listed> {
            $crate::monkey::symbol::listed! { $($group $name)* }
        }
    };
}
pub(super) use around;

/// The address that the program's calls of `name` are linked to.
pub(super) fn resolved(name: &CStr) -> usize {
    // SAFETY: `name` is a C string; `dlsym` only searches.
    unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) }.addr()
}
