//! The control block of a green thread, the slot of its result, and the two steps that need `unsafe`: resume, settle.
//!
//! Blocks are *type-stable*: they come from leaked chunks and are recycled, never freed, so a `&'static Task` is
//! always a task, if perhaps by now another one. Who may touch what:
//!
//! | field | who | how |
//! |---|---|---|
//! | `ticket`, `hub`, `join` | any OS thread | atomics |
//! | `id`, `place`, `name` | whoever holds the join, and the owner | written before the join exists (T2) |
//! | `ended` | the owner until `DONE`, then whoever holds the join | written once a life |
//! | `joiner`, `slot`, `outcome` | owner or join, by the bits of `join` | below |
//! | the rest | the owner: the OS thread of `hub` | plain cells; `extra` for the length of one call |
//!
//! # The bits of `join`
//! `DONE` set by the owner when the fiber has ended and the result lies in the slot; `DETACHED` by the join when it is
//! dropped; `JOINER` by the join when a waiter lies in `joiner`, cleared by it only while not `DONE`; `RELEASED` by the
//! owner after it took the waiter of a `JOINER` that it found with `DONE`; `LOST` with `DONE`, for a block that is
//! never recycled; `LINKED` by the join when exit links lie in the register of `links.rs`: the owner runs them if it finds
//! the bit as it sets `DONE`, and the join itself if `DONE` was first; `SCOPED` by the spawner of a scope's child; `WOKEN`
//! by the wakers of a stackless task, see `stackless.rs`.
//!
//! ```text
//!   0 ──JOINER──► J ──DONE──► J|DONE ──RELEASED──► join takes the result, DETACHED, recycles
//!   0 ──DONE────► DONE ─────────────────────────► join takes the result, DETACHED, recycles
//!   0 ──DETACHED► DETACHED ──DONE──► owner drops the result, recycles
//!   J|DONE ──DETACHED──► …──RELEASED──► owner recycles
//! ```
//!
//! # Invariants
//! - **T1** A block is recycled once per life, by the last of owner and join, and its ticket grows with each life and
//!   each wake: a waiter of an older life or park never matches.
//! - **T2** What the join reads without atomics was written before the join was made and is left alone until recycling.
//! - **T3** `slot` and `outcome` belong to the owner until `DONE`, then to the join (or to the owner if `DETACHED`
//!   came first). `DONE` is released and acquired.
//! - **T4** `joiner` belongs to the join until `JOINER`, then to whoever next changes `join`.
//! - **T5** Owner-only fields are touched only on the owner's OS thread. `Task` is `!Sync`; only [`Waiter`](super::park::Waiter),
//!   [`TaskRef`] and [`Join`] carry one across threads, and off the owner's thread they use atomics alone.

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
pub(super) use blocks::{Keep, give_back, retire};
use blocks::{recycle, take_block, take_common};
pub(crate) use join::Join;
use locals::end_locals;
pub(super) use locals::with_own_locals;
use marks::NATIVE;
pub(crate) use marks::{Marks, State, is_native, without_native};
pub(crate) use stackless::spawn_future;
pub(super) use stackless::{end_runners, face, is_ours, of_waker, stack_at_hand, with_stack};

const DONE: u8 = 1;
const DETACHED: u8 = 2;
const JOINER: u8 = 4;
const RELEASED: u8 = 8;
const LOST: u8 = 16;
const LINKED: u8 = 32;
const SCOPED: u8 = 64;
const WOKEN: u8 = 128;

