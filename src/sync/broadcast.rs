//! Messages that each receiver gets, the last few of them.
//!
//! ```
//! use greenthread::{spawn, sync::broadcast};
//!
//! let (sender, first) = broadcast::channel(16);
//! let readers = [first, sender.subscribe()].map(|mut receiver| spawn(move || receiver.iter().sum::<i32>()));
//! for n in 1..=4 {
//!     sender.send(n).unwrap();
//! }
//! drop(sender);
//! assert_eq!(readers.map(|reader| reader.join().unwrap()), [10, 10]);
//! ```
//!
//! A sender never waits. The channel keeps the last `capacity` messages; a receiver that is further behind than that is
//! told how many it has [missed](RecvError::Lagged), and goes on with the oldest that is left.
//!
//! # Coming from tokio
//! `tokio::sync::broadcast`.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::iter::FusedIterator;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use std::sync::mpsc::SendError;

use super::wait::{Core, Op, State, Until};
use super::waiters::{Waiters, Woken};
use crate::hub::Why;

static RECV: &str = "a message of a broadcast";

struct Shared<T> {
    /// The messages that are kept. Shared, so that they are copied without the lock.
    kept: VecDeque<Arc<T>>,
    /// The number of the next message.
    next: u64,
    /// The receivers in line are to be told: a message has come since they got in line.
    tells: bool,
    capacity: usize,
    senders: usize,
    receivers: usize,
    waiting: Waiters,
}

impl<T> Shared<T> {
    fn oldest(&self) -> u64 {
        self.next - self.kept.len() as u64
    }
}

impl<T> State for Shared<T> {
    #[inline]
    fn may_grant(&self) -> bool {
        self.waiting.any() && (self.tells || self.senders == 0)
    }

    fn grant_waiters(&mut self, woken: &mut Woken) {
        // A receiver gets in line only if it has had all messages, so a new one concerns all in line.
        while (self.tells || self.senders == 0) && self.waiting.grant_first(woken) {}
        self.tells = false;
    }
}

/// Receives one message.
struct Recv<'a> {
    /// The number of the message that the receiver gets next.
    next: &'a mut u64,
}

impl<T> Op<Shared<T>> for Recv<'_> {
    type Output = Result<Arc<T>, RecvError>;

    // Others get the message too. But this receiver must not lose it to another branch of a select: so the message is
    // taken only in the attempt, and a grant takes nothing (SELECT-7).
    const TAKES: bool = false;

    fn waiters<'a>(&self, state: &'a mut Shared<T>) -> &'a mut Waiters {
        &mut state.waiting
    }

    fn attempt(&mut self, state: &mut Shared<T>, _: bool, _: &mut Woken) -> Option<Self::Output> {
        let (next, oldest) = (*self.next, state.oldest());
        if next < oldest {
            *self.next = oldest;
            return Some(Err(RecvError::Lagged(oldest - next)));
        }
        match state.kept.get((next - oldest) as usize) {
            Some(message) => {
                *self.next = next + 1;
                Some(Ok(message.clone()))
            }
            None => (state.senders == 0).then_some(Err(RecvError::Closed)),
        }
    }
}

/// Why there is no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecvError {
    /// All senders are gone, and all messages were received.
    Closed,
    /// This many messages were missed, because the receiver was too far behind.
    Lagged(u64),
}

/// Why there is no message now, or in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TryRecvError {
    /// There is none yet.
    Empty,
    /// All senders are gone, and all messages were received.
    Closed,
    /// This many messages were missed, because the receiver was too far behind.
    Lagged(u64),
}

impl fmt::Display for RecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RecvError::Closed => f.write_str("the broadcast has ended: all senders are gone"),
            RecvError::Lagged(missed) => write!(f, "the receiver was too slow and has missed {missed} messages"),
        }
    }
}

impl std::error::Error for RecvError {}

impl From<RecvError> for TryRecvError {
    fn from(error: RecvError) -> TryRecvError {
        match error {
            RecvError::Closed => TryRecvError::Closed,
            RecvError::Lagged(missed) => TryRecvError::Lagged(missed),
        }
    }
}

impl fmt::Display for TryRecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            TryRecvError::Empty => f.write_str("no message has come"),
            TryRecvError::Closed => RecvError::Closed.fmt(f),
            TryRecvError::Lagged(missed) => RecvError::Lagged(missed).fmt(f),
        }
    }
}

impl std::error::Error for TryRecvError {}

/// A broadcast that keeps the last `capacity` messages, with its first sender and its first receiver.
///
/// # Panics
/// If `capacity` is zero.
#[track_caller]
pub fn channel<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    assert!(
        capacity > 0,
        "a broadcast that keeps no message would lose all: give it a capacity"
    );
    let core = Arc::new(Core::new(Shared {
        kept: VecDeque::new(),
        next: 0,
        tells: false,
        capacity,
        senders: 1,
        receivers: 1,
        waiting: Waiters::new(),
    }));
    let sender = Sender { core: core.clone() };
    (sender, Receiver { core, next: 0 })
}

/// Sends to all receivers. When the last sender is dropped, receivers get what is left and then [`RecvError::Closed`].
pub struct Sender<T> {
    core: Arc<Core<Shared<T>>>,
}

