//! Green threads that fail together: the first failure of a child ends all of them.
//!
//! A nursery is a [`Scope`] whose owner runs under a [`Timeout`](crate::time::Timeout) of its own.
//!
//! # Invariants
//! - **NURSERY-1** The first failure counts: it is stored under the lock, once, and all later ones are dropped.
//! - **NURSERY-2** A failure is stored before anything is interrupted for it. So a green thread that is interrupted for
//!   it finds it.
//! - **NURSERY-3** The owner is interrupted by the expiry of the nursery's own time-out, which only the nursery
//!   catches. A kill or another time-out of the owner passes through the nursery and comes before the failure.
//! - **NURSERY-4** The children have all ended (SCOPE-1) before the failure or the value is given.
#![forbid(unsafe_code)]

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, Location, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::scope::{Children, Scope, ScopedJoinHandle};
use super::{CancelToken, Cancelled, JoinError, Listening, Thread};
use crate::hub::{Kind, interrupt};
use crate::sys::inside::Mutex;
use crate::sys::poison::IgnorePoison;
use crate::time::{Elapsed, Rearm, Timeout};

/// Why a nursery ends early.
enum Failure<E> {
    Error(E),
    Panic(Box<dyn Any + Send>),
}

/// Makes the error of a nursery that was too late.
type OnElapsed<E> = fn(Elapsed) -> E;

struct Shared<E> {
    failure: Mutex<Option<Failure<E>>>,
    /// What the deadline becomes if it passes; see [`Nursery::deadline`].
    on_elapsed: Mutex<Option<OnElapsed<E>>>,
    /// The tokens that cancel the nursery.
    tokens: Mutex<Vec<Listening>>,
    children: Arc<Children>,
    /// Moves the deadline of the owner's time-out.
    limit: Rearm,
}

impl<E> Shared<E> {
    fn fail(&self, failure: Failure<E>) {
        let mut first = self.failure.lock().ignore_poison();
        if first.is_some() {
            // The failure is the user's: it is dropped without the lock.
            drop(first);
            return;
        }
        *first = Some(failure);
        drop(first);
        self.children.end();
        self.limit.expire();
    }

    /// Runs a child or the body; its failure becomes that of the nursery.
    fn contain<T>(&self, f: impl FnOnce() -> Result<T, E>) -> Option<T> {
        match catch_unwind(AssertUnwindSafe(f)) {
            Ok(Ok(value)) => return Some(value),
            Ok(Err(error)) => self.fail(Failure::Error(error)),
            // A kill, or a time-out around the nursery, is no failure.
            Err(payload) if interrupt::is_ours(&*payload) => resume_unwind(payload),
            Err(payload) => self.fail(Failure::Panic(payload)),
        }
        None
    }
}

/// The green threads of a [`nursery()`]; they may borrow the caller's variables.
pub struct Nursery<'scope, 'env, E> {
    scope: Scope<'scope, 'env>,
    shared: Arc<Shared<E>>,
}

