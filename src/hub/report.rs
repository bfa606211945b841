//! Reports of the hub: what each green thread waits for, and panics that no `join` receives.
#![forbid(unsafe_code)]

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::task::{self, Marks, State, Task};
use super::{Hub, interrupt};
use crate::sys::fork::{Global, Order};
pub(crate) use crate::sys::report::complain;

/// A line for each green thread of a hub: its state, what it waits for, and where it was spawned.
pub(crate) fn lines(hub: &Hub) -> Vec<String> {
    seen(hub).into_iter().map(line).collect()
}

/// The tasks of a hub, in order of their numbers. In place of a stackless task that is being polled it gives the
/// runner, which knows what it waits for.
pub(super) fn seen(hub: &Hub) -> Vec<&'static Task> {
    let mut tasks = task::all_of(hub);
    tasks.retain(|task| !task.marks.get(Marks::STACKLESS) || task.state() != State::Running);
    tasks.sort_by_key(|task| task.id());
    tasks
}

pub(crate) fn line(task: &'static Task) -> String {
    let doing = match task.state() {
        State::Parked | State::Held => format!("waits for {}", task.why()),
        State::New => String::from("has not started"),
        State::Ready => String::from("is ready"),
        State::Running => String::from("runs"),
        State::Idle => String::from("is on its way"),
    };
    format!("{} {doing}, spawned at {}", Reporter::of(task).who, task.place())
}

/// Has every parked green thread but the caller capture a backtrace of its own stack.
pub(crate) fn probe_all(hub: &'static Hub) {
    let me = hub.running();
    let parked = |task: &&'static Task| {
        let has_stack = !task.marks.get(Marks::STACKLESS);
        has_stack && task.state().is_parked() && !std::ptr::eq(*task, me)
    };
    // Each is resumed with the mark `PROBE`, and parks again after it has looked: see `Hub::probe` in `park.rs`.
    for task in task::all_of(hub).into_iter().filter(parked) {
        task.marks.set(Marks::PROBE, true);
        task.state.set(State::Ready);
        hub.ready.push(task);
    }
    // The ready queue is in order: every task pushed above has looked before the caller is resumed.
    super::park::yield_now();
}

/// A line for each green thread, and the backtrace that [`probe_all`] had it capture.
pub(crate) fn traced_lines(hub: &Hub) -> Vec<(String, Option<String>)> {
    seen(hub)
        .iter()
        .map(|task| (line(task), task.with_cold(|extra| extra.backtrace.take())))
        .collect()
}

/// The name of green thread `id` of a hub; `None` if it has ended, or is a runner at rest.
pub(crate) fn named(hub: &Hub, id: u64) -> Option<String> {
    let task = task::all_of(hub).into_iter().find(|task| task.id() == id)?;
    Some(Reporter::of(task).who)
}

/// The name of the task or callback that panicked, for the hook.
pub(crate) struct Reporter {
    pub(crate) who: String,
}

impl Reporter {
    pub(crate) fn of(task: &Task) -> Reporter {
        Reporter {
            who: super::name::of(task),
        }
    }

    pub(crate) fn callback() -> Reporter {
        Reporter {
            who: String::from("a hub callback"),
        }
    }
}

pub(super) type PanicHook = dyn Fn(&str, &(dyn Any + Send)) + Send + Sync;
pub(super) static PANIC_HOOK: Global<Option<Arc<PanicHook>>> = Global::new(Order::PanicHook, None);

/// Calls code of the user from within this crate, on any stack. A panic of that code goes no further, and on the hub's
/// own stack the code is a callback. All code of the user that is not called on behalf of its owner goes through here:
/// hooks, wakers, and destructors of values that are no longer needed ([`discard`]).
pub(crate) fn call_user<R>(f: impl FnOnce() -> R) -> Result<R, Box<dyn Any + Send>> {
    // On the hub's own stack nothing may park. On the stack of a green thread the code may.
    let on_own_stack = Hub::try_current().filter(|hub| hub.is_on_own_stack());
    catch_unwind(AssertUnwindSafe(|| match on_own_stack {
        Some(hub) => hub.as_callback(f),
        None => f(),
    }))
}

/// Drops a value of the user's code through [`call_user`].
pub(crate) fn discard<T>(value: T) {
    if let Err(payload) = call_user(move || drop(value)) {
        // The payload is leaked, because its own destructor may panic as well.
        std::mem::forget(payload);
    }
}

/// Reports a panic that no `join` receives: once, to the hook if there is one, else to stderr.
#[cold]
pub(crate) fn report_panic(who: &Reporter, payload: Box<dyn Any + Send>) {
    // A killed green thread has ended as it should.
    if interrupt::is_kill(&*payload) {
        return discard(payload);
    }
    // A time-out that unwound past the code that was to catch it.
    if interrupt::is_ours(&*payload) {
        complain(format_args!("{} {}", who.who, interrupt::OUTSIDE));
        return discard(payload);
    }
    // The hook is cloned out of the lock, because it is the user's code and may set another hook.
    let hook = PANIC_HOOK.lock().clone();
    match hook {
        Some(hook) => {
            let told = call_user(|| hook(&who.who, &*payload));
            // This is the last reference if the hook was replaced meanwhile; its drop runs the user's code.
            discard(hook);
            if let Err(payload) = told {
                complain(format_args!("the panic hook itself panicked, about {}", who.who));
                discard(payload);
            }
        }
        None => complain(format_args!(
            "{} panicked: {}",
            who.who,
            crate::fiber::unwind::message(&*payload)
        )),
    }
    discard(payload);
}

/// The message that std's own hook would write for this panic.
pub(super) fn panic_message(panic: &std::panic::PanicHookInfo<'_>) -> String {
    let thread = std::thread::current();
    let name = thread.name().unwrap_or("<unnamed>");
    let text = crate::fiber::unwind::message(panic.payload());
    let mut message = super::name::of_running().map_or_else(String::new, super::name::announcement);
    message.push_str(&format!(
        "\nthread '{name}' ({}) panicked at ",
        crate::sys::thread::id()
    ));
    if let Some(place) = panic.location() {
        message.push_str(&place.to_string());
    }
    message.push_str(&format!(":\n{text}\n"));
    // As std does: any value but "0" asks for a backtrace.
    let asked = std::env::var_os("RUST_BACKTRACE").is_some_and(|style| style != "0");
    if asked {
        message.push_str(&format!(
            "stack backtrace:\n{}",
            std::backtrace::Backtrace::force_capture()
        ));
    } else {
        message.push_str("note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace\n");
    }
    message
}
