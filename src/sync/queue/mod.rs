//! Queues: items from any number of putters to any number of getters; first in first out, last in first out, or the
//! smallest first.
//!
//! ```
//! use std::sync::Arc;
//! use greenthread::{spawn, sync::queue::Queue};
//!
//! let jobs = Arc::new(Queue::bounded(2));
//! for _ in 0..3 {
//!     let jobs = jobs.clone();
//!     spawn(move || {
//!         for job in &*jobs {
//!             println!("{job}");
//!             jobs.task_done().unwrap();
//!         }
//!     });
//! }
//! (0..10).for_each(|job| jobs.put(job).unwrap()); // waits while two are in it
//! jobs.join(); // until all ten are done
//! jobs.shutdown(false); // the workers' loops end
//! ```
//!
//! | you want | use |
//! |---|---|
//! | items in order of arrival | [`Queue`] |
//! | the newest item first | [`LifoQueue`] |
//! | the smallest item first | [`PriorityQueue`] |
//! | an end when the other side is gone, or no capacity at all | a [`channel`](super::channel) |
//!
//! A queue is one object for both sides: borrow it, or keep it in an `Arc` or in a `static`. All three kinds are a
//! [`QueueOf`], which has the methods. Putters and getters that wait are served in order of arrival, and each item goes
//! to one getter. A getter that is killed, timed out or dropped takes no item; a putter that is killed, timed out or
//! dropped takes up no place.
//!
//! # Coming from Python
//! `gevent.queue` and `asyncio.Queue`, `LifoQueue`, `PriorityQueue`: `put_nowait` is `try_put`, `get_nowait` is
//! `try_get`, `qsize` is `len`. A capacity of 0 does not mean unlimited but is refused: use
//! [`unbounded`](QueueOf::unbounded). `gevent.queue.Channel` is [`channel::bounded(0)`](super::channel::bounded).
#![forbid(unsafe_code)]

mod error;
mod ops;
mod store;

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::iter::FusedIterator;
use std::panic::resume_unwind;
use std::time::{Duration, Instant};

pub use error::{GetError, GetTimeoutError, PutError, PutTimeoutError, TaskDoneError, TryGetError, TryPutError};
pub use store::Store;

use super::wait::{Core, Op, Until};
use super::waiters::Waiters;
use crate::hub::Why;
use ops::{Get, Join, Peek, Put, Shared};
use store::{Heap, Panic};

static PUT: &str = "room in a queue (put)";
static GET: &str = "an item of a queue (get)";
static PEEK: &str = "an item of a queue (peek)";
static JOIN: &str = "the tasks of a queue (join)";

/// A queue with its items in order of arrival.
///
/// ```
/// use greenthread::sync::queue::Queue;
///
/// let queue = Queue::bounded(2);
/// queue.put("a").unwrap();
/// queue.put("b").unwrap();
/// assert!(queue.try_put("c").is_err(), "it is full");
/// assert_eq!((queue.get(), queue.get()), (Ok("a"), Ok("b")));
/// ```
#[doc(alias("JoinableQueue"))]
pub type Queue<T> = QueueOf<T, VecDeque<T>>;

/// A queue with its newest item first.
///
/// ```
/// use greenthread::sync::queue::LifoQueue;
///
/// let queue = LifoQueue::unbounded();
/// (1..=3).for_each(|n| queue.put(n).unwrap());
/// assert_eq!(queue.try_iter().collect::<Vec<_>>(), [3, 2, 1]);
/// ```
pub type LifoQueue<T> = QueueOf<T, Vec<T>>;

/// A queue with its smallest item first; of equal items the one that was put first.
///
/// ```
/// use std::cmp::Reverse;
/// use greenthread::sync::queue::PriorityQueue;
///
/// let queue = PriorityQueue::unbounded();
/// ["pear", "apple", "fig"].into_iter().for_each(|name| queue.put(name).unwrap());
/// assert_eq!(queue.try_iter().collect::<Vec<_>>(), ["apple", "fig", "pear"]);
///
/// let largest_first = PriorityQueue::unbounded();
/// [1, 3, 2].into_iter().for_each(|n| largest_first.put(Reverse(n)).unwrap());
/// assert_eq!(largest_first.get(), Ok(Reverse(3)));
/// ```
///
/// The items' `Ord` is called while the queue is locked. It must not use the queue, and must not switch to a greenlet
/// or a generator that comes back later. It panics if it blocks. If it panics, the caller gets the panic, and the queue
/// remains usable. But an item that the caller had taken already is lost, and the other items may come out in any
/// order.
pub type PriorityQueue<T> = QueueOf<T, Heap<T>>;