/// Runs `f` with a nursery of green threads that may fail, and waits for all of them. The first failure kills the
/// others.
///
/// ```
/// use std::io;
/// use std::time::Duration;
/// use greenthread::{sleep, thread};
///
/// let names = [String::from("a"), String::from("b")];
/// let total = thread::nursery(|n| {
///     let lengths: Vec<_> = names.iter().map(|name| n.spawn(|| io::Result::Ok(name.len()))).collect();
///     Ok(lengths.into_iter().map(|length| length.join()).sum::<usize>())
/// });
/// assert_eq!(total.unwrap(), 2);
///
/// let failed = thread::nursery(|n| {
///     n.spawn(|| Err::<(), _>("no milk"));
///     n.spawn(|| Ok(sleep(Duration::from_secs(60)))); // is killed
///     sleep(Duration::from_secs(60)); // ends here
///     Ok(())
/// });
/// assert_eq!(failed.unwrap_err(), "no milk");
/// ```
///
/// The nursery fails if a child or `f` returns an `Err` or panics, by [`cancel`](Nursery::cancel), or when its
/// [`deadline`](Nursery::deadline) passes. Then `f` and all children are interrupted at their next waits, and the
/// nursery waits until they have ended. The first failure is the result. Errors that other children return later, also
/// because they were interrupted, are dropped. Children that are spawned while the nursery ends are killed before they
/// begin.
///
/// A child that alone is [killed](Thread::kill) is no failure.
///
/// # Errors
/// The first failure.
///
/// # Panics
/// If the first failure is a panic: it goes on here, with its payload.
///
/// # Blocking and cancellation
/// Waits for every child, whatever happens. A kill or time-out of the caller kills the children, and unwinds when they
/// have ended. As with [`scope`](super::scope()), a child that cannot be interrupted delays the caller.
///
/// In a `panic = "abort"` build nothing can unwind: `f` and the children find out by errors of their waits.
///
/// # Coming from Python
/// trio's nursery; `asyncio.TaskGroup`, which with async code is [`aio::TaskGroup`](crate::aio::TaskGroup).
#[doc(alias("TaskGroup", "try_scope", "StructuredTaskScope"))]
#[track_caller]
pub fn nursery<'env, F, T, E>(f: F) -> Result<T, E>
where
    F: for<'scope> FnOnce(&'scope Nursery<'scope, 'env, E>) -> Result<T, E>,
{
    crate::hub::check_can_park();
    let scope = Scope::new();
    let limit = Timeout::never();
    let nursery = Nursery {
        shared: Arc::new(Shared {
            failure: Mutex::new(None),
            on_elapsed: Mutex::new(None),
            tokens: Mutex::default(),
            children: scope.children().clone(),
            limit: limit.rearm(),
        }),
        scope,
    };
    // The time-out covers the wait for the children too: a deadline may pass then.
    let value = limit.run(|| {
        let children = &nursery.shared.children;
        let held = children.hold(|| nursery.shared.contain(|| f(&nursery)));
        held.unwrap_or_else(|payload| resume_unwind(payload))
    });
    let failure = nursery.shared.failure.lock().ignore_poison().take();
    match (failure, value) {
        (Some(Failure::Error(error)), _) => Err(error),
        (Some(Failure::Panic(payload)), _) => resume_unwind(payload),
        (None, Ok(Some(value))) => Ok(value),
        (None, Err(elapsed)) => {
            let convert = nursery.shared.on_elapsed.lock().ignore_poison().take();
            Err(convert.map(|convert| convert(elapsed)).unwrap_or_else(|| no_failure()))
        }
        (None, Ok(None)) => no_failure(),
    }
}

/// NURSERY-2: a body without a value has left its failure, and without one only the deadline ends the time-out.
fn no_failure() -> ! {
    unreachable!("a nursery without a value has a failure or a deadline")
}

