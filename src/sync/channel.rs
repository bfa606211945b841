//! Channels: messages in order, from many to many.
//!
//! ```
//! use greenthread::{spawn, sync::channel};
//!
//! let (sender, receiver) = channel::bounded(2);
//! spawn(move || (0..5).for_each(|n| sender.send(n).unwrap())); // waits while two are on their way
//! assert_eq!(receiver.iter().collect::<Vec<_>>(), [0, 1, 2, 3, 4]); // ends when the sender is gone
//! ```
//!
//! Both ends may be cloned, and sent to other OS threads and to futures. Each message goes to one receiver. When all
//! senders are gone, receivers get what is left and then [`RecvError`]; when all receivers are gone, senders get their
//! message back. With a capacity of 0 a sender waits until a receiver comes for its message; if that one is killed
//! before it has it, the message waits for the next.
//!
//! # How it works
//! A sender that has to wait leaves its message in the channel, in line behind those that have room. Whoever takes one
//! lets the next in and its sender go on; a sender that gives up takes its message back out. A sender that finds a
//! receiver waiting grants it its message there and then. So messages of senders that wait are set aside for no
//! receiver, and may be taken back at any time.
//!
//! # Coming from Python
//! `gevent.queue.Channel` is `bounded(0)`. A `gevent.queue.Queue` or `asyncio.Queue` with its `task_done` and `join` is
//! a [`Queue`](super::queue::Queue); one that ends when nobody is left to put is [`bounded`] or [`unbounded`].
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::iter::FusedIterator;
use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::wait::{Core, Op, State, Until};
use super::waiters::{Key, Waiters, Woken};
use crate::hub::alarm::Alarm;
use crate::hub::park::Why;
use crate::hub::spin::push_back;

mod clock;

pub use clock::{after, at, never, tick};
pub use std::sync::mpsc::{RecvError, RecvTimeoutError, SendError, TryRecvError, TrySendError};

static SEND: &str = "room in a channel (send)";
static RECV: &str = "a message of a channel (recv)";

struct Shared<T> {
    /// Messages that have room, among them one for each receiver that was granted one.
    queue: VecDeque<T>,
    /// Those of senders that wait, and of a few that are to take theirs back.
    late: VecDeque<(Key, T)>,
    most: usize,
    senders: usize,
    receivers: usize,
    sending: Waiters,
    receiving: Waiters,
    /// What puts the time in, of [`after`] and [`tick`].
    alarm: Option<Alarm>,
}

impl<T> Shared<T> {
    #[inline]
    fn len(&self) -> usize {
        self.queue.len() + self.sending.waiting()
    }

    /// Whether a message may be put in the queue.
    #[inline]
    fn has_room(&self) -> bool {
        !self.sending.any() && self.queue.len() < self.most
    }

    /// Whether there is a message in the queue that was not set aside.
    #[inline]
    fn has_spare(&self) -> bool {
        self.queue.len() > self.receiving.granted()
    }

    /// The message of the first sender that waits and can go on for it; be it one whose hub has ended, its message is as
    /// good as any.
    #[inline(always)]
    fn take_late(&mut self, woken: &mut Woken) -> Option<T> {
        let key = self.sending.grant_any(woken)?;
        self.late_of(key)
    }

    /// The oldest message, for that of a sender that waits, though all in the queue are set aside.
    #[inline(never)]
    fn exchange(&mut self, woken: &mut Woken) -> Option<T> {
        let late = self.take_late(woken)?;
        push_back(&mut self.queue, late);
        self.queue.pop_front()
    }

    /// Grants a receiver that waits, and can be had, what the caller is to send.
    #[inline(never)]
    fn grant_one(&mut self, woken: &mut Woken) -> bool {
        self.receiving.grant_first(woken)
    }

    fn late_of(&mut self, key: Key) -> Option<T> {
        let at = self.late.iter().position(|(late, _)| *late == key)?;
        self.late.remove(at).map(|(_, message)| message)
    }
}

