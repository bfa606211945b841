//! OS threads as the kernel sees them, and what happens to them at a fork.

use std::cell::Cell;
use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// The kernel's number of the OS thread that calls.
pub(crate) fn id() -> u64 {
    rustix::thread::gettid().as_raw_nonzero().get() as u64
}

/// All OS threads of this process, where the system tells.
pub(crate) fn all() -> Option<Vec<u64>> {
    let entries = std::fs::read_dir("/proc/self/task").ok()?;
    entries
        .map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect()
}

thread_local! {
    static STARTS: Cell<bool> = const { Cell::new(false) };
}

/// Whether the caller starts an OS thread of ours right now, which is to be a real one even where std's are green.
#[cfg(feature = "monkey")]
pub(crate) fn starts() -> bool {
    STARTS.get()
}

/// Starts an OS thread of ours.
pub(crate) fn start(name: &str, f: impl FnOnce() + Send + 'static) -> io::Result<()> {
    STARTS.set(true);
    let started = std::thread::Builder::new().name(String::from(name)).spawn(f);
    STARTS.set(false);
    started.map(drop)
}

static FORKS: AtomicU64 = AtomicU64::new(0);
static IN_CHILD: [AtomicUsize; 2] = [const { AtomicUsize::new(0) }; 2];

/// How many forks lie between this process and the one that first asked; cheap.
#[inline]
pub(crate) fn fork_epoch() -> u64 {
    FORKS.load(Ordering::Relaxed)
}

extern "C" fn before_fork() {
    super::base::before_fork();
}

extern "C" fn after_fork_in_parent() {
    super::base::after_fork();
}

extern "C" fn after_fork_in_child() {
    FORKS.fetch_add(1, Ordering::Relaxed);
    // In the native context, and in that of the green thread that forked.
    tell_child();
    super::base::after_fork();
    tell_child();
}

#[inline(never)]
fn tell_child() {
    for place in &IN_CHILD {
        let f = place.load(Ordering::Relaxed);
        if f != 0 {
            // SAFETY: `on_fork` stored a `fn()`.
            let f: fn() = unsafe { std::mem::transmute::<usize, fn()>(f) };
            f();
        }
    }
}

/// Who wants to know of forked children.
#[derive(Clone, Copy)]
pub(crate) enum Child {
    Hub,
    #[cfg(feature = "monkey")]
    Patches,
}

/// Has `f` called in every forked child, on the OS thread that forked.
pub(crate) fn on_fork(who: Child, f: fn()) {
    IN_CHILD[who as usize].store(f as usize, Ordering::Relaxed);
    count_forks();
}

/// Has forks counted from now on, see [`fork_epoch`].
pub(crate) fn count_forks() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        // SAFETY: handlers of the right type, which live as long as the program.
        unsafe { libc::pthread_atfork(Some(before_fork), Some(after_fork_in_parent), Some(after_fork_in_child)) };
    });
}

/// Parks the OS thread, and nothing else on it, until it is unparked or `timeout` passes.
pub(crate) fn park(timeout: Option<std::time::Duration>) {
    match timeout {
        Some(timeout) => std::thread::park_timeout(timeout),
        None => std::thread::park(),
    }
}
