//! Monkey patching: libc's blocking calls park the green thread that makes them (feature `monkey`; Linux with glibc, and
//! refused at compile time elsewhere).
//!
//! The feature defines libc's blocking symbols in the program, ahead of libc's own definitions. So the calls of std, of
//! every crate and of every C library that uses libc are linked to this module. They do what libc does until
//! [`patch_all`] arms them. From then on, a call by an *isolated* green thread ([`spawn`](crate::spawn),
//! [`run`](crate::run), [`scope`](crate::scope)) that would block parks that green thread instead, and other green
//! threads run.
//!
//! ```
//! use std::{thread, time::{Duration, Instant}};
//! use greenthread::{monkey, spawn};
//!
//! # fn main() -> std::io::Result<()> {
//! monkey::patch_all()?;
//! let start = Instant::now();
//! let sleepers: Vec<_> = (0..100)
//!     .map(|_| spawn(|| thread::sleep(Duration::from_millis(50)))) // std's own sleep
//!     .collect();
//! sleepers.into_iter().for_each(|sleeper| sleeper.join().unwrap());
//! assert!(start.elapsed() < Duration::from_secs(2), "not one after the other");
//! # Ok(())
//! # }
//! ```
//!
//! On the native stack, in local green threads and in callbacks of the hub, a patched call blocks the OS thread as
//! without patching. To make the calls of `main` park too, wrap its body in [`run`](crate::run).
//!
//! **Kill and time-out.** A patched call never unwinds, because its callers are compiled as though it could not. It
//! fails with `ECANCELED` (kill) or `ETIMEDOUT` (time-out). The first sleep after a kill or a time-out returns early,
//! and later sleeps last their full time. The next wait of this crate's own unwinds. Once a patched call has reported
//! the kill or the time-out, the end of the closure is cut short as well: `timeout` returns `Elapsed`,
//! [`catch_kill`](crate::thread::catch_kill) returns `Killed`, and `join` says that the green thread was killed,
//! although the closure *may have completed*. Then [`timeout_or_late`](crate::time::timeout_or_late) and
//! [`JoinError::into_value`](crate::thread::JoinError::into_value) return the closure's value. A kill or a time-out
//! that no call has reported does not change the result. A wait by futex (std's locks, `Condvar`, channels, `park`,
//! `join`) is neither killed nor timed out: it lasts until it is woken.
//!
//! ```
//! use std::{io::Read, os::unix::net::UnixStream, time::Duration};
//! use greenthread::{monkey, run, time::timeout_or_late};
//!
//! # fn main() -> std::io::Result<()> {
//! monkey::patch_all()?;
//! let (mut near, _far) = UnixStream::pair()?;
//! let read = run(move || timeout_or_late(Duration::from_millis(5), || near.read(&mut [0])));
//! let (_elapsed, read) = read.expect_err("the time is over");
//! let error = read.expect("the read has returned").expect_err("without a byte");
//! assert_eq!(error.raw_os_error(), Some(110)); // ETIMEDOUT; of a kill it is 125, ECANCELED
//! # Ok(())
//! # }
//! ```
//!
//! A green thread that ignores 16 such errors is named on stderr. A killed green thread that ignores 1,000 is set
//! aside: it is never resumed, its destructors do not run, its locks stay locked, and a join of it does not return. So
//! a loop that accepts connections, for example, has to end on `ECANCELED`.
//!
//! **Signals.** A signal handler that runs on an OS thread interrupts the call in which the green thread of
//! [`run`](crate::run) waits on that OS thread. The call fails with `EINTR` as signal(7) says: after a handler without
//! `SA_RESTART`, and after any handler if the call is never restarted (poll, sleeps, a socket with a time-out). Other
//! green threads are not interrupted, nor are waits for locks, nor waits that an OS thread does in the caller's place.
//! A patched call *in* a handler blocks the OS thread.
//!
//! **What is not patched.** Files and standard input, output and error (0 to 2) block the OS thread. So do crates that
//! make system calls without libc, stdio's locks, and C locks that are shared between processes or inherit priorities.
//! For crates on rustix (polling, async-io, smol, zbus), one line in the program's `Cargo.toml` makes them call libc:
//!
//! ```toml
//! rustix = { version = "1", features = ["use-libc"] }
//! ```
//!
//! # How patching works, what it promises, what it cannot see
//! **By linking.** A program that is built with the feature has definitions of its own for more than a hundred of
//! libc's symbols. The linker takes them for std and for every crate, and the dynamic loader takes them for C
//! libraries, so no pointer is overwritten. libc's definition behind each symbol is looked up before `main`, and
//! nothing else happens then. [`original`] has libc's definition under the same name, and [`report`] says whether the
//! program's calls are linked to this module.
//!
//! **Waits** concern only isolated green threads: anywhere else a call costs about ten instructions more than libc's.
//! In an isolated green thread, a call first tries without waiting (`MSG_DONTWAIT`, `RWF_NOWAIT`, a time-out of zero).
//! If it would block, it parks until the descriptor is ready, the time is over, or another thread wakes it. A
//! non-blocking descriptor still does not wait, and `SO_RCVTIMEO` and `SO_SNDTIMEO` hold, once for a call. Names are
//! looked up on the thread pool, and children are waited for by pidfd. For a wait that may last for ever and has no
//! descriptor (a C barrier, a lock on a file), an OS thread waits in the caller's place.
//!
//! **The non-blocking flag** belongs to the open file, which other threads and processes may use too, so it is not
//! changed. `accept` uses io_uring, which can accept without waiting (Linux 6.10; `GREEN_ACCEPT=thread` in the
//! environment turns that off). On an older kernel, and under seccomp, an OS thread for each listener accepts in the
//! caller's place; if that caller is killed, the next accept of the listener gets the connection. `sendfile` and
//! `splice` with a socket copy the data. Only `connect` of a stream socket sets the flag, for one system call. `fcntl`
//! and `ioctl` elsewhere in the process wait for the end of that call; a raw system call, or another process that has
//! the unconnected socket, might see the flag.
//!
//! **Fairness.** Calls that succeed at once, or never wait, let other green threads run now and then; `accept` does so
//! after each connection. A call reports a kill or a time-out before it has moved anything. A call that never waits
//! reports none.
//!
//! **Wakes** (an unlock, a futex wake, a close) concern all OS threads. Once anything is armed, they look for green
//! threads that wait, and then do what libc does. So locks and channels work between green threads and OS threads.
//!
//! **Thread-locals**: each isolated green thread has its own ([`thread::isolation`](crate::thread::isolation)).
//! Otherwise a patched call during a borrow of a thread-local `RefCell`, in a tokio runtime or in a parking_lot mutex
//! would let another green thread see that state.
//!
//! **It promises** libc's result and errno (but a bad pointer to a time or to a list of buffers may be a fault instead
//! of `EFAULT`). A blocking write is done to the end. A green thread that waits for a descriptor which is then closed
//! gets `EBADF`; it never gets bytes of another file that has the same number next.
//!
//! **It cannot see** a system call that is made without libc's symbols, nor the calls that glibc makes internally. The
//! second table below says what that means.
//!
//! # What works
//! Each row is a test in `tests/compat` (crates) or `tests/monkey` (std and C): unmodified code, in twenty green
//! threads at once on one OS thread, against real servers.
//!
//! | what | what of it | how it waits |
//! |---|---|---|
//! | std `net`, `os::unix::net` | TCP, UDP, Unix sockets, connect with a time-out, time-outs, vectored and large writes | sockets, poll |
//! | std `io::copy` | files to sockets, sockets to pipes | sendfile, splice |
//! | std `io::pipe`, `process` | pipes, `Command::output`, `wait` | pipes, poll, pidfd |
//! | std `fs` | FIFOs; locks on files (`File::lock`, `flock`, `lockf`, `fcntl`'s) | poll; an OS thread for each that waits to open or to lock |
//! | std `thread::sleep`, `park`, `scope` | | timers, futex |
//! | std `sync` | `Mutex`, `RwLock`, `Condvar`, `Barrier`, `Once`, `OnceLock`, `mpsc` (bounded, unbounded, rendezvous), between green threads and with OS threads | futex |
//! | std `net::ToSocketAddrs` | names | getaddrinfo on the pool |
//! | ureq | http, https (rustls) | sockets |
//! | reqwest::blocking | http; it runs a thread of its own with a tokio runtime | futex |
//! | curl | the C library, dynamically linked | poll |
//! | tungstenite | WebSocket, both ends | sockets |
//! | rustls, native-tls | both ends, OpenSSL | sockets, C locks |
//! | socket2 | listener, connect with a time-out | sockets, poll |
//! | redis | commands, `BLPOP`, publish and subscribe | sockets |
//! | postgres | which hides a tokio runtime | epoll |
//! | mysql | with its pool | sockets, futex |
//! | rusqlite | the busy time-out, in C | sleeps |
//! | r2d2, parking_lot | locks, condition variables; their thread-locals are each green thread's own | futex |
//! | crossbeam-channel | bounded, rendezvous, `select!`, `after` | futex |
//! | tokio, futures | a `block_on` in each green thread, tokio's time and tasks included | epoll, futex |
//! | C locks | mutexes (recursive too), condition variables, read-write locks, semaphores, `pthread_once` | the same table |
//! | C11's threads | `mtx_…`, `cnd_…`, `call_once`, `thrd_sleep`; it is how librdkafka waits, which rdkafka wraps | as C locks |
//! | C barriers, `thrd_join` | | an OS thread for each that waits |
//! | eventfd, timerfd, signalfd, inotify, terminals | reads and writes, `VMIN` and `VTIME` too | poll; a write that a terminal has no room for: an OS thread |
//! | `ppoll`, `pselect`, `epoll_pwait` | with the mask of signals that is in force; with another | poll; an OS thread for each that waits |
//! | `sigwait` and its kin, `pause` | signals to the process and to the OS thread | signalfd, the handlers |
//! | queues and semaphores between processes | POSIX queues; System V's (`msgrcv`, `semop`) | poll; an OS thread for each that waits |
//! | polling, async-io, smol | with rustix's feature `use-libc` | epoll, futex |
//! | `sched_yield`, `thrd_yield` (std's `yield_now`, crossbeam's `Backoff`) | code that asks again and again until another has done something | the ready queue; with nothing ready, timers and descriptors, then the system call |
//! | allocators with locks (jemalloc, mimalloc, tcmalloc, one behind a mutex) | | a lock that runs on another OS thread is waited for by the OS thread |
//!
//! What does not work, and why:
//!
//! | what | why |
//! |---|---|
//! | files; standard input, output and error | there is nothing to wait for but the disk, and lines of output must stay whole: use [`unblock`](crate::threadpool::unblock) |
//! | crates on raw system calls (rustix without `use-libc`, so fs4 and fd-lock; Go's runtime, io_uring) | no libc symbol is called |
//! | stdio's own locks (`flockfile`), `fopen` of a FIFO, C's `system`, `pclose`, `gethostbyname` | glibc waits inside itself |
//! | mutexes with priorities, or between processes as LMDB's are: two write transactions at once of heed | the kernel, or another process, has to know the waiters |
//! | the open of a serial line that waits for its carrier | it cannot be told from an open that does not wait |
//! | tracing-subscriber's registry with more than 4,096 live threads | it panics, and isolated green threads are threads to it |
//! | allocators with a cache for each thread | they work, but each isolated green thread has such a cache: 41 kB of jemalloc, 62 kB of mimalloc |
//! | spinning without `sched_yield` (`spin::Mutex`) | no libc symbol is called: it keeps the OS thread until another OS thread does what it waits for |
//! | a time-out or a kill of code that spins by `sched_yield` | the call has no error to return: it is delivered at the next wait |
//! | `std::thread::spawn` | makes an OS thread, as ever, unless [`patch_threads`] is called |
//!
//! Further limits:
//!
//! - A signal handler must not release what green threads wait for (`sem_post`, `close`).
//! - Calls that name a thread by its `pthread_t` (affinity, scheduling, CPU clocks, `pthread_kill`) fail for a green
//!   thread.
//! - In a forked child, patched calls park only the green threads that the child spawns itself. A `pthread_once` that
//!   was under way at the fork waits for ever.
//! - A library's constructor must not wait for long while `dlopen` runs it in a green thread, because the loader's lock
//!   is held.
//! - A kill or a time-out does not end a wait that an OS thread does in the caller's place: for any child (`wait`,
//!   `waitpid(-1)`), for the join of an OS thread, for a name, at a C barrier, for the lock on a file, for the other
//!   end of a FIFO, with a signal mask of its own, for System V's queues and semaphores, for a terminal to take what is
//!   written. A signal that is sent to the hub's OS thread, and not to the process, does not end such a wait either.
//!
//! # Invariants
//! - **M1** A patched call parks only an isolated green thread ([`Patch::shared_thread_locals`] aside). Anywhere else
//!   it is the original, at the cost of one look at a thread-local. It never parks in a callback of the hub; in a
//!   signal handler; in the middle of a change of this crate's own state (an allocator may wait there); in
//!   [`unpatched`] and in this crate's own calls; nor while the green thread unwinds in a context that has other
//!   members, because they would see `panicking()` return true.
//! - **M2** Before a patched call knows that it must park, it allocates nothing (except a buffer in calls that copy).
//!   It makes no other system calls than the original, queries, and variants of the original that do not wait.
//! - **M3** A patched call returns what the original would: result and errno.
//!
//! # Coming from Python
//! `gevent.monkey.patch_all()`.

