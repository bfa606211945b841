//! Changing the user and the groups, ahead of libc's: on the native base.
//!
//! glibc has every OS thread of the process change with the caller, and tells the caller apart by its block; one that it does
//! not know would wait for itself for ever.

use std::sync::atomic::{AtomicUsize, Ordering};

use libc::{c_char, c_int, gid_t, size_t, uid_t};

use super::base;

macro_rules! natively {
    ($($name:ident($($argument:ident: $type:ty),*);)*) => {$(
        /// As libc's.
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name($($argument: $type),*) -> c_int {
            static ORIGINAL: AtomicUsize = AtomicUsize::new(0);
            let mut original = ORIGINAL.load(Ordering::Relaxed);
            if original == 0 {
                const NAME: &[u8] = concat!(stringify!($name), "\0").as_bytes();
                // SAFETY: a search by name, after this object.
                original = unsafe { libc::dlsym(libc::RTLD_NEXT, NAME.as_ptr().cast()) }.addr();
                ORIGINAL.store(original, Ordering::Relaxed);
            }
            if original == 0 {
                return libc::ENOSYS;
            }
            // SAFETY: libc's definition has this type; the arguments are the caller's affair.
            let call = || unsafe {
                let f = std::mem::transmute::<usize, unsafe extern "C" fn($($type),*) -> c_int>(original);
                let result = f($($argument),*);
                (result, *libc::__errno_location())
            };
            let (result, error) = base::natively(call);
            if result != 0 {
                // SAFETY: the address of a thread-local of libc's: of the caller's block, which runs again.
                unsafe { *libc::__errno_location() = error };
            }
            result
        }
    )*};
}

natively! {
    setuid(uid: uid_t);
    setgid(gid: gid_t);
    seteuid(uid: uid_t);
    setegid(gid: gid_t);
    setreuid(real: uid_t, effective: uid_t);
    setregid(real: gid_t, effective: gid_t);
    setresuid(real: uid_t, effective: uid_t, saved: uid_t);
    setresgid(real: gid_t, effective: gid_t, saved: gid_t);
    setgroups(count: size_t, groups: *const gid_t);
    initgroups(user: *const c_char, group: gid_t);
}
