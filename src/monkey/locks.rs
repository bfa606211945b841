//! C's locks: mutexes, condition variables, read-write locks, semaphores, `pthread_once`; and `sched_yield`, by which code
//! waits that asks again and again.
//!
//! Try first; who finds a lock taken waits in the table of [`futex`], by its address, and whoever
//! releases one looks there. glibc's own releases (inside `pthread_cond_wait`, say) do not come by: so every wait here looks
//! again after a few milliseconds.
//!
//! Locks that are shared between processes, or inherit priorities, wait in the kernel as ever.
//!
//! # Invariants
//! - **L1** Nobody parks below `malloc` for a mutex. An allocator's mutex is held by code that runs, on whatever OS thread,
//!   for a few instructions; one that a green thread of this OS thread holds while another runs is held over a switch, and
//!   so it is none of an allocator's, as long as nobody switches below `malloc`. Therefore a caller parks for a mutex of
//!   this OS thread's, and waits with the OS thread for any other, [`PATIENCE`] looks long: after that it is none of an
//!   allocator's either, and its holder may wait for a green thread of ours.
//! - **L2** What has no known holder (a semaphore, readers, a futex, `sched_yield`) parks wherever it may: not while this
//!   crate is inside itself (M1). An allocator that waits so is entered by other green threads meanwhile, as it is by other
//!   OS threads; it must not hold a second lock then, for which the hub would wait.
//! - **L3** A wait that cannot park (a fault of ours, contained) is the original call.

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use libc::{
    c_int, clockid_t, pthread_barrier_t, pthread_cond_t, pthread_mutex_t, pthread_once_t, pthread_rwlock_t, sem_t,
    timespec,
};

use super::futex::{Waiting, wake_by};
use super::symbol::patch;
use super::{contained, errno, fail, names, set_errno, sleep};
use crate::hub::Hub;
use crate::hub::park::{Mode, Parker, Wake, Why};

patch! {
    LOCKS pthread_mutex_lock(mutex: *mut pthread_mutex_t) -> c_int => mutex_lock_green;
    LOCKS pthread_mutex_timedlock(mutex: *mut pthread_mutex_t, until: *const timespec) -> c_int => mutex_timedlock_green;
    LOCKS pthread_cond_wait(condition: *mut pthread_cond_t, mutex: *mut pthread_mutex_t) -> c_int => cond_wait_green;
    LOCKS pthread_cond_timedwait(condition: *mut pthread_cond_t, mutex: *mut pthread_mutex_t, until: *const timespec) -> c_int => cond_timedwait_green;
    LOCKS pthread_cond_clockwait(condition: *mut pthread_cond_t, mutex: *mut pthread_mutex_t, clock: clockid_t, until: *const timespec) -> c_int => cond_clockwait_green;
    LOCKS pthread_mutex_clocklock(mutex: *mut pthread_mutex_t, clock: clockid_t, until: *const timespec) -> c_int => mutex_clocklock_green;
    LOCKS pthread_rwlock_rdlock(lock: *mut pthread_rwlock_t) -> c_int => rwlock_rdlock_green;
    LOCKS pthread_rwlock_wrlock(lock: *mut pthread_rwlock_t) -> c_int => rwlock_wrlock_green;
    LOCKS pthread_rwlock_timedrdlock(lock: *mut pthread_rwlock_t, until: *const timespec) -> c_int => rwlock_timedrdlock_green;
    LOCKS pthread_rwlock_timedwrlock(lock: *mut pthread_rwlock_t, until: *const timespec) -> c_int => rwlock_timedwrlock_green;
    LOCKS pthread_rwlock_clockrdlock(lock: *mut pthread_rwlock_t, clock: clockid_t, until: *const timespec) -> c_int => rwlock_clockrdlock_green;
    LOCKS pthread_rwlock_clockwrlock(lock: *mut pthread_rwlock_t, clock: clockid_t, until: *const timespec) -> c_int => rwlock_clockwrlock_green;
    LOCKS pthread_barrier_wait(barrier: *mut pthread_barrier_t) -> c_int => barrier_wait_green;
    LOCKS sem_wait(semaphore: *mut sem_t) -> c_int => sem_wait_green;
    LOCKS sem_timedwait(semaphore: *mut sem_t, until: *const timespec) -> c_int => sem_timedwait_green;
    LOCKS sem_clockwait(semaphore: *mut sem_t, clock: clockid_t, until: *const timespec) -> c_int => sem_clockwait_green;
    LOCKS pthread_once(control: *mut pthread_once_t, start: Option<unsafe extern "C-unwind" fn()>) -> c_int => once_green;
    LOCKS sched_yield() -> c_int => sched_yield_green;
    LOCKS thrd_yield() -> () => thrd_yield_green;
}