/// What [`Queue`], [`LifoQueue`] and [`PriorityQueue`] have in common: everything but the order.
///
/// ```
/// use greenthread::sync::queue::{LifoQueue, Queue, QueueOf, Store};
///
/// fn drain<T, S: Store<T>>(queue: &QueueOf<T, S>) -> Vec<T> {
///     queue.try_iter().collect()
/// }
///
/// let (queue, lifo) = (Queue::unbounded(), LifoQueue::unbounded());
/// (1..=3).for_each(|n| drop((queue.put(n), lifo.put(n))));
/// assert_eq!((drain(&queue), drain(&lifo)), (vec![1, 2, 3], vec![3, 2, 1]));
/// ```
pub struct QueueOf<T, S> {
    core: Core<Shared<T, S>>,
    /// Whether putting may have to wait. Outside the lock, because putters read it before they lock.
    is_bounded: bool,
}

/// Resumes a panic of the user's code, which must not unwind while the queue is locked.
#[inline(always)]
fn unlocked<R>((result, panic): (R, Option<impl Panic>)) -> R {
    match panic {
        None => result,
        Some(panic) => {
            // The queue is unlocked here: the result, and the panic, are the user's.
            drop(result);
            resume_unwind(panic.payload())
        }
    }
}

impl<T, S: Store<T>> QueueOf<T, S> {
    /// A queue with room for `capacity` items.
    ///
    /// # Panics
    /// If `capacity` is 0; only a [`channel`](super::channel::bounded) can have no room.
    #[track_caller]
    pub const fn bounded(capacity: usize) -> QueueOf<T, S> {
        assert!(
            capacity > 0,
            "a queue of capacity 0 could take no item: use `unbounded`, or `channel::bounded(0)`"
        );
        QueueOf::with(capacity)
    }

    /// A queue with room for any number of items: putting never waits.
    pub const fn unbounded() -> QueueOf<T, S> {
        QueueOf::with(usize::MAX)
    }

    const fn with(capacity: usize) -> QueueOf<T, S> {
        QueueOf {
            core: Core::new(Shared {
                items: S::EMPTY,
                blocked_puts: VecDeque::new(),
                capacity,
                unfinished: 0,
                is_shut_down: false,
                putting: Waiters::new(),
                getting: Waiters::new(),
                joining: Waiters::new(),
            }),
            is_bounded: capacity != usize::MAX,
        }
    }

    #[inline(always)]
    #[track_caller]
    fn block<O: Op<Shared<T, S>, Output = (R, Option<P>)>, R, P: Panic>(
        &self,
        op: &mut O,
        until: Until,
        what: &'static &'static str,
    ) -> Option<R> {
        self.core.block(op, until, Why::new(what, 0)).map(unlocked)
    }

    /// Puts an item in; waits while there is no room for it.
    ///
    /// # Errors
    /// The item, if the queue was shut down, before this call or while it waited.
    ///
    /// # Blocking and cancellation
    /// Parks while the queue is full. A kill or time-out unwinds here, and the item is dropped unless it is in the
    /// queue.
    #[inline]
    #[track_caller]
    pub fn put(&self, item: T) -> Result<(), PutError<T>> {
        let put = self.block(&mut Put::new(item, self.is_bounded), Until::Ever, &PUT);
        // Without a deadline the wait ends only with a result.
        put.unwrap_or(Ok(()))
    }

    /// Puts an item in, if there is room for it now.
    ///
    /// # Errors
    /// The item: `Full`, or `ShutDown` if the queue was shut down.
    #[doc(alias("put_nowait"))]
    pub fn try_put(&self, item: T) -> Result<(), TryPutError<T>> {
        let mut op = Put::new(item, self.is_bounded);
        match self.core.attempt(&mut op).map(unlocked) {
            Some(put) => put.map_err(|PutError(item)| TryPutError::ShutDown(item)),
            None => op.item.map_or(Ok(()), |item| Err(TryPutError::Full(item))),
        }
    }

