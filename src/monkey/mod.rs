//! Monkey patching: libc's blocking calls park the green thread that makes them (feature `monkey`).
//!
//! The feature defines libc's blocking symbols in the program, ahead of libc's own: std, and every crate and C library
//! that calls libc, comes here by linking. Nothing happens until [`patch_all`] arms them; from then on a call by an
//! *isolated* green thread ([`spawn`](crate::spawn), [`run`](crate::run), [`scope`](crate::scope)) that would block
//! waits on the hub instead, and other green threads run.
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
//! On the native stack, in local green threads and in callbacks of the hub a patched call blocks as ever: a program whose
//! `main` is to be cooperative too wraps it in [`run`](crate::run).
//!
//! **Kill and time-out.** A patched call never unwinds: its callers are compiled as though it could not. It fails with
//! `ECANCELED` (kill) or `ETIMEDOUT` (time-out); the first sleep after one returns early, later ones take their time. The
//! next wait of this crate's own raises, and so does the end of the closure that was killed or timed out: once a patched call
//! has told of it, `timeout` gives `Elapsed`, [`catch_kill`](crate::thread::catch_kill) `Killed`, and `join` says killed,
//! though the closure *may have completed*. [`timeout_or_late`](crate::time::timeout_or_late) and
//! [`JoinError::into_value`](crate::thread::JoinError::into_value) have what it returned. One that was never told changes
//! nothing. What waits by futex (std's locks, `Condvar`, channels, `park`, `join`) is neither killed nor timed out: it waits
//! to its own end.
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
//! Code that ignores the errors, call after call, is named on stderr after 16; a killed one is set aside after 1,000: it is
//! never resumed, its destructors do not run, what it holds stays held, and a join of it does not return. So leave a loop
//! that accepts, say, on `ECANCELED`.
//!
//! **Signals.** A handler interrupts the one call that the green thread of [`run`](crate::run) waits in, if it runs on that
//! OS thread: with `EINTR`, where signal(7) says so, that is after a handler without `SA_RESTART`, and after any if the call is
//! never restarted (poll, sleeps, a socket with a time-out). Other green threads are not interrupted, nor are locks and what
//! an OS thread does in the caller's place. A patched call *in* a handler blocks the OS thread.
//!
//! **What is not patched.** Files and standard input, output and error (0 to 2) block as ever, and so do crates that make
//! system calls without libc, locks of stdio, and C locks shared between processes or inheriting priorities. For crates on
//! rustix (polling, async-io, smol, zbus) one line in the program's `Cargo.toml` turns libc on:
//!
//! ```toml
//! rustix = { version = "1", features = ["use-libc"] }
//! ```
//!
//! # How patching works, what it promises, what it cannot see
//! **By linking.** A program that is built with the feature has definitions of its own for more than a hundred symbols of libc's. The
//! linker takes them for std and for every crate, and the dynamic loader for C libraries, so no pointer is
//! overwritten. What stands behind each symbol is looked up before `main`, and nothing else happens then; [`original`] has it
//! under the same name, [`report`] says whether the program's calls really come here.
//!
//! **Waits** concern isolated green threads alone: anywhere else a call costs some ten instructions more than libc's. In
//! one, a call first tries without waiting (`MSG_DONTWAIT`, `RWF_NOWAIT`, a time-out of zero). What would block parks until
//! the descriptor is ready, the time is over, or somebody wakes it. A descriptor that its user made non-blocking stays so,
//! and `SO_RCVTIMEO` and `SO_SNDTIMEO` hold, once for a call. Names are looked up on the thread pool; children are waited for by pidfd; what
//! may wait for ever without a descriptor (a C barrier, a lock on a file) has an OS thread to wait in its place.
//!
//! **The non-blocking flag** belongs to the open file, which other threads and processes may have, so it is left alone.
//! `accept` goes by io_uring, whose accept can be told not to wait (Linux 6.10; set `GREEN_ACCEPT=thread` in the environment
//! to do without); elsewhere, and under seccomp, an OS thread for each listener accepts in the caller's place, and a
//! connection that comes when its caller was killed is the next one's. `sendfile` and `splice` with a socket copy.
//! Only `connect` of a stream socket sets the flag, for one system call, and `fcntl` and `ioctl` elsewhere in the process wait
//! that long: a raw system call, or another process that has the unconnected socket, might see it.
//!
//! **Fairness.** A call that succeeds at once, or never waits, lets others run now and then, and after each `accept`. A kill
//! or a time-out is told before anything is moved, and not to a call that never waits.
//!
//! **Wakes** concern everybody: an unlock, a futex wake, a close. Once anything is armed they look, on any OS thread, for
//! green threads that wait, and then do what libc does: locks and channels work between green threads and OS threads.
//!
//! **Thread-locals** are each green thread's own ([`thread::isolation`](crate::thread::isolation)). Without that a patched
//! call inside a `RefCell` of a thread-local, a tokio runtime or a parking_lot mutex would meet another green thread's state.
//!
//! **It promises** what libc would have returned, result and errno (but a bad pointer to a time or to a list of buffers may be
//! a fault instead of `EFAULT`); a blocking write is done to the end;
//! who waits for a descriptor that is closed gets `EBADF`, and nobody gets the bytes of another who has its number next.
//!
//! **It cannot see** a system call that is made without libc's symbol, nor what glibc does inside itself. The second table
//! below says what that means.
//!
//! # What works
//! Unmodified, twenty green threads at once on one OS thread, against real servers; each row is a test in `tests/compat`
//! (crates) or `tests/monkey` (std and C).
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
//! What does not, and why:
//!
//! | what | why |
//! |---|---|
//! | files; standard input, output and error | there is nothing to wait for but the disk, and lines of output must stay whole: use [`unblock`](crate::threadpool::unblock) |
//! | crates on raw system calls (rustix without `use-libc`, so fs4 and fd-lock; Go's runtime, io_uring) | no libc symbol is called |
//! | stdio's own locks (`flockfile`), `fopen` of a FIFO, C's `system`, `pclose`, `gethostbyname` | glibc waits inside itself |
//! | mutexes with priorities, or between processes as LMDB's are: two write transactions at once of heed | the kernel, or another process, has to know who waits |
//! | the open of a serial line that waits for its carrier | it cannot be told from one that does not |
//! | tracing-subscriber's registry with more than 4,096 live threads | it panics, and isolated green threads are threads to it |
//! | allocators with a cache for each thread | they work, but each isolated green thread has such a cache: 41 kB of jemalloc, 62 kB of mimalloc |
//! | spinning without `sched_yield` (`spin::Mutex`) | no libc symbol is called: it keeps the OS thread until another OS thread does what it waits for |
//! | a time-out or a kill of code that spins by `sched_yield` | the call has no error to return: it is delivered at the next wait |
//! | `std::thread::spawn` | makes an OS thread, as ever, unless [`patch_threads`] is called |
//!
//! Nor may a signal handler release what green threads wait for (`sem_post`, `close`), and calls that name a thread by its
//! `pthread_t` (affinity, scheduling, CPU clocks, `pthread_kill`) fail for a green thread's. In a forked child only green
//! threads that it spawns itself are patched, and a `pthread_once` that was under way at the fork waits for ever. A
//! constructor of a library must not wait for long while `dlopen` runs it in a green thread: the loader's lock is held.
//! A kill or a time-out does not end the waits that an OS thread does in the caller's place: for any child (`wait`,
//! `waitpid(-1)`), for the join of an OS thread, for a name, at a C barrier, for the lock on a file, for the other end of a
//! FIFO, with a mask of signals of its own, for System V's queues and semaphores, for a terminal to take what is written. A
//! signal that is sent to the hub's OS thread, and not to the process, does not end such a wait either.
//!
//! # Invariants
//! - **M1** A patched call parks only an isolated green thread ([`Patch::shared_thread_locals`] aside), never in a callback
//!   of the hub, nor in a signal handler, nor in the middle of a change of this crate's own state (an allocator may wait
//!   there), nor while it unwinds and shares its thread-locals with others that would take part in that, nor in
//!   [`unpatched`] and this crate's own calls; anywhere else it is the original, at the price of one look at a thread-local.
//! - **M2** Before it knows that it must park it allocates nothing (but a buffer for what copies), and makes no call but
//!   the original's, questions, and those that do the same without waiting.
//! - **M3** It returns what the original would: result and errno.
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