/// Defines releases: the original, and then a look for those who wait. They act on every OS thread.
macro_rules! releases {
    ($($name:ident($argument:ident: $type:ty) wakes $count:expr;)*) => {
        /// What libc does.
        pub(in crate::monkey) mod release {
            use super::*;
            crate::monkey::symbol::originals! { $($name($argument: $type) -> c_int;)* }
        }
        $(
            /// Ahead of libc's.
            #[unsafe(no_mangle)]
            unsafe extern "C-unwind" fn $name($argument: $type) -> c_int {
                #[inline(never)]
                unsafe extern "C-unwind" fn armed($argument: $type) -> c_int {
                    // SAFETY: the argument is the caller's affair.
                    let result = unsafe { release::$name($argument) };
                    wake_by($argument.addr(), $count);
                    result
                }
                // SAFETY: as above.
                unsafe {
                    if super::is_armed() { armed($argument) } else { release::$name($argument) }
                }
            }
        )*
        pub(super) fn release_symbols() -> impl Iterator<Item = super::symbol::Listed> {
            super::symbol::listed! { $(LOCKS $name)* }
        }
    };
}

releases! {
    pthread_mutex_unlock(mutex: *mut pthread_mutex_t) wakes 1;
    pthread_cond_signal(condition: *mut pthread_cond_t) wakes 1;
    pthread_cond_broadcast(condition: *mut pthread_cond_t) wakes usize::MAX;
    pthread_rwlock_unlock(lock: *mut pthread_rwlock_t) wakes usize::MAX;
    sem_post(semaphore: *mut sem_t) wakes 1;
}

static LOCK: &str = "a lock of a C library";

/// How long a wait lasts before it looks again by itself.
const LOOK: Duration = Duration::from_millis(5);

/// How many such looks find a mutex held by code that runs elsewhere, before a caller parks for it (L1).
const PATIENCE: u32 = 200;

/// A time on a clock, at which a wait ends.
#[derive(Clone, Copy)]
struct Until {
    clock: clockid_t,
    at: Duration,
}

impl Until {
    /// `None` if it makes no sense.
    ///
    /// # Safety
    /// `at` may be read.
    unsafe fn new(clock: clockid_t, at: *const timespec) -> Option<Until> {
        if !matches!(clock, libc::CLOCK_REALTIME | libc::CLOCK_MONOTONIC) {
            return None;
        }
        // SAFETY: the caller's.
        let at = unsafe { sleep::moment(at) }?;
        Some(Until { clock, at })
    }

    fn left(self) -> Duration {
        self.at.saturating_sub(sleep::now(self.clock))
    }
}

/// What is known of who has a lock that is taken.
#[derive(Clone, Copy)]
enum Holder {
    /// A mutex's owner: 0 in the moment before it says so.
    Owner(u32),
    /// A read-write lock's writer: 0 if readers have it, of whom nothing is known.
    Writer(u32),
}

