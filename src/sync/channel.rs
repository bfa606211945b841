//! Channels: messages in order, from any number of senders to any number of receivers.
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
//! message back. With a capacity of 0 a sender waits until a receiver comes for its message; if that receiver is killed
//! before it has the message, the message waits for the next one.
//!
//! # How it works
//! A sender that has to wait leaves its message in the channel, in line behind those that have room. A receiver that
//! takes a message makes room for the next one, and its sender continues. A sender that gives up takes its message back
//! out. A sender that finds a waiting receiver grants it the message at once. The messages of waiting senders are
//! therefore never set aside for a receiver, and may be taken back at any time.
//!
//! A permit of [`Sender::reserve`] lowers the capacity by one while it lives, so that no other operation has to know of
//! it. Senders and reservers wait in lines of their own, because a message that a receiver comes for needs no room: it
//! may pass a reserver, and a reserver has none to give. Only room goes to the two in order of arrival.
//!
//! # Invariants
//! - **CHANNEL-1** `capacity` and the permits together are what the channel was made with. A waiting reserver counts as
//!   a permit from its grant on.
//! - **CHANNEL-2** After each operation, room (`queue.len() < capacity`) is left only if neither a sender nor a
//!   reserver in line can be granted it. So a sender that finds room passes no reserver.
//! - **CHANNEL-3** A message of a permit is put into the queue with the room that was set aside for it, so neither does
//!   it wait, nor does it take room from others.
//! - **CHANNEL-4** Without receivers nothing has to be counted any more: all that wait for room are granted, and learn
//!   that the channel is closed. Receivers never come back.
//!
//! # Coming from Python
//! `gevent.queue.Channel` is `bounded(0)`. A `gevent.queue.Queue` or `asyncio.Queue` with its `task_done` and `join` is
//! a [`Queue`](super::queue::Queue); one that ends when all producers are gone is [`bounded`] or [`unbounded`].
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
use crate::hub::{Alarm, Why};
use crate::sys::spin::push_back;

mod clock;
mod permit;

pub use clock::{after, at, never, tick};
pub use permit::SendPermit;
pub use std::sync::mpsc::{RecvError, RecvTimeoutError, SendError, TryRecvError, TrySendError};

static SEND: &str = "room in a channel (send)";
static RECV: &str = "a message of a channel (recv)";

struct Shared<T> {
    /// Messages that have room, and one for each receiver that was granted a message.
    queue: VecDeque<T>,
    /// The messages of waiting senders, and of the few granted or passed-over ones that have yet to take theirs back.
    blocked_sends: VecDeque<(Key, T)>,
    /// Room for messages, without what is set aside for permits (CHANNEL-1).
    capacity: usize,
    senders: usize,
    receivers: usize,
    sending: Waiters,
    receiving: Waiters,
    /// Senders that wait for a permit.
    reserving: Waiters,
    /// Senders that wait for the last receiver to go.
    closing: Waiters,
    /// The timer that sends the time into a channel of [`after`] or [`tick`].
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
        // Not past a waiting sender, or messages would overtake its message.
        !self.sending.any() && self.queue.len() < self.capacity
    }

    /// Whether the queue holds a message that is not set aside for a receiver.
    #[inline]
    fn has_spare(&self) -> bool {
        self.queue.len() > self.receiving.granted()
    }

    /// Grants the first waiting sender that can be granted, and takes its message. The message is good even if the
    /// sender's hub has ended.
    #[inline(always)]
    fn take_blocked(&mut self, woken: &mut Woken) -> Option<T> {
        let key = self.sending.grant_any(woken)?;
        self.message_of(key)
    }

    /// Takes the oldest message when all in the queue are set aside: the message of a waiting sender takes its place.
    #[inline(never)]
    fn exchange(&mut self, woken: &mut Woken) -> Option<T> {
        let message = self.take_blocked(woken)?;
        // The queue keeps its length and its order, so each granted receiver still finds a message.
        push_back(&mut self.queue, message);
        self.queue.pop_front()
    }

    /// Grants the message that the caller is about to send to a waiting receiver, if one can be granted.
    #[inline(never)]
    fn grant_one(&mut self, woken: &mut Woken) -> bool {
        self.receiving.grant_first(woken)
    }

    /// Takes the message that the sender with this key has left.
    fn message_of(&mut self, key: Key) -> Option<T> {
        let at = self.blocked_sends.iter().position(|(sender, _)| *sender == key)?;
        self.blocked_sends.remove(at).map(|(_, message)| message)
    }
}

