//! What is polled with a waker and waited for in between: `block_on`, and `select!`.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use super::park::{self, Mode, Parker, Waiter, Why};
use super::spin::Spin;
use super::task::TaskRef;
use super::wakers;
use super::{Hub, interrupt};

/// Wakes who waits for the polled, once for each time it was asked to.
///
/// `woken` is set before `waiter` is taken, and looked at after `waiter` is put: one side always sees the other.
pub(super) struct Signal {
    woken: AtomicBool,
    parked: Spin<Parked>,
}

struct Parked {
    waiter: Option<Waiter>,
    /// Who parked last, also once it was woken.
    task: Option<TaskRef>,
}

impl Signal {
    fn replace(&self, waiter: Option<Waiter>) -> Option<Waiter> {
        let mut parked = self.parked.lock();
        if let Some(Waiter::Task(task, _)) = &waiter {
            parked.task = Some(*task);
        }
        std::mem::replace(&mut parked.waiter, waiter)
    }

    /// A waker of it was called.
    pub(super) fn notify(&self) {
        if !self.woken.swap(true, Ordering::AcqRel)
            && let Some(waiter) = self.replace(None)
        {
            waiter.wake();
        }
    }

    /// Whether who waits for it never runs again.
    pub(super) fn is_lost(&self) -> bool {
        self.parked.lock().task.is_some_and(TaskRef::is_lost)
    }

    /// The signal that `waker` is of, if it is of one: those run no code of the user's.
    #[inline]
    pub(super) fn of(waker: &Waker) -> Option<&Signal> {
        wakers::of(waker)
    }
}

/// Polls until it is ready, and parks in between; `None`: the deadline (nanoseconds of the hub's clock) came first.
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
            // It has been caught in there; or nothing can unwind, there is no value to give but what it waits for, and so
            // the kill waits for the next park.
            if cfg!(panic = "abort") {
                mode = Mode::Must;
            }
        }
        if signal.woken.swap(false, Ordering::AcqRel) {
            // The future woke itself: that is how foreign code yields. It goes on after all others, and not for ever.
            match yields(deadline, mode) {
                Came::Wake => {}
                Came::Deadline => break None,
                Came::Interrupt => interrupted = true,
            }
            continue;
        }
        let came = loop {
            let came = wait(&signal, deadline, mode, why);
            if came != Came::Wake || signal.woken.swap(false, Ordering::AcqRel) {
                break came;
            }
        };
        match came {
            Came::Wake => {}
            Came::Deadline => break None,
            // Blocking code that awaits has it first (`asyncify`): it may be that one's own time-out.
            Came::Interrupt => interrupted = true,
        }
    };
    give_pair(signal, waker);
    output
}

/// After the hub's end: what is ready at once is given, and what has a deadline is late. `None`: it would have to wait.
#[cold]
fn poll_once<R>(deadline: Option<u64>, poll: &mut impl FnMut(&mut Context<'_>) -> Poll<R>) -> Option<Option<R>> {
    match poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(Some(output)),
        Poll::Pending => deadline.map(|_| None),
    }
}

type Pair = (Arc<Signal>, Waker);

thread_local! {
    /// For the next one, so that what is ready at once allocates nothing.
    static SPARE: Cell<Option<Pair>> = const { Cell::new(None) };
}

#[inline]
fn take_pair() -> Pair {
    // None in a destructor of a thread-local.
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

/// Keeps the pair, if nobody has kept a waker of it who might call that for the next one.
#[inline]
fn give_pair(signal: Arc<Signal>, waker: Waker) {
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

/// Gives way once, in place of a wait that would have been over at once.
fn yields(deadline: Option<u64>, mode: Mode) -> Came {
    let Some(hub) = Hub::try_current() else {
        return Came::Wake;
    };
    if hub.would_leak() {
        // As a park that has to be: what the future waits for may be theirs to do.
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

/// Waits once, for the signal or what comes before it.
#[track_caller]
fn wait(signal: &Signal, deadline: Option<u64>, mode: Mode, why: Why) -> Came {
    let mode = if std::thread::panicking() { Mode::Must } else { mode };
    let parker = Parker::new();
    drop(signal.replace(Some(parker.waiter())));
    if signal.woken.load(Ordering::Acquire) {
        return Came::Wake;
    }
    let wake = parker.park(deadline, mode, why);
    if matches!(wake, park::Wake::Ready | park::Wake::Early) {
        return Came::Wake;
    }
    drop(signal.replace(None));
    match wake {
        park::Wake::Interrupted => Came::Interrupt,
        _ if signal.woken.load(Ordering::Acquire) => Came::Wake,
        _ => Came::Deadline,
    }
}
