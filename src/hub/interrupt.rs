//! Kill, time-out and shield: what may end a park from outside, and the payloads that unwind for it.
//!
//! A kill or an expired guard only sets a bit. [`Parker::park`](super::park::Parker) looks at it, gives
//! [`Wake::Interrupted`](super::park::Wake) to the primitive, which puts its queue right and calls [`raise`]. The payload
//! goes by `resume_unwind`: destructors run and the panic hook is silent. It stays due until its owner takes it
//! (the base of the green thread, `catch_kill`, the `Timeout` itself), so code that swallows it gets it again at its
//! next park. In a `panic = "abort"` build `raise` returns, and the primitive gives an error.
//!
//! A patched call cannot unwind: it *tells* of what is due, by an errno or by a sleep that ends early ([`tell`]). Code that
//! was told, and returns all the same, is cut short where it returns to the owner: `Timeout::run`, `catch_kill` and the base
//! of a green thread give an error, with the value beside it.
#![forbid(unsafe_code)]

use std::any::Any;
use std::panic::resume_unwind;
#[cfg(feature = "tls")]
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::panicking;

use super::park::Wake;
use super::task::{self, State, Task, TaskRef};
use super::timer::Key;
use super::{Due, Hub};

const KILL: u8 = 1;
const EXPIRED: u8 = 2;
/// What is due has unwound the task before, and somebody swallowed it.
const RAISED: u8 = 4;
/// A patched call has told of the kill, which cannot unwind: by an errno, or by a sleep that ended early.
const TOLD: u8 = 8;
/// A patched sleep has ended early for the kill: later ones keep their time.
const CUT: u8 = 16;

/// One armed [`Timeout`](crate::time::Timeout).
pub(crate) struct Guard {
    pub(crate) id: u64,
    pub(crate) deadline: u64,
    pub(crate) expired: bool,
    /// Whether somebody is there to catch it.
    pub(crate) caught: bool,
    /// A patched call has told of its expiry.
    pub(crate) told: bool,
    /// A patched sleep has ended early for it.
    #[cfg(feature = "monkey")]
    pub(crate) cut: bool,
    pub(crate) timer: Option<Key>,
}

/// What is said of one that a time-out has unwound altogether.
pub(crate) const OUTSIDE: &str = "was ended by a time-out that expired outside of its Timeout::run";

struct Kill;
struct Expired(u64);

/// What is due.
enum Interrupt {
    Kill,
    Expired(u64),
}

fn due(task: &Task) -> Option<Interrupt> {
    if task.shield.get() > 0 {
        return None;
    }
    let bits = task.interrupt.get();
    if bits & KILL != 0 {
        return Some(Interrupt::Kill);
    }
    if bits & EXPIRED == 0 {
        return None;
    }
    // The earliest first; of equals the outermost.
    let first = task.with_extra(|extra| {
        extra
            .guards
            .iter()
            .filter(|g| g.expired)
            .min_by_key(|g| g.deadline)
            .map(|g| g.id)
    });
    first.map(Interrupt::Expired)
}

/// Whether a park must not begin.
#[cold]
pub(super) fn is_due(task: &Task) -> bool {
    due(task).is_some()
}

/// Unwinds for what is due. Returns if nothing is, while unwinding already, and in a `panic = "abort"` build.
#[cold]
pub(crate) fn raise() {
    let Some(hub) = Hub::try_current() else { return };
    let task = hub.running();
    if cfg!(panic = "abort") || panicking() {
        return;
    }
    let payload = match due(task) {
        Some(Interrupt::Kill) => killed_payload(),
        Some(Interrupt::Expired(id)) => {
            if hub.is_native() && !is_caught(task, id) {
                super::complain(format_args!(
                    "a time-out of the native stack has expired outside of Timeout::run, and unwinds it"
                ));
            }
            Box::new(Expired(id))
        }
        None => return,
    };
    task.interrupt.set(task.interrupt.get() | RAISED);
    resume_unwind(payload)
}

/// When the next time-out of the code that runs expires, if it has one that may be raised here.
pub(crate) fn next_deadline() -> Option<u64> {
    let task = Hub::try_current()?.running();
    if !task.has_extra() || task.shield.get() > 0 || cfg!(panic = "abort") || panicking() {
        return None;
    }
    task.with_extra(|extra| {
        let armed = extra.guards.iter().filter(|guard| !guard.expired);
        armed.map(|guard| guard.deadline).min()
    })
}

