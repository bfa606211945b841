//! C's locks: mutexes, condition variables, read-write locks, semaphores, `pthread_once`.
//!
//! Try first; who finds a lock taken waits in the table of [`futex`], by its address, and whoever
//! releases one looks there. glibc's own releases (inside `pthread_cond_wait`, say) do not come by: so every wait here looks
//! again after a few milliseconds.
//!
//! Locks that are shared between processes, or inherit priorities, wait in the kernel as ever.

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

/// Waits until `attempt` does not say `busy` any more, or `until` has passed.
fn until_free(
    hub: &'static Hub,
    address: usize,
    busy: c_int,
    until: Option<Until>,
    attempt: impl Fn() -> c_int,
) -> c_int {
    let mut result = attempt();
    if result != busy {
        return result;
    }
    let waited = contained(|| {
        loop {
            if until.is_some_and(|until| until.left().is_zero()) {
                return libc::ETIMEDOUT;
            }
            let waiting = Waiting::new(address, u32::MAX);
            let parker = Parker::new();
            let is_busy = waiting.arm(parker.waiter(), || {
                result = attempt();
                result == busy
            });
            if !is_busy {
                return result;
            }
            let left = until.map_or(LOOK, |until| until.left().min(LOOK));
            parker.park(Some(hub.after(left)), Mode::Must, Why::new(&LOCK, address));
        }
    });
    waited.unwrap_or(libc::EINVAL)
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

unsafe fn mutex_lock_green(hub: &'static Hub, mutex: *mut pthread_mutex_t) -> c_int {
    // SAFETY: the caller's, as libc's.
    unsafe {
        if is_special(mutex) {
            return original::pthread_mutex_lock(mutex);
        }
    }
    // SAFETY: the caller's, as libc's.
    until_free(hub, mutex.addr(), libc::EBUSY, None, || unsafe {
        libc::pthread_mutex_trylock(mutex)
    })
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
        if is_special(mutex) {
            return original::pthread_mutex_clocklock(mutex, clock, until);
        }
        lock_until(hub, mutex.addr(), clock, until, || libc::pthread_mutex_trylock(mutex))
    }
}

/// Locks by `attempt`, which says `EBUSY` as long as it cannot.
///
/// # Safety
/// `until` may be read.
unsafe fn lock_until(
    hub: &'static Hub,
    address: usize,
    clock: clockid_t,
    until: *const timespec,
    attempt: impl Fn() -> c_int,
) -> c_int {
    // A lock that is free does not look at the time.
    let first = attempt();
    if first != libc::EBUSY {
        return first;
    }
    // SAFETY: the caller's.
    match unsafe { Until::new(clock, until) } {
        until @ Some(_) => until_free(hub, address, libc::EBUSY, until, attempt),
        None => libc::EINVAL,
    }
}

