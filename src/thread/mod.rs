//! Green threads, with std's names.
//!
//! ```
//! use std::time::Duration;
//! use greenthread::{sleep, thread};
//!
//! let slow = thread::spawn(|| { sleep(Duration::from_millis(100)); "slow" });
//! let fast = thread::spawn(|| { sleep(Duration::from_millis(1)); "fast" });
//! assert_eq!(thread::iwait([slow, fast]).map(|h| h.join().unwrap()).collect::<Vec<_>>(), ["fast", "slow"]);
//! ```
//!
//! A green thread runs on the hub of the OS thread that spawns it, and never leaves it. So all of them take turns on
//! one OS thread, unless you start more ([`hub::Hubs`]). The next green thread runs when one waits: in this crate's
//! sleeps, joins, locks and sockets. The hub runs while the OS thread itself waits; `main` does so in a join, say.
//!
//! | you have | use |
//! |---|---|
//! | a closure that is `Send`, as for `std::thread::spawn` | [`spawn`] |
//! | a closure that is not `Send` (with an `Rc` in it, say), or a million green threads | [`spawn_local`] |
//! | several processors to use | [`hub::Hubs`] |
//! | a name, a stack size, or locals to inherit | [`Builder`] |
//! | a whole program to run as a green thread | [`run`] |
//! | work to end from outside | [`JoinHandle::kill`], [`CancelToken`], [`timeout`](crate::timeout()) |
//!
//! # Several green threads
//! Which of these to use depends on what you want of them:
//!
//! | you want | use | may borrow | when one fails | when the caller is killed, or drops it |
//! |---|---|---|---|---|
//! | all or nothing: one result, the first error ends the rest | [`nursery()`] | yes | the others are killed; its error is the result | the children are killed and waited for |
//! | green threads that borrow, each with a result of its own | [`scope()`] | yes | its own `join` says so | the same |
//! | results in the order of their ends, more work meanwhile | [`JoinSet`] | no | an `Err` among the results | the members are killed |
//! | results in the order of their ends, of handles that you have | [`iwait`]; the first few of them: [`wait`] | handles of scopes and nurseries too | an `Err` among the results | they run on |
//! | all results, in the order of the handles | [`join_all`] | the same | an `Err` among the results | they run on |
//! | a limit on how many run at once; `map`, `imap` | [`Pool`] | no | an `Err` among the results | they run on |
//! | no results, but a wait for all or a kill of all | [`Group`] | no | [`join_raise`](Group::join_raise) gives the first | they run on |
//! | a nursery by asyncio's names, of futures or of blocking code | [`aio::TaskGroup`](crate::aio::TaskGroup) | no | the others are cancelled; all errors together | they are cancelled |
//!
//! # Giving way
//! A green thread lets others run when it blocks in this crate, and now and then when an operation could have blocked.
//! A long computation should call [`yield_now`] now and then.
//!
//! An operation that might block but succeeds at once (a read when data is there, a free lock, a channel with room)
//! does not switch. After 128 such operations the next one lets others run before it begins, and a kill or a time-out
//! is delivered there. That happens sooner if a timer or a socket may have waited for a millisecond. Operations that
//! never wait (`try_lock`, `set`, an unlock, `unpark`, `spawn`) never switch. Loops that call [`yield_now`] do not
//! delay timers and sockets by more than a millisecond either.
//!
//! # What still blocks
//! Only waits in this crate let other green threads run. The following block the OS thread with all of its green
//! threads. If they wait for a green thread of the same OS thread, they wait forever:
//!
//! - `std::sync::Mutex`, `RwLock`, `Condvar`, `Barrier` and `Once*`, where they have to wait; `mpsc::Receiver::recv`;
//! - `std::thread::park`, `sleep` and `JoinHandle::join`; a `std::thread::scope` with OS threads that still run;
//! - `std::net`, pipes, a terminal's `stdin`, `std::process`'s `wait` and `output`;
//! - files: `std::fs`, a page that `mmap` must fetch; no poller knows when a disk is ready;
//! - a long computation: call [`yield_now`] in it, or use another OS thread.
//!
//! std's locks are fine if they are held briefly, and no green thread blocks in this crate while it holds one.
//! Otherwise use this crate's locks, [`threadpool::unblock`](crate::threadpool::unblock), or the patched libc of the
//! feature `monkey`.
//!
//! # Kill
//! [`JoinHandle::kill`] asks a green thread to end. It unwinds at its next park, so its destructors run. If it never
//! ran, it drops its closure. A patched call of libc's fails instead of unwinding; if the closure then returns, the
//! green thread still counts as killed ([`JoinError::is_killed`]). [`catch_kill`] catches it, [`shield`] defers it. A
//! kill that would unwind through an `extern "C"` function aborts the process, as a panic would: shield such a
//! callback.
//!
//! # What an isolated green thread has of its own
//! It has its own thread-locals, including `errno`, and what libc keeps for a thread ([`isolation`] has a table). A
//! switch does not save the control words of the floating-point unit. If a green thread changes them (rounding, or
//! flush-to-zero and denormals-are-zero in MXCSR, as some numeric and audio libraries do), the change holds for its
//! whole OS thread. Set them back before the next wait. The signal mask, the working directory and similar state also
//! belong to the OS thread or to the process.
//!
//! # After the end of the OS thread's hub
//! A table in [`hub`](crate::hub#after-its-end) says what destructors of thread-locals may do then.
//!
//! # Soundness of local green threads
//! Local green threads share their OS thread's thread-locals, as all of corosensei's coroutines do. Do not park
//! *inside* the initialiser of a `thread_local!` or the closure of a scoped thread-local, because another green thread
//! could enter the same code again.

