//! Kills and expired `Timeout`s: what may end a park from outside, and how it is delivered.
//!
//! A kill or an expired guard only sets a bit. [`Parker::park`](super::park::Parker) looks at the bit and gives
//! [`Wake::Interrupted`](super::waiter::Wake) to the primitive. The primitive takes its waiter out of its line and
//! calls [`raise`]. The payload is raised by `resume_unwind`: destructors run, and the panic hook is not called. The
//! interrupt stays due until its owner takes it (the base of the green thread, `catch_kill`, or the `Timeout` itself).
//! So code that swallows it gets it again at its next park. In a `panic = "abort"` build `raise` returns, and the
//! primitive gives an error. A primitive that has no error to give waits on until its operation is done.
//!
//! A patched call cannot unwind. It *tells* its caller what is due, by an errno or by a sleep that ends early
//! ([`tell`]). If the code was told and returns normally all the same, its owner reports the interrupt: `Timeout::run`,
//! `catch_kill` and the base of a green thread give an error that contains the value.
#![forbid(unsafe_code)]

use std::panic::resume_unwind;
use std::thread::panicking;

use super::payload;
pub(crate) use super::payload::{OUTSIDE, is_expired, is_kill, is_ours};
use super::report::complain;
use super::scheduler::Hub;
use super::shared::Message;
use super::task::block::{Task, TaskRef};
use super::task::marks::State;
use super::timers::Due;
use super::waiter::Wake;

const KILL: u8 = 1;
const EXPIRED: u8 = 2;
/// What is due has unwound the task before. If it is still due at a park, the code has swallowed it.
const RAISED: u8 = 4;
/// A patched call, which cannot unwind, has told of the kill: by an errno, or by a sleep that ended early.
const TOLD: u8 = 8;
/// A patched sleep has ended early for the kill. Later ones sleep their full time.
const CUT: u8 = 16;

/// An interrupt that is due.
enum Interrupt {
    Kill,
    Expired(u64),
}

fn due(task: &Task) -> Option<Interrupt> {
    if task.shield.get() > 0 {
        return None;
    }
    let bits = task.interrupt.get();
    // A kill comes before any time-out: it ends everything that a time-out would end.
    if bits & KILL != 0 {
        return Some(Interrupt::Kill);
    }
    if bits & EXPIRED == 0 {
        return None;
    }
    // The guard with the earliest deadline; among equal deadlines the outermost guard, which is the first.
    let first = task.with_cold(|cold| {
        cold.guards
            .iter()
            .filter(|g| g.expired)
            .min_by_key(|g| g.deadline)
            .map(|g| g.id)
    });
    first.map(Interrupt::Expired)
}

/// Whether an interrupt is due, so that a park must not begin.
#[cold]
pub(super) fn is_due(task: &Task) -> bool {
    due(task).is_some()
}

/// Unwinds for the interrupt that is due. Returns if none is, if the stack unwinds already, and in a `panic = "abort"`
/// build.
#[cold]
pub(crate) fn raise() {
    let Some(hub) = Hub::try_current() else { return };
    let task = hub.running();
    if cfg!(panic = "abort") || panicking() {
        return;
    }
    let payload = match due(task) {
        Some(Interrupt::Kill) => payload::killed(),
        Some(Interrupt::Expired(id)) => {
            // No code below would report this unwinding by its name: say on stderr what it is.
            if hub.is_native() && !is_caught(task, id) {
                complain(format_args!(
                    "a Timeout on the native stack has expired outside of its Timeout::run: nothing catches it, and \
                     the stack unwinds"
                ));
            }
            payload::expired(id)
        }
        None => return,
    };
    // If the interrupt is still due at the next park, the code has swallowed it (`was_raised`).
    task.interrupt.set(task.interrupt.get() | RAISED);
    resume_unwind(payload)
}

/// When the next time-out of the running code expires, if it has one that may be raised here.
pub(crate) fn next_deadline() -> Option<u64> {
    let task = Hub::try_current()?.running();
    if !task.has_cold() || task.shield.get() > 0 || cfg!(panic = "abort") || panicking() {
        return None;
    }
    task.with_cold(|cold| {
        let armed = cold.guards.iter().filter(|guard| !guard.expired);
        armed.map(|guard| guard.deadline).min()
    })
}

/// Unwinds like [`raise`] for what is due by now, even if the guard's timer fired for a runner that was polling another
/// task.
pub(crate) fn raise_if_due() {
    let Some(hub) = Hub::try_current() else { return };
    let task = hub.running();
    if task.has_cold() {
        // A timer names the runner that armed the guard. The guard has moved on with its stackless task, so compare the
        // deadlines with the clock.
        let now = hub.clock.now();
        let late = task.with_cold(|cold| {
            let late = cold.guards.iter_mut().filter(|guard| guard.deadline <= now);
            late.map(|guard| guard.expired = true).count()
        });
        if late > 0 {
            task.interrupt.set(task.interrupt.get() | EXPIRED);
        }
    }
    if task.interrupt.get() != 0 {
        raise();
    }
}

