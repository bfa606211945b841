//! The answer to "where is my stack?": `pthread_getattr_np`, ahead of libc's, tells of the green stack that the caller is on.
//!
//! `stacker`, and whoever else measures how much stack is left, asks so.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Finds the stack that an address is on: its low end, guard excluded, and its size.
type Find = fn(usize) -> Option<(usize, usize)>;

static FIND: AtomicUsize = AtomicUsize::new(0);

/// Sets who knows the stacks.
pub(crate) fn set_find(find: Find) {
    FIND.store(find as usize, Ordering::Release);
}

/// The bounds of the green stack if the caller asks for itself and is on one; else as libc's.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[unsafe(no_mangle)]
unsafe extern "C" fn pthread_getattr_np(thread: libc::pthread_t, attributes: *mut libc::pthread_attr_t) -> libc::c_int {
    static ORIGINAL: AtomicUsize = AtomicUsize::new(0);
    let find = FIND.load(Ordering::Acquire);
    // SAFETY: asks who runs.
    if find != 0 && thread == unsafe { libc::pthread_self() } {
        // SAFETY: `set_find` stored a `Find`.
        let find = unsafe { std::mem::transmute::<usize, Find>(find) };
        let here = 0_u8;
        if let Some((low, size)) = find((&raw const here).addr()) {
            // libc would look for what it knows of an OS thread.
            // SAFETY: initialises the caller's attributes.
            return unsafe {
                match libc::pthread_attr_init(attributes) {
                    0 => libc::pthread_attr_setstack(attributes, low as *mut _, size),
                    error => error,
                }
            };
        }
    }
    let mut original = ORIGINAL.load(Ordering::Relaxed);
    if original == 0 {
        // SAFETY: a search by name, after this object.
        original = unsafe { libc::dlsym(libc::RTLD_NEXT, c"pthread_getattr_np".as_ptr()) }.addr();
        ORIGINAL.store(original, Ordering::Relaxed);
    }
    if original == 0 {
        return libc::ENOSYS;
    }
    type Original = unsafe extern "C" fn(libc::pthread_t, *mut libc::pthread_attr_t) -> libc::c_int;
    // SAFETY: libc's definition, with the caller's arguments.
    unsafe { std::mem::transmute::<usize, Original>(original)(thread, attributes) }
}
