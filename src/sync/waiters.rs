//! Who waits for one thing, in order: a line, in which everybody has a number.
//!
//! A waiter is *granted* when what it waits for is set aside for it; it is then on its way, and whoever comes anew must
//! leave that much. One that leaves without taking what it was granted says so, and it is granted to the next.
//!
//! What is granted is granted to the first in line who can have it. So who has a lower number than the first was
//! granted, but for the few that are [`Stray`].
//!
//! All of it is called under the lock of a [`Core`](super::wait::Core), and says so itself where it allocates or frees.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::task::Waker;

use crate::hub::choice::{Choice, Claim, NO_BRANCH};
use crate::hub::discard;
use crate::hub::park::{Waiter, wake_task};
use crate::hub::spin::push_back;
use crate::hub::task::TaskRef;
use crate::sys::inside::Spins;

/// The number of one that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key(u64);

struct Place {
    number: u64,
    /// What it wants, in the words of its primitive.
    wants: u32,
    /// Of which branch of a choice it is.
    branch: u32,
    /// Whom to wake; none once it has left. The first in line has not left.
    waiter: Option<Waiter>,
}

/// Those whose numbers do not say whether they were granted.
#[derive(Default)]
struct Stray {
    /// They were taken out of the line without a grant, and may come back to find that out: their select has another
    /// branch or was looking, or the task that polled them last is lost.
    passed: BTreeSet<u64>,
    /// In line under a later number, the key here; the value is the first one's.
    moved: BTreeMap<u64, u64>,
}

pub(super) struct Waiters {
    line: VecDeque<Place>,
    /// The number of the next to come.
    next: u64,
    /// How many places in the line are empty.
    empty: usize,
    granted: usize,
    /// Mostly none.
    stray: Option<Box<Stray>>,
}

/// Whether one may be granted.
enum Fit {
    Yes,
    /// It never runs again, and never comes back.
    Dead,
    /// It may come back.
    Passed,
    /// It is another branch of the select that grants.
    Own,
}

impl Place {
    /// With `Yes` a choice is claimed: it is to be granted, or released.
    #[inline(always)]
    fn fits(&self, passes_dead: bool) -> Fit {
        match &self.waiter {
            Some(task @ Waiter::Task(..)) if passes_dead && task.is_dead() => Fit::Dead,
            Some(Waiter::Task(..)) | None => Fit::Yes,
            Some(Waiter::Waker(_)) => self.claim(passes_dead),
        }
    }

    #[inline(never)]
    fn claim(&self, passes_dead: bool) -> Fit {
        let Some(Waiter::Waker(waker)) = &self.waiter else {
            return Fit::Yes;
        };
        if passes_dead && self.waiter.as_ref().is_some_and(Waiter::is_dead) {
            return Fit::Passed;
        }
        match Choice::of(waker).map(|choice| choice.claim(self.branch)) {
            None | Some(Claim::Won) => Fit::Yes,
            Some(Claim::Lost) => Fit::Passed,
            Some(Claim::Own) => Fit::Own,
        }
    }

    fn release(&self) {
        if let (Some(Waiter::Waker(waker)), false) = (&self.waiter, self.branch == NO_BRANCH) {
            Choice::of(waker)
                .into_iter()
                .for_each(|choice| choice.release(self.branch));
        }
    }
}

