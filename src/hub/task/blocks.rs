//! The memory of tasks: leaked chunks, and free lists of blocks of a hub and of the process.
//!
//! A chunk is never unmapped, for wakers and waiters of ended tasks still look at its blocks; but one whose blocks are all free
//! is *retired* when there is time: its pages go back to the system, and read as zeros, which is a block without a hub.
//!
//! # Invariants
//! - **R1** The blocks of a retired chunk are in no free list, and their `hub` was null before: who has an old waiter or waker
//!   of one looks at its atomics alone, and finds no hub.
//! - **R2** A chunk that comes back has tickets above all that retired blocks ever had (T1).

use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Marks, Task, TaskRef};
use crate::fiber::current;
use crate::hub::Hub;
use crate::sys::fork::{Global, Order};
use crate::sys::{self, mem};

struct Chunk(&'static [Task]);
// SAFETY: T5: the lists below hand blocks from thread to thread only while nobody owns them.
unsafe impl Send for Chunk {}

static CHUNKS: Global<Vec<Chunk>> = Global::new(Order::Chunks, Vec::new());
static FREE: Global<Vec<TaskRef>> = Global::new(Order::Free, Vec::new());
static RETIRED: Global<Vec<Chunk>> = Global::new(Order::Retired, Vec::new());
/// R2.
static TICKETS: AtomicU64 = AtomicU64::new(1);
/// Of 192 bytes each: three pages.
const CHUNK: usize = 64;
const BYTES: usize = CHUNK * size_of::<Task>();

/// A block from the hub's free list, the common one, or a new chunk.
#[inline]
pub(super) fn take_block(hub: &Hub) -> &'static Task {
    match hub.free.get() {
        Some(task) => {
            hub.free.set(task.next.take());
            task
        }
        None => refill(hub),
    }
}

#[cold]
fn refill(hub: &Hub) -> &'static Task {
    if let Some(task) = FREE.lock().pop() {
        return task.0;
    }
    let retired = RETIRED.lock().pop();
    let chunk = match retired {
        Some(Chunk(chunk)) => {
            let ticket = TICKETS.load(Ordering::Acquire) + 1;
            // SAFETY: R1: blocks that nobody has, all zeros.
            chunk.iter().for_each(|task| unsafe { Task::revive(task, ticket) });
            chunk
        }
        None => {
            let chunk = new_chunk();
            CHUNKS.lock().push(Chunk(chunk));
            chunk
        }
    };
    for task in &chunk[1..] {
        task.next.set(hub.free.replace(Some(task)));
    }
    &chunk[0]
}

fn new_chunk() -> &'static [Task] {
    let pages = if BYTES.is_multiple_of(mem::page()) {
        mem::map(BYTES).ok()
    } else {
        None
    };
    let Some(at) = pages else {
        return Box::leak((0..CHUNK).map(|_| Task::blank()).collect());
    };
    let first = ptr::with_exposed_provenance_mut::<Task>(at);
    // SAFETY: a fresh mapping of so many, never unmapped, aligned to a page.
    unsafe {
        (0..CHUNK).for_each(|index| first.add(index).write(Task::blank()));
        std::slice::from_raw_parts(first, CHUNK)
    }
}

/// Retires the chunks whose blocks are all free, here or in the common list.
pub(in crate::hub) fn retire(hub: &Hub) {
    if !BYTES.is_multiple_of(mem::page()) {
        return;
    }
    let mut free: Vec<&'static Task> = FREE.lock().drain(..).map(|task| task.0).collect();
    while let Some(task) = hub.free.get() {
        hub.free.set(task.next.take());
        free.push(task);
    }
    let is_mapped = |chunk: &&'static [Task]| chunk.len() == CHUNK && chunk.as_ptr().addr().is_multiple_of(mem::page());
    let mut chunks: Vec<_> = CHUNKS.lock().iter().map(|chunk| chunk.0).filter(is_mapped).collect();
    free.sort_unstable_by_key(|task| ptr::from_ref(*task));
    chunks.sort_unstable_by_key(|chunk| chunk.as_ptr());
    let mut rest = &free[..];
    // Each to the list that it came from, as in `recycle`.
    let keep = |tasks: &[&'static Task]| {
        for task in tasks {
            if task.marks.get(Marks::COMMON) {
                FREE.lock().push(TaskRef(task));
            } else {
                task.next.set(hub.free.replace(Some(task)));
            }
        }
    };
    for chunk in chunks {
        let range = chunk.as_ptr_range();
        let (before, of_it) = split(rest, range.start);
        let (of_it, after) = split(of_it, range.end);
        keep(before);
        if of_it.len() == CHUNK {
            retire_chunk(chunk);
        } else {
            keep(of_it);
        }
        rest = after;
    }
    keep(rest);
}

