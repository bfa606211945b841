//! Many at once: join all, kill all, wait for some.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::time::Duration;

use super::{JoinError, JoinHandle, NurseryHandle, ScopedJoinHandle};
use crate::hub::{self, Hub, Mode, Parker, Waiter, Wake, Why, budget, interrupt};
use crate::sync::select::Joins;

static SOME: &str = "the end of one of several green threads";

/// A handle of a green thread: [`JoinHandle`], [`ScopedJoinHandle`] or [`NurseryHandle`].
///
/// [`join_all`], [`iwait`] and the others take handles of each kind. Other types cannot implement it.
pub trait Joinable: Watched {
    /// What [`join`](Self::join) returns.
    type Output;

    /// Waits for the end, and returns the result.
    #[track_caller]
    fn join(self) -> Self::Output;

    /// Asks the green thread to end; see [`JoinHandle::kill`].
    fn kill(&self);

    /// Whether it has ended.
    fn is_finished(&self) -> bool;
}

/// How a handle is waited for together with others.
pub trait Watched {
    /// Registers a waiter for the end; `false` if the green thread has ended.
    #[doc(hidden)]
    fn watch(&mut self, watcher: Watcher) -> bool;

    #[doc(hidden)]
    fn unwatch(&mut self);
}

/// A waiter, under a name that other crates cannot use.
#[derive(Debug)]
pub struct Watcher(Waiter);

impl<T> Joinable for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    fn join(self) -> Self::Output {
        JoinHandle::join(self)
    }

    fn kill(&self) {
        JoinHandle::kill(self);
    }

    fn is_finished(&self) -> bool {
        JoinHandle::is_finished(self)
    }
}

impl<T> Watched for JoinHandle<T> {
    fn watch(&mut self, watcher: Watcher) -> bool {
        JoinHandle::watch(self, watcher.0)
    }

    fn unwatch(&mut self) {
        JoinHandle::unwatch(self);
    }
}

impl<T> Joinable for ScopedJoinHandle<'_, T> {
    type Output = Result<T, JoinError>;

    fn join(self) -> Self::Output {
        ScopedJoinHandle::join(self)
    }

    fn kill(&self) {
        ScopedJoinHandle::kill(self);
    }

    fn is_finished(&self) -> bool {
        ScopedJoinHandle::is_finished(self)
    }
}

impl<T> Watched for ScopedJoinHandle<'_, T> {
    fn watch(&mut self, watcher: Watcher) -> bool {
        self.handle().watch(watcher.0)
    }

    fn unwatch(&mut self) {
        self.handle().unwatch();
    }
}

impl<T> Joinable for NurseryHandle<'_, T> {
    type Output = T;

    fn join(self) -> T {
        NurseryHandle::join(self)
    }

    fn kill(&self) {
        self.thread().kill();
    }

    fn is_finished(&self) -> bool {
        NurseryHandle::is_finished(self)
    }
}

impl<T> Watched for NurseryHandle<'_, T> {
    fn watch(&mut self, watcher: Watcher) -> bool {
        self.handle().watch(watcher)
    }

    fn unwatch(&mut self) {
        self.handle().unwatch();
    }
}

impl<T> Joins for JoinHandle<T> {}
impl<T> Joins for ScopedJoinHandle<'_, T> {}
impl<T> Joins for NurseryHandle<'_, T> {}

/// Joins all, and returns the results in the order given.
///
/// ```
/// use greenthread::{spawn, thread};
/// let squares = thread::join_all((1..4).map(|n| spawn(move || n * n)));
/// assert_eq!(squares.into_iter().map(Result::unwrap).collect::<Vec<_>>(), [1, 4, 9]);
/// ```
///
/// # Blocking and cancellation
/// Parks. If the caller is killed or timed out meanwhile, all handles are dropped, so the green threads that still run
/// are detached, unless they belong to a [`scope`](super::scope()) or a [`nursery`](super::nursery()).
///
/// # Coming from Python
/// `gevent.joinall`.
#[doc(alias("joinall", "gather"))]
#[track_caller]
pub fn join_all<H: Joinable>(handles: impl IntoIterator<Item = H>) -> Vec<H::Output> {
    let handles: Vec<_> = handles.into_iter().collect();
    handles.into_iter().map(H::join).collect()
}

/// Kills all, then joins them all.
///
/// # Blocking and cancellation
/// As [`join_all`]. A green thread that shields itself or catches the kill prolongs the wait.
///
/// # Coming from Python
/// `gevent.killall`.
#[doc(alias("killall"))]
#[track_caller]
pub fn kill_all<H: Joinable>(handles: impl IntoIterator<Item = H>) -> Vec<H::Output> {
    let handles: Vec<_> = handles.into_iter().collect();
    handles.iter().for_each(H::kill);
    join_all(handles)
}

