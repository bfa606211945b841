//! Blocking waits that poll with a waker and park between two polls: `block_on`, and `select!`.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::task::{Context, Poll, Waker};

use super::interrupt;
use super::park::{Parker, check_can_park};
use super::scheduler::Hub;
use super::waiter::{Mode, Wake, Why};
use super::wake::Signal;

/// Calls `poll` until it is ready, and parks in between; `None` if the deadline (nanoseconds of the hub's clock) came
/// first.
///
/// # Panics
/// In a hub callback, which cannot block.
#[track_caller]
pub(crate) fn poll_until<R>(
    deadline: Option<u64>,
    why: Why,
    mut poll: impl FnMut(&mut Context<'_>) -> Poll<R>,
) -> Option<R> {
    if Hub::has_ended()
        && let Some(output) = poll_once(deadline, &mut poll)
    {
        return output;
    }
    check_can_park();
    let (signal, waker) = take_pair();
    let mut context = Context::from_waker(&waker);
    let mut mode = Mode::Cancel;
    let mut interrupted = false;
    let output = loop {
        if let Poll::Ready(output) = poll(&mut context) {
            break Some(output);
        }
        if std::mem::take(&mut interrupted) {
            interrupt::raise();
            // `raise` returns if the poll above has consumed the interrupt, or if the program cannot unwind. In the
            // second case there is no value to return but the output, so wait on without interrupts: the kill is
            // delivered at the task's next park.
            if cfg!(panic = "abort") {
                mode = Mode::Must;
            }
        }
        if signal.take_woken() {
            // The waker was called during the poll, which is how foreign code yields. Let all other tasks run, then
            // poll again; the deadline ends that as well.
            match yields(deadline, mode) {
                Came::Wake => {}
                Came::Deadline => break None,
                Came::Interrupt => interrupted = true,
            }
            continue;
        }
        // Park until the waker is called. A wake that finds `woken` unset is spurious (a park that did not take place).
        let came = loop {
            let came = wait(&signal, deadline, mode, why);
            if came != Came::Wake || signal.take_woken() {
                break came;
            }
        };
        match came {
            Came::Wake => {}
            Came::Deadline => break None,
            // Poll once more before the interrupt is raised here: blocking code within the future (`asyncify`) gets it
            // first, as it may be a time-out of that code.
            Came::Interrupt => interrupted = true,
        }
    };
    give_pair(signal, waker);
    output
}

/// After the hub's end: polls once. Gives the output if it is ready; `Some(None)` if there is a deadline, which counts
/// as over; `None` if the caller would have to wait.
#[cold]
fn poll_once<R>(deadline: Option<u64>, poll: &mut impl FnMut(&mut Context<'_>) -> Poll<R>) -> Option<Option<R>> {
    match poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(Some(output)),
        Poll::Pending => deadline.map(|_| None),
    }
}

type Pair = (Arc<Signal>, Waker);

thread_local! {
    /// Kept for the next wait, so that a wait that is ready at once allocates nothing.
    static SPARE: Cell<Option<Pair>> = const { Cell::new(None) };
}

#[inline]
fn take_pair() -> Pair {
    // The thread-local is gone in destructors that run after its own.
    let spare = SPARE.try_with(Cell::take).ok().flatten();
    spare.unwrap_or_else(|| {
        let signal = Signal::new();
        let waker = signal.clone().into_waker();
        (signal, waker)
    })
}

/// Keeps the pair for the next wait, unless another waker of it exists, which might be called during that wait.
#[inline]
fn give_pair(signal: Arc<Signal>, waker: Waker) {
    // The two references are `signal` and `waker`.
    if Arc::strong_count(&signal) == 2 {
        // After all that was done through the references that are gone.
        fence(Ordering::Acquire);
        signal.reset();
        let _ = SPARE.try_with(|spare| drop(spare.replace(Some((signal, waker)))));
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Came {
    Wake,
    Deadline,
    Interrupt,
}

/// Gives way once, in place of a park that would end at once.
fn yields(deadline: Option<u64>, mode: Mode) -> Came {
    let Some(hub) = Hub::try_current() else {
        return Came::Wake;
    };
    if hub.would_leak() {
        // This wait cannot fail, so it gives way although its stack unwinds: another task of this context may have to
        // do what the future waits for. Until then those tasks see `panicking() == true`.
        hub.give_way_unwinding();
    }
    if hub.let_others_run(mode) == Wake::Interrupted {
        Came::Interrupt
    } else if deadline.is_some_and(|at| at <= hub.clock.now()) {
        Came::Deadline
    } else {
        Came::Wake
    }
}

/// Parks once: until the signal, or until the deadline or an interrupt if that comes first.
#[track_caller]
fn wait(signal: &Signal, deadline: Option<u64>, mode: Mode, why: Why) -> Came {
    // A stack that unwinds cannot be interrupted.
    let mode = if std::thread::panicking() { Mode::Must } else { mode };
    let parker = Parker::new();
    drop(signal.replace(Some(parker.waiter())));
    // Look after the waiter was left: a wake before that found no waiter (or a stale one), and only set `woken`.
    if signal.is_woken() {
        return Came::Wake;
    }
    let wake = parker.park(deadline, mode, why);
    if matches!(wake, Wake::Ready | Wake::Early) {
        return Came::Wake;
    }
    // Take the waiter back, so that a later wake does not send to a park that is over.
    drop(signal.replace(None));
    match wake {
        Wake::Interrupted => Came::Interrupt,
        // The waker was called and the deadline has passed: the wake wins, so that what the waker announced is polled
        // once more before the wait ends.
        _ if signal.is_woken() => Came::Wake,
        _ => Came::Deadline,
    }
}
