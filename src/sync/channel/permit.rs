//! Room in a channel that is set aside for a message, and the wait for the end of the receivers.
#![forbid(unsafe_code)]

use std::fmt;
use std::future::Future;
use std::time::{Duration, Instant};

use super::{SendError, SendTimeoutError, Sender, Shared, TrySendError};
use crate::hub::Why;
use crate::sync::wait::{Op, Until};
use crate::sync::waiters::{Waiters, Woken};
use crate::sys::spin::push_back;

static RESERVE: &str = "room in a channel (reserve)";
static CLOSED: &str = "the end of a channel's receivers";

/// Sets room for one message aside.
struct Reserve {
    is_bounded: bool,
    /// The number of the sender that comes next, by which senders and reservers are granted room in order of arrival.
    next: u32,
}

impl<T> Op<Shared<T>> for Reserve {
    type Output = Result<(), SendError<()>>;

    #[inline]
    fn spends(&self) -> bool {
        // In an unbounded channel it never waits, as a send there (BUDGET-4).
        self.is_bounded
    }

    fn waiters<'a>(&self, state: &'a mut Shared<T>) -> &'a mut Waiters {
        &mut state.reserving
    }

    fn wants(&self) -> u32 {
        self.next
    }

    fn attempt(&mut self, state: &mut Shared<T>, granted: bool, _: &mut Woken) -> Option<Self::Output> {
        if state.receivers == 0 {
            return Some(Err(SendError(())));
        }
        // CHANNEL-1: `let_in` has lowered the capacity already.
        if granted {
            return Some(Ok(()));
        }
        if state.has_room() && !state.reserving.any() {
            state.capacity -= 1;
            return Some(Ok(()));
        }
        self.next = state.sending.next();
        None
    }

    fn undo_grant(&mut self, state: &mut Shared<T>) {
        // CHANNEL-4: without receivers it was granted without room, perhaps.
        if state.receivers > 0 {
            state.capacity += 1;
        }
    }
}

/// Waits for the last receiver to go.
struct Closed;

impl<T> Op<Shared<T>> for Closed {
    type Output = ();

    const HANDED: Option<()> = Some(());

    // Receivers never come back, so the news is not used up (SELECT-7).
    const TAKES: bool = false;

    fn waiters<'a>(&self, state: &'a mut Shared<T>) -> &'a mut Waiters {
        &mut state.closing
    }

    fn attempt(&mut self, state: &mut Shared<T>, granted: bool, _: &mut Woken) -> Option<()> {
        (granted || state.receivers == 0).then_some(())
    }
}

/// Room for one message, which [`send`](Self::send) uses and a drop gives back; see [`Sender::reserve`].
#[must_use = "dropped at once, the room is given back"]
pub struct SendPermit<'a, T> {
    sender: &'a Sender<T>,
}

impl<'a, T> SendPermit<'a, T> {
    /// Sends a message without a wait.
    ///
    /// # Errors
    /// The message, if all receivers are gone.
    pub fn send(self, message: T) -> Result<(), SendError<T>> {
        let sender = self.sender;
        // The room is given back below, in the step that puts the message there, and not by the drop.
        std::mem::forget(self);
        let sent = sender.0.change(|state| {
            state.capacity += 1;
            if state.receivers == 0 {
                return Err(message);
            }
            // CHANNEL-3: a waiting receiver is granted the message by `grant_waiters`.
            push_back(&mut state.queue, message);
            Ok(())
        });
        sent.map_err(SendError)
    }

    /// The sender that the room is for.
    pub fn sender(&self) -> &'a Sender<T> {
        self.sender
    }
}

impl<T> Drop for SendPermit<'_, T> {
    fn drop(&mut self) {
        // `grant_waiters` gives the room to the next in line.
        self.sender.0.change(|state| state.capacity += 1);
    }
}

impl<T> fmt::Debug for SendPermit<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SendPermit").field(self.sender).finish()
    }
}

