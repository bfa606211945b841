//! The stores that hold a queue's items, and decide in which order the items come out.
//!
//! All of this runs under the queue's lock. A priority store calls the user's `Ord` there, and keeps every item even if
//! `Ord` panics; std's heap would drop the item that it is taking out.
#![forbid(unsafe_code)]

use std::any::Any;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::hub::Hub;

/// What the user's code panicked with.
pub(super) type Payload = Box<dyn Any + Send>;

/// What putting an item in or taking one out may panic with. For stores that never panic it is `Infallible`, and costs
/// nothing.
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

/// Runs the user's code under the lock. The code may not park there, and its panic is returned, to be resumed after the
/// unlock.
pub(super) fn confined<R>(f: impl FnOnce() -> R) -> Result<R, Payload> {
    catch_unwind(AssertUnwindSafe(|| {
        if Hub::has_ended() {
            f()
        } else {
            Hub::current().as_callback(f)
        }
    }))
}

/// What makes the items of a [`QueueOf`](super::QueueOf) come out in their order. There are three stores; others cannot
/// be added.
pub trait Store<T>: Sealed {
    /// What the user's code in this store panics with.
    #[doc(hidden)]
    type Panic: Panic;

    /// The empty store.
    #[doc(hidden)]
    const EMPTY: Self;

    /// Puts an item in. The item is in the store even if this fails.
    #[doc(hidden)]
    fn push(&mut self, item: T) -> Result<(), Self::Panic>;

    /// Takes out the next item. If this fails, the store keeps all items.
    #[doc(hidden)]
    fn pop(&mut self) -> Result<Option<T>, Self::Panic>;

    /// The item that `pop` would take.
    #[doc(hidden)]
    fn next(&self) -> Option<&T>;

    /// How many items there are.
    #[doc(hidden)]
    fn size(&self) -> usize;
}

/// Keeps other crates from implementing [`Store`].
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

/// The smallest first; of equal ones the one that was put first.
pub struct Heap<T> {
    /// A binary heap: no item is smaller than its parent at half its index. The number is how many were put before the
    /// item, and decides between equal ones.
    tree: Vec<(T, u64)>,
    count: u64,
}

fn is_before<T: Ord>(one: &(T, u64), other: &(T, u64)) -> bool {
    one.0.cmp(&other.0).then(one.1.cmp(&other.1)).is_lt()
}

/// Moves the last item up to its place. It only swaps, so a panic of `Ord` loses no item.
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

/// Moves the first item down to its place. It only swaps, so a panic of `Ord` loses no item.
fn sink<T: Ord>(tree: &mut [(T, u64)]) {
    let (mut at, mut below) = (0, 1);
    while below < tree.len() {
        // The smaller one of the two children.
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
        // If `sink` fails, the item stays at the end: nothing is lost, though the order may be wrong.
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