mod builder;
mod group;
mod hubs;
mod imap;
mod join;
mod join_set;
mod kill;
mod local;
mod many;
mod nursery;
mod pool;
mod scope;
mod token;

use std::fmt;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

pub use builder::{Builder, Locals};
pub use group::Group;
pub use imap::Imap;
pub use join::{JoinError, JoinHandle};
pub use join_set::JoinSet;
pub use kill::{Killed, catch_kill, shield};
pub use local::LocalKey;
#[doc(hidden)]
pub use local::{__new_inherited_key, __new_key};
pub use many::{Joinable, Wait, iwait, join_all, kill_all, wait};
pub use nursery::{Nursery, NurseryHandle, nursery};
pub use pool::{Pool, PoolFull};
#[cfg(feature = "monkey")]
pub(crate) use scope::lend;
pub use scope::{Scope, ScopedJoinHandle, scope};
pub(crate) use token::Listening;
pub use token::{CancelToken, Cancelled};

pub use crate::time::{sleep, sleep_until};

use crate::hub::{
    self, Handle, Hub, Kind, Marks, Mode, Name, PARK, Parker, TaskRef, Wake, Why, budget, interrupt, task,
};

/// What [`spawn`] takes: any closure without arguments. There is nothing to implement.
#[diagnostic::on_unimplemented(
    message = "a green thread runs a closure, and `{Self}` is not one",
    note = "spawn a future with `greenthread::future::spawn`, or block on it: `spawn(|| \
            greenthread::future::block_on(future))`"
)]
pub trait Closure<T>: FnOnce() -> T {}

impl<F: FnOnce() -> T, T> Closure<T> for F {}

