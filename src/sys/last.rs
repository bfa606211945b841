//! The very end of an OS thread, after the destructors of its thread-locals.
//!
//! Destructors of thread-locals run in the order opposite to that in which they were registered, so none is the last
//! for sure. Those of pthread keys come after all of them, in rounds.

use super::fork::{GlobalOnce, Order};

/// What is to be called, and how many rounds have gone by.
struct Last {
    f: unsafe fn(*mut ()) -> bool,
    what: *mut (),
    rounds: usize,
}

/// How many rounds there are: the least that POSIX allows, and what glibc makes.
const ROUNDS: usize = 4;

static KEY: GlobalOnce<Option<libc::pthread_key_t>> = GlobalOnce::new(Order::Key);

/// The key, made if need be; none: the process has no key left.
fn key() -> Option<libc::pthread_key_t> {
    *KEY.get_or_init(|| {
        let mut key = 0;
        // SAFETY: a place for the key, and a destructor that lives as long as the program.
        (unsafe { libc::pthread_key_create(&raw mut key, Some(round)) } == 0).then_some(key)
    })
}

/// Makes what [`at_end`] needs, where that may still wait for another OS thread.
pub(crate) fn prepare() {
    key();
}

/// Has `f(what)` called at the very end of the OS thread that calls, in each round until it gives `true`. One for each OS
/// thread. It is never called on the one that ends the process, nor if there is no key left.
///
/// # Safety
/// `f` may be called with `what` from the end of the thread-locals on, until it gives `true`.
pub(crate) unsafe fn at_end(f: unsafe fn(*mut ()) -> bool, what: *mut ()) {
    let Some(key) = key() else { return };
    let last = Box::into_raw(Box::new(Last { f, what, rounds: 0 }));
    // SAFETY: the key was made by `key`. If there is no memory for the value, it is leaked.
    unsafe { libc::pthread_setspecific(key, last.cast()) };
}

unsafe extern "C" fn round(last: *mut libc::c_void) {
    let last = last.cast::<Last>();
    // SAFETY: `at_end` left it, and it is freed below, when it is not left again.
    let Last { f, what, rounds } = unsafe { &mut *last };
    *rounds += 1;
    // SAFETY: what `at_end` was promised.
    let is_done = unsafe { f(*what) };
    if !is_done
        && *rounds < ROUNDS
        && let Some(key) = key()
    {
        // SAFETY: as in `at_end`.
        unsafe { libc::pthread_setspecific(key, last.cast_const().cast()) };
        return;
    }
    // SAFETY: made by `at_end`, and left to nobody.
    drop(unsafe { Box::from_raw(last) });
}
