//! Calls of the user's code from within this crate, and reports: of panics that no `join` receives, and of what each
//! green thread waits for.
#![forbid(unsafe_code)]

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::name::Name;
use super::payload;
use super::scheduler::Hub;
use super::task::block::Task;
use super::task::marks::{Marks, State};
use super::timer::Key;
use super::timers::Due;
use crate::fiber::unwind;
use crate::stack::Whose;
use crate::sys::fork::{Global, Order};
pub(crate) use crate::sys::report::complain;

/// Calls code of the user from within this crate, on any stack. A panic of that code goes no further, and on the hub's
/// own stack the code is a callback. All code of the user that is not called on behalf of its owner goes through here:
/// hooks, wakers, and destructors of values that are no longer needed ([`discard`]).
pub(crate) fn call_user<R>(f: impl FnOnce() -> R) -> Result<R, Box<dyn Any + Send>> {
    // On the hub's own stack nothing may park. On the stack of a green thread the code may.
    let on_own_stack = Hub::try_current().filter(|hub| hub.queue.is_on_own_stack());
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

impl Hub {
    /// Takes a timer away.
    #[inline]
    pub(crate) fn remove_timer(&self, key: Key) {
        // Dropping a callback runs code of the user, which may set a timer.
        if let Some(Due::Call(f)) = self.timers.remove(key) {
            discard(f);
        }
    }
}

/// The name of a task.
pub(crate) fn name_of(task: &Task) -> String {
    let name = task.name();
    let name = name.as_deref().map(|name| &**name);
    Name { id: task.id(), name }.to_string()
}

/// The name of the running green thread; `None` on the native stack.
pub(crate) fn name_of_running() -> Option<String> {
    Hub::try_current()?.queue.current.get().map(name_of)
}

/// The line that precedes std's message of a panic.
pub(super) fn announcement(name: String) -> String {
    format!("\ngreenthread: {name} panics:\n")
}

/// Has std's panic message preceded by a line that names the green thread, because std knows only the OS thread. Does
/// nothing if the program has a panic hook of its own.
pub(super) fn announce_panics() {
    static DONE: AtomicBool = AtomicBool::new(false);
    // Once a process. A panicking thread cannot set a hook, so it leaves that to the next hub.
    if DONE.load(Ordering::Relaxed) || std::thread::panicking() || DONE.swap(true, Ordering::Relaxed) {
        return;
    }
    // The first call takes the hook that is set, and leaves std's default hook, which the second call takes.
    let (first, default) = (take_hook(), take_hook());
    // std's hook is a function and holds no data, so it has no address of its own. If the first hook holds none either,
    // the pointers are equal only if their types are.
    let is_default = size_of_val(&*first) == 0 && ptr::eq(&raw const *first, &raw const *default);
    if !is_default {
        return set_hook(first);
    }
    set_hook(Box::new(move |panic| {
        if let Some(name) = name_of_running() {
            eprint!("{}", announcement(name));
        }
        default(panic);
    }));
}

/// For the report of a stack overflow: which stack lies in a slot, and the name of the running green thread. Runs in a
/// signal handler.
pub(super) fn describe(limit: usize, end: usize, out: &mut [u8]) -> (usize, Whose) {
    // No green thread runs, so the stack is that of a generator or greenlet of the native stack.
    let Some(task) = Hub::try_current().and_then(|hub| hub.queue.current.get()) else {
        return (0, Whose::Coroutine);
    };
    (task.name_into(out), task.whose(limit..end))
}

/// A line for each green thread of a hub: its state, what it waits for, and where it was spawned.
pub(crate) fn lines(hub: &Hub) -> Vec<String> {
    seen(hub).into_iter().map(line).collect()
}

/// The tasks of a hub, in order of their numbers. In place of a stackless task that is being polled it gives the
/// runner, which knows what it waits for.
pub(super) fn seen(hub: &Hub) -> Vec<&'static Task> {
    let mut tasks = hub.tasks();
    tasks.retain(|task| !task.marks.get(Marks::STACKLESS) || task.state() != State::Running);
    tasks.sort_by_key(|task| task.id());
    tasks
}

pub(crate) fn line(task: &'static Task) -> String {
    let doing = match task.state() {
        State::Parked | State::ParkedUninterruptible => format!("waits for {}", task.why()),
        State::New => String::from("has not started"),
        State::Ready => String::from("is ready to run"),
        State::Running => String::from("runs"),
        State::Idle => String::from("is about to start"),
    };
    format!("{} {doing}, spawned at {}", Reporter::of(task).name, task.place())
}

