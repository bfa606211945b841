//! The control block of a green thread (a *task*), the slot of its result, and the two steps that need `unsafe`:
//! resuming a task, and settling its result.
//!
//! Blocks are *type-stable*: they come from leaked chunks and are recycled, never freed. So a `&'static Task` always
//! refers to a task, though perhaps to a later one. Access to the fields:
//!
//! | field | accessed by | how |
//! |---|---|---|
//! | `ticket`, `hub`, `join` | any OS thread | atomics |
//! | `id`, `place`, `name` | the side that has the join, and the owner | written before the join exists (T2) |
//! | `ended` | the owner until `DONE`, then the side that has the join | written once a life |
//! | `joiner`, `slot`, `outcome` | owner or join, by the bits of `join` | below |
//! | the rest | the owner: the OS thread of `hub` | plain cells; `cold` for the length of one call |
//!
//! # The bits of `join`
//! - `DONE`: set by the owner when the fiber has ended and the result lies in the slot.
//! - `DETACHED`: set by the join when it is dropped.
//! - `JOINER`: set by the join when a waiter lies in `joiner`. The join clears it only while `DONE` is not set.
//! - `RELEASED`: set by the owner after it has taken the waiter of a `JOINER` that it found when it set `DONE`.
//! - `LOST`: set with `DONE`, for a block that is never recycled.
//! - `LINKED`: set by the join when exit links lie in the register of `links.rs`. The owner runs them if it finds the
//!   bit when it sets `DONE`; the join runs them if `DONE` was first.
//! - `SCOPED`: set by the code that spawns a child of a scope.
//! - `WOKEN`: set by the wakers of a stackless task, see `stackless.rs`.
//!
//! ```text
//!   0 ──JOINER──► J ──DONE──► J|DONE ──RELEASED──► join takes the result, DETACHED, recycles
//!   0 ──DONE────► DONE ─────────────────────────► join takes the result, DETACHED, recycles
//!   0 ──DETACHED► DETACHED ──DONE──► owner drops the result, recycles
//!   J|DONE ──DETACHED──► …──RELEASED──► owner recycles
//! ```
//!
//! # Invariants
//! - **T1** A block is recycled once per life, by the owner or the join, whichever is last. Its ticket grows with each
//!   life and each wake, so a waiter of an older life or park never matches.
//! - **T2** What the join reads without atomics was written before the join was made, and does not change until
//!   recycling.
//! - **T3** `slot` and `outcome` belong to the owner until `DONE`, then to the join (or to the owner if `DETACHED` came
//!   first). `DONE` is set with release and read with acquire.
//! - **T4** `joiner` belongs to the join until `JOINER`, then to the side that next changes `join`.
//! - **T5** Owner-only fields are accessed only on the owner's OS thread. `Task` is `!Sync`. Only
//!   [`Waiter`](super::park::Waiter), [`TaskRef`] and [`Join`] carry a task to other OS threads, where they use atomics
//!   alone.

mod blocks;
mod join;
mod locals;
mod marks;
mod stackless;

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::fmt::Write;
use std::io;
use std::marker::PhantomData;
use std::mem::{MaybeUninit, size_of};
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::ptr;
use std::rc::Rc;
use std::sync::Arc;
#[cfg(not(all(test, loom)))]
use std::sync::atomic::AtomicU8;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

#[cfg(all(test, loom))]
use loom::sync::atomic::AtomicU8;

use super::context::Kind;
use super::links;
use super::name::{Buffer, Name};
use super::park::{Waiter, Why};
use super::remote::Shared;
use super::slot::Slot;
pub(crate) use super::slot::{Ended, Exit, Late};
use super::{Hub, budget, context, interrupt};
use crate::fiber::{Fiber, Outcome};
use crate::stack::{Stack, Whose};
use crate::sys::fork::fork_epoch;
use crate::sys::inside;
use crate::tls::Context;
pub(crate) use blocks::all_of;
pub(super) use blocks::{OwnedHub, give_back, retire};
use blocks::{recycle, take_block, take_common};
pub(crate) use join::Join;
use locals::end_locals;
pub(super) use locals::with_own_locals;
use marks::NATIVE;
pub(crate) use marks::{Marks, State, is_native, without_native};
pub(crate) use stackless::spawn_future;
pub(super) use stackless::{end_runners, interrupt_target, is_ours, of_waker, stack_at_hand, with_stack};

