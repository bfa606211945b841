//! What a fork does with this crate: its handlers, and the locks of the whole process.
//!
//! Only the OS thread that forks goes on in the child. A lock that another OS thread holds at that moment would stay
//! locked in the child for good, over data that may be half changed. So each lock of the process is a [`Global`]: the
//! handlers take all of them before the fork, and release them in both processes. Handlers of other code run outside of
//! that, and may use this crate.
//!
//! State inside a user's object is handled in another way: the child replaces it by a fresh value, see [`PerProcess`].
//! There may be any number of such objects, and their contents belong to the parent.
//!
//! # The locks, and their order
//! Code that holds a lock may take the locks below it in this table, and none above it.
//!
//! | lock | of what |
//! |---|---|
//! | `Learning` | `monkey/threads.rs`: the search for where std's threads begin |
//! | `Green` | `monkey/threads.rs`: green threads that stand for std's |
//! | `CtrlC` | `aio/runners.rs`: the task that Ctrl-C cancels |
//! | `Loops` | `aio/events.rs`: the loops that are bound to hubs |
//! | `Tasks` | `aio/futures.rs`: the tasks that have not ended |
//! | `Signals` | `signal.rs`: what is registered with the crate signal-hook, which has a lock of its own |
//! | `Orphans` | `process/orphans.rs`: children that are still to be reaped |
//! | `Watcher` | `threadpool/watch.rs`: the hub that waits on behalf of futures |
//! | `Links` | `hub/links.rs`: exit links |
//! | `PanicHook` | `hub/report.rs`: what hears of panics |
//! | `Reports` | `hub/report.rs`: lines on their way to stderr |
//! | `Chunks`, `Free`, `Retired` | `hub/task/blocks.rs`: blocks of tasks |
//! | `Spare` | `hub/shared.rs`: the shared halves of hubs that have ended |
//! | `Known` | `hub/stuck.rs`: this crate's OS threads |
//! | `Trial` | `isolation`: whether isolation works |
//! | `Overflow`, `Faults` | `stack/overflow.rs`, `sys/signal.rs`: the fault handler, installed once |
//! | `Glibc` | `sys/platform/linux_gnu/glibc.rs`: the offsets of glibc's fields |
//!
//! Some values are made without a lock, because making them twice does no harm: the poller (`hub/poller.rs`), the
//! default pools (`threadpool/mod.rs`), the wakers of `hub/polled.rs`, the page's size and valgrind (`sys/mem.rs`). The
//! spin locks of `monkey/table.rs`, `monkey/accept.rs` and `monkey/call.rs` guard calls under way, which in a child are
//! the parent's: these locks are [renewed](super::spin::Spin::renew) in the child, over empty lists.
//!
//! A primitive of `sync` that the user shares behaves like std's: if another OS thread holds it at the fork, it is
//! locked in the child.
//!
//! # Invariants
//! - **FORK-1** A lock enters the list before it is first taken, and the list is locked while the process forks.
//! - **FORK-2** Code that holds one of these locks does not fork, does not park, and runs no code of the user.
#![cfg_attr(not(test), forbid(unsafe_code))]

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, TryLockError};
use std::time::{Duration, Instant};

use once_cell::race::{OnceBox, OnceRef};

use super::poison::IgnorePoison;
use super::{hooks, inside};

/// How long a fork waits for one lock. No code holds one for so long, except a holder that a signal handler has
/// interrupted: if that handler forks, the wait would never end.
const PATIENCE: Duration = Duration::from_secs(1);

/// The locks, in the order in which they may be taken; see the table above.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Order {
    #[cfg(feature = "monkey")]
    Learning,
    #[cfg(feature = "monkey")]
    Green,
    CtrlC,
    Loops,
    Tasks,
    Signals,
    Orphans,
    Watcher,
    Links,
    PanicHook,
    Reports,
    Chunks,
    Free,
    Retired,
    Spare,
    Known,
    Trial,
    Overflow,
    Faults,
    #[allow(dead_code, reason = "elsewhere there is no glibc")]
    Glibc,
}