impl<T> State for Shared<T> {
    const ALLOCATES: bool = false;

    #[inline(always)]
    fn may_grant(&self) -> bool {
        let is_wanted = self.receiving.any() && (self.has_spare() || self.senders == 0);
        let lets_in = self.sending.any() && self.queue.len() < self.most;
        is_wanted || lets_in || self.receivers == 0
    }

    #[inline(always)]
    fn settle(&mut self, woken: &mut Woken) {
        self.grant(woken);
    }
}

impl<T> Shared<T> {
    /// Lets senders that wait in, or go if there is nobody to receive.
    #[inline(never)]
    fn let_in(&mut self, woken: &mut Woken) {
        while self.receivers == 0 && self.sending.grant_any(woken).is_some() {}
        while self.queue.len() < self.most
            && let Some(late) = self.take_late(woken)
        {
            push_back(&mut self.queue, late);
        }
    }

    #[inline(always)]
    fn grant(&mut self, woken: &mut Woken) {
        if self.sending.any() {
            self.let_in(woken);
        }
        while (self.has_spare() || self.senders == 0) && self.receiving.grant_first(woken) {}
    }
}

/// To send one message; it holds the message unless that is in the channel.
struct Send<T> {
    message: Option<T>,
    key: Option<Key>,
    is_bounded: bool,
}

impl<T> Send<T> {
    fn new(message: T, is_bounded: bool) -> Send<T> {
        Send {
            message: Some(message),
            key: None,
            is_bounded,
        }
    }

    fn take_back(&mut self, state: &mut Shared<T>, key: Key) {
        if let Some(message) = state.late_of(key) {
            self.message = Some(message);
        }
    }
}

impl<T> Op<Shared<T>> for Send<T> {
    type Output = Result<(), SendError<T>>;

    #[inline(always)]
    fn spends(&self) -> bool {
        // One that never waits never switches.
        self.is_bounded
    }

    fn waiters<'a>(&self, state: &'a mut Shared<T>) -> &'a mut Waiters {
        &mut state.sending
    }

    #[inline(always)]
    fn attempt(&mut self, state: &mut Shared<T>, granted: bool, woken: &mut Woken) -> Option<Result<(), SendError<T>>> {
        if state.receivers == 0 {
            if let (true, Some(key)) = (granted, self.key) {
                self.take_back(state, key);
            }
            return Some(self.message.take().map_or(Ok(()), |message| Err(SendError(message))));
        }
        if granted {
            return Some(Ok(()));
        }
        // Without a capacity: for a receiver that waits, and can be had.
        if (state.has_room() || state.receiving.any() && state.grant_one(woken))
            && let Some(message) = self.message.take()
        {
            push_back(&mut state.queue, message);
            return Some(Ok(()));
        }
        None
    }

    #[inline(always)]
    fn attempt_plain(&mut self, state: &mut Shared<T>) -> Option<Result<(), SendError<T>>> {
        if state.receivers == 0 || !state.has_room() {
            return None;
        }
        push_back(&mut state.queue, self.message.take()?);
        Some(Ok(()))
    }

    #[inline(always)]
    fn may_do(&self, state: &Shared<T>) -> bool {
        state.receivers == 0 || state.receiving.any()
    }

    fn waits(&mut self, state: &mut Shared<T>, key: Key) {
        self.key = Some(key);
        if let Some(message) = self.message.take() {
            push_back(&mut state.late, (key, message));
        }
    }

    fn gives_up(&mut self, state: &mut Shared<T>, key: Key) {
        self.take_back(state, key);
    }

    fn gives_back(&mut self, state: &mut Shared<T>) {
        // Granted because all receivers are gone: it may be in the channel still.
        if let Some(key) = self.key {
            self.take_back(state, key);
        }
    }
}

/// To receive one message.
struct Recv;

impl<T> Op<Shared<T>> for Recv {
    type Output = Result<T, RecvError>;