/// Unwinds, like [`raise`], for what is due by now, even if its timer has rung for a runner that has turned to others.
pub(crate) fn raise_if_due() {
    let Some(hub) = Hub::try_current() else { return };
    let task = hub.running();
    if task.has_extra() {
        let now = hub.clock.now();
        let late = task.with_extra(|extra| {
            let late = extra.guards.iter_mut().filter(|guard| guard.deadline <= now);
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

/// Says that somebody is there to catch guard `id`.
pub(crate) fn catches(task: &Task, id: u64) {
    task.with_extra(|extra| {
        let guard = extra.guards.iter_mut().find(|guard| guard.id == id);
        guard.into_iter().for_each(|guard| guard.caught = true);
    });
}

fn is_caught(task: &Task, id: u64) -> bool {
    task.with_extra(|extra| extra.guards.iter().any(|guard| guard.id == id && guard.caught))
}

/// Whether what is due was raised before: code that swallows it again and again must not keep others from running.
pub(super) fn was_raised(task: &Task) -> bool {
    task.interrupt.get() & RAISED != 0
}

/// Whether the code that runs unwinds for a kill or a time-out, and not for a panic.
pub(crate) fn unwinds() -> bool {
    panicking() && Hub::try_current().is_some_and(|hub| was_raised(hub.running()))
}

/// Whether the code that runs unwinds, as far as can be told: not if another's [`panicking`] has leaked to it.
pub(crate) fn is_unwinding() -> bool {
    panicking() && Hub::try_current().is_none_or(|hub| hub.leaks.get() == 0)
}

pub(super) fn killed_payload() -> Box<dyn Any + Send> {
    Box::new(Kill)
}

/// Whether a payload is a kill's.
pub(crate) fn is_kill(payload: &(dyn Any + Send)) -> bool {
    payload.is::<Kill>()
}

/// Whether a payload is that of guard `id`.
pub(crate) fn is_expired(payload: &(dyn Any + Send), id: u64) -> bool {
    payload.downcast_ref::<Expired>().is_some_and(|expired| expired.0 == id)
}

/// Whether a payload is one of ours, and not a panic.
pub(crate) fn is_ours(payload: &(dyn Any + Send)) -> bool {
    is_kill(payload) || payload.is::<Expired>()
}

/// What is due, by number: a kill, or one guard and no other.
#[cfg(feature = "monkey")]
pub(crate) fn due_number(task: &Task) -> u64 {
    match due(task) {
        Some(Interrupt::Expired(id)) => id,
        Some(Interrupt::Kill) | None => u64::MAX,
    }
}

/// Whether a kill is due.
pub(crate) fn is_killed(task: &Task) -> bool {
    task.interrupt.get() & KILL != 0 && task.shield.get() == 0
}

/// Whether a kill is due that has never unwound it.
pub(crate) fn is_undelivered(task: &Task) -> bool {
    task.interrupt.get() & (KILL | RAISED) == KILL
}

/// Takes a delivered kill back: it has been caught.
pub(crate) fn clear_kill(task: &Task) {
    task.interrupt.set(task.interrupt.get() & !(KILL | RAISED | TOLD | CUT));
}

/// Notes that a patched call tells of what is due.
#[cfg(feature = "monkey")]
pub(crate) fn tell(task: &Task) {
    match due(task) {
        Some(Interrupt::Kill) => task.interrupt.set(task.interrupt.get() | TOLD),
        Some(Interrupt::Expired(id)) => task.with_extra(|extra| {
            let guard = extra.guards.iter_mut().find(|guard| guard.id == id);
            guard.into_iter().for_each(|guard| guard.told = true);
        }),
        None => {}
    }
}

/// Whether a patched call has told of a kill, and nobody has caught that since.
pub(crate) fn is_told_kill(task: &Task) -> bool {
    task.interrupt.get() & (KILL | TOLD) == KILL | TOLD
}

/// Forgets that a kill was told, for code that is to be told anew; says whether it was.
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

/// Runs a patched sleep, which ends early for each interrupt once: what has ended one before is not due meanwhile.
#[cfg(feature = "monkey")]
pub(crate) fn cut_once(task: &Task, sleep: impl FnOnce() -> Wake) -> Wake {
    let before = task.interrupt.get();
    let has_fresh = || task.with_extra(|extra| extra.guards.iter().any(|guard| guard.expired && !guard.cut));
    let kept = if before & CUT != 0 {
        KILL | EXPIRED
    } else if before & EXPIRED != 0 && before & KILL == 0 && !has_fresh() {
        EXPIRED
    } else {
        0
    };
    // What comes meanwhile sets its bit again, and is due.
    task.interrupt.set(before & !kept);
    let wake = sleep();
    task.interrupt.set(task.interrupt.get() | before & kept);
    if wake == Wake::Interrupted {
        if task.interrupt.get() & KILL != 0 {
            task.interrupt.set(task.interrupt.get() | CUT);
        }
        task.with_extra(|extra| extra.guards.iter_mut().for_each(|guard| guard.cut |= guard.expired));
    }
    wake
}

/// Runs `f`, and puts off a kill or time-out that unwinds it to the next park: `None`. For work behind a step that the
/// caller must be told of, bytes that were taken say.
#[cfg(feature = "tls")]
pub(crate) fn put_off<R>(f: impl FnOnce() -> R) -> Option<R> {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(value) => Some(value),
        Err(payload) if is_ours(&*payload) => {
            // It comes again, and as what it is: one that has not unwound anything yet.
            let task = Hub::current().running();
            task.interrupt.set(task.interrupt.get() & !RAISED);
            None
        }
        Err(payload) => resume_unwind(payload),
    }
}

/// Runs `f` with kill and time-out deferred.
pub(crate) fn shield<F: FnOnce() -> T, T>(f: F) -> T {
    /// Who raised it: a green thread, whose stack may be unwound by another, after its end; or a stackless task, which has
    /// another runner by now.
    struct Lower(TaskRef, u64);
    impl Drop for Lower {
        fn drop(&mut self) {
            let Some(hub) = Hub::try_current() else { return };
            let runs = Some(hub.running()).filter(|task| task.id() == self.1);
            let raised = || hub.own(self.0).filter(|task| task.id() == self.1);
            if let Some(task) = runs.or_else(raised) {
                task.shield.set(task.shield.get().saturating_sub(1));
            }
        }
    }
    if Hub::has_ended() {
        // Nobody is left who could kill the caller.
        return f();
    }
    let task = Hub::current().running();
    let Some(raised) = task.shield.get().checked_add(1) else {
        panic!("shields nested 255 deep")
    };
    task.shield.set(raised);
    let _lower = Lower(TaskRef::new(task), task.id());
    f()
}

/// Sets the bit of what is due from now on. If nothing else is, then nothing that is has been raised.
fn becomes_due(task: &Task, bit: u8) {
    let before = task.interrupt.get();
    let stale = if before & (KILL | EXPIRED) == 0 { RAISED } else { 0 };
    task.interrupt.set(before & !stale | bit);
}

/// Runs the interrupt of a parked task, if it may be interrupted.
fn poke(hub: &'static Hub, task: &'static Task) {
    if task.state() == State::Parked && task.shield.get() == 0 {
        let ticket = task.ticket.load(std::sync::atomic::Ordering::Relaxed);
        hub.wake_local(task, ticket, Wake::Interrupted);
    }
}

/// Asks green thread `id` of this hub to die.
pub(crate) fn kill(hub: &'static Hub, task: TaskRef, id: u64) {
    let Some(task) = hub.own(task) else { return };
    if task.id() == id && !task.is_finished() {
        let task = task::face(task);
        becomes_due(task, KILL);
        poke(hub, task);
    }
}

/// The timer of guard `id` fired.
pub(super) fn expire(hub: &'static Hub, task: TaskRef, id: u64) {
    let Some(task) = hub.own(task) else { return };
    let found = task.with_extra(|extra| {
        let guard = extra.guards.iter_mut().find(|guard| guard.id == id)?;
        guard.expired = true;
        guard.timer = None;
        Some(())
    });
    if found.is_some() {
        becomes_due(task, EXPIRED);
        poke(hub, task);
    }
}

/// Who has guard `id`, which `task` armed: itself, or, if that was the runner of a stackless task, the one that has it now.
fn holder(hub: &'static Hub, task: TaskRef, id: u64) -> Option<&'static Task> {
    let runs = hub.running();
    let has =
        |task: &Task| task.has_extra() && task.with_extra(|extra| extra.guards.iter().any(|guard| guard.id == id));
    if task.is(runs) || has(runs) {
        Some(runs)
    } else {
        hub.own(task)
    }
}

/// Moves the deadline of guard `id`, unless it has expired; `u64::MAX` is never.
pub(crate) fn rearm(hub: &'static Hub, task: TaskRef, id: u64, deadline: u64) {
    let Some(owned) = holder(hub, task, id) else { return };
    let due_now = deadline <= hub.clock.now();
    let timer = (deadline != u64::MAX && !due_now).then(|| hub.insert_timer(deadline, Due::Guard(task, id)));
    // The old timer, or the new one if there is no use for it.
    let spare = owned.with_extra(|extra| {
        let guard = extra.guards.iter_mut().find(|guard| guard.id == id && !guard.expired);
        guard.map_or(timer, |guard| {
            guard.deadline = deadline;
            std::mem::replace(&mut guard.timer, timer)
        })
    });
    spare.into_iter().for_each(|key| hub.timers.remove(key));
    if due_now {
        expire(hub, task, id);
    }
}

/// Forgets guard `id` of a task; says whether a patched call had told of its expiry. With `goes_on` the kill or the
/// time-out of another guard unwinds through it, and goes on.
pub(crate) fn disarm(hub: &'static Hub, task: TaskRef, id: u64, goes_on: bool) -> bool {
    let Some(task) = holder(hub, task, id) else {
        return false;
    };
    let (guard, others) = task.with_extra(|extra| {
        let at = extra.guards.iter().position(|guard| guard.id == id);
        let guard = at.map(|at| extra.guards.remove(at));
        (guard, extra.guards.iter().any(|guard| guard.expired))
    });
    let expired = if others { EXPIRED } else { 0 };
    // What has not expired has raised nothing.
    let raised = if goes_on || guard.as_ref().is_none_or(|guard| !guard.expired) {
        RAISED
    } else {
        0
    };
    let kept = !(EXPIRED | RAISED) | expired | raised;
    task.interrupt.set(task.interrupt.get() & kept);
    let Some(guard) = guard else { return false };
    if let Some(key) = guard.timer {
        hub.timers.remove(key);
    }
    guard.told
}
