//! The waiters for one thing, in order: a line, in which each waiter has a number.
//!
//! A waiter is *granted* when what it waits for is set aside for it, or handed over to it. What is set aside is counted
//! here: until the waiter runs and takes it, new attempts must leave enough for it. A hand-over changes the state of
//! the primitive at once, and is not counted. A granted waiter that leaves without taking anything reports that, and
//! the next waiter is granted instead.
//!
//! Grants go to the first waiter in line that can use them. Therefore a waiter with a lower number than the first in
//! line has been granted, except for the few that [`Stray`] lists.
//!
//! Everything here is called under the lock of a [`Core`](super::wait::Core), and marks the places where it allocates
//! or frees.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::task::Waker;

use crate::hub::{Choice, Claim, NO_BRANCH, TaskRef, Waiter, discard, wake_task};
use crate::sys::inside::Spins;
use crate::sys::spin::push_back;

/// The number of a waiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key(u64);

struct Place {
    number: u64,
    /// What the waiter wants, encoded for its primitive.
    wants: u32,
    /// The number of the branch, if the waiter is one of a choice.
    branch: u32,
    /// What to wake; `None` once the waiter has left. The first place in line is never empty.
    waiter: Option<Waiter>,
}

/// The waiters with numbers that do not say whether they were granted.
#[derive(Default)]
struct Stray {
    /// Taken out of the line without a grant. They may come back and must then find that out: their select was polling
    /// or had another branch, or the task that polled them last is lost.
    passed: BTreeSet<u64>,
    /// In line under a later number. Maps that number to the one that the waiter came with.
    moved: BTreeMap<u64, u64>,
}

pub(super) struct Waiters {
    line: VecDeque<Place>,
    /// The number of the next waiter that comes.
    next: u64,
    /// How many places in the line are empty.
    empty: usize,
    granted: usize,
    /// `None` in most lines.
    stray: Option<Box<Stray>>,
}

/// What a granter finds when it claims a waiter.
enum Candidate {
    /// The waiter may be granted. If it is a branch of a choice, the choice is claimed for that branch: the granter
    /// must grant the waiter, or release the claim.
    Claimed,
    /// The waiter's task never runs again, and so never comes back.
    Lost,
    /// The waiter cannot be granted now, but it may come back.
    Passed,
    /// The waiter is another branch of the select that is granting.
    Own,
}

impl Place {
    /// Claims the waiter for a granter.
    #[inline(always)]
    fn claim(&self, passes_lost: bool) -> Candidate {
        match &self.waiter {
            Some(task @ Waiter::Task(..)) if passes_lost && task.is_lost() => Candidate::Lost,
            Some(Waiter::Task(..)) | None => Candidate::Claimed,
            Some(Waiter::Waker(_)) => self.claim_branch(passes_lost),
        }
    }

    #[inline(never)]
    fn claim_branch(&self, passes_lost: bool) -> Candidate {
        let Some(Waiter::Waker(waker)) = &self.waiter else {
            return Candidate::Claimed;
        };
        // The task that polled last is lost. But another task may poll the future later, and must then find that
        // nothing was granted.
        if passes_lost && self.waiter.as_ref().is_some_and(Waiter::is_lost) {
            return Candidate::Passed;
        }
        // SELECT-1: claim the select before anything is given to the branch.
        match Choice::of(waker).map(|choice| choice.claim(self.branch)) {
            None | Some(Claim::Won) => Candidate::Claimed,
            Some(Claim::Lost) => Candidate::Passed,
            Some(Claim::Own) => Candidate::Own,
        }
    }

