//! The table of patched symbols, and libc's definitions behind them (the originals).

use std::ffi::CStr;

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
    super::set_errno(libc::ENOSYS);
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
        /// The addresses before [`look_up`] has run: a call that comes so early looks its own symbol up.
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
        /// Looks up all of these definitions.
        pub(in crate::monkey) fn look_up() {
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
            $crate::monkey::$group,
        )),*]
        .into_iter()
    };
}
pub(super) use listed;

/// A symbol as [`listed`] lists it.
pub(super) type Listed = (&'static CStr, usize, u32);

/// Defines patched symbols. A call runs the original, unless the gate says that it may park; then it runs `patched`.
///
/// In the native context that costs a comparison and two jumps, because the part that must save registers is a function
/// of its own.
macro_rules! patch {
    ($($group:ident $name:ident($($argument:ident: $type:ty),*) -> $result:ty => $patched:path;)*) => {
        /// libc's own definitions.
        pub(in crate::monkey) mod original {
            #[allow(unused_imports)]
            use super::*;
            $crate::monkey::symbol::originals! { $($name($($argument: $type),*) -> $result;)* }
        }
        $(
            /// Defined ahead of libc's.
            #[unsafe(no_mangle)]
            #[allow(clippy::too_many_arguments, reason = "they are the symbol's")]
            unsafe extern "C-unwind" fn $name($($argument: $type),*) -> $result {
                #[inline(never)]
                #[allow(clippy::too_many_arguments, reason = "they are the symbol's")]
                unsafe extern "C-unwind" fn in_context($($argument: $type),*) -> $result {
                    // SAFETY: the caller guarantees arguments that are valid for libc's definition, and `patched`
                    // requires the same.
                    unsafe {
                        match $crate::monkey::gate($crate::monkey::$group) {
                            None => original::$name($($argument),*),
                            Some(hub) => $patched(hub, $($argument),*),
                        }
                    }
                }
                // SAFETY: the caller guarantees arguments that are valid for libc's definition.
                unsafe {
                    if $crate::monkey::passes() {
                        original::$name($($argument),*)
                    } else {
                        in_context($($argument),*)
                    }
                }
            }
        )*
        /// The symbols of this module.
        pub(super) fn symbols() -> impl Iterator<Item = $crate::monkey::symbol::Listed> {
            $crate::monkey::symbol::listed! { $($group $name)* }
        }
    };
}
pub(super) use patch;

/// All patched symbols.
pub(super) fn all() -> impl Iterator<Item = Listed> {
    let data = super::fd::symbols()
        .chain(super::accept::symbols())
        .chain(super::connect::symbols())
        .chain(super::connect::flag_symbols())
        .chain(super::bulk::symbols())
        .chain(super::ready::symbols());
    let rest = super::sleep::symbols().chain(super::names::symbols());
    let locks = super::futex::symbols()
        .chain(super::locks::symbols())
        .chain(super::locks::release_symbols());
    let threads = super::threads::symbols().chain(super::threads::join_symbols());
    data.chain(rest)
        .chain(super::child::symbols())
        .chain(super::device::symbols())
        .chain(super::handlers::symbols())
        .chain(super::files::symbols())
        .chain(super::ipc::symbols())
        .chain(super::c11::symbols())
        .chain(super::c11::lock_symbols())
        .chain(locks)
        .chain(threads)
}

/// The address that the program's calls of `name` are linked to.
pub(super) fn resolved(name: &CStr) -> usize {
    // SAFETY: `name` is a C string; `dlsym` only searches.
    unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) }.addr()
}

/// Runs before `main`, or when the library that contains this crate is loaded.
#[used]
#[unsafe(link_section = ".init_array")]
static LOOK_UP: extern "C" fn() = look_up;

extern "C" fn look_up() {
    super::accept::original::look_up();
    super::connect::flags::look_up();
    super::connect::original::look_up();
    super::bulk::original::look_up();
    super::c11::original::look_up();
    super::child::original::look_up();
    super::device::original::look_up();
    super::fd::original::look_up();
    super::files::original::look_up();
    super::futex::original::look_up();
    super::ipc::original::look_up();
    super::handlers::original::look_up();
    super::locks::original::look_up();
    super::locks::release::look_up();
    super::names::original::look_up();
    super::ready::original::look_up();
    super::sleep::original::look_up();
    super::threads::original::look_up();
    super::threads::plain::look_up();
}
