//! std's threads as isolated green threads (opt-in): `std::thread::spawn`, called in one, makes another.
//!
//! Only std's: they all begin at one function of std's, which is learnt by spawning one when patching is armed. A C library's
//! threads stay what they are.
//!
//! A green thread's `pthread_t` is a number of ours, which joins and detaches look up. What std does at a thread's start is
//! kept from the OS thread: its name, and its alternate signal stack.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use libc::{c_char, c_int, c_void, pthread_attr_t, pthread_t, stack_t};

use super::symbol::patch;
use super::{contained, set_errno};
use crate::hub::Hub;
use crate::sys::fork::{Global, Order};
use crate::thread::{Builder, JoinHandle, shield};

/// Where a thread of C's begins.
type Start = unsafe extern "C-unwind" fn(*mut c_void) -> *mut c_void;

patch! {
    THREADS pthread_setname_np(id: pthread_t, name: *const c_char) -> c_int => setname_green;
    THREADS sigaltstack(new: *const stack_t, old: *mut stack_t) -> c_int => sigaltstack_green;
}

/// Where std's threads begin; 0 until it is learnt.
static STD: AtomicUsize = AtomicUsize::new(0);
/// The OS thread that spawns one to learn it, by the address of a thread-local; or 0.
static LEARNING: AtomicUsize = AtomicUsize::new(0);

/// Handles of green threads that were neither joined nor detached, by their `pthread_t`.
static GREEN: Global<Option<HashMap<pthread_t, JoinHandle<usize>>>> = Global::new(Order::Green, None);
/// Whether there was ever one.
static ANY: AtomicUsize = AtomicUsize::new(0);

fn green<R>(f: impl FnOnce(&mut HashMap<pthread_t, JoinHandle<usize>>) -> R) -> R {
    let mut green = GREEN.lock();
    f(green.get_or_insert_default())
}

/// Learns where std's threads begin; whether that worked.
pub(super) fn learn() -> bool {
    static ONE: Global<()> = Global::new(Order::Learning, ());
    let _one = ONE.lock();
    if STD.load(Ordering::SeqCst) == 0 {
        LEARNING.store(whose(), Ordering::SeqCst);
        let _ = std::thread::spawn(|| ()).join();
        LEARNING.store(0, Ordering::SeqCst);
    }
    STD.load(Ordering::SeqCst) != 0
}

fn whose() -> usize {
    thread_local!(static HERE: u8 = const { 0 });
    HERE.with(|here| std::ptr::from_ref(here).addr())
}

/// Looks at the thread that `learn` spawns.
fn observe(start: Option<Start>) {
    let learning = LEARNING.load(Ordering::SeqCst);
    if learning != 0
        && learning == whose()
        && let Some(start) = start
    {
        STD.store(start as usize, Ordering::SeqCst);
    }
}

/// A start routine and its argument, for the green thread that runs it.
struct Job(Start, *mut c_void);
// SAFETY: what `pthread_create` hands to another thread.
unsafe impl Send for Job {}

impl Job {
    fn run(self) -> usize {
        // SAFETY: called once, as `pthread_create` would on a thread of its own.
        unsafe { (self.0)(self.1) }.addr()
    }
}

/// Ahead of libc's.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn pthread_create(
    id: *mut pthread_t,
    attributes: *const pthread_attr_t,
    start: Option<Start>,
    argument: *mut c_void,
) -> c_int {
    observe(start);
    let known = start.filter(|start| *start as usize == STD.load(Ordering::Relaxed));
    match known.filter(|_| super::gate(super::THREADS).is_some() && !crate::sys::thread::starts()) {
        // SAFETY: the caller's, as libc's.
        Some(start) => unsafe { create_green(id, attributes, start, argument) },
        // SAFETY: as above.
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
        // SAFETY: initialised attributes.
        unsafe { libc::pthread_attr_getstacksize(attributes, &raw mut size) };
    }
    let job = Job(start, argument);
    let spawned = contained(|| Builder::new().stack_size(size).spawn(move || job.run()));
    let Some(Ok(handle)) = spawned else {
        return libc::EAGAIN;
    };
    // Above all addresses, so above all of glibc's.
    static NEXT: AtomicUsize = AtomicUsize::new(1 << 62);
    let number = NEXT.fetch_add(1, Ordering::Relaxed) as pthread_t;
    green(|green| green.insert(number, handle));
    ANY.store(1, Ordering::SeqCst);
    // SAFETY: the caller's place for it.
    unsafe { *id = number };
    0
}

fn take(id: pthread_t) -> Option<JoinHandle<usize>> {
    if ANY.load(Ordering::SeqCst) == 0 {
        return None;
    }
    green(|green| green.remove(&id))
}

/// What libc does, for those that are not green.
pub(in crate::monkey) mod plain {
    use super::*;

    super::super::symbol::originals! {
        pthread_create(id: *mut pthread_t, attributes: *const pthread_attr_t, start: Option<Start>, argument: *mut c_void) -> c_int;
        pthread_join(id: pthread_t, value: *mut *mut c_void) -> c_int;
        pthread_detach(id: pthread_t) -> c_int;
    }
}

/// Ahead of libc's: waits for a green thread, from wherever, or, by an OS thread, for another.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn pthread_join(id: pthread_t, value: *mut *mut c_void) -> c_int {
    let Some(handle) = take(id) else {
        // SAFETY: the caller's, as libc's.
        let join = || unsafe { plain::pthread_join(id, value) };
        return match super::gate(super::LOCKS) {
            // An OS thread: others run while another waits for it.
            Some(_) => super::names::apart(join).unwrap_or_else(join),
            None => join(),
        };
    };
    let ended = contained(|| shield(|| handle.join()));
    if !value.is_null() {
        let result = ended.and_then(Result::ok).unwrap_or_default();
        // SAFETY: the caller's place for it.
        unsafe { *value = std::ptr::with_exposed_provenance_mut(result) };
    }
    0
}

/// Ahead of libc's.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn pthread_detach(id: pthread_t) -> c_int {
    match take(id) {
        Some(handle) => {
            drop(handle);
            0
        }
        // SAFETY: the caller's, as libc's.
        None => unsafe { plain::pthread_detach(id) },
    }
}

unsafe fn setname_green(_hub: &'static Hub, id: pthread_t, name: *const c_char) -> c_int {
    // SAFETY: the caller's, as libc's; a green thread does not name the OS thread.
    unsafe {
        if id == libc::pthread_self() {
            0
        } else {
            original::pthread_setname_np(id, name)
        }
    }
}

unsafe fn sigaltstack_green(_hub: &'static Hub, _new: *const stack_t, old: *mut stack_t) -> c_int {
    let before = super::errno();
    // SAFETY: the caller's, as libc's. It may ask; to set another is the OS thread's affair, which has one.
    let result = unsafe { original::sigaltstack(std::ptr::null(), old) };
    set_errno(before);
    result
}

pub(super) fn join_symbols() -> impl Iterator<Item = super::symbol::Listed> {
    super::symbol::listed! { THREADS pthread_create THREADS pthread_join THREADS pthread_detach }
}
