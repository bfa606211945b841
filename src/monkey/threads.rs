//! std's threads as isolated green threads (opt-in): `std::thread::spawn` in an isolated green thread spawns another
//! one.
//!
//! Only std's threads: they all begin at one function of std, which is learnt by spawning a thread when patching is
//! armed. The threads of C libraries stay OS threads.
//!
//! A green thread's `pthread_t` is a number that this module makes up; joins and detaches look it up. At its start, a
//! std thread sets its name and an alternate signal stack: for a green thread these calls do not reach the OS thread.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use libc::{c_char, c_int, c_void, pthread_attr_t, pthread_t, stack_t};

use super::gate::{LOCKS, THREADS, contained, gate};
use super::offload::on_own_thread;
use super::symbol::{Lent, errno, patch, set_errno};
use crate::hub::Hub;
use crate::sys::fork::{Global, Order};
use crate::thread::{Builder, JoinHandle, shield};

/// A thread's start routine in C.
type Start = unsafe extern "C-unwind" fn(*mut c_void) -> *mut c_void;

patch! {
    THREADS pthread_setname_np(id: pthread_t, name: *const c_char) -> c_int => setname_green;
    THREADS sigaltstack(new: *const stack_t, old: *mut stack_t) -> c_int => sigaltstack_green;
    LOCKS thrd_join(id: pthread_t, result: *mut c_int) -> c_int => thrd_join_green;
}

/// The address of the start routine of std's threads; 0 until it is learnt.
static STD: AtomicUsize = AtomicUsize::new(0);
/// The thread that spawns one to learn it, by the address of a thread-local; 0 if there is none.
static LEARNING: AtomicUsize = AtomicUsize::new(0);

/// The handles of green threads that are neither joined nor detached, by their `pthread_t`.
static GREEN: Global<Option<HashMap<pthread_t, JoinHandle<usize>>>> = Global::new(Order::Green, None);
/// 1 if there was ever such a handle: until then a join takes no lock.
static ANY: AtomicUsize = AtomicUsize::new(0);

/// Runs `f` with the handles, under their lock.
fn green<R>(f: impl FnOnce(&mut HashMap<pthread_t, JoinHandle<usize>>) -> R) -> R {
    let mut green = GREEN.lock();
    f(green.get_or_insert_default())
}

/// Learns where std's threads begin. False: it did not work.
pub(super) fn learn() -> bool {
    static ONE: Global<()> = Global::new(Order::Learning, ());
    let _one = ONE.lock();
    if STD.load(Ordering::SeqCst) == 0 {
        // `pthread_create` below sees that this thread learns, and notes the start routine.
        LEARNING.store(os_thread_key(), Ordering::SeqCst);
        // Joined, so that `pthread_create` has seen it. A failure to spawn shows in `STD`.
        let _ = std::thread::spawn(|| ()).join();
        LEARNING.store(0, Ordering::SeqCst);
    }
    STD.load(Ordering::SeqCst) != 0
}

/// Identifies the running thread, by the address of a thread-local.
fn os_thread_key() -> usize {
    thread_local!(static HERE: u8 = const { 0 });
    HERE.with(|here| std::ptr::from_ref(here).addr())
}

/// Notes the start routine, if it is that of the thread which [`learn`] spawns.
fn observe(start: Option<Start>) {
    let learning = LEARNING.load(Ordering::SeqCst);
    if learning != 0
        && learning == os_thread_key()
        && let Some(start) = start
    {
        STD.store(start as usize, Ordering::SeqCst);
    }
}

/// A start routine and its argument, for the green thread that runs it.
struct Job(Start, *mut c_void);
// SAFETY: the caller of `pthread_create` passes both to be used on another thread.
unsafe impl Send for Job {}

impl Job {
    fn run(self) -> usize {
        // SAFETY: the routine is called once, with its argument, on a thread of its own, as `pthread_create` promises.
        unsafe { (self.0)(self.1) }.addr()
    }
}

/// Defined ahead of libc's: makes a std thread a green thread where that is armed and possible.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn pthread_create(
    id: *mut pthread_t,
    attributes: *const pthread_attr_t,
    start: Option<Start>,
    argument: *mut c_void,
) -> c_int {
    observe(start);
    let known = start.filter(|start| *start as usize == STD.load(Ordering::Relaxed));
    // This crate starts its own OS threads by std as well: those (`starts`) stay OS threads.
    match known.filter(|_| gate(THREADS).is_some() && !crate::sys::thread::starts()) {
        // SAFETY: the caller guarantees a place for the id, attributes that are null or initialised, and an argument
        // that is valid for the routine.
        Some(start) => unsafe { create_green(id, attributes, start, argument) },
        // SAFETY: the caller guarantees arguments that are valid for libc's definition; they are passed on.
        None => unsafe { plain::pthread_create(id, attributes, start, argument) },
    }
}

