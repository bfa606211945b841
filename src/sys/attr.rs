//! `pthread_getattr_np`, defined ahead of libc's: for a caller on a green stack it describes that stack.
//!
//! Crates such as `stacker` call it to measure how much stack is left.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Finds the stack that an address is on: its low end above the guard, and its size.
type Find = fn(usize) -> Option<(usize, usize)>;

static FIND: AtomicUsize = AtomicUsize::new(0);

/// Sets the function that finds stacks.
pub(crate) fn set_find(find: Find) {
    FIND.store(find as usize, Ordering::Release);
}

/// The bounds of the green stack if a caller on one asks for its own thread; otherwise libc's answer.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[unsafe(no_mangle)]
unsafe extern "C" fn pthread_getattr_np(thread: libc::pthread_t, attributes: *mut libc::pthread_attr_t) -> libc::c_int {
    static ORIGINAL: AtomicUsize = AtomicUsize::new(0);
    let find = FIND.load(Ordering::Acquire);
    // SAFETY: reads the id of the calling thread.
    if find != 0 && thread == unsafe { libc::pthread_self() } {
        // SAFETY: `set_find` stored a `Find`.
        let find = unsafe { std::mem::transmute::<usize, Find>(find) };
        let here = 0_u8;
        if let Some((low, size)) = find((&raw const here).addr()) {
            // Attributes with a stack that was set by hand: libc's own function would look for the OS thread's stack.
            // SAFETY: the caller passes a place for attributes, which this initialises.
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
        // SAFETY: `dlsym` with a valid name; it searches the objects after this one.
        original = unsafe { libc::dlsym(libc::RTLD_NEXT, c"pthread_getattr_np".as_ptr()) }.addr();
        ORIGINAL.store(original, Ordering::Relaxed);
    }
    if original == 0 {
        return libc::ENOSYS;
    }
    type Original = unsafe extern "C" fn(libc::pthread_t, *mut libc::pthread_attr_t) -> libc::c_int;
    // SAFETY: libc's definition has this type. The caller guarantees that the arguments are valid for it.
    unsafe { std::mem::transmute::<usize, Original>(original)(thread, attributes) }
}