/// # Safety
/// As for `pthread_cond_wait`.
unsafe fn cond_wait(
    hub: &'static Hub,
    condition: *mut pthread_cond_t,
    mutex: *mut pthread_mutex_t,
    left: Option<Duration>,
) -> c_int {
    let deadline = left.map(|left| hub.after(left));
    // glibc: the lowest bit of the ninth word. Those of other processes do not look into our table: so it wakes for
    // nothing now and then, as it may.
    // SAFETY: the caller's: an initialised condition variable.
    let is_shared = unsafe { *condition.cast::<u32>().add(9) } & 1 != 0;
    let look = is_shared.then(|| hub.after(LOOK));
    let waited = contained(|| {
        let waiting = Waiting::new(condition.addr(), u32::MAX);
        let mut parker = Parker::new();
        // In the table before the mutex is free: no signal is missed.
        waiting.arm(parker.waiter(), || true);
        // SAFETY: the caller's: it holds the mutex.
        let unlocked = unsafe { pthread_mutex_unlock(mutex) };
        if unlocked != 0 {
            return unlocked;
        }
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
    let result = waited.unwrap_or(libc::EINVAL);
    if result == 0 || result == libc::ETIMEDOUT {
        // SAFETY: the caller's.
        unsafe { mutex_lock_green(hub, mutex) };
    }
    result
}

unsafe fn cond_wait_green(hub: &'static Hub, condition: *mut pthread_cond_t, mutex: *mut pthread_mutex_t) -> c_int {
    // SAFETY: the caller's, as libc's.
    unsafe { cond_wait(hub, condition, mutex, None) }
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
    unsafe { cond_clockwait_green(hub, condition, mutex, clock, until) }
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
        match Until::new(clock, until) {
            Some(until) => cond_wait(hub, condition, mutex, Some(until.left())),
            None => libc::EINVAL,
        }
    }
}

/// Whether the caller writes under it: glibc keeps the writer in the seventh word of four bytes.
///
/// # Safety
/// An initialised lock.
unsafe fn is_mine(lock: *mut pthread_rwlock_t) -> bool {
    // SAFETY: the caller's; a plain read, as glibc's own.
    Some(unsafe { *lock.cast::<u32>().add(6) }) == crate::sys::glibc::own_id()
}

unsafe fn rwlock_rdlock_green(hub: &'static Hub, lock: *mut pthread_rwlock_t) -> c_int {
    // SAFETY: the caller's, as libc's.
    unsafe {
        if is_mine(lock) {
            return original::pthread_rwlock_rdlock(lock); // EDEADLK
        }
    }
    // SAFETY: as above.
    until_free(hub, lock.addr(), libc::EBUSY, None, || unsafe {
        libc::pthread_rwlock_tryrdlock(lock)
    })
}

unsafe fn rwlock_wrlock_green(hub: &'static Hub, lock: *mut pthread_rwlock_t) -> c_int {
    // SAFETY: the caller's, as libc's.
    unsafe {
        if is_mine(lock) {
            return original::pthread_rwlock_wrlock(lock); // EDEADLK
        }
    }
    // SAFETY: as above.
    until_free(hub, lock.addr(), libc::EBUSY, None, || unsafe {
        libc::pthread_rwlock_trywrlock(lock)
    })
}

unsafe fn rwlock_timedrdlock_green(hub: &'static Hub, lock: *mut pthread_rwlock_t, until: *const timespec) -> c_int {
    // SAFETY: the caller's, as libc's.
    unsafe { rwlock_clockrdlock_green(hub, lock, libc::CLOCK_REALTIME, until) }
}

unsafe fn rwlock_timedwrlock_green(hub: &'static Hub, lock: *mut pthread_rwlock_t, until: *const timespec) -> c_int {
    // SAFETY: as above.
    unsafe { rwlock_clockwrlock_green(hub, lock, libc::CLOCK_REALTIME, until) }
}

unsafe fn rwlock_clockrdlock_green(
    hub: &'static Hub,
    lock: *mut pthread_rwlock_t,
    clock: clockid_t,
    until: *const timespec,
) -> c_int {
    // SAFETY: as above.
    unsafe { lock_until(hub, lock.addr(), clock, until, || libc::pthread_rwlock_tryrdlock(lock)) }
}

unsafe fn rwlock_clockwrlock_green(
    hub: &'static Hub,
    lock: *mut pthread_rwlock_t,
    clock: clockid_t,
    until: *const timespec,
) -> c_int {
    // SAFETY: as above.
    unsafe { lock_until(hub, lock.addr(), clock, until, || libc::pthread_rwlock_trywrlock(lock)) }
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

unsafe fn sem_wait_green(hub: &'static Hub, semaphore: *mut sem_t) -> c_int {
    // SAFETY: the caller's, as libc's.
    match until_free(hub, semaphore.addr(), libc::EAGAIN, None, || unsafe {
        sem_try(semaphore)
    }) {
        0 => 0,
        error => fail(error),
    }
}

unsafe fn sem_timedwait_green(hub: &'static Hub, semaphore: *mut sem_t, until: *const timespec) -> c_int {
    // SAFETY: the caller's, as libc's.
    unsafe { sem_clockwait_green(hub, semaphore, libc::CLOCK_REALTIME, until) }
}

unsafe fn sem_clockwait_green(
    hub: &'static Hub,
    semaphore: *mut sem_t,
    clock: clockid_t,
    until: *const timespec,
) -> c_int {
    // SAFETY: as above.
    let Some(until) = (unsafe { Until::new(clock, until) }) else {
        return fail(libc::EINVAL);
    };
    // SAFETY: as above.
    match until_free(hub, semaphore.addr(), libc::EAGAIN, Some(until), || unsafe {
        sem_try(semaphore)
    }) {
        0 => 0,
        error => fail(error),
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
    while state.load(std::sync::atomic::Ordering::Acquire) & 3 == 1 {
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
