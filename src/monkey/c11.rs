//! C11's locks and threads. glibc implements them internally, with the same objects as its pthreads: so the definitions
//! here call the pthread functions, which are patched.

use std::mem::zeroed;

use libc::{c_int, pthread_cond_t, pthread_mutex_t, pthread_t, timespec};

use super::sleep;
use super::symbol::patch;
use crate::hub::Hub;

/// C11's `thrd_success`, and its errors.
const SUCCESS: c_int = 0;
const BUSY: c_int = 1;
const ERROR: c_int = 2;
const NO_MEMORY: c_int = 3;
const TIMED_OUT: c_int = 4;

/// The pthread functions, declared as a C program sees them: linked to this crate's definitions where it has one.
mod pthread {
    use super::*;

    unsafe extern "C" {
        pub(super) fn pthread_mutex_lock(lock: *mut pthread_mutex_t) -> c_int;
        pub(super) fn pthread_mutex_trylock(lock: *mut pthread_mutex_t) -> c_int;
        pub(super) fn pthread_mutex_timedlock(lock: *mut pthread_mutex_t, until: *const timespec) -> c_int;
        pub(super) fn pthread_mutex_unlock(lock: *mut pthread_mutex_t) -> c_int;
        pub(super) fn pthread_cond_wait(condition: *mut pthread_cond_t, lock: *mut pthread_mutex_t) -> c_int;
        pub(super) fn pthread_cond_timedwait(
            condition: *mut pthread_cond_t,
            lock: *mut pthread_mutex_t,
            until: *const timespec,
        ) -> c_int;
        pub(super) fn pthread_cond_signal(condition: *mut pthread_cond_t) -> c_int;
        pub(super) fn pthread_cond_broadcast(condition: *mut pthread_cond_t) -> c_int;
        pub(super) fn pthread_once(once: *mut c_int, f: unsafe extern "C" fn()) -> c_int;
    }
}

patch! {
    TIME thrd_sleep(time: *const timespec, left: *mut timespec) -> c_int => thrd_sleep_green;
    LOCKS thrd_join(id: pthread_t, result: *mut c_int) -> c_int => thrd_join_green;
}

pub(super) fn lock_symbols() -> impl Iterator<Item = super::symbol::Listed> {
    super::symbol::listed! {
        LOCKS mtx_lock LOCKS mtx_trylock LOCKS mtx_timedlock LOCKS mtx_unlock
        LOCKS cnd_wait LOCKS cnd_timedwait LOCKS cnd_signal LOCKS cnd_broadcast LOCKS call_once
    }
}

/// C11's result for an errno.
fn told(error: c_int) -> c_int {
    match error {
        0 => SUCCESS,
        libc::EBUSY => BUSY,
        libc::ENOMEM => NO_MEMORY,
        libc::ETIMEDOUT => TIMED_OUT,
        _ => ERROR,
    }
}

macro_rules! as_pthreads {
    ($($name:ident($($argument:ident: $type:ty),*) => $call:ident;)*) => {
        $(
            /// Defined ahead of libc's.
            #[unsafe(no_mangle)]
            unsafe extern "C-unwind" fn $name($($argument: $type),*) -> c_int {
                // SAFETY: the caller guarantees initialised objects, and glibc's C11 objects are its pthread objects.
                told(unsafe { pthread::$call($($argument),*) })
            }
        )*
    };
}

as_pthreads! {
    mtx_lock(lock: *mut pthread_mutex_t) => pthread_mutex_lock;
    mtx_trylock(lock: *mut pthread_mutex_t) => pthread_mutex_trylock;
    mtx_timedlock(lock: *mut pthread_mutex_t, until: *const timespec) => pthread_mutex_timedlock;
    mtx_unlock(lock: *mut pthread_mutex_t) => pthread_mutex_unlock;
    cnd_wait(condition: *mut pthread_cond_t, lock: *mut pthread_mutex_t) => pthread_cond_wait;
    cnd_timedwait(condition: *mut pthread_cond_t, lock: *mut pthread_mutex_t, until: *const timespec) => pthread_cond_timedwait;
    cnd_signal(condition: *mut pthread_cond_t) => pthread_cond_signal;
    cnd_broadcast(condition: *mut pthread_cond_t) => pthread_cond_broadcast;
}

/// Defined ahead of libc's.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn call_once(once: *mut c_int, f: unsafe extern "C" fn()) {
    // SAFETY: the caller guarantees an initialised flag, and glibc's `once_flag` is a `pthread_once_t`.
    unsafe { pthread::pthread_once(once, f) };
}

unsafe fn thrd_sleep_green(hub: &'static Hub, time: *const timespec, left: *mut timespec) -> c_int {
    // C11 has its own results: 0, -1 for a signal, another negative number for an error.
    // SAFETY: the caller guarantees that `time` is readable, and `left` null or writable; an all-zero `timespec` is
    // valid.
    unsafe {
        let mut unused: timespec = zeroed();
        let left = if left.is_null() { &raw mut unused } else { left };
        match sleep::clock_nanosleep_green(hub, libc::CLOCK_REALTIME, 0, time, left) {
            0 => 0,
            libc::EINTR => -1,
            _ => -2,
        }
    }
}

unsafe fn thrd_join_green(_hub: &'static Hub, id: pthread_t, result: *mut c_int) -> c_int {
    // SAFETY: the caller guarantees a joinable thread, and that `result` is null or writable.
    super::names::apart(|| unsafe { original::thrd_join(id, result) }).unwrap_or(ERROR)
}