impl<T> State for Shared<T> {
    const ALLOCATES: bool = false;

    #[inline(always)]
    fn may_grant(&self) -> bool {
        let is_wanted = self.receiving.any() && (self.has_spare() || self.senders == 0);
        let lets_in = (self.sending.any() || self.reserving.any()) && self.queue.len() < self.capacity;
        is_wanted || lets_in || self.receivers == 0
    }

    #[inline(always)]
    fn grant_waiters(&mut self, woken: &mut Woken) {
        self.grant(woken);
    }
}

impl<T> Shared<T> {
    /// Gives room to waiting senders, by moving their messages into the queue, and to reservers. If there is no
    /// receiver, releases all that wait.
    #[inline(never)]
    fn let_in(&mut self, woken: &mut Woken) {
        if self.receivers == 0 {
            // Their messages stay in `blocked_sends`: each sender takes its own back when it runs.
            while self.sending.grant_any(woken).is_some() {}
            while self.reserving.grant_any(woken).is_some() {}
            while self.closing.hand_first(woken) {}
        }
        while self.queue.len() < self.capacity {
            if self.reserves(woken, self.sending.first()) {
                continue;
            }
            match self.take_blocked(woken) {
                Some(message) => push_back(&mut self.queue, message),
                // No sender could be granted, so that the first reserver need not wait for one.
                None if self.reserves(woken, None) => {}
                None => return,
            }
        }
    }

    /// Sets room aside for the first reserver, unless it came after the sender `first`; whether it did.
    #[inline]
    fn reserves(&mut self, woken: &mut Woken, first: Option<u32>) -> bool {
        // A reserver wants the number of the sender that came next. The numbers wrap.
        let is_before = |next: u32| first.is_none_or(|first| first.wrapping_sub(next) <= u32::MAX / 2);
        let is_granted = self.reserving.any() && self.reserving.grant_first_if(woken, is_before);
        if is_granted {
            // CHANNEL-1
            self.capacity -= 1;
        }
        is_granted
    }

    #[inline(always)]
    fn grant(&mut self, woken: &mut Woken) {
        // First fill the queue, then grant the receivers what is in it.
        if self.sending.any() || self.reserving.any() || self.receivers == 0 {
            self.let_in(woken);
        }
        // Without senders a receiver is granted even if there is no message: it learns that the channel has ended.
        while (self.has_spare() || self.senders == 0) && self.receiving.grant_first(woken) {}
    }
}

/// Sends one message. The operation holds the message unless the channel has it.
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

    /// Takes the message back, if it is still with those of waiting senders.
    fn take_back(&mut self, state: &mut Shared<T>, key: Key) {
        if let Some(message) = state.message_of(key) {
            self.message = Some(message);
        }
    }
}

impl<T> Op<Shared<T>> for Send<T> {
    type Output = Result<(), SendError<T>>;

    #[inline(always)]
    fn spends(&self) -> bool {
        // A send that never waits must not switch, because local code may hold borrows over it (BUDGET-4).
        self.is_bounded
    }

    fn waiters<'a>(&self, state: &'a mut Shared<T>) -> &'a mut Waiters {
        &mut state.sending
    }

    #[inline(always)]
    fn attempt(&mut self, state: &mut Shared<T>, granted: bool, woken: &mut Woken) -> Option<Result<(), SendError<T>>> {
        if state.receivers == 0 {
            // Granted because all receivers are gone: the message is still in `blocked_sends`. If it was let into the
            // queue before that, it counts as sent.
            if let (true, Some(key)) = (granted, self.key) {
                self.take_back(state, key);
            }
            return Some(self.message.take().map_or(Ok(()), |message| Err(SendError(message))));
        }
        // `let_in` or `exchange` has moved the message already.
        if granted {
            return Some(Ok(()));
        }
        // Without room (a capacity of 0, say) only for a waiting receiver, which is granted first, so that the message
        // is set aside for it.
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
        // A waiting receiver is granted this message by `grant_waiters`.
        push_back(&mut state.queue, self.message.take()?);
        Some(Ok(()))
    }

    #[inline(always)]
    fn may_attempt(&self, state: &Shared<T>) -> bool {
        // The attempt gives the message back if all receivers are gone, or grants a waiting receiver.
        state.receivers == 0 || state.receiving.any()
    }

    fn on_enqueue(&mut self, state: &mut Shared<T>, key: Key) {
        self.key = Some(key);
        // Under the lock that is held since the failed attempt: the next receiver finds the message.
        if let Some(message) = self.message.take() {
            push_back(&mut state.blocked_sends, (key, message));
        }
    }

    fn on_withdraw(&mut self, state: &mut Shared<T>, key: Key) {
        self.take_back(state, key);
    }

    fn undo_grant(&mut self, state: &mut Shared<T>) {
        // After a grant the message is still in `blocked_sends` only if the grant was made because all receivers are
        // gone.
        if let Some(key) = self.key {
            self.take_back(state, key);
        }
    }
}