/// Spawns a green thread, as `std::thread::spawn` spawns an OS thread. It starts at the next turn, in order.
///
/// ```
/// let answer = greenthread::spawn(|| 6 * 7);
/// assert_eq!(answer.join().unwrap(), 42);
/// ```
///
/// It runs only while something on this OS thread blocks in this crate: a join, a sleep, a socket. When the OS thread
/// ends (the main one ends with `main`), a green thread that has not ended is *lost*. It does not run on, its
/// destructors do not run, and its handle returns an error with [`JoinError::is_lost`]. Join what must finish, or end
/// with [`hub::shutdown`].
///
/// It has thread-locals of its own on x86-64 Linux with glibc, and on aarch64 if [`set_isolation`] asks for it.
/// Elsewhere (musl, macOS, FreeBSD, other processors) it shares those of its OS thread, as [`spawn_local`] does
/// everywhere; see [`isolation`].
///
/// A future is not a closure. Pass it to [`future::spawn`](crate::future::spawn), or block on it in a closure.
///
/// ```compile_fail,E0277
/// greenthread::spawn(async { 42 });
/// ```
/// ```
/// use greenthread::{future, spawn};
/// assert_eq!(future::spawn(async { 42 }).join().unwrap(), 42); // a stackless task
/// assert_eq!(spawn(|| future::block_on(async { 42 })).join().unwrap(), 42); // in a green thread
/// ```
///
/// A panic is reported on stderr unless the green thread is joined. An `Err` that the closure returns is an ordinary
/// value. If you drop the handle the error is lost, so print it in the green thread.
///
/// # Panics
/// If there is no memory for its stack ([`Builder::spawn`] returns an error instead), or in a destructor of a
/// thread-local after the hub's end.
///
/// # Coming from Python
/// `gevent.spawn(f, *args)`.
#[doc(alias("go", "coroutine", "fiber"))]
#[inline]
#[track_caller]
pub fn spawn<F, T>(f: F) -> JoinHandle<T>
where
    F: Closure<T> + Send + 'static,
    T: Send + 'static,
{
    start(Kind::Isolated, f)
}

/// Spawns a green thread that shares the thread-locals of its OS thread. Nothing in it need be `Send`.
///
/// ```
/// use std::{cell::Cell, rc::Rc};
/// let sum = Rc::new(Cell::new(0));
/// let handles: Vec<_> = (1..=4).map(|n| {
///     let sum = sum.clone();
///     greenthread::spawn_local(move || sum.set(sum.get() + n))
/// }).collect();
/// handles.into_iter().for_each(|handle| handle.join().unwrap());
/// assert_eq!(sum.get(), 10);
/// ```
///
/// # Panics
/// As [`spawn`].
#[inline]
#[track_caller]
pub fn spawn_local<F, T>(f: F) -> JoinHandle<T>
where
    F: Closure<T> + 'static,
    T: 'static,
{
    start(Kind::Local, f)
}

#[inline]
#[track_caller]
fn start<F, T>(kind: Kind, f: F) -> JoinHandle<T>
where
    F: FnOnce() -> T + 'static,
    T: 'static,
{
    match task::spawn(Hub::current(), kind, None, Location::caller(), f) {
        Ok(join) => JoinHandle::new(join),
        Err(error) => no_memory(&error),
    }
}

/// Spawns one with a stack of `stack_size` bytes, or of the default size of its kind.
#[track_caller]
fn start_sized<F, T>(kind: Kind, stack_size: Option<usize>, f: F) -> JoinHandle<T>
where
    F: FnOnce() -> T + 'static,
    T: 'static,
{
    let Some(bytes) = stack_size else {
        return start(kind, f);
    };
    match task::spawn(
        Hub::current(),
        kind,
        Some(task::Options::of_size(bytes)),
        Location::caller(),
        f,
    ) {
        Ok(join) => JoinHandle::new(join),
        Err(error) => no_memory(&error),
    }
}

#[cold]
#[track_caller]
fn no_memory(error: &std::io::Error) -> ! {
    panic!("failed to spawn green thread: {error}; `Builder` gives this as an error")
}

/// Spawns a green thread that starts after `delay`.
///
/// If it is killed before that, it drops `f` without calling it.
///
/// # Panics
/// As [`spawn`].
///
/// # Coming from Python
/// `gevent.spawn_later(seconds, f)`.
#[doc(alias("spawn_later"))]
#[track_caller]
pub fn spawn_after<F, T>(delay: Duration, f: F) -> JoinHandle<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    spawn(move || {
        crate::time::sleep(delay);
        f()
    })
}

/// Runs `main` as a green thread and waits for its end, so that the whole program is green.
///
/// ```
/// assert_eq!(greenthread::run(|| 42), 42);
/// ```
///
/// With patched libc (feature `monkey`) this green thread stands for its OS thread: a signal handler interrupts its
/// wait. [`Builder::run`] sets another stack size.
///
/// # Panics
/// If `main` panics, with the same payload.
///
/// # Coming from Python
/// `asyncio.run(main())`, for code that blocks.
#[doc(alias("block_on"))]
#[track_caller]
pub fn run<F, T>(main: F) -> T
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    let handle = spawn(main);
    #[cfg(feature = "monkey")]
    let _main = Main::new(handle.number());
    value_of(handle.join(), "run")
}

