//! Where C calls this crate's part `sys`: before `main`, around a fork, at the very end of an OS thread, at the exit of
//! the process, and for the bounds of a stack.

#[cfg(all(target_os = "linux", target_env = "gnu"))]
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::{AtomicU64, Ordering};

use once_cell::race::OnceRef;

use super::fork;

/// Runs before `main`, or when the library that contains this crate is loaded: see [`fork::register`].
#[used]
#[cfg_attr(not(target_vendor = "apple"), unsafe(link_section = ".init_array"))]
#[cfg_attr(target_vendor = "apple", unsafe(link_section = "__DATA,__mod_init_func"))]
static REGISTER: extern "C" fn() = register;

extern "C" fn register() {
    fork::register();
}

/// Has each fork from now on call the handlers of [`fork`].
pub(super) fn handle_forks() {
    extern "C" fn before() {
        fork::before();
    }
    extern "C" fn after_in_parent() {
        fork::after_in_parent();
    }
    extern "C" fn after_in_child() {
        fork::after_in_child();
    }
    // SAFETY: functions of the right type, which live as long as the program. The one for the child finds each lock of
    // this crate free (FORK-1), and runs with the allocator that `fork::register` has made ready for that.
    unsafe { libc::pthread_atfork(Some(before), Some(after_in_parent), Some(after_in_child)) };
}

// The very end of an OS thread comes after the destructors of its thread-locals. These run in the reverse order of
// their registration, so none of them is the last for sure. The destructors of pthread keys come after all of them, in
// rounds.

/// A function to call at the very end, its argument, and how many rounds have passed.
struct Last {
    f: unsafe fn(*mut ()) -> bool,
    what: *mut (),
    rounds: usize,
}

/// How many rounds there are: the least that POSIX allows, which is what glibc does.
const ROUNDS: usize = 4;

/// The key plus 1; 0 if the key has not been made. An atomic and not a lock, because a fork might find a lock taken.
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

/// Has `f` called when the process exits normally; once in the process. If `f` unwinds, the process aborts.
pub(crate) fn at_exit(f: &'static fn()) {
    static CALLED: OnceRef<'static, fn()> = OnceRef::new();
    extern "C" fn call() {
        if let Some(f) = CALLED.get() {
            f();
        }
    }
    let _ = CALLED.set(f);
    // SAFETY: a function of the right type, which lives as long as the program.
    unsafe { libc::atexit(call) };
}

/// Finds the stack that an address is on: its low end above the guard, and its size.
type Find = fn(usize) -> Option<(usize, usize)>;

static FIND: OnceRef<'static, Find> = OnceRef::new();

/// Sets the function that finds stacks.
pub(crate) fn set_find(find: &'static Find) {
    let _ = FIND.set(find);
}

/// Defined ahead of libc's: for a caller on a green stack that asks for its own thread, the bounds of that stack;
/// otherwise libc's answer. Crates such as `stacker` call it to measure how much stack is left.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[unsafe(no_mangle)]
unsafe extern "C" fn pthread_getattr_np(thread: libc::pthread_t, attributes: *mut libc::pthread_attr_t) -> libc::c_int {
    static ORIGINAL: AtomicUsize = AtomicUsize::new(0);
    if let Some(find) = FIND.get()
        // SAFETY: reads the id of the calling thread.
        && thread == unsafe { libc::pthread_self() }
    {
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