use crate::hub::Hub;
use crate::hub::interrupt;
use crate::hub::park::{Mode, Parker, Why};
use crate::sys::fork::{Child, on_fork};
use crate::sys::{base, inside, plain};

/// A choice of calls to patch; [`patch_all`] is all of them.
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

/// Any of them.
const ANY: u32 = SHARED - 1;

/// What is armed.
static ARMED: AtomicU32 = AtomicU32::new(0);

impl Patch {
    /// Nothing yet.
    pub const fn new() -> Patch {
        Patch(0)
    }

    /// Everything but `std::thread::spawn`, for which see [`patch_threads`].
    pub const fn all() -> Patch {
        Patch(SOCKETS | TIME | READINESS | NAMES | PROCESSES | LOCKS)
    }

    /// Sockets, pipes, terminals, eventfd and the like: connect, accept, the recv and send families, read and write; and the
    /// open of a FIFO.
    pub const fn sockets(self) -> Patch {
        Patch(self.0 | SOCKETS)
    }

    /// Sleeps.
    pub const fn time(self) -> Patch {
        Patch(self.0 | TIME)
    }

    /// poll, select and epoll; signals that are waited for (`sigwait`, `pause`).
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

    /// std's locks, channels and `thread::park`, whatever else waits by futex, C's locks, locks on files, and queues and
    /// semaphores between processes.
    pub const fn locks(self) -> Patch {
        Patch(self.0 | LOCKS)
    }