impl Holder {
    /// Whether it runs on another OS thread, or may. It then gives the lock back without our help, and may be an
    /// allocator; a lock that a green thread holds over a switch is none of an allocator's (L1).
    fn may_run(self, hub: &Hub) -> bool {
        match self {
            Holder::Owner(owner) => !hub.is_of_here(owner),
            Holder::Writer(writer) => writer != 0 && !hub.is_of_here(writer),
        }
    }
}

/// A lock, and how to get it.
struct Lock<'a> {
    address: usize,
    /// Tries; what it says as long as the lock is taken is `busy`.
    attempt: &'a dyn Fn() -> c_int,
    busy: c_int,
    /// If it says who has it.
    held: Option<Held<'a>>,
}

/// A lock that says who has it.
struct Held<'a> {
    by: &'a dyn Fn() -> Holder,
    /// Waits for it with the OS thread, until a time of the monotonic clock.
    wait: &'a dyn Fn(&timespec) -> c_int,
}

impl Lock<'_> {
    /// Waits until it is not busy any more, or `until` has passed. `None`: it could not wait, and nothing has happened.
    fn wait(&self, hub: &'static Hub, until: Option<Until>) -> Option<c_int> {
        let result = (self.attempt)();
        if result != self.busy {
            return Some(result);
        }
        let mut patience = PATIENCE;
        contained(|| {
            loop {
                let left = until.map_or(LOOK, |until| until.left().min(LOOK));
                if left.is_zero() {
                    return libc::ETIMEDOUT;
                }
                let result = match &self.held {
                    Some(held) if patience > 0 && (held.by)().may_run(hub) => {
                        patience -= 1;
                        match (held.wait)(&from_now(left)) {
                            // An older libc has no such call: -1.
                            libc::ETIMEDOUT | -1 => self.busy,
                            result => result,
                        }
                    }
                    _ => self.park(hub, left),
                };
                if result != self.busy {
                    return result;
                }
            }
        })
    }

    /// Parks until somebody releases it, but no longer than `left`.
    fn park(&self, hub: &'static Hub, left: Duration) -> c_int {
        let mut result = self.busy;
        let waiting = Waiting::new(self.address, u32::MAX);
        let parker = Parker::new();
        let is_busy = waiting.arm(parker.waiter(), || {
            result = (self.attempt)();
            result == self.busy
        });
        if is_busy {
            parker.park(Some(hub.after(left)), Mode::Must, Why::new(&LOCK, self.address));
            result = (self.attempt)();
        }
        result
    }
}

/// That long from now, on the monotonic clock.
fn from_now(left: Duration) -> timespec {
    let at = sleep::now(libc::CLOCK_MONOTONIC) + left;
    timespec {
        tv_sec: at.as_secs() as libc::time_t,
        tv_nsec: at.subsec_nanos().into(),
    }
}

/// Whether a mutex waits in the kernel as ever: shared, robust, with priorities; or ours already, in a kind that says so.
///
/// # Safety
/// An initialised mutex: glibc keeps its owner in the third word of four bytes and its kind in the fifth.
unsafe fn is_special(mutex: *mut pthread_mutex_t) -> bool {
    const CHECKS: u32 = libc::PTHREAD_MUTEX_ERRORCHECK as u32;
    const ELISION: u32 = 0x300;
    // SAFETY: the caller's; plain reads, as glibc's own.
    let (owner, kind) = unsafe { (*mutex.cast::<u32>().add(2), *mutex.cast::<u32>().add(4)) };
    let kind = kind & !ELISION;
    kind & !3 != 0 || kind == CHECKS && Some(owner) == crate::sys::glibc::own_id()
}

