//! The names of green threads in messages and reports.
#![forbid(unsafe_code)]

use std::fmt;
use std::panic::{set_hook, take_hook};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

use super::HUB;
use super::task::{self, Task};
use crate::stack::Whose;

/// `green thread #2 'worker'`, or `green thread #2` if it has no name; `native stack #1`. It allocates nothing, so a signal
/// handler may write it.
#[derive(Clone, Copy)]
pub(crate) struct Name<'a> {
    pub(crate) id: u64,
    pub(crate) name: Option<&'a str>,
}

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if task::is_native(self.id) {
            return write!(f, "native stack #{}", task::without_native(self.id));
        }
        write!(f, "green thread #{}", self.id)?;
        match self.name {
            Some(name) => write!(f, " '{name}'"),
            None => Ok(()),
        }
    }
}

/// The name of a task.
pub(crate) fn of(task: &Task) -> String {
    let name = task.name();
    let name = name.as_deref().map(|name| &**name);
    Name { id: task.id(), name }.to_string()
}

/// The name of the running green thread; `None` on the native stack.
pub(crate) fn of_running() -> Option<String> {
    HUB.get()?.current.get().map(of)
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
        if let Some(name) = of_running() {
            eprint!("{}", announcement(name));
        }
        default(panic);
    }));
}

/// For the report of a stack overflow: which stack lies in a slot, and the name of the running green thread. Runs in a
/// signal handler.
pub(super) fn describe(limit: usize, end: usize, out: &mut [u8]) -> (usize, Whose) {
    // No green thread runs, so the stack is that of a generator or greenlet of the native stack.
    let Some(task) = HUB.get().and_then(|hub| hub.current.get()) else {
        return (0, Whose::Coroutine);
    };
    (task.name_into(out), task.whose(limit..end))
}

/// A buffer for text that cannot grow; what does not fit is left out.
pub(super) struct Buffer<'a> {
    pub(super) bytes: &'a mut [u8],
    pub(super) len: usize,
}

impl fmt::Write for Buffer<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for (to, from) in self.bytes[self.len..].iter_mut().zip(text.bytes()) {
            *to = from;
            self.len += 1;
        }
        Ok(())
    }
}
