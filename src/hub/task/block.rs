//! The control block of a task: its fields, which OS thread may touch each (see [`task`](super)), and the switch to its
//! stack.

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::fmt::Write;
use std::mem::{MaybeUninit, size_of};
use std::panic::Location;
use std::ptr;
use std::rc::Rc;
use std::sync::Arc;
#[cfg(not(all(test, loom)))]
use std::sync::atomic::AtomicU8;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

#[cfg(all(test, loom))]
use loom::sync::atomic::AtomicU8;

use super::marks::{Marks, State};
use crate::fiber::{Fiber, Outcome};
use crate::hub::name::{Buffer, Name};
use crate::hub::shared::Shared;
use crate::hub::slot::{Ended, Slot};
use crate::hub::timer;
use crate::hub::waiter::{Waiter, Wake, Why};
use crate::isolation;
use crate::stack::Whose;
use crate::sys::fork::fork_epoch;
use crate::sys::{inside, prefetch};

pub(super) const DONE: u8 = 1;
pub(super) const DETACHED: u8 = 2;
pub(super) const JOINER: u8 = 4;
pub(super) const RELEASED: u8 = 8;
pub(super) const LOST: u8 = 16;
pub(super) const LINKED: u8 = 32;
pub(super) const SCOPED: u8 = 64;
pub(super) const WOKEN: u8 = 128;

/// Drops the result in the slot, by its type. To call it is safe for the owner of the slot (TASK-3), if the type is
/// that of the task's result.
pub(in crate::hub) type DropResult = unsafe fn(&'static Task);
pub(super) type Body = Fiber<(), (), DropResult>;

/// How a resume of a task ended.
pub(in crate::hub) enum Stop {
    Suspended,
    Ended(Stopped),
}

/// A green thread whose fiber has ended, and lies in the block still. Only [`enter`] makes one, at the end of the
/// fiber.
pub(in crate::hub) struct Stopped {
    task: &'static Task,
    drop_result: Option<DropResult>,
}

impl Stopped {
    /// Drops the fiber: the stack goes back to the pool.
    #[inline(always)]
    pub(super) fn drop_fiber(self) -> Ending {
        let Stopped { task, drop_result } = self;
        // SAFETY: `enter` made this value, so the fiber was initialized, and has ended. An ended fiber is not entered
        // again, so there is one such value in a life of the block, and this uses it up: the fiber is dropped once.
        unsafe { (*task.fiber.get()).assume_init_drop() };
        Ending { task, drop_result }
    }
}

/// A task whose fiber or future has ended and is dropped: the owner's right to set `DONE`, once in a life of the block.
pub(super) struct Ending {
    task: &'static Task,
    drop_result: Option<DropResult>,
}

impl Ending {
    #[inline(always)]
    pub(super) fn task(&self) -> &'static Task {
        self.task
    }

    #[inline(always)]
    pub(super) fn into_parts(self) -> (&'static Task, Option<DropResult>) {
        (self.task, self.drop_result)
    }

    /// The end of a stackless task.
    ///
    /// # Safety
    /// The future of the task has ended and is dropped, and there was no other `Ending` in this life of the block.
    #[inline(always)]
    pub(super) unsafe fn of_future(task: &'static Task, drop_result: DropResult) -> Ending {
        Ending {
            task,
            drop_result: Some(drop_result),
        }
    }
}

/// A set of thread-locals.
pub(crate) type Context = isolation::Context<ContextRunners>;

/// What a hub keeps in a context.
#[derive(Default)]
pub(crate) struct ContextRunners {
    /// How many stackless tasks are members of the context.
    pub(in crate::hub) tasks: Cell<usize>,
    /// The runner of those tasks, while it rests.
    pub(in crate::hub) resting: Cell<Option<&'static Task>>,
}

impl ContextRunners {
    pub(in crate::hub) const fn none() -> ContextRunners {
        ContextRunners {
            tasks: Cell::new(0),
            resting: Cell::new(None),
        }
    }
}

