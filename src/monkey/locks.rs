//! C's locks: mutexes, condition variables, read-write locks, semaphores, `pthread_once`; and `sched_yield`, by which
//! spinning code waits; and C11's locks, which are the same.
//!
//! A call tries the lock first. If it is taken, the green thread waits in the [table](super::table), under the lock's
//! address, and a release by a patched call looks there. glibc's internal releases (in `pthread_cond_wait`, say) are
//! not patched, so every wait here tries again after a few milliseconds.
//!
//! Locks that are shared between processes, or inherit priorities, wait in the kernel as without patching.
//!
//! # Invariants
//! - **LOCKS-1** No green thread parks for a mutex in the middle of `malloc`. An allocator holds its mutex for a few
//!   instructions and never over a switch, as long as no green thread switches in `malloc`. So a mutex that a green
//!   thread of this OS thread holds, while another one runs, is not an allocator's: for such a mutex the caller parks.
//!   A mutex with any other owner may be an allocator's: for it the caller waits with the OS thread, for [`PATIENCE`]
//!   looks. A mutex that is still held then is not an allocator's, and its owner may wait for a green thread of this
//!   hub, so the caller parks.
//! - **LOCKS-2** A wait for something without a known holder (a semaphore, readers, a futex, `sched_yield`) parks
//!   wherever patched calls may (MONKEY-1), so not in the middle of a change of this crate's state. While an allocator
//!   waits like this, other green threads may call it. If it held a second lock, the hub's own allocation could wait
//!   for that lock, and its holder could never run.
//! - **LOCKS-3** If a wait cannot park (this crate's code has panicked), the original call is made.

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use libc::{
    c_int, clockid_t, pthread_barrier_t, pthread_cond_t, pthread_mutex_t, pthread_once_t, pthread_rwlock_t, sem_t,
    timespec,
};

use super::gate::{contained, is_armed};
use super::offload::on_own_thread;
use super::sleep;
use super::symbol::{Lent, errno, fail, patch, set_errno};
use super::table::{Waiting, wake_by};
use crate::hub::{Hub, Mode, Parker, Wake, Why};

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

