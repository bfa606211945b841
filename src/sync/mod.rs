//! Waiting for one another: locks, semaphores, events.
//!
//! By std's names and signatures where std has the thing, and usable wherever std's are: by green threads of this OS thread
//! and of others, by plain OS threads, and by futures on any executor (`…_async`). Who waits lets others run. What may be
//! waited for has a form that does not wait (`try_…`, `is_set`) and one that waits for a while (`…_timeout`) or until a moment
//! (`…_deadline`), but for [`Barrier`], where one either comes or not.
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
//! `gevent.lock`, `gevent.event`, and the locks of `asyncio`.

mod barrier;
pub mod channel;
mod condvar;
mod event;
mod mutex;
mod promise;
mod rwlock;
mod semaphore;
mod spin;
mod wait;
mod waiters;

pub use barrier::{Barrier, BarrierWaitResult};
pub use condvar::{Condvar, WaitTimeoutResult};
pub use event::Event;
pub use mutex::{Mutex, MutexGuard};
pub use promise::Promise;
pub use rwlock::{RwLock, RwLockReadGuard, RwLockWriteGuard};
pub use semaphore::{BoundedSemaphore, Permit, ReleaseError, Semaphore};
