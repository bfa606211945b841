//! Blocking waits that poll a future-like thing with a waker and park in between: `block_on`, and `select!`.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use super::park::{self, Mode, Parker, Waiter, Why};
use super::task::TaskRef;
use super::wakers;
use super::{Hub, interrupt};
use crate::sys::spin::Spin;

/// Wakes the task that waits between two polls, once for each time that its waker is called.
///
/// A wake sets `woken` before it takes the waiter, and a wait looks at `woken` after it has left its waiter. So one
/// side always sees the other, and no wake is lost.
pub(super) struct Signal {
    woken: AtomicBool,
    parked: Spin<Parked>,
}

struct Parked {
    waiter: Option<Waiter>,
    /// The task that parked last. It stays here when the task is woken, so that `is_lost` can be answered.
    task: Option<TaskRef>,
}

impl Signal {
    /// Leaves a waiter in place of the one that was left before, which it gives.
    fn replace(&self, waiter: Option<Waiter>) -> Option<Waiter> {
        let mut parked = self.parked.lock();
        if let Some(Waiter::Task(task, _)) = &waiter {
            parked.task = Some(*task);
        }
        std::mem::replace(&mut parked.waiter, waiter)
    }

    /// A waker that was made from this signal was called.
    pub(super) fn notify(&self) {
        // If it was set already, the wake that set it has taken the waiter, or the wait has not begun and will see it.
        if !self.woken.swap(true, Ordering::AcqRel)
            && let Some(waiter) = self.replace(None)
        {
            waiter.wake();
        }
    }

    /// Whether the task that waits never runs again.
    pub(super) fn is_lost(&self) -> bool {
        self.parked.lock().task.is_some_and(TaskRef::is_lost)
    }

    /// The signal that `waker` was made from, if it was made from one. Such a waker runs no code of the user.
    #[inline]
    pub(super) fn of(waker: &Waker) -> Option<&Signal> {
        wakers::of(waker)
    }
}

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
    super::check_can_park();
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
        if signal.woken.swap(false, Ordering::AcqRel) {
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
            if came != Came::Wake || signal.woken.swap(false, Ordering::AcqRel) {
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

/// After the hub's end: polls once. Gives the output if it is ready, a time-out if there is a deadline; `None` if the
/// caller would have to wait.
#[cold]
fn poll_once<R>(deadline: Option<u64>, poll: &mut impl FnMut(&mut Context<'_>) -> Poll<R>) -> Option<Option<R>> {
    match poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(Some(output)),
        Poll::Pending => deadline.map(|_| None),
    }
}

type Pair = (Arc<Signal>, Waker);

thread_local! {
    /// Kept for the next wait, so that one that is ready at once allocates nothing.
    static SPARE: Cell<Option<Pair>> = const { Cell::new(None) };
}

#[inline]
fn take_pair() -> Pair {
    // The thread-local is gone in destructors that run after its own.
    let spare = SPARE.try_with(Cell::take).ok().flatten();
    spare.unwrap_or_else(|| {
        let signal = Arc::new(Signal {
            woken: AtomicBool::new(false),
            parked: Spin::new(Parked {
                waiter: None,
                task: None,
            }),
        });
        let waker = wakers::waker(signal.clone());
        (signal, waker)
    })
}

/// Keeps the pair for the next wait, unless another waker of it exists, which might be called during that wait.
#[inline]
fn give_pair(signal: Arc<Signal>, waker: Waker) {
    // The two references are `signal` and `waker`.
    if Arc::strong_count(&signal) == 2 {
        signal.woken.store(false, Ordering::Relaxed);
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
    if hub.let_others_run(mode) == park::Wake::Interrupted {
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
    if signal.woken.load(Ordering::Acquire) {
        return Came::Wake;
    }
    let wake = parker.park(deadline, mode, why);
    if matches!(wake, park::Wake::Ready | park::Wake::Early) {
        return Came::Wake;
    }
    // Take the waiter back, so that a later wake does not send to a park that is over.
    drop(signal.replace(None));
    match wake {
        park::Wake::Interrupted => Came::Interrupt,
        // The wake came together with the time-out: it wins.
        _ if signal.woken.load(Ordering::Acquire) => Came::Wake,
        _ => Came::Deadline,
    }
}
