//! What runs on the stack of a green thread: its body, then the end of its locals and of its context. And the result,
//! between the body that leaves it and the join that takes it.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;

use super::block::{DETACHED, DropResult, Near, Task};
use crate::fiber::Fiber;
use crate::hub::report::{Reporter, discard, report_panic};
use crate::hub::scheduler::Hub;
use crate::hub::slot::{Ended, Exit, Late};
use crate::hub::{interrupt, payload};
use crate::stack::Stack;
use crate::sys::fork::fork_epoch;

/// Makes the fiber of a fresh block, with `body` on `stack`.
#[inline]
pub(super) fn install_body<F, T>(task: &'static Task, stack: Stack, body: F)
where
    F: FnOnce() -> T + 'static,
    T: 'static,
{
    // The words below the top are the first that a resume touches.
    let fiber_top = stack.top().wrapping_sub(192);
    let fiber = Fiber::root(stack, move |()| {
        run(task, body);
        // Only here the type of the result is known. The hub gets a function that can drop it.
        drop_slot::<T> as DropResult
    });
    task.near.set(Near::stack(fiber_top));
    // SAFETY: the block is fresh: no fiber lies in it that this would overwrite, and no other code knows the block.
    unsafe { (*task.fiber.get()).write(fiber) };
}

/// The base of every green thread: runs the body, leaves its result in the slot, and ends the green-thread locals.
#[inline]
fn run<F: FnOnce() -> T, T: 'static>(task: &'static Task, body: F) {
    let result = if interrupt::is_kill_due(task) {
        // Killed before its first turn: the closure is dropped on the green thread's own stack.
        catch_unwind(AssertUnwindSafe(|| drop(body))).and(Err(payload::killed()))
    } else {
        catch_unwind(AssertUnwindSafe(|| __rust_begin_short_backtrace(body)))
    };
    // A patched call cannot unwind for a kill. It has told the body of the kill, and the body has returned.
    let told = interrupt::is_told_kill(task);
    // The body has ended: no kill and no time-out may unwind from here on.
    task.shield.set(u8::MAX / 2);
    match result {
        Ok(value) if told => store_late(task, value),
        // SAFETY: TASK-3: the slot is the owner's until `DONE`, and it is empty, because the body has only just
        // returned.
        Ok(value) => unsafe { store_result(task, value, Ended::Returned) },
        Err(payload) if interrupt::is_kill(&*payload) => {
            task.in_slot.set(Ended::Killed);
            task.ended.set(Ended::Killed);
        }
        Err(payload) => {
            let timed_out = interrupt::is_ours(&*payload);
            // SAFETY: TASK-3: the slot is the owner's until `DONE`, and it is empty, because the body has not returned.
            unsafe { store_result(task, payload, Ended::Panicked) };
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
        context.release();
        if context.has_ended() {
            // Those destructors may have dropped the handle, or made locals. Neither need be `Send`, so they are
            // dropped here, in the context: the hub's own stack is in another one.
            clear::<T>(task);
        }
    }
    // In the child of a fork that this green thread made there is no pump to go back to: the process ends here.
    check_fork(task);
}

/// The base of what a backtrace shows: std leaves out the frames below a function of this name.
#[inline(never)]
pub(super) fn __rust_begin_short_backtrace<T>(f: impl FnOnce() -> T) -> T {
    let result = f();
    // Something must follow the call above: otherwise it may become a tail call, and this frame is missing.
    std::hint::black_box(());
    result
}

/// If the body has forked the process, this is the child: its only OS thread, and so the process, ends here, because
/// the pump below is the parent's.
#[inline]
fn check_fork(task: &'static Task) {
    if fork_epoch() != 0 && !Hub::try_current().is_some_and(|hub| hub.owns(task)) {
        std::process::exit(0);
    }
}

/// Drops the green-thread locals, and the result if no join will ask for it.
#[inline]
fn clear<T>(task: &'static Task) {
    if task.has_cold() {
        end_locals(task);
    }
    if task.join.load(Ordering::Acquire) & DETACHED != 0 {
        // SAFETY: TASK-3: the body is at its end, before `DONE`, so the slot is its owner's. `T` is the body's own
        // type.
        unsafe { drop_rest::<T>(task) };
    }
}

/// # Safety
/// The slot is empty and the caller owns it (TASK-3).
#[inline]
pub(super) unsafe fn store_result<V>(task: &Task, value: V, in_slot: Ended) {
    // SAFETY: the caller guarantees that the slot is empty and that it owns the slot.
    unsafe { task.slot.put(value) };
    task.in_slot.set(in_slot);
    task.ended.set(in_slot);
}

/// The body has returned although a patched call had told it of a kill. The task counts as killed, and its value is
/// kept besides.
#[cold]
fn store_late<T: 'static>(task: &Task, value: T) {
    if task.owns_context() {
        // Only an isolated green thread owns its context, and the functions that spawn one require a value that is
        // `Send`.
        let late: Box<dyn Any + Send> = Box::new(Late(value));
        // SAFETY: TASK-3: the slot is the owner's until `DONE`, and it is empty, because the body has only just
        // returned.
        unsafe { task.slot.put(late) };
        task.in_slot.set(Ended::Late);
    } else {
        // The value need not be `Send`, so it cannot be kept in a `Late`.
        discard(value);
        task.in_slot.set(Ended::Killed);
    }
    task.ended.set(Ended::Killed);
}