impl<'scope, E> Nursery<'scope, '_, E> {
    /// Spawns a child; as [`thread::spawn`](super::spawn), but it may borrow, and it may fail.
    ///
    /// # Panics
    /// When there is no memory for its stack.
    #[track_caller]
    pub fn spawn<F, T>(&'scope self, f: F) -> NurseryHandle<'scope, T>
    where
        F: FnOnce() -> Result<T, E> + Send + 'scope,
        T: Send + 'scope,
        E: Send + 'scope,
    {
        self.start(Kind::Isolated, f)
    }

    /// Spawns a local child; as [`thread::spawn_local`](super::spawn_local), but it may borrow, and it may fail.
    ///
    /// # Panics
    /// When there is no memory for its stack.
    #[track_caller]
    pub fn spawn_local<F, T>(&'scope self, f: F) -> NurseryHandle<'scope, T>
    where
        F: FnOnce() -> Result<T, E> + 'scope,
        T: 'scope,
        E: 'scope,
    {
        self.start(Kind::Local, f)
    }

    #[track_caller]
    fn start<F, T>(&'scope self, kind: Kind, f: F) -> NurseryHandle<'scope, T>
    where
        F: FnOnce() -> Result<T, E> + 'scope,
        T: 'scope,
        E: 'scope,
    {
        let shared = self.shared.clone();
        let child = move || shared.contain(f);
        match self.scope.try_spawn(kind, None, child, Location::caller()) {
            Ok(handle) => NurseryHandle { handle },
            Err(error) => panic!("failed to spawn green thread: {error}"),
        }
    }

    /// Ends the nursery: as if a child had returned this error.
    ///
    /// ```
    /// use greenthread::thread;
    /// let ended = thread::nursery(|n| {
    ///     n.spawn(|| Ok(thread::park()));
    ///     n.cancel("enough");
    ///     Ok(())
    /// });
    /// assert_eq!(ended, Err("enough"));
    /// ```
    pub fn cancel(&self, error: E) {
        self.shared.fail(Failure::Error(error));
    }

    /// Ends the nursery when `token` is cancelled.
    ///
    /// ```
    /// use std::io;
    /// use greenthread::thread::{self, CancelToken};
    /// let token = CancelToken::new();
    /// let ended: io::Result<()> = thread::nursery(|n| {
    ///     n.cancel_by(&token);
    ///     n.spawn(|| Ok(thread::park()));
    ///     token.cancel();
    ///     Ok(())
    /// });
    /// assert_eq!(ended.unwrap_err().to_string(), "cancelled by its CancelToken");
    /// ```
    pub fn cancel_by(&self, token: &CancelToken)
    where
        E: From<Cancelled> + Send + 'static,
    {
        // A weak reference: the token must not keep alive what belongs to the nursery.
        let shared = Arc::downgrade(&self.shared);
        let listening = token.on_cancel(move || {
            if let Some(shared) = shared.upgrade() {
                shared.fail(Failure::Error(Cancelled.into()));
            }
        });
        self.shared.tokens.lock().ignore_poison().push(listening);
    }

    /// Ends the nursery at `deadline`; a later call moves the deadline.
    ///
    /// ```
    /// use std::io;
    /// use std::time::Duration;
    /// use greenthread::{sleep, thread, time};
    /// let late: io::Result<()> = thread::nursery(|n| {
    ///     n.deadline(time::now() + Duration::from_millis(5));
    ///     n.spawn(|| Ok(sleep(Duration::from_secs(60))));
    ///     Ok(())
    /// });
    /// assert_eq!(late.unwrap_err().kind(), io::ErrorKind::TimedOut);
    /// ```
    pub fn deadline(&self, deadline: Instant)
    where
        E: From<Elapsed>,
    {
        *self.shared.on_elapsed.lock().ignore_poison() = Some(E::from);
        self.shared.limit.at(Some(deadline));
    }
}

impl<E> fmt::Debug for Nursery<'_, '_, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Nursery").field(&self.scope).finish()
    }
}

/// Owns the value of a nursery's child. If it is dropped, the nursery still waits for the child.
///
/// It is a `Future` too, as [`JoinHandle`](super::JoinHandle) is.
pub struct NurseryHandle<'scope, T> {
    handle: ScopedJoinHandle<'scope, Option<T>>,
}

impl<'scope, T> NurseryHandle<'scope, T> {
    /// Waits for the end of the child and returns its value.
    ///
    /// There is no error: if the child fails, the nursery ends, and so this wait unwinds.
    ///
    /// # Panics
    /// If the child has no value and the caller is not interrupted: the child alone was killed, or the caller does not
    /// belong to the nursery.
    #[track_caller]
    pub fn join(self) -> T {
        value_of(self.handle.join())
    }

    /// Waits for the end of the child for at most `timeout`; see [`join`](Self::join).
    ///
    /// # Panics
    /// As [`join`](Self::join), and if the value was taken before.
    #[track_caller]
    pub fn join_timeout(&mut self, timeout: Duration) -> Option<T> {
        self.handle.join_timeout(timeout).map(value_of)
    }

    pub(super) fn handle(&mut self) -> &mut ScopedJoinHandle<'scope, Option<T>> {
        &mut self.handle
    }

    /// Whether it has ended.
    pub fn is_finished(&self) -> bool {
        self.handle.is_finished()
    }

    /// The green thread, to name, unpark or kill.
    pub fn thread(&self) -> Thread {
        self.handle.thread()
    }
}

#[track_caller]
fn value_of<T>(joined: Result<Option<T>, JoinError>) -> T {
    let why = match joined {
        Ok(Some(value)) => return value,
        Ok(None) => String::from("it failed"),
        Err(error) => error.to_string(),
    };
    // NURSERY-2: the failure has interrupted this green thread, if it is the owner or a child.
    interrupt::raise();
    panic!("a green thread of a nursery has no value: {why}")
}

impl<T> Future for NurseryHandle<'_, T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        Pin::new(&mut self.handle).poll(context).map(value_of)
    }
}

impl<T> fmt::Debug for NurseryHandle<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.handle, f)
    }
}
