//! Synchronisation: locks, semaphores, events, channels, queues, and values that are made once.
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
//! | you have | use |
//! |---|---|
//! | data that several threads change | [`Mutex`], [`RwLock`]; [`ReentrantLock`] if its holder takes it again |
//! | a limit on how many at once | [`Semaphore`], [`BoundedSemaphore`] |
//! | something that happens | [`Event`]; once for one waiter: [`Notify`]; with a value: [`Promise`]; in a lock: [`Condvar`]; when all have come: [`Barrier`] |
//! | messages, until the other side is gone | a [`channel`] |
//! | messages that each receiver gets | a [`broadcast`] |
//! | the newest value of something that changes | a [`watch`] |
//! | jobs for workers, until all are done | a [`queue`] |
//! | the first of several of these | [`select!`](crate::select!) |
//! | something that is made once | [`OnceLock`], [`LazyLock`], [`Once`] |
//!
//! A guard or a permit that goes elsewhere owns its lock: `lock_owned`, `read_owned`, `write_owned`, `acquire_owned`.
//!
//! Names and signatures are std's where std has the type. Everything is usable wherever std's types are: by green
//! threads of this OS thread and of others, by plain OS threads, and by futures on any executor (`…_async`). Waiting
//! lets others run. A wait has a form that does not wait (`try_…`, `is_set`), one that waits for a while (`…_timeout`)
//! and one that waits until a moment (`…_deadline`). Not all have each form: a [`Barrier`] cannot be tried, the
//! initialisers of [`Once`], [`OnceLock`] and [`LazyLock`] only wait, and a [`ReentrantLock`] has no async form.
//!
//! Waiters are served in order of arrival: none is overtaken, and none starves. A waiter that is killed or dropped
//! after it was granted something passes that on. If its own deadline passes after the grant, the waiter keeps the
//! grant, and the operation succeeds. Only one branch of a [`select!`](crate::select!) is ever granted something.
//!
//! # Giving way
//! An operation that waits lets others run. An operation that could have waited but did not have to (a free lock, a
//! message that is there, an event that is set, a `select!` with a branch that is ready) lets others run now and then:
//! after some 128 such operations without a wait, or sooner if a timer or a socket is late. It does so before it takes
//! anything, and a kill or a time-out is delivered there, too. In a future, the operation gives way by waking its own
//! task and returning `Poll::Pending` once.
//!
//! These never let others run, so that `RefCell`s and the like may stay borrowed over them: `try_…` and a `select!`
//! with a plain `default`; an unlock, a release, a `set` and a `notify…`; sending to an
//! [`unbounded`](channel::unbounded) channel and putting into an unbounded queue; reading a value that is set once, if
//! it is set.
//!
//! # When an OS thread ends
//! Its green threads and futures that wait are lost: they are passed over, and what they wait for goes to the next in
//! line. What they *hold* stays held: a lock, a permit, a message that was handed over already. It is as if the guard
//! had been forgotten ([`std::mem::forget`]), and joining a lost green thread says that it is
//! [lost](crate::thread::JoinError::is_lost). The same goes for threads of the parent in a forked process. A future
//! that is polled by a combinator with a waker of its own (`FuturesUnordered`, say) cannot be known to be lost, and may
//! still be handed something.
//!
//! # Coming from Python
//! `gevent.lock`, `gevent.event`, `gevent.queue`, and their counterparts in `asyncio`. `AsyncResult` and
//! `asyncio.Future` are a [`Promise`], `RLock` is a [`ReentrantLock`].

mod barrier;
pub mod broadcast;
pub mod channel;
mod condvar;
mod event;
mod held;
mod lazy_lock;
mod mutex;
mod notify;
mod once;
mod once_core;
mod once_lock;
mod poison;
mod promise;
pub mod queue;
mod reentrant;
mod rwlock;
pub mod select;
mod semaphore;
mod wait;
mod waiters;
pub mod watch;

pub use barrier::{Barrier, BarrierWaitResult, BrokenBarrier};
pub use condvar::{Condvar, WaitTimeoutResult};
pub use event::Event;
pub use lazy_lock::LazyLock;
pub use mutex::{Mutex, MutexGuard, OwnedMutexGuard};
pub use notify::Notify;
pub use once::{Once, OnceState};
pub use once_lock::{OnceLock, OnceLock as OnceCell};
pub use promise::Promise;
pub use reentrant::{ReentrantLock, ReentrantLockGuard};
pub use rwlock::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};
pub use semaphore::{BoundedSemaphore, Closed, OwnedPermit, Permit, ReleaseError, Semaphore};

pub(crate) use wait::Until;