/// Waits until `count` of them have ended, for at most `timeout`. Returns the ended ones and the rest. A `count` of
/// `None` means all.
///
/// More than `count` may be returned as ended. With a count of 0 it does not wait, and returns none as ended. With a
/// count above the number of handles it waits for all.
///
/// ```
/// use std::time::Duration;
/// use greenthread::{spawn, thread};
/// let second = Duration::from_secs(1);
/// let (done, rest) = thread::wait(vec![spawn(|| ()), spawn(thread::park)], second.into(), 1);
/// assert_eq!((done.len(), rest.len()), (1, 1));
/// rest[0].thread().unpark();
/// let (done, rest) = thread::wait(rest, second.into(), None);
/// assert_eq!((done.len(), rest.len()), (1, 0));
/// ```
///
/// # Blocking and cancellation
/// Parks. If the caller is killed or timed out meanwhile, all handles are dropped, so the green threads are detached.
///
/// # Coming from Python
/// `gevent.wait(objects, timeout, count)`.
#[track_caller]
pub fn wait<H: Joinable>(
    handles: Vec<H>,
    timeout: Option<Duration>,
    count: impl Into<Option<usize>>,
) -> (Vec<H>, Vec<H>) {
    let count = count.into().unwrap_or(handles.len());
    let deadline = timeout.map(hub::deadline_in);
    let mut waiting = Wait {
        rest: handles,
        done: VecDeque::new(),
    };
    let mut done = Vec::new();
    while done.len() < count {
        match waiting.next_until(deadline) {
            Some(handle) => done.push(handle),
            None => break,
        }
    }
    let Wait { rest, done: more } = waiting;
    done.extend(more);
    (done, rest)
}

/// Returns the handles one by one, as their green threads end.
///
/// ```
/// use std::time::Duration;
/// use greenthread::{sleep, thread};
/// let order = thread::scope(|s| {
///     let children = [3, 1, 2].map(|n| s.spawn(move || { sleep(Duration::from_millis(10 * n)); n }));
///     thread::iwait(children).map(|child| child.join().unwrap()).collect::<Vec<_>>()
/// });
/// assert_eq!(order, [1, 2, 3]);
/// ```
///
/// # Blocking and cancellation
/// Each `next` parks. If the caller is killed or timed out there, it unwinds, and the iterator can be used as before.
///
/// # Coming from Python
/// `gevent.iwait(objects)`; asyncio's `as_completed`.
#[doc(alias("as_completed"))]
#[track_caller]
pub fn iwait<H: Joinable>(handles: impl IntoIterator<Item = H>) -> Wait<H> {
    Wait {
        rest: handles.into_iter().collect(),
        done: VecDeque::new(),
    }
}

/// The iterator of [`iwait`].
#[derive(Debug)]
pub struct Wait<H> {
    rest: Vec<H>,
    done: VecDeque<H>,
}

impl<H: Joinable> Wait<H> {
    /// The next that ends, until `deadline`.
    #[track_caller]
    fn next_until(&mut self, deadline: Option<u64>) -> Option<H> {
        if budget::spend(Mode::Cancel) == Wake::Interrupted {
            interrupt::raise();
            return None;
        }
        loop {
            if let Some(handle) = self.done.pop_front() {
                return Some(handle);
            }
            if self.rest.is_empty() {
                return None;
            }
            if Hub::has_ended() {
                self.sort_out();
                if !self.done.is_empty() {
                    continue;
                }
                if hub::is_past(deadline) {
                    return None;
                }
            }
            // Register with all of them before the park: an end from here on wakes it, so none is missed.
            let parker = Parker::new();
            let mut some_ended = false;
            for handle in &mut self.rest {
                some_ended |= !handle.watch(Watcher(parker.waiter()));
            }
            let count = self.rest.len();
            // One has ended before it could be registered: do not park. The ticket is not used, and the next park takes
            // a new one.
            let wake = if some_ended {
                Wake::Ready
            } else {
                parker.park(deadline, Mode::Cancel, Why::new(&SOME, count))
            };
            // Take the waiters back in any case: a late end must not wake a later park.
            self.rest.iter_mut().for_each(H::unwatch);
            if wake == Wake::Interrupted {
                interrupt::raise();
                return None;
            }
            self.sort_out();
            if wake == Wake::TimedOut && self.done.is_empty() {
                return None;
            }
        }
    }

    /// Moves those that have ended to `done`.
    fn sort_out(&mut self) {
        let (done, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut self.rest).into_iter().partition(H::is_finished);
        self.done.extend(done);
        self.rest = rest;
    }
}

impl<H: Joinable> Iterator for Wait<H> {
    type Item = H;

    #[track_caller]
    fn next(&mut self) -> Option<H> {
        self.next_until(None)
    }
}
