//! The base: which set of thread-locals the processor uses. What all processors share; the instructions are the port's.
//!
//! # Invariants
//! - **BASE-1** A base is the address of a thread control block of this OS thread: the native one, or one that
//!   [`glibc`](super::glibc) made.
//! - **BASE-2** A function that changes the base uses no thread-local and is never inlined. The compiler takes the base
//!   for a constant of the function, and may read it as early as the function begins.

use std::cell::Cell;
use std::sync::atomic::{AtomicIsize, AtomicUsize, Ordering};

use libc::{c_char, c_int, gid_t, size_t, uid_t};

use super::port;
pub(crate) use super::port::{get, native, plant, set};

thread_local! {
    /// In the native context: the base to which a fork that is under way returns.
    static FORKING: Cell<usize> = const { Cell::new(0) };
}

/// Where `malloc` and `getrandom` keep their words, from the base on; 0 ends the list.
///
/// The words belong to the OS thread and travel with the base. malloc's arenas count the threads that use them, and all
/// contexts of an OS thread count as one. The state of `getrandom` would be lost with each block that has one.
static TRAVELLING: [AtomicIsize; 4] = [const { AtomicIsize::new(0) }; 4];

/// Sets which words travel.
pub(super) fn set_travelling(offsets: [isize; 4]) {
    for (place, offset) in TRAVELLING.iter().zip(offsets) {
        place.store(offset, Ordering::Relaxed);
    }
}

/// Copies the words that travel from one base to another.
///
/// # Safety
/// Both bases satisfy BASE-1.
#[inline(always)]
pub(crate) unsafe fn carry(from: usize, to: usize) {
    let [one, two, three, four] = TRAVELLING.each_ref().map(|place| place.load(Ordering::Relaxed));
    if two == 0 || four != 0 {
        // SAFETY: the caller guarantees BASE-1 for both bases.
        return unsafe { carry_all(from, to) };
    }
    // The usual case: glibc's malloc has two words, and `getrandom` one or none.
    // SAFETY: BASE-1: the words lie in libc's image or in `struct pthread` of either block.
    unsafe {
        copy_word(from, to, one);
        copy_word(from, to, two);
        if three != 0 {
            copy_word(from, to, three);
        }
    }
}

/// # Safety
/// Both bases satisfy BASE-1, as for [`carry`].
#[cold]
#[inline(never)]
unsafe fn carry_all(from: usize, to: usize) {
    let places = TRAVELLING.iter().map(|place| place.load(Ordering::Relaxed));
    for offset in places.take_while(|offset| *offset != 0) {
        // SAFETY: BASE-1: the word lies in libc's image or in `struct pthread` of either block.
        unsafe { copy_word(from, to, offset) };
    }
}

/// # Safety
/// There is a word at this offset from either base, which no other OS thread uses.
#[inline(always)]
unsafe fn copy_word(from: usize, to: usize, offset: isize) {
    let (from, to) = (from.wrapping_add_signed(offset), to.wrapping_add_signed(offset));
    // SAFETY: the caller guarantees both words.
    unsafe { *(to as *mut usize) = *(from as *const usize) };
}

/// Whether the native base is in use.
#[cfg(feature = "monkey")]
#[inline(always)]
pub(crate) fn is_native() -> bool {
    native() == 0
}

/// Never inlined: it uses a thread-local, and its callers change the base (BASE-2).
#[inline(never)]
fn swap_forking(base: usize) -> usize {
    FORKING.replace(base)
}

/// Goes to the native base before a fork.
///
/// In the child, glibc repairs the block of the only OS thread that is left, and that must be the native one.
#[inline(never)]
pub(crate) fn before_fork() {
    let native = native();
    if native != 0 {
        let base = get();
        // SAFETY: BASE-1: both are bases of this OS thread. BASE-2: this function uses no thread-local itself.
        unsafe {
            carry(base, native);
            set(native);
        }
        // From here on the native thread-locals count: `after_fork` finds the base there, in both processes.
        swap_forking(base);
    }
}

/// Undoes [`before_fork`], in the parent and in the child.
#[inline(never)]
pub(crate) fn after_fork() {
    let base = swap_forking(0);
    if base != 0 {
        let error = if port::FORK_KEEPS_BASE { errno() } else { 0 };
        // SAFETY: BASE-1: the base that the fork was called with. BASE-2: this function uses no thread-local itself.
        unsafe {
            carry(get(), base);
            set(base);
        }
        if port::FORK_KEEPS_BASE {
            set_errno(error);
        }
    }
}

/// Never inlined, like [`swap_forking`].
#[inline(never)]
fn errno() -> c_int {
    // SAFETY: libc returns the address of a thread-local of the running block.
    unsafe { *libc::__errno_location() }
}

/// Never inlined, like [`swap_forking`].
#[inline(never)]
fn set_errno(error: c_int) {
    // SAFETY: libc returns the address of a thread-local of the running block.
    unsafe { *libc::__errno_location() = error };
}

/// Finds out how the base can be changed. Before that [`set`] works too, but slowly.
pub(super) fn prepare() {
    port::prepare();
}

/// Calls `f` with another base, and then returns to this one.
///
/// # Safety
/// Both bases satisfy BASE-1, and `back` is the base that is in use. `f` does not unwind, and returns with the base
/// that it was called with.
#[inline(never)]
pub(crate) unsafe fn call(base: usize, back: usize, f: unsafe fn(*mut ()), argument: *mut ()) {
    // SAFETY: the caller guarantees BASE-1 for both bases, and that `f` neither unwinds nor changes the base. BASE-2:
    // this function uses no thread-local, and the compiler cannot inline `f`, which is a pointer.
    unsafe {
        carry(back, base);
        set(base);
        f(argument);
        carry(base, back);
        set(back);
    }
}

/// Calls `f` with the native base, for calls of libc that work on the OS thread's own block.
pub(crate) fn natively<R>(f: impl FnOnce() -> R) -> R {
    struct Job<F, R>(Option<F>, Option<R>);

    /// Never inlined into the function that changes the base (BASE-2): `f` may use thread-locals.
    #[inline(never)]
    unsafe fn run<F: FnOnce() -> R, R>(job: *mut ()) {
        // SAFETY: `natively` passes the address of its `job`, which outlives the call and has no other user.
        let job = unsafe { &mut *job.cast::<Job<F, R>>() };
        job.1 = job.0.take().map(|f| f());
    }

    fn job<F: FnOnce() -> R, R>(f: F) -> (Job<F, R>, unsafe fn(*mut ())) {
        (Job(Some(f), None), run::<F, R>)
    }

    let native = native();
    if native == 0 {
        return f();
    }
    let (mut job, run) = job(f);
    // SAFETY: BASE-1: the native base of this OS thread, and the base that is in use. `f` is a call of libc's, which
    // does not unwind.
    unsafe { call(native, get(), run, (&raw mut job).cast()) };
    job.1.unwrap_or_else(|| unreachable!("the closure has run"))
}

// Changing the user and the groups: functions defined ahead of libc's, which call libc's on the native base. glibc
// makes every OS thread of the process change along with the caller, and recognises the caller by its block. With a
// block that glibc does not know, it would wait for itself for ever.

macro_rules! native_calls {
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
            let (result, error) = natively(call);
            if result != 0 {
                // SAFETY: the address of `errno` in the caller's block, which is in use again.
                unsafe { *libc::__errno_location() = error };
            }
            result
        }
    )*};
}

native_calls! {
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