mod accept;
mod bulk;
mod c11;
mod child;
mod connect;
mod device;
mod fd;
mod files;
mod futex;
mod handlers;
mod ipc;
mod locks;
mod names;
mod ready;
mod sleep;
mod symbol;
mod threads;

use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::hub::{Hub, Mode, Parker, Why, interrupt};
use crate::sys::fork::{Child, on_fork};
use crate::sys::{base, inside, plain};

/// A set of calls to patch; [`patch_all`] patches all of them.
///
/// ```
/// use greenthread::monkey::Patch;
/// # fn main() -> std::io::Result<()> {
/// Patch::new().sockets().time().apply()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use = "nothing is patched until apply() is called"]
pub struct Patch(u32);

const SOCKETS: u32 = 1;
const TIME: u32 = 2;
const READINESS: u32 = 4;
const NAMES: u32 = 8;
const PROCESSES: u32 = 16;
const LOCKS: u32 = 32;
const THREADS: u32 = 64;
const SHARED: u32 = 128;

/// All groups of calls. A symbol of this group counts as armed when any group is.
const ANY: u32 = SHARED - 1;

/// The groups that are armed, and [`SHARED`].
static ARMED: AtomicU32 = AtomicU32::new(0);

impl Patch {
    /// An empty set.
    pub const fn new() -> Patch {
        Patch(0)
    }