    /// Puts an item in; waits for room for at most `timeout`.
    ///
    /// # Errors
    /// The item: `Timeout`, or `ShutDown` if the queue was shut down.
    ///
    /// # Blocking and cancellation
    /// As [`put`](Self::put).
    #[track_caller]
    pub fn put_timeout(&self, item: T, timeout: Duration) -> Result<(), PutTimeoutError<T>> {
        self.put_until(item, Until::After(timeout))
    }

    /// Puts an item in; waits for room until `deadline`.
    ///
    /// # Errors
    /// As [`put_timeout`](Self::put_timeout).
    #[track_caller]
    pub fn put_deadline(&self, item: T, deadline: Instant) -> Result<(), PutTimeoutError<T>> {
        self.put_until(item, Until::At(deadline))
    }

    #[track_caller]
    fn put_until(&self, item: T, until: Until) -> Result<(), PutTimeoutError<T>> {
        let mut op = Put::new(item, self.is_bounded);
        match self.block(&mut op, until, &PUT) {
            Some(put) => put.map_err(|PutError(item)| PutTimeoutError::ShutDown(item)),
            None => op.item.map_or(Ok(()), |item| Err(PutTimeoutError::Timeout(item))),
        }
    }

    /// Like [`put`](Self::put), for an `async` function. If the future is dropped before there was room, the item is
    /// not in the queue.
    pub fn put_async(&self, item: T) -> impl Future<Output = Result<(), PutError<T>>> + use<'_, T, S> {
        let put = self.core.future(Put::new(item, self.is_bounded));
        async move { unlocked(put.await) }
    }

    /// Takes the next item out; waits while there is no item.
    ///
    /// # Errors
    /// If the queue was shut down and is empty.
    ///
    /// # Blocking and cancellation
    /// Parks while the queue is empty. A kill or time-out unwinds here; an item that was granted already goes to the
    /// next in line.
    #[inline]
    #[track_caller]
    pub fn get(&self) -> Result<T, GetError> {
        self.block(&mut Get, Until::Ever, &GET).unwrap_or(Err(GetError))
    }

    /// Takes the next item out, if there is an item now.
    ///
    /// # Errors
    /// `Empty`, or `ShutDown` if the queue was shut down and is empty.
    #[doc(alias("get_nowait"))]
    pub fn try_get(&self) -> Result<T, TryGetError> {
        tried(self.core.attempt(&mut Get).map(unlocked))
    }

    /// Takes the next item out; waits for one for at most `timeout`.
    ///
    /// # Errors
    /// `Timeout`, or `ShutDown` if the queue was shut down and is empty.
    ///
    /// # Blocking and cancellation
    /// As [`get`](Self::get). An item that came in time is taken, even if the time is over by now.
    #[track_caller]
    pub fn get_timeout(&self, timeout: Duration) -> Result<T, GetTimeoutError> {
        in_time(self.block(&mut Get, Until::After(timeout), &GET))
    }

    /// Takes the next item out; waits for one until `deadline`.
    ///
    /// # Errors
    /// As [`get_timeout`](Self::get_timeout).
    #[track_caller]
    pub fn get_deadline(&self, deadline: Instant) -> Result<T, GetTimeoutError> {
        in_time(self.block(&mut Get, Until::At(deadline), &GET))
    }

    /// Like [`get`](Self::get), for an `async` function. If the future is dropped before it is ready, it has taken no
    /// item.
    pub fn get_async(&self) -> impl Future<Output = Result<T, GetError>> + use<'_, T, S> {
        let item = self.core.future(Get);
        async move { unlocked(item.await) }
    }

    /// How many items are in the queue; those of waiting putters do not count.
    pub fn len(&self) -> usize {
        self.core.look(|state| state.items.size())
    }

    /// Whether no item is in the queue.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a putter would have to wait.
    pub fn is_full(&self) -> bool {
        self.core.look(|state| state.items.size() >= state.capacity)
    }

    /// How many items the queue has room for; `None` if it has no limit.
    pub fn capacity(&self) -> Option<usize> {
        Some(self.core.look(|state| state.capacity)).filter(|capacity| *capacity != usize::MAX)
    }

    /// Reports that the work on one item is done, for callers of [`join`](Self::join). Each getter calls this once for
    /// each item.
    ///
    /// # Errors
    /// If all items that were put are done already.
    pub fn task_done(&self) -> Result<(), TaskDoneError> {
        self.core.change(|state| {
            state.unfinished = state.unfinished.checked_sub(1).ok_or(TaskDoneError)?;
            Ok(())
        })
    }

    /// Waits until all items that were put are [done](Self::task_done).
    ///
    /// ```
    /// use std::sync::Arc;
    /// use greenthread::{spawn, sync::queue::Queue};
    ///
    /// let queue = Arc::new(Queue::unbounded());
    /// queue.put(20).unwrap();
    /// let theirs = queue.clone();
    /// let worker = spawn(move || {
    ///     let doubled = theirs.get().unwrap() * 2;
    ///     theirs.task_done().unwrap();
    ///     doubled
    /// });
    /// queue.join();
    /// assert_eq!(worker.join().unwrap(), 40);
    /// ```
    ///
    /// # Blocking and cancellation
    /// Parks until then. A kill or time-out unwinds here.
    #[track_caller]
    pub fn join(&self) {
        self.core.block(&mut Join, Until::Ever, Why::new(&JOIN, 0));
    }

    /// Waits until all items are done, for at most `timeout`; whether they were.
    #[track_caller]
    pub fn join_timeout(&self, timeout: Duration) -> bool {
        self.join_until(Until::After(timeout))
    }

    /// Waits until all items are done, or until `deadline`; whether they were.
    #[track_caller]
    pub fn join_deadline(&self, deadline: Instant) -> bool {
        self.join_until(Until::At(deadline))
    }

    #[track_caller]
    fn join_until(&self, until: Until) -> bool {
        self.core.block(&mut Join, until, Why::new(&JOIN, 0)).is_some()
    }

    /// Like [`join`](Self::join), for an `async` function.
    pub fn join_async(&self) -> impl Future<Output = ()> + use<'_, T, S> {
        self.core.future(Join)
    }

    /// Takes no more items from now on, for good.
    ///
    /// A caller that puts, or waits to put, gets its item back. Items that are in the queue can still be got; after the
    /// last one getters get an error, those that wait included.
    ///
    /// With `immediate` the items that are in the queue are dropped and count as done, so that a [`join`](Self::join)
    /// waits only for the items that were got before.
    ///
    /// ```
    /// use greenthread::sync::queue::{GetError, Queue};
    ///
    /// let queue = Queue::unbounded();
    /// queue.put(1).unwrap();
    /// queue.shutdown(false);
    /// assert_eq!(queue.put(2).unwrap_err().into_inner(), 2);
    /// assert_eq!((queue.get().ok(), queue.get().ok()), (Some(1), None));
    /// ```
    pub fn shutdown(&self, immediate: bool) {
        // The items are the user's, so they are dropped outside the lock.
        let _drained = self.core.change(|state| {
            // `grant_waiters` then releases all putters, and the getters once no item is left.
            state.is_shut_down = true;
            immediate.then(|| {
                state.unfinished = state.unfinished.saturating_sub(state.items.size());
                std::mem::replace(&mut state.items, S::EMPTY)
            })
        });
    }

    /// Whether the queue was shut down.
    pub fn is_shut_down(&self) -> bool {
        self.core.look(|state| state.is_shut_down)
    }

    /// The items, each taken out as it comes; ends when the queue is shut down and empty.
    ///
    /// # Blocking and cancellation
    /// As [`get`](Self::get).
    pub fn iter(&self) -> Iter<'_, T, S> {
        Iter(self)
    }

    /// The items that are there now, each taken out.
    pub fn try_iter(&self) -> TryIter<'_, T, S> {
        TryIter(self)
    }
}

