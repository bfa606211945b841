//! The memory of tasks: leaked chunks of blocks, and the free lists of each hub and of the process.
//!
//! A chunk is never unmapped, because wakers and waiters of ended tasks still look at its blocks. But when there is
//! time, a chunk is *retired* if all of its blocks are free: its pages go back to the system and read as zeros. A block
//! of zeros is one without a hub.
//!
//! # Invariants
//! - **BLOCK-1** The blocks of a retired chunk are in no free list, and their `hub` was null before. Code that has an
//!   old waiter or waker of such a block looks at its atomics alone, and finds no hub.
//! - **BLOCK-2** A chunk that comes back gets tickets above all that blocks of retired chunks ever had (TASK-1).

use std::cell::Cell;
use std::panic::Location;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};

use super::block::{Task, TaskRef, prepare};
use super::marks::{self, Marks, NATIVE, State};
use crate::hub::shared::{self, Shared};
use crate::sys::fork::{Global, Order};
use crate::sys::mem;

struct Chunk(&'static [Task]);
// SAFETY: TASK-5: a chunk in the lists below is used only through its atomics, or by code that has taken a free block,
// which then is its only owner.
unsafe impl Send for Chunk {}

static CHUNKS: Global<Vec<Chunk>> = Global::new(Order::Chunks, Vec::new());
static FREE: Global<Vec<TaskRef>> = Global::new(Order::Free, Vec::new());
static RETIRED: Global<Vec<Chunk>> = Global::new(Order::Retired, Vec::new());
/// The highest ticket of a block in a retired chunk (BLOCK-2).
static TICKETS: AtomicU64 = AtomicU64::new(1);
/// Blocks of a chunk. A block has 192 bytes, so a chunk is three pages.
const CHUNK: usize = 64;
const BYTES: usize = CHUNK * size_of::<Task>();

/// The free blocks of one hub.
#[derive(Default)]
pub(in crate::hub) struct Blocks(Cell<Option<&'static Task>>);

impl Blocks {
    /// Takes a block from this list, from the common list, or from a new chunk.
    #[inline]
    pub(super) fn take(&self) -> &'static Task {
        self.pop().unwrap_or_else(|| refill(self))
    }

    #[inline]
    fn pop(&self) -> Option<&'static Task> {
        let task = self.0.get()?;
        self.0.set(task.next.take());
        Some(task)
    }

    #[inline]
    fn push(&self, task: &'static Task) {
        task.next.set(self.0.replace(Some(task)));
    }

    /// Gives the free blocks of a hub that ends to the common list.
    pub(in crate::hub) fn give_back(&self) {
        let mut free = FREE.lock();
        while let Some(task) = self.pop() {
            free.push(TaskRef::new(task));
        }
    }

    /// All unfinished green threads of the hub that these blocks belong to, in no order.
    pub(in crate::hub) fn all_of(&self, shared: &Shared) -> Vec<&'static Task> {
        let chunks = CHUNKS.lock();
        let blocks = chunks.iter().flat_map(|chunk| chunk.0.iter());
        // A block's plain fields are read only after `hub` has said that this hub owns it (TASK-5).
        let live = blocks.filter(|task| !task.is_finished());
        let mine = live.filter(|task| ptr::eq(task.hub.load(Ordering::Acquire), shared));
        // The native task and runners at rest are no green threads of the user.
        let seen = |task: &&'static Task| !marks::is_native(task.id.get()) && !task.marks.get(Marks::RESTS);
        mine.filter(seen).collect()
    }
}

#[cold]
fn refill(blocks: &Blocks) -> &'static Task {
    if let Some(task) = FREE.lock().pop() {
        return task.get();
    }
    // A retired chunk before a new one: its addresses are mapped already.
    let retired = RETIRED.lock().pop();
    let chunk = match retired {
        Some(Chunk(chunk)) => {
            let ticket = TICKETS.load(Ordering::Acquire) + 1;
            // SAFETY: BLOCK-1: the blocks are in no list and have no owner, they were blank once, and their pages read
            // as zeros.
            chunk.iter().for_each(|task| unsafe { Task::revive(task, ticket) });
            chunk
        }
        None => {
            let chunk = new_chunk();
            CHUNKS.lock().push(Chunk(chunk));
            chunk
        }
    };
    // One block is for the caller, the others are for the next spawns of this hub.
    chunk[1..].iter().for_each(|task| blocks.push(task));
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
    // SAFETY: a fresh mapping with room for `CHUNK` tasks, aligned to a page. It is never unmapped, and no other code
    // knows it.
    unsafe {
        (0..CHUNK).for_each(|index| first.add(index).write(Task::blank()));
        std::slice::from_raw_parts(first, CHUNK)
    }
}