/// Notes that there is code to catch the expiry of guard `id`.
pub(crate) fn catches(task: &Task, id: u64) {
    task.with_cold(|cold| {
        let guard = cold.guards.iter_mut().find(|guard| guard.id == id);
        guard.into_iter().for_each(|guard| guard.caught = true);
    });
}

fn is_caught(task: &Task, id: u64) -> bool {
    task.with_cold(|cold| cold.guards.iter().any(|guard| guard.id == id && guard.caught))
}

/// Whether what is due was raised before. Code that swallows it again and again must not keep other tasks from running.
pub(super) fn was_raised(task: &Task) -> bool {
    task.interrupt.get() & RAISED != 0
}

/// Whether the running code unwinds for a kill or a time-out, not for a panic.
pub(crate) fn unwinds() -> bool {
    panicking() && Hub::try_current().is_some_and(|hub| was_raised(hub.running()))
}

/// Whether the running code unwinds, as far as that is known: not if another task's [`panicking`] has leaked to it.
pub(crate) fn is_unwinding() -> bool {
    panicking() && Hub::try_current().is_none_or(|hub| hub.counters.panicking_exposed.get() == 0)
}

/// A number for what is due: a kill has one number, and each guard has its own.
#[cfg(feature = "monkey")]
pub(crate) fn due_number(task: &Task) -> u64 {
    match due(task) {
        Some(Interrupt::Expired(id)) => id,
        Some(Interrupt::Kill) | None => u64::MAX,
    }
}

/// Whether a kill is due.
pub(crate) fn is_kill_due(task: &Task) -> bool {
    task.interrupt.get() & KILL != 0 && task.shield.get() == 0
}

/// Whether a kill is due that has never unwound the task.
pub(crate) fn is_undelivered(task: &Task) -> bool {
    task.interrupt.get() & (KILL | RAISED) == KILL
}

/// Takes a delivered kill back, because it has been caught.
pub(crate) fn clear_kill(task: &Task) {
    task.interrupt.set(task.interrupt.get() & !(KILL | RAISED | TOLD | CUT));
}

/// Notes that a patched call tells its caller of what is due.
#[cfg(feature = "monkey")]
pub(crate) fn tell(task: &Task) {
    match due(task) {
        Some(Interrupt::Kill) => task.interrupt.set(task.interrupt.get() | TOLD),
        Some(Interrupt::Expired(id)) => task.with_cold(|cold| {
            let guard = cold.guards.iter_mut().find(|guard| guard.id == id);
            guard.into_iter().for_each(|guard| guard.told = true);
        }),
        None => {}
    }
}

/// Whether a patched call has told of a kill that has not been caught since.
pub(crate) fn is_told_kill(task: &Task) -> bool {
    task.interrupt.get() & (KILL | TOLD) == KILL | TOLD
}

/// Forgets that a kill was told, so that the code which runs next is told anew. Gives whether it was told.
pub(crate) fn take_told(task: &Task) -> bool {
    let was_told = is_told_kill(task);
    task.interrupt.set(task.interrupt.get() & !TOLD);
    was_told
}

/// Puts back what [`take_told`] took, if the kill is still due.
pub(crate) fn restore_told(task: &Task, was_told: bool) {
    if was_told && task.interrupt.get() & KILL != 0 {
        task.interrupt.set(task.interrupt.get() | TOLD);
    }
}

/// Runs a patched sleep. It ends early once for each interrupt: one that has ended a sleep before is not due during
/// this one.
#[cfg(feature = "monkey")]
pub(crate) fn cut_once(task: &Task, sleep: impl FnOnce() -> Wake) -> Wake {
    let before = task.interrupt.get();
    let has_fresh = || task.with_cold(|cold| cold.guards.iter().any(|guard| guard.expired && !guard.cut));
    // The bits to hide from this sleep: both, if the kill has ended a sleep before; or the time-outs, if each expired
    // one has.
    let kept = if before & CUT != 0 {
        KILL | EXPIRED
    } else if before & EXPIRED != 0 && before & KILL == 0 && !has_fresh() {
        EXPIRED
    } else {
        0
    };
    // An interrupt that comes during the sleep sets its bit again, and is due.
    task.interrupt.set(before & !kept);
    let wake = sleep();
    // What was hidden is due again for all other waits.
    task.interrupt.set(task.interrupt.get() | before & kept);
    // What has ended this sleep ends no other.
    if wake == Wake::Interrupted {
        if task.interrupt.get() & KILL != 0 {
            task.interrupt.set(task.interrupt.get() | CUT);
        }
        task.with_cold(|cold| cold.guards.iter_mut().for_each(|guard| guard.cut |= guard.expired));
    }
    wake
}

/// Sets the bit of an interrupt that has become due. `RAISED` is cleared if nothing else was due: it referred to an
/// earlier interrupt.
fn becomes_due(task: &Task, bit: u8) {
    let before = task.interrupt.get();
    let stale = if before & (KILL | EXPIRED) == 0 { RAISED } else { 0 };
    task.interrupt.set(before & !stale | bit);
}