/// A lock of the whole process. It is free in a forked child.
pub(crate) struct Global<T: 'static> {
    order: Order,
    listed: AtomicBool,
    value: Mutex<T>,
}

impl<T: Send + 'static> Global<T> {
    pub(crate) const fn new(order: Order, value: T) -> Global<T> {
        Global {
            order,
            listed: AtomicBool::new(false),
            value: Mutex::new(value),
        }
    }

    pub(crate) fn lock(&'static self) -> inside::MutexGuard<'static, T> {
        if !self.listed.load(Ordering::Acquire) {
            enlist(self, &self.listed);
        }
        inside::lock(&self.value)
    }
}

/// A value of the whole process that is made once. If a fork comes while it is being made, the child makes it again.
pub(crate) struct GlobalOnce<T: 'static> {
    made: OnceLock<T>,
    making: Global<()>,
}

impl<T: 'static> GlobalOnce<T> {
    pub(crate) const fn new(order: Order) -> GlobalOnce<T> {
        GlobalOnce {
            made: OnceLock::new(),
            making: Global::new(order, ()),
        }
    }

    /// The value, if it has been made.
    pub(crate) fn get(&self) -> Option<&T> {
        self.made.get()
    }

    pub(crate) fn get_or_init(&'static self, make: impl FnOnce() -> T) -> &'static T {
        if let Some(made) = self.made.get() {
            return made;
        }
        let _making = self.making.lock();
        self.made.get_or_init(make)
    }
}

/// A [`Global`] of any type.
trait Hold: Sync {
    fn order(&self) -> Order;

    /// Takes the lock. `None` if it stays taken for longer than [`PATIENCE`].
    fn hold(&'static self) -> Option<Box<dyn Any>>;
}

impl<T: Send> Hold for Global<T> {
    fn order(&self) -> Order {
        self.order
    }