    fn waiters<'a>(&self, state: &'a mut Shared<T>) -> &'a mut Waiters {
        &mut state.receiving
    }

    #[inline(always)]
    fn attempt_plain(&mut self, state: &mut Shared<T>) -> Option<Result<T, RecvError>> {
        if state.has_spare() {
            // Who waits to send is let in by `settle`.
            state.queue.pop_front().map(Ok)
        } else {
            None
        }
    }

    #[inline(always)]
    fn may_do(&self, state: &Shared<T>) -> bool {
        state.sending.any() || state.senders == 0
    }

    #[inline(always)]
    fn attempt(&mut self, state: &mut Shared<T>, granted: bool, woken: &mut Woken) -> Option<Result<T, RecvError>> {
        if granted || state.has_spare() {
            // Who waits to send is let in by `settle`.
            return Some(state.queue.pop_front().ok_or(RecvError));
        }
        if state.sending.any() {
            return state.exchange(woken).map(Ok);
        }
        (state.senders == 0).then_some(Err(RecvError))
    }
}

/// A channel that takes `capacity` messages before a sender has to wait; with 0 each waits for its receiver.
pub fn bounded<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    with(capacity)
}

/// A channel in which no sender ever waits.
pub fn unbounded<T>() -> (Sender<T>, Receiver<T>) {
    with(usize::MAX)
}

fn with<T>(most: usize) -> (Sender<T>, Receiver<T>) {
    let channel = Arc::new(Channel::new(most));
    (Sender(channel.clone()), Receiver(channel))
}

/// What both ends refer to.
struct Channel<T> {
    core: Core<Shared<T>>,
    /// Whether a sender may have to wait; beside the lock, for who asks before.
    is_bounded: bool,
}

impl<T> Channel<T> {
    fn new(most: usize) -> Channel<T> {
        Channel {
            core: Core::new(shared(most)),
            is_bounded: most != usize::MAX,
        }
    }
}

impl<T> Deref for Channel<T> {
    type Target = Core<Shared<T>>;

    #[inline(always)]
    fn deref(&self) -> &Core<Shared<T>> {
        &self.core
    }
}

fn shared<T>(most: usize) -> Shared<T> {
    Shared {
        queue: VecDeque::new(),
        late: VecDeque::new(),
        most,
        senders: 1,
        receivers: 1,
        sending: Waiters::new(),
        receiving: Waiters::new(),
        alarm: None,
    }
}

/// The end of a channel that messages are put in.
pub struct Sender<T>(Arc<Channel<T>>);

/// The end of a channel that messages come out of.
pub struct Receiver<T>(Arc<Channel<T>>);

/// What [`Sender::send_timeout`] and [`Sender::send_deadline`] fail with; the message comes back in it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum SendTimeoutError<T> {
    /// There was no room in time.
    Timeout(T),
    /// All receivers are gone.
    Disconnected(T),
}

impl<T> SendTimeoutError<T> {
    /// The message.
    pub fn into_inner(self) -> T {
        match self {
            SendTimeoutError::Timeout(message) | SendTimeoutError::Disconnected(message) => message,
        }
    }
}

impl<T> fmt::Debug for SendTimeoutError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SendTimeoutError::Timeout(_) => "Timeout(..)",
            SendTimeoutError::Disconnected(_) => "Disconnected(..)",
        })
    }
}

impl<T> fmt::Display for SendTimeoutError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SendTimeoutError::Timeout(_) => "timed out waiting for room in a channel",
            SendTimeoutError::Disconnected(_) => "sending on a closed channel",
        })
    }
}

impl<T> Error for SendTimeoutError<T> {}

impl<T> Sender<T> {
    /// Sends a message; waits while there is no room for it.
    ///
    /// # Errors
    /// The message, if all receivers are gone.
    ///
    /// # Blocking and cancellation
    /// Parks while the channel is full. A kill or time-out unwinds here, and the message is dropped unless a receiver
    /// has it.
    #[inline]
    #[track_caller]
    pub fn send(&self, message: T) -> Result<(), SendError<T>> {
        let sent = self.0.block(
            &mut Send::new(message, self.0.is_bounded),
            Until::Ever,
            Why::new(&SEND, 0),
        );
        sent.unwrap_or(Ok(()))
    }

