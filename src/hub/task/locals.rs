//! When green-thread locals are made and dropped.
#![forbid(unsafe_code)]

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::Task;
use crate::hub::{Reporter, report_panic};

/// Runs `f` on the stack of `task` with green-thread locals of its own, which end with `f`.
pub(in crate::hub) fn with_own_locals<R>(task: &'static Task, f: impl FnOnce() -> R) -> R {
    // The locals of `task` are set aside, so that `f` neither sees nor ends them.
    let before = task.has_cold().then(|| task.with_cold(|cold| cold.locals.take()));
    let result = f();
    if task.has_cold() {
        end_locals(task);
        task.with_cold(|cold| cold.locals = before.flatten());
    }
    result
}

/// Drops the locals on the green thread's own stack. Their destructors are code of the user and may make new locals.
/// What is left after a few rounds is leaked, as it is at the end of an OS thread.
#[cold]
pub(super) fn end_locals(task: &'static Task) {
    for _ in 0..4 {
        let Some(locals) = task.with_cold(|cold| cold.locals.take()) else {
            return;
        };
        // A panic in one destructor must not keep the other locals from being dropped.
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(locals))) {
            report_panic(&Reporter::of(task), payload);
        }
    }
    std::mem::forget(task.with_cold(|cold| cold.locals.take()));
}
