//! Waking: tasks, futures, and the wakers that this crate makes around a task or a value of its own. Such wakers can be
//! told from other ones, and what they were made around can be read.
//!
//! # Invariants
//! - **WAKER-1** The data of a waker with the vtable of `W` is a pointer that [`Arc::into_raw`] gave for an `Arc<W>`,
//!   and each such waker owns one reference count of that `Arc`. There is one vtable for each type, a static, and only
//!   this file names it.
//! - **WAKER-2** The data of a waker with the vtable `TASK` is the address of a task's block. Blocks are never freed,
//!   so such a waker owns nothing.

use std::mem::ManuallyDrop;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{RawWaker, RawWakerVTable, Waker};

use super::choice::Choice;
use super::observers::Event;
use super::scheduler::Hub;
use super::shared::{Message, Shared};
use super::task::block::{Task, TaskRef};
use super::task::marks::{Marks, State};
use super::waiter::{Waiter, Wake};
use crate::sys::fork::fork_epoch;
use crate::sys::spin::Spin;

impl Waiter {
    /// Whether the waiter's task can never run again: its hub ended while the task was parked, or this is a forked
    /// child and the hub is the parent's. This looks at `DONE`, which also means an end of the usual kind: a task that
    /// has ended so has left no waiter behind, so `DONE` of a waiter's task means that the task is lost.
    #[inline]
    pub(crate) fn is_lost(&self) -> bool {
        match self {
            Waiter::Task(task, _) => {
                task.is_finished() || fork_epoch() != 0 && task.shared().is_some_and(Shared::is_of_parent)
            }
            Waiter::Waker(waker) => is_lost(waker),
        }
    }

    /// Wakes the waiter, from any OS thread.
    pub(crate) fn wake(self) {
        match Hub::try_current() {
            Some(hub) => hub.wake(self),
            None => self.wake_from_outside(),
        }
    }

    /// Wakes the waiter, and calls a foreign waker at once instead of in a callback. For a caller that code of the user
    /// has called, so that a waker may run here. A callback might run too late: this OS thread may block before the
    /// hub's next turn.
    #[inline]
    pub(crate) fn wake_directly(self) {
        match self {
            Waiter::Waker(waker) => waker.wake(),
            Waiter::Task(task, ticket) => wake_task(task, ticket),
        }
    }

    /// Wakes the waiter from an OS thread without a hub.
    pub(super) fn wake_from_outside(self) {
        match self {
            Waiter::Waker(waker) => waker.wake(),
            Waiter::Task(task, ticket) => {
                if let Some(shared) = task.shared() {
                    shared.send(Message::Wake(task, ticket));
                }
            }
        }
    }
}

/// Wakes the waiter (task, ticket) like [`Waiter::wake`], from any OS thread. It takes the two parts in registers: a
/// `Waiter` that was written to memory just now would be read back from there, and the read would stall on the stores.
#[inline(never)]
pub(crate) fn wake_task(task: TaskRef, ticket: u64) {
    match Hub::try_current() {
        Some(hub) => hub.wake_task(task, ticket),
        None => Waiter::Task(task, ticket).wake_from_outside(),
    }
}

/// Calls the waker that it holds when it is dropped. A callback holds it, so the waker is called even if the hub ends
/// before the callback has run.
struct WakeOnDrop(Option<Waker>);

impl Drop for WakeOnDrop {
    fn drop(&mut self) {
        if let Some(waker) = self.0.take() {
            waker.wake();
        }
    }
}

impl Hub {
    /// Wakes a waiter: a task of this hub at once, a task of another hub by a message, a foreign waker by a
    /// callback.
    #[inline]
    pub(crate) fn wake(&'static self, waiter: Waiter) {
        match waiter {
            Waiter::Task(task, ticket) => self.wake_task(task, ticket),
            // These wakers are this crate's: calling one runs no code of the user.
            Waiter::Waker(waker) if is_ours(&waker) => waker.wake(),
            Waiter::Waker(waker) => match Choice::of(&waker) {
                // The waker inside of a `Choice` may be of any kind, a foreign one too.
                Some(choice) => choice
                    .take_waker()
                    .into_iter()
                    .for_each(|own| self.wake(Waiter::Waker(own))),
                // A foreign waker is code of the user, so it runs as a callback.
                None => {
                    let wakes = WakeOnDrop(Some(waker));
                    self.queue_callback(Box::new(move || drop(wakes)));
                }
            },
        }
    }

