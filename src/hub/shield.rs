//! Code that no kill and no time-out unwinds.
#![forbid(unsafe_code)]

#[cfg(feature = "tls")]
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

#[cfg(feature = "tls")]
use super::interrupt;
use super::scheduler::Hub;
use super::task::block::TaskRef;

/// Runs `f`. If a kill or time-out unwinds it, the interrupt is put off to the next park, and this gives `None`. For
/// work after a step of which the caller must learn, such as bytes that were taken.
#[cfg(feature = "tls")]
pub(crate) fn put_off<R>(f: impl FnOnce() -> R) -> Option<R> {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(value) => Some(value),
        Err(payload) if interrupt::is_ours(&*payload) => {
            // The interrupt is still due, and counts as one that has not unwound anything yet.
            let task = Hub::current().running();
            interrupt::forget_raised(task);
            None
        }
        Err(payload) => resume_unwind(payload),
    }
}

/// Runs `f` with kills and time-outs deferred.
pub(crate) fn shield<F: FnOnce() -> T, T>(f: F) -> T {
    /// The task that the shield was raised for, and its number. The drop may run on another task: on one that unwinds
    /// the stack of a green thread after that green thread has ended, or on the runner that polls a stackless task by
    /// now.
    struct Lower(TaskRef, u64);
    impl Drop for Lower {
        fn drop(&mut self) {
            let Some(hub) = Hub::try_current() else { return };
            // By number: the running task is the one that raised its shield, or a runner that goes by its number now.
            // Otherwise lower that of the raising task, if it has not ended and its block has no new life.
            let runs = Some(hub.running()).filter(|task| task.id() == self.1);
            let raised = || hub.resolve_local(self.0).filter(|task| task.id() == self.1);
            if let Some(task) = runs.or_else(raised) {
                task.shield.set(task.shield.get().saturating_sub(1));
            }
        }
    }
    if Hub::has_ended() {
        // The hub has ended, so no kill or time-out can come.
        return f();
    }
    let task = Hub::current().running();
    let Some(raised) = task.shield.get().checked_add(1) else {
        panic!("this green thread is inside 255 shields: no more can be nested")
    };
    task.shield.set(raised);
    let _lower = Lower(TaskRef::new(task), task.id());
    f()
}