/// Looks at the next item, which stays in the queue. The item's `clone` is called while the queue is locked: it must
/// not use the queue, and it panics if it blocks.
impl<T: Clone, S: Store<T>> QueueOf<T, S> {
    /// The item that [`get`](Self::get) would take; waits in the line of the getters while there is no item.
    ///
    /// ```
    /// use greenthread::sync::queue::PriorityQueue;
    ///
    /// let queue = PriorityQueue::unbounded();
    /// [2, 1].into_iter().for_each(|n| queue.put(n).unwrap());
    /// assert_eq!((queue.peek(), queue.len()), (Ok(1), 2));
    /// ```
    ///
    /// # Errors
    /// If the queue was shut down and is empty.
    ///
    /// # Blocking and cancellation
    /// As [`get`](Self::get).
    #[track_caller]
    pub fn peek(&self) -> Result<T, GetError> {
        self.block(&mut Peek, Until::Ever, &PEEK).unwrap_or(Err(GetError))
    }

    /// The item that [`try_get`](Self::try_get) would take.
    ///
    /// # Errors
    /// As [`try_get`](Self::try_get).
    pub fn try_peek(&self) -> Result<T, TryGetError> {
        tried(self.core.attempt(&mut Peek).map(unlocked))
    }

    /// As [`peek`](Self::peek); waits for at most `timeout`.
    ///
    /// # Errors
    /// As [`get_timeout`](Self::get_timeout).
    #[track_caller]
    pub fn peek_timeout(&self, timeout: Duration) -> Result<T, GetTimeoutError> {
        in_time(self.block(&mut Peek, Until::After(timeout), &PEEK))
    }