    #[inline(always)]
    pub(super) fn wake_task(&self, task: TaskRef, ticket: u64) {
        match task.shared() {
            Some(shared) if std::ptr::eq(shared, self.me.shared) && !self.is_among_others() => {
                // The task's hub is this one, so no message is needed: unless code of a foreign loop runs. Then a
                // message rings that loop, which would not run the hub's next turn otherwise.
                self.wake_local(task.get(), ticket, Wake::Ready);
            }
            // The task's hub compares the tickets when it takes the message. The task may have ended by then; its
            // ticket has moved in that case.
            Some(shared) => shared.send(Message::Wake(task, ticket)),
            // The block is free: the task has ended, and the waiter is stale.
            None => {}
        }
    }

    /// Wakes a task of this hub if `ticket` is the task's current ticket (PARK-2, PARK-3); gives whether it was.
    #[inline]
    pub(super) fn wake_local(&self, task: &'static Task, ticket: u64, reason: Wake) -> bool {
        if task.ticket.load(Ordering::Relaxed) != ticket {
            return false;
        }
        // The ticket is consumed first, so that every other waiter of this park is stale from here on.
        task.invalidate_ticket();
        task.woken_by.set(reason);
        // A task that is not parked is between `Parker::new` and the park, or was resumed only to be probed. It looks
        // at the ticket before it parks, and finds that the ticket has moved.
        if task.state.get().is_parked() {
            task.state.set(State::Ready);
            self.emit(|| Event::Wake(task.id()));
            self.queue.push_woken(task);
        }
        true
    }

    /// Queues a stackless task of which a waker was called.
    pub(super) fn wake_stackless(&self, task: TaskRef) {
        // The waker may be of an older life, so look at what the block is now.
        if let Some(task) = self.resolve_local(task)
            && task.marks.get(Marks::STACKLESS)
            && task.state.get() == State::Parked
        {
            // A task that runs is not queued: its owner looks at `WOKEN` after the poll (`wait`).
            self.wake_local(task, task.ticket.load(Ordering::Relaxed), Wake::Ready);
        }
    }
}

/// What `thread::park` waits for. Its address tells a task in `park` from one that waits for something else.
pub(crate) static PARK: &str = "unpark";

/// Gives an unpark token to a green thread or native stack, from any OS thread.
pub(crate) fn unpark(task: TaskRef, id: u64) {
    task.on_its_hub(|hub| unpark_here(hub, task, id), || Message::Unpark(task, id));
}

/// Gives an unpark token to a task of this hub.
pub(super) fn unpark_here(hub: &'static Hub, task: TaskRef, id: u64) {
    let Some(task) = hub.resolve_local(task).filter(|task| task.id() == id) else {
        return;
    };
    // A task that is resumed only to be probed would park again, so it counts as parked.
    let is_parked = (task.state().is_parked() || task.marks.get(Marks::PROBE)) && std::ptr::eq(task.why().what, &PARK);
    // The token is there before the wake: the task finds it when it is resumed. Otherwise its next `park` takes it.
    task.marks.set(Marks::TOKEN, true);
    if is_parked {
        let ticket = task.ticket.load(Ordering::Relaxed);
        hub.wake_local(task, ticket, Wake::Ready);
    }
}

/// Whether a waker was made by this crate, and its task can never run again. `false` for a foreign waker, because
/// nothing is known about its task. That includes a foreign waker which wraps a waker of this crate: a combinator may
/// poll its futures with such wakers.
fn is_lost(waker: &Waker) -> bool {
    if let Some(task) = task_of(waker) {
        task.is_lost()
    } else if let Some(signal) = Signal::of(waker) {
        signal.is_lost()
    } else {
        Choice::of(waker).is_some_and(|choice| choice.with_waker(|waker| waker.is_some_and(is_lost)))
    }
}

/// Whether a waker is one that wakes a task of this crate directly, so that calling it runs no code of the user.
#[inline]
fn is_ours(waker: &Waker) -> bool {
    ptr::eq(waker.vtable(), &TASK) || Signal::of(waker).is_some()
}