    /// Takes the claim back, if the waiter is a branch of a choice.
    fn release(&self) {
        // Only a branch has claimed anything.
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

    /// How many waiters are in line. Granted ones are not.
    #[inline]
    pub(super) fn waiting(&self) -> usize {
        self.line.len() - self.empty
    }

    /// Whether any waiter is in line; the cheap check.
    #[inline(always)]
    pub(super) fn any(&self) -> bool {
        !self.line.is_empty()
    }

    /// How many waiters were granted what they want and have not taken it yet.
    #[inline]
    pub(super) fn granted(&self) -> usize {
        self.granted
    }

    /// Puts a waiter at the end of the line.
    #[inline(always)]
    pub(super) fn push(&mut self, waiter: Waiter, wants: u32) -> Key {
        self.push_branch(waiter, wants, NO_BRANCH)
    }

    /// The same for a branch of a choice; `waiter` is the choice's waker.
    #[inline(always)]
    pub(super) fn push_branch(&mut self, waiter: Waiter, wants: u32, branch: u32) -> Key {
        // A number is never used twice, so an old key cannot name another waiter.
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

    /// Replaces what is to be woken at this place, and returns the previous waiter, which the caller drops outside the
    /// lock.
    pub(super) fn replace(&mut self, key: Key, waiter: Waiter, branch: u32) -> Option<Waiter> {
        let at = self.place(key)?;
        self.line[at].branch = branch;
        self.line[at].waiter.replace(waiter)
    }

    /// Whether the waiter was granted.
    #[inline]
    pub(super) fn is_granted(&self, key: Key) -> bool {
        // Numbers ascend along the line, and grants take from its front. A waiter that left of its own accord does not
        // ask, so a lower number than the front's means a grant.
        let is_behind = key.0 < self.line.front().map_or(self.next, |first| first.number);
        is_behind && self.stray.as_ref().is_none_or(|stray| !stray.holds(key.0))
    }

    /// Whether the waiter was taken out of the line without a grant. If so, this forgets the waiter, which may then get
    /// in line anew.
    #[inline]
    pub(super) fn take_passed(&mut self, key: Key) -> bool {
        self.stray.is_some() && self.forget_passed(key)
    }

    /// Grants the first waiter and takes it out of the line; whether there was one. Waiters of a hub that has ended are
    /// passed over.
    #[inline]
    pub(super) fn grant_first(&mut self, woken: &mut Woken) -> bool {
        self.grant_first_key(woken).is_some()
    }

    /// The same, and returns the key.
    #[inline]
    pub(super) fn grant_first_key(&mut self, woken: &mut Woken) -> Option<Key> {
        self.hand::<true>(woken, true, |_| true).map(|(key, _)| key)
    }

    /// The same, but also for a waiter of a hub that has ended, because what it has to give is still good. Returns the
    /// key.
    #[inline]
    pub(super) fn grant_any(&mut self, woken: &mut Woken) -> Option<Key> {
        self.hand::<true>(woken, false, |_| true).map(|(key, _)| key)
    }

    /// The same for the first waiter, if `can` says that it can be granted, by what it wants.
    #[inline]
    pub(super) fn grant_first_if(&mut self, woken: &mut Woken, can: impl Fn(u32) -> bool) -> bool {
        self.hand::<true>(woken, true, can).is_some()
    }

    /// The number of the first waiter in line, shortened; `None` if none is in line.
    #[inline]
    pub(super) fn first(&self) -> Option<u32> {
        self.line.front().map(|first| first.number as u32)
    }

    /// The number of the waiter that gets in line next, shortened.
    #[inline]
    pub(super) fn next(&self) -> u32 {
        self.next as u32
    }

    /// Takes the first waiter out of the line; the caller gives it what it wants at once, so it is not counted as
    /// granted.
    #[inline]
    pub(super) fn hand_first(&mut self, woken: &mut Woken) -> bool {
        self.hand::<false>(woken, true, |_| true).is_some()
    }

    /// The same, if `can` says that the first waiter can be given what it wants. Returns what it wants.
    #[inline]
    pub(super) fn hand_first_if(&mut self, woken: &mut Woken, can: impl Fn(u32) -> bool) -> Option<u32> {
        self.hand::<false>(woken, true, can).map(|(_, wants)| wants)
    }

    /// Takes the first waiter that can be granted out of the line, and counts it as granted if `COUNTS`.
    #[inline(always)]
    fn hand<const COUNTS: bool>(
        &mut self,
        woken: &mut Woken,
        passes_lost: bool,
        can: impl Fn(u32) -> bool,
    ) -> Option<(Key, u32)> {
        let mut own = 0;
        loop {
            let first = self.line.front()?;
            // Stop once every waiter was moved back.
            if own > self.line.len() {
                return None;
            }
            if !can(first.wants) {
                // No waiter may overtake the first one: if that has to wait, all do. One that never runs again does not
                // wait.
                if passes_lost && self.pass_lost(woken) {
                    continue;
                }
                return None;
            }
            match first.claim(passes_lost) {
                Candidate::Claimed => break,
                // Its task never runs again, so nothing has to be remembered.
                Candidate::Lost => drop(self.pop()),
                // SELECT-2: out of the line without a grant, woken, and on to the next.
                Candidate::Passed => self.pass_over(woken),
                Candidate::Own => {
                    // SELECT-5: a select cannot complete its own other branch. Keep that in line, at the end, and ask
                    // the next.
                    own += 1;
                    self.move_back();
                }
            }
        }
        let first = self.pop()?;
        // From now on new attempts must leave something for this waiter (WAIT-1).
        if COUNTS {
            self.granted += 1;
        }
        // Callers know the waiter under the number that it came with.
        let number = if self.stray.is_some() {
            self.moved_from(first.number)
        } else {
            first.number
        };
        woken.push(first.waiter);
        Some((Key(number), first.wants))
    }

    /// Takes the first waiter out of the line if its task never runs again; whether it did.
    #[cold]
    fn pass_lost(&mut self, woken: &mut Woken) -> bool {
        let first = self.line.front().and_then(|first| first.waiter.as_ref());
        if !first.is_some_and(Waiter::is_lost) {
            return false;
        }
        match first {
            // As for a waiter that can be granted: another task may poll the future later.
            Some(Waiter::Waker(_)) => self.pass_over(woken),
            _ => drop(self.pop()),
        }
        true
    }

    /// Grants all waiters in line at once if there are at least `least`; whether it did. Waiters that never run again
    /// count too.
    pub(super) fn grant_all(&mut self, least: usize, woken: &mut Woken) -> bool {
        if self.waiting() < least {
            return false;
        }
        // From here on this allocates under the lock.
        let _spins = Spins::begin();
        // All or none (SELECT-6): claim every choice first, and release the claims if too few can be had.
        let claims: Vec<Option<Candidate>> = (self.line.iter())
            .map(|place| place.waiter.is_some().then(|| place.claim(false)))
            .collect();
        let can_have = claims
            .iter()
            .filter(|found| matches!(found, Some(Candidate::Claimed | Candidate::Lost)));
        let is_enough = can_have.count() >= least;
        let mut stays = VecDeque::new();
        for (place, found) in std::mem::take(&mut self.line).into_iter().zip(claims) {
            match found {
                None => {}
                Some(Candidate::Claimed | Candidate::Lost) if is_enough => {
                    self.moved_from(place.number);
                    self.granted += 1;
                    woken.push(place.waiter);
                }
                Some(Candidate::Passed) => self.pass(place, woken),
                // Not enough, or another branch of the select that is granting: it stays in line, in order.
                Some(found) => {
                    if matches!(found, Candidate::Claimed) {
                        place.release();
                    }
                    stays.push_back(place);
                }
            }
        }
        // Only places with waiters were kept.
        (self.line, self.empty) = (stays, 0);
        is_enough
    }

    #[inline]
    fn pop(&mut self) -> Option<Place> {
        // `is_granted` needs a first place that is not empty.
        let first = self.line.pop_front();
        if self.empty > 0 {
            self.trim();
        }
        first
    }

    /// A granted waiter takes what it was granted, or leaves it.
    #[inline]
    pub(super) fn remove_granted(&mut self) {
        self.granted -= 1;
    }

    /// A waiter that was not granted leaves. Returns what would have been woken, for a drop outside the lock.
    pub(super) fn remove(&mut self, key: Key) -> Option<Waiter> {
        // SELECT-2: a granter took the waiter out of the line already, and has its waker.
        if self.take_passed(key) {
            return None;
        }
        let at = self.place(key)?;
        if self.stray.is_some() {
            self.moved_from(self.line[at].number);
        }
        // Leave an empty place, as taking it out of the middle would move all behind it.
        let waiter = self.line[at].waiter.take();
        self.empty += 1;
        self.trim();
        waiter
    }

    /// The index of the waiter's place in line, if it has one.
    fn place(&self, key: Key) -> Option<usize> {
        let number = self.stray.as_ref().map_or(key.0, |stray| stray.number(key.0));
        let first = self.line.front()?.number;
        // Exact as long as no place before it was taken out of the middle.
        let guess = usize::try_from(number.checked_sub(first)?).ok()?;
        if self.line.get(guess).is_some_and(|place| place.number == number) {
            return Some(guess);
        }
        self.line.binary_search_by_key(&number, |place| place.number).ok()
    }

    /// Drops empty places at the front, and all of them once they are more than half of the line.
    #[cold]
    fn trim(&mut self) {
        while self.line.front().is_some_and(|place| place.waiter.is_none()) {
            self.line.pop_front();
            self.empty -= 1;
        }
        // As many waiters have left as are moved now, so leaving costs O(1) on average.
        if self.empty > self.line.len() / 2 {
            self.line.retain(|place| place.waiter.is_some());
            self.empty = 0;
        }
    }

    /// Takes the first waiter out of the line without a grant. It may come back, and is woken to do so: a select that
    /// was polling just now must look again (SELECT-2).
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
        // The waker is called, and dropped, after the lock is released: its last drop may run the user's code.
        woken.push(place.waiter);
    }

    /// Moves the first waiter to the end of the line.
    #[cold]
    fn move_back(&mut self) {
        if let Some(first) = self.pop() {
            // Its key keeps the number that it came with; `moved` maps one to the other.
            let number = self.moved_from(first.number);
            let _spins = Spins::begin();
            self.stray.get_or_insert_default().moved.insert(self.next, number);
            let number = self.next;
            self.line.push_back(Place { number, ..first });
            self.next += 1;
        }
    }

    /// The waiter at `number` leaves its place: forgets that it was moved, and returns the number that it came with.
    #[cold]
    fn moved_from(&mut self, number: u64) -> u64 {
        let Some(stray) = &mut self.stray else { return number };
        let _spins = Spins::begin();
        let first = stray.moved.remove(&number).unwrap_or(number);
        self.trim_stray();
        first
    }

    /// Whether the waiter was passed over; this forgets it.
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
    /// Whether the waiter that came with this number is still in line under another one, or left the line without a
    /// grant.
    fn holds(&self, number: u64) -> bool {
        self.passed.contains(&number) || self.moved.values().any(|first| *first == number)
    }

    /// The number under which the waiter that came with `number` is in line.
    fn number(&self, number: u64) -> u64 {
        let moved = self.moved.iter().find(|(_, first)| **first == number);
        moved.map_or(number, |(now, _)| *now)
    }
}

/// The waiters to wake once the lock is released (SPIN-2 of [`spin`](crate::sys::spin)); mostly none or one.
///
/// The first waiter is stored in parts, so that each part is read with the width it was written with. A waiter that is
/// moved as a whole right after it was written has to wait for these stores (no store forwarding), which costs more
/// than all the rest.
#[derive(Default)]
pub(super) struct Woken {
    /// The first waiter: a task with its ticket, or a waker.
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
            // The usual case: one task, and nothing is allocated.
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
                // The list is allocated under the lock.
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

    /// Wakes all of them. A panic of a waker is resumed only after the others were woken: they have been granted
    /// already, and nothing else would wake them.
    #[cold]
    fn wake_all(first: Option<Waiter>, more: Vec<Waiter>) {
        let mut panic = None;
        for waiter in first.into_iter().chain(more) {
            if let Err(payload) = catch_unwind(AssertUnwindSafe(|| waiter.wake_directly())) {
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
