//! A sleep as a future.
#![forbid(unsafe_code)]

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Instant;

use crate::hub::{Alarm, Hub, budget};
use crate::sys::inside::Mutex;
use crate::sys::poison::IgnorePoison;

#[derive(Default)]
struct State {
    is_over: bool,
    /// The alarm will not ring, because its hub has ended.
    is_lost: bool,
    waker: Option<Waker>,
}

/// The alarm's side: it rings once, and reports it if it is dropped before that.
struct Bell(Arc<Mutex<State>>);

impl Bell {
    fn tell(&self, change: impl FnOnce(&mut State)) {
        let waker = {
            let mut state = self.0.lock().ignore_poison();
            change(&mut state);
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        self.tell(|state| state.is_lost = true);
    }
}

/// A sleep under way: [`sleep_async`](super::sleep_async).
#[must_use = "a future does nothing unless it is polled"]
pub struct Sleep {
    state: Arc<Mutex<State>>,
    /// `None` if it is too far away for std's type.
    deadline: Option<Instant>,
    /// `None` after the hub's end: then the sleep is over.
    _alarm: Option<Alarm>,
}

impl Sleep {
    /// A sleep until `deadline` (nanoseconds of the hub's clock).
    #[track_caller]
    pub(crate) fn at(deadline: u64) -> Sleep {
        if Hub::has_ended() {
            let over = State {
                is_over: true,
                ..State::default()
            };
            return Sleep {
                state: Arc::new(Mutex::new(over)),
                deadline: None,
                _alarm: None,
            };
        }
        let hub = Hub::current();
        let state = Arc::new(Mutex::new(State::default()));
        let bell = Bell(state.clone());
        let ring = move || bell.tell(|state| state.is_over = true);
        Sleep {
            state,
            deadline: hub.clock.at(deadline),
            _alarm: Some(Alarm::set(hub, deadline, Box::new(ring))),
        }
    }

    /// Its hub has ended: starts again on the hub of the OS thread that polls. False if the deadline is too far away
    /// for that.
    #[cold]
    fn move_on(&mut self) -> bool {
        match self.deadline {
            Some(deadline) => *self = super::sleep_until_async(deadline),
            _ => return false,
        }
        true
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        ready!(budget::poll(context));
        loop {
            {
                let state = self.state.lock().ignore_poison();
                if state.is_over {
                    return Poll::Ready(());
                }
                if !state.is_lost && state.waker.as_ref().is_some_and(|left| left.will_wake(context.waker())) {
                    return Poll::Pending;
                }
            }
            // The clone and the drop of a waker are the user's code: they run outside of the lock.
            let waker = context.waker().clone();
            let (stale, is_lost) = {
                let mut state = self.state.lock().ignore_poison();
                if state.is_over {
                    return Poll::Ready(());
                }
                (state.waker.replace(waker), state.is_lost)
            };
            drop(stale);
            if !is_lost || !self.move_on() {
                return Poll::Pending;
            }
        }
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        let stale = self.state.lock().ignore_poison().waker.take();
        drop(stale);
    }
}

impl fmt::Debug for Sleep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock().ignore_poison();
        f.debug_struct("Sleep")
            .field("is_over", &state.is_over)
            .finish_non_exhaustive()
    }
}
