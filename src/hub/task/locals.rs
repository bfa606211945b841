//! When green-thread locals come and go.
#![forbid(unsafe_code)]

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::Task;
use crate::hub::{Reporter, report_panic};

/// Runs `f` on the stack of `task` with locals that are there for it alone.
pub(in crate::hub) fn with_own_locals<R>(task: &'static Task, f: impl FnOnce() -> R) -> R {
    let before = task.has_extra().then(|| task.with_extra(|extra| extra.locals.take()));
    let result = f();
    if task.has_extra() {
        end_locals(task);
        task.with_extra(|extra| extra.locals = before.flatten());
    }
    result
}

/// Drops the locals on the green thread's own stack. Their destructors are the user's code and may make new ones: after a
/// few rounds, as with an OS thread's, what is left is leaked.
#[cold]
pub(super) fn end_locals(task: &'static Task) {
    for _ in 0..4 {
        let Some(locals) = task.with_extra(|extra| extra.locals.take()) else {
            return;
        };
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(locals))) {
            report_panic(&Reporter::of(task), payload);
        }
    }
    std::mem::forget(task.with_extra(|extra| extra.locals.take()));
}