    /// Everything except `std::thread::spawn`, which [`patch_threads`] patches.
    pub const fn all() -> Patch {
        Patch(SOCKETS | TIME | READINESS | NAMES | PROCESSES | LOCKS)
    }

    /// Sockets, pipes, terminals, eventfd and the like: connect, accept, the recv and send families, read and write.
    ///
    /// The open of a FIFO belongs here too.
    pub const fn sockets(self) -> Patch {
        Patch(self.0 | SOCKETS)
    }

    /// Sleeps.
    pub const fn time(self) -> Patch {
        Patch(self.0 | TIME)
    }

    /// poll, select and epoll, and waits for signals (`sigwait`, `pause`).
    pub const fn readiness(self) -> Patch {
        Patch(self.0 | READINESS)
    }

    /// getaddrinfo and getnameinfo, on the thread pool.
    pub const fn names(self) -> Patch {
        Patch(self.0 | NAMES)
    }

    /// Waits for child processes.
    pub const fn processes(self) -> Patch {
        Patch(self.0 | PROCESSES)
    }

    /// std's locks, channels and `thread::park`, and everything else that waits by futex or lock.
    ///
    /// That includes C's locks, locks on files, and queues and semaphores between processes.
    pub const fn locks(self) -> Patch {
        Patch(self.0 | LOCKS)
    }