/// The control block of one green thread, of a stackless task, or of an OS thread's native stack.
///
/// Three cache lines, in the order of use: what a switch touches, what a park touches, what the end touches.
#[repr(C, align(64))]
pub(crate) struct Task {
    pub(in crate::hub) next: Cell<Option<&'static Task>>,
    /// The fiber; for a stackless task, its future (`stackless.rs`).
    pub(super) fiber: UnsafeCell<MaybeUninit<Body>>,
    /// The context that the task runs in; `None`: the native one.
    pub(in crate::hub) context: Cell<Option<&'static Context>>,
    pub(in crate::hub) state: Cell<State>,
    /// Why the last park ended.
    pub(in crate::hub) woken_by: Cell<Wake>,
    pub(crate) interrupt: Cell<u8>,
    pub(crate) shield: Cell<u8>,
    pub(crate) marks: Marks,
    pub(super) join: AtomicU8,
    /// Which kind of result lies in `slot`.
    pub(super) in_slot: Cell<Ended>,
    /// How the task ended. Unlike `in_slot` this does not change when the result is taken.
    pub(super) ended: Cell<Ended>,

    pub(in crate::hub) ticket: AtomicU64,
    pub(in crate::hub) hub: AtomicPtr<Shared>,
    pub(in crate::hub) why: Cell<Why>,
    pub(super) near: Cell<Near>,
    pub(in crate::hub) id: Cell<u64>,
    pub(in crate::hub) place: Cell<&'static Location<'static>>,
    name: UnsafeCell<Option<Arc<Box<str>>>>,

    cold: UnsafeCell<Option<Box<ColdState>>>,
    pub(super) joiner: UnsafeCell<Option<Waiter>>,
    pub(super) slot: Slot,
}

const _: () = assert!(size_of::<Task>() <= 192 || cfg!(any(feature = "sanitizer", loom)));

/// A set of green-thread locals, as far as the hub knows it; `thread::local` has the rest.
pub(crate) trait LocalSet: Any {
    /// Copies of the values that each child inherits. Calls code of the user.
    fn inherited(&self) -> Option<Inherited>;
}

/// Makes the set of a child, on the OS thread of the child.
pub(crate) type Inherited = Box<dyn FnOnce() -> Rc<dyn LocalSet> + Send>;

/// Fields that few green threads need. They are kept out of the block.
#[derive(Default)]
pub(crate) struct ColdState {
    pub(crate) locals: Option<Rc<dyn LocalSet>>,
    pub(crate) guards: Vec<Guard>,
    pub(crate) backtrace: Option<String>,
}

/// One armed [`Timeout`](crate::time::Timeout).
pub(crate) struct Guard {
    pub(crate) id: u64,
    pub(crate) deadline: u64,
    pub(crate) expired: bool,
    /// Whether there is a `Timeout::run` to catch the expiry.
    pub(crate) caught: bool,
    /// A patched call has told of the expiry.
    pub(crate) told: bool,
    /// A patched sleep has ended early for the expiry.
    #[cfg(feature = "monkey")]
    pub(crate) cut: bool,
    pub(crate) timer: Option<timer::Key>,
}

/// A task that may be named on any OS thread.
#[derive(Clone, Copy)]
pub(crate) struct TaskRef(&'static Task);

// SAFETY: TASK-5: off the owner's OS thread a `TaskRef` is only compared, asked for its atomics, or put into a message
// to the owner.
unsafe impl Send for TaskRef {}
// SAFETY: as for `Send`: all that a shared `TaskRef` offers to other OS threads is atomic, and it has no cells of its
// own.
unsafe impl Sync for TaskRef {}

impl TaskRef {
    pub(crate) fn new(task: &'static Task) -> TaskRef {
        TaskRef(task)
    }

    /// The hub that the task's block belongs to now.
    pub(crate) fn shared(self) -> Option<&'static Shared> {
        self.0.shared()
    }

    /// The task itself. Only for the owner's OS thread, which the caller checks by [`shared`](Self::shared).
    pub(in crate::hub) fn get(self) -> &'static Task {
        self.0
    }

    /// Whether the task has ended; an atomic look, from any OS thread.
    pub(crate) fn is_finished(self) -> bool {
        self.0.is_finished()
    }

    /// Whether the task can never run again: its hub ended before the task did, or this is a forked child and the hub
    /// is the parent's. Unlike [`Waiter::is_lost`] this looks at `LOST`, because a waker outlives its task: that task
    /// may well have ended as usual, and `DONE` would not tell.
    pub(crate) fn is_lost(self) -> bool {
        self.0.join.load(Ordering::Acquire) & LOST != 0
            || fork_epoch() != 0 && self.shared().is_some_and(Shared::is_of_parent)
    }

    pub(crate) fn is(self, task: &Task) -> bool {
        ptr::eq(self.0, task)
    }

    pub(crate) fn address(self) -> usize {
        ptr::from_ref(self.0).addr()
    }
}