impl<T> Sender<T> {
    /// Sends a message, and returns how many receivers it goes to. Never waits.
    ///
    /// # Errors
    /// The message, if there is no receiver.
    pub fn send(&self, message: T) -> Result<usize, SendError<T>> {
        let message = Arc::new(message);
        let sent = self.core.change(|state| {
            if state.receivers == 0 {
                return Err(message);
            }
            // Dropped without the lock, by the caller: the message is the user's.
            let oldest = if state.kept.len() == state.capacity {
                state.kept.pop_front()
            } else {
                None
            };
            state.kept.push_back(message);
            state.next += 1;
            state.tells = state.waiting.any();
            Ok((state.receivers, oldest))
        });
        match sent {
            Ok((receivers, oldest)) => {
                drop(oldest);
                Ok(receivers)
            }
            // It was not shared yet.
            Err(message) => Err(SendError(Arc::into_inner(message).unwrap_or_else(|| unreachable!()))),
        }
    }

    /// A new receiver, of the messages that are sent from now on.
    pub fn subscribe(&self) -> Receiver<T> {
        let next = self.core.change(|state| {
            state.receivers += 1;
            state.next
        });
        Receiver {
            core: self.core.clone(),
            next,
        }
    }

    /// How many receivers there are.
    pub fn receiver_count(&self) -> usize {
        self.core.look(|state| state.receivers)
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Sender<T> {
        self.core.change(|state| state.senders += 1);
        Sender {
            core: self.core.clone(),
        }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.core.change(|state| state.senders -= 1);
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("broadcast::Sender")
            .field("receivers", &self.receiver_count())
            .finish_non_exhaustive()
    }
}

/// Gets each message that is sent after it was made. A clone gets the messages that this one has not had.
pub struct Receiver<T> {
    core: Arc<Core<Shared<T>>>,
    next: u64,
}

impl<T> Receiver<T> {
    /// A copy of the message, or the message itself if the channel keeps it no longer.
    fn own(message: Arc<T>) -> T
    where
        T: Clone,
    {
        Arc::unwrap_or_clone(message)
    }

    /// Waits for the next message.
    ///
    /// # Errors
    /// [`RecvError`]. After `Lagged` the next call returns the oldest message that is left.
    ///
    /// # Blocking and cancellation
    /// Parks unless there is one. A kill or time-out unwinds here, and no message is lost.
    #[track_caller]
    pub fn recv(&mut self) -> Result<T, RecvError>
    where
        T: Clone,
    {
        let received = self
            .core
            .block(&mut Recv { next: &mut self.next }, Until::Ever, Why::new(&RECV, 0));
        received.unwrap_or(Err(RecvError::Closed)).map(Self::own)
    }

    /// The next message, if it has come.
    ///
    /// # Errors
    /// [`TryRecvError`].
    pub fn try_recv(&mut self) -> Result<T, TryRecvError>
    where
        T: Clone,
    {
        let received = self.core.attempt(&mut Recv { next: &mut self.next });
        Ok(Self::own(received.ok_or(TryRecvError::Empty)??))
    }

    /// Waits for the next message for at most `timeout`.
    ///
    /// # Errors
    /// [`TryRecvError`]; `Empty` when the time is over.
    #[track_caller]
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<T, TryRecvError>
    where
        T: Clone,
    {
        self.recv_until(Until::After(timeout))
    }

    /// Waits for the next message until `deadline`.
    ///
    /// # Errors
    /// As [`recv_timeout`](Self::recv_timeout).
    #[track_caller]
    pub fn recv_deadline(&mut self, deadline: Instant) -> Result<T, TryRecvError>
    where
        T: Clone,
    {
        self.recv_until(Until::At(deadline))
    }

    #[track_caller]
    fn recv_until(&mut self, until: Until) -> Result<T, TryRecvError>
    where
        T: Clone,
    {
        let received = self
            .core
            .block(&mut Recv { next: &mut self.next }, until, Why::new(&RECV, 0));
        Ok(Self::own(received.ok_or(TryRecvError::Empty)??))
    }

    /// Like [`recv`](Self::recv), for an `async` function, and for `select!`, as `future(receiver.recv_async())`. If
    /// the future is dropped before it is ready, no message is lost.
    ///
    /// # Errors
    /// As there.
    pub fn recv_async(&mut self) -> impl Future<Output = Result<T, RecvError>> + use<'_, T>
    where
        T: Clone,
    {
        let received = self.core.future(Recv { next: &mut self.next });
        async move { received.await.map(Self::own) }
    }

    /// The messages until all senders are gone. Those that were missed are left out.
    pub fn iter(&mut self) -> Iter<'_, T>
    where
        T: Clone,
    {
        Iter { receiver: self }
    }

    /// How many messages wait for this receiver, those that it has missed included.
    pub fn len(&self) -> u64 {
        self.core.look(|state| state.next - self.next)
    }

    /// Whether no message waits for this receiver.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Receiver<T> {
        self.core.change(|state| state.receivers += 1);
        Receiver {
            core: self.core.clone(),
            next: self.next,
        }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        // Without a receiver nothing can get the messages. They are the user's: dropped without the lock.
        let kept = self.core.change(|state| {
            state.receivers -= 1;
            if state.receivers == 0 {
                std::mem::take(&mut state.kept)
            } else {
                VecDeque::new()
            }
        });
        drop(kept);
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("broadcast::Receiver")
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

/// The iterator of [`Receiver::iter`].
pub struct Iter<'a, T> {
    receiver: &'a mut Receiver<T>,
}

impl<T: Clone> Iterator for Iter<'_, T> {
    type Item = T;

    #[track_caller]
    fn next(&mut self) -> Option<T> {
        loop {
            match self.receiver.recv() {
                Ok(message) => return Some(message),
                Err(RecvError::Closed) => return None,
                Err(RecvError::Lagged(_)) => {}
            }
        }
    }
}

impl<T: Clone> FusedIterator for Iter<'_, T> {}

impl<T> fmt::Debug for Iter<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("broadcast::Iter").field(self.receiver).finish()
    }
}
