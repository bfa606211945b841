//! The state of a queue, and the operations that may have to wait for it.
//!
//! # Invariants
//! - **QUEUE-1** `blocked_puts` holds the items of waiting putters. Putters wait only while `items` is full and the
//!   queue is not shut down. It also holds the items that putters have yet to take back, because of a shutdown or
//!   because their select was passed over.
//! - **QUEUE-2** While the queue is not shut down there are at least as many items as granted getters. A new attempt
//!   takes only what is beyond that.
//! - **QUEUE-3** `unfinished` counts the items that were put in `items` and have neither been done nor been drained.
#![forbid(unsafe_code)]

use std::collections::VecDeque;

use super::super::wait::{Op, State};
use super::super::waiters::{Key, Waiters, Woken};
use super::error::{GetError, PutError};
use super::store::{Payload, Store, confined};

pub(super) struct Shared<T, S> {
    pub(super) items: S,
    /// The items of waiting putters, in the order of `putting`.
    pub(super) blocked_puts: VecDeque<(Key, T)>,
    pub(super) capacity: usize,
    pub(super) unfinished: usize,
    pub(super) is_shut_down: bool,
    pub(super) putting: Waiters,
    pub(super) getting: Waiters,
    pub(super) joining: Waiters,
}

/// The result, and a panic of the user's code that is to be resumed once the lock is released.
type Done<R, P> = (R, Option<P>);

impl<T, S: Store<T>> Shared<T, S> {
    #[inline]
    fn add(&mut self, item: T) -> Option<S::Panic> {
        self.unfinished += 1;
        self.items.push(item).err()
    }

    /// Takes the next item. The first waiting putter fills the place that becomes free.
    #[inline(always)]
    fn take(&mut self, woken: &mut Woken) -> Done<Option<T>, S::Panic> {
        // The user's `Ord` may panic here; then no item was taken, and no place is free.
        let item = match self.items.pop() {
            Ok(item) => item,
            Err(panic) => return (None, Some(panic)),
        };
        if !self.putting.any() || self.is_shut_down {
            return (item, None);
        }
        (item, self.let_in(woken))
    }

    /// Puts the items of waiting putters in while there is room. The item of a putter is good even if the putter's hub
    /// has ended.
    #[inline(never)]
    fn let_in(&mut self, woken: &mut Woken) -> Option<S::Panic> {
        let mut panic = None;
        while panic.is_none()
            && self.items.size() < self.capacity
            && let Some(key) = self.putting.grant_any(woken)
            && let Some(item) = self.item_of(key)
        {
            // The item is in the store even if its `Ord` panics. Stop there, so that at most one panic is resumed.
            panic = self.add(item);
        }
        panic
    }

    /// Takes the item that the putter with this key has left.
    fn item_of(&mut self, key: Key) -> Option<T> {
        let at = self.blocked_puts.iter().position(|(putter, _)| *putter == key)?;
        self.blocked_puts.remove(at).map(|(_, item)| item)
    }

    /// Whether there is an item that is not set aside for a getter.
    #[inline]
    fn has_spare(&self) -> bool {
        self.items.size() > self.getting.granted()
    }

    /// Whether there is no item, and never will be one again.
    #[inline]
    fn is_over(&self) -> bool {
        self.is_shut_down && self.items.size() == 0
    }
}

impl<T, S: Store<T>> State for Shared<T, S> {
    #[inline(always)]
    fn grant_waiters(&mut self, woken: &mut Woken) {
        let is_wanted = self.getting.any() && (self.has_spare() || self.is_over());
        if is_wanted || self.is_shut_down || self.joining.any() {
            self.grant(woken);
        }
    }
}

impl<T, S: Store<T>> Shared<T, S> {
    #[inline(never)]
    fn grant(&mut self, woken: &mut Woken) {
        // A getter is also granted if the queue is over: it learns that when it runs.
        while (self.has_spare() || self.is_over()) && self.getting.grant_first(woken) {}
        // After a shutdown putters take their items back when they run.
        while self.is_shut_down && self.putting.grant_any(woken).is_some() {}
        while self.unfinished == 0 && self.joining.hand_first(woken) {}
    }
}

/// Puts one item. The operation holds the item unless the queue has it, in its store or in line.
pub(super) struct Put<T> {
    pub(super) item: Option<T>,
    key: Option<Key>,
    is_bounded: bool,
}

/// The item is only moved, never pinned.
impl<T> Unpin for Put<T> {}

impl<T> Put<T> {
    pub(super) fn new(item: T, is_bounded: bool) -> Put<T> {
        Put {
            item: Some(item),
            key: None,
            is_bounded,
        }
    }

