//! The memory of tasks: leaked chunks of blocks, and the free lists of each hub and of the process.
//!
//! A chunk is never unmapped, because wakers and waiters of ended tasks still look at its blocks. But when there is
//! time, a chunk is *retired* if all of its blocks are free: its pages go back to the system and read as zeros. A block
//! of zeros is one without a hub.
//!
//! # Invariants
//! - **R1** The blocks of a retired chunk are in no free list, and their `hub` was null before. Code that has an old
//!   waiter or waker of such a block looks at its atomics alone, and finds no hub.
//! - **R2** A chunk that comes back gets tickets above all that blocks of retired chunks ever had (T1).

use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Marks, Task, TaskRef};
use crate::fiber::current;
use crate::hub::Hub;
use crate::sys::fork::{Global, Order};
use crate::sys::{self, mem};

struct Chunk(&'static [Task]);
// SAFETY: T5: a chunk in the lists below is used only through its atomics, or by code that has taken a free block,
// which then is its only owner.
unsafe impl Send for Chunk {}

static CHUNKS: Global<Vec<Chunk>> = Global::new(Order::Chunks, Vec::new());
static FREE: Global<Vec<TaskRef>> = Global::new(Order::Free, Vec::new());
static RETIRED: Global<Vec<Chunk>> = Global::new(Order::Retired, Vec::new());
/// The highest ticket of a block in a retired chunk (R2).
static TICKETS: AtomicU64 = AtomicU64::new(1);
/// Blocks of a chunk. A block has 192 bytes, so a chunk is three pages.
const CHUNK: usize = 64;
const BYTES: usize = CHUNK * size_of::<Task>();

/// Takes a block from the hub's free list, from the common list, or from a new chunk.
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
    // A retired chunk before a new one: its addresses are mapped already.
    let retired = RETIRED.lock().pop();
    let chunk = match retired {
        Some(Chunk(chunk)) => {
            let ticket = TICKETS.load(Ordering::Acquire) + 1;
            // SAFETY: R1: the blocks are in no list and have no owner, they were blank once, and their pages read as
            // zeros.
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
    // SAFETY: a fresh mapping with room for `CHUNK` tasks, aligned to a page. It is never unmapped, and no other code
    // knows it.
    unsafe {
        (0..CHUNK).for_each(|index| first.add(index).write(Task::blank()));
        std::slice::from_raw_parts(first, CHUNK)
    }
}

/// Retires each chunk if all of its blocks are free, in this hub's list or in the common one.
pub(in crate::hub) fn retire(hub: &Hub) {
    if !BYTES.is_multiple_of(mem::page()) {
        return;
    }
    // Out of the lists first: no other OS thread can take a block while this decides.
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
    // Puts blocks back into the list that they came from, as `recycle` does.
    let keep = |tasks: &[&'static Task]| {
        for task in tasks {
            if task.marks.get(Marks::COMMON) {
                FREE.lock().push(TaskRef(task));
            } else {
                task.next.set(hub.free.replace(Some(task)));
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
    // Noted before the pages lose the tickets: blocks of this chunk begin above them when it comes back (R2).
    TICKETS.fetch_max(tickets.max().unwrap_or(0), Ordering::AcqRel);
    // SAFETY: R1: these are whole pages of a mapping of our own. The blocks are free: they own nothing, so their
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
        |task| task.0,
    )
}

/// Gives a block back (T1). Called once per life, by the owner or the join, whichever is last.
#[inline]
pub(super) fn recycle(task: &'static Task) {
    // SAFETY: T1, T2: the owner and the join are both finished with this life, so no other code reads its name.
    unsafe { *task.name.get() = None };
    // From here on old wakers and waiters find no hub, and a ticket that has moved.
    let owner = task.hub.swap(ptr::null_mut(), Ordering::AcqRel);
    task.ticket.fetch_add(1, Ordering::Relaxed);
    match Hub::try_current() {
        // A block of the common list was taken by an OS thread that spawns on other hubs. It goes back there, where the
        // next such spawn finds it.
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

/// The memory of a hub, which its OS thread keeps.
pub(in crate::hub) struct OwnedHub(*mut Hub);

impl OwnedHub {
    pub(in crate::hub) fn new(hub: Hub) -> (OwnedHub, &'static Hub) {
        sys::last::prepare();
        let hub = Box::into_raw(Box::new(hub));
        // SAFETY: the hub stays where it is until `free`, which runs when no code refers to it any more.
        (OwnedHub(hub), unsafe { &*hub })
    }

    /// Has an ended hub freed at the very end of its OS thread. Until then destructors of thread-locals may resume
    /// frames that refer to it: those of generators and greenlets of the native stack that were suspended in code
    /// called by the hub.
    pub(in crate::hub) fn retire(self) {
        // SAFETY: `at_end` calls `free` after the destructors of the thread-locals, with this `OwnedHub`'s pointer, and
        // not again after it has returned `true`, as `free` requires.
        unsafe { sys::last::at_end(free, self.0.cast()) };
    }
}

/// Frees a hub that has ended; `false` if a fiber of the native stack is still suspended, because it may refer to the
/// hub.
///
/// # Safety
/// The destructors of the thread-locals of the hub's OS thread have run, `hub` is the pointer of its `OwnedHub`, and no
/// call before has returned `true`.
unsafe fn free(hub: *mut ()) -> bool {
    if current::any_begun() {
        return false;
    }
    // SAFETY: the caller guarantees that the pointer is the `OwnedHub`'s, made by `Box::into_raw`, and was not freed
    // before. No code refers to the hub any more: the native stack has only the frames that call this, no fiber is
    // suspended above it, and green threads that were lost never run again.
    let hub = unsafe { Box::from_raw(hub.cast::<Hub>()) };
    // The native task, and the task that `end` has made the running one.
    let (shared, tasks) = (hub.shared, [Some(hub.native), hub.current.get()]);
    crate::hub::discard(hub);
    // After the hub: from here on these blocks and `shared` may serve another hub.
    tasks.into_iter().flatten().for_each(recycle);
    shared.spare();
    true
}

/// Gives the free blocks of a hub that ends to the common list.
pub(in crate::hub) fn give_back(hub: &Hub) {
    let mut free = FREE.lock();
    while let Some(task) = hub.free.take() {
        hub.free.set(task.next.take());
        free.push(TaskRef(task));
    }
}

/// All unfinished green threads of a hub, in no order. For the hub's own OS thread.
pub(crate) fn all_of(hub: &Hub) -> Vec<&'static Task> {
    let chunks = CHUNKS.lock();
    let blocks = chunks.iter().flat_map(|chunk| chunk.0.iter());
    // A block's plain fields are read only after `hub` has said that this hub owns it (T5).
    let live = blocks.filter(|task| !task.is_finished());
    let mine = live.filter(|task| ptr::eq(task.hub.load(Ordering::Acquire), hub.shared));
    // The native task and runners at rest are no green threads of the user.
    let seen = |task: &&'static Task| !super::is_native(task.id.get()) && !task.marks.get(Marks::RESTS);
    mine.filter(seen).collect()
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
