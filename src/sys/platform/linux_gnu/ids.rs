//! Changing the user and the groups: functions defined ahead of libc's, which call libc's on the native base.
//!
//! glibc makes every OS thread of the process change along with the caller, and recognises the caller by its block.
//! With a block that glibc does not know, it would wait for itself for ever.

use std::sync::atomic::{AtomicUsize, Ordering};

use libc::{c_char, c_int, gid_t, size_t, uid_t};

use super::base;

macro_rules! natively {
    ($($name:ident($($argument:ident: $type:ty),*);)*) => {$(
        /// Like libc's.
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name($($argument: $type),*) -> c_int {
            static ORIGINAL: AtomicUsize = AtomicUsize::new(0);
            let mut original = ORIGINAL.load(Ordering::Relaxed);
            if original == 0 {
                const NAME: &[u8] = concat!(stringify!($name), "\0").as_bytes();
                // SAFETY: `dlsym` with a valid name; it searches the objects after this one.
                original = unsafe { libc::dlsym(libc::RTLD_NEXT, NAME.as_ptr().cast()) }.addr();
                ORIGINAL.store(original, Ordering::Relaxed);
            }
            if original == 0 {
                return libc::ENOSYS;
            }
            // SAFETY: libc's definition has this type. The caller guarantees that the arguments are valid for it.
            let call = || unsafe {
                let f = std::mem::transmute::<usize, unsafe extern "C" fn($($type),*) -> c_int>(original);
                let result = f($($argument),*);
                // `errno` of the native block, which the call has set. The caller reads its own.
                (result, *libc::__errno_location())
            };
            let (result, error) = base::natively(call);
            if result != 0 {
                // SAFETY: the address of `errno` in the caller's block, which is in use again.
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