    /// Has local green threads and the native stack of a hub park too, which share thread-locals.
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
    /// From then on, on every OS thread with a hub, other code of that OS thread runs in the middle of what used to be a
    /// blocking call, and sees the same thread-locals. Nothing that is called there may rely on the contrary: no lazy
    /// `thread_local!` whose initialiser blocks, no scoped thread-local or reference to one that is held over a call that
    /// blocks, no contended lock of `parking_lot`, no two tokio contexts, no `std::thread::park`.
    pub const unsafe fn shared_thread_locals(self) -> Patch {
        Patch(self.0 | SHARED)
    }

    /// Arms them, in addition to what is armed already.
    ///
    /// # Errors
    /// `Unsupported` where green threads cannot have thread-locals of their own, with the reason: see
    /// [`thread::isolation`](crate::thread::isolation).
    pub fn apply(self) -> io::Result<()> {
        if self.0 & SHARED == 0 {
            crate::thread::isolation()?;
        }
        on_fork(Child::Patches, forked);
        if ARMED.fetch_or(self.0, Ordering::SeqCst) == 0 {
            tell_all_threads();
        }
        Ok(())
    }
}

/// From here on every OS thread sees that something is armed, so that no wake of its is lost.
fn tell_all_threads() {
    const REGISTER: i64 = 1 << 4;
    const PRIVATE: i64 = 1 << 3;
    for command in [REGISTER, PRIVATE] {
        // SAFETY: a barrier on each of the process's threads.
        unsafe { original::syscall(libc::SYS_membarrier, command, 0, 0, 0, 0, 0) };
    }
}

/// In a forked child: those who waited, or were about to, are the parent's.
fn forked() {
    futex::forget_all();
    accept::forget_all();
    connect::forget_all();
}

/// Patches everything but `std::thread::spawn`, for which see [`patch_threads`].
///
/// # Errors
/// As [`Patch::apply`].
pub fn patch_all() -> io::Result<()> {
    Patch::all().apply()
}