    /// Sends a message, if there is room for it now.
    ///
    /// # Errors
    /// The message: `Full`, or `Disconnected` if all receivers are gone.
    pub fn try_send(&self, message: T) -> Result<(), TrySendError<T>> {
        let mut op = Send::new(message, self.0.is_bounded);
        match self.0.attempt(&mut op) {
            Some(Ok(())) => Ok(()),
            Some(Err(SendError(message))) => Err(TrySendError::Disconnected(message)),
            None => op.message.map_or(Ok(()), |message| Err(TrySendError::Full(message))),
        }
    }

    /// Sends a message; waits for room for at most `timeout`.
    ///
    /// # Errors
    /// The message: `Timeout`, or `Disconnected` if all receivers are gone.
    #[track_caller]
    pub fn send_timeout(&self, message: T, timeout: Duration) -> Result<(), SendTimeoutError<T>> {
        self.send_until(message, Until::After(timeout))
    }

    /// Sends a message; waits for room until `deadline`.
    ///
    /// # Errors
    /// As [`send_timeout`](Self::send_timeout).
    #[track_caller]
    pub fn send_deadline(&self, message: T, deadline: Instant) -> Result<(), SendTimeoutError<T>> {
        self.send_until(message, Until::At(deadline))
    }

    #[track_caller]
    fn send_until(&self, message: T, until: Until) -> Result<(), SendTimeoutError<T>> {
        let mut op = Send::new(message, self.0.is_bounded);
        match self.0.block(&mut op, until, Why::new(&SEND, 0)) {
            Some(Ok(())) => Ok(()),
            Some(Err(SendError(message))) => Err(SendTimeoutError::Disconnected(message)),
            None => op
                .message
                .map_or(Ok(()), |message| Err(SendTimeoutError::Timeout(message))),
        }
    }

    /// As [`send`](Self::send), for an `async` function. Dropped before there was room, the message was not sent.
    pub fn send_async(&self, message: T) -> impl Future<Output = Result<(), SendError<T>>> + use<'_, T>
    where
        T: Unpin,
    {
        self.0.future(Send::new(message, self.0.is_bounded))
    }

    /// How many messages are in the channel, those of waiting senders included.
    pub fn len(&self) -> usize {
        self.0.look(Shared::len)
    }

    /// Whether no message is in the channel.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a sender would have to wait.
    pub fn is_full(&self) -> bool {
        self.0.look(|state| !state.has_room() && state.receiving.waiting() == 0)
    }

    /// How many messages it takes; none: without a limit.
    pub fn capacity(&self) -> Option<usize> {
        capacity(&self.0)
    }

    /// Whether both belong to one channel.
    pub fn same_channel(&self, other: &Sender<T>) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

fn capacity<T>(core: &Core<Shared<T>>) -> Option<usize> {
    Some(core.look(|state| state.most)).filter(|most| *most != usize::MAX)
}

impl<T> Receiver<T> {
    /// Waits for a message.
    ///
    /// # Errors
    /// If the channel is empty and all senders are gone.
    ///
    /// # Blocking and cancellation
    /// Parks while the channel is empty. A kill or time-out unwinds here; a message that was on its way goes to the
    /// next receiver.
    #[inline(always)]
    #[track_caller]
    pub fn recv(&self) -> Result<T, RecvError> {
        let received = self.0.block(&mut Recv, Until::Ever, Why::new(&RECV, 0));
        received.unwrap_or(Err(RecvError))
    }

    /// A message, if there is one now.
    ///
    /// # Errors
    /// `Empty`, or `Disconnected` if all senders are gone besides.
    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        match self.0.attempt(&mut Recv) {
            Some(Ok(message)) => Ok(message),
            Some(Err(RecvError)) => Err(TryRecvError::Disconnected),
            None => Err(TryRecvError::Empty),
        }
    }