    /// Makes calls park in local green threads and on a hub's native stack too, which share their thread-locals.
    ///
    /// ```
    /// use greenthread::{monkey::Patch, spawn_local};
    /// use std::{thread::sleep, time::{Duration, Instant}};
    ///
    /// // SAFETY: nothing here is between two uses of a thread-local when it sleeps.
    /// unsafe { Patch::new().time().shared_thread_locals() }.apply().unwrap();
    /// let start = Instant::now();
    /// let other = spawn_local(|| sleep(Duration::from_millis(50)));
    /// sleep(Duration::from_millis(50)); // the native stack parks, and the other one runs
    /// other.join().unwrap();
    /// assert!(start.elapsed() < Duration::from_millis(95));
    /// ```
    ///
    /// # Safety
    /// From then on, on every OS thread with a hub, other code of that OS thread runs in the middle of a call that used
    /// to block, and sees the same thread-locals. No code that runs there may rely on the contrary. So there must be no
    /// lazy `thread_local!` with an initialiser that blocks, no scoped thread-local or reference to a thread-local that
    /// is held over a call that blocks, no contended lock of `parking_lot`, no two tokio contexts, and no
    /// `std::thread::park`.
    pub const unsafe fn shared_thread_locals(self) -> Patch {
        Patch(self.0 | SHARED)
    }