/// Retires each chunk if all of its blocks are free, in this hub's list or in the common one.
pub(in crate::hub) fn retire(blocks: &Blocks) {
    if !BYTES.is_multiple_of(mem::page()) {
        return;
    }
    // Out of the lists first: no other OS thread can take a block while this decides.
    let mut free: Vec<&'static Task> = FREE.lock().drain(..).map(TaskRef::get).collect();
    free.extend(std::iter::from_fn(|| blocks.pop()));
    let is_mapped = |chunk: &&'static [Task]| chunk.len() == CHUNK && chunk.as_ptr().addr().is_multiple_of(mem::page());
    let mut chunks: Vec<_> = CHUNKS.lock().iter().map(|chunk| chunk.0).filter(is_mapped).collect();
    free.sort_unstable_by_key(|task| ptr::from_ref(*task));
    chunks.sort_unstable_by_key(|chunk| chunk.as_ptr());
    let mut rest = &free[..];
    // Puts blocks back into the list that they came from, as `recycle` does.
    let keep = |tasks: &[&'static Task]| {
        for task in tasks {
            if task.marks.get(Marks::COMMON) {
                FREE.lock().push(TaskRef::new(task));
            } else {
                blocks.push(task);
            }
        }
    };
    // Both lists are sorted by address, so the blocks of a chunk lie together.
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

/// The tasks below an address, and the others.
fn split<'a>(sorted: &'a [&'static Task], at: *const Task) -> (&'a [&'static Task], &'a [&'static Task]) {
    let below = sorted.iter().take_while(|task| ptr::from_ref(**task) < at).count();
    sorted.split_at(below)
}

fn retire_chunk(chunk: &'static [Task]) {
    let tickets = chunk.iter().map(|task| task.ticket.load(Ordering::Relaxed));
    // Noted before the pages lose the tickets: blocks of this chunk begin above them when it comes back (BLOCK-2).
    TICKETS.fetch_max(tickets.max().unwrap_or(0), Ordering::AcqRel);
    // SAFETY: BLOCK-1: these are whole pages of a mapping of our own. The blocks are free: they own nothing, so their
    // contents are not needed.
    unsafe { mem::discard(chunk.as_ptr().addr(), BYTES) };
    // Only now can `refill` find the chunk.
    RETIRED.lock().push(Chunk(chunk));
}

/// Takes a block from the common list, or makes a chunk of one block.
pub(super) fn take_common() -> &'static Task {
    let free = FREE.lock().pop();
    free.map_or_else(
        || {
            let chunk: &'static [Task] = Box::leak(Box::new([Task::blank()]));
            CHUNKS.lock().push(Chunk(chunk));
            &chunk[0]
        },
        TaskRef::get,
    )
}

/// Gives a block back (TASK-1). `here` is the hub of the calling OS thread.
///
/// # Safety
/// Called once per life, by the owner or the join, whichever is last: no other code of this life uses the block.
#[inline]
pub(in crate::hub) unsafe fn recycle(task: &'static Task, here: Option<(&'static Shared, &'static Blocks)>) {
    // SAFETY: the caller guarantees that the owner and the join are both finished with this life, so no other code
    // reads its name (TASK-2).
    unsafe { task.set_name(None) };
    // From here on old wakers and waiters find no hub, and a ticket that has moved.
    let owner = task.hub.swap(ptr::null_mut(), Ordering::AcqRel);
    task.ticket.fetch_add(1, Ordering::Relaxed);
    match here {
        // A block of the common list was taken by an OS thread that spawns on other hubs. It goes back there, where the
        // next such spawn finds it.
        Some((shared, blocks)) if ptr::eq(shared, owner) && !task.marks.get(Marks::COMMON) => blocks.push(task),
        _ => recycle_common(task),
    }
}

#[cold]
#[inline(never)]
fn recycle_common(task: &'static Task) {
    FREE.lock().push(TaskRef::new(task));
}

/// Makes the task that stands for the native stack of a new hub.
pub(in crate::hub) fn native(shared: &'static Shared, place: &'static Location<'static>) -> &'static Task {
    let task = take_common();
    prepare(task, shared::next_id() | NATIVE, shared, place, None, 0);
    task.state.set(State::Running);
    task
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::CHUNKS;
    use crate::hub::Hubs;

    /// As when one OS thread accepts and others handle: blocks come back to where the next spawn takes them from.
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
        // Other tests take some chunks meanwhile.
        assert!(chunks() < before + 1000, "{} of {before}", chunks());
    }
}
