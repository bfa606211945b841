//! Futures among green threads: each side calls the other.
//!
//! | you have | use |
//! |---|---|
//! | a future, in blocking code | [`block_on`], [`block_on_stream`] |
//! | a future that is to run on its own | [`spawn`]; from another OS thread, [`Handle::spawn_future`] |
//! | blocking code, in a program of green threads and tasks | call it: a poll may block |
//! | blocking code, on another executor | [`asyncify`], [`asyncify_on`]; within it, [`await_`] |
//! | a stream to write, with `yield` | [`Generator::stream`](crate::generator::Generator::stream) |
//! | clean-up that awaits, on the way out of blocking code | [`with_async`] |
//!
//! A [`JoinHandle`] and the futures of [`sync`](crate::sync), [`time`](crate::time), [`threadpool`](crate::threadpool),
//! [`process`](crate::process) and [`signal`](crate::signal) are awaited on any executor. The sockets of
//! [`net`](crate::net#in-async-code) have the traits of the async crates, and must be awaited on the OS thread of a
//! running hub. There is no runtime to start: `main` calls [`block_on`], or any other function that blocks.
//!
//! ```
//! use greenthread::{future, sleep, spawn, time::sleep_async};
//! use std::time::Duration;
//!
//! let answer = spawn(|| 42);
//! let task = future::spawn(async {
//!     sleep_async(Duration::from_millis(1)).await; // costs no stack meanwhile
//!     sleep(Duration::from_millis(1)); // the others run meanwhile
//!     answer.await.unwrap()
//! });
//! assert_eq!(task.join().unwrap(), 42);
//! ```
//!
//! # What must run
//! Each task, timer and socket belongs to the hub of one OS thread. It makes progress only while that hub runs, which
//! is while something on that OS thread blocks in this crate. If another executor blocks the OS thread
//! (`futures::executor::block_on` in `main`), the hub does not run, and a [`sleep_async`] in that executor never ends.
//! Use [`block_on`], or give the hub an OS thread of its own ([`Hubs`]).
//!
//! If a poll blocks, other tasks go on. But the other futures that the same task polls, in a `join!`, a `select!` or a
//! [`timeout_async`], have to wait. If that matters, spawn the future that blocks.
//!
//! # What a drop does
//! A future that is dropped leaves every queue that it waits in, and passes on what it was handed. If it has a stack
//! ([`asyncify`]), the drop unwinds the stack, so its destructors run. Dropping the handle of a task or a green thread
//! detaches it.
//!
//! # Coming from tokio
//!
//! | tokio | here |
//! |---|---|
//! | `#[tokio::main]`, `block_on` | [`block_on`] in a plain `main`; several OS threads: [`Hubs`] |
//! | `spawn`, `spawn_local` | [`spawn`], for both: it stays on its OS thread, so nothing need be `Send` |
//! | `JoinHandle`, `abort`, `is_cancelled` | [`Task`], [`cancel`](Task::cancel), [`is_killed`] |
//! | `JoinSet` | of tasks [`TaskGroup`](crate::aio::TaskGroup); of green threads [`JoinSet`], which can be awaited |
//! | `CancellationToken` | [`CancelToken`](crate::thread::CancelToken) |
//! | `spawn_blocking`, `fs` | [`to_thread`]; what blocks in this crate is just called |
//! | `time::sleep`, `sleep_until` | [`sleep_async`], [`sleep_until_async`] |
//! | `time::timeout`, `timeout_at` | [`timeout_async`], [`timeout_at_async`] |
//! | `time::interval` | [`Interval`](crate::time::Interval); its first tick is a period away |
//! | `task::yield_now` | [`yield_now`](crate::yield_now()), or [`sleep_async`] of zero |
//! | `select!`, `join!` | those of the crate `futures`; in blocking code [`select!`](crate::select!) |
//! | `sync::mpsc`, `oneshot`, `OnceCell` | [`channel`], [`Promise`], [`OnceCell`] |
//! | `Mutex`, `RwLock`, `Semaphore`, `Barrier` | the same in [`sync`](crate::sync), `…_async`; a lock may be poisoned |
//! | `Notify`, `broadcast`, `watch` | the same in [`sync`](crate::sync); tokio's work here too, for they need no runtime |
//! | `task_local!` | [`green_local!`](crate::green_local) |
//! | `net`, `process`, `signal` | the same here: [`accept_async`], `wait_async`, `recv_async` |
//!
//! # Crates that need tokio
//! reqwest, sqlx, `mysql_async`, redis's async half and their like ask for tokio's reactor, timers and `tokio::spawn`,
//! not for its scheduler. There are three ways:
//!
//! | | how | when |
//! |---|---|---|
//! | *beside* | `block_on(async_compat::Compat::new(future))` | the first to try: any async client, from any green thread |
//! | *inside* | tokio's own `block_on`, in a green thread with patched libc (feature `monkey`) | the code to call brings its own runtime, as `postgres` does |
//! | *around* | [`hub::as_fd`](crate::hub::as_fd) in tokio's `AsyncFd`, then [`hub::turn`](crate::hub::turn) | the program is tokio's, and some of it is to be blocking code on the same OS thread |
//!
//! - *Beside*, one OS thread runs tokio for the whole process, and each wake comes from there. tokio's context is
//!   entered for the length of each poll, and while the future is dropped. `async-compat` runs it on one thread:
//!   `block_in_place` panics in what it spawns.
//! - *Inside*, a runtime costs an epoll descriptor, an eventfd and its own timers for each green thread that has one,
//!   but no OS thread; make it with `new_current_thread`. A green thread of [`spawn`](crate::spawn()) has its own
//!   thread-locals, so each may be in its own runtime. Green threads of [`spawn_local`](crate::spawn_local) share
//!   theirs, tokio's context included: if one of them blocks inside a poll, or while it holds an `EnterGuard`, the
//!   others see its tokio context. tokio panics if contexts are not left in the reverse of the order in which they were
//!   entered.
//! - *Around*, whatever the green threads await runs on the same OS thread, and nothing else is needed: a task of
//!   tokio's and a green thread may share what is not `Send`. tokio's other threads know nothing of the hub;
//!   [`asyncify_on`] is for them.
//!
//! If a crate has a variant for each runtime, choose the one that needs no runtime, if it exists: hyper, and axum
//! without its feature `tokio`, run directly on the hub (feature `hyper`). Otherwise choose the variant for tokio. (For
//! redis that is `tokio-comp`; `smol-comp` starts threads of smol.)
//!
//! [`Handle::spawn_future`]: crate::hub::Handle::spawn_future
//! [`Hubs`]: crate::hub::Hubs
//! [`JoinHandle`]: crate::JoinHandle
//! [`JoinSet`]: crate::thread::JoinSet
//! [`OnceCell`]: crate::sync::OnceCell
//! [`Promise`]: crate::sync::Promise
//! [`accept_async`]: crate::net::TcpListener::accept_async
//! [`channel`]: crate::sync::channel
//! [`is_killed`]: crate::thread::JoinError::is_killed
//! [`sleep_async`]: crate::time::sleep_async
//! [`sleep_until_async`]: crate::time::sleep_until_async
//! [`timeout_async`]: crate::time::timeout_async
//! [`timeout_at_async`]: crate::time::timeout_at_async
//! [`to_thread`]: crate::threadpool::to_thread
#![forbid(unsafe_code)]