/// Patches all, and has `std::thread::spawn`, called in an isolated green thread, make another one instead of an OS thread.
///
/// `Builder`, `join`, `scope`, `park`, names and panics are std's own, unchanged. Threads that C libraries make stay OS
/// threads, and so does what is spawned on the native stack.
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
/// As [`Patch::apply`]; `Unsupported` too if std begins its threads in a way that is not known.
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

/// Whether anything was ever armed; nothing is disarmed again.
#[inline]
fn is_armed() -> bool {
    ARMED.load(Ordering::Relaxed) != 0
}

/// Runs `f` with the calls of this green thread as they were: they block the OS thread.
pub fn unpatched<F: FnOnce() -> T, T>(f: F) -> T {
    plain::plainly(f)
}

/// libc's own definitions of what is patched, for code that is to block the OS thread whoever calls it.
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

/// One patched symbol, as [`report`] tells of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Symbol {
    /// Its name.
    pub name: &'static str,
    /// Whether the program's calls come here: another definition may be ahead (a preloaded library, say).
    pub is_ours: bool,
    /// Whether it is armed.
    pub is_armed: bool,
}

/// What is patched, symbol by symbol.
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

/// Whether a call that waits is the original without a further look: no isolated green thread makes it.
#[inline(always)]
fn passes() -> bool {
    base::is_native() && ARMED.load(Ordering::Relaxed) & SHARED == 0
}

/// The hub, if this call is to park instead of to block (M1).
#[inline(always)]
fn gate(group: u32) -> Option<&'static Hub> {
    if passes() {
        return None;
    }
    gate_here(group)
}

#[inline(never)]
fn gate_here(group: u32) -> Option<&'static Hub> {
    let armed = ARMED.load(Ordering::Relaxed);
    if armed & group == 0 || plain::is_plain() || inside::is_inside() {
        return None;
    }
    // First what takes little of a signal handler's stack.
    let hub = Hub::try_current()?;
    if handlers::is_in_one(hub) || !hub.may_park_patched(armed & SHARED != 0) {
        return None;
    }
    // A lock is not interrupted, and may well be taken in the midst of a call that is.
    if group != LOCKS {
        hub.forget_signals();
    }
    Some(hub)
}

/// Why a patched call ends without having done what it was called for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cut {
    TimedOut,
    /// A kill or a time-out of ours: with this errno.
    Interrupted(i32),
}

/// What a kill or a time-out is to the caller of a patched call; escalates if it is ignored.
fn interrupted(hub: &'static Hub, call: &str) -> Cut {
    let task = hub.running();
    let is_kill = interrupt::is_killed(task);
    interrupt::tell(task);
    let times = hub.count_refusal(interrupt::due_number(task));
    if times == 16 {
        let what = if is_kill { "killed" } else { "timed out" };
        crate::hub::complain(format_args!(
            "{} has been told 16 times that it is {what}, and still calls {call}",
            crate::hub::Reporter::of(task).who
        ));
    }
    // A time-out has an end; a kill has none.
    if times >= 1000 && is_kill {
        crate::hub::complain(format_args!(
            "{} is set aside for good: it was told 1000 times that it is killed",
            crate::hub::Reporter::of(task).who
        ));
        loop {
            Parker::new().park(None, Mode::Must, Why::new(&ASIDE, 0));
        }
    }
    let errno = if is_kill { libc::ECANCELED } else { libc::ETIMEDOUT };
    if times > 1 {
        // It came at once: let others run, or a loop that ignores errors would keep the hub.
        crate::thread::shield(|| drop(std::panic::catch_unwind(AssertUnwindSafe(crate::thread::yield_now))));
    }
    Cut::Interrupted(errno)
}

static ASIDE: &str = "nothing: it was set aside for ignoring its kill";

/// Runs `f`, which is code of this crate, and keeps what it panics with: nothing unwinds out of a patched call.
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
    // SAFETY: the address of a thread-local of libc's.
    unsafe { *libc::__errno_location() }
}

fn set_errno(value: i32) {
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = value };
}

/// Fails as a system call does.
fn fail(value: i32) -> libc::c_int {
    set_errno(value);
    -1
}
