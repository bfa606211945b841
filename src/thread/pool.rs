//! A group of bounded size: a spawn waits while it is full.
#![forbid(unsafe_code)]

use std::error::Error;
use std::fmt;
use std::panic::Location;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::imap::{self, Imap, Order};
use super::{Group, JoinError, JoinHandle, Thread};
use crate::hub::{Kind, Why};
use crate::sync::{Permit, Semaphore, Until};

static PLACE: &str = "a place in a Pool";

/// A group of green threads with a limit on how many run at once.
///
/// ```
/// use greenthread::{thread::Pool, yield_now};
///
/// let pool = Pool::new(2);
/// for n in 0..10 {
///     pool.spawn(move || { yield_now(); n }); // waits while two are at work
///     assert!(pool.len() <= 2);
/// }
/// pool.join();
/// assert_eq!(pool.map([1, 2, 3], |n| n * n).into_iter().map(Result::unwrap).sum::<i32>(), 14);
/// ```
///
/// A member also belongs to the pool's [`group`](Self::group), and its place is free again when it leaves that group. A
/// clone is the same pool. The members run on when the pool is dropped.
///
/// A member that waits for a place in its own pool may wait forever. [`apply`](Self::apply) needs no place there.
///
/// # Coming from Python
/// `gevent.pool.Pool`. A pool of 0 is always full, as there. There is no pool without a limit: use a [`Group`].
#[derive(Clone)]
pub struct Pool {
    group: Group,
    places: Arc<Semaphore>,
    size: usize,
}

/// A place in a pool, free again when this is dropped.
pub(super) struct Place(Arc<Semaphore>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.add(1);
    }
}

/// There was no place in the pool; what was to be spawned comes back in this error.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PoolFull<F>(pub F);

impl<F> fmt::Debug for PoolFull<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PoolFull(..)")
    }
}

impl<F> fmt::Display for PoolFull<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no place in the pool: all its green threads are busy")
    }
}

impl<F> Error for PoolFull<F> {}

impl Pool {
    /// A pool of at most `size` green threads at once.
    pub fn new(size: usize) -> Pool {
        Pool {
            group: Group::new(),
            places: Arc::new(Semaphore::new(size)),
            size,
        }
    }

    /// The size of its members' stacks in bytes that they can use; see [`Group::stack_size`].
    ///
    /// ```
    /// use greenthread::thread::Pool;
    /// let deep = Pool::new(2).stack_size(8 << 20);
    /// assert_eq!(deep.map([1_u8, 2], |n| [n; 4 << 20].len()).pop().unwrap().unwrap(), 4 << 20);
    /// ```
    #[must_use]
    pub fn stack_size(mut self, bytes: usize) -> Pool {
        self.group = self.group.stack_size(bytes);
        self
    }

    /// How many green threads may run at once.
    pub fn size(&self) -> usize {
        self.size
    }

    /// How many places are free.
    pub fn free_count(&self) -> usize {
        self.places.available()
    }

    /// Its members, as a group. A green thread that is spawned or added there takes no place.
    pub fn group(&self) -> &Group {
        &self.group
    }