/// An address near what a resume of the task touches first: the hub has it fetched into the cache before the resume.
///
/// - of a green thread: where its stack was when it last suspended
/// - of a stackless task that waits: its future
/// - of a stackless task that is being polled: its runner (STACKLESS-5 of `stackless.rs`)
#[derive(Clone, Copy)]
pub(super) struct Near(*const u8);

impl Near {
    const NOTHING: Near = Near(ptr::null());

    pub(in crate::hub) fn stack(at: *const u8) -> Near {
        Near(at)
    }

    pub(in crate::hub) fn future<F: ?Sized>(future: &F) -> Near {
        Near(ptr::from_ref(future).cast())
    }

    pub(in crate::hub) fn runner(runner: &'static Task) -> Near {
        Near(ptr::from_ref(runner).cast())
    }

    /// The runner.
    ///
    /// # Safety
    /// This was made by [`runner`](Self::runner), or is that of a blank block.
    pub(in crate::hub) unsafe fn as_runner(self) -> Option<&'static Task> {
        // SAFETY: the caller guarantees that the pointer is null or came from a `&'static Task`.
        unsafe { self.0.cast::<Task>().as_ref() }
    }
}

impl Task {
    pub(super) fn blank() -> Task {
        Task {
            next: Cell::new(None),
            fiber: UnsafeCell::new(MaybeUninit::uninit()),
            context: Cell::new(None),
            state: Cell::new(State::Idle),
            woken_by: Cell::new(Wake::Ready),
            interrupt: Cell::new(0),
            shield: Cell::new(0),
            marks: Marks::default(),
            id: Cell::new(0),
            why: Cell::new(Why::NOTHING),
            place: Cell::new(Location::caller()),
            cold: UnsafeCell::new(None),
            near: Cell::new(Near::NOTHING),
            name: UnsafeCell::new(None),
            ticket: AtomicU64::new(1),
            hub: AtomicPtr::new(ptr::null_mut()),
            join: AtomicU8::new(0),
            in_slot: Cell::new(Ended::Empty),
            joiner: UnsafeCell::new(None),
            slot: Slot::empty(),
            ended: Cell::new(Ended::Empty),
        }
    }

    /// Turns a block of zeros into a blank one. The atomics `hub` and `join` stay zero, because other OS threads may be
    /// looking at them; of the atomics only `ticket` is set.
    ///
    /// # Safety
    /// The block was made blank once, its pages read as zeros since, and no owner, join or free list has it (BLOCK-1 of
    /// `blocks.rs`).
    pub(super) unsafe fn revive(at: *const Task, ticket: u64) {
        let (at, blank) = (at.cast_mut(), Task::blank());
        // SAFETY: the caller guarantees that no other code accesses the plain fields of this block. Writing over them
        // drops nothing, which is right because zeros own nothing.
        unsafe {
            (&raw mut (*at).next).write(blank.next);
            (&raw mut (*at).context).write(blank.context);
            (&raw mut (*at).state).write(blank.state);
            (&raw mut (*at).woken_by).write(blank.woken_by);
            (&raw mut (*at).interrupt).write(blank.interrupt);
            (&raw mut (*at).shield).write(blank.shield);
            (&raw mut (*at).marks).write(blank.marks);
            (&raw mut (*at).in_slot).write(blank.in_slot);
            (&raw mut (*at).ended).write(blank.ended);
            (&raw mut (*at).why).write(blank.why);
            (&raw mut (*at).near).write(blank.near);
            (&raw mut (*at).id).write(blank.id);
            (&raw mut (*at).place).write(blank.place);
            (&raw mut (*at).name).write(blank.name);
            (&raw mut (*at).cold).write(blank.cold);
            (&raw mut (*at).joiner).write(blank.joiner);
            (*at).ticket.store(ticket, Ordering::Relaxed);
        }
    }

    pub(crate) fn id(&self) -> u64 {
        self.id.get()
    }

    pub(crate) fn place(&self) -> &'static Location<'static> {
        self.place.get()
    }

    pub(crate) fn name(&self) -> Option<Arc<Box<str>>> {
        // SAFETY: TASK-2: the name was written before the join was made, and does not change until recycling.
        unsafe { (*self.name.get()).clone() }
    }

    /// Writes the task's name into `bytes`. For a signal handler on the owner's OS thread, while the task runs.
    pub(in crate::hub) fn name_into(&self, bytes: &mut [u8]) -> usize {
        // SAFETY: TASK-2: the task runs, so its name is not being changed.
        let name = unsafe { (*self.name.get()).as_ref() };
        let name = Name {
            id: self.id(),
            name: name.map(|name| &***name),
        };
        let mut buffer = Buffer { bytes, len: 0 };
        let _ = write!(buffer, "{name}");
        buffer.len
    }