/// Wakes the task that waits between two polls, when its waker is called. Several calls before the next poll are one
/// wake.
///
/// A wake sets `woken` and then takes the waiter. A wait leaves its waiter and then looks at `woken`. The lock of
/// `parked` orders taking and leaving: either the wake takes this waiter, or the wait sees `woken`. So no wake is lost.
pub(super) struct Signal {
    woken: AtomicBool,
    parked: Spin<Parked>,
}

struct Parked {
    waiter: Option<Waiter>,
    /// The task that parked last. It stays here when the task is woken, so that `is_lost` can be answered.
    task: Option<TaskRef>,
}

impl Signal {
    pub(super) fn new() -> Arc<Signal> {
        Arc::new(Signal {
            woken: AtomicBool::new(false),
            parked: Spin::new(Parked {
                waiter: None,
                task: None,
            }),
        })
    }

    pub(super) fn into_waker(self: Arc<Signal>) -> Waker {
        waker(self)
    }

    /// Whether a waker of this signal was called since the last call of this.
    pub(super) fn take_woken(&self) -> bool {
        self.woken.swap(false, Ordering::AcqRel)
    }

    /// Whether a waker of this signal was called since the last call of [`take_woken`](Self::take_woken), whose answer
    /// stays as it is.
    pub(super) fn is_woken(&self) -> bool {
        self.woken.load(Ordering::Acquire)
    }

    /// Makes it as new, for another wait. The caller has the only references.
    pub(super) fn reset(&self) {
        self.woken.store(false, Ordering::Relaxed);
    }

    /// Leaves a waiter in place of the one that was left before, which it gives.
    pub(super) fn replace(&self, waiter: Option<Waiter>) -> Option<Waiter> {
        let mut parked = self.parked.lock();
        if let Some(Waiter::Task(task, _)) = &waiter {
            parked.task = Some(*task);
        }
        std::mem::replace(&mut parked.waiter, waiter)
    }

    /// A waker that was made from this signal was called.
    fn notify(&self) {
        // If it was set already, the wake that set it has taken the waiter, or the wait has not begun and will see it.
        if !self.woken.swap(true, Ordering::AcqRel)
            && let Some(waiter) = self.replace(None)
        {
            waiter.wake();
        }
    }

    /// Whether the task that waits never runs again.
    fn is_lost(&self) -> bool {
        self.parked.lock().task.is_some_and(TaskRef::is_lost)
    }

    /// The signal that `waker` was made from, if it was made from one. Such a waker runs no code of the user.
    #[inline]
    fn of(waker: &Waker) -> Option<&Signal> {
        value_of(waker)
    }
}

impl Choice {
    pub(crate) fn into_waker(self: Arc<Choice>) -> Waker {
        waker(self)
    }

    /// The choice that `waker` was made from, if it was made from one.
    #[inline]
    pub(crate) fn of(waker: &Waker) -> Option<&Choice> {
        value_of(waker)
    }
}

static TASK: RawWakerVTable = RawWakerVTable::new(|task| RawWaker::new(task, &TASK), wake_data, wake_data, |_| ());

/// The waker of a stackless task.
#[inline]
pub(super) fn task_waker(task: &'static Task) -> Waker {
    // SAFETY: WAKER-2: blocks are never freed, so the address is valid forever. The functions of the vtable may run on
    // any OS thread, because they use atomics alone until they are on the owner's (TASK-5).
    unsafe { Waker::from_raw(RawWaker::new(ptr::from_ref(task).cast(), &TASK)) }
}

/// The task of a waker, if it is a stackless one. The task may have ended, and its block may serve another.
#[inline]
fn task_of(waker: &Waker) -> Option<TaskRef> {
    // SAFETY: WAKER-2: the vtable says that `task_waker` made this, so the data is the address of a block. Blocks are
    // never freed.
    ptr::eq(waker.vtable(), &TASK).then(|| TaskRef::new(unsafe { &*waker.data().cast::<Task>() }))
}

/// # Safety
/// `task` is the data of a waker made by [`task_waker`].
unsafe fn wake_data(task: *const ()) {
    // SAFETY: the caller guarantees that `task` is the address of a block. Blocks are never freed.
    let task: &'static Task = unsafe { &*task.cast::<Task>() };
    // If the bit was set already, its setter causes the poll, and that poll will see what this caller has done.
    if !task.set_woken() {
        return;
    }
    match (task.shared(), Hub::try_current()) {
        // The hub is read after the bit was set: so it is the hub of the life in which the bit counts (STACKLESS-2).
        (Some(shared), Some(hub)) if ptr::eq(shared, hub.me.shared) && !hub.is_among_others() => {
            hub.wake_stackless(TaskRef::new(task));
        }
        (Some(shared), _) => shared.send(Message::Poll(TaskRef::new(task))),
        // The block is free: the task has ended.
        (None, _) => {}
    }
}

