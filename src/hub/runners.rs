//! The runners of a hub: the green threads that poll stackless tasks (`task/stackless.rs`).
#![forbid(unsafe_code)]

use std::cell::Cell;

use super::task::block::{Context, Task};
use super::task::marks::{Marks, State};

/// How many runners of the native context are kept at rest.
const RESTS: usize = 16;

#[derive(Default)]
pub(super) struct Runners {
    /// The stackless task that the runner which is being resumed is to poll.
    assigned: Cell<Option<&'static Task>>,
    /// Runners of the native context that have nothing to poll, and how many there are.
    resting: Cell<Option<&'static Task>>,
    rests: Cell<usize>,
}

impl Runners {
    /// Assigns a task to a runner, which the caller resumes next.
    #[inline(always)]
    pub(super) fn assign(&self, runner: &'static Task, task: &'static Task) -> &'static Task {
        // The runner goes by the task's number and place while it polls it (STACKLESS-4).
        runner.place.set(task.place());
        runner.id.set(task.id());
        self.assigned.set(Some(task));
        runner
    }

    /// Takes the task that was assigned to the running runner.
    pub(super) fn take_assigned(&self) -> Option<&'static Task> {
        self.assigned.take()
    }

    /// Takes a runner that rests in this context; it is ready to be resumed. Uses no thread-local.
    #[inline]
    pub(super) fn take_resting(&self, context: Option<&'static Context>) -> Option<&'static Task> {
        let runner = match context {
            None => {
                let runner = self.resting.get()?;
                self.resting.set(runner.next.take());
                self.rests.set(self.rests.get() - 1);
                runner
            }
            Some(context) => context.scheduler().resting.take()?,
        };
        runner.marks.clear();
        Some(runner)
    }

    /// Lays a runner to rest; `false` if the runner is to end instead. In a context other than the native one a runner
    /// rests only while there are stackless tasks, because it is a member and keeps the context alive.
    #[inline]
    pub(super) fn rest(&self, runner: &'static Task) -> bool {
        match runner.context.get().map(Context::scheduler) {
            None if self.rests.get() == RESTS => return false,
            None => {
                runner.next.set(self.resting.replace(Some(runner)));
                self.rests.set(self.rests.get() + 1);
            }
            Some(context) if context.tasks.get() == 0 || context.resting.get().is_some() => return false,
            Some(context) => context.resting.set(Some(runner)),
        }
        runner.marks.set(Marks::RESTS, true);
        runner.state.set(State::Idle);
        true
    }
}