    /// Spawns a member, like [`spawn`](super::spawn), as soon as there is a place for it.
    ///
    /// # Panics
    /// When there is no memory for its stack.
    ///
    /// # Blocking and cancellation
    /// Parks while the pool is full; places are given in the order of the calls. A kill or time-out unwinds here: `f`
    /// is dropped, and a place that was granted already goes to the next in line.
    ///
    /// # Coming from Python
    /// `pool.spawn(f, *args)`.
    #[track_caller]
    pub fn spawn<F, T>(&self, f: F) -> JoinHandle<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let place = self.place();
        self.start(place, f)
    }

    /// Spawns a member, like [`spawn_local`](super::spawn_local), as soon as there is a place for it.
    ///
    /// # Panics
    /// As [`spawn`](Self::spawn).
    ///
    /// # Blocking and cancellation
    /// As [`spawn`](Self::spawn).
    #[track_caller]
    pub fn spawn_local<F, T>(&self, f: F) -> JoinHandle<T>
    where
        F: FnOnce() -> T + 'static,
        T: 'static,
    {
        let place = self.place();
        self.group.start(Kind::Local, f, Some(place))
    }

    /// Spawns a member, like [`spawn`](super::spawn), if there is a place that no other caller waits for.
    ///
    /// # Errors
    /// [`PoolFull`], with `f`.
    #[track_caller]
    pub fn try_spawn<F, T>(&self, f: F) -> Result<JoinHandle<T>, PoolFull<F>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let permit = self.places.try_acquire();
        self.start_if(permit.map(|permit| self.keep(permit)), f)
    }

    /// Like [`spawn`](Self::spawn), but waits for at most `timeout`.
    ///
    /// # Errors
    /// [`PoolFull`], with `f`.
    #[track_caller]
    pub fn spawn_timeout<F, T>(&self, timeout: Duration, f: F) -> Result<JoinHandle<T>, PoolFull<F>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.start_if(self.place_until(Until::After(timeout)), f)
    }

    /// Like [`spawn`](Self::spawn), but waits until `deadline` at most.
    ///
    /// # Errors
    /// [`PoolFull`], with `f`.
    #[track_caller]
    pub fn spawn_deadline<F, T>(&self, deadline: Instant, f: F) -> Result<JoinHandle<T>, PoolFull<F>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.start_if(self.place_until(Until::At(deadline)), f)
    }

    /// Makes a green thread (of this or another hub) a member until it ends, as soon as there is a place for it.
    ///
    /// # Blocking and cancellation
    /// Parks while the pool is full. A kill or time-out unwinds here.
    #[track_caller]
    pub fn add<T>(&self, handle: &JoinHandle<T>) {
        let place = self.place();
        self.group.enter(handle, Some(place));
    }

    /// Waits until there is a place. Another caller may take it before this returns.
    ///
    /// # Blocking and cancellation
    /// Parks while the pool is full. A kill or time-out unwinds here.
    #[track_caller]
    pub fn wait_available(&self) {
        drop(self.place());
    }

    /// Like [`wait_available`](Self::wait_available), but for at most `timeout`; returns whether there was one.
    #[track_caller]
    pub fn wait_available_timeout(&self, timeout: Duration) -> bool {
        self.place_until(Until::After(timeout)).is_some()
    }

    /// Like [`wait_available`](Self::wait_available), but until `deadline`; returns whether there was one.
    #[track_caller]
    pub fn wait_available_deadline(&self, deadline: Instant) -> bool {
        self.place_until(Until::At(deadline)).is_some()
    }

    /// Calls `f` in a member and waits for its value. If the caller is a member of this pool, it calls `f` itself, in
    /// its own place.
    ///
    /// ```
    /// use greenthread::thread::Pool;
    /// let pool = Pool::new(1);
    /// let inner = pool.clone();
    /// assert_eq!(pool.apply(move || inner.apply(|| 6) * 7), 42);
    /// ```
    ///
    /// # Panics
    /// If `f` panics, with the same payload; if the member is killed.
    ///
    /// # Blocking and cancellation
    /// Parks. If the caller is killed or timed out meanwhile, the member runs on, and its value is dropped.
    ///
    /// # Coming from Python
    /// `pool.apply(f, args)`.
    #[track_caller]
    pub fn apply<F, T>(&self, f: F) -> T
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        if self.group.contains(&super::current()) {
            return f();
        }
        super::value_of(self.spawn(f).join(), "apply")
    }

    /// Calls `f` with each item, each in a member, and returns all results in the order of the items.
    ///
    /// # Panics
    /// If `items` panics; members that were spawned by then run on.
    ///
    /// # Blocking and cancellation
    /// Parks. If the caller is killed or timed out meanwhile, the members run on, and their values are dropped.
    ///
    /// # Coming from Python
    /// `pool.map(f, items)`. It raises the first failure; here `.into_iter().collect::<Result<Vec<_>, _>>()` does that.
    #[track_caller]
    pub fn map<I, F, T>(&self, items: I, f: F) -> Vec<Result<T, JoinError>>
    where
        I: IntoIterator<Item: Send + 'static>,
        F: Fn(I::Item) -> T + Send + Sync + 'static,
        T: Send + 'static,
    {
        let f = Arc::new(f);
        let mut all = Vec::new();
        // A loop and not a closure: with a closure `Location::caller()` would be a line of this file, not the caller's.
        for item in items {
            let f = f.clone();
            all.push(self.spawn(move || f(item)));
        }
        super::join_all(all)
    }

    /// Calls `f` with each item, each in a member, and returns the results one by one, in the order of the items.
    ///
    /// In all else it is like [`imap_unordered`](Self::imap_unordered).
    ///
    /// # Coming from Python
    /// `pool.imap(f, items, maxsize=bound)`.
    #[track_caller]
    pub fn imap<I, F, T>(&self, items: I, bound: usize, f: F) -> Imap<T>
    where
        I: IntoIterator<Item: Send + 'static, IntoIter: Send + 'static>,
        F: Fn(I::Item) -> T + Send + Sync + 'static,
        T: Send + 'static,
    {
        imap::start(self, items.into_iter(), bound, f, Order::Items, Location::caller())
    }

    /// Calls `f` with each item, each in a member, and returns the results one by one, as they come.
    ///
    /// ```
    /// use greenthread::{sleep, thread::Pool};
    /// use std::time::Duration;
    ///
    /// let pool = Pool::new(2);
    /// let slow = |n: u64| { sleep(Duration::from_millis(10 * n)); n };
    /// let in_order = pool.imap([3, 1, 2], 8, slow).map(Result::unwrap);
    /// assert_eq!(in_order.collect::<Vec<_>>(), [3, 1, 2]);
    /// let as_they_come = pool.imap_unordered([3, 1], 8, slow).map(Result::unwrap);
    /// assert_eq!(as_they_come.collect::<Vec<_>>(), [1, 3]);
    /// ```
    ///
    /// It starts at once, but does not run far ahead. The number of items with results not yet taken is at most
    /// `bound` plus the size of the pool. The item of the last result counts until the next result is asked for. A
    /// `bound` of 0 is enough to keep the whole pool busy while `next` is called.
    ///
    /// `items` runs in a green thread of its own, and may block. If it panics, the panic is an `Err` in the place of
    /// the item. The results of items that were begun still come, and then the iterator ends. A panic or kill of a
    /// member is an `Err` in the place of its result, and has no other effect.
    ///
    /// # Coming from Python
    /// `pool.imap_unordered(f, items, maxsize=bound)`.
    #[track_caller]
    pub fn imap_unordered<I, F, T>(&self, items: I, bound: usize, f: F) -> Imap<T>
    where
        I: IntoIterator<Item: Send + 'static, IntoIter: Send + 'static>,
        F: Fn(I::Item) -> T + Send + Sync + 'static,
        T: Send + 'static,
    {
        imap::start(self, items.into_iter(), bound, f, Order::AsTheyCome, Location::caller())
    }

    #[track_caller]
    fn place(&self) -> Place {
        match self.place_until(Until::Ever) {
            Some(place) => place,
            None => unreachable!("without a deadline, none can pass"),
        }
    }

    #[track_caller]
    fn place_until(&self, until: Until) -> Option<Place> {
        let permit = self.places.acquire_for(until, Why::new(&PLACE, 0));
        permit.map(|permit| self.keep(permit))
    }

    fn keep(&self, permit: Permit<'_>) -> Place {
        permit.forget();
        Place(self.places.clone())
    }

    #[track_caller]
    fn start<F, T>(&self, place: Place, f: F) -> JoinHandle<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.group.start(Kind::Isolated, f, Some(place))
    }

    #[track_caller]
    fn start_if<F, T>(&self, place: Option<Place>, f: F) -> Result<JoinHandle<T>, PoolFull<F>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        match place {
            Some(place) => Ok(self.start(place, f)),
            None => Err(PoolFull(f)),
        }
    }
}

