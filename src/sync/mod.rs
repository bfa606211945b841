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
//! dropped on its way passes on what it was handed. Of a [`select!`](crate::select!) one branch is handed something, and
//! no other.
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
//! # Giving way
//! What waits lets others run. What could have waited and need not (a free lock, a message that is there, an event that is
//! set, a `select!` of which a branch is ready) does so now and then: after some 128 such operations without a wait, or
//! sooner if a timer or a socket is late. That is before it takes anything, and there a kill and a time-out come, too. A
//! future wakes its task and is pending once.
//!
//! These never let others run, so that `RefCell`s and the like may be borrowed over them: `try_…` and a `select!` with a
//! plain `default`; an unlock, a release, a `set` and a `notify…`; sending to an [`unbounded`](channel::unbounded) channel
//! and putting into an unbounded queue; a look at what is set once, if it is.
//!
//! # When an OS thread ends
//! Its green threads and futures that wait are lost: they are passed over, and what they wait for goes to the next in line.
//! What they *hold* stays held: a lock, a permit, a message that was handed over already. It is as if the guard had been
//! forgotten ([`std::mem::forget`]), and joining one says that it is [lost](crate::thread::JoinError::is_lost). The same
//! goes for threads of the parent in a forked process. A future that is polled by a combinator with a waker of its own
//! (`FuturesUnordered`, say) cannot be known to be lost: it may be handed something still.
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