/// Waits for a mutex. `None`: it could not wait, and nothing has happened.
///
/// # Safety
/// An initialised mutex that is not special.
unsafe fn mutex_wait(hub: &'static Hub, mutex: *mut pthread_mutex_t, until: Option<Until>) -> Option<c_int> {
    // SAFETY: the caller's: glibc's owner is the third word of four bytes, and written while others look.
    let owner = unsafe { AtomicU32::from_ptr(mutex.cast::<u32>().add(2)) };
    let lock = Lock {
        address: mutex.addr(),
        // SAFETY: the caller's.
        attempt: &|| unsafe { libc::pthread_mutex_trylock(mutex) },
        busy: libc::EBUSY,
        held: Some(Held {
            by: &|| Holder::Owner(owner.load(Ordering::Relaxed)),
            // SAFETY: the caller's.
            wait: &|at| unsafe { original::pthread_mutex_clocklock(mutex, libc::CLOCK_MONOTONIC, at) },
        }),
    };
    lock.wait(hub, until)
}

unsafe fn mutex_lock_green(hub: &'static Hub, mutex: *mut pthread_mutex_t) -> c_int {
    // SAFETY: the caller's, as libc's.
    unsafe {
        let waited = if is_special(mutex) {
            None
        } else {
            mutex_wait(hub, mutex, None)
        };
        waited.unwrap_or_else(|| original::pthread_mutex_lock(mutex))
    }
}

unsafe fn mutex_timedlock_green(hub: &'static Hub, mutex: *mut pthread_mutex_t, until: *const timespec) -> c_int {
    // SAFETY: the caller's, as libc's.
    unsafe { mutex_clocklock_green(hub, mutex, libc::CLOCK_REALTIME, until) }
}

unsafe fn mutex_clocklock_green(
    hub: &'static Hub,
    mutex: *mut pthread_mutex_t,
    clock: clockid_t,
    until: *const timespec,
) -> c_int {
    // SAFETY: the caller's, as libc's.
    unsafe {
        let plain = || original::pthread_mutex_clocklock(mutex, clock, until);
        if is_special(mutex) {
            return plain();
        }
        // A lock that is free does not look at the time.
        match libc::pthread_mutex_trylock(mutex) {
            libc::EBUSY => {}
            result => return result,
        }
        match Until::new(clock, until) {
            until @ Some(_) => mutex_wait(hub, mutex, until).unwrap_or_else(plain),
            None => libc::EINVAL,
        }
    }
}

/// Waits for a condition variable; `plain` is the call that was made.
///
/// # Safety
/// As for `pthread_cond_wait`.
unsafe fn cond_wait(
    hub: &'static Hub,
    condition: *mut pthread_cond_t,
    mutex: *mut pthread_mutex_t,
    left: Option<Duration>,
    plain: &dyn Fn() -> c_int,
) -> c_int {
    let deadline = left.map(|left| hub.after(left));
    // glibc: the lowest bit of the ninth word. Those of other processes do not look into our table: so it wakes for
    // nothing now and then, as it may.
    // SAFETY: the caller's: an initialised condition variable.
    let is_shared = unsafe { *condition.cast::<u32>().add(9) } & 1 != 0;
    let unlocked = Cell::new(None);
    let waited = contained(|| {
        let waiting = Waiting::new(condition.addr(), u32::MAX);
        let mut parker = Parker::new();
        // In the table before the mutex is free: no signal is missed.
        waiting.arm(parker.waiter(), || true);
        // SAFETY: the caller's: it holds the mutex.
        let result = unsafe { pthread_mutex_unlock(mutex) };
        unlocked.set(Some(result));
        if result != 0 {
            return result;
        }
        let look = is_shared.then(|| hub.after(LOOK));
        loop {
            let until = look.map_or(deadline, |look| Some(look.min(deadline.unwrap_or(u64::MAX))));
            let wake = parker.park(until, Mode::Must, Why::new(&LOCK, condition.addr()));
            if wake == Wake::TimedOut {
                let is_late = deadline.is_some_and(|deadline| hub.clock.now() >= deadline);
                return if waiting.disarm() || !is_late {
                    0
                } else {
                    libc::ETIMEDOUT
                };
            }
            parker = Parker::new();
            if !waiting.arm(parker.waiter(), || true) {
                return 0;
            }
        }
    });
    let result = match (waited, unlocked.get()) {
        (Some(result), _) => result,
        // It could not wait, and still holds the mutex.
        (None, None) => return plain(),
        // Woken for nothing, as it may be.
        (None, Some(_)) => 0,
    };
    if unlocked.get() == Some(0) {
        // SAFETY: the caller's.
        unsafe { mutex_lock_green(hub, mutex) };
    }
    result
}