/// Wakes a parked task for an interrupt, if it may be interrupted. A task that is not parked finds the bit at its next
/// park.
fn interrupt_if_parked(hub: &'static Hub, task: &'static Task) {
    if task.state() == State::Parked && task.shield.get() == 0 {
        // Through the ticket, like any wake: if a wake came first, the task is not parked any more.
        let ticket = task.ticket.load(std::sync::atomic::Ordering::Relaxed);
        hub.wake_local(task, ticket, Wake::Interrupted);
    }
}

/// Kills green thread `id`, from any OS thread.
pub(crate) fn kill(task: TaskRef, id: u64) {
    task.on_its_hub(|hub| kill_here(hub, task, id), || Message::Kill(task, id));
}

/// Kills green thread `id` of this hub: sets the bit, and wakes it if it is parked.
pub(super) fn kill_here(hub: &'static Hub, task: TaskRef, id: u64) {
    let Some(task) = hub.resolve_local(task) else { return };
    if task.id() == id && !task.is_finished() {
        // While a stackless task is polled its bits are with the runner.
        let task = task.interrupt_target();
        becomes_due(task, KILL);
        interrupt_if_parked(hub, task);
    }
}

/// Expires guard `id` of a task, because its timer has fired.
pub(super) fn expire(hub: &'static Hub, task: TaskRef, id: u64) {
    let Some(task) = hub.resolve_local(task) else { return };
    let found = task.with_cold(|cold| {
        let guard = cold.guards.iter_mut().find(|guard| guard.id == id)?;
        guard.expired = true;
        guard.timer = None;
        Some(())
    });
    // If the guard is not here, there is nothing to interrupt. It was disarmed, or it has moved on with its stackless
    // task to another runner (`raise_if_due`).
    if found.is_some() {
        becomes_due(task, EXPIRED);
        interrupt_if_parked(hub, task);
    }
}

/// The task that has guard `id`, which `task` armed: `task` itself; or, if that was the runner of a stackless task, the
/// runner that polls the stackless task now.
fn holder(hub: &'static Hub, task: TaskRef, id: u64) -> Option<&'static Task> {
    let runs = hub.running();
    let has = |task: &Task| task.has_cold() && task.with_cold(|cold| cold.guards.iter().any(|guard| guard.id == id));
    if task.is(runs) || has(runs) {
        Some(runs)
    } else {
        hub.resolve_local(task)
    }
}

/// Moves the deadline of guard `id`, unless the guard has expired; `u64::MAX` means never.
pub(crate) fn rearm(hub: &'static Hub, task: TaskRef, id: u64, deadline: u64) {
    let Some(owned) = holder(hub, task, id) else { return };
    // The new timer first: the guard is never without the one that it should have.
    let due_now = deadline <= hub.clock.now();
    let timer = (deadline != u64::MAX && !due_now).then(|| hub.insert_timer(deadline, Due::Guard(task, id)));
    // The old timer; or the new one, if the guard has expired or is gone.
    let spare = owned.with_cold(|cold| {
        let guard = cold.guards.iter_mut().find(|guard| guard.id == id && !guard.expired);
        guard.map_or(timer, |guard| {
            guard.deadline = deadline;
            std::mem::replace(&mut guard.timer, timer)
        })
    });
    spare.into_iter().for_each(|key| hub.remove_timer(key));
    if due_now {
        // The guard is with `owned`, which need not be the runner that armed it.
        expire(hub, TaskRef::new(owned), id);
    }
}

/// Forgets guard `id` of a task; gives whether a patched call had told of its expiry. `goes_on` says that a kill, or
/// the time-out of another guard, unwinds the code that this guard limits.
pub(crate) fn disarm(hub: &'static Hub, task: TaskRef, id: u64, goes_on: bool) -> bool {
    let Some(task) = holder(hub, task, id) else {
        return false;
    };
    let (guard, others) = task.with_cold(|cold| {
        let at = cold.guards.iter().position(|guard| guard.id == id);
        let guard = at.map(|at| cold.guards.remove(at));
        (guard, cold.guards.iter().any(|guard| guard.expired))
    });
    // `EXPIRED` stays if another guard has expired.
    let expired = if others { EXPIRED } else { 0 };
    // `RAISED` stays if it refers to another interrupt: the one that goes on, or any if this guard has not expired and
    // so was not raised.
    let raised = if goes_on || guard.as_ref().is_none_or(|guard| !guard.expired) {
        RAISED
    } else {
        0
    };
    let kept = !(EXPIRED | RAISED) | expired | raised;
    task.interrupt.set(task.interrupt.get() & kept);
    let Some(guard) = guard else { return false };
    if let Some(key) = guard.timer {
        hub.remove_timer(key);
    }
    guard.told
}

/// Has what is due count as an interrupt that has not unwound anything yet.
#[cfg(feature = "tls")]
pub(super) fn forget_raised(task: &Task) {
    task.interrupt.set(task.interrupt.get() & !RAISED);
}