unsafe fn create_green(
    id: *mut pthread_t,
    attributes: *const pthread_attr_t,
    start: Start,
    argument: *mut c_void,
) -> c_int {
    let mut size = crate::stack::default_size();
    if !attributes.is_null() {
        // SAFETY: the attributes are not null, so the caller guarantees that they are initialised.
        unsafe { libc::pthread_attr_getstacksize(attributes, &raw mut size) };
    }
    let job = Job(start, argument);
    let spawned = contained(|| Builder::new().stack_size(size).spawn(move || job.run()));
    // What `pthread_create` reports when there is no memory for a stack, say.
    let Some(Ok(handle)) = spawned else {
        return libc::EAGAIN;
    };
    // glibc's `pthread_t` is an address, and no address is as large as these numbers.
    static NEXT: AtomicUsize = AtomicUsize::new(1 << 62);
    let number = NEXT.fetch_add(1, Ordering::Relaxed) as pthread_t;
    green(|green| green.insert(number, handle));
    ANY.store(1, Ordering::SeqCst);
    // SAFETY: the caller guarantees a place for the id.
    unsafe { *id = number };
    0
}

/// Takes the handle of a green thread; `None` for an OS thread.
fn take(id: pthread_t) -> Option<JoinHandle<usize>> {
    if ANY.load(Ordering::SeqCst) == 0 {
        return None;
    }
    green(|green| green.remove(&id))
}

/// libc's own definitions, for OS threads.
pub(in crate::monkey) mod plain {
    use super::*;

    super::super::symbol::originals! {
        pthread_create(id: *mut pthread_t, attributes: *const pthread_attr_t, start: Option<Start>, argument: *mut c_void) -> c_int;
        pthread_join(id: pthread_t, value: *mut *mut c_void) -> c_int;
        pthread_detach(id: pthread_t) -> c_int;
    }
}

/// Defined ahead of libc's: joins a green thread, from any thread; for the join of an OS thread, an OS thread waits in
/// the caller's place if the caller may park.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn pthread_join(id: pthread_t, value: *mut *mut c_void) -> c_int {
    let Some(handle) = take(id) else {
        // SAFETY: the caller guarantees a joinable thread, and a place for the result, or null, for the time of the
        // call.
        return unsafe {
            let join = || plain::pthread_join(id, value);
            match gate(LOCKS) {
                // The thread to join is an OS thread, and has no descriptor to wait for.
                Some(_) => on_own_thread(Lent::new(join)).unwrap_or_else(join),
                None => join(),
            }
        };
    };
    // `pthread_join` reports no interrupt, so the shield defers a kill to the next wait.
    let ended = contained(|| shield(|| handle.join()));
    if !value.is_null() {
        let result = ended.and_then(Result::ok).unwrap_or_default();
        // SAFETY: `value` is not null, so the caller guarantees that it is writable.
        unsafe { *value = std::ptr::with_exposed_provenance_mut(result) };
    }
    0
}

/// Defined ahead of libc's: drops the handle of a green thread.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn pthread_detach(id: pthread_t) -> c_int {
    match take(id) {
        Some(handle) => {
            drop(handle);
            0
        }
        // SAFETY: the caller guarantees a joinable thread.
        None => unsafe { plain::pthread_detach(id) },
    }
}

unsafe fn setname_green(_hub: &'static Hub, id: pthread_t, name: *const c_char) -> c_int {
    // In a green thread `pthread_self` is that of its context: a green thread must not rename the OS thread.
    // SAFETY: the caller guarantees a thread id and a C string.
    unsafe {
        if id == libc::pthread_self() {
            0
        } else {
            original::pthread_setname_np(id, name)
        }
    }
}

unsafe fn sigaltstack_green(_hub: &'static Hub, _new: *const stack_t, old: *mut stack_t) -> c_int {
    let before = errno();
    // A new stack is ignored: the alternate stack belongs to the OS thread, which has one already. Only the query is
    // made.
    // SAFETY: the caller guarantees that `old` is null or writable.
    let result = unsafe { original::sigaltstack(std::ptr::null(), old) };
    set_errno(before);
    result
}

unsafe fn thrd_join_green(_hub: &'static Hub, id: pthread_t, result: *mut c_int) -> c_int {
    const THRD_ERROR: c_int = 2;
    // SAFETY: the caller guarantees a joinable thread, and that `result` is null or writable, for the time of the call.
    unsafe { on_own_thread(Lent::new(|| original::thrd_join(id, result))) }.unwrap_or(THRD_ERROR)
}

pub(super) fn join_symbols() -> impl Iterator<Item = super::symbol::Listed> {
    super::symbol::listed! { THREADS pthread_create THREADS pthread_join THREADS pthread_detach }
}