impl Waiters {
    pub(super) const fn new() -> Waiters {
        Waiters {
            line: VecDeque::new(),
            next: 0,
            empty: 0,
            granted: 0,
            stray: None,
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

    /// Puts one at the end of the line.
    #[inline(always)]
    pub(super) fn push(&mut self, waiter: Waiter, wants: u32) -> Key {
        self.push_branch(waiter, wants, NO_BRANCH)
    }

    /// The same for a branch of a choice, whose waker this is.
    #[inline(always)]
    pub(super) fn push_branch(&mut self, waiter: Waiter, wants: u32, branch: u32) -> Key {
        let number = self.next;
        self.next += 1;
        let waiter = Some(waiter);
        let place = Place {
            number,
            wants,
            branch,
            waiter,
        };
        push_back(&mut self.line, place);
        Key(number)
    }

    /// Another to be woken in the place of the one before, which is given back.
    pub(super) fn replace(&mut self, key: Key, waiter: Waiter, branch: u32) -> Option<Waiter> {
        let at = self.place(key)?;
        self.line[at].branch = branch;
        self.line[at].waiter.replace(waiter)
    }

    #[inline]
    pub(super) fn is_granted(&self, key: Key) -> bool {
        let is_behind = key.0 < self.line.front().map_or(self.next, |first| first.number);
        is_behind && self.stray.as_ref().is_none_or(|stray| !stray.holds(key.0))
    }

    /// One that was taken out of the line without a grant comes back; whether this is one.
    #[inline]
    pub(super) fn was_passed(&mut self, key: Key) -> bool {
        self.stray.is_some() && self.forget_passed(key)
    }

    /// Takes the first out of the line, as granted; whether there was one. Those whose hub has ended are passed over.
    #[inline]
    pub(super) fn grant_first(&mut self, woken: &mut Woken) -> bool {
        self.hand::<true>(woken, true, |_| true).is_some()
    }

    /// The same, and be it one whose hub has ended: for who stands in line with something to give. Which it was.
    #[inline]
    pub(super) fn grant_any(&mut self, woken: &mut Woken) -> Option<Key> {
        self.hand::<true>(woken, false, |_| true).map(|(key, _)| key)
    }

    /// Takes the first out of the line, to whom the caller gives what it wants: it is not counted as granted.
    #[inline]
    pub(super) fn hand_first(&mut self, woken: &mut Woken) -> bool {
        self.hand::<false>(woken, true, |_| true).is_some()
    }

    /// The same, if the first can be given what it wants; what that is.
    #[inline]
    pub(super) fn hand_first_if(&mut self, woken: &mut Woken, can: impl Fn(u32) -> bool) -> Option<u32> {
        self.hand::<false>(woken, true, can).map(|(_, wants)| wants)
    }

    /// Takes the first that fits out of the line; `COUNTS` it as granted, or not.
    #[inline(always)]
    fn hand<const COUNTS: bool>(
        &mut self,
        woken: &mut Woken,
        passes_dead: bool,
        can: impl Fn(u32) -> bool,
    ) -> Option<(Key, u32)> {
        let mut own = 0;
        loop {
            let first = self.line.front()?;
            if !can(first.wants) || own > self.line.len() {
                return None;
            }
            match first.fits(passes_dead) {
                Fit::Yes => break,
                Fit::Dead => drop(self.pop()),
                Fit::Passed => self.pass_over(woken),
                Fit::Own => {
                    own += 1;
                    self.move_back();
                }
            }
        }
        let first = self.pop()?;
        if COUNTS {
            self.granted += 1;
        }
        let number = if self.stray.is_some() {
            self.moved_from(first.number)
        } else {
            first.number
        };
        woken.push(first.waiter);
        Some((Key(number), first.wants))
    }

    /// Grants all in line at once, if they are at least so many; whether they were. Those that never run again count.
    pub(super) fn grant_all(&mut self, least: usize, woken: &mut Woken) -> bool {
        if self.waiting() < least {
            return false;
        }
        let _spins = Spins::begin();
        // All or none: so each choice is claimed first, and released if one of them cannot be had.
        let fits: Vec<Option<Fit>> = (self.line.iter())
            .map(|place| place.waiter.is_some().then(|| place.fits(false)))
            .collect();
        let can_have = fits.iter().filter(|fit| matches!(fit, Some(Fit::Yes | Fit::Dead)));
        let is_enough = can_have.count() >= least;
        let mut stays = VecDeque::new();
        for (place, fit) in std::mem::take(&mut self.line).into_iter().zip(fits) {
            match fit {
                None => {}
                Some(Fit::Yes | Fit::Dead) if is_enough => {
                    self.moved_from(place.number);
                    self.granted += 1;
                    woken.push(place.waiter);
                }
                Some(Fit::Passed) => self.pass(place, woken),
                Some(fit) => {
                    if matches!(fit, Fit::Yes) {
                        place.release();
                    }
                    stays.push_back(place);
                }
            }
        }
        (self.line, self.empty) = (stays, 0);
        is_enough
    }

    #[inline]
    fn pop(&mut self) -> Option<Place> {
        let first = self.line.pop_front();
        if self.empty > 0 {
            self.trim();
        }
        first
    }

    /// One that was granted has come for it, or leaves it.
    #[inline]
    pub(super) fn remove_granted(&mut self) {
        self.granted -= 1;
    }

    /// One that was not granted leaves.
    pub(super) fn remove(&mut self, key: Key) -> Option<Waiter> {
        if self.was_passed(key) {
            return None;
        }
        let at = self.place(key)?;
        if self.stray.is_some() {
            self.moved_from(self.line[at].number);
        }
        let waiter = self.line[at].waiter.take();
        self.empty += 1;
        self.trim();
        waiter
    }

    /// Where it stands in the line, if it does.
    fn place(&self, key: Key) -> Option<usize> {
        let number = self.stray.as_ref().map_or(key.0, |stray| stray.number(key.0));
        let first = self.line.front()?.number;
        let guess = usize::try_from(number.checked_sub(first)?).ok()?;
        if self.line.get(guess).is_some_and(|place| place.number == number) {
            return Some(guess);
        }
        self.line.binary_search_by_key(&number, |place| place.number).ok()
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

    /// Takes the first out of the line, which is granted nothing, and may come back to see. It is woken for that: a
    /// select that looked just now looks again.
    #[cold]
    fn pass_over(&mut self, woken: &mut Woken) {
        if let Some(first) = self.pop() {
            self.pass(first, woken);
        }
    }

    #[cold]
    fn pass(&mut self, place: Place, woken: &mut Woken) {
        let number = self.moved_from(place.number);
        let _spins = Spins::begin();
        self.stray.get_or_insert_default().passed.insert(number);
        // Its last reference may be this one, and the user's to drop: so it goes where that can be.
        woken.push(place.waiter);
    }

    /// The first goes to the end of the line.
    #[cold]
    fn move_back(&mut self) {
        if let Some(first) = self.pop() {
            let number = self.moved_from(first.number);
            let _spins = Spins::begin();
            self.stray.get_or_insert_default().moved.insert(self.next, number);
            let number = self.next;
            self.line.push_back(Place { number, ..first });
            self.next += 1;
        }
    }

    /// One leaves the line at `number`: the number that it came with.
    #[cold]
    fn moved_from(&mut self, number: u64) -> u64 {
        let Some(stray) = &mut self.stray else { return number };
        let _spins = Spins::begin();
        let first = stray.moved.remove(&number).unwrap_or(number);
        self.trim_stray();
        first
    }

    #[cold]
    fn forget_passed(&mut self, key: Key) -> bool {
        let _spins = Spins::begin();
        let passed = self.stray.as_mut().is_some_and(|stray| stray.passed.remove(&key.0));
        self.trim_stray();
        passed
    }

    fn trim_stray(&mut self) {
        let is_empty = |stray: &Stray| stray.passed.is_empty() && stray.moved.is_empty();
        if self.stray.as_deref().is_some_and(is_empty) {
            self.stray = None;
        }
    }
}

impl Stray {
    /// Whether the one with this number waits still, or waits no more, without a grant.
    fn holds(&self, number: u64) -> bool {
        self.passed.contains(&number) || self.moved.values().any(|first| *first == number)
    }

    /// Under which number the one that came with `number` is in line.
    fn number(&self, number: u64) -> u64 {
        let moved = self.moved.iter().find(|(_, first)| **first == number);
        moved.map_or(number, |(now, _)| *now)
    }
}

/// Who is to be woken once the lock is released (S2 of [`spin`](crate::hub::spin)). Mostly nobody, or one.
///
/// The parts of the first lie apart, so that each is read as it was written: a waiter that is moved as a whole just after it was
/// written waits for the stores, which costs more than all the rest.
#[derive(Default)]
pub(super) struct Woken {
    /// The first, with its ticket, or as a waker.
    task: Option<TaskRef>,
    ticket: u64,
    waker: Option<Waker>,
    #[expect(
        clippy::box_collection,
        reason = "a null pointer is quicker to drop than an empty list"
    )]
    more: Option<Box<Vec<Waiter>>>,
}

impl Woken {
    #[inline(always)]
    fn push(&mut self, waiter: Option<Waiter>) {
        match waiter {
            Some(Waiter::Task(task, ticket)) if self.is_empty() => {
                self.task = Some(task);
                self.ticket = ticket;
            }
            waiter => self.push_other(waiter),
        }
    }