/// Drops what lies in the slot; knows the type.
type Settle = fn(&'static Task);
type Body = Fiber<(), (), Settle>;

/// The control block of one green thread, or of an OS thread's native stack.
///
/// Three cache lines, in the order of use: what a switch touches, what a park touches, what the end touches.
#[repr(C, align(64))]
pub(crate) struct Task {
    pub(super) next: Cell<Option<&'static Task>>,
    /// Or, of a stackless task, its future; see `stackless.rs`.
    fiber: UnsafeCell<MaybeUninit<Body>>,
    /// Whose thread-locals it has; none: the native ones.
    pub(super) context: Cell<Option<&'static Context>>,
    pub(super) state: Cell<State>,
    pub(super) wake: Cell<super::park::Wake>,
    pub(crate) interrupt: Cell<u8>,
    pub(crate) shield: Cell<u8>,
    pub(crate) marks: Marks,
    join: AtomicU8,
    outcome: Cell<Ended>,
    /// How it ended; unlike `outcome` it stays when the result is taken.
    ended: Cell<Ended>,

    pub(super) ticket: AtomicU64,
    pub(super) hub: AtomicPtr<Shared>,
    pub(super) why: Cell<Why>,
    /// Where its stack was when it last suspended, to be fetched into the cache before it is resumed.
    depth: Cell<*const u8>,
    id: Cell<u64>,
    place: Cell<&'static Location<'static>>,
    name: UnsafeCell<Option<Arc<Box<str>>>>,

    extra: UnsafeCell<Option<Box<Extra>>>,
    joiner: UnsafeCell<Option<Waiter>>,
    slot: Slot,
}

const _: () = assert!(size_of::<Task>() <= 192 || cfg!(any(feature = "sanitizer", loom)));

/// What few green threads need: kept out of the block.
#[derive(Default)]
pub(crate) struct Extra {
    pub(crate) locals: Option<Rc<dyn Any>>,
    pub(crate) guards: Vec<interrupt::Guard>,
    pub(crate) backtrace: Option<String>,
}

/// What a spawn may choose.
pub(crate) struct Options {
    pub(crate) name: Option<Arc<Box<str>>>,
    /// None: the default of its kind.
    pub(crate) stack_size: Option<usize>,
    pub(crate) locals: Option<Rc<dyn Any>>,
}

impl Options {
    /// Nothing but a size.
    pub(crate) fn of_size(bytes: usize) -> Options {
        Options {
            name: None,
            stack_size: Some(bytes),
            locals: None,
        }
    }
}

/// A task on its way through another OS thread.
#[derive(Clone, Copy)]
pub(crate) struct TaskRef(&'static Task);

// SAFETY: T5: off the owner's thread a `TaskRef` is only compared, or put into a message to the owner.
unsafe impl Send for TaskRef {}
// SAFETY: as above; it has no interior of its own.
unsafe impl Sync for TaskRef {}

impl TaskRef {
    pub(crate) fn new(task: &'static Task) -> TaskRef {
        TaskRef(task)
    }

    /// The hub that the task belongs to now.
    pub(crate) fn shared(self) -> Option<&'static Shared> {
        self.0.shared()
    }

    /// The task itself; for its owner's thread only, which the caller checks by [`shared`](Self::shared).
    pub(super) fn get(self) -> &'static Task {
        self.0
    }

    /// Whether it has ended; an atomic look, from any OS thread.
    pub(crate) fn is_finished(self) -> bool {
        self.0.is_finished()
    }

    /// Whether it can never run again: its hub ended before it did, or is the parent's and this a forked child.
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
            extra: UnsafeCell::new(None),
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

    /// Makes a blank block of zeros, but for the atomics, which others may be looking at: only `ticket` is set.
    ///
    /// # Safety
    /// A block that was made blank once, whose pages read as zeros since, and which nobody has (R1 of `blocks.rs`).
    unsafe fn revive(at: *const Task, ticket: u64) {
        let (at, blank) = (at.cast_mut(), Task::blank());
        // SAFETY: the caller's; nothing is dropped, for zeros are nothing.
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
            (&raw mut (*at).extra).write(blank.extra);
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
        // SAFETY: T2.
        unsafe { (*self.name.get()).clone() }
    }

    /// Writes how it is named into `bytes`; for a signal handler on the owner's thread, while it runs.
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

    /// Whose stack a slot is, that of this task, which runs, or of a coroutine on it.
    pub(super) fn whose(&self, slot: std::ops::Range<usize>) -> Whose {
        // SAFETY: it runs, and is not the native task, so its fiber is there.
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

    /// Whether it is an isolated green thread, and not a local one in the context of one.
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
        // SAFETY: null or a `&'static Shared` (`Shared` blocks are leaked).
        unsafe { shared.as_ref() }
    }

    #[inline]
    pub(super) fn bump(&self) {
        // Only the owner writes: a load and a store do.
        self.ticket
            .store(self.ticket.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.join.load(Ordering::Acquire) & DONE != 0
    }

    pub(super) fn is_scoped(&self) -> bool {
        self.join.load(Ordering::Relaxed) & SCOPED != 0
    }

    /// Lets `f` see the rarely used part, making it if need be. `f` runs no code of the user, and does not come here.
    pub(crate) fn with_extra<R>(&self, f: impl FnOnce(&mut Extra) -> R) -> R {
        let _inside = inside::enter();
        // SAFETY: T5, and the only reference: no `f` in this crate comes here again, and inside there is no switch.
        f(unsafe { (*self.extra.get()).get_or_insert_with(Box::default) })
    }

    #[inline]
    pub(super) fn has_extra(&self) -> bool {
        // SAFETY: T5; a look at a pointer.
        unsafe { (*self.extra.get()).is_some() }
    }

    #[cold]
    fn trade_extra(&self, other: &Task) {
        // SAFETY: as in `take_extra`, of two tasks of one owner.
        unsafe { ptr::swap(self.extra.get(), other.extra.get()) };
    }

    pub(super) fn take_extra(&self) -> Option<Box<Extra>> {
        // SAFETY: T5; nobody is in `with_extra`, which calls nothing that comes here.
        unsafe { (*self.extra.get()).take() }
    }

    /// An address near the base of its stack; of the running green thread.
    #[cfg(feature = "monkey")]
    pub(super) fn base(&self) -> usize {
        // SAFETY: it runs, so its fiber is there.
        unsafe { (*self.fiber.get()).assume_init_ref().address() }
    }

    /// Suspends the running green thread.
    #[inline(always)]
    pub(super) fn suspend(&self) {
        let here = 0u8;
        self.depth.set(&raw const here);
        // SAFETY: called by `park` and `yield_now` on the task that runs (its code is on the processor), so its fiber
        // is there and this stack is its own or one above it on the chain (F3).
        unsafe { (*self.fiber.get()).assume_init_ref().leave(()) };
    }

    /// Asks the processor to fetch what a resume touches of the stack. The block itself has been fetched a step before.
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
        // SAFETY: a hint: it reads nothing, and no address is wrong.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// The native task of a new hub.
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
    // After the hub: whoever sees a bit of this life, or sets one in it, finds the right one (`Hub::own`, K2).
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
    let stack = Stack::new(size.unwrap_or_else(|| kind.stack_size()))?;
    let task = take_block(hub);
    prepare(task, hub.next_id(), hub.shared, place);
    if let Some(options) = options {
        // SAFETY: T2: the join does not exist yet.
        unsafe { *task.name.get() = options.name };
        if options.locals.is_some() {
            task.with_extra(|extra| extra.locals = options.locals);
        }
    }
    start(hub, kind, task, stack, body);
    Ok(Join {
        task,
        _value: PhantomData,
    })
}

/// A block for a green thread that another OS thread spawns on `shared`; the owner starts it with [`adopt`].
pub(crate) fn reserve<T: Send + 'static>(shared: &'static Shared, place: &'static Location<'static>) -> Join<T> {
    let task = take_common();
    prepare(task, super::remote::next_id(), shared, place);
    task.marks.set(Marks::COMMON, true);
    Join {
        task,
        _value: PhantomData,
    }
}