    /// What kind of stack lies in `slot`: the stack of this task, which runs, or that of a coroutine on top of it.
    pub(in crate::hub) fn whose(&self, slot: std::ops::Range<usize>) -> Whose {
        // SAFETY: the task runs and is not the native task, so its fiber is initialized.
        let base = unsafe { (*self.fiber.get()).assume_init_ref().address() };
        if !slot.contains(&base) {
            return Whose::Coroutine;
        }
        if self.owns_context() {
            Whose::Isolated
        } else if crate::isolation::is_off() {
            Whose::Shared
        } else {
            Whose::Local
        }
    }

    /// Whether the task is an isolated green thread, not a local one in the context of an isolated one.
    pub(in crate::hub) fn owns_context(&self) -> bool {
        self.context.get().is_some_and(|context| context.is_owned_by(self.id()))
    }

    pub(crate) fn state(&self) -> State {
        self.state.get()
    }

    pub(crate) fn why(&self) -> Why {
        self.why.get()
    }

    pub(crate) fn shared(&self) -> Option<&'static Shared> {
        let shared = self.hub.load(Ordering::Acquire);
        // SAFETY: the pointer is null or a `&'static Shared`: `Shared` blocks are leaked.
        unsafe { shared.as_ref() }
    }

    #[inline]
    pub(in crate::hub) fn invalidate_ticket(&self) {
        // A load and a store suffice: while the block has a life, only its owner writes the ticket. (`recycle` and
        // `Task::revive` write it between two lives.)
        self.ticket
            .store(self.ticket.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.join.load(Ordering::Acquire) & DONE != 0
    }

    pub(in crate::hub) fn is_scoped(&self) -> bool {
        self.join.load(Ordering::Relaxed) & SCOPED != 0
    }

    /// Calls `f` with the rarely used fields, which it makes if there are none. `f` runs no code of the user, and does
    /// not call this function.
    pub(crate) fn with_cold<R>(&self, f: impl FnOnce(&mut ColdState) -> R) -> R {
        let _inside = inside::enter();
        // SAFETY: TASK-5: this is the owner's OS thread. It is the only reference: no `f` in this crate calls this
        // function, and `inside` forbids a switch meanwhile.
        f(unsafe { (*self.cold.get()).get_or_insert_with(Box::default) })
    }

    #[inline]
    pub(in crate::hub) fn has_cold(&self) -> bool {
        // SAFETY: TASK-5: this is the owner's OS thread, and only a pointer is read.
        unsafe { (*self.cold.get()).is_some() }
    }

    #[cold]
    pub(super) fn swap_cold(&self, other: &Task) {
        // SAFETY: TASK-5: both tasks are of this OS thread's hub, and no `with_cold` of either is under way, because it
        // calls nothing that comes here.
        unsafe { ptr::swap(self.cold.get(), other.cold.get()) };
    }

    pub(in crate::hub) fn take_cold(&self) -> Option<Box<ColdState>> {
        // SAFETY: TASK-5: this is the owner's OS thread, and no `with_cold` is under way, because it calls nothing that
        // comes here.
        unsafe { (*self.cold.get()).take() }
    }

    /// An address near the base of the task's stack. Only for the green thread that runs.
    #[cfg(feature = "monkey")]
    pub(in crate::hub) fn base(&self) -> usize {
        // SAFETY: the task runs, so its fiber is initialized.
        unsafe { (*self.fiber.get()).assume_init_ref().address() }
    }

    /// The task that takes the kill of this one: itself, or its runner if it is stackless and being polled
    /// (STACKLESS-4).
    #[inline]
    pub(in crate::hub) fn interrupt_target(&'static self) -> &'static Task {
        if self.marks.get(Marks::STACKLESS) && self.state.get() == State::Running {
            // SAFETY: STACKLESS-5: a stackless task that is being polled has its runner there.
            unsafe { self.near.get().as_runner() }.unwrap_or(self)
        } else {
            self
        }
    }

    /// Whether no other task shares its thread-locals, such as the count of panics under way.
    pub(in crate::hub) fn is_alone_in_context(&self) -> bool {
        self.context.get().is_some_and(Context::is_last)
    }

    /// # Safety
    /// No other code reads the name: there is no join yet, or none any more (TASK-2).
    pub(in crate::hub) unsafe fn set_name(&self, name: Option<Arc<Box<str>>>) {
        // SAFETY: the caller guarantees that no other code reads the name.
        unsafe { *self.name.get() = name };
    }

    /// Called by a waker (STACKLESS-2), from any OS thread. `true` if the bit was not set before, so that the caller is
    /// to cause a poll.
    #[inline(always)]
    pub(in crate::hub) fn set_woken(&self) -> bool {
        set_woken(&self.join)
    }

    /// Suspends the running green thread.
    #[inline(always)]
    pub(in crate::hub) fn suspend(&self) {
        // Near the stack pointer that is about to be saved: `prefetch_stack` begins here.
        let here = 0u8;
        self.near.set(Near::stack(&raw const here));
        // SAFETY: only what parks or gives way (`park.rs`) and the runner's loop call this, on the task that runs, so
        // its fiber is initialized, and this stack is its own or one above it on the chain (FIBER-3).
        unsafe { (*self.fiber.get()).assume_init_ref().suspend_root(()) };
    }

    /// Asks the processor to fetch the part of the stack that a resume touches. The block itself was fetched one step
    /// before.
    #[inline(always)]
    pub(in crate::hub) fn prefetch_stack(&self) {
        let Near(at) = self.near.get();
        prefetch(at);
        prefetch(at.wrapping_add(64));
        prefetch(at.wrapping_add(128));
    }

    /// Asks the processor to fetch the block.
    #[inline(always)]
    pub(in crate::hub) fn prefetch(&self) {
        let block = ptr::from_ref(self).cast::<u8>();
        prefetch(block);
        prefetch(block.wrapping_add(64));
    }
}

/// Begins a life of a block. Only for a block that the caller has just taken from a free list.
#[inline]
pub(super) fn prepare(
    task: &'static Task,
    id: u64,
    shared: &'static Shared,
    place: &'static Location<'static>,
    name: Option<Arc<Box<str>>>,
    marks: u8,
) {
    task.id.set(id);
    task.place.set(place);
    task.interrupt.set(0);
    task.shield.set(0);
    task.marks.clear();
    task.marks.set(marks, true);
    task.in_slot.set(Ended::Empty);
    if name.is_some() {
        // SAFETY: TASK-2: the block was taken from a free list, so no other code knows it, and its join does not exist
        // yet.
        unsafe { task.set_name(name) };
    }
    // The plain cells are the owner's from here on, which may be another OS thread (TASK-5).
    task.hub.store(ptr::from_ref(shared).cast_mut(), Ordering::Release);
    // After the hub: a thread that sees a bit of this life, or sets one in it, finds the hub of this life
    // (`Hub::resolve_local`, STACKLESS-2).
    task.join.store(0, Ordering::Release);
}

/// # Safety
/// The task is of this OS thread, new or suspended, and has not ended. Its thread-locals are in use.
#[inline(always)]
pub(in crate::hub) unsafe fn enter(task: &'static Task) -> Stop {
    // SAFETY: the caller guarantees that the task is new or suspended, so its fiber is initialized and may be resumed.
    match unsafe { (*task.fiber.get()).assume_init_ref().enter(()) } {
        Outcome::Yielded(()) => Stop::Suspended,
        Outcome::Returned(drop_result) => Stop::Ended(Stopped {
            task,
            drop_result: Some(drop_result),
        }),
        // A root gives no panic (FIBER-5 of `fiber`): one that unwinds out of its body aborts.
        Outcome::Panicked(_) => Stop::Ended(Stopped {
            task,
            drop_result: None,
        }),
    }
}

/// Called by the owner before a poll (STACKLESS-2). Acquires what was done before the wakes that set the bit.
#[inline(always)]
pub(super) fn clear_woken(join: &AtomicU8) {
    if is_woken(join) {
        join.fetch_and(!WOKEN, Ordering::AcqRel);
    }
}

/// Looked at by the owner after a poll, once the task counts as waiting (STACKLESS-2).
#[inline(always)]
pub(super) fn is_woken(join: &AtomicU8) -> bool {
    join.load(Ordering::Acquire) & WOKEN != 0
}

/// Called by a waker (STACKLESS-2). `true` if the bit was not set before, so that the caller is to cause a poll.
/// Releases what was done before the wake, even if the bit was set already.
#[inline(always)]
pub(super) fn set_woken(join: &AtomicU8) -> bool {
    join.fetch_or(WOKEN, Ordering::AcqRel) & WOKEN == 0
}
