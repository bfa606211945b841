//! Debug mode: what keeps a hub busy for too long.
//!
//! Callbacks and polls are timed where they are called; green code, from each resume to its park, by an observer of the
//! hub.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::AnyTask;
use super::events::EventLoop;
use super::report::{ExceptionContext, tell};
use crate::hub::{Event, Hub, Watch, named};

/// Runs a step of a task's future.
pub(super) fn timed<R>(task: &AnyTask, step: impl FnOnce() -> R) -> R {
    if !EventLoop::any_debug() {
        return step();
    }
    let at = EventLoop::at(&task.0.hub);
    at.iter().for_each(EventLoop::note_poll);
    slow(at.as_ref(), &format_args!("{task:?}"), step)
}

/// Runs `f`, and tells the exception handler if that was slow.
pub(super) fn slow<R>(event_loop: Option<&EventLoop>, who: &dyn fmt::Display, f: impl FnOnce() -> R) -> R {
    let Some(event_loop) = event_loop.filter(|event_loop| event_loop.debug()) else {
        return f();
    };
    // By the system's clock: a hub's virtual one stands still while anything runs.
    let start = Instant::now();
    let result = f();
    judge(event_loop, start.elapsed(), || Some(who.to_string()));
    result
}

fn judge(event_loop: &EventLoop, took: Duration, who: impl FnOnce() -> Option<String>) {
    if took >= event_loop.slow_callback_duration()
        && let Some(who) = who()
    {
        let message = format!("executing {who} took {:.3} seconds", took.as_secs_f64());
        tell(
            Some(event_loop),
            &ExceptionContext {
                message,
                exception: None,
                task: None,
            },
        );
    }
}

/// Times the turns of green threads. It must be installed on the hub of `event_loop`.
pub(super) fn observer(event_loop: EventLoop) -> Watch {
    let running = Cell::new(None);
    Rc::new(move |event| {
        let now = Instant::now();
        if matches!(event, Event::Spawn(_) | Event::Wake(_)) {
            return;
        }
        // Any event but a spawn and a wake ends the turn that was timed: a park, an exit, or, after a yield, the next
        // turn.
        if let Some((id, start)) = running.take() {
            let was_poll = event_loop.take_poll();
            let who = || Hub::try_current().and_then(|hub| named(hub, id));
            judge(&event_loop, now - start, || who().filter(|_| !was_poll));
        }
        if let Event::Resume(id) = event {
            event_loop.take_poll();
            running.set(Some((id, now)));
        }
    })
}