    /// Takes the item back, if it is still with those of waiting putters.
    fn take_back<S: Store<T>>(&mut self, state: &mut Shared<T, S>) {
        if let Some(item) = self.key.and_then(|key| state.item_of(key)) {
            self.item = Some(item);
        }
    }
}

impl<T, S: Store<T>> Op<Shared<T, S>> for Put<T> {
    type Output = Done<Result<(), PutError<T>>, S::Panic>;

    #[inline(always)]
    fn spends(&self) -> bool {
        // A put that never waits must not switch, because local code may hold borrows over it (BUDGET-4).
        self.is_bounded
    }

    fn waiters<'a>(&self, state: &'a mut Shared<T, S>) -> &'a mut Waiters {
        &mut state.putting
    }

    #[inline(always)]
    fn attempt(&mut self, state: &mut Shared<T, S>, granted: bool, _: &mut Woken) -> Option<Self::Output> {
        if granted && state.is_shut_down {
            // Granted by the shutdown: the item is still in `blocked_puts`. If it was let in before that, none is found
            // there, and it counts as put.
            self.take_back(state);
        }
        // Granted, or shut down. An item that is still here was refused.
        if granted || state.is_shut_down {
            return Some((self.item.take().map_or(Ok(()), |item| Err(PutError(item))), None));
        }
        if state.items.size() >= state.capacity {
            return None;
        }
        Some((Ok(()), self.item.take().and_then(|item| state.add(item))))
    }

    fn on_enqueue(&mut self, state: &mut Shared<T, S>, key: Key) {
        self.key = Some(key);
        state.blocked_puts.extend(self.item.take().map(|item| (key, item)));
    }

    fn on_withdraw(&mut self, state: &mut Shared<T, S>, _: Key) {
        self.take_back(state);
    }

    fn undo_grant(&mut self, state: &mut Shared<T, S>) {
        // An item that was let in stays in the queue. One that a shutdown sends back is still in `blocked_puts`.
        if state.is_shut_down {
            self.take_back(state);
        }
    }
}

/// Takes one item.
pub(super) struct Get;

impl<T, S: Store<T>> Op<Shared<T, S>> for Get {
    type Output = Done<Result<T, GetError>, S::Panic>;

    fn waiters<'a>(&self, state: &'a mut Shared<T, S>) -> &'a mut Waiters {
        &mut state.getting
    }

    #[inline(always)]
    fn attempt(&mut self, state: &mut Shared<T, S>, granted: bool, woken: &mut Woken) -> Option<Self::Output> {
        if !granted && !state.has_spare() && !state.is_over() {
            return None;
        }
        // The item may be missing even after a grant: an immediate shutdown has drained the queue.
        let (item, panic) = state.take(woken);
        Some((item.ok_or(GetError), panic))
    }

    fn attempt_plain(&mut self, _: &mut Shared<T, S>) -> Option<Self::Output> {
        // `attempt` lets in putters and wakes them itself, so it is never plain.
        None
    }

    fn may_attempt(&self, state: &Shared<T, S>) -> bool {
        state.has_spare() || state.is_over()
    }
}

/// Looks at the next item. A peek waits in the line of the getters; it leaves the item, which `grant_waiters` then
/// grants to the next one.
pub(super) struct Peek;

impl<T: Clone, S: Store<T>> Op<Shared<T, S>> for Peek {
    type Output = Done<Result<T, GetError>, Payload>;

    fn waiters<'a>(&self, state: &'a mut Shared<T, S>) -> &'a mut Waiters {
        &mut state.getting
    }

    fn attempt(&mut self, state: &mut Shared<T, S>, granted: bool, _: &mut Woken) -> Option<Self::Output> {
        if !granted && !state.has_spare() && !state.is_over() {
            return None;
        }
        // The item's `Clone` is the user's code, and runs under the lock.
        Some(match confined(|| state.items.next().cloned()) {
            Ok(item) => (item.ok_or(GetError), None),
            Err(panic) => (Err(GetError), Some(panic)),
        })
    }
}

/// Waits until all items that were put are done.
pub(super) struct Join;

impl<T, S: Store<T>> Op<Shared<T, S>> for Join {
    type Output = ();

    const HANDED: Option<()> = Some(());

    const TAKES: bool = false;

    fn waiters<'a>(&self, state: &'a mut Shared<T, S>) -> &'a mut Waiters {
        &mut state.joining
    }

    fn attempt(&mut self, state: &mut Shared<T, S>, granted: bool, _: &mut Woken) -> Option<()> {
        (granted || state.unfinished == 0).then_some(())
    }
}
