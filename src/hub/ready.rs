//! The ready queue: FIFO, linked through the tasks themselves.
//!
//! The queue allocates nothing and counts nothing. A task is in it at most once: it is pushed when its state becomes
//! `Ready` or `New`, and popped before it runs.
#![forbid(unsafe_code)]

use std::cell::Cell;

use super::Hub;
use super::task::Task;

/// The tasks that run next, in order.
#[derive(Default)]
pub(super) struct Ready {
    head: Cell<Option<&'static Task>>,
    tail: Cell<Option<&'static Task>>,
    /// The state of the random generator; zero means that the order is kept.
    seed: Cell<u64>,
}

impl Ready {
    #[inline]
    pub(super) fn push(&self, task: &'static Task) {
        task.next.set(None);
        match self.tail.replace(Some(task)) {
            Some(tail) => tail.next.set(Some(task)),
            None => self.head.set(Some(task)),
        }
    }

    #[inline]
    pub(super) fn pop(&self) -> Option<&'static Task> {
        let task = self.head.get()?;
        let next = task.next.take();
        self.head.set(next);
        match next {
            Some(next) => {
                // The block is fetched two steps ahead and the stack one: the block tells where the stack is, and is in
                // the cache by then.
                next.prefetch_stack();
                if let Some(after) = next.next.get() {
                    after.prefetch();
                }
            }
            None => self.tail.set(None),
        }
        Some(task)
    }

    /// The next task, if the turn has a resume left for it.
    #[inline]
    pub(super) fn pop_within(&self, hub: &Hub) -> Option<&'static Task> {
        if !self.is_empty() && hub.takes_resume() {
            self.pop()
        } else {
            None
        }
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.head.get().is_none()
    }

    /// From now on [`shuffle`](Self::shuffle) mixes the order, always in the same way for the same seed.
    pub(super) fn set_seed(&self, seed: u64) {
        // Not zero, which would mean that there is no seed.
        self.seed.set(seed | 1);
    }

    /// Mixes the order of the waiting tasks, if there is a seed. Called once a turn.
    pub(super) fn shuffle(&self) {
        if self.seed.get() == 0 {
            return;
        }
        let mut tasks: Vec<_> = std::iter::from_fn(|| self.pop()).collect();
        for i in (1..tasks.len()).rev() {
            tasks.swap(i, (self.random() % (i as u64 + 1)) as usize);
        }
        for task in tasks {
            self.push(task);
        }
    }

    /// A number that depends on the seed alone; `None` without a seed.
    pub(super) fn seeded(&self) -> Option<u64> {
        (self.seed.get() != 0).then(|| self.random())
    }

    /// xorshift64*
    fn random(&self) -> u64 {
        let mut x = self.seed.get();
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        self.seed.set(x);
        x.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
    }
}