mod asyncify;
mod cleanup;
mod stream;
mod task;

pub use asyncify::{Asyncify, AsyncifyOn, asyncify, asyncify_on, await_, try_await};
pub use cleanup::with_async;
pub use stream::{BlockOn, block_on_stream};
pub use task::{Task, spawn};

use std::future::Future;
use std::pin::pin;

use crate::hub::{Why, poll_until};

static FUTURE: &str = "a future (block_on)";

/// Waits for a future: in a green thread it parks that one, in main it runs the hub.
///
/// ```
/// use std::time::Duration;
/// use greenthread::{future::block_on, timeout};
///
/// assert_eq!(block_on(async { 1 + 1 }), 2);
/// let late = timeout(Duration::from_millis(1), || block_on(std::future::pending::<()>()));
/// assert!(late.is_err());
/// ```
///
/// # Panics
/// In a hub callback, which cannot block.
///
/// # Blocking and cancellation
/// Parks between polls. A kill or time-out unwinds here, and drops the future; a `panic = "abort"` build, which cannot
/// unwind, waits for the future all the same.
///
/// # Coming from Python
/// `loop.run_until_complete(future)`, and `await_only` in a greenlet of SQLAlchemy's.
#[doc(alias("run_until_complete"))]
#[track_caller]
pub fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    loop {
        let output = poll_until(None, Why::new(&FUTURE, 0), |context| future.as_mut().poll(context));
        if let Some(output) = output {
            return output;
        }
    }
}