/// A value that wakers are made around.
trait Own: Send + Sync + 'static {
    fn vtable() -> &'static RawWakerVTable;

    /// A waker of this value was called.
    fn call(&self);
}

static SIGNAL: RawWakerVTable = vtable::<Signal>();
static CHOICE: RawWakerVTable = vtable::<Choice>();

impl Own for Signal {
    #[inline]
    fn vtable() -> &'static RawWakerVTable {
        &SIGNAL
    }

    fn call(&self) {
        self.notify();
    }
}

impl Own for Choice {
    #[inline]
    fn vtable() -> &'static RawWakerVTable {
        &CHOICE
    }

    fn call(&self) {
        self.notify();
    }
}

/// Makes a waker of `own`.
fn waker<W: Own>(own: Arc<W>) -> Waker {
    // SAFETY: WAKER-1: the data and the vtable are those of one type, `W`, and each function of the vtable keeps the
    // reference count right.
    unsafe { Waker::from_raw(RawWaker::new(Arc::into_raw(own).cast(), W::vtable())) }
}

/// The value that the waker was made around, if that is a `W`.
#[inline]
fn value_of<W: Own>(waker: &Waker) -> Option<&W> {
    // SAFETY: WAKER-1: the vtable says that the data points to a `W`, and the borrowed waker owns a reference count, so
    // the `W` lives as long as the borrow.
    std::ptr::eq(waker.vtable(), W::vtable()).then(|| unsafe { &*waker.data().cast::<W>() })
}

const fn vtable<W: Own>() -> RawWakerVTable {
    RawWakerVTable::new(clone::<W>, wake::<W>, wake_by_ref::<W>, release::<W>)
}

/// # Safety
/// `data` is that of a waker with the vtable of `W` (WAKER-1), which is borrowed.
unsafe fn clone<W: Own>(data: *const ()) -> RawWaker {
    // SAFETY: the caller guarantees that `data` came from `into_raw` of an `Arc<W>`, and the borrowed waker owns a
    // count of it.
    unsafe { Arc::increment_strong_count(data.cast::<W>()) };
    RawWaker::new(data, W::vtable())
}

/// # Safety
/// `data` is that of a waker with the vtable of `W` (WAKER-1), which is used up by the call.
unsafe fn wake<W: Own>(data: *const ()) {
    // SAFETY: the caller guarantees that `data` came from `into_raw` of an `Arc<W>`, and gives up the waker: its count
    // passes to the `Arc` made here.
    unsafe { Arc::from_raw(data.cast::<W>()) }.call();
}

/// # Safety
/// `data` is that of a waker with the vtable of `W` (WAKER-1), which is borrowed.
unsafe fn wake_by_ref<W: Own>(data: *const ()) {
    // SAFETY: the caller guarantees that `data` came from `into_raw` of an `Arc<W>`. The borrowed waker owns a count
    // during the call, and `ManuallyDrop` leaves that count with it.
    unsafe { ManuallyDrop::new(Arc::from_raw(data.cast::<W>())) }.call();
}

/// # Safety
/// `data` is that of a waker with the vtable of `W` (WAKER-1), which is used up by the call.
unsafe fn release<W: Own>(data: *const ()) {
    // SAFETY: the caller guarantees that `data` came from `into_raw` of an `Arc<W>`, and gives up the waker: its count
    // is dropped here.
    drop(unsafe { Arc::from_raw(data.cast::<W>()) });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_waker_is_known_again_and_keeps_its_count() {
        let choice = Arc::new(Choice::new());
        let one = waker(choice.clone());
        let other = one.clone();
        assert!(value_of::<Choice>(&other).is_some_and(|it| std::ptr::eq(it, &*choice)));
        assert!(value_of::<Signal>(&one).is_none() && value_of::<Choice>(Waker::noop()).is_none());
        assert_eq!(Arc::strong_count(&choice), 3);
        one.wake_by_ref();
        one.wake();
        drop(other);
        assert_eq!(Arc::strong_count(&choice), 1);
    }
}