    /// Arms these calls, in addition to what is armed already.
    ///
    /// # Errors
    /// `Unsupported`, with the reason, where green threads cannot have thread-locals of their own: see
    /// [`thread::isolation`](crate::thread::isolation).
    pub fn apply(self) -> io::Result<()> {
        // With shared thread-locals, calls park without isolation, so it is not required.
        if self.0 & SHARED == 0 {
            crate::thread::isolation()?;
        }
        // Before the first call can park: a child that is forked then must clear the tables.
        on_fork(Child::Patches, forked);
        if ARMED.fetch_or(self.0, Ordering::SeqCst) == 0 {
            tell_all_threads();
        }
        Ok(())
    }
}

/// Makes every OS thread see that calls are armed. Wakes check that by a relaxed load: without this barrier, a wake by
/// another OS thread could miss a green thread that parks from now on.
fn tell_all_threads() {
    const REGISTER: i64 = 1 << 4;
    const PRIVATE: i64 = 1 << 3;
    // The kernel refuses the private barrier until the process has registered for it.
    for command in [REGISTER, PRIVATE] {
        // SAFETY: `membarrier` has no pointer arguments; it only runs a barrier on the process's threads.
        unsafe { original::syscall(libc::SYS_membarrier, command, 0, 0, 0, 0, 0) };
    }
}

/// Runs in a forked child: the waiters in the tables are threads of the parent, which do not exist here.
fn forked() {
    futex::forget_all();
    accept::forget_all();
    connect::forget_all();
}

/// Patches everything except `std::thread::spawn`, which [`patch_threads`] patches.
///
/// # Errors
/// As [`Patch::apply`].
pub fn patch_all() -> io::Result<()> {
    Patch::all().apply()
}