/// A line for each green thread, and the backtrace that [`probe_all`](super::park::probe_all) had it capture.
pub(crate) fn traced_lines(hub: &Hub) -> Vec<(String, Option<String>)> {
    seen(hub)
        .iter()
        .map(|task| (line(task), task.with_cold(|extra| extra.backtrace.take())))
        .collect()
}

/// The name of green thread `id` of a hub; `None` if it has ended, or is a runner at rest.
pub(crate) fn named(hub: &Hub, id: u64) -> Option<String> {
    let task = hub.tasks().into_iter().find(|task| task.id() == id)?;
    Some(Reporter::of(task).name)
}

/// The name of the task or callback that panicked, for the hook.
pub(crate) struct Reporter {
    pub(crate) name: String,
}

impl Reporter {
    pub(crate) fn of(task: &Task) -> Reporter {
        Reporter { name: name_of(task) }
    }

    pub(crate) fn callback() -> Reporter {
        Reporter {
            name: String::from("a hub callback"),
        }
    }
}

pub(super) type PanicHook = dyn Fn(&str, &(dyn Any + Send)) + Send + Sync;
pub(super) static PANIC_HOOK: Global<Option<Arc<PanicHook>>> = Global::new(Order::PanicHook, None);

/// Reports a panic that no `join` receives: once, to the hook if there is one, else to stderr.
#[cold]
pub(crate) fn report_panic(reporter: &Reporter, payload: Box<dyn Any + Send>) {
    // A killed green thread has ended as it should.
    if payload::is_kill(&*payload) {
        return discard(payload);
    }
    // A time-out that unwound past the code that was to catch it.
    if payload::is_ours(&*payload) {
        complain(format_args!("{} {}", reporter.name, payload::OUTSIDE));
        return discard(payload);
    }
    // The hook is cloned out of the lock, because it is the user's code and may set another hook.
    let hook = PANIC_HOOK.lock().clone();
    match hook {
        Some(hook) => {
            let told = call_user(|| hook(&reporter.name, &*payload));
            // This is the last reference if the hook was replaced meanwhile; its drop runs the user's code.
            discard(hook);
            if let Err(payload) = told {
                complain(format_args!(
                    "the panic hook panicked while it reported a panic of {}",
                    reporter.name
                ));
                discard(payload);
            }
        }
        None => complain(format_args!(
            "{} panicked: {}",
            reporter.name,
            unwind::message(&*payload)
        )),
    }
    discard(payload);
}

/// The message that std's own hook would write for this panic.
pub(super) fn panic_message(panic: &std::panic::PanicHookInfo<'_>) -> String {
    let thread = std::thread::current();
    let name = thread.name().unwrap_or("<unnamed>");
    let text = unwind::message(panic.payload());
    let mut message = name_of_running().map_or_else(String::new, announcement);
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

/// Sets the hook for panics that no `join` receives, in the whole process; `None` brings back the line on stderr.
///
/// The hook is not called for children of a [`scope`](crate::scope()): there the scope itself panics.
///
/// The hook gets the green thread as `green thread #2 'name'`, and the panic's payload.
///
/// # Coming from Python
/// gevent's `hub.handle_error`, asyncio's "exception was never retrieved".
pub fn set_panic_hook<F>(hook: Option<F>)
where
    F: Fn(&str, &(dyn std::any::Any + Send)) + Send + Sync + 'static,
{
    let hook = hook.map(|hook| Arc::new(hook) as Arc<PanicHook>);
    let before = std::mem::replace(&mut *PANIC_HOOK.lock(), hook);
    // The drop runs the user's code, so it comes after the unlock.
    drop(before);
}

/// Writes std's messages of panics as this crate's own reports are written: without waiting for stderr, and at a
/// limited rate.
///
/// By default std writes the message in the green thread that panics, and waits for stderr. If the reader of stderr (a
/// log collector, say) has stopped and the pipe is full, the whole hub stops with it. A server that may meet panics
/// calls this function first thing in `main`. It replaces the panic hook of the whole process, for OS threads too; a
/// hook that is set later replaces this one in turn.
///
/// ```
/// use greenthread::{hub, spawn};
/// hub::write_panics_aside();
/// assert!(spawn(|| panic!("told aside")).join().is_err());
/// ```
///
/// The message is that of std, with a backtrace if `RUST_BACKTRACE` asks for one.
pub fn write_panics_aside() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map_or(("unknown", 0), |at| (at.file(), at.line()));
        crate::sys::report::print(place, || panic_message(panic));
    }));
}
