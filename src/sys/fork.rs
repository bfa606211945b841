//! What a fork does with this crate: its handlers, and the locks of the whole process.
//!
//! Only the OS thread that forks goes on in the child. A lock that another one holds at that moment would stay locked there
//! for good, over data that may be half changed. So each lock of the process is a [`Global`], and the handlers take them all
//! before the fork and give them back in both processes. The handlers of others run outside of that, and may use this crate.
//! What an object of the user's has inside is replaced in the child by a [`PerProcess`] instead: there may be any number of
//! them, and what they hold is the parent's.
//!
//! # The locks, and their order
//! Who holds one may take those that stand below it, and none above.
//!
//! | lock | of what |
//! |---|---|
//! | `Learning` | `monkey/threads.rs`: the search for where std's threads begin |
//! | `Green` | `monkey/threads.rs`: green threads that stand for std's |
//! | `CtrlC` | `aio/ctrl_c.rs`: whom Ctrl-C cancels |
//! | `Loops` | `aio/event_loop.rs`: the loops that are bound to hubs |
//! | `Tasks` | `aio/spawn.rs`: the tasks that have not ended |
//! | `Signals` | `signal.rs`: what is registered with the crate signal-hook, which has a lock of its own |
//! | `Orphans` | `process/orphans.rs`: children that are still to be reaped |
//! | `Watcher` | `threadpool/watch.rs`: the hub that waits on behalf of futures |
//! | `Links` | `hub/links.rs`: exit links |
//! | `PanicHook` | `hub/report.rs`: what hears of panics |
//! | `Reports` | `hub/report.rs`: lines on their way to stderr |
//! | `Chunks`, `Free` | `hub/task/blocks.rs`: blocks of tasks |
//! | `Spare` | `hub/remote.rs`: the shared halves of hubs that have ended |
//! | `Known` | `hub/stuck.rs`: OS threads of ours |
//! | `Trial` | `tls.rs`: whether isolation works |
//! | `Overflow`, `Faults` | `stack/overflow.rs`, `sys/signal.rs`: the fault handler, installed once |
//! | `Glibc` | `sys/glibc.rs`: where glibc keeps what |
//!
//! Looked up without a lock, for twice does no harm: the poller (`hub/poller.rs`), the default pools (`threadpool/mod.rs`), the
//! wakers of `hub/polled.rs`, the page's size and valgrind (`sys/mem.rs`). Set free in the child by what is told of it there,
//! as what they hold are calls under way, which are the parent's: the spin locks of `monkey/futex.rs` and `monkey/fd.rs`.
//!
//! What a user shares by the primitives of `sync` is as with std's: if another OS thread was in the midst of it, it is locked
//! in the child.
//!
//! # Invariants
//! - **K1** A lock enters the list before it is first taken, and the list is locked while the process forks.
//! - **K2** Nobody forks, parks or runs code of the user under one of these locks.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use once_cell::race::OnceBox;

use super::inside;

/// How long a fork waits for one lock. Longer than anybody holds one; but a handler of a signal may fork, on top of code that
/// does.
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
    Glibc,
}

/// A lock of the whole process, which is free in a forked child.
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

/// A value of the whole process that is made once. A child that is forked while it is being made makes it again.
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

    /// The value, if it is made.
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

/// A lock, whatever lies under it.
trait Hold: Sync {
    fn order(&self) -> Order;