/// Patches everything, and makes `std::thread::spawn` in an isolated green thread spawn a green thread.
///
/// The new green thread is isolated too. `Builder`, `join`, `scope`, `park`, names and panics are std's own, unchanged.
/// Threads that C libraries create stay OS threads, and so do threads that are spawned on the native stack.
///
/// ```
/// greenthread::monkey::patch_threads().unwrap();
/// let on_one = greenthread::run(|| {
///     let mine = rustix::thread::gettid();
///     let others: Vec<_> = (0..10).map(|_| std::thread::spawn(rustix::thread::gettid)).collect();
///     others.into_iter().all(|other| other.join().unwrap() == mine)
/// });
/// assert!(on_one);
/// ```
///
/// # Errors
/// As [`Patch::apply`]; also `Unsupported` if the function where std's threads begin cannot be determined.
pub fn patch_threads() -> io::Result<()> {
    crate::thread::isolation()?;
    if !threads::learn() {
        let reason = "std's threads do not begin as known";
        return Err(io::Error::new(io::ErrorKind::Unsupported, reason));
    }
    Patch(Patch::all().0 | THREADS).apply()
}

/// Whether all of `patch` is armed.
pub fn is_patched(patch: Patch) -> bool {
    ARMED.load(Ordering::SeqCst) & patch.0 == patch.0
}

/// Whether any call is armed. Nothing is ever disarmed.
#[inline]
fn is_armed() -> bool {
    ARMED.load(Ordering::Relaxed) != 0
}

/// Runs `f` with the calls of this green thread unpatched: they block the OS thread.
pub fn unpatched<F: FnOnce() -> T, T>(f: F) -> T {
    plain::plainly(f)
}

/// libc's own definitions of the patched symbols, for code that is to block the OS thread in every context.
///
/// ```
/// use greenthread::monkey::original;
/// // SAFETY: no pointers are involved.
/// assert_eq!(unsafe { original::usleep(100) }, 0);
/// ```
///
/// # Coming from Python
/// `gevent.monkey.get_original`.
pub mod original {
    pub use super::accept::original::*;
    pub use super::bulk::original::*;
    pub use super::c11::original::*;
    pub use super::child::original::*;
    pub use super::connect::flags::*;
    pub use super::connect::original::*;
    pub use super::device::original::*;
    pub use super::fd::original::*;
    pub use super::files::original::*;
    pub use super::futex::original::*;
    pub use super::handlers::original::*;
    pub use super::ipc::original::*;
    pub use super::locks::original::*;
    pub use super::locks::release::*;
    pub use super::names::original::*;
    pub use super::ready::original::*;
    pub use super::sleep::original::*;
    pub use super::threads::original::*;
    pub use super::threads::plain::*;
}

/// One patched symbol, as [`report`] lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Symbol {
    /// The symbol's name.
    pub name: &'static str,
    /// Whether the program's calls are linked to this crate: another definition may be ahead of it (a preloaded
    /// library, say).
    pub is_ours: bool,
    /// Whether the symbol is armed.
    pub is_armed: bool,
}

/// Lists the patched symbols.
///
/// ```
/// greenthread::monkey::patch_all().unwrap();
/// let report = greenthread::monkey::report();
/// assert!(report.iter().all(|symbol| symbol.is_ours), "{report:#?}");
/// ```
pub fn report() -> Vec<Symbol> {
    let armed = ARMED.load(Ordering::SeqCst);
    let told = symbol::all().map(|(name, ours, group)| Symbol {
        name: name.to_str().unwrap_or_default(),
        is_ours: symbol::resolved(name) == ours,
        is_armed: armed & group != 0,
    });
    told.collect()
}

/// Whether a call is the original without a further check: the code runs in the native context, and calls do not park
/// there.
#[inline(always)]
fn passes() -> bool {
    base::is_native() && ARMED.load(Ordering::Relaxed) & SHARED == 0
}