unsafe fn cond_wait_green(hub: &'static Hub, condition: *mut pthread_cond_t, mutex: *mut pthread_mutex_t) -> c_int {
    // SAFETY: the caller's, as libc's.
    unsafe {
        let plain = || original::pthread_cond_wait(condition, mutex);
        cond_wait(hub, condition, mutex, None, &plain)
    }
}

unsafe fn cond_timedwait_green(
    hub: &'static Hub,
    condition: *mut pthread_cond_t,
    mutex: *mut pthread_mutex_t,
    until: *const timespec,
) -> c_int {
    // glibc keeps a condition's clock in the second bit of its ninth word of four bytes.
    // SAFETY: the caller's: an initialised condition variable.
    let is_monotonic = unsafe { *condition.cast::<u32>().add(9) } & 2 != 0;
    let clock = if is_monotonic {
        libc::CLOCK_MONOTONIC
    } else {
        libc::CLOCK_REALTIME
    };
    // SAFETY: the caller's, as libc's.
    unsafe {
        let plain = || original::pthread_cond_timedwait(condition, mutex, until);
        cond_wait_until(hub, condition, mutex, (clock, until), &plain)
    }
}

unsafe fn cond_clockwait_green(
    hub: &'static Hub,
    condition: *mut pthread_cond_t,
    mutex: *mut pthread_mutex_t,
    clock: clockid_t,
    until: *const timespec,
) -> c_int {
    // SAFETY: the caller's, as libc's.
    unsafe {
        let plain = || original::pthread_cond_clockwait(condition, mutex, clock, until);
        cond_wait_until(hub, condition, mutex, (clock, until), &plain)
    }
}

/// # Safety
/// As for `pthread_cond_clockwait`.
unsafe fn cond_wait_until(
    hub: &'static Hub,
    condition: *mut pthread_cond_t,
    mutex: *mut pthread_mutex_t,
    (clock, until): (clockid_t, *const timespec),
    plain: &dyn Fn() -> c_int,
) -> c_int {
    // SAFETY: the caller's.
    unsafe {
        match Until::new(clock, until) {
            Some(until) => cond_wait(hub, condition, mutex, Some(until.left()), plain),
            None => libc::EINVAL,
        }
    }
}

/// The number of who writes under it, which glibc keeps in the seventh word of four bytes.
///
/// # Safety
/// An initialised lock, for as long as the reference is used.
unsafe fn writer<'a>(lock: *mut pthread_rwlock_t) -> &'a AtomicU32 {
    // SAFETY: the caller's; it is written while others look.
    unsafe { AtomicU32::from_ptr(lock.cast::<u32>().add(6)) }
}

/// Whether the caller writes under it.
///
/// # Safety
/// An initialised lock.
unsafe fn is_mine(lock: *mut pthread_rwlock_t) -> bool {
    // SAFETY: the caller's.
    Some(unsafe { writer(lock) }.load(Ordering::Relaxed)) == crate::sys::glibc::own_id()
}

type Attempt = unsafe extern "C" fn(*mut pthread_rwlock_t) -> c_int;
type WaitUntil = unsafe fn(*mut pthread_rwlock_t, clockid_t, *const timespec) -> c_int;

/// The calls that try and that wait.
fn rwlock_calls(writes: bool) -> (Attempt, WaitUntil) {
    if writes {
        (libc::pthread_rwlock_trywrlock, original::pthread_rwlock_clockwrlock)
    } else {
        (libc::pthread_rwlock_tryrdlock, original::pthread_rwlock_clockrdlock)
    }
}

