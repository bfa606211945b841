//! What a queue keeps its items in: the order in which they come out.
//!
//! All of this runs under the queue's lock. A store of priorities calls the user's `Ord` there, and keeps every item
//! whatever that does; a heap of std's would drop the one it takes out if a comparison panics.
#![forbid(unsafe_code)]

use std::any::Any;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::hub::Hub;

/// What code of the user's panicked with.
pub(super) type Payload = Box<dyn Any + Send>;

/// What putting in or taking out may panic with; nothing at all costs nothing.
pub trait Panic {
    #[doc(hidden)]
    fn payload(self) -> Box<dyn Any + Send>;
}

impl Panic for Infallible {
    fn payload(self) -> Payload {
        match self {}
    }
}

impl Panic for Payload {
    fn payload(self) -> Payload {
        self
    }
}

/// Runs code of the user's under the lock: it may not park there, and what it panics with is for after the lock.
pub(super) fn confined<R>(f: impl FnOnce() -> R) -> Result<R, Payload> {
    catch_unwind(AssertUnwindSafe(|| {
        if Hub::has_ended() {
            f()
        } else {
            Hub::current().as_callback(f)
        }
    }))
}

/// What makes the items of a [`QueueOf`](super::QueueOf) come out in its order. There are three of it, and no others.
pub trait Store<T>: Sealed {
    /// What its own code of the user's panics with.
    #[doc(hidden)]
    type Panic: Panic;

    /// Without items.
    #[doc(hidden)]
    const EMPTY: Self;

    /// Puts one in, whatever comes of it.
    #[doc(hidden)]
    fn push(&mut self, item: T) -> Result<(), Self::Panic>;

    /// Takes out the one whose turn it is.
    #[doc(hidden)]
    fn pop(&mut self) -> Result<Option<T>, Self::Panic>;

    /// The one that `pop` would take.
    #[doc(hidden)]
    fn next(&self) -> Option<&T>;

    /// How many there are.
    #[doc(hidden)]
    fn size(&self) -> usize;
}

/// No others have it.
pub trait Sealed {}

impl<T> Sealed for VecDeque<T> {}
impl<T> Sealed for Vec<T> {}
impl<T> Sealed for Heap<T> {}

/// First in, first out.
impl<T> Store<T> for VecDeque<T> {
    type Panic = Infallible;

    const EMPTY: VecDeque<T> = VecDeque::new();

    #[inline]
    fn push(&mut self, item: T) -> Result<(), Infallible> {
        self.push_back(item);
        Ok(())
    }

    #[inline]
    fn pop(&mut self) -> Result<Option<T>, Infallible> {
        Ok(self.pop_front())
    }

    fn next(&self) -> Option<&T> {
        self.front()
    }

    #[inline]
    fn size(&self) -> usize {
        self.len()
    }
}

/// Last in, first out.
impl<T> Store<T> for Vec<T> {
    type Panic = Infallible;

    const EMPTY: Vec<T> = Vec::new();

    fn push(&mut self, item: T) -> Result<(), Infallible> {
        self.push(item);
        Ok(())
    }

    fn pop(&mut self) -> Result<Option<T>, Infallible> {
        Ok(self.pop())
    }

    fn next(&self) -> Option<&T> {
        self.last()
    }

    fn size(&self) -> usize {
        self.len()
    }
}

/// The smallest first; of equals the one that was put first.
pub struct Heap<T> {
    /// None stands before the one at half its index; each with how many were put before it.
    tree: Vec<(T, u64)>,
    count: u64,
}

fn is_before<T: Ord>(one: &(T, u64), other: &(T, u64)) -> bool {
    one.0.cmp(&other.0).then(one.1.cmp(&other.1)).is_lt()
}

/// Puts the last one where it belongs.
fn rise<T: Ord>(tree: &mut [(T, u64)]) {
    let mut at = tree.len().saturating_sub(1);
    while at > 0 {
        let above = (at - 1) / 2;
        if !is_before(&tree[at], &tree[above]) {
            return;
        }
        tree.swap(at, above);
        at = above;
    }
}

/// Puts the first one where it belongs.
fn sink<T: Ord>(tree: &mut [(T, u64)]) {
    let (mut at, mut below) = (0, 1);
    while below < tree.len() {
        if below + 1 < tree.len() && is_before(&tree[below + 1], &tree[below]) {
            below += 1;
        }
        if !is_before(&tree[below], &tree[at]) {
            return;
        }
        tree.swap(at, below);
        (at, below) = (below, 2 * below + 1);
    }
}

impl<T: Ord> Store<T> for Heap<T> {
    type Panic = Payload;

    const EMPTY: Heap<T> = Heap {
        tree: Vec::new(),
        count: 0,
    };

    fn push(&mut self, item: T) -> Result<(), Payload> {
        self.tree.push((item, self.count));
        self.count += 1;
        confined(|| rise(&mut self.tree))
    }

    fn pop(&mut self) -> Result<Option<T>, Payload> {
        let Some(last) = self.tree.len().checked_sub(1) else {
            return Ok(None);
        };
        // It stays at the end if this fails.
        self.tree.swap(0, last);
        confined(|| sink(&mut self.tree[..last]))?;
        Ok(self.tree.pop().map(|(item, _)| item))
    }

    fn next(&self) -> Option<&T> {
        self.tree.first().map(|(item, _)| item)
    }

    fn size(&self) -> usize {
        self.tree.len()
    }
}

impl<T> fmt::Debug for Heap<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Heap")
            .field("len", &self.tree.len())
            .finish_non_exhaustive()
    }
}
