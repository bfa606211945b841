//! OS threads as the kernel sees them.

use std::cell::Cell;
use std::io;

use super::platform::os;

/// The kernel's number of the calling OS thread.
pub(crate) fn id() -> u64 {
    os::thread_id()
}

/// Whether the caller is the first OS thread of the process.
pub(crate) fn is_main() -> bool {
    os::is_main_thread()
}

/// The numbers of all OS threads of this process, where the system tells them.
pub(crate) fn all() -> Option<Vec<u64>> {
    os::threads()
}

thread_local! {
    static STARTS: Cell<bool> = const { Cell::new(false) };
}

/// Whether the caller is starting an OS thread of this crate. Such a thread must be a real one even where std's threads
/// are green.
#[cfg(feature = "monkey")]
pub(crate) fn starts() -> bool {
    STARTS.get()
}

/// Starts an OS thread of this crate.
pub(crate) fn start(name: &str, f: impl FnOnce() + Send + 'static) -> io::Result<()> {
    STARTS.set(true);
    let started = std::thread::Builder::new().name(String::from(name)).spawn(f);
    STARTS.set(false);
    started.map(drop)
}

/// Gives the processor to another OS thread, if one is ready. No patch intercepts the call: the caller may be about to
/// take a lock, and must not switch to another green thread.
pub(crate) fn give_way() {
    super::plain::plainly(rustix::thread::sched_yield);
}

/// Parks the whole OS thread until it is unparked or `timeout` passes; no other green thread runs meanwhile.
pub(crate) fn park(timeout: Option<std::time::Duration>) {
    match timeout {
        Some(timeout) => std::thread::park_timeout(timeout),
        None => std::thread::park(),
    }
}
