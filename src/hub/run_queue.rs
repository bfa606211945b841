//! The run queue of a hub: which task runs, and which run next.
//!
//! Its lists are FIFO and linked through the tasks themselves, so they allocate nothing and count nothing. A task is in
//! one of them at most once: it is pushed when its state becomes `Ready` or `New`, and popped before it runs.
#![forbid(unsafe_code)]

use std::cell::Cell;

use super::task::block::Task;

/// The run queue of one hub.
pub(super) struct RunQueue {
    /// The tasks that are ready.
    pub(super) ready: List,
    /// Tasks woken by a timer or a descriptor. They go before `ready`, so that a burst of spawns does not make them
    /// late.
    pub(super) due: List,
    /// Tasks that wait by asking again and again. They become ready once the turn has looked at timers and descriptors.
    pub(super) later: List,
    /// The green thread that runs; `None` while the native stack runs.
    pub(super) current: Cell<Option<&'static Task>>,
    /// The task that stands for the native stack.
    pub(super) native: &'static Task,
    /// Whether the native stack runs turns.
    pub(super) pumping: Cell<bool>,
    /// Whether the turn is looking at timers and descriptors now.
    pub(super) looking: Cell<bool>,
}

impl RunQueue {
    pub(super) fn new(native: &'static Task) -> RunQueue {
        RunQueue {
            ready: List::default(),
            due: List::default(),
            later: List::default(),
            current: Cell::new(None),
            native,
            pumping: Cell::new(false),
            looking: Cell::new(false),
        }
    }

    /// The task that runs: a green thread, or the native task.
    #[inline]
    pub(super) fn running(&self) -> &'static Task {
        self.current.get().unwrap_or(self.native)
    }

    /// Whether the running code is the hub's own: a turn is under way on the native stack. Code of the user that the
    /// turn calls is a callback (HUB-11).
    #[inline(always)]
    pub(super) fn is_on_own_stack(&self) -> bool {
        self.current.get().is_none() && self.pumping.get()
    }

    /// Queues a task that was woken. If the turn is looking at timers and descriptors, one of them has woken the task,
    /// which then goes before the tasks that are ready.
    #[inline]
    pub(super) fn push_woken(&self, task: &'static Task) {
        if self.looking.get() {
            self.due.push(task)
        } else {
            self.ready.push(task)
        }
    }

    /// Whether no task is ready and no task waits by asking.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.later.is_empty() && self.is_empty_but_for_askers()
    }

    /// Whether no task is ready. There may be tasks that wait by asking.
    #[inline]
    pub(super) fn is_empty_but_for_askers(&self) -> bool {
        self.ready.is_empty() && self.due.is_empty()
    }
}

/// Tasks in the order in which they run.
#[derive(Default)]
pub(super) struct List {
    head: Cell<Option<&'static Task>>,
    tail: Cell<Option<&'static Task>>,
    /// The state of the random generator; zero means that the order is kept.
    seed: Cell<u64>,
}

impl List {
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
