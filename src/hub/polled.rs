//! What is polled with a waker and waited for in between: `block_on`, and `select!`.
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, RawWakerVTable, Wake, Waker};

use super::interrupt;
use super::park::{self, Mode, Parker, Waiter, Why};

/// Wakes who waits for the polled, once for each time it was asked to.
///
/// `woken` is set before `waiter` is taken, and looked at after `waiter` is put: one side always sees the other.
struct Signal {
    woken: AtomicBool,
    waiter: Mutex<Option<Waiter>>,
}

impl Signal {
    fn replace(&self, waiter: Option<Waiter>) -> Option<Waiter> {
        std::mem::replace(&mut *self.waiter.lock().unwrap_or_else(PoisonError::into_inner), waiter)
    }
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.woken.swap(true, Ordering::AcqRel)
            && let Some(waiter) = self.replace(None)
        {
            waiter.wake();
        }
    }
}

static VTABLE: OnceLock<&'static RawWakerVTable> = OnceLock::new();

/// Whether it is one of those that are made here, which run no code of the user's.
#[inline]
pub(super) fn is_ours(waker: &Waker) -> bool {
    VTABLE.get().is_some_and(|ours| std::ptr::eq(*ours, waker.vtable()))
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
    let signal = Arc::new(Signal {
        woken: AtomicBool::new(false),
        waiter: Mutex::new(None),
    });
    let waker = Waker::from(signal.clone());
    VTABLE.get_or_init(|| waker.vtable());
    let mut context = Context::from_waker(&waker);
    super::check_can_park();
    loop {
        if let Poll::Ready(output) = poll(&mut context) {
            return Some(output);
        }
        while !signal.woken.swap(false, Ordering::AcqRel) {
            if !wait(&signal, deadline, why) {
                return None;
            }
        }
    }
}

/// Waits for the signal; whether it came before the deadline.
#[track_caller]
fn wait(signal: &Signal, deadline: Option<u64>, why: Why) -> bool {
    let mut mode = if std::thread::panicking() {
        Mode::Must
    } else {
        Mode::Cancel
    };
    loop {
        let parker = Parker::new();
        drop(signal.replace(Some(parker.waiter())));
        if signal.woken.load(Ordering::Acquire) {
            return true;
        }
        match parker.park(deadline, mode, why) {
            park::Wake::Interrupted => {
                drop(signal.replace(None));
                interrupt::raise();
                // A `panic = "abort"` build: there is no value to give but what it waits for, so the kill waits for the
                // next park.
                mode = Mode::Must;
            }
            park::Wake::TimedOut => {
                drop(signal.replace(None));
                return signal.woken.load(Ordering::Acquire);
            }
            park::Wake::Ready | park::Wake::Early => return true,
        }
    }
}
