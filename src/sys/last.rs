//! Calls at the very end of an OS thread, after the destructors of its thread-locals; and at the exit of the process.
//!
//! Destructors of thread-locals run in the reverse order of their registration, so none of them is the last for sure.
//! The destructors of pthread keys come after all of them, in rounds.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// The function to call, its argument, and how many rounds have passed.
struct Last {
    f: unsafe fn(*mut ()) -> bool,
    what: *mut (),
    rounds: usize,
}

/// How many rounds there are: the least that POSIX allows, which is what glibc does.
const ROUNDS: usize = 4;

/// The key plus 1; 0 if it has not been made. It is no lock, because a fork might find a lock taken.
static KEY: AtomicU64 = AtomicU64::new(0);

/// The key, which is made at the first call. `None` if the process has no key left.
#[allow(clippy::unnecessary_cast, reason = "the type of a key differs between systems")]
fn key() -> Option<libc::pthread_key_t> {
    let made = match KEY.load(Ordering::Acquire) {
        0 => make()?,
        made => made,
    };
    Some((made - 1) as libc::pthread_key_t)
}

#[cold]
#[allow(clippy::unnecessary_cast, reason = "the type of a key differs between systems")]
fn make() -> Option<u64> {
    let mut key = 0;
    // SAFETY: a place for the key, and a destructor that lives as long as the program.
    if unsafe { libc::pthread_key_create(&raw mut key, Some(round)) } != 0 {
        return None;
    }
    let mine = key as u64 + 1;
    match KEY.compare_exchange(0, mine, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => Some(mine),
        Err(other) => {
            // Another OS thread was first; use its key.
            // SAFETY: this key was just made, and no other code knows it.
            unsafe { libc::pthread_key_delete(key) };
            Some(other)
        }
    }
}

/// Makes the key that [`at_end`] needs, while the OS thread is far from its end.
pub(crate) fn prepare() {
    key();
}

/// Has `f(what)` called at the very end of the calling OS thread, in each round until it returns `true`.
///
/// There is one such call for each OS thread. It is not made on the OS thread that ends the process, nor if there is no
/// key left.
///
/// # Safety
/// Calling `f` with `what` must be sound from the end of the thread-locals on, until it has returned `true`.
pub(crate) unsafe fn at_end(f: unsafe fn(*mut ()) -> bool, what: *mut ()) {
    let Some(key) = key() else { return };
    let last = Box::into_raw(Box::new(Last { f, what, rounds: 0 }));
    // SAFETY: `key` made the key. If there is no memory for the value, `last` is leaked.
    unsafe { libc::pthread_setspecific(key, last.cast()) };
}

unsafe extern "C" fn round(last: *mut libc::c_void) {
    let last = last.cast::<Last>();
    // SAFETY: `at_end` leaked this box. It is freed below, unless it is stored for another round.
    let Last { f, what, rounds } = unsafe { &mut *last };
    *rounds += 1;
    // SAFETY: the caller of `at_end` guarantees that `f` may be called with `what` until it returns `true`.
    let is_done = unsafe { f(*what) };
    if !is_done
        && *rounds < ROUNDS
        && let Some(key) = key()
    // glibc has cleared the value. A value that is set again gets another round.
    {
        // SAFETY: `key` made the key.
        unsafe { libc::pthread_setspecific(key, last.cast_const().cast()) };
        return;
    }
    // SAFETY: `at_end` made the box, and it was not stored for another round.
    drop(unsafe { Box::from_raw(last) });
}

/// Has `f` called when the process exits normally. `f` must not unwind.
pub(crate) fn at_exit(f: fn()) {
    static CALLED: AtomicUsize = AtomicUsize::new(0);
    extern "C" fn call() {
        let f = CALLED.load(Ordering::Acquire);
        // SAFETY: `at_exit` stored a `fn()` before it registered this function.
        let f: fn() = unsafe { std::mem::transmute::<usize, fn()>(f) };
        f();
    }
    CALLED.store(f as usize, Ordering::Release);
    // SAFETY: a function of the right type, which lives as long as the program.
    unsafe { libc::atexit(call) };
}