/// Those below an address, and the others.
fn split<'a>(sorted: &'a [&'static Task], at: *const Task) -> (&'a [&'static Task], &'a [&'static Task]) {
    let below = sorted.iter().take_while(|task| ptr::from_ref(**task) < at).count();
    sorted.split_at(below)
}

fn retire_chunk(chunk: &'static [Task]) {
    let tickets = chunk.iter().map(|task| task.ticket.load(Ordering::Relaxed));
    TICKETS.fetch_max(tickets.max().unwrap_or(0), Ordering::AcqRel);
    // SAFETY: R1: whole pages of a mapping of our own; what is left of free blocks is known to be nothing.
    unsafe { mem::discard(chunk.as_ptr().addr(), BYTES) };
    RETIRED.lock().push(Chunk(chunk));
}

/// A block from the common list, or a chunk of one.
pub(super) fn take_common() -> &'static Task {
    let free = FREE.lock().pop();
    free.map_or_else(
        || {
            let chunk: &'static [Task] = Box::leak(Box::new([Task::blank()]));
            CHUNKS.lock().push(Chunk(chunk));
            &chunk[0]
        },
        |task| task.0,
    )
}

/// Gives a block back (T1). Called once per life, by the last of owner and join.
#[inline]
pub(super) fn recycle(task: &'static Task) {
    // SAFETY: T1, T2: nobody else looks at this life any more.
    unsafe { *task.name.get() = None };
    let owner = task.hub.swap(ptr::null_mut(), Ordering::AcqRel);
    task.ticket.fetch_add(1, Ordering::Relaxed);
    match Hub::try_current() {
        // On the hub's own list a block that another OS thread took would never be found by the next that spawns from there.
        Some(hub) if ptr::eq(hub.shared, owner) && !task.marks.get(Marks::COMMON) => {
            task.next.set(hub.free.replace(Some(task)))
        }
        _ => recycle_common(task),
    }
}

#[cold]
#[inline(never)]
fn recycle_common(task: &'static Task) {
    FREE.lock().push(TaskRef(task));
}

/// The memory of a hub, kept by its OS thread.
pub(in crate::hub) struct Keep(*mut Hub);

impl Keep {
    pub(in crate::hub) fn new(hub: Hub) -> (Keep, &'static Hub) {
        sys::last::prepare();
        let hub = Box::into_raw(Box::new(hub));
        // SAFETY: it is there until `free`; see there.
        (Keep(hub), unsafe { &*hub })
    }

    /// Has an ended hub freed at the very end of its OS thread. Until then destructors of thread-locals may run frames that
    /// name it: of generators and greenlets of the native stack that were suspended in code which the hub had called.
    pub(in crate::hub) fn retire(self) {
        // SAFETY: `free` says when.
        unsafe { sys::last::at_end(free, self.0.cast()) };
    }
}

/// Frees a hub that has ended; `false` if a fiber of the native stack is still suspended, which may name it.
///
/// # Safety
/// After the destructors of the thread-locals of the hub's OS thread, with the pointer of its `Keep`; once, if it gives
/// `true`.
unsafe fn free(hub: *mut ()) -> bool {
    if current::any_begun() {
        return false;
    }
    // SAFETY: made by `Box::into_raw`. Nothing of the native stack is left but what called this, no fiber above it is, and
    // green threads that were lost never run again: so nothing names it any more.
    let hub = unsafe { Box::from_raw(hub.cast::<Hub>()) };
    let (shared, tasks) = (hub.shared, [Some(hub.native), hub.current.get()]);
    crate::hub::discard(hub);
    // After the hub: what has these next has them for itself.
    tasks.into_iter().flatten().for_each(recycle);
    shared.spare();
    true
}

/// Gives the unused blocks of a hub that ends to the others.
pub(in crate::hub) fn give_back(hub: &Hub) {
    let mut free = FREE.lock();
    while let Some(task) = hub.free.take() {
        hub.free.set(task.next.take());
        free.push(TaskRef(task));
    }
}

/// All unfinished green threads of a hub, in no order. For its own OS thread.
pub(crate) fn all_of(hub: &Hub) -> Vec<&'static Task> {
    let chunks = CHUNKS.lock();
    let blocks = chunks.iter().flat_map(|chunk| chunk.0.iter());
    // The owner's fields are read only after `hub` says that we own the block (T5).
    let live = blocks.filter(|task| !task.is_finished());
    let mine = live.filter(|task| ptr::eq(task.hub.load(Ordering::Acquire), hub.shared));
    let seen = |task: &&'static Task| !super::is_native(task.id.get()) && !task.marks.get(Marks::RESTS);
    mine.filter(seen).collect()
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::CHUNKS;
    use crate::hub::Hubs;

    /// The pattern of accept and dispatch: blocks come back to where the next spawn takes them from.
    #[test]
    fn spawns_from_another_os_thread_use_the_same_blocks_again() {
        let hubs = Hubs::new(1).unwrap();
        let chunks = || CHUNKS.lock().len();
        let before = chunks();
        for _ in 0..100 {
            for n in 0..50 {
                let spawned = hubs.spawn(move || n).unwrap();
                if n % 2 == 0 {
                    assert_eq!(spawned.join().unwrap(), n);
                }
            }
            hubs.join();
        }
        // Other tests take some meanwhile.
        assert!(chunks() < before + 1000, "{} of {before}", chunks());
    }
}