    /// Waits for a message for at most `timeout`.
    ///
    /// # Errors
    /// `Timeout`, or `Disconnected` if the channel is empty and all senders are gone.
    #[track_caller]
    pub fn recv_timeout(&self, timeout: Duration) -> Result<T, RecvTimeoutError> {
        self.recv_until(Until::After(timeout))
    }

    /// Waits for a message until `deadline`.
    ///
    /// # Errors
    /// As [`recv_timeout`](Self::recv_timeout).
    #[track_caller]
    pub fn recv_deadline(&self, deadline: Instant) -> Result<T, RecvTimeoutError> {
        self.recv_until(Until::At(deadline))
    }

    #[track_caller]
    fn recv_until(&self, until: Until) -> Result<T, RecvTimeoutError> {
        match self.0.block(&mut Recv, until, Why::new(&RECV, 0)) {
            Some(received) => received.map_err(|RecvError| RecvTimeoutError::Disconnected),
            None => Err(RecvTimeoutError::Timeout),
        }
    }

    /// As [`recv`](Self::recv), for an `async` function. Dropped before it is ready, it has taken nothing.
    pub fn recv_async(&self) -> impl Future<Output = Result<T, RecvError>> + use<'_, T> {
        self.0.future(Recv)
    }

    /// The messages, as they come; ends when all senders are gone.
    pub fn iter(&self) -> Iter<'_, T> {
        Iter(self)
    }

    /// The messages that are there now.
    pub fn try_iter(&self) -> TryIter<'_, T> {
        TryIter(self)
    }

    /// How many messages are in the channel, those of waiting senders included.
    pub fn len(&self) -> usize {
        self.0.look(Shared::len)
    }

    /// Whether no message is in the channel.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many messages it takes; none: without a limit.
    pub fn capacity(&self) -> Option<usize> {
        capacity(&self.0)
    }

    /// Whether both belong to one channel.
    pub fn same_channel(&self, other: &Receiver<T>) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Sender<T> {
        self.0.change(|state| state.senders += 1);
        Sender(self.0.clone())
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.0.change(|state| state.senders -= 1);
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Receiver<T> {
        self.0.change(|state| state.receivers += 1);
        Receiver(self.0.clone())
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        // Nobody will take them; they are dropped outside of the lock.
        let unread = self.0.change(|state| {
            state.receivers -= 1;
            let is_last = state.receivers == 0;
            is_last.then(|| (std::mem::take(&mut state.queue), state.alarm.take()))
        });
        drop(unread);
    }
}

/// The messages of a channel, as they come: [`Receiver::iter`].
#[derive(Debug)]
pub struct Iter<'a, T>(&'a Receiver<T>);

impl<T> Iterator for Iter<'_, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        self.0.recv().ok()
    }
}

impl<T> FusedIterator for Iter<'_, T> {}

/// The messages that are there now: [`Receiver::try_iter`].
#[derive(Debug)]
pub struct TryIter<'a, T>(&'a Receiver<T>);

impl<T> Iterator for TryIter<'_, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        self.0.try_recv().ok()
    }
}

/// The messages of a channel, as they come, with the receiver inside.
#[derive(Debug)]
pub struct IntoIter<T>(Receiver<T>);

impl<T> Iterator for IntoIter<T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        self.0.recv().ok()
    }
}

impl<T> FusedIterator for IntoIter<T> {}

impl<T> IntoIterator for Receiver<T> {
    type Item = T;
    type IntoIter = IntoIter<T>;

    fn into_iter(self) -> IntoIter<T> {
        IntoIter(self)
    }
}

impl<'a, T> IntoIterator for &'a Receiver<T> {
    type Item = T;
    type IntoIter = Iter<'a, T>;

    fn into_iter(self) -> Iter<'a, T> {
        self.iter()
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender")
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver")
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}