    #[inline(always)]
    pub(super) fn is_empty(&self) -> bool {
        self.task.is_none() && self.waker.is_none()
    }

    #[inline(never)]
    fn push_other(&mut self, waiter: Option<Waiter>) {
        match waiter {
            None => {}
            Some(Waiter::Waker(waker)) if self.is_empty() => self.waker = Some(waker),
            Some(waiter) => {
                let _spins = Spins::begin();
                self.more.get_or_insert_default().push(waiter);
            }
        }
    }

    #[inline(always)]
    pub(super) fn wake(self) {
        if let Some(more) = self.more {
            let first = self.task.map(|task| Waiter::Task(task, self.ticket));
            Woken::wake_all(first.or_else(|| self.waker.map(Waiter::Waker)), *more);
        } else if let Some(task) = self.task {
            wake_task(task, self.ticket);
        } else if let Some(waker) = self.waker {
            waker.wake();
        }
    }

    /// A waker that panics does so once all others have been called: what they wait for is theirs already.
    #[cold]
    fn wake_all(first: Option<Waiter>, more: Vec<Waiter>) {
        let mut panic = None;
        for waiter in first.into_iter().chain(more) {
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
                assert_eq!(
                    waiters.line.front().map(|first| first.wants),
                    model.first().map(|first| first.1)
                );
                assert!(model.iter().all(|(key, _)| !waiters.is_granted(*key)));
                assert!(
                    model
                        .iter()
                        .all(|(key, _)| waiters.replace(*key, anybody(), NO_BRANCH).is_some())
                );
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
