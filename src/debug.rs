//! Looking inside: which green threads there are, what each waits for, and where.
#![forbid(unsafe_code)]

use std::fmt::Write;

use crate::hub::{self, Hub};

/// All green threads of this OS thread's hub: state, what each waits for, where it was spawned, and its backtrace.
///
/// ```
/// use greenthread::{debug, thread};
/// let worker = thread::Builder::new().name("worker").spawn(thread::park).unwrap();
/// greenthread::yield_now();
/// let dump = debug::dump();
/// assert!(dump.contains("worker") && dump.contains("waits for unpark"));
/// worker.kill();
/// worker.join().unwrap_err();
/// ```
///
/// # Blocking and cancellation
/// Parks for a moment: every parked green thread is resumed once, to look at its own stack, and parks again. That takes
/// some 25 KiB of its stack.
///
/// # Coming from Python
/// `gevent.util.print_run_info()`.
#[doc(alias("print_run_info"))]
#[track_caller]
pub fn dump() -> String {
    let hub = Hub::current();
    hub::probe_all(hub);
    let mut text = format!("{} green threads on this hub\n", hub::live());
    for (line, backtrace) in hub::traced_lines(hub) {
        let _ = writeln!(text, "{line}");
        for frame in backtrace.as_deref().unwrap_or_default().lines() {
            let _ = writeln!(text, "    {frame}");
        }
    }
    text
}
