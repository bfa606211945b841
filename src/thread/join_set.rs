//! Green threads whose results come in the order of their ends.
//!
//! Each member has an exit link that sends its number into a channel. So a number is in the channel once the member has
//! ended, and its handle is in the table until the number is received.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::fmt;
use std::time::{Duration, Instant};

use super::{Closure, JoinError, JoinHandle, ThreadId, spawn, spawn_local};
use crate::sync::channel::{Receiver, Sender, unbounded};

/// Green threads that are joined as they end. More may be spawned meanwhile.
///
/// ```
/// use std::time::Duration;
/// use greenthread::{sleep, thread::JoinSet};
///
/// let mut set = JoinSet::new();
/// for n in [3, 1, 2] {
///     set.spawn(move || { sleep(Duration::from_millis(10 * n)); n });
/// }
/// let mut ended = Vec::new();
/// while let Some(result) = set.join_next() {
///     ended.push(result.unwrap());
///     if ended.len() == 1 {
///         set.spawn(|| 4);
///     }
/// }
/// assert_eq!(ended, [1, 4, 2, 3]);
/// ```
///
/// When the set is dropped its members are killed, and not waited for. Members that borrow are children of a
/// [`nursery`](super::nursery()) or a [`scope`](super::scope()), with [`iwait`](super::iwait).
///
/// # Coming from Python
/// `asyncio.as_completed`, `gevent.iwait`, of a set that grows.
#[doc(alias("FuturesUnordered", "as_completed"))]
pub struct JoinSet<T> {
    members: HashMap<ThreadId, JoinHandle<T>>,
    ended: (Sender<ThreadId>, Receiver<ThreadId>),
}

impl<T> JoinSet<T> {
    /// A set without members.
    pub fn new() -> JoinSet<T> {
        JoinSet {
            members: HashMap::new(),
            ended: unbounded(),
        }
    }

    /// Spawns a member, like [`spawn`](super::spawn()).
    ///
    /// # Panics
    /// When there is no memory for its stack.
    #[track_caller]
    pub fn spawn<F>(&mut self, f: F)
    where
        F: Closure<T> + Send + 'static,
        T: Send + 'static,
    {
        self.add(spawn(f));
    }

    /// Spawns a member, like [`spawn_local`](super::spawn_local).
    ///
    /// # Panics
    /// When there is no memory for its stack.
    #[track_caller]
    pub fn spawn_local<F>(&mut self, f: F)
    where
        F: Closure<T> + 'static,
        T: 'static,
    {
        self.add(spawn_local(f));
    }

    /// Makes a green thread a member, with its result.
    pub fn add(&mut self, handle: JoinHandle<T>) {
        let (id, ended) = (handle.thread().id(), self.ended.0.clone());
        // The receiver may be gone: then the set is, too.
        handle.at_exit(move |_| _ = ended.send(id));
        self.members.insert(id, handle);
    }

    /// How many members have not been joined.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether all members have been joined.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Waits for the next member that ends, and takes it out of the set. `None` if there are no members.
    ///
    /// # Errors
    /// As [`JoinHandle::join`], inside.
    ///
    /// # Blocking and cancellation
    /// Parks. A kill or time-out unwinds here, and no result is lost.
    #[track_caller]
    pub fn join_next(&mut self) -> Option<Result<T, JoinError>> {
        if self.is_empty() {
            return None;
        }
        let id = self.ended.1.recv().ok()?;
        self.take(id)
    }

    /// The next member that has ended; `None` if none has.
    ///
    /// # Errors
    /// As [`JoinHandle::join`], inside.
    pub fn try_join_next(&mut self) -> Option<Result<T, JoinError>> {
        let id = self.ended.1.try_recv().ok()?;
        self.take(id)
    }

    /// Like [`join_next`](Self::join_next), but waits for at most `timeout`.
    ///
    /// # Errors
    /// As [`JoinHandle::join`], inside.
    #[track_caller]
    pub fn join_next_timeout(&mut self, timeout: Duration) -> Option<Result<T, JoinError>> {
        if self.is_empty() {
            return None;
        }
        let id = self.ended.1.recv_timeout(timeout).ok()?;
        self.take(id)
    }

    /// Like [`join_next`](Self::join_next), but waits until `deadline`.
    ///
    /// # Errors
    /// As [`JoinHandle::join`], inside.
    #[track_caller]
    pub fn join_next_deadline(&mut self, deadline: Instant) -> Option<Result<T, JoinError>> {
        if self.is_empty() {
            return None;
        }
        let id = self.ended.1.recv_deadline(deadline).ok()?;
        self.take(id)
    }

    /// Like [`join_next`](Self::join_next), for an `async` function. If the future is dropped before it is ready, no
    /// result is lost.
    pub async fn join_next_async(&mut self) -> Option<Result<T, JoinError>> {
        if self.is_empty() {
            return None;
        }
        let id = self.ended.1.recv_async().await.ok()?;
        self.take(id)
    }

    /// Waits for all members, and returns their results in the order of their ends.
    ///
    /// # Blocking and cancellation
    /// Parks. A kill or time-out unwinds here, and kills the members that are left.
    #[track_caller]
    pub fn join_all(mut self) -> Vec<Result<T, JoinError>> {
        std::iter::from_fn(|| self.join_next()).collect()
    }

    /// Asks all members to end; see [`JoinHandle::kill`]. They stay members until they are joined.
    pub fn kill_all(&self) {
        self.members.values().for_each(JoinHandle::kill);
    }

    /// Takes all members out of the set: they run on, as after a drop of their handles.
    pub fn detach_all(&mut self) {
        // A new channel: numbers of members that have ended, or will, would not be found in the table.
        *self = {
            let mut old = std::mem::take(self);
            old.members.clear();
            JoinSet::new()
        };
    }

    /// The result of a member that has ended.
    fn take(&mut self, id: ThreadId) -> Option<Result<T, JoinError>> {
        self.members.remove(&id).map(JoinHandle::join_ended)
    }
}

impl<T> Default for JoinSet<T> {
    fn default() -> JoinSet<T> {
        JoinSet::new()
    }
}

impl<T> Drop for JoinSet<T> {
    fn drop(&mut self) {
        self.kill_all();
    }
}

impl<T> fmt::Debug for JoinSet<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinSet").field("len", &self.len()).finish()
    }
}
