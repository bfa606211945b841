//! A sleep as a future.
#![forbid(unsafe_code)]

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::hub::Hub;
use crate::hub::alarm::Alarm;

#[derive(Default)]
struct State {
    is_over: bool,
    waker: Option<Waker>,
}

/// A sleep under way: [`sleep_async`](super::sleep_async).
#[must_use = "a future does nothing unless it is polled"]
pub struct Sleep {
    state: Arc<Mutex<State>>,
    _alarm: Alarm,
}

impl Sleep {
    pub(super) fn at(hub: &'static Hub, deadline: u64) -> Sleep {
        let state = Arc::new(Mutex::new(State::default()));
        let theirs = state.clone();
        let end = move || {
            let waker = {
                let mut state = theirs.lock().unwrap_or_else(PoisonError::into_inner);
                state.is_over = true;
                state.waker.take()
            };
            if let Some(waker) = waker {
                waker.wake();
            }
        };
        Sleep {
            state,
            _alarm: Alarm::set(hub, deadline, Box::new(end)),
        }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        {
            let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if state.is_over {
                return Poll::Ready(());
            }
            if state.waker.as_ref().is_some_and(|left| left.will_wake(context.waker())) {
                return Poll::Pending;
            }
        }
        // The user's code, before and after the lock.
        let waker = context.waker().clone();
        let stale = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if state.is_over {
                return Poll::Ready(());
            }
            state.waker.replace(waker)
        };
        drop(stale);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        let stale = self.state.lock().unwrap_or_else(PoisonError::into_inner).waker.take();
        drop(stale);
    }
}

impl fmt::Debug for Sleep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        f.debug_struct("Sleep")
            .field("is_over", &state.is_over)
            .finish_non_exhaustive()
    }
}