    /// Takes it; `None` if it is not to be had.
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

/// The locks that there are, in their order.
static LIST: Mutex<Vec<&'static dyn Hold>> = Mutex::new(Vec::new());

/// K1.
#[cold]
fn enlist(lock: &'static dyn Hold, listed: &AtomicBool) {
    // First this: from here on a fork waits for the list.
    count_forks();
    let mut list = LIST.lock().unwrap_or_else(PoisonError::into_inner);
    if !listed.swap(true, Ordering::AcqRel) {
        let place = list.partition_point(|other| other.order() <= lock.order());
        list.insert(place, lock);
    }
}

/// What a fork under way holds, the list last; dropped from the first to the last.
struct Held {
    _locks: Vec<Box<dyn Any>>,
    _list: Option<MutexGuard<'static, Vec<&'static dyn Hold>>>,
}

impl Held {
    fn take() -> Held {
        let list = patiently(&LIST);
        let locks = list.iter().flat_map(|list| list.iter());
        Held {
            _locks: locks.filter_map(|lock| lock.hold()).collect(),
            _list: list,
        }
    }
}

thread_local! {
    /// Without a destructor, so that a destructor of another thread-local may fork.
    static HELD: RefCell<ManuallyDrop<Option<Held>>> = const { RefCell::new(ManuallyDrop::new(None)) };
    /// How many pairs of handlers are between their calls: OS threads that start to use this crate at one moment may register
    /// them several times.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

fn set_held(held: Option<Held>) {
    let before = HELD.with(|place| place.replace(ManuallyDrop::new(held)));
    drop(ManuallyDrop::into_inner(before));
}

static FORKS: AtomicU64 = AtomicU64::new(0);
static IN_CHILD: [AtomicUsize; 2] = [const { AtomicUsize::new(0) }; 2];

/// How many forks lie between this process and the one that first asked; cheap.
#[inline]
pub(crate) fn fork_epoch() -> u64 {
    FORKS.load(Ordering::Relaxed)
}

extern "C" fn before_fork() {
    super::base::before_fork();
    enter();
}

extern "C" fn after_fork_in_parent() {
    if leave() {
        super::base::after_fork();
    }
}

extern "C" fn after_fork_in_child() {
    if !leave() {
        return;
    }
    FORKS.fetch_add(1, Ordering::Relaxed);
    // In the native context, and in that of the green thread that forked.
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

/// Whether this is the last of the handlers' calls.
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
    for place in &IN_CHILD {
        let f = place.load(Ordering::Relaxed);
        if f != 0 {
            // SAFETY: `on_fork` stored a `fn()`.
            let f: fn() = unsafe { std::mem::transmute::<usize, fn()>(f) };
            f();
        }
    }
}

/// Who wants to know of forked children.
#[derive(Clone, Copy)]
pub(crate) enum Child {
    Hub,
    #[cfg(feature = "monkey")]
    Patches,
}

/// Has `f` called in every forked child, on the OS thread that forked.
pub(crate) fn on_fork(who: Child, f: fn()) {
    IN_CHILD[who as usize].store(f as usize, Ordering::Relaxed);
    count_forks();
}

/// Has forks counted from now on, see [`fork_epoch`]. It waits for nobody: in a child that was forked meanwhile there would be
/// nobody to wait for.
pub(crate) fn count_forks() {
    static REGISTERED: AtomicBool = AtomicBool::new(false);
    if !REGISTERED.load(Ordering::Acquire) {
        // SAFETY: handlers of the right type, which live as long as the program.
        unsafe { libc::pthread_atfork(Some(before_fork), Some(after_fork_in_parent), Some(after_fork_in_child)) };
        REGISTERED.store(true, Ordering::Release);
    }
}

/// A value that each process has of its own: a forked child begins with a fresh one, whatever other OS threads did with the
/// parent's at that moment.
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

    /// This process's.
    pub(crate) fn get(&self) -> &T {
        let mut this = self;
        while this.epoch != fork_epoch() {
            this = this.in_child.get_or_init(|| Box::new(PerProcess::new(this.make)));
        }
        &this.value
    }
}

/// Before `main`, or as the library that this is in is loaded. The first handlers to be registered run closest to the fork: so
/// the user's run while none of these locks is held, and with the thread-locals of the green thread that forks.
#[cfg(target_os = "linux")]
#[used]
#[unsafe(link_section = ".init_array")]
static REGISTER: extern "C" fn() = register;

#[cfg(target_os = "linux")]
extern "C" fn register() {
    // Only the allocator's run closer still, for these allocate: it registers them when it is first used.
    drop(std::hint::black_box(Box::new(0_u64)));
    count_forks();
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Forks; how the child ends, in which `f` runs, and which dies if that takes ten seconds.
    fn in_child(f: impl FnOnce() -> bool) -> i32 {
        // SAFETY: the child calls `f`, which takes only locks of ours, and leaves by `_exit`.
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

    /// Another OS thread is in the midst of changing two values whenever this one forks.
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
                // The fork comes in here, and is to wait.
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

    /// A handler of a signal, say, on top of code that has a lock.
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
        let list = LIST.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(list.len() >= 2 && list.is_sorted_by_key(|lock| lock.order()));
    }
}