    /// As [`peek`](Self::peek); waits until `deadline`.
    ///
    /// # Errors
    /// As [`get_timeout`](Self::get_timeout).
    #[track_caller]
    pub fn peek_deadline(&self, deadline: Instant) -> Result<T, GetTimeoutError> {
        in_time(self.block(&mut Peek, Until::At(deadline), &PEEK))
    }

    /// Like [`peek`](Self::peek), for an `async` function.
    pub fn peek_async(&self) -> impl Future<Output = Result<T, GetError>> + use<'_, T, S> {
        let item = self.core.future(Peek);
        async move { unlocked(item.await) }
    }
}

fn tried<T>(item: Option<Result<T, GetError>>) -> Result<T, TryGetError> {
    match item {
        Some(item) => item.map_err(|GetError| TryGetError::ShutDown),
        None => Err(TryGetError::Empty),
    }
}

fn in_time<T>(item: Option<Result<T, GetError>>) -> Result<T, GetTimeoutError> {
    match item {
        Some(item) => item.map_err(|GetError| GetTimeoutError::ShutDown),
        None => Err(GetTimeoutError::Timeout),
    }
}

/// The items of a queue as they come; see [`QueueOf::iter`].
pub struct Iter<'a, T, S>(&'a QueueOf<T, S>);

/// The items of a queue that are there now; see [`QueueOf::try_iter`].
pub struct TryIter<'a, T, S>(&'a QueueOf<T, S>);

impl<T, S: Store<T>> Iterator for Iter<'_, T, S> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        self.0.get().ok()
    }
}

impl<T, S: Store<T>> FusedIterator for Iter<'_, T, S> {}

impl<T, S: Store<T>> Iterator for TryIter<'_, T, S> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        self.0.try_get().ok()
    }
}

impl<'a, T, S: Store<T>> IntoIterator for &'a QueueOf<T, S> {
    type Item = T;
    type IntoIter = Iter<'a, T, S>;

    fn into_iter(self) -> Iter<'a, T, S> {
        self.iter()
    }
}

impl<T, S: Store<T>> Default for QueueOf<T, S> {
    /// A queue without a limit.
    fn default() -> QueueOf<T, S> {
        QueueOf::unbounded()
    }
}

impl<T, S: Store<T>> fmt::Debug for QueueOf<T, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue")
            .field("len", &self.len())
            .field("capacity", &self.capacity())
            .field("is_shut_down", &self.is_shut_down())
            .finish_non_exhaustive()
    }
}

impl<T, S: Store<T>> fmt::Debug for Iter<'_, T, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Iter").field(self.0).finish()
    }
}

impl<T, S: Store<T>> fmt::Debug for TryIter<'_, T, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TryIter").field(self.0).finish()
    }
}
