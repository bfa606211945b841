//! The memory of tasks: leaked chunks, and free lists of blocks of a hub and of the process.

use std::ptr;
use std::sync::atomic::Ordering;

use super::{Marks, Task, TaskRef};
use crate::fiber::current;
use crate::hub::Hub;
use crate::sys;
use crate::sys::fork::{Global, Order};

struct Chunk(&'static [Task]);
// SAFETY: T5: the lists below hand blocks from thread to thread only while nobody owns them.
unsafe impl Send for Chunk {}

static CHUNKS: Global<Vec<Chunk>> = Global::new(Order::Chunks, Vec::new());
static FREE: Global<Vec<TaskRef>> = Global::new(Order::Free, Vec::new());
const CHUNK: usize = 64;

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
    let chunk: &'static [Task] = Box::leak((0..CHUNK).map(|_| Task::blank()).collect());
    CHUNKS.lock().push(Chunk(chunk));
    for task in &chunk[1..] {
        task.next.set(hub.free.replace(Some(task)));
    }
    &chunk[0]
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
        _ => FREE.lock().push(TaskRef(task)),
    }
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