/// Receives one message.
struct Recv;

impl<T> Op<Shared<T>> for Recv {
    type Output = Result<T, RecvError>;

    fn waiters<'a>(&self, state: &'a mut Shared<T>) -> &'a mut Waiters {
        &mut state.receiving
    }

    #[inline(always)]
    fn attempt_plain(&mut self, state: &mut Shared<T>) -> Option<Result<T, RecvError>> {
        if state.has_spare() {
            // `grant_waiters` lets a waiting sender in.
            state.queue.pop_front().map(Ok)
        } else {
            None
        }
    }

    #[inline(always)]
    fn may_attempt(&self, state: &Shared<T>) -> bool {
        // `attempt` may take the message of a waiting sender, or find that the channel has ended.
        state.sending.any() || state.senders == 0
    }

    #[inline(always)]
    fn attempt(&mut self, state: &mut Shared<T>, granted: bool, woken: &mut Woken) -> Option<Result<T, RecvError>> {
        if granted || state.has_spare() {
            // No message is left for a granted receiver only if all senders are gone.
            return Some(state.queue.pop_front().ok_or(RecvError));
        }
        if state.sending.any() {
            // No room was made, as with a capacity of 0: take the place of a waiting sender's message.
            return state.exchange(woken).map(Ok);
        }
        (state.senders == 0).then_some(Err(RecvError))
    }
}

/// A channel that takes `capacity` messages before a sender has to wait; with 0 each waits for its receiver.
#[doc(alias("mpsc", "mpmc", "sync_channel", "Channel"))]
pub fn bounded<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    with(capacity)
}

/// A channel in which no sender ever waits.
#[doc(alias("mpsc", "mpmc", "unbounded_channel", "SimpleQueue"))]
pub fn unbounded<T>() -> (Sender<T>, Receiver<T>) {
    with(usize::MAX)
}

fn with<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let channel = Arc::new(Channel::new(capacity));
    (Sender(channel.clone()), Receiver(channel))
}

/// What both ends share.
struct Channel<T> {
    core: Core<Shared<T>>,
    /// What it was made with. Outside the lock, because senders read it before they lock.
    most: usize,
}

impl<T> Channel<T> {
    fn new(capacity: usize) -> Channel<T> {
        Channel {
            core: Core::new(shared(capacity)),
            most: capacity,
        }
    }

    /// Whether a sender may have to wait.
    #[inline(always)]
    fn is_bounded(&self) -> bool {
        self.most != usize::MAX
    }

    fn capacity(&self) -> Option<usize> {
        self.is_bounded().then_some(self.most)
    }
}

impl<T> Deref for Channel<T> {
    type Target = Core<Shared<T>>;

    #[inline(always)]
    fn deref(&self) -> &Core<Shared<T>> {
        &self.core
    }
}

