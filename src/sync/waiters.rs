//! Who waits for one thing, in order: a list in a slab, so that the one in the middle leaves at no cost.
//!
//! A waiter is *granted* when what it waits for is set aside for it; it is then on its way, and whoever comes anew must
//! leave that much. One that leaves without taking what it was granted says so, and it is granted to the next.
#![forbid(unsafe_code)]

use crate::hub::park::Waiter;

const NONE: u32 = u32::MAX;

/// The place of one that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key(u32);

struct Node {
    /// Whom to wake; none once it was granted.
    waiter: Option<Waiter>,
    granted: bool,
    /// What it wants, in the words of its primitive.
    wants: u32,
    previous: u32,
    next: u32,
}

pub(super) struct Waiters {
    nodes: Vec<Node>,
    first: u32,
    last: u32,
    /// Unused nodes, by their `next`.
    free: u32,
    waiting: u32,
    granted: u32,
}

impl Waiters {
    pub(super) const fn new() -> Waiters {
        Waiters {
            nodes: Vec::new(),
            first: NONE,
            last: NONE,
            free: NONE,
            waiting: 0,
            granted: 0,
        }
    }

    /// How many wait and were granted nothing.
    #[inline]
    pub(super) fn waiting(&self) -> usize {
        self.waiting as usize
    }

    /// How many were granted what they want, and have not come for it.
    #[inline]
    pub(super) fn granted(&self) -> usize {
        self.granted as usize
    }

    /// What the first in line wants.
    pub(super) fn first_wants(&self) -> Option<u32> {
        self.nodes.get(self.first as usize).map(|node| node.wants)
    }

    /// Puts one at the end of the line.
    pub(super) fn push(&mut self, waiter: Waiter, wants: u32) -> Key {
        let node = Node {
            waiter: Some(waiter),
            granted: false,
            wants,
            previous: self.last,
            next: NONE,
        };
        let at = self.free;
        let at = match self.nodes.get_mut(at as usize) {
            Some(place) => {
                self.free = place.next;
                *place = node;
                at
            }
            None => {
                self.nodes.push(node);
                self.nodes.len() as u32 - 1
            }
        };
        match self.nodes.get_mut(self.last as usize) {
            Some(last) => last.next = at,
            None => self.first = at,
        }
        self.last = at;
        self.waiting += 1;
        Key(at)
    }

    /// Another to be woken in the place of the one before, which is given back.
    pub(super) fn replace(&mut self, key: Key, waiter: Waiter) -> Option<Waiter> {
        self.nodes[key.0 as usize].waiter.replace(waiter)
    }

    #[inline]
    pub(super) fn is_granted(&self, key: Key) -> bool {
        self.nodes[key.0 as usize].granted
    }

    /// Takes the first out of the line, as granted, and gives whom to wake.
    pub(super) fn grant_first(&mut self) -> Option<Waiter> {
        let at = self.first;
        self.nodes.get(at as usize)?;
        self.unlink(at);
        self.waiting -= 1;
        self.granted += 1;
        let node = &mut self.nodes[at as usize];
        node.granted = true;
        node.waiter.take()
    }

    /// One leaves; whether it was granted, and its waiter if it was not.
    pub(super) fn remove(&mut self, key: Key) -> (bool, Option<Waiter>) {
        let at = key.0;
        let granted = self.nodes[at as usize].granted;
        if granted {
            self.granted -= 1;
        } else {
            self.unlink(at);
            self.waiting -= 1;
        }
        let node = &mut self.nodes[at as usize];
        node.next = self.free;
        self.free = at;
        (granted, node.waiter.take())
    }

    /// Out of the line, but not out of the slab.
    fn unlink(&mut self, at: u32) {
        let (previous, next) = {
            let node = &self.nodes[at as usize];
            (node.previous, node.next)
        };
        match self.nodes.get_mut(previous as usize) {
            Some(previous) => previous.next = next,
            None => self.first = next,
        }
        match self.nodes.get_mut(next as usize) {
            Some(next) => next.previous = previous,
            None => self.last = previous,
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
    #[inline]
    pub(super) fn push(&mut self, waiter: Option<Waiter>) {
        let Some(waiter) = waiter else { return };
        if self.first.is_none() {
            self.first = Some(waiter);
        } else {
            self.more.get_or_insert_default().push(waiter);
        }
    }

    #[inline(always)]
    pub(super) fn wake(self) {
        if let Some(first) = self.first {
            first.wake_here();
            if let Some(more) = self.more {
                more.into_iter().for_each(Waiter::wake_here);
            }
        }
    }
}
