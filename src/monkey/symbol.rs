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

/// Defines calls of libc's own definitions. They are looked up before `main`: whoever looks one up takes the loader's lock,
/// which the caller's caller may hold, and cannot be in a signal handler.
macro_rules! originals {
    ($($name:ident($($argument:ident: $type:ty),*) -> $result:ty;)*) => {
        $(
            #[doc = concat!("libc's `", stringify!($name), "`, unpatched.")]
            ///
            /// # Safety
            /// As in C.
            #[inline(always)]
            #[allow(clippy::too_many_arguments, reason = "they are the symbol's")]
            pub unsafe fn $name($($argument: $type),*) -> $result {
                type Call = unsafe extern "C-unwind" fn($($type),*) -> $result;
                let found = found::$name.load(std::sync::atomic::Ordering::Relaxed);
                // SAFETY: libc's definition has this type; the arguments are the caller's affair.
                unsafe { std::mem::transmute::<*mut (), Call>(found)($($argument),*) }
            }
        )*
        /// Where they are.
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
        /// What stands there until it is known, for calls that come before [`look_up`].
        mod first {
            #[allow(unused_imports, reason = "types of arguments, if there are any")]
            use super::*;
            $(
                #[allow(clippy::too_many_arguments, reason = "they are the symbol's")]
                pub(super) unsafe extern "C-unwind" fn $name($($argument: $type),*) -> $result {
                    super::look_up_one(&super::found::$name, concat!(stringify!($name), "\0"));
                    // SAFETY: the arguments are the caller's affair.
                    unsafe { super::$name($($argument),*) }
                }
            )*
        }
        fn look_up_one(place: &std::sync::atomic::AtomicPtr<()>, name: &'static str) {
            let found = $crate::monkey::symbol::find($crate::monkey::symbol::c_name(name));
            place.store(found, std::sync::atomic::Ordering::Relaxed);
        }
        /// Looks all of them up.
        pub(in crate::monkey) fn look_up() {
            $(look_up_one(&found::$name, concat!(stringify!($name), "\0"));)*
        }
    };
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

/// What the program's calls of `name` come to.
pub(super) fn resolved(name: &CStr) -> usize {
    // SAFETY: a search by name.
    unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) }.addr()
}

/// Before `main`, or as the library that this is in is loaded.
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