/// Waits for a read-write lock. `None`: it could not wait, and nothing has happened.
///
/// # Safety
/// An initialised lock.
unsafe fn rwlock_wait(
    hub: &'static Hub,
    lock: *mut pthread_rwlock_t,
    writes: bool,
    until: Option<Until>,
) -> Option<c_int> {
    let (attempt, wait) = rwlock_calls(writes);
    // SAFETY: the caller's, here and below.
    let holder = || Holder::Writer(unsafe { writer(lock) }.load(Ordering::Relaxed));
    let wanted = Lock {
        address: lock.addr(),
        // SAFETY: as above.
        attempt: &|| unsafe { attempt(lock) },
        busy: libc::EBUSY,
        held: Some(Held {
            by: &holder,
            // SAFETY: as above.
            wait: &|at| unsafe { wait(lock, libc::CLOCK_MONOTONIC, at) },
        }),
    };
    wanted.wait(hub, until)
}

unsafe fn rwlock_rdlock_green(hub: &'static Hub, lock: *mut pthread_rwlock_t) -> c_int {
    // SAFETY: the caller's, as libc's.
    unsafe {
        // One that the caller writes under: EDEADLK.
        let waited = if is_mine(lock) {
            None
        } else {
            rwlock_wait(hub, lock, false, None)
        };
        waited.unwrap_or_else(|| original::pthread_rwlock_rdlock(lock))
    }
}

unsafe fn rwlock_wrlock_green(hub: &'static Hub, lock: *mut pthread_rwlock_t) -> c_int {
    // SAFETY: the caller's, as libc's.
    unsafe {
        let waited = if is_mine(lock) {
            None
        } else {
            rwlock_wait(hub, lock, true, None)
        };
        waited.unwrap_or_else(|| original::pthread_rwlock_wrlock(lock))
    }
}

/// # Safety
/// As for `pthread_rwlock_clockrdlock`.
unsafe fn rwlock_until(
    hub: &'static Hub,
    lock: *mut pthread_rwlock_t,
    writes: bool,
    clock: clockid_t,
    until: *const timespec,
) -> c_int {
    let (attempt, plain) = rwlock_calls(writes);
    // SAFETY: the caller's.
    unsafe {
        if is_mine(lock) {
            return plain(lock, clock, until);
        }
        // A lock that is free does not look at the time.
        match attempt(lock) {
            libc::EBUSY => {}
            result => return result,
        }
        match Until::new(clock, until) {
            at @ Some(_) => rwlock_wait(hub, lock, writes, at).unwrap_or_else(|| plain(lock, clock, until)),
            None => libc::EINVAL,
        }
    }
}

unsafe fn rwlock_timedrdlock_green(hub: &'static Hub, lock: *mut pthread_rwlock_t, until: *const timespec) -> c_int {
    // SAFETY: the caller's, as libc's.
    unsafe { rwlock_until(hub, lock, false, libc::CLOCK_REALTIME, until) }
}

unsafe fn rwlock_timedwrlock_green(hub: &'static Hub, lock: *mut pthread_rwlock_t, until: *const timespec) -> c_int {
    // SAFETY: as above.
    unsafe { rwlock_until(hub, lock, true, libc::CLOCK_REALTIME, until) }
}

unsafe fn rwlock_clockrdlock_green(
    hub: &'static Hub,
    lock: *mut pthread_rwlock_t,
    clock: clockid_t,
    until: *const timespec,
) -> c_int {
    // SAFETY: as above.
    unsafe { rwlock_until(hub, lock, false, clock, until) }
}

unsafe fn rwlock_clockwrlock_green(
    hub: &'static Hub,
    lock: *mut pthread_rwlock_t,
    clock: clockid_t,
    until: *const timespec,
) -> c_int {
    // SAFETY: as above.
    unsafe { rwlock_until(hub, lock, true, clock, until) }
}