/// The hub, if this call may park; `None` if it is the original and blocks (M1).
#[inline(always)]
fn gate(group: u32) -> Option<&'static Hub> {
    if passes() {
        return None;
    }
    gate_here(group)
}

/// The part of [`gate`] that is out of line, so that the fast path saves no registers.
#[inline(never)]
fn gate_here(group: u32) -> Option<&'static Hub> {
    let armed = ARMED.load(Ordering::Relaxed);
    // Calls of this crate's own (`is_plain`), and an allocator below a change of this crate's state (`is_inside`): M1.
    if armed & group == 0 || plain::is_plain() || inside::is_inside() {
        return None;
    }
    // A signal handler's stack may be small: check for one before the checks that need more stack.
    let hub = Hub::try_current()?;
    if handlers::is_in_one(hub) || !hub.may_park_patched(armed & SHARED != 0) {
        return None;
    }
    // Signals that came before this call do not interrupt it. Locks are never interrupted, and may be taken in the
    // middle of a call that is (by an allocator, say): they must not clear what that call still has to report.
    if group != LOCKS {
        hub.forget_signals();
    }
    Some(hub)
}

/// Why a patched call gives up.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cut {
    TimedOut,
    /// A kill or an expired [`Timeout`](crate::time::Timeout), reported by this errno.
    Interrupted(i32),
}

/// Reports the kill or the time-out that is due to the caller of a patched call. Escalates if the caller ignores it: a
/// line on stderr, then (for a kill) the green thread is set aside.
fn interrupted(hub: &'static Hub, call: &str) -> Cut {
    let task = hub.running();
    let is_kill = interrupt::is_kill_due(task);
    // From now on the green thread counts as told: its end, or the guard's, reports the interrupt as well.
    interrupt::tell(task);
    // Counted for each reason on its own, so that a new time-out starts at 1.
    let times = hub.count_refusal(interrupt::due_number(task));
    if times == 16 {
        let what = if is_kill { "killed" } else { "timed out" };
        crate::hub::complain(format_args!(
            "{} has been told 16 times that it is {what}, and still calls {call}",
            crate::hub::Reporter::of(task).name
        ));
    }
    // Only a kill: code that ignores a time-out ends when it leaves `Timeout::run`, but a kill stays due for ever.
    if times >= 1000 && is_kill {
        crate::hub::complain(format_args!(
            "{} is set aside for good: it was told 1000 times that it is killed",
            crate::hub::Reporter::of(task).name
        ));
        loop {
            Parker::new().park(None, Mode::Must, Why::new(&ASIDE, 0));
        }
    }
    let errno = if is_kill { libc::ECANCELED } else { libc::ETIMEDOUT };
    if times > 1 {
        // The call failed without parking. Let others run, or a loop that ignores the error would keep the hub. The
        // shield keeps the yield from delivering the same interrupt, and nothing may unwind from here.
        crate::thread::shield(|| drop(std::panic::catch_unwind(AssertUnwindSafe(crate::thread::yield_now))));
    }
    Cut::Interrupted(errno)
}

static ASIDE: &str = "nothing: it was set aside for ignoring its kill";

/// Runs `f`, which is code of this crate. `None`: it panicked. The payload is discarded, because nothing may unwind out
/// of a patched call.
fn contained<T>(f: impl FnOnce() -> T) -> Option<T> {
    match std::panic::catch_unwind(AssertUnwindSafe(f)) {
        Ok(value) => Some(value),
        Err(payload) => {
            crate::hub::discard(payload);
            None
        }
    }
}

fn errno() -> i32 {
    // SAFETY: `__errno_location` returns the address of a live thread-local of the running thread.
    unsafe { *libc::__errno_location() }
}

fn set_errno(value: i32) {
    // SAFETY: `__errno_location` returns the address of a live thread-local of the running thread.
    unsafe { *libc::__errno_location() = value };
}

/// Sets errno and returns -1, as a failed system call does.
fn fail(value: i32) -> libc::c_int {
    set_errno(value);
    -1
}