/// Defines calls that release: each makes the original call, and then wakes green threads that wait for the address.
/// They act on every OS thread.
macro_rules! releases {
    ($($name:ident($argument:ident: $type:ty) wakes $count:expr;)*) => {
        /// libc's own definitions.
        pub(in crate::monkey) mod release {
            use super::*;
            crate::monkey::symbol::originals! { $($name($argument: $type) -> c_int;)* }
        }
        $(
            /// Defined ahead of libc's.
            #[unsafe(no_mangle)]
            unsafe extern "C-unwind" fn $name($argument: $type) -> c_int {
                #[inline(never)]
                unsafe extern "C-unwind" fn armed($argument: $type) -> c_int {
                    // The original first: a green thread that is woken must find the lock free. The address is only a
                    // key then, so the lock may already be freed by its next owner.
                    // SAFETY: the caller guarantees an initialised object, as libc's definition requires.
                    let result = unsafe { release::$name($argument) };
                    wake_by($argument.addr(), $count);
                    result
                }
                // SAFETY: the caller guarantees an initialised object, as libc's definition requires.
                unsafe {
                    if is_armed() { armed($argument) } else { release::$name($argument) }
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

/// How long a wait lasts at most before it tries the lock again.
const LOOK: Duration = Duration::from_millis(5);

/// How many such waits a caller does with the OS thread, for a lock that code on another OS thread holds, before it
/// parks (LOCKS-1).
const PATIENCE: u32 = 200;

/// A moment on a clock, at which a wait ends.
#[derive(Clone, Copy)]
struct Until {
    clock: clockid_t,
    at: Duration,
}

impl Until {
    /// `None` if the clock or the time is invalid.
    ///
    /// # Safety
    /// `at` is readable.
    unsafe fn new(clock: clockid_t, at: *const timespec) -> Option<Until> {
        if !matches!(clock, libc::CLOCK_REALTIME | libc::CLOCK_MONOTONIC) {
            return None;
        }
        // SAFETY: `at` is readable, as the caller guarantees.
        let at = sleep::moment(unsafe { &*at })?;
        Some(Until { clock, at })
    }

    fn left(self) -> Duration {
        self.at.saturating_sub(sleep::now(self.clock))
    }
}

/// What is known of the holder of a lock that is taken.
#[derive(Clone, Copy)]
enum Holder {
    /// A mutex's owner, by its thread id; 0 between the lock and the store of the id.
    Owner(u32),
    /// A read-write lock's writer, by its thread id; 0 if readers hold the lock, which do not record their ids.
    Writer(u32),
}

impl Holder {
    /// Whether the holder is, or may be, code on another OS thread. Such a holder may be an allocator, and releases the
    /// lock without the help of this OS thread (LOCKS-1).
    fn may_run(self, hub: &Hub) -> bool {
        match self {
            Holder::Owner(owner) => !hub.is_of_here(owner),
            Holder::Writer(writer) => writer != 0 && !hub.is_of_here(writer),
        }
    }
}

/// A lock, and the calls that acquire it.
struct Lock<'a> {
    address: usize,
    /// Tries to acquire the lock; returns `busy` while it is taken.
    attempt: &'a dyn Fn() -> c_int,
    busy: c_int,
    /// For a lock that records its holder.
    held: Option<Held<'a>>,
}

/// The calls of a lock that records its holder.
struct Held<'a> {
    /// The holder now.
    by: &'a dyn Fn() -> Holder,
    /// Waits for the lock with the OS thread, until a moment of the monotonic clock.
    wait: &'a dyn Fn(&timespec) -> c_int,
}

impl Lock<'_> {
    /// Waits until the lock is acquired, or fails, or `until` has passed. `None`: it could not wait, and the lock is
    /// not acquired (LOCKS-3).
    fn wait(&self, hub: &'static Hub, until: Option<Until>) -> Option<c_int> {
        // A free lock is acquired here, before anything is allocated or linked (MONKEY-2).
        let result = (self.attempt)();
        if result != self.busy {
            return Some(result);
        }
        let mut patience = PATIENCE;
        contained(|| {
            loop {
                // Never longer than `LOOK`: a release inside glibc wakes no green thread.
                let left = until.map_or(LOOK, |until| until.left().min(LOOK));
                if left.is_zero() {
                    return libc::ETIMEDOUT;
                }
                // LOCKS-1: wait with the OS thread while the holder may be an allocator on another OS thread; park
                // otherwise. The holder is read anew each time, because the lock may have changed hands.
                let result = match &self.held {
                    Some(held) if patience > 0 && (held.by)().may_run(hub) => {
                        patience -= 1;
                        match (held.wait)(&from_now(left)) {
                            // -1: an older libc lacks the call. Each try then counts, without a wait.
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

    /// Parks until the lock is released, but no longer than `left`, and tries again.
    fn park(&self, hub: &'static Hub, left: Duration) -> c_int {
        let mut result = self.busy;
        let waiting = Waiting::new(self.address, u32::MAX);
        let parker = Parker::new();
        // Try once more under the bucket's lock: a release either comes before this try, or finds the waiter in the
        // table.
        let is_busy = waiting.arm(parker.waiter(), || {
            result = (self.attempt)();
            result == self.busy
        });
        if is_busy {
            parker.park(Some(hub.deadline_in(left)), Mode::Must, Why::new(&LOCK, self.address));
            result = (self.attempt)();
        }
        result
    }
}

/// The moment that is `left` from now, on the monotonic clock.
fn from_now(left: Duration) -> timespec {
    let at = sleep::now(libc::CLOCK_MONOTONIC) + left;
    timespec {
        tv_sec: at.as_secs() as libc::time_t,
        tv_nsec: at.subsec_nanos().into(),
    }
}

/// Whether the original call is to be made for a mutex: it is shared between processes, robust, or has priorities; or
/// it is an error-checking one that the caller owns, and the original fails with `EDEADLK`.
///
/// # Safety
/// `mutex` is initialised. glibc keeps its owner in the third 4-byte word and its kind in the fifth.
unsafe fn is_special(mutex: *mut pthread_mutex_t) -> bool {
    const CHECKS: u32 = libc::PTHREAD_MUTEX_ERRORCHECK as u32;
    const ELISION: u32 = 0x300;
    // SAFETY: `mutex` is initialised, as the caller guarantees. glibc reads these words without atomics, too.
    let (owner, kind) = unsafe { (*mutex.cast::<u32>().add(2), *mutex.cast::<u32>().add(4)) };
    // The lower two bits are the type (normal, recursive, error-checking, adaptive); all other bits are special.
    let kind = kind & !ELISION;
    kind & !3 != 0 || kind == CHECKS && Some(owner) == crate::sys::glibc::own_id()
}

/// Waits for a mutex. `None`: it could not wait, and the mutex is not acquired.
///
/// # Safety
/// `mutex` is initialised and not special.
unsafe fn mutex_wait(hub: &'static Hub, mutex: *mut pthread_mutex_t, until: Option<Until>) -> Option<c_int> {
    // SAFETY: `mutex` is initialised, as the caller guarantees. Its third 4-byte word is the owner in glibc; it is
    // written by other threads meanwhile, so it is read as an atomic.
    let owner = unsafe { AtomicU32::from_ptr(mutex.cast::<u32>().add(2)) };
    let lock = Lock {
        address: mutex.addr(),
        // SAFETY: `mutex` is initialised, as the caller guarantees.
        attempt: &|| unsafe { libc::pthread_mutex_trylock(mutex) },
        busy: libc::EBUSY,
        held: Some(Held {
            by: &|| Holder::Owner(owner.load(Ordering::Relaxed)),
            // SAFETY: `mutex` is initialised, as the caller guarantees, and `at` is a reference.
            wait: &|at| unsafe { original::pthread_mutex_clocklock(mutex, libc::CLOCK_MONOTONIC, at) },
        }),
    };
    lock.wait(hub, until)
}

unsafe fn mutex_lock_green(hub: &'static Hub, mutex: *mut pthread_mutex_t) -> c_int {
    // SAFETY: the caller guarantees an initialised mutex.
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
    // SAFETY: the caller guarantees an initialised mutex and a readable time.
    unsafe { mutex_clocklock_green(hub, mutex, libc::CLOCK_REALTIME, until) }
}

unsafe fn mutex_clocklock_green(
    hub: &'static Hub,
    mutex: *mut pthread_mutex_t,
    clock: clockid_t,
    until: *const timespec,
) -> c_int {
    // SAFETY: the caller guarantees an initialised mutex and a readable time.
    unsafe {
        let plain = || original::pthread_mutex_clocklock(mutex, clock, until);
        if is_special(mutex) {
            return plain();
        }
        // As in glibc, a free lock is acquired whatever the time is, even an invalid one.
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
    // The hub's clock is monotonic: a change of the real-time clock during the wait is not noticed.
    let deadline = left.map(|left| hub.deadline_in(left));
    // glibc keeps "shared" in the lowest bit of the tenth 4-byte word (`__wrefs`). Signals of other processes do not
    // look into this process's table, so a wait for a shared one returns now and then without a signal, as POSIX
    // allows.
    // SAFETY: `condition` is initialised, as the caller guarantees.
    let is_shared = unsafe { *condition.cast::<u32>().add(9) } & 1 != 0;
    // The result of the unlock, kept outside: if the code below panics, it tells whether the mutex was released.
    let unlocked = Cell::new(None);
    let waited = contained(|| {
        let waiting = Waiting::new(condition.addr(), u32::MAX);
        let parker = Parker::new();
        // In the table before the mutex is released: a signal after that finds this waiter, so none is missed.
        waiting.arm(parker.waiter(), || true);
        // SAFETY: the caller holds the mutex, as `pthread_cond_wait` requires. This is the patched unlock, which wakes.
        let result = unsafe { pthread_mutex_unlock(mutex) };
        unlocked.set(Some(result));
        if result != 0 {
            return result;
        }
        until_signalled(&waiting, parker, deadline, is_shared.then(|| hub.deadline_in(LOOK)))
    });
    let result = match (waited, unlocked.get()) {
        (Some(result), _) => result,
        // LOCKS-3: it could not wait, and still holds the mutex.
        (None, None) => return plain(),
        // It panicked after the unlock: return as after a spurious wake.
        (None, Some(_)) => 0,
    };
    if unlocked.get() == Some(0) {
        // A condition wait returns with the mutex held, also after its deadline: so this wait has none.
        // SAFETY: the mutex is initialised, as the caller guarantees.
        unsafe { mutex_lock_green(hub, mutex) };
    }
    result
}

/// Parks until a signal has unlinked the node, or until the deadline. A wait for a condition variable that is shared
/// between processes returns at `look` as well, as after a signal.
fn until_signalled(waiting: &Waiting, mut parker: Parker, deadline: Option<u64>, look: Option<u64>) -> c_int {
    let hub = parker.hub;
    let why = Why::new(&LOCK, waiting.key());
    loop {
        let until = look.map_or(deadline, |look| Some(look.min(deadline.unwrap_or(u64::MAX))));
        if parker.park(until, Mode::Must, why) == Wake::TimedOut {
            // Woken in the same moment, or only the look of a shared condition variable: not a time-out.
            let is_late = deadline.is_some_and(|deadline| hub.clock.now() >= deadline);
            return if waiting.disarm() || !is_late {
                0
            } else {
                libc::ETIMEDOUT
            };
        }
        // The park has ended. If the node was unlinked, that was a signal; otherwise wait on, with a new ticket.
        parker = Parker::new();
        if !waiting.arm(parker.waiter(), || true) {
            return 0;
        }
    }
}

unsafe fn cond_wait_green(hub: &'static Hub, condition: *mut pthread_cond_t, mutex: *mut pthread_mutex_t) -> c_int {
    // SAFETY: the caller guarantees an initialised condition variable, and holds the mutex.
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
    // glibc keeps the clock in the second bit of the tenth 4-byte word (`__wrefs`).
    // SAFETY: the caller guarantees an initialised condition variable.
    let is_monotonic = unsafe { *condition.cast::<u32>().add(9) } & 2 != 0;
    let clock = if is_monotonic {
        libc::CLOCK_MONOTONIC
    } else {
        libc::CLOCK_REALTIME
    };
    // SAFETY: the caller guarantees an initialised condition variable and a readable time, and holds the mutex.
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
    // SAFETY: the caller guarantees an initialised condition variable and a readable time, and holds the mutex.
    unsafe {
        let plain = || original::pthread_cond_clockwait(condition, mutex, clock, until);
        cond_wait_until(hub, condition, mutex, (clock, until), &plain)
    }
}

/// As [`cond_wait`], until a moment of a clock.
///
/// # Safety
/// As for `pthread_cond_clockwait`.
unsafe fn cond_wait_until(
    hub: &'static Hub,
    condition: *mut pthread_cond_t,
    mutex: *mut pthread_mutex_t,
    (clock, until): (clockid_t, *const timespec),
    plain: &dyn Fn() -> c_int,
) -> c_int {
    // SAFETY: the caller guarantees an initialised condition variable and a readable time, and holds the mutex.
    unsafe {
        match Until::new(clock, until) {
            Some(until) => cond_wait(hub, condition, mutex, Some(until.left()), plain),
            None => libc::EINVAL,
        }
    }
}

/// The thread id of a read-write lock's writer, which glibc keeps in the seventh 4-byte word.
///
/// # Safety
/// `lock` is initialised for as long as the reference is used.
unsafe fn writer<'a>(lock: *mut pthread_rwlock_t) -> &'a AtomicU32 {
    // SAFETY: `lock` is initialised, as the caller guarantees; other threads write the word, so it is read as an
    // atomic.
    unsafe { AtomicU32::from_ptr(lock.cast::<u32>().add(6)) }
}

/// Whether the running thread holds the lock as its writer.
///
/// # Safety
/// `lock` is initialised.
unsafe fn is_mine(lock: *mut pthread_rwlock_t) -> bool {
    // SAFETY: `lock` is initialised, as the caller guarantees.
    Some(unsafe { writer(lock) }.load(Ordering::Relaxed)) == crate::sys::glibc::own_id()
}

type Attempt = unsafe extern "C" fn(*mut pthread_rwlock_t) -> c_int;
type WaitUntil = unsafe fn(*mut pthread_rwlock_t, clockid_t, *const timespec) -> c_int;

/// The calls that try and that wait, for a writer or a reader.
fn rwlock_calls(writes: bool) -> (Attempt, WaitUntil) {
    if writes {
        (libc::pthread_rwlock_trywrlock, original::pthread_rwlock_clockwrlock)
    } else {
        (libc::pthread_rwlock_tryrdlock, original::pthread_rwlock_clockrdlock)
    }
}

/// Waits for a read-write lock. `None`: it could not wait, and the lock is not acquired.
///
/// # Safety
/// `lock` is initialised.
unsafe fn rwlock_wait(
    hub: &'static Hub,
    lock: *mut pthread_rwlock_t,
    writes: bool,
    until: Option<Until>,
) -> Option<c_int> {
    let (attempt, wait) = rwlock_calls(writes);
    // SAFETY: `lock` is initialised, as the caller guarantees.
    let holder = || Holder::Writer(unsafe { writer(lock) }.load(Ordering::Relaxed));
    let wanted = Lock {
        address: lock.addr(),
        // SAFETY: `lock` is initialised, as the caller guarantees.
        attempt: &|| unsafe { attempt(lock) },
        busy: libc::EBUSY,
        held: Some(Held {
            by: &holder,
            // SAFETY: `lock` is initialised, as the caller guarantees, and `at` is a reference.
            wait: &|at| unsafe { wait(lock, libc::CLOCK_MONOTONIC, at) },
        }),
    };
    wanted.wait(hub, until)
}

unsafe fn rwlock_rdlock_green(hub: &'static Hub, lock: *mut pthread_rwlock_t) -> c_int {
    // SAFETY: the caller guarantees an initialised lock.
    unsafe {
        // The original fails with `EDEADLK` if the caller is the writer.
        let waited = if is_mine(lock) {
            None
        } else {
            rwlock_wait(hub, lock, false, None)
        };
        waited.unwrap_or_else(|| original::pthread_rwlock_rdlock(lock))
    }
}

unsafe fn rwlock_wrlock_green(hub: &'static Hub, lock: *mut pthread_rwlock_t) -> c_int {
    // SAFETY: the caller guarantees an initialised lock.
    unsafe {
        let waited = if is_mine(lock) {
            None
        } else {
            rwlock_wait(hub, lock, true, None)
        };
        waited.unwrap_or_else(|| original::pthread_rwlock_wrlock(lock))
    }
}

/// Acquires a read-write lock, until a moment of a clock.
///
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
    // SAFETY: the caller guarantees an initialised lock and a readable time.
    unsafe {
        if is_mine(lock) {
            return plain(lock, clock, until);
        }
        // As in glibc, a free lock is acquired whatever the time is, even an invalid one.
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
    // SAFETY: the caller guarantees an initialised lock and a readable time.
    unsafe { rwlock_until(hub, lock, false, libc::CLOCK_REALTIME, until) }
}

unsafe fn rwlock_timedwrlock_green(hub: &'static Hub, lock: *mut pthread_rwlock_t, until: *const timespec) -> c_int {
    // SAFETY: the caller guarantees an initialised lock and a readable time.
    unsafe { rwlock_until(hub, lock, true, libc::CLOCK_REALTIME, until) }
}

unsafe fn rwlock_clockrdlock_green(
    hub: &'static Hub,
    lock: *mut pthread_rwlock_t,
    clock: clockid_t,
    until: *const timespec,
) -> c_int {
    // SAFETY: the caller guarantees an initialised lock and a readable time.
    unsafe { rwlock_until(hub, lock, false, clock, until) }
}

unsafe fn rwlock_clockwrlock_green(
    hub: &'static Hub,
    lock: *mut pthread_rwlock_t,
    clock: clockid_t,
    until: *const timespec,
) -> c_int {
    // SAFETY: the caller guarantees an initialised lock and a readable time.
    unsafe { rwlock_until(hub, lock, true, clock, until) }
}

/// A barrier cannot be tried, and any thread may wait at it: an OS thread waits in the caller's place. Each caller has
/// an OS thread of its own, not one of the pool, because all callers must be able to wait at once.
unsafe fn barrier_wait_green(_hub: &'static Hub, barrier: *mut pthread_barrier_t) -> c_int {
    // SAFETY: the caller guarantees an initialised barrier, at which any thread may wait.
    unsafe {
        let wait = || original::pthread_barrier_wait(barrier);
        // LOCKS-3: without an OS thread for it, the caller's own OS thread waits.
        on_own_thread(Lent::new(wait)).unwrap_or_else(wait)
    }
}

/// Tries to acquire a semaphore; returns the error instead of setting errno.
///
/// # Safety
/// `semaphore` is initialised.
unsafe fn sem_try(semaphore: *mut sem_t) -> c_int {
    let before = errno();
    // SAFETY: `semaphore` is initialised, as the caller guarantees.
    if unsafe { libc::sem_trywait(semaphore) } == 0 {
        return 0;
    }
    let error = errno();
    set_errno(before);
    error
}

/// Waits for a semaphore. `None`: it could not wait, and the semaphore is not acquired.
///
/// # Safety
/// `semaphore` is initialised.
unsafe fn sem_wait_for(hub: &'static Hub, semaphore: *mut sem_t, until: Option<Until>) -> Option<c_int> {
    let lock = Lock {
        address: semaphore.addr(),
        // SAFETY: `semaphore` is initialised, as the caller guarantees.
        attempt: &|| unsafe { sem_try(semaphore) },
        busy: libc::EAGAIN,
        // Any thread may post, so a semaphore has no holder (LOCKS-2).
        held: None,
    };
    // A semaphore's calls fail by errno, unlike those of the other locks.
    let result = lock.wait(hub, until)?;
    Some(if result == 0 { 0 } else { fail(result) })
}

unsafe fn sem_wait_green(hub: &'static Hub, semaphore: *mut sem_t) -> c_int {
    // SAFETY: the caller guarantees an initialised semaphore.
    unsafe { sem_wait_for(hub, semaphore, None).unwrap_or_else(|| original::sem_wait(semaphore)) }
}

unsafe fn sem_timedwait_green(hub: &'static Hub, semaphore: *mut sem_t, until: *const timespec) -> c_int {
    // SAFETY: the caller guarantees an initialised semaphore and a readable time.
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
    // SAFETY: the caller guarantees an initialised semaphore and a readable time.
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
    // In glibc the word is 2 when the routine has run, and has the lowest bit set while it runs. Another green thread
    // of this OS thread may be running it, so the original would deadlock: it is called when the routine is not under
    // way.
    // SAFETY: the caller guarantees a `pthread_once_t`, which is an aligned integer that glibc accesses as an atomic.
    let state = unsafe { std::sync::atomic::AtomicI32::from_ptr(control.cast()) };
    // glibc wakes only its own waiters at the end, so sleep and look again.
    let mut nap = Duration::from_micros(100);
    while state.load(Ordering::Acquire) & 3 == 1 {
        let napped = contained(|| {
            Parker::new().park(Some(hub.deadline_in(nap)), Mode::Must, Why::new(&LOCK, control.addr()));
        });
        // LOCKS-3: the original waits.
        if napped.is_none() {
            break;
        }
        nap = (nap * 2).min(LOOK);
    }
    // SAFETY: the caller guarantees a `pthread_once_t` and a routine.
    unsafe { original::pthread_once(control, start) }
}

/// Lets other green threads run, and then timers and descriptors: the caller spins until another thread has done
/// something.
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

// C11's locks. glibc implements them internally, with the same objects as its pthreads: so the definitions here call
// the pthread functions, which are patched.

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

pub(super) fn c11_symbols() -> impl Iterator<Item = super::symbol::Listed> {
    super::symbol::listed! {
        LOCKS mtx_lock LOCKS mtx_trylock LOCKS mtx_timedlock LOCKS mtx_unlock
        LOCKS cnd_wait LOCKS cnd_timedwait LOCKS cnd_signal LOCKS cnd_broadcast LOCKS call_once
    }
}

/// C11's result for an errno.
fn c11_result(error: c_int) -> c_int {
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
                c11_result(unsafe { pthread::$call($($argument),*) })
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