/// A barrier cannot be tried, and does not mind who waits at it: an OS thread does so in the caller's place. One of its
/// own, because all that are to come must be able to wait at once.
unsafe fn barrier_wait_green(_hub: &'static Hub, barrier: *mut pthread_barrier_t) -> c_int {
    // SAFETY: the caller's, as libc's.
    let wait = || unsafe { original::pthread_barrier_wait(barrier) };
    names::apart(wait).unwrap_or_else(wait)
}

/// # Safety
/// A semaphore.
unsafe fn sem_try(semaphore: *mut sem_t) -> c_int {
    let before = errno();
    // SAFETY: the caller's.
    if unsafe { libc::sem_trywait(semaphore) } == 0 {
        return 0;
    }
    let error = errno();
    set_errno(before);
    error
}

/// Waits for a semaphore. `None`: it could not wait, and nothing has happened.
///
/// # Safety
/// A semaphore.
unsafe fn sem_wait_for(hub: &'static Hub, semaphore: *mut sem_t, until: Option<Until>) -> Option<c_int> {
    let lock = Lock {
        address: semaphore.addr(),
        // SAFETY: the caller's.
        attempt: &|| unsafe { sem_try(semaphore) },
        busy: libc::EAGAIN,
        held: None,
    };
    let result = lock.wait(hub, until)?;
    Some(if result == 0 { 0 } else { fail(result) })
}

unsafe fn sem_wait_green(hub: &'static Hub, semaphore: *mut sem_t) -> c_int {
    // SAFETY: the caller's, as libc's.
    unsafe { sem_wait_for(hub, semaphore, None).unwrap_or_else(|| original::sem_wait(semaphore)) }
}

unsafe fn sem_timedwait_green(hub: &'static Hub, semaphore: *mut sem_t, until: *const timespec) -> c_int {
    // SAFETY: the caller's, as libc's.
    unsafe {
        let plain = || original::sem_timedwait(semaphore, until);
        match Until::new(libc::CLOCK_REALTIME, until) {
            at @ Some(_) => sem_wait_for(hub, semaphore, at).unwrap_or_else(plain),
            None => fail(libc::EINVAL),
        }
    }
}

unsafe fn sem_clockwait_green(
    hub: &'static Hub,
    semaphore: *mut sem_t,
    clock: clockid_t,
    until: *const timespec,
) -> c_int {
    // SAFETY: as above.
    unsafe {
        let plain = || original::sem_clockwait(semaphore, clock, until);
        match Until::new(clock, until) {
            at @ Some(_) => sem_wait_for(hub, semaphore, at).unwrap_or_else(plain),
            None => fail(libc::EINVAL),
        }
    }
}

unsafe fn once_green(
    hub: &'static Hub,
    control: *mut pthread_once_t,
    start: Option<unsafe extern "C-unwind" fn()>,
) -> c_int {
    // glibc: 2 when it is done, the lowest bit while it is under way.
    // SAFETY: the caller's: a control word, which is atomic to glibc too.
    let state = unsafe { std::sync::atomic::AtomicI32::from_ptr(control.cast()) };
    let mut nap = Duration::from_micros(100);
    while state.load(Ordering::Acquire) & 3 == 1 {
        let napped = contained(|| {
            Parker::new().park(Some(hub.after(nap)), Mode::Must, Why::new(&LOCK, control.addr()));
        });
        if napped.is_none() {
            break;
        }
        nap = (nap * 2).min(LOOK);
    }
    // SAFETY: the caller's, as libc's.
    unsafe { original::pthread_once(control, start) }
}

/// Asking again and again for what another is to do: lets the others do it.
unsafe fn sched_yield_green(hub: &'static Hub) -> c_int {
    match contained(|| hub.stand_back()) {
        Some(()) => 0,
        // SAFETY: no pointers are involved.
        None => unsafe { original::sched_yield() },
    }
}

unsafe fn thrd_yield_green(hub: &'static Hub) {
    // SAFETY: no pointers are involved.
    unsafe { sched_yield_green(hub) };
}
