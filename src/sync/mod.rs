//! Waiting for one another: locks, semaphores, events, channels, queues, and what is made once.
//!
//! | you have | use |
//! |---|---|
//! | data that several change | [`Mutex`], [`RwLock`]; [`ReentrantLock`] if its holder comes back for it |
//! | so many at once and no more | [`Semaphore`], [`BoundedSemaphore`] |
//! | something that happens | [`Event`]; with a value: [`Promise`]; in a lock: [`Condvar`]; when all have come: [`Barrier`] |
//! | messages, until the other side is gone | a [`channel`] |
//! | jobs for workers, until all are done | a [`queue`] |
//! | the first of several of these | [`select!`](crate::select!) |
//! | something that is made once | [`OnceLock`], [`LazyLock`], [`Once`] |
//!
//! By std's names and signatures where std has the thing, and usable wherever std's are: by green threads of this OS
//! thread and of others, by plain OS threads, and by futures on any executor (`…_async`). Who waits lets others run.
//! What may be waited for has a form that does not wait (`try_…`, `is_set`) and one that waits for a while
//! (`…_timeout`) or until a moment (`…_deadline`), but for [`Barrier`], where one either comes or not.
//!
//! What can be had is handed over in the order of coming: nobody overtakes, nobody starves. Who is killed, timed out or
//! dropped on its way passes on what it was handed.
//!
//! ```
//! use std::sync::Arc;
//! use greenthread::{spawn, sync::{Event, Mutex}};
//!
//! let (names, done) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Event::new()));
//! let theirs = (names.clone(), done.clone());
//! spawn(move || {
//!     theirs.0.lock().unwrap().push("green");
//!     theirs.1.set();
//! });
//! done.wait();
//! assert_eq!(*names.lock().unwrap(), ["green"]);
//! ```
//!
//! # Coming from Python
//! `gevent.lock`, `gevent.event`, `gevent.queue`, and what `asyncio` has of them. `AsyncResult` and `asyncio.Future`
//! are a [`Promise`], `RLock` is a [`ReentrantLock`].

mod barrier;
pub mod channel;
mod condvar;
mod event;
mod lazy_lock;
mod mutex;
mod once;
mod once_lock;
mod promise;
pub mod queue;
mod reentrant;
mod rwlock;
pub mod select;
mod semaphore;
mod spin;
mod turn;
mod wait;
mod waiters;

pub use barrier::{Barrier, BarrierWaitResult};
pub use condvar::{Condvar, WaitTimeoutResult};
pub use event::Event;
pub use lazy_lock::LazyLock;
pub use mutex::{Mutex, MutexGuard};
pub use once::{Once, OnceState};
pub use once_lock::{OnceLock, OnceLock as OnceCell};
pub use promise::Promise;
pub use reentrant::{ReentrantLock, ReentrantLockGuard};
pub use rwlock::{RwLock, RwLockReadGuard, RwLockWriteGuard};
pub use semaphore::{BoundedSemaphore, Permit, ReleaseError, Semaphore};

pub(crate) use wait::Until;
