//! Monkey patching: libc's blocking calls park the green thread that makes them (feature `monkey`; Linux with glibc,
//! and refused at compile time elsewhere).
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
//! the kill or the time-out, the result of the closure is replaced, even if the closure runs to its end: `timeout`
//! returns `Elapsed`, [`catch_kill`](crate::thread::catch_kill) returns `Killed`, and `join` says that the green thread
//! was killed. Then [`timeout_or_late`](crate::time::timeout_or_late) and
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
//! libraries, so no pointer is overwritten. libc's definition behind each symbol is looked up before `main`; nothing is
//! patched then. [`original`] has libc's definition under the same name, and [`report`] says whether the program's
//! calls are linked to this module.
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
//! | allocators with locks (jemalloc, mimalloc, tcmalloc, one behind a mutex) | | if the holder of the lock runs on another OS thread, the whole OS thread of the caller waits, for a second at most; after that only the green thread waits |
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
//! - **MONKEY-1** A patched call parks only an isolated green thread ([`Patch::shared_thread_locals`] aside). Anywhere
//!   else it is the original, at the cost of one look at a thread-local. It never parks in a callback of the hub; in a
//!   signal handler; in the middle of a change of this crate's own state (an allocator may wait there); in
//!   [`unpatched`] and in this crate's own calls; nor while the green thread unwinds in a context that has other
//!   members, because they would see `panicking()` return true.
//! - **MONKEY-2** Before a patched call knows that it must park, it allocates nothing (except a buffer in calls that
//!   copy). It makes no other system calls than the original, queries, and variants of the original that do not wait.
//! - **MONKEY-3** A patched call returns what the original would: result and errno.
//!
//! # Coming from Python
//! `gevent.monkey.patch_all()`.

mod accept;
mod bulk;
mod call;
mod close;
mod connect;
mod device;
mod fd;
mod futex;
mod gate;
mod iovec;
mod locks;
mod offload;
mod processes;
mod ready;
mod signals;
mod sleep;
mod symbol;
mod table;
mod threads;

use std::io;

pub use symbol::Patch;

use crate::sys::fork::{InChild, reset_on_fork};
use crate::sys::plain;

impl Patch {
    /// Arms these calls, in addition to what is armed already.
    ///
    /// # Errors
    /// `Unsupported`, with the reason that [`thread::isolation`](crate::thread::isolation) gives, where green threads
    /// cannot have thread-locals of their own. Then nothing is patched.
    pub fn apply(self) -> io::Result<()> {
        // With shared thread-locals, calls park without isolation, so it is not required.
        if self.0 & gate::SHARED == 0 {
            require_isolation()?;
        }
        // Before the first call can park: a child that is forked then must clear the tables.
        reset_on_fork(&(forked as _));
        gate::arm(self.0);
        Ok(())
    }
}

/// The error says what stays as it was, and why.
fn require_isolation() -> io::Result<()> {
    crate::isolation::status().map_err(|reason| {
        let text = format!("nothing was patched, because green threads would share thread-locals: {reason}");
        io::Error::new(io::ErrorKind::Unsupported, text)
    })
}

/// Runs in a forked child: the waiters in the tables are threads of the parent, which do not exist here.
fn forked(child: &InChild) {
    table::forget_all(child);
    accept::forget_all(child);
    call::forget_all(child);
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
    require_isolation()?;
    if !threads::learn() {
        let reason = "std's threads do not begin as known";
        return Err(io::Error::new(io::ErrorKind::Unsupported, reason));
    }
    Patch(Patch::all().0 | gate::THREADS).apply()
}

/// Whether all of `patch` is armed.
pub fn is_patched(patch: Patch) -> bool {
    gate::armed() & patch.0 == patch.0
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
    pub use super::bulk::original::*;
    pub use super::close::original::*;
    pub use super::fd::original::*;
    pub use super::futex::original::*;
    pub use super::locks::original::*;
    pub use super::locks::release::*;
    pub use super::offload::original::*;
    pub use super::processes::original::*;
    pub use super::ready::original::*;
    pub use super::signals::actions::*;
    pub use super::signals::original::*;
    pub use super::symbol::flags::*;
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
    let armed = gate::armed();
    let told = symbols().map(|(name, ours, group)| Symbol {
        name: name.to_str().unwrap_or_default(),
        is_ours: symbol::resolved(name) == ours,
        is_armed: armed & group != 0,
    });
    told.collect()
}

/// All patched symbols.
fn symbols() -> impl Iterator<Item = symbol::Listed> {
    let descriptors = fd::symbols()
        .chain(bulk::symbols())
        .chain(ready::symbols())
        .chain(close::symbols());
    let processes = processes::symbols().chain(processes::flag_symbols());
    let locks = futex::symbols()
        .chain(locks::symbols())
        .chain(locks::release_symbols())
        .chain(locks::c11_symbols());
    let signals = signals::symbols().chain(signals::action_symbols());
    let threads = threads::symbols().chain(threads::join_symbols());
    descriptors
        .chain(processes)
        .chain(locks)
        .chain(signals)
        .chain(threads)
        .chain(offload::symbols())
}
