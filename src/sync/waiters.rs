//! Who waits for one thing, in order: a line, in which everybody has a number.
//!
//! A waiter is *granted* when what it waits for is set aside for it; it is then on its way, and whoever comes anew must
//! leave that much. One that leaves without taking what it was granted says so, and it is granted to the next.
//!
//! What is granted is granted to the first in line, always. So who has a lower number than the first was granted, and
//! nothing needs to be kept of it.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::iter::once;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use crate::hub::discard;
use crate::hub::park::Waiter;

/// The number of one that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key(u64);

struct Place {
    number: u64,
    /// What it wants, in the words of its primitive.
    wants: u32,
    /// Whom to wake; none once it has left. The first in line has not left.
    waiter: Option<Waiter>,
}

pub(super) struct Waiters {
    line: VecDeque<Place>,
    /// The number of the next to come.
    next: u64,
    /// How many places in the line are empty.
    empty: usize,
    granted: usize,
}

impl Waiters {
    pub(super) const fn new() -> Waiters {
        Waiters {
            line: VecDeque::new(),
            next: 0,
            empty: 0,
            granted: 0,
        }
    }

    /// How many wait and were granted nothing.
    #[inline]
    pub(super) fn waiting(&self) -> usize {
        self.line.len() - self.empty
    }

    /// Whether anybody waits: the quick way to ask.
    #[inline(always)]
    pub(super) fn any(&self) -> bool {
        !self.line.is_empty()
    }

    /// How many were granted what they want, and have not come for it.
    #[inline]
    pub(super) fn granted(&self) -> usize {
        self.granted
    }

    /// What the first in line wants, of those who may still run.
    pub(super) fn first_wants(&mut self) -> Option<u32> {
        self.skip_the_dead();
        self.line.front().map(|place| place.wants)
    }

    /// Puts one at the end of the line.
    #[inline]
    pub(super) fn push(&mut self, waiter: Waiter, wants: u32) -> Key {
        let number = self.next;
        self.next += 1;
        self.line.push_back(Place {
            number,
            wants,
            waiter: Some(waiter),
        });
        Key(number)
    }

    /// Another to be woken in the place of the one before, which is given back.
    pub(super) fn replace(&mut self, key: Key, waiter: Waiter) -> Option<Waiter> {
        let at = self.place(key)?;
        self.line[at].waiter.replace(waiter)
    }

    #[inline]
    pub(super) fn is_granted(&self, key: Key) -> bool {
        key.0 < self.line.front().map_or(self.next, |first| first.number)
    }

    /// Takes the first out of the line, as granted; whether there was one. Those whose hub has ended are passed over.
    #[inline]
    pub(super) fn grant_first(&mut self, woken: &mut Woken) -> bool {
        self.skip_the_dead();
        self.grant_any(woken)
    }

    /// The same, and be it one whose hub has ended: for who stands in line with something to give.
    #[inline]
    pub(super) fn grant_any(&mut self, woken: &mut Woken) -> bool {
        let handed = self.hand_any(woken);
        self.granted += usize::from(handed);
        handed
    }

    /// Takes the first out of the line, to whom the caller has given what it wants already: it is not counted as
    /// granted.
    #[inline]
    pub(super) fn hand_first(&mut self, woken: &mut Woken) -> bool {
        self.skip_the_dead();
        self.hand_any(woken)
    }

    #[inline]
    fn hand_any(&mut self, woken: &mut Woken) -> bool {
        let Some(first) = self.line.pop_front() else {
            return false;
        };
        woken.push(first.waiter);
        if self.empty > 0 {
            self.trim();
        }
        true
    }

    /// One that was granted has come for it, or leaves it.
    #[inline]
    pub(super) fn remove_granted(&mut self) {
        self.granted -= 1;
    }

    /// One that was not granted leaves.
    pub(super) fn remove(&mut self, key: Key) -> Option<Waiter> {
        let at = self.place(key)?;
        let waiter = self.line[at].waiter.take();
        self.empty += 1;
        self.trim();
        waiter
    }

    /// Where it stands in the line, if it does.
    fn place(&self, key: Key) -> Option<usize> {
        let first = self.line.front()?.number;
        let guess = usize::try_from(key.0.checked_sub(first)?).ok()?;
        if self.line.get(guess).is_some_and(|place| place.number == key.0) {
            return Some(guess);
        }
        self.line.binary_search_by_key(&key.0, |place| place.number).ok()
    }