/// While it lives, a green thread stands for its OS thread: signals interrupt its patched calls.
#[cfg(feature = "monkey")]
struct Main(u64);

#[cfg(feature = "monkey")]
impl Main {
    fn new(number: u64) -> Main {
        Main(Hub::current().set_main(number))
    }
}

#[cfg(feature = "monkey")]
impl Drop for Main {
    /// The previous main green thread takes over again: this one may be a `run` inside of a `run`.
    fn drop(&mut self) {
        if let Some(hub) = Hub::try_current() {
            hub.set_main(self.0);
        }
    }
}

/// The value of a green thread that stands in for a call: its panic is resumed in the caller.
#[track_caller]
fn value_of<T>(joined: Result<T, JoinError>, what: &str) -> T {
    match joined {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(payload) => std::panic::resume_unwind(payload),
            Err(error) => panic!("{what}: the green thread did not return: {error}"),
        },
    }
}

/// Lets every other ready green thread run first.
///
/// # Blocking and cancellation
/// Lets others run. A kill or time-out that is due unwinds here.
///
/// # Coming from Python
/// `gevent.sleep(0)`.
#[inline(always)]
#[track_caller]
pub fn yield_now() {
    if hub::yield_now() == Wake::Interrupted {
        interrupt::raise();
    }
}

/// Waits for a call of [`Thread::unpark`], or returns at once if there was one since the last park.
///
/// ```
/// use greenthread::thread;
/// let sleeper = thread::spawn(|| thread::park());
/// sleeper.thread().unpark();
/// sleeper.join().unwrap();
/// ```
///
/// # Blocking and cancellation
/// Parks. A kill or time-out unwinds here. It may return without an unpark, as std's may, and returns at once while a
/// local green thread or a native stack is unwinding. So park in a loop that checks your condition.
#[track_caller]
pub fn park() {
    park_until(None);
}

/// [`park`]s for at most `timeout`.
///
/// # Blocking and cancellation
/// As [`park`].
#[track_caller]
pub fn park_timeout(timeout: Duration) {
    park_until(Some(timeout));
}

#[track_caller]
fn park_until(timeout: Option<Duration>) {
    if budget::spend(Mode::Cancel) == Wake::Interrupted {
        interrupt::raise();
    }
    // After the hub's end no timer runs: the time-out could not end the park.
    if timeout.is_some() && Hub::has_ended() {
        return;
    }
    let parker = Parker::new();
    let task = parker.task;
    // An unpark that came before left the token: use it up and do not park.
    if task.marks.get(Marks::TOKEN) {
        task.marks.set(Marks::TOKEN, false);
    } else {
        let deadline = timeout.map(|timeout| parker.hub.deadline_in(timeout));
        let wake = parker.park(deadline, Mode::Cancel, Why::new(&PARK, 0));
        if wake == Wake::Interrupted {
            interrupt::raise();
        }
        task.marks.set(Marks::TOKEN, false);
    }
}

/// The number of a green thread or of a native stack. It is unique in this process and never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ThreadId(u64);

impl ThreadId {
    /// As a plain number; that of a native stack has the highest bit set.
    pub fn as_u64(self) -> u64 {
        self.0
    }
}

/// A green thread, or the native stack of an OS thread: something to name, unpark or kill.
#[derive(Clone)]
pub struct Thread {
    task: TaskRef,
    id: u64,
    name: Option<Arc<Box<str>>>,
}

impl Thread {
    fn new(task: TaskRef, id: u64, name: Option<Arc<Box<str>>>) -> Thread {
        Thread { task, id, name }
    }

    /// Its number.
    pub fn id(&self) -> ThreadId {
        ThreadId(self.id)
    }

    /// The name that [`Builder::name`] gave it.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref().map(|name| &**name)
    }

    /// Ends its [`park`], or the next one. May be called on any OS thread.
    pub fn unpark(&self) {
        hub::unpark(self.task, self.id);
    }

    /// Asks it to end; see [`JoinHandle::kill`]. A native stack cannot be killed.
    pub fn kill(&self) {
        if !task::is_native(self.id) {
            interrupt::kill(self.task, self.id);
        }
    }
}

