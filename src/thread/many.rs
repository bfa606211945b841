//! Many at once: join all, kill all, wait for some.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::time::Duration;

use super::{JoinError, JoinHandle};
use crate::hub::{self, Hub, Mode, Parker, Wake, Why, budget, interrupt};

static SOME: &str = "the end of one of several green threads";

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
/// are detached. A [`scope`](super::scope) avoids that.
///
/// # Coming from Python
/// `gevent.joinall`.
#[track_caller]
pub fn join_all<T>(handles: impl IntoIterator<Item = JoinHandle<T>>) -> Vec<Result<T, JoinError>> {
    let handles: Vec<_> = handles.into_iter().collect();
    handles.into_iter().map(JoinHandle::join).collect()
}

/// Kills all, then joins them all.
///
/// # Blocking and cancellation
/// As [`join_all`]. A green thread that shields itself or catches the kill prolongs the wait.
///
/// # Coming from Python
/// `gevent.killall`.
#[track_caller]
pub fn kill_all<T>(handles: impl IntoIterator<Item = JoinHandle<T>>) -> Vec<Result<T, JoinError>> {
    let handles: Vec<_> = handles.into_iter().collect();
    handles.iter().for_each(JoinHandle::kill);
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
pub fn wait<T>(
    handles: Vec<JoinHandle<T>>,
    timeout: Option<Duration>,
    count: impl Into<Option<usize>>,
) -> (Vec<JoinHandle<T>>, Vec<JoinHandle<T>>) {
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
/// # Blocking and cancellation
/// Each `next` parks. If the caller is killed or timed out there, it unwinds, and the iterator can be used as before.
///
/// # Coming from Python
/// `gevent.iwait(objects)`; asyncio's `as_completed`.
#[track_caller]
pub fn iwait<T>(handles: impl IntoIterator<Item = JoinHandle<T>>) -> Wait<T> {
    Wait {
        rest: handles.into_iter().collect(),
        done: VecDeque::new(),
    }
}

/// The iterator of [`iwait`].
#[derive(Debug)]
pub struct Wait<T> {
    rest: Vec<JoinHandle<T>>,
    done: VecDeque<JoinHandle<T>>,
}

impl<T> Wait<T> {
    /// The next that ends, until `deadline`.
    #[track_caller]
    fn next_until(&mut self, deadline: Option<u64>) -> Option<JoinHandle<T>> {
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
                some_ended |= !handle.watch(parker.waiter());
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
            self.rest.iter_mut().for_each(JoinHandle::unwatch);
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
        let (done, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut self.rest)
            .into_iter()
            .partition(JoinHandle::is_finished);
        self.done.extend(done);
        self.rest = rest;
    }
}

impl<T> Iterator for Wait<T> {
    type Item = JoinHandle<T>;

    #[track_caller]
    fn next(&mut self) -> Option<JoinHandle<T>> {
        self.next_until(None)
    }
}
