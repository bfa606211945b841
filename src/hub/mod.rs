//! The hub: one per OS thread, made when something first needs it. It runs green threads, fires timers, waits for
//! descriptors and takes messages from other OS threads, one *turn* after another.
//!
//! There is no hub to start: whenever the native stack (`main`, say) blocks in this crate, it *pumps*: it runs turns
//! until its own wait is over.
//!
//! ```
//! use greenthread::{hub, spawn};
//!
//! let answer = spawn(|| 6 * 7);           // queued, not yet run
//! assert_eq!(answer.join().unwrap(), 42); // main blocks here, and so the hub turns
//! assert!(!hub::is_running());
//! ```
//!
//! What other OS threads may do is in [`Handle`]. To run a hub inside a foreign event loop, see [`as_fd`],
//! [`next_deadline`] and [`turn`]. The states, the wake protocol and its invariants are described in
//! `src/hub/README.md`.
//!
//! The hub waits with `epoll` itself, in one system call. With `GREEN_LOOP=polling` in the environment it uses the
//! portable interface of the crate `polling` instead, which takes five system calls. Everything above behaves the same.
//!
//! # After its end
//! The hub ends with its OS thread, as a destructor of a thread-local. Destructors of thread-locals that were used
//! before the hub run after its end (on the main thread, after `main` has returned). This is what they may expect of
//! this crate:
//!
//! | what | after the hub's end |
//! |---|---|
//! | [`sleep`](crate::sleep()), `sleep_until`, `sleep_async`, [`Interval`](crate::time::Interval), [`yield_now`](crate::yield_now), [`idle`], [`stop`] | return at once |
//! | every wait with a deadline: `recv_timeout`, `lock_timeout`, `wait_timeout`, `get_timeout`, `join_timeout`, `park_timeout`, `select!` with `after` … | takes what is there; else its time is over at once |
//! | a wait without a deadline: a lock, a permit, a message, `block_on`, `join` of another hub's, `iwait` | takes what is there; else panics (`join`: an error with [`is_interrupted`](crate::thread::JoinError::is_interrupted)) |
//! | [`join`](crate::JoinHandle::join) of this hub's green threads | [`is_lost`](crate::thread::JoinError::is_lost), because they are lost; `on_exit` calls its function at once |
//! | [`timeout`](crate::timeout), [`Timeout`](crate::time::Timeout) | runs its closure; the time-out never expires ([`remaining`](crate::time::Timeout::remaining) is `Duration::MAX`) |
//! | [`shield`](crate::thread::shield), [`catch_kill`](crate::thread::catch_kill), [`unblock`](crate::threadpool::unblock) | run their closure, here |
//! | what gives an `io::Result`: sockets, [`Async`](crate::io::Async), `connect`, `accept`, `wait_readable`, [`Builder::spawn`](crate::thread::Builder::spawn), servers' `start`, [`as_fd`], [`Builder::install`] | does what the kernel does at once; else `NotConnected` |
//! | [`Handle`] | `NotConnected` |
//! | [`shutdown`], [`live`], [`next_deadline`] | as with no green thread left |
//! | [`Promise::on_set`](crate::sync::Promise::on_set), [`PoolFuture::on_done_soon`](crate::threadpool::PoolFuture::on_done_soon) | never call their function |
//! | [`ReentrantLock`](crate::sync::ReentrantLock), `Once`, `OnceLock`, `LazyLock` | work as before |
//! | [`spawn`](crate::spawn()), `spawn_local`, [`run`](crate::run), [`scope`](crate::scope()), [`future::spawn`](crate::future::spawn), [`thread::current`](crate::thread::current), `park`, [`handle`], [`call_soon`], [`run_forever`], [`turn`], [`set_hook`], [`dump`](crate::debug::dump), `green_local!`, `channel::{after, at, tick}`, [`aio`](crate::aio)'s loop, `ThreadPool::shutdown` that has to wait | panic: "the hub of this OS thread has ended" |
//!
//! A panic in a destructor of a thread-local aborts the process. Catch it there, or drop such values earlier. If a
//! thread-local holds a generator or greenlet, its destructor may resume it wherever it has stopped.
//!
//! # What it says on stderr
//! The hub reports a panic that no `join` receives, a failed handler of a server, and a [`LoopExit`]. Each report is
//! one line that begins with `greenthread: `. No hub waits for stderr. If stderr does not take a line at once, an OS
//! thread writes it later. Up to 256 KiB wait there, and at the end of the process that OS thread gets 200 ms more.
//! There are at most 32 lines a second of each kind; a line says how many were left out. std writes its own message of
//! a panic in the green thread that panics, unless you call [`write_panics_aside`].
//!
//! # The files, from the ground up
//! The table in `src/hub/README.md` lists the files. A file may use only those above it there, and a test checks that.

mod clock;
mod timer;
mod inbox;
mod poller;
mod slot;
pub(crate) mod task;
mod name;
mod shared;
mod waiter;
mod links;
mod stuck;
mod choice;
mod callbacks;
mod timers;
mod run_queue;
mod pace;
mod sources;
mod contexts;
mod runners;
mod observers;
mod sleep;
mod counters;
#[cfg(feature = "monkey")]
mod patched;
mod scheduler;
mod payload;
mod report;
mod remote;
mod hooks;
mod wake;
pub(crate) mod interrupt;
mod reactor;
#[cfg(feature = "monkey")]
mod signals;
mod leisure;
mod turn;
mod life;
mod shield;
mod park;
pub(crate) mod budget;
mod polled;
mod handle;
mod alarm;
mod drive;
mod shutdown;
mod hubs;

pub use drive::{
    HubFd, as_fd, call_soon, idle, is_running, leaked_panics, live, next_deadline, run_forever, set_hook, stop, turn,
};
pub use handle::{CallHandle, Handle, handle};
pub use hubs::Hubs;
pub use life::Builder;
pub use observers::Event;
pub use report::{set_panic_hook, write_panics_aside};
pub use shutdown::{Survivors, shutdown};
pub use stuck::LoopExit;

// What the rest of the crate sees of the hub, besides the modules `budget`, `interrupt` and `task`.
pub(crate) use alarm::Alarm;
pub(crate) use choice::{Choice, Claim, NO_BRANCH, Taken};
pub(crate) use contexts::Kind;
pub(crate) use drive::set_watch;
pub(crate) use hubs::serve;
pub(crate) use life::{deadline_at, deadline_in, is_past, lock_owner};
pub(crate) use links::Runs;
pub(crate) use name::Name;
pub(crate) use observers::Watch;
pub(crate) use park::{Parker, check_can_park, probe_all, yield_now};
#[cfg(feature = "monkey")]
pub(crate) use patched::Handlers;
pub(crate) use polled::poll_until;
pub(crate) use report::{Reporter, call_user, complain, discard, named, report_panic, traced_lines};
pub(crate) use scheduler::{Hub, HubRef, ended};
#[cfg(feature = "tls")]
pub(crate) use shield::put_off;
pub(crate) use shield::shield;
pub(crate) use slot::{Ended, Exit, Late};
pub(crate) use sources::{Direction, Key};
pub(crate) use stuck::{Registered, Waiting};
pub(crate) use task::block::{Guard, TaskRef};
pub(crate) use task::join::Join;
pub(crate) use task::marks::Marks;
pub(crate) use timers::Due;
pub(crate) use waiter::{Mode, Waiter, Wake, Why};
pub(crate) use wake::{PARK, unpark, wake_task};
