//! Futures in blocking code: [`block_on`].
//!
//! The other direction needs no function: a [`JoinHandle`](crate::JoinHandle) is a `Future` for any executor.
//!
//! ```
//! use greenthread::{future::block_on, spawn};
//! let answer = spawn(|| 42);
//! assert_eq!(block_on(async { answer.await.unwrap() }), 42);
//! ```
#![forbid(unsafe_code)]

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use crate::hub::interrupt;
use crate::hub::park::{self, Mode, Parker, Waiter, Why};

static FUTURE: &str = "a future (block_on)";

/// Wakes whoever is in `block_on`, once for each time it was asked to.
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

/// Waits for a future: in a green thread it parks that one, in main it pumps the hub.
///
/// ```
/// use greenthread::future::block_on;
/// assert_eq!(block_on(async { 1 + 1 }), 2);
/// ```
///
/// # Panics
/// In a hub callback, which cannot block.
///
/// # Blocking and cancellation
/// Parks between polls. A kill or time-out unwinds here, and drops the future; a `panic = "abort"` build, which cannot
/// unwind, waits for the future all the same.
///
/// # Coming from Python
/// `loop.run_until_complete(future)`, and `await_only` in a greenlet of SQLAlchemy's.
#[track_caller]
pub fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let signal = Arc::new(Signal {
        woken: AtomicBool::new(false),
        waiter: Mutex::new(None),
    });
    let waker = Waker::from(signal.clone());
    let mut context = Context::from_waker(&waker);
    crate::hub::check_can_park();
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        while !signal.woken.swap(false, Ordering::AcqRel) {
            wait(&signal);
        }
    }
}

#[track_caller]
fn wait(signal: &Signal) {
    wait_in(
        signal,
        if std::thread::panicking() {
            Mode::Must
        } else {
            Mode::Cancel
        },
    );
}

#[track_caller]
fn wait_in(signal: &Signal, mode: Mode) {
    let parker = Parker::new();
    drop(signal.replace(Some(parker.waiter())));
    if signal.woken.load(Ordering::Acquire) {
        return;
    }
    if parker.park(None, mode, Why::new(&FUTURE, 0)) == park::Wake::Interrupted {
        drop(signal.replace(None));
        interrupt::raise();
        // A `panic = "abort"` build: there is no value to give but the future's, so the kill waits for the next park.
        wait_in(signal, Mode::Must);
    }
}