fn shared<T>(capacity: usize) -> Shared<T> {
    Shared {
        queue: VecDeque::new(),
        blocked_sends: VecDeque::new(),
        capacity,
        senders: 1,
        receivers: 1,
        sending: Waiters::new(),
        receiving: Waiters::new(),
        reserving: Waiters::new(),
        closing: Waiters::new(),
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
            &mut Send::new(message, self.0.is_bounded()),
            Until::Ever,
            Why::new(&SEND, 0),
        );
        // Without a deadline the wait ends only with a result.
        sent.unwrap_or(Ok(()))
    }

    /// Sends a message, if there is room for it now.
    ///
    /// # Errors
    /// The message: `Full`, or `Disconnected` if all receivers are gone.
    pub fn try_send(&self, message: T) -> Result<(), TrySendError<T>> {
        let mut op = Send::new(message, self.0.is_bounded());
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
        let mut op = Send::new(message, self.0.is_bounded());
        match self.0.block(&mut op, until, Why::new(&SEND, 0)) {
            Some(Ok(())) => Ok(()),
            Some(Err(SendError(message))) => Err(SendTimeoutError::Disconnected(message)),
            None => op
                .message
                .map_or(Ok(()), |message| Err(SendTimeoutError::Timeout(message))),
        }
    }

    /// Like [`send`](Self::send), for an `async` function. If the future is dropped before there was room, the message
    /// is not sent.
    pub fn send_async(&self, message: T) -> impl Future<Output = Result<(), SendError<T>>> + use<'_, T>
    where
        T: Unpin,
    {
        self.0.future(Send::new(message, self.0.is_bounded()))
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
        // A waiting receiver takes the message at once, even if there is no room.
        self.0.look(|state| !state.has_room() && state.receiving.waiting() == 0)
    }

    /// How many messages the channel has room for, permits and messages that are in it included; `None` if it has no
    /// limit.
    pub fn capacity(&self) -> Option<usize> {
        self.0.capacity()
    }

    /// How many senders there are.
    pub fn sender_count(&self) -> usize {
        self.0.look(|state| state.senders)
    }

    /// How many receivers there are.
    pub fn receiver_count(&self) -> usize {
        self.0.look(|state| state.receivers)
    }

    /// Whether all receivers are gone: sends fail from now on.
    pub fn is_closed(&self) -> bool {
        self.receiver_count() == 0
    }

    /// Whether both belong to one channel.
    pub fn same_channel(&self, other: &Sender<T>) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl<T> Receiver<T> {
    /// Waits for a message.
    ///
    /// # Errors
    /// If the channel is empty and all senders are gone.
    ///
    /// # Blocking and cancellation
    /// Parks while the channel is empty. A kill or time-out unwinds here; a message that was granted already goes to
    /// the next receiver.
    #[inline(always)]
    #[track_caller]
    pub fn recv(&self) -> Result<T, RecvError> {
        let received = self.0.block(&mut Recv, Until::Ever, Why::new(&RECV, 0));
        received.unwrap_or(Err(RecvError))
    }

    /// Takes a message, if there is one now.
    ///
    /// # Errors
    /// `Empty`, or `Disconnected` if the channel is empty and all senders are gone.
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

    /// Like [`recv`](Self::recv), for an `async` function. If the future is dropped before it is ready, it has taken no
    /// message.
    pub fn recv_async(&self) -> impl Future<Output = Result<T, RecvError>> + use<'_, T> {
        self.0.future(Recv)
    }

    /// The messages as they come; ends when all senders are gone and no message is left.
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

    /// How many messages the channel has room for, permits and messages that are in it included; `None` if it has no
    /// limit.
    pub fn capacity(&self) -> Option<usize> {
        self.0.capacity()
    }

    /// How many senders there are.
    pub fn sender_count(&self) -> usize {
        self.0.look(|state| state.senders)
    }

    /// How many receivers there are.
    pub fn receiver_count(&self) -> usize {
        self.0.look(|state| state.receivers)
    }

    /// Whether all senders are gone: what is left can still be received, and nothing comes any more.
    pub fn is_closed(&self) -> bool {
        self.sender_count() == 0
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
        // After the last sender, `grant_waiters` grants all waiting receivers the end of the channel.
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
        // No receiver is left to take the messages. They are the user's, so they are dropped outside the lock.
        let unread = self.0.change(|state| {
            state.receivers -= 1;
            let is_last = state.receivers == 0;
            is_last.then(|| (std::mem::take(&mut state.queue), state.alarm.take()))
        });
        drop(unread);
    }
}

/// The messages of a channel as they come; see [`Receiver::iter`].
#[derive(Debug)]
pub struct Iter<'a, T>(&'a Receiver<T>);

impl<T> Iterator for Iter<'_, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        self.0.recv().ok()
    }
}

impl<T> FusedIterator for Iter<'_, T> {}

/// The messages that are there now; see [`Receiver::try_iter`].
#[derive(Debug)]
pub struct TryIter<'a, T>(&'a Receiver<T>);

impl<T> Iterator for TryIter<'_, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        self.0.try_recv().ok()
    }
}

/// The messages of a channel as they come; it owns the receiver.
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