impl fmt::Debug for Thread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Name {
            id: self.id,
            name: self.name(),
        };
        fmt::Display::fmt(&name, f)
    }
}

/// The calling green thread, or its OS thread's native stack.
///
/// ```
/// use greenthread::thread;
/// let worker = thread::Builder::new().name("worker").spawn(|| {
///     thread::current().name().map(String::from)
/// }).unwrap();
/// assert_eq!(worker.join().unwrap().as_deref(), Some("worker"));
/// ```
#[doc(alias("getcurrent"))]
#[track_caller]
pub fn current() -> Thread {
    let task = Hub::current().running();
    Thread::new(TaskRef::new(task), task.id(), task.name())
}

/// Whether the caller has thread-locals other than its OS thread's: in a green thread of [`spawn`], [`run`] or
/// [`scope`], and in the local ones that it spawns.
///
/// ```
/// use greenthread::{spawn, spawn_local, thread};
/// assert!(!thread::is_isolated());
/// assert!(!spawn_local(thread::is_isolated).join().unwrap());
/// assert_eq!(spawn(thread::is_isolated).join().unwrap(), thread::isolation().is_ok());
/// ```
pub fn is_isolated() -> bool {
    crate::isolation::is_own()
}

/// Whether green threads can have thread-locals of their own in this process, or why not.
///
/// They can on x86-64 Linux with glibc 2.34 or later, unless [`set_isolation`] turned it off. At first use the layout
/// of glibc's thread control block is looked up, checked and tried. If anything is missing or unexpected, isolation is
/// off in this process. Nothing is printed then: the error here and that of `monkey::patch_all` have the reason.
///
/// On aarch64 isolation has only run in an emulator, and is off unless [`set_isolation`] or the variable
/// `GREEN_ISOLATION=1` turns it on. musl, macOS and FreeBSD give a program no way to allocate a second set of
/// thread-locals, and other processors are not supported yet.
///
/// Without isolation [`spawn`] shares thread-locals as [`spawn_local`] does: what one green thread leaves in a
/// thread-local when it parks, the next one finds.
///
/// What an isolated green thread has of an OS thread:
///
/// | of its own | of its OS thread |
/// |---|---|
/// | thread-locals of the program and its libraries, with their destructors; `errno` | `gettid`, priority, affinity, credentials, name |
/// | values under `pthread_key_t`, with their destructors | signal mask, alternate signal stack |
/// | the state of name look-ups; texts of `dlerror`, `strerror` and `strsignal` | `malloc`'s cache and arena (glibc's; of another allocator it has its own) |
/// | the locale of `uselocale` | rounding and exceptions of floating point |
/// | the number that C's mutexes know an owner by | |
/// | `pthread_self`, and its stack in `pthread_getattr_np` | |
///
/// Cancellation, `pthread_exit` and restartable sequences do not work in it. The kernel does not know of the robust
/// mutexes that it holds, so they stay held when it ends.
///
/// # Errors
/// The reason, as a text to show.
pub fn isolation() -> std::io::Result<()> {
    crate::isolation::status().map_err(|reason| std::io::Error::new(std::io::ErrorKind::Unsupported, reason))
}

/// Turns isolation off, or on again, for all green threads of the process that are spawned from now on.
pub fn set_isolation(on: bool) {
    crate::isolation::turn(on);
}

impl Handle {
    /// Spawns a green thread on that hub.
    ///
    /// # Errors
    /// `NotConnected` when the hub has ended; `f` is dropped.
    #[track_caller]
    pub fn spawn<F, T>(&self, f: F) -> std::io::Result<JoinHandle<T>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.start(f, None, Location::caller()).map(JoinHandle::new)
    }

    /// Asks a green thread of that hub to end; see [`JoinHandle::kill`].
    ///
    /// # Errors
    /// `NotConnected` when the hub has ended.
    pub fn kill(&self, thread: &Thread) -> std::io::Result<()> {
        if !self.is_alive() {
            return Err(std::io::Error::new(
                std::io::ErrorKind::NotConnected,
                "the hub has ended, because its OS thread has ended",
            ));
        }
        thread.kill();
        Ok(())
    }
}