const DONE: u8 = 1;
const DETACHED: u8 = 2;
const JOINER: u8 = 4;
const RELEASED: u8 = 8;
const LOST: u8 = 16;
const LINKED: u8 = 32;
const SCOPED: u8 = 64;
const WOKEN: u8 = 128;

/// Drops the result in the slot, by its type.
type Settle = fn(&'static Task);
type Body = Fiber<(), (), Settle>;

/// The control block of one green thread, or of an OS thread's native stack.
///
/// Three cache lines, in the order of use: what a switch touches, what a park touches, what the end touches.
#[repr(C, align(64))]
pub(crate) struct Task {
    pub(super) next: Cell<Option<&'static Task>>,
    /// The fiber; for a stackless task, its future (`stackless.rs`).
    fiber: UnsafeCell<MaybeUninit<Body>>,
    /// The context that the task runs in; `None`: the native one.
    pub(super) context: Cell<Option<&'static Context>>,
    pub(super) state: Cell<State>,
    pub(super) wake: Cell<super::park::Wake>,
    pub(crate) interrupt: Cell<u8>,
    pub(crate) shield: Cell<u8>,
    pub(crate) marks: Marks,
    join: AtomicU8,
    outcome: Cell<Ended>,
    /// How the task ended. Unlike `outcome` it stays when the result is taken.
    ended: Cell<Ended>,

    pub(super) ticket: AtomicU64,
    pub(super) hub: AtomicPtr<Shared>,
    pub(super) why: Cell<Why>,
    /// Where the stack was when the task last suspended: the hub has it fetched into the cache before the resume.
    depth: Cell<*const u8>,
    id: Cell<u64>,
    place: Cell<&'static Location<'static>>,
    name: UnsafeCell<Option<Arc<Box<str>>>>,

    cold: UnsafeCell<Option<Box<ColdState>>>,
    joiner: UnsafeCell<Option<Waiter>>,
    slot: Slot,
}

const _: () = assert!(size_of::<Task>() <= 192 || cfg!(any(feature = "sanitizer", loom)));

/// Fields that few green threads need. They are kept out of the block.
#[derive(Default)]
pub(crate) struct ColdState {
    pub(crate) locals: Option<Rc<dyn Any>>,
    pub(crate) guards: Vec<interrupt::Guard>,
    pub(crate) backtrace: Option<String>,
}

/// What the caller of a spawn may choose.
pub(crate) struct Options {
    pub(crate) name: Option<Arc<Box<str>>>,
    /// `None`: the default size of the green thread's [`Kind`].
    pub(crate) stack_size: Option<usize>,
    pub(crate) locals: Option<Rc<dyn Any>>,
}

impl Options {
    /// Only a stack size.
    pub(crate) fn of_size(bytes: usize) -> Options {
        Options {
            name: None,
            stack_size: Some(bytes),
            locals: None,
        }
    }
}

/// A task that may be named on any OS thread.
#[derive(Clone, Copy)]
pub(crate) struct TaskRef(&'static Task);

// SAFETY: T5: off the owner's OS thread a `TaskRef` is only compared, asked for its atomics, or put into a message to
// the owner.
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
    pub(super) fn get(self) -> &'static Task {
        self.0
    }

    /// Whether the task has ended; an atomic look, from any OS thread.
    pub(crate) fn is_finished(self) -> bool {
        self.0.is_finished()
    }

    /// Whether the task can never run again: its hub ended before it did, or this is a forked child and the hub is the
    /// parent's.
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

impl Task {
    fn blank() -> Task {
        Task {
            next: Cell::new(None),
            fiber: UnsafeCell::new(MaybeUninit::uninit()),
            context: Cell::new(None),
            state: Cell::new(State::Idle),
            wake: Cell::new(super::park::Wake::Ready),
            interrupt: Cell::new(0),
            shield: Cell::new(0),
            marks: Marks::default(),
            id: Cell::new(0),
            why: Cell::new(Why::NOTHING),
            place: Cell::new(Location::caller()),
            cold: UnsafeCell::new(None),
            depth: Cell::new(ptr::null()),
            name: UnsafeCell::new(None),
            ticket: AtomicU64::new(1),
            hub: AtomicPtr::new(ptr::null_mut()),
            join: AtomicU8::new(0),
            outcome: Cell::new(Ended::Empty),
            joiner: UnsafeCell::new(None),
            slot: Slot::empty(),
            ended: Cell::new(Ended::Empty),
        }
    }

    /// Turns a block of zeros into a blank one. The atomics `hub` and `join` stay zero, because other OS threads may be
    /// looking at them; of the atomics only `ticket` is set.
    ///
    /// # Safety
    /// The block was made blank once, its pages read as zeros since, and no owner, join or free list has it (R1 of
    /// `blocks.rs`).
    unsafe fn revive(at: *const Task, ticket: u64) {
        let (at, blank) = (at.cast_mut(), Task::blank());
        // SAFETY: the caller guarantees that no other code accesses the plain fields of this block. Writing over them
        // drops nothing, which is right because zeros own nothing.
        unsafe {
            (&raw mut (*at).next).write(blank.next);
            (&raw mut (*at).context).write(blank.context);
            (&raw mut (*at).state).write(blank.state);
            (&raw mut (*at).wake).write(blank.wake);
            (&raw mut (*at).interrupt).write(blank.interrupt);
            (&raw mut (*at).shield).write(blank.shield);
            (&raw mut (*at).marks).write(blank.marks);
            (&raw mut (*at).outcome).write(blank.outcome);
            (&raw mut (*at).ended).write(blank.ended);
            (&raw mut (*at).why).write(blank.why);
            (&raw mut (*at).depth).write(blank.depth);
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
        // SAFETY: T2: the name was written before the join was made, and does not change until recycling.
        unsafe { (*self.name.get()).clone() }
    }

    /// Writes the task's name into `bytes`. For a signal handler on the owner's OS thread, while the task runs.
    pub(super) fn name_into(&self, bytes: &mut [u8]) -> usize {
        // SAFETY: T2: the task runs, so its name is not being changed.
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
    pub(super) fn whose(&self, slot: std::ops::Range<usize>) -> Whose {
        // SAFETY: the task runs and is not the native task, so its fiber is initialized.
        let base = unsafe { (*self.fiber.get()).assume_init_ref().address() };
        if !slot.contains(&base) {
            return Whose::Coroutine;
        }
        if self.owns_context() {
            Whose::Isolated
        } else {
            Whose::Local
        }
    }

    /// Whether the task is an isolated green thread, not a local one in the context of an isolated one.
    fn owns_context(&self) -> bool {
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
    pub(super) fn invalidate_ticket(&self) {
        // Only the owner writes the ticket, so a load and a store suffice.
        self.ticket
            .store(self.ticket.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.join.load(Ordering::Acquire) & DONE != 0
    }

    pub(super) fn is_scoped(&self) -> bool {
        self.join.load(Ordering::Relaxed) & SCOPED != 0
    }

    /// Calls `f` with the rarely used fields, which it makes if there are none. `f` runs no code of the user, and does
    /// not call this function.
    pub(crate) fn with_cold<R>(&self, f: impl FnOnce(&mut ColdState) -> R) -> R {
        let _inside = inside::enter();
        // SAFETY: T5: this is the owner's OS thread. It is the only reference: no `f` in this crate calls this
        // function, and `inside` forbids a switch meanwhile.
        f(unsafe { (*self.cold.get()).get_or_insert_with(Box::default) })
    }

    #[inline]
    pub(super) fn has_cold(&self) -> bool {
        // SAFETY: T5: this is the owner's OS thread, and only a pointer is read.
        unsafe { (*self.cold.get()).is_some() }
    }

    #[cold]
    fn swap_cold(&self, other: &Task) {
        // SAFETY: T5: both tasks are of this OS thread's hub, and no `with_cold` of either is under way, because it
        // calls nothing that comes here.
        unsafe { ptr::swap(self.cold.get(), other.cold.get()) };
    }

    pub(super) fn take_cold(&self) -> Option<Box<ColdState>> {
        // SAFETY: T5: this is the owner's OS thread, and no `with_cold` is under way, because it calls nothing that
        // comes here.
        unsafe { (*self.cold.get()).take() }
    }

    /// An address near the base of the task's stack. Only for the green thread that runs.
    #[cfg(feature = "monkey")]
    pub(super) fn base(&self) -> usize {
        // SAFETY: the task runs, so its fiber is initialized.
        unsafe { (*self.fiber.get()).assume_init_ref().address() }
    }

    /// Suspends the running green thread.
    #[inline(always)]
    pub(super) fn suspend(&self) {
        // Near the stack pointer that is about to be saved: `prefetch_stack` begins here.
        let here = 0u8;
        self.depth.set(&raw const here);
        // SAFETY: `park`, `yield_now` and the runner's loop call this on the task that runs, so its fiber is
        // initialized, and this stack is its own or one above it on the chain (F3).
        unsafe { (*self.fiber.get()).assume_init_ref().leave(()) };
    }

    /// Asks the processor to fetch the part of the stack that a resume touches. The block itself was fetched one step
    /// before.
    #[inline(always)]
    pub(super) fn prefetch_stack(&self) {
        let depth = self.depth.get();
        prefetch(depth);
        prefetch(depth.wrapping_add(64));
        prefetch(depth.wrapping_add(128));
    }

    /// Asks the processor to fetch the block.
    #[inline(always)]
    pub(super) fn prefetch(&self) {
        let block = ptr::from_ref(self).cast::<u8>();
        prefetch(block);
        prefetch(block.wrapping_add(64));
    }
}

#[inline(always)]
fn prefetch(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch is a hint: it reads nothing, and any address is allowed.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// Makes the native task of a new hub.
pub(super) fn native(shared: &'static Shared, place: &'static Location<'static>) -> &'static Task {
    let task = take_common();
    prepare(task, super::remote::next_id() | NATIVE, shared, place);
    task.state.set(State::Running);
    task
}

#[inline]
fn prepare(task: &'static Task, id: u64, shared: &'static Shared, place: &'static Location<'static>) {
    task.id.set(id);
    task.place.set(place);
    task.interrupt.set(0);
    task.shield.set(0);
    task.marks.clear();
    task.outcome.set(Ended::Empty);
    task.hub.store(ptr::from_ref(shared).cast_mut(), Ordering::Release);
    // After the hub: a thread that sees a bit of this life, or sets one in it, finds the hub of this life (`Hub::own`,
    // K2).
    task.join.store(0, Ordering::Release);
}

/// Makes a green thread of this hub and queues it.
#[inline]
pub(crate) fn spawn<F, T>(
    hub: &'static Hub,
    kind: Kind,
    options: Option<Options>,
    place: &'static Location<'static>,
    body: F,
) -> io::Result<Join<T>>
where
    F: FnOnce() -> T + 'static,
    T: 'static,
{
    let size = options.as_ref().and_then(|options| options.stack_size);
    // Before the block is taken: if there is no memory for a stack, there is nothing to give back.
    let stack = Stack::new(size.unwrap_or_else(|| kind.stack_size()))?;
    let task = take_block(hub);
    prepare(task, hub.next_id(), hub.shared, place);
    if let Some(options) = options {
        // SAFETY: T2: the join does not exist yet, so no other code reads the name.
        unsafe { *task.name.get() = options.name };
        if options.locals.is_some() {
            task.with_cold(|cold| cold.locals = options.locals);
        }
    }
    start(hub, kind, task, stack, body);
    Ok(Join {
        task,
        _value: PhantomData,
    })
}

/// Takes a block for a green thread that another OS thread spawns on `shared`. The owner starts it with
/// [`adopt`](RemoteSpawn::adopt).
pub(crate) fn reserve<T: Send + 'static>(shared: &'static Shared, place: &'static Location<'static>) -> Join<T> {
    let task = take_common();
    prepare(task, super::remote::next_id(), shared, place);
    task.marks.set(Marks::COMMON, true);
    Join {
        task,
        _value: PhantomData,
    }
}

/// A reserved green thread on its way to its owner. If this is dropped on the way, the green thread is lost.
pub(crate) struct RemoteSpawn<F> {
    task: TaskRef,
    body: Option<F>,
    stack_size: Option<usize>,
}

impl<F> RemoteSpawn<F> {
    pub(crate) fn new(task: TaskRef, body: F, stack_size: Option<usize>) -> RemoteSpawn<F> {
        RemoteSpawn {
            task,
            body: Some(body),
            stack_size,
        }
    }

    /// Starts the green thread, on its owner's OS thread.
    pub(crate) fn adopt<T: 'static>(mut self, hub: &'static Hub)
    where
        F: FnOnce() -> T + 'static,
    {
        // If there is no memory for a stack, the drop of `self` marks the green thread as lost.
        let size = self.stack_size.unwrap_or_else(|| Kind::Isolated.stack_size());
        if let Ok(stack) = Stack::new(size)
            && let Some(body) = self.body.take()
        {
            hub.arrivals.set(hub.arrivals.get() + 1);
            start(hub, Kind::Isolated, self.task.0, stack, body);
            std::mem::forget(self);
        }
    }
}

impl<F> Drop for RemoteSpawn<F> {
    fn drop(&mut self) {
        super::discard(self.body.take());
        lose(self.task.0);
    }
}

#[inline]
fn start<F, T>(hub: &'static Hub, kind: Kind, task: &'static Task, stack: Stack, body: F)
where
    F: FnOnce() -> T + 'static,
    T: 'static,
{
    task.context.set(context::for_spawn(hub, kind));
    lay(task, stack, body);
    enqueue(hub, task);
}

/// Makes the fiber of a fresh block, with `body` on `stack`.
#[inline]
fn lay<F, T>(task: &'static Task, stack: Stack, body: F)
where
    F: FnOnce() -> T + 'static,
    T: 'static,
{
    // The words below the top are the first that a resume touches.
    let fiber_top = stack.top().wrapping_sub(192);
    let fiber = Fiber::root(stack, move |()| {
        run(task, body);
        // Only here the type of the result is known. The hub gets a function that can drop it.
        settle_slot::<T> as Settle
    });
    task.depth.set(fiber_top);
    // SAFETY: the block is fresh: no fiber lies in it that this would overwrite, and no other code knows the block.
    unsafe { (*task.fiber.get()).write(fiber) };
}

#[inline]
fn enqueue(hub: &'static Hub, task: &'static Task) {
    task.state.set(State::New);
    hub.live.set(hub.live.get() + 1);
    hub.emit(|| super::hooks::Event::Spawn(task.id()));
    hub.ready.push(task);
}

/// The base of every green thread: runs the body, leaves its result in the slot, and ends the green-thread locals.
#[inline]
fn run<F: FnOnce() -> T, T: 'static>(task: &'static Task, body: F) {
    let result = if interrupt::is_killed(task) {
        // Killed before its first turn: the closure is dropped on the green thread's own stack.
        catch_unwind(AssertUnwindSafe(|| drop(body))).and(Err(interrupt::killed_payload()))
    } else {
        catch_unwind(AssertUnwindSafe(|| __rust_begin_short_backtrace(body)))
    };
    // A patched call cannot unwind for a kill. It has told the body of the kill, and the body has returned.
    let told = interrupt::is_told_kill(task);
    // The body has ended: no kill and no time-out may unwind from here on.
    task.shield.set(u8::MAX / 2);
    match result {
        Ok(value) if told => leave_late(task, value),
        // SAFETY: T3: the slot is the owner's until `DONE`, and it is empty, because the body has only just returned.
        Ok(value) => unsafe { leave(task, value, Ended::Returned) },
        Err(payload) if interrupt::is_kill(&*payload) => {
            task.outcome.set(Ended::Killed);
            task.ended.set(Ended::Killed);
        }
        Err(payload) => {
            let timed_out = interrupt::is_ours(&*payload);
            // SAFETY: T3: the slot is the owner's until `DONE`, and it is empty, because the body has not returned.
            unsafe { leave(task, payload, Ended::Panicked) };
            if timed_out {
                task.ended.set(Ended::TimedOut);
            }
        }
    }
    // Locals and an unwanted result are dropped here, on the green thread's stack and in its context: they need not be
    // `Send`.
    clear::<T>(task);
    if let Some(context) = task.context.get() {
        // The last member of a context runs the destructors of its thread-locals here.
        context.leave();
        if context.has_ended() {
            // Those destructors may have dropped the handle, or made locals. Neither need be `Send`, so they are
            // dropped here, in the context: the hub's own stack is in another one.
            clear::<T>(task);
        }
    }
    // In the child of a fork that this green thread made there is no pump to go back to: the process ends here.
    Hub::check_fork(task);
}

/// The base of what a backtrace shows: std leaves out the frames below a function of this name.
#[inline(never)]
fn __rust_begin_short_backtrace<T>(f: impl FnOnce() -> T) -> T {
    let result = f();
    // Something must follow the call above: otherwise it may become a tail call, and this frame is missing.
    std::hint::black_box(());
    result
}

/// Drops the green-thread locals, and the result if no join will ask for it.
#[inline]
fn clear<T>(task: &'static Task) {
    if task.has_cold() {
        end_locals(task);
    }
    if task.join.load(Ordering::Acquire) & DETACHED != 0 {
        settle_rest::<T>(task);
    }
}

/// # Safety
/// The slot is empty and the caller owns it (T3).
#[inline]
unsafe fn leave<V>(task: &Task, value: V, outcome: Ended) {
    // SAFETY: the caller guarantees that the slot is empty and that it owns the slot.
    unsafe { task.slot.put(value) };
    task.outcome.set(outcome);
    task.ended.set(outcome);
}

/// The body has returned although a patched call had told it of a kill. The task counts as killed, and its value is
/// kept besides.
#[cold]
fn leave_late<T: 'static>(task: &Task, value: T) {
    if task.owns_context() {
        // Only an isolated green thread owns its context, and the functions that spawn one require a value that is
        // `Send`.
        let late: Box<dyn Any + Send> = Box::new(Late(value));
        // SAFETY: T3: the slot is the owner's until `DONE`, and it is empty, because the body has only just returned.
        unsafe { task.slot.put(late) };
        task.outcome.set(Ended::Late);
    } else {
        // The value need not be `Send`, so it cannot be kept in a `Late`.
        super::discard(value);
        task.outcome.set(Ended::Killed);
    }
    task.ended.set(Ended::Killed);
}

/// Takes the result out of the slot.
///
/// # Safety
/// The caller owns the slot (T3), and `T` is the type that the body returned.
#[inline]
unsafe fn take_exit<T>(task: &Task) -> Option<Exit<T>> {
    // `Empty` from here on: the result is taken at most once.
    match task.outcome.replace(Ended::Empty) {
        Ended::Empty | Ended::TimedOut => None,
        // SAFETY: the caller owns the slot, and `outcome` said that a value of type `T` lies there.
        Ended::Returned => Some(Exit::Returned(unsafe { task.slot.take::<T>() })),
        // SAFETY: the caller owns the slot, and `outcome` said that a panic's payload lies there.
        Ended::Panicked => Some(Exit::Panicked(unsafe { task.slot.take() })),
        // SAFETY: the caller owns the slot, and `outcome` said that the box lies there which `leave_late` has put
        // there.
        Ended::Late => Some(Exit::Killed(Some(unsafe { task.slot.take() }))),
        Ended::Killed => Some(Exit::Killed(None)),
        Ended::Lost => Some(Exit::Lost),
    }
}

/// Drops a result that no join will take, if there is one.
///
/// The caller owns the slot, as for [`settle_slot`].
#[inline]
fn settle_rest<T>(task: &'static Task) {
    if task.outcome.get() != Ended::Empty {
        settle_slot::<T>(task);
    }
}

/// Drops a result that no join will take, and reports it if it is a panic.
#[inline(never)]
fn settle_slot<T>(task: &'static Task) {
    // SAFETY: the caller owns the slot: it is the end of the body, the owner that found `DETACHED`, or the drop of the
    // join. `T` is the type that `lay` or `start_future` named, or the join's.
    let exit = unsafe { take_exit::<T>(task) };
    match exit {
        Some(Exit::Returned(value)) => drop_result(task, value),
        Some(Exit::Killed(Some(late))) => drop_result(task, late),
        Some(Exit::Panicked(payload)) => super::report_panic(&super::Reporter::of(task), payload),
        _ => {}
    }
}

fn drop_result<V>(task: &Task, value: V) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(value))) {
        super::report_panic(&super::Reporter::of(task), payload);
    }
}

/// Runs a green thread until it parks, yields or ends. Only the hub's turn calls it.
#[inline(always)]
pub(super) fn resume(hub: &'static Hub, task: &'static Task) {
    task.state.set(State::Running);
    hub.current.set(Some(task));
    budget::begin();
    // SAFETY: the task is new or suspended: the turn took it from a queue, or `end_runners` from the runners at rest.
    // It runs in the native context, so its thread-locals are in use.
    let outcome = unsafe { enter(task) };
    hub.current.set(None);
    after(hub, task, outcome);
}

pub(super) type Stop = Outcome<(), Settle>;

/// # Safety
/// The task is of this OS thread, new or suspended, and has not ended. Its thread-locals are in use.
#[inline(always)]
pub(super) unsafe fn enter(task: &'static Task) -> Stop {
    // SAFETY: the caller guarantees that the task is new or suspended, so its fiber is initialized and may be resumed.
    unsafe { (*task.fiber.get()).assume_init_ref().enter(()) }
}

/// Handles a green thread that has suspended or ended.
#[inline(always)]
pub(super) fn after(hub: &'static Hub, task: &'static Task, stop: Stop) {
    match stop {
        Outcome::Yielded(()) => {}
        Outcome::Returned(settle) => finish(hub, task, Some(settle)),
        // A root gives no panic (F5 of `fiber`): one that unwinds out of its body aborts.
        Outcome::Panicked(_) => finish(hub, task, None),
    }
}

/// Ends a green thread: the owner's last step (see the bits of `join` above).
#[inline]
fn finish(hub: &'static Hub, task: &'static Task, settle: Option<Settle>) {
    // SAFETY: `lay` wrote the fiber, which has ended and is not used again: its stack goes back to the pool.
    unsafe { (*task.fiber.get()).assume_init_drop() };
    end(hub, task, settle);
}

/// The rest of the end, for green threads and stackless tasks alike.
#[inline]
fn end(hub: &'static Hub, task: &'static Task, settle: Option<Settle>) {
    task.state.set(State::Idle);
    hub.live.set(hub.live.get() - 1);
    if hub.live.get() == 0 {
        hub.emptied();
    }
    hub.emit(|| super::hooks::Event::Exit(task.id()));
    let cold = task.take_cold();
    if let Some(cold) = cold {
        end_cold(hub, *cold);
    }
    // If the task was the last member, its context goes back to the pool.
    if let Some(context) = task.context.take() {
        context::left(hub, context);
    }
    // Waiters that are left of this life are stale from here on.
    task.invalidate_ticket();
    // Read before `DONE` is set: after that the join may recycle the block.
    let (who, ended) = (TaskRef(task), task.ended.get());
    let id = task.id.get();
    // This publishes the result to the join, and acquires the waiter and the links that the join has left. The bits
    // found here decide what is left to do for the owner.
    let before = task.join.fetch_or(DONE, Ordering::AcqRel);
    if before & LINKED != 0 {
        links::run(hub, who, id, ended);
    }
    // If the join is neither gone nor waiting, it recycles the block and may have done so already: do not touch the
    // task.
    if before & DETACHED != 0 {
        end_detached(hub, task, settle);
    } else if before & JOINER != 0 {
        release(hub, task);
    }
}

#[inline(never)]
fn end_detached(hub: &'static Hub, task: &'static Task, settle: Option<Settle>) {
    // There is a result only in the rare case that the join was dropped after the last look, in `clear`.
    if let Some(settle) = settle.filter(|_| task.outcome.get() != Ended::Empty) {
        // On the hub's own stack code of the user must run as a callback (I11).
        hub.as_callback(|| settle(task));
    }
    recycle(task);
}

/// Ends the rarely used fields of a green thread that has ended.
#[cold]
fn end_cold(hub: &'static Hub, cold: ColdState) {
    for guard in cold.guards {
        if let Some(key) = guard.timer {
            hub.timers.remove(key);
        }
    }
    hub.as_callback(|| super::discard(cold.locals));
}

/// Wakes the joiner, and recycles the block if the join was dropped meanwhile.
#[inline]
fn release(hub: &'static Hub, task: &'static Task) {
    // SAFETY: T4: `DONE` was set after `JOINER`, so the waiter belongs to the owner, and the join no longer touches it.
    let joiner = unsafe { &mut *task.joiner.get() };
    if let Some(Waiter::Task(waiting, ticket)) = *joiner {
        // In two parts: reading the whole waiter back would stall on the stores that wrote it a moment ago. `forget` is
        // right because a task waiter owns nothing.
        std::mem::forget(joiner.take());
        hub.wake_task(waiting, ticket);
    } else if let Some(waiter) = joiner.take() {
        hub.wake(waiter);
    }
    // The waiter is taken, so the join may recycle the block from here on. If it was dropped before, it has left that
    // to the owner.
    if task.join.fetch_or(RELEASED, Ordering::AcqRel) & DETACHED != 0 {
        end_detached(hub, task, None);
    }
}

/// Marks an unfinished green thread as lost: its hub ends, or could never start it. Its stack is leaked.
pub(super) fn lose(task: &'static Task) {
    if task.join.fetch_or(LOST, Ordering::AcqRel) & (LOST | DONE) != 0 {
        return; // Another call was first, or the task has ended.
    }
    // `LOST` keeps the join from recycling the block. The fields are written before `DONE`, which publishes them.
    task.outcome.set(Ended::Lost);
    task.ended.set(Ended::Lost);
    task.state.set(State::Idle);
    task.invalidate_ticket();
    let id = task.id.get();
    let before = task.join.fetch_or(DONE | LOST, Ordering::AcqRel);
    if before & LINKED != 0 {
        links::lose(TaskRef(task), id);
    }
    if before & JOINER != 0 && before & DETACHED == 0 {
        // SAFETY: T4: `DONE` was set after `JOINER`, so the waiter belongs to this side, and the join no longer touches
        // it.
        if let Some(waiter) = unsafe { (*task.joiner.get()).take() }
            // The hub may have ended: then a waker, which is the user's code, is called here at once.
            && let Err(payload) = super::call_user(|| waiter.wake())
        {
            super::report_panic(&super::Reporter::callback(), payload);
        }
        task.join.fetch_or(RELEASED, Ordering::AcqRel);
    }
    // Frames of the leaked stack may still refer to the block, so neither side recycles it.
}