/// A reserved green thread on its way to its owner: lost, if it is dropped on the way.
pub(crate) struct Reserved<F> {
    task: TaskRef,
    body: Option<F>,
    stack_size: Option<usize>,
}

impl<F> Reserved<F> {
    pub(crate) fn new(task: TaskRef, body: F, stack_size: Option<usize>) -> Reserved<F> {
        Reserved {
            task,
            body: Some(body),
            stack_size,
        }
    }

    /// Starts it, on its owner's OS thread.
    pub(crate) fn adopt<T: 'static>(mut self, hub: &'static Hub)
    where
        F: FnOnce() -> T + 'static,
    {
        // No memory for a stack: dropping `self` says that it is lost.
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

impl<F> Drop for Reserved<F> {
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

/// Lays the body of a fresh block on its stack.
#[inline]
fn lay<F, T>(task: &'static Task, stack: Stack, body: F)
where
    F: FnOnce() -> T + 'static,
    T: 'static,
{
    let fiber_top = stack.top().wrapping_sub(192);
    let fiber = Fiber::root(stack, move |()| {
        run(task, body);
        settle_slot::<T> as Settle
    });
    task.depth.set(fiber_top);
    // SAFETY: the block is fresh: no fiber lies in it, and nobody else knows it.
    unsafe { (*task.fiber.get()).write(fiber) };
}

#[inline]
fn enqueue(hub: &'static Hub, task: &'static Task) {
    task.state.set(State::New);
    hub.live.set(hub.live.get() + 1);
    hub.emit(|| super::hooks::Event::Spawn(task.id()));
    hub.ready.push(task);
}

/// The base of every green thread: runs the body, leaves its result in the slot, ends its locals.
#[inline]
fn run<F: FnOnce() -> T, T: 'static>(task: &'static Task, body: F) {
    let result = if interrupt::is_killed(task) {
        // Killed before its first turn: the closure dies on its own stack.
        catch_unwind(AssertUnwindSafe(|| drop(body))).and(Err(interrupt::killed_payload()))
    } else {
        catch_unwind(AssertUnwindSafe(|| __rust_begin_short_backtrace(body)))
    };
    let told = interrupt::is_told_kill(task);
    // From here on nothing unwinds: the closure has returned.
    task.shield.set(u8::MAX / 2);
    match result {
        Ok(value) if told => leave_late(task, value),
        // SAFETY: T3: the owner's until `DONE`, and empty.
        Ok(value) => unsafe { leave(task, value, Ended::Returned) },
        Err(payload) if interrupt::is_kill(&*payload) => {
            task.outcome.set(Ended::Killed);
            task.ended.set(Ended::Killed);
        }
        Err(payload) => {
            let timed_out = interrupt::is_ours(&*payload);
            // SAFETY: as above.
            unsafe { leave(task, payload, Ended::Panicked) };
            if timed_out {
                task.ended.set(Ended::TimedOut);
            }
        }
    }
    clear::<T>(task);
    if let Some(context) = task.context.get() {
        context.leave();
        if context.has_ended() {
            // Destructors of thread-locals may have dropped the handle, or made locals. Neither need be `Send`, so they go
            // here, in the context: the hub's own stack is in another.
            clear::<T>(task);
        }
    }
    Hub::check_fork(task);
}

/// The base of what a backtrace shows: std leaves out what lies below a function of this name.
#[inline(never)]
fn __rust_begin_short_backtrace<T>(f: impl FnOnce() -> T) -> T {
    let result = f();
    // Lest the call above be the last thing that this does, and its frame be gone.
    std::hint::black_box(());
    result
}

/// Drops what nobody will ask for any more.
#[inline]
fn clear<T>(task: &'static Task) {
    if task.has_extra() {
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
    // SAFETY: the caller's.
    unsafe { task.slot.put(value) };
    task.outcome.set(outcome);
    task.ended.set(outcome);
}

/// The body has returned although a patched call had told it of a kill: it counts as killed, and its value is kept beside.
#[cold]
fn leave_late<T: 'static>(task: &Task, value: T) {
    if task.owns_context() {
        // Only an isolated green thread owns its context, and who spawns one is asked for a value that is `Send`.
        let late: Box<dyn Any + Send> = Box::new(Late(value));
        // SAFETY: T3: the owner's until `DONE`, and empty.
        unsafe { task.slot.put(late) };
        task.outcome.set(Ended::Late);
    } else {
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
    match task.outcome.replace(Ended::Empty) {
        Ended::Empty | Ended::TimedOut => None,
        // SAFETY: the caller's, and `outcome` said what lies there.
        Ended::Returned => Some(Exit::Returned(unsafe { task.slot.take::<T>() })),
        // SAFETY: as above.
        Ended::Panicked => Some(Exit::Panicked(unsafe { task.slot.take() })),
        // SAFETY: as above: what `leave_late` has put there.
        Ended::Late => Some(Exit::Killed(Some(unsafe { task.slot.take() }))),
        Ended::Killed => Some(Exit::Killed(None)),
        Ended::Lost => Some(Exit::Lost),
    }
}

/// Drops a result that nobody will read, if there is one.
///
/// Called by whoever owns the slot, as [`settle_slot`].
#[inline]
fn settle_rest<T>(task: &'static Task) {
    if task.outcome.get() != Ended::Empty {
        settle_slot::<T>(task);
    }
}

/// Drops a result that nobody will read, and reports it if it is a panic.
#[inline(never)]
fn settle_slot<T>(task: &'static Task) {
    // SAFETY: called by whoever owns the slot: the body's end, the owner that found `DETACHED`, the join's drop.
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
    // SAFETY: the turn took it from the ready queue.
    let outcome = unsafe { enter(task) };
    hub.current.set(None);
    after(hub, task, outcome);
}

pub(super) type Stop = Outcome<(), Settle>;

/// # Safety
/// It is new or suspended, of this OS thread, and has not ended; its thread-locals are in use.
#[inline(always)]
pub(super) unsafe fn enter(task: &'static Task) -> Stop {
    // SAFETY: the caller's.
    unsafe { (*task.fiber.get()).assume_init_ref().enter(()) }
}

/// What becomes of a green thread that has stopped.
#[inline(always)]
pub(super) fn after(hub: &'static Hub, task: &'static Task, stop: Stop) {
    match stop {
        Outcome::Yielded(()) => {}
        Outcome::Returned(settle) => finish(hub, task, Some(settle)),
        // Not of a root (F5 of `fiber`): what would unwind out of its body aborts.
        Outcome::Panicked(_) => finish(hub, task, None),
    }
}

/// The owner's last step (see the picture above).
#[inline]
fn finish(hub: &'static Hub, task: &'static Task, settle: Option<Settle>) {
    // SAFETY: written by `start`; the fiber has ended, so its stack goes back to the pool.
    unsafe { (*task.fiber.get()).assume_init_drop() };
    end(hub, task, settle);
}

/// The rest of it, for who has a stack and who has none.
#[inline]
fn end(hub: &'static Hub, task: &'static Task, settle: Option<Settle>) {
    task.state.set(State::Idle);
    hub.live.set(hub.live.get() - 1);
    if hub.live.get() == 0 {
        hub.emptied();
    }
    hub.emit(|| super::hooks::Event::Exit(task.id()));
    let extra = task.take_extra();
    if let Some(extra) = extra {
        end_extra(hub, *extra);
    }
    if let Some(context) = task.context.take() {
        context::left(hub, context);
    }
    // Whatever waiter is left of this life is stale from here on.
    task.bump();
    // Read before `DONE`, after which the join may recycle.
    let (who, ended) = (TaskRef(task), task.ended.get());
    let id = task.id.get();
    let before = task.join.fetch_or(DONE, Ordering::AcqRel);
    if before & LINKED != 0 {
        links::run(hub, who, id, ended);
    }
    if before & DETACHED != 0 {
        end_detached(hub, task, settle);
    } else if before & JOINER != 0 {
        release(hub, task);
    }
}

#[inline(never)]
fn end_detached(hub: &'static Hub, task: &'static Task, settle: Option<Settle>) {
    // Empty but in the rare case that the join went after the body's last look.
    if let Some(settle) = settle.filter(|_| task.outcome.get() != Ended::Empty) {
        hub.as_callback(|| settle(task));
    }
    recycle(task);
}

/// What is left of the rarely used part when a green thread has ended.
#[cold]
fn end_extra(hub: &'static Hub, extra: Extra) {
    for guard in extra.guards {
        if let Some(key) = guard.timer {
            hub.timers.remove(key);
        }
    }
    hub.as_callback(|| super::discard(extra.locals));
}

/// Wakes the joiner, and recycles if the join went meanwhile.
#[inline]
fn release(hub: &'static Hub, task: &'static Task) {
    // SAFETY: T4: `DONE` came after `JOINER`, so the waiter is the owner's.
    let joiner = unsafe { &mut *task.joiner.get() };
    if let Some(Waiter::Task(waiting, ticket)) = *joiner {
        // In its parts: written a moment ago, it would as a whole wait for the stores. Nothing of it is dropped.
        std::mem::forget(joiner.take());
        hub.wake_task(waiting, ticket);
    } else if let Some(waiter) = joiner.take() {
        hub.wake(waiter);
    }
    if task.join.fetch_or(RELEASED, Ordering::AcqRel) & DETACHED != 0 {
        end_detached(hub, task, None);
    }
}

/// Marks an unfinished green thread as lost: its hub ends, or never could start it. Its stack is leaked.
pub(super) fn lose(task: &'static Task) {
    if task.join.fetch_or(LOST, Ordering::AcqRel) & (LOST | DONE) != 0 {
        return; // Somebody was first.
    }
    task.outcome.set(Ended::Lost);
    task.ended.set(Ended::Lost);
    task.state.set(State::Idle);
    task.bump();
    let id = task.id.get();
    let before = task.join.fetch_or(DONE | LOST, Ordering::AcqRel);
    if before & LINKED != 0 {
        links::lose(TaskRef(task), id);
    }
    if before & JOINER != 0 && before & DETACHED == 0 {
        // SAFETY: T4, as in `release`.
        if let Some(waiter) = unsafe { (*task.joiner.get()).take() }
            // The hub may have ended: then a waker, which is the user's, is called here and now.
            && let Err(payload) = super::call_user(|| waiter.wake())
        {
            super::report_panic(&super::Reporter::callback(), payload);
        }
        task.join.fetch_or(RELEASED, Ordering::AcqRel);
    }
    // The block stays with the leaked stack, whose frames may still name it: it is never recycled by the owner.
}