/// Takes the result out of the slot.
///
/// # Safety
/// The caller owns the slot (TASK-3), and `T` is the type that the body returned.
#[inline]
pub(super) unsafe fn take_exit<T>(task: &Task) -> Option<Exit<T>> {
    // `Empty` from here on: the result is taken at most once.
    match task.in_slot.replace(Ended::Empty) {
        Ended::Empty | Ended::TimedOut => None,
        // SAFETY: the caller owns the slot, and `in_slot` said that a value of type `T` lies there.
        Ended::Returned => Some(Exit::Returned(unsafe { task.slot.take::<T>() })),
        // SAFETY: the caller owns the slot, and `in_slot` said that a panic's payload lies there.
        Ended::Panicked => Some(Exit::Panicked(unsafe { task.slot.take() })),
        // SAFETY: the caller owns the slot, and `in_slot` said that the box lies there which `store_late` has put
        // there.
        Ended::Late => Some(Exit::Killed(Some(unsafe { task.slot.take() }))),
        Ended::Killed => Some(Exit::Killed(None)),
        Ended::Lost => Some(Exit::Lost),
    }
}

/// Drops a result that no join will take, if there is one.
///
/// # Safety
/// As for [`drop_slot`].
#[inline]
pub(super) unsafe fn drop_rest<T>(task: &'static Task) {
    if task.in_slot.get() != Ended::Empty {
        // SAFETY: the caller guarantees the same.
        unsafe { drop_slot::<T>(task) };
    }
}

/// Drops a result that no join will take, and reports it if it is a panic.
///
/// # Safety
/// The caller owns the slot (TASK-3): it is the end of the body, the owner that found `DETACHED`, or the drop of the
/// join. `T` is the type of the task's result, unless the task has ended without one.
#[inline(never)]
pub(super) unsafe fn drop_slot<T>(task: &'static Task) {
    // SAFETY: the caller guarantees that the slot is its own, and the type.
    let exit = unsafe { take_exit::<T>(task) };
    match exit {
        Some(Exit::Returned(value)) => drop_value(task, value),
        Some(Exit::Killed(Some(late))) => drop_value(task, late),
        Some(Exit::Panicked(payload)) => report_panic(&Reporter::of(task), payload),
        _ => {}
    }
}

fn drop_value<V>(task: &Task, value: V) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(value))) {
        report_panic(&Reporter::of(task), payload);
    }
}

/// Runs `f` on the stack of `task` with green-thread locals of its own, which end with `f`.
pub(in crate::hub) fn with_own_locals<R>(task: &'static Task, f: impl FnOnce() -> R) -> R {
    // The locals of `task` are set aside, so that `f` neither sees nor ends them.
    let before = task.has_cold().then(|| task.with_cold(|cold| cold.locals.take()));
    let result = f();
    if task.has_cold() {
        end_locals(task);
        task.with_cold(|cold| cold.locals = before.flatten());
    }
    result
}

/// Drops the locals on the green thread's own stack. Their destructors are code of the user and may make new locals.
/// What is left after a few rounds is leaked, as it is at the end of an OS thread.
#[cold]
pub(super) fn end_locals(task: &'static Task) {
    for _ in 0..4 {
        let Some(locals) = task.with_cold(|cold| cold.locals.take()) else {
            return;
        };
        // A panic in one destructor must not keep the other locals from being dropped.
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(locals))) {
            report_panic(&Reporter::of(task), payload);
        }
    }
    std::mem::forget(task.with_cold(|cold| cold.locals.take()));
}
