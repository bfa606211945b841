//! The state of a queue, and what may have to wait for it.
//!
//! # Invariants
//! - **Q1** `late` holds the items of putters that wait, which is only while `items` is full and the queue is not shut
//!   down; and of those that are to take theirs back, for a shutdown, or as their select has another branch.
//! - **Q2** While the queue is not shut down there are at least as many items as granted getters: whoever comes anew
//!   takes only what is beyond that.
//! - **Q3** `unfinished` counts what was put in `items` and has neither been done nor been drained.
#![forbid(unsafe_code)]

use std::collections::VecDeque;

use super::super::wait::{Op, State};
use super::super::waiters::{Key, Waiters, Woken};
use super::error::{GetError, PutError};
use super::store::{Payload, Store, confined};

pub(super) struct Shared<T, S> {
    pub(super) items: S,
    /// Those of putters that wait, in the order of `putting`.
    pub(super) late: VecDeque<(Key, T)>,
    pub(super) most: usize,
    pub(super) unfinished: usize,
    pub(super) is_shut_down: bool,
    pub(super) putting: Waiters,
    pub(super) getting: Waiters,
    pub(super) joining: Waiters,
}

/// What came of it, and the panic of code of the user's that is to go on once the lock is released.
type Done<R, P> = (R, Option<P>);

impl<T, S: Store<T>> Shared<T, S> {
    #[inline]
    fn add(&mut self, item: T) -> Option<S::Panic> {
        self.unfinished += 1;
        self.items.push(item).err()
    }

    /// The next item, in whose place the first of those who wait puts its own.
    #[inline(always)]
    fn take(&mut self, woken: &mut Woken) -> Done<Option<T>, S::Panic> {
        let item = match self.items.pop() {
            Ok(item) => item,
            Err(panic) => return (None, Some(panic)),
        };
        if !self.putting.any() || self.is_shut_down {
            return (item, None);
        }
        (item, self.let_in(woken))
    }

    /// Puts the items of putters that wait in, as far as there is room; be it of one whose hub has ended, its item is as
    /// good as any.
    #[inline(never)]
    fn let_in(&mut self, woken: &mut Woken) -> Option<S::Panic> {
        let mut panic = None;
        while panic.is_none()
            && self.items.size() < self.most
            && let Some(key) = self.putting.grant_any(woken)
            && let Some(late) = self.late_of(key)
        {
            panic = self.add(late);
        }
        panic
    }

    fn late_of(&mut self, key: Key) -> Option<T> {
        let at = self.late.iter().position(|(late, _)| *late == key)?;
        self.late.remove(at).map(|(_, item)| item)
    }

    /// Whether there is an item that was not set aside for somebody.
    #[inline]
    fn has_spare(&self) -> bool {
        self.items.size() > self.getting.granted()
    }

    /// Whether there never will be one again.
    #[inline]
    fn is_over(&self) -> bool {
        self.is_shut_down && self.items.size() == 0
    }
}

impl<T, S: Store<T>> State for Shared<T, S> {
    #[inline(always)]
    fn settle(&mut self, woken: &mut Woken) {
        let is_wanted = self.getting.any() && (self.has_spare() || self.is_over());
        if is_wanted || self.is_shut_down || self.joining.any() {
            self.grant(woken);
        }
    }
}

impl<T, S: Store<T>> Shared<T, S> {
    #[inline(never)]
    fn grant(&mut self, woken: &mut Woken) {
        while (self.has_spare() || self.is_over()) && self.getting.grant_first(woken) {}
        while self.is_shut_down && self.putting.grant_any(woken).is_some() {}
        while self.unfinished == 0 && self.joining.hand_first(woken) {}
    }
}

/// To put one item; it holds the item unless that is in the queue, or in line.
pub(super) struct Put<T> {
    pub(super) item: Option<T>,
    key: Option<Key>,
    is_bounded: bool,
}

/// The item is moved, and never referred to.
impl<T> Unpin for Put<T> {}

impl<T> Put<T> {
    pub(super) fn new(item: T, is_bounded: bool) -> Put<T> {
        Put {
            item: Some(item),
            key: None,
            is_bounded,
        }
    }

    fn take_back<S: Store<T>>(&mut self, state: &mut Shared<T, S>) {
        if let Some(item) = self.key.and_then(|key| state.late_of(key)) {
            self.item = Some(item);
        }
    }
}

impl<T, S: Store<T>> Op<Shared<T, S>> for Put<T> {
    type Output = Done<Result<(), PutError<T>>, S::Panic>;

    #[inline(always)]
    fn spends(&self) -> bool {
        // One that never waits never switches.
        self.is_bounded
    }

    fn waiters<'a>(&self, state: &'a mut Shared<T, S>) -> &'a mut Waiters {
        &mut state.putting
    }

    #[inline(always)]
    fn attempt(&mut self, state: &mut Shared<T, S>, granted: bool, _: &mut Woken) -> Option<Self::Output> {
        if granted && state.is_shut_down {
            // Let in before, or sent back.
            self.take_back(state);
        }
        if granted || state.is_shut_down {
            return Some((self.item.take().map_or(Ok(()), |item| Err(PutError(item))), None));
        }
        if state.items.size() >= state.most {
            return None;
        }
        Some((Ok(()), self.item.take().and_then(|item| state.add(item))))
    }

    fn waits(&mut self, state: &mut Shared<T, S>, key: Key) {
        self.key = Some(key);
        state.late.extend(self.item.take().map(|item| (key, item)));
    }

    fn gives_up(&mut self, state: &mut Shared<T, S>, _: Key) {
        self.take_back(state);
    }

    fn gives_back(&mut self, state: &mut Shared<T, S>) {
        // What was let in stays; what a shutdown sends back is there still.
        if state.is_shut_down {
            self.take_back(state);
        }
    }
}

/// To take one item.
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
        let (item, panic) = state.take(woken);
        Some((item.ok_or(GetError), panic))
    }

    fn attempt_plain(&mut self, _: &mut Shared<T, S>) -> Option<Self::Output> {
        None
    }

    fn may_do(&self, state: &Shared<T, S>) -> bool {
        state.has_spare() || state.is_over()
    }
}

/// To look at the next item. It waits as one who takes it, and leaves it for the next in line.
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
        Some(match confined(|| state.items.next().cloned()) {
            Ok(item) => (item.ok_or(GetError), None),
            Err(panic) => (Err(GetError), Some(panic)),
        })
    }
}

/// To wait until all that was put is done.
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