    fn hold(&'static self) -> Option<Box<dyn Any>> {
        let guard = patiently(&self.value)?;
        Some(Box::new(guard))
    }
}

fn patiently<T>(lock: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    let mut end = None;
    loop {
        match lock.try_lock() {
            Ok(guard) => return Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => {}
        }
        let now = Instant::now();
        if now >= *end.get_or_insert(now + PATIENCE) {
            return None;
        }
        rustix::thread::sched_yield();
    }
}

/// The locks that were used so far, in their order.
static LIST: Mutex<Vec<&'static dyn Hold>> = Mutex::new(Vec::new());

/// Enters `lock` into the list (FORK-1).
#[cold]
fn enlist(lock: &'static dyn Hold, listed: &AtomicBool) {
    // Register the handlers first: from here on a fork waits for the list, so no child is made in the middle of this.
    count_forks();
    let mut list = LIST.lock().ignore_poison();
    if !listed.swap(true, Ordering::AcqRel) {
        let place = list.partition_point(|other| other.order() <= lock.order());
        list.insert(place, lock);
    }
}

/// What a fork that is under way holds. Fields drop in order, so the list is released last.
struct Held {
    _locks: Vec<Box<dyn Any>>,
    _list: Option<MutexGuard<'static, Vec<&'static dyn Hold>>>,
}

impl Held {
    fn take() -> Held {
        // The list first: no lock can be added between this and the fork (FORK-1).
        let list = patiently(&LIST);
        let locks = list.iter().flat_map(|list| list.iter());
        Held {
            _locks: locks.filter_map(|lock| lock.hold()).collect(),
            _list: list,
        }
    }
}

thread_local! {
    /// No destructor, so that the destructor of another thread-local may fork.
    static HELD: RefCell<ManuallyDrop<Option<Held>>> = const { RefCell::new(ManuallyDrop::new(None)) };
    /// How many pairs of handlers are between their calls. OS threads that first use this crate at the same moment may
    /// each register the handlers, so one fork may call them several times.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

fn set_held(held: Option<Held>) {
    let before = HELD.with(|place| place.replace(ManuallyDrop::new(held)));
    drop(ManuallyDrop::into_inner(before));
}

static FORKS: AtomicU64 = AtomicU64::new(0);
static IN_CHILD: OnceRef<'static, fn()> = OnceRef::new();
#[cfg(feature = "monkey")]
static PATCHES_IN_CHILD: OnceRef<'static, fn(&InChild)> = OnceRef::new();

/// How many forks lie between this process and the one that first registered the handlers. One relaxed load.
#[inline]
pub(crate) fn fork_epoch() -> u64 {
    FORKS.load(Ordering::Relaxed)
}

/// Called before a fork: takes every lock, so that each is free in the child (FORK-1).
pub(super) fn before() {
    // On the native base by now, so `HELD` and `DEPTH` are the native thread-locals in all three handlers.
    super::base::before_fork();
    enter();
}

/// Called after a fork, in the parent: gives the locks back.
pub(super) fn after_in_parent() {
    if leave() {
        super::base::after_fork();
    }
}

/// Called after a fork, in the child: gives the locks back, and has what belongs to the parent forgotten.
pub(super) fn after_in_child() {
    if !leave() {
        return;
    }
    FORKS.fetch_add(1, Ordering::Relaxed);
    // Each context has its own thread-locals: first those of the native context, then those of the green thread that
    // forked.
    tell_child();
    super::base::after_fork();
    tell_child();
}

#[inline(never)]
fn enter() {
    let depth = DEPTH.replace(DEPTH.get() + 1);
    if depth == 0 {
        set_held(Some(Held::take()));
    }
}

/// Releases the locks if this call is the last of the handlers' calls, and returns whether it is.
#[inline(never)]
fn leave() -> bool {
    let depth = DEPTH.get();
    DEPTH.set(depth.saturating_sub(1));
    let last = depth == 1;
    if last {
        set_held(None);
    }
    last
}

#[inline(never)]
fn tell_child() {
    if let Some(f) = IN_CHILD.get() {
        f();
    }
    #[cfg(feature = "monkey")]
    if let Some(f) = PATCHES_IN_CHILD.get() {
        f(&InChild(()));
    }
}

/// The parts of this crate that must learn of a fork in the child.
#[derive(Clone, Copy)]
pub(crate) enum Child {
    Hub,
}

/// Has `f` called in every forked child, on the OS thread that forked. The first function that is set stays.
pub(crate) fn on_fork(who: Child, f: &'static fn()) {
    let _ = match who {
        Child::Hub => IN_CHILD.set(f),
    };
    count_forks();
}

/// Shows that the running code was called in a forked child by these handlers, as its only OS thread. Locks that are
/// held belong to OS threads of the parent.
#[cfg(feature = "monkey")]
pub(crate) struct InChild(());

/// As [`on_fork`], for patched libc, with the means to [reset](super::spin::Spin::renew) its spin locks.
#[cfg(feature = "monkey")]
pub(crate) fn reset_on_fork(f: &'static fn(&InChild)) {
    let _ = PATCHES_IN_CHILD.set(f);
    count_forks();
}

/// Registers the handlers, so that forks are counted from now on; see [`fork_epoch`].
///
/// It never waits for another OS thread: a child forked meanwhile has no such thread to wait for. So two OS threads may
/// both register the handlers, which `DEPTH` allows for.
pub(crate) fn count_forks() {
    static REGISTERED: AtomicBool = AtomicBool::new(false);
    if !REGISTERED.load(Ordering::Acquire) {
        hooks::handle_forks();
        REGISTERED.store(true, Ordering::Release);
    }
}

/// A value that each process has for itself. A forked child begins with a fresh one, whatever other OS threads were
/// doing with the parent's at that moment.
#[derive(Debug)]
pub(crate) struct PerProcess<T> {
    epoch: u64,
    value: T,
    make: fn() -> T,
    in_child: OnceBox<PerProcess<T>>,
}

impl<T> PerProcess<T> {
    pub(crate) fn new(make: fn() -> T) -> PerProcess<T> {
        count_forks();
        PerProcess {
            epoch: fork_epoch(),
            value: make(),
            make,
            in_child: OnceBox::new(),
        }
    }

    /// The value of this process.
    pub(crate) fn get(&self) -> &T {
        let mut this = self;
        while this.epoch != fork_epoch() {
            this = this.in_child.get_or_init(|| Box::new(PerProcess::new(this.make)));
        }
        &this.value
    }
}

/// Registers the handlers. It is called before `main`, or when the library that contains this crate is loaded. The
/// handlers registered first run closest to the fork. So the user's handlers run while none of these locks is held, and
/// with the thread-locals of the green thread that forks.
pub(super) fn register() {
    // These handlers allocate, so the allocator's handlers must run closer still to the fork. An allocator registers
    // them when it is first used.
    drop(std::hint::black_box(Box::new(0_u64)));
    count_forks();
}

#[cfg(all(test, not(loom)))]
pub(crate) mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Forks, runs `f` in the child, and returns how the child ended. The child dies after ten seconds.
    pub(crate) fn in_child(f: impl FnOnce() -> bool) -> i32 {
        // SAFETY: the child calls `f`, which takes only locks of this crate, and leaves by `_exit`.
        unsafe {
            let pid = libc::fork();
            if pid == 0 {
                libc::alarm(10);
                libc::_exit(if f() { 0 } else { 1 });
            }
            let mut status = 0;
            assert_eq!(libc::waitpid(pid, &raw mut status, 0), pid);
            status
        }
    }

    /// Whenever this OS thread forks, another one is in the middle of changing two values.
    #[test]
    fn a_lock_that_another_thread_holds_is_free_in_the_child() {
        static LOCK: Global<u32> = Global::new(Order::Known, 7);
        static NESTED: Global<u32> = Global::new(Order::Glibc, 7);
        let (tell, told) = mpsc::channel();
        let holder = std::thread::spawn(move || {
            for _ in 0..20 {
                let mut held = LOCK.lock();
                let mut nested = NESTED.lock();
                *held += 1;
                tell.send(()).unwrap();
                // The fork happens here, and must wait.
                std::thread::sleep(Duration::from_millis(5));
                *held += 1;
                *nested += 2;
            }
        });
        for _ in told.iter() {
            let status = in_child(|| {
                let (value, nested) = (*LOCK.lock(), *NESTED.lock());
                value % 2 == 1 && value == nested
            });
            assert_eq!(status, 0);
        }
        holder.join().unwrap();
    }

    #[test]
    fn a_value_that_another_thread_makes_is_made_again_in_the_child() {
        static ONCE: GlobalOnce<u32> = GlobalOnce::new(Order::Trial);
        let (tell, told) = mpsc::channel();
        let maker = std::thread::spawn(move || {
            let make = || {
                tell.send(()).unwrap();
                std::thread::sleep(Duration::from_millis(50));
                7
            };
            *ONCE.get_or_init(make)
        });
        told.recv().unwrap();
        assert_eq!(in_child(|| *ONCE.get_or_init(|| 7) == 7), 0);
        assert_eq!(maker.join().unwrap(), 7);
    }

    #[test]
    fn a_child_has_a_fresh_value_of_its_own_even_if_the_parents_is_locked() {
        let value = PerProcess::new(|| Mutex::new(0));
        let mut held = value.get().lock().unwrap();
        *held += 1;
        let status = in_child(|| {
            *value.get().lock().unwrap() += 5;
            // And so has a child of the child.
            let status = in_child(|| *value.get().lock().unwrap() == 0);
            status == 0 && *value.get().lock().unwrap() == 5
        });
        assert_eq!(status, 0);
        assert_eq!(*held, 1);
    }

    /// For example, a signal handler that forks on top of code that holds a lock.
    #[test]
    fn a_fork_by_the_holder_of_a_lock_comes_to_an_end() {
        static LOCK: Global<u32> = Global::new(Order::Known, 7);
        let held = LOCK.lock();
        assert_eq!(in_child(|| true), 0);
        drop(held);
    }

    #[test]
    fn the_list_is_in_order() {
        static LATE: Global<()> = Global::new(Order::Glibc, ());
        static EARLY: Global<()> = Global::new(Order::Orphans, ());
        drop(LATE.lock());
        drop(EARLY.lock());
        let list = LIST.lock().ignore_poison();
        assert!(list.len() >= 2 && list.is_sorted_by_key(|lock| lock.order()));
    }
}