impl<T> Sender<T> {
    /// Waits for room for one message, and sets it aside: the permit sends later, without a wait.
    ///
    /// ```
    /// use greenthread::sync::channel;
    ///
    /// let (sender, receiver) = channel::bounded(1);
    /// let permit = sender.reserve().unwrap();
    /// assert!(sender.is_full() && sender.is_empty());
    /// let costly = [1, 2, 3].iter().sum::<i32>(); // made only once it can be sent
    /// permit.send(costly).unwrap();
    /// assert_eq!(receiver.recv(), Ok(6));
    /// ```
    ///
    /// A message has its place in the order of messages from the moment it is sent.
    ///
    /// # Errors
    /// If all receivers are gone.
    ///
    /// # Panics
    /// If the channel has a capacity of 0: there is no room that could be set aside.
    ///
    /// # Blocking and cancellation
    /// Parks while the channel is full. A kill or time-out unwinds here; room that was granted already goes to the next
    /// in line.
    #[track_caller]
    pub fn reserve(&self) -> Result<SendPermit<'_, T>, SendError<()>> {
        let reserved = self.0.block(&mut self.reserving(), Until::Ever, Why::new(&RESERVE, 0));
        // Without a deadline the wait ends only with a result.
        self.permit(reserved.unwrap_or(Err(SendError(()))))
    }

    /// Sets room for one message aside, if there is any now.
    ///
    /// # Errors
    /// `Full`, or `Disconnected` if all receivers are gone.
    ///
    /// # Panics
    /// As [`reserve`](Self::reserve).
    #[track_caller]
    pub fn try_reserve(&self) -> Result<SendPermit<'_, T>, TrySendError<()>> {
        let reserved = self.0.attempt(&mut self.reserving()).ok_or(TrySendError::Full(()))?;
        self.permit(reserved).map_err(TrySendError::from)
    }

    /// Like [`reserve`](Self::reserve), but waits for at most `timeout`.
    ///
    /// # Errors
    /// `Timeout`, or `Disconnected` if all receivers are gone.
    ///
    /// # Panics
    /// As [`reserve`](Self::reserve).
    #[track_caller]
    pub fn reserve_timeout(&self, timeout: Duration) -> Result<SendPermit<'_, T>, SendTimeoutError<()>> {
        self.reserve_until(Until::After(timeout))
    }

    /// Like [`reserve`](Self::reserve), but waits until `deadline`.
    ///
    /// # Errors
    /// As [`reserve_timeout`](Self::reserve_timeout).
    ///
    /// # Panics
    /// As [`reserve`](Self::reserve).
    #[track_caller]
    pub fn reserve_deadline(&self, deadline: Instant) -> Result<SendPermit<'_, T>, SendTimeoutError<()>> {
        self.reserve_until(Until::At(deadline))
    }

    #[track_caller]
    fn reserve_until(&self, until: Until) -> Result<SendPermit<'_, T>, SendTimeoutError<()>> {
        let reserved = self.0.block(&mut self.reserving(), until, Why::new(&RESERVE, 0));
        self.permit(reserved.ok_or(SendTimeoutError::Timeout(()))?)
            .map_err(|SendError(())| SendTimeoutError::Disconnected(()))
    }

    /// Like [`reserve`](Self::reserve), for an `async` function, and for `select!`, as
    /// `future(sender.reserve_async())`. If the future is dropped before it is ready, nothing is set aside.
    ///
    /// # Errors
    /// If all receivers are gone.
    ///
    /// # Panics
    /// As [`reserve`](Self::reserve).
    #[track_caller]
    pub fn reserve_async(&self) -> impl Future<Output = Result<SendPermit<'_, T>, SendError<()>>> + use<'_, T> {
        let reserved = self.0.future(self.reserving());
        async move { self.permit(reserved.await) }
    }

    #[track_caller]
    fn reserving(&self) -> Reserve {
        assert!(
            self.0.most > 0,
            "reserve: a channel of capacity 0 has no room that could be set aside; use `send`"
        );
        Reserve {
            is_bounded: self.0.is_bounded(),
            next: 0,
        }
    }

    /// The permit of a [`Reserve`] that has succeeded.
    fn permit(&self, reserved: Result<(), SendError<()>>) -> Result<SendPermit<'_, T>, SendError<()>> {
        reserved.map(|()| SendPermit { sender: self })
    }

    /// Waits until all receivers are gone.
    ///
    /// ```
    /// use greenthread::{select, spawn, sync::channel};
    ///
    /// let (sender, receiver) = channel::bounded::<u32>(1);
    /// let work = spawn(move || {
    ///     sender.closed(); // nothing wants the results any more
    ///     sender.is_closed()
    /// });
    /// drop(receiver);
    /// assert!(work.join().unwrap());
    /// ```
    ///
    /// # Blocking and cancellation
    /// Parks. A kill or time-out unwinds here.
    #[track_caller]
    pub fn closed(&self) {
        self.0.block(&mut Closed, Until::Ever, Why::new(&CLOSED, 0));
    }

    /// Waits until all receivers are gone, for at most `timeout`; whether they are.
    #[track_caller]
    pub fn closed_timeout(&self, timeout: Duration) -> bool {
        let closed = self.0.block(&mut Closed, Until::After(timeout), Why::new(&CLOSED, 0));
        closed.is_some()
    }

    /// Waits until all receivers are gone, or until `deadline`; whether they are.
    #[track_caller]
    pub fn closed_deadline(&self, deadline: Instant) -> bool {
        let closed = self.0.block(&mut Closed, Until::At(deadline), Why::new(&CLOSED, 0));
        closed.is_some()
    }

    /// Like [`closed`](Self::closed), for an `async` function, and for `select!`, as `future(sender.closed_async())`.
    pub fn closed_async(&self) -> impl Future<Output = ()> + use<'_, T> {
        self.0.future(Closed)
    }
}
