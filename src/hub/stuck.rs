//! "This operation would block for ever": when it is true, and what it says.
//!
//! Primitives are `Send`, so any other OS thread may hold the other end. The claim is made only after 100 ms with nothing
//! ready, no timer and no descriptor waited for, and only if every other OS thread of the process is an equally idle hub
//! or an idle pool thread of ours: the kernel's list of threads is compared with the register here.
#![forbid(unsafe_code)]

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::Hub;

/// How long a hub must have been idle before it may say so.
pub(super) const PATIENCE: Duration = Duration::from_millis(100);

struct Known {
    thread: u64,
    idle: Arc<AtomicBool>,
}

static KNOWN: Mutex<Vec<Known>> = Mutex::new(Vec::new());

fn known<R>(f: impl FnOnce(&mut Vec<Known>) -> R) -> R {
    f(&mut KNOWN.lock().unwrap_or_else(PoisonError::into_inner))
}

/// An OS thread of ours, registered until this is dropped.
#[derive(Debug)]
pub(crate) struct Registered {
    idle: Arc<AtomicBool>,
}

impl Registered {
    /// Registers the OS thread that calls; it tells by `idle` that only a message of ours can wake it.
    pub(crate) fn new(idle: Arc<AtomicBool>) -> Registered {
        idle.store(false, Ordering::Relaxed);
        known(|all| {
            all.push(Known {
                thread: crate::sys::thread::id(),
                idle: idle.clone(),
            })
        });
        Registered { idle }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        known(|all| all.retain(|known| !Arc::ptr_eq(&known.idle, &self.idle)));
    }
}

/// Whether every other OS thread of this process is idle, and ours. `false` where that cannot be known.
pub(super) fn all_others_idle() -> bool {
    let me = crate::sys::thread::id();
    let Some(threads) = crate::sys::thread::all() else {
        return false;
    };
    known(|all| {
        threads.iter().filter(|thread| **thread != me).all(|thread| {
            all.iter()
                .any(|known| known.thread == *thread && known.idle.load(Ordering::SeqCst))
        })
    })
}

/// Forgets all OS threads: this is a forked child, which has only the one.
pub(super) fn forget_all() {
    if let Ok(mut all) = KNOWN.try_lock() {
        all.clear();
    }
}

/// The payload of the panic that ends a wait which nothing could end.
///
/// Its text says who waits for what, and where each was spawned.
///
/// ```no_run
/// use greenthread::{hub::LoopExit, thread};
/// let waited = std::panic::catch_unwind(|| thread::spawn(thread::park).join());
/// // In a program with no other OS thread: nothing can ever unpark it.
/// let exit = waited.unwrap_err().downcast::<LoopExit>().unwrap();
/// assert!(exit.to_string().starts_with("this operation would block forever"));
/// ```
///
/// # Coming from Python
/// `gevent.exceptions.LoopExit`.
#[derive(Clone, PartialEq, Eq)]
pub struct LoopExit {
    report: String,
}

impl LoopExit {
    pub(super) fn new(hub: &Hub) -> LoopExit {
        let mut report = String::from(
            "this operation would block forever: nothing is ready, and no timer, descriptor or other thread can wake ",
        );
        report.push_str(&format!("the native stack, which waits for {}", hub.native.why()));
        for line in super::lines(hub) {
            report.push_str("\n  ");
            report.push_str(&line);
        }
        LoopExit { report }
    }
}

impl fmt::Display for LoopExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.report)
    }
}

impl fmt::Debug for LoopExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoopExit").field("report", &self.report).finish()
    }
}

impl std::error::Error for LoopExit {}