    /// No empty place in front, and no more empty ones than others.
    #[cold]
    fn trim(&mut self) {
        while self.line.front().is_some_and(|place| place.waiter.is_none()) {
            self.line.pop_front();
            self.empty -= 1;
        }
        if self.empty > self.line.len() / 2 {
            self.line.retain(|place| place.waiter.is_some());
            self.empty = 0;
        }
    }

    #[inline]
    fn skip_the_dead(&mut self) {
        while let Some(place) = self.line.front()
            && place.waiter.as_ref().is_some_and(Waiter::is_dead)
        {
            self.line.pop_front();
            if self.empty > 0 {
                self.trim();
            }
        }
    }
}

/// Who is to be woken once the lock is released (S2 of [`spin`](super::spin)). Mostly nobody, or one.
#[derive(Default)]
pub(super) struct Woken {
    first: Option<Waiter>,
    #[expect(
        clippy::box_collection,
        reason = "a null pointer is quicker to drop than an empty list"
    )]
    more: Option<Box<Vec<Waiter>>>,
}

impl Woken {
    #[inline(always)]
    fn push(&mut self, waiter: Option<Waiter>) {
        if self.first.is_none() {
            self.first = waiter;
        } else {
            self.push_more(waiter);
        }
    }

    #[cold]
    fn push_more(&mut self, waiter: Option<Waiter>) {
        self.more.get_or_insert_default().extend(waiter);
    }

    #[inline(always)]
    pub(super) fn wake(self) {
        // One after the other: matched together they would be copied, and the copy would wait for the stores before it.
        if let Some(first) = self.first {
            match self.more {
                None => first.wake_here(),
                Some(more) => Woken::wake_all(first, *more),
            }
        }
    }

    /// A waker that panics does so once all others have been called: what they wait for is theirs already.
    #[cold]
    fn wake_all(first: Waiter, more: Vec<Waiter>) {
        let mut panic = None;
        for waiter in once(first).chain(more) {
            if let Err(payload) = catch_unwind(AssertUnwindSafe(|| waiter.wake_here())) {
                panic.replace(payload).into_iter().for_each(discard);
            }
        }
        if let Some(payload) = panic {
            resume_unwind(payload);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    fn anybody() -> Waiter {
        Waiter::Waker(Waker::noop().clone())
    }

    /// Numbers that look random, and are the same each time.
    fn dice(seed: &mut u64) -> usize {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (*seed >> 33) as usize
    }

    #[test]
    fn it_does_what_a_plain_list_does() {
        let mut seed = 7;
        for _ in 0..50 {
            let (mut waiters, mut model, mut granted) = (Waiters::new(), Vec::new(), Vec::new());
            for wants in 0..400 {
                match dice(&mut seed) % 8 {
                    0..4 => model.push((waiters.push(anybody(), wants), wants)),
                    4 => {
                        let is_any = waiters.grant_first(&mut Woken::default());
                        assert_eq!(is_any, !model.is_empty());
                        granted.extend(model.drain(..usize::from(is_any)));
                    }
                    5..7 if !model.is_empty() => {
                        let (key, _) = model.remove(dice(&mut seed) % model.len());
                        assert!(waiters.remove(key).is_some());
                    }
                    7 if !granted.is_empty() => {
                        let (key, _) = granted.remove(dice(&mut seed) % granted.len());
                        assert!(waiters.is_granted(key));
                        waiters.remove_granted();
                    }
                    _ => {}
                }
                assert_eq!(waiters.waiting(), model.len());
                assert_eq!(waiters.any(), !model.is_empty());
                assert_eq!(waiters.granted(), granted.len());
                assert_eq!(waiters.first_wants(), model.first().map(|first| first.1));
                assert!(model.iter().all(|(key, _)| !waiters.is_granted(*key)));
                assert!(model.iter().all(|(key, _)| waiters.replace(*key, anybody()).is_some()));
            }
        }
    }

    #[test]
    fn those_who_left_take_no_room() {
        let mut waiters = Waiters::new();
        let first = waiters.push(anybody(), 0);
        for _ in 0..10_000 {
            let key = waiters.push(anybody(), 0);
            waiters.remove(key);
            assert!(waiters.line.len() < 8);
        }
        assert!(!waiters.is_granted(first));
        assert_eq!(waiters.waiting(), 1);
    }
}