/// These are the methods of its [`Group`].
impl Pool {
    /// As [`Group::len`].
    pub fn len(&self) -> usize {
        self.group.len()
    }

    /// As [`Group::is_empty`].
    pub fn is_empty(&self) -> bool {
        self.group.is_empty()
    }

    /// As [`Group::contains`].
    pub fn contains(&self, thread: &Thread) -> bool {
        self.group.contains(thread)
    }

    /// As [`Group::discard`]; its place is free.
    pub fn discard(&self, thread: &Thread) -> bool {
        self.group.discard(thread)
    }

    /// As [`Group::members`].
    pub fn members(&self) -> Vec<Thread> {
        self.group.members()
    }

    /// As [`Group::join`].
    #[track_caller]
    pub fn join(&self) {
        self.group.join();
    }

    /// As [`Group::join_timeout`].
    #[track_caller]
    pub fn join_timeout(&self, timeout: Duration) -> bool {
        self.group.join_timeout(timeout)
    }

    /// As [`Group::join_deadline`].
    #[track_caller]
    pub fn join_deadline(&self, deadline: Instant) -> bool {
        self.group.join_deadline(deadline)
    }

    /// As [`Group::join_raise`].
    #[track_caller]
    pub fn join_raise(&self) -> Result<(), JoinError> {
        self.group.join_raise()
    }

    /// As [`Group::kill`]. A green thread that waits in [`add`](Self::add) or a spawn becomes a member when it gets a
    /// place, and is killed then, if this call still waits.
    #[track_caller]
    pub fn kill(&self) {
        self.group.kill();
    }

    /// As [`Group::kill_timeout`].
    #[track_caller]
    pub fn kill_timeout(&self, timeout: Duration) -> bool {
        self.group.kill_timeout(timeout)
    }

    /// As [`Group::kill_deadline`].
    #[track_caller]
    pub fn kill_deadline(&self, deadline: Instant) -> bool {
        self.group.kill_deadline(deadline)
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("size", &self.size)
            .field("members", &self.len())
            .finish_non_exhaustive()
    }
}
