//! Futures that resolve when a descriptor is ready.
#![forbid(unsafe_code)]

use std::future::Future;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::event::{PollFd, PollFlags, Timespec};

use super::Async;
use crate::hub::{Direction, Hub, HubRef, Key, budget};
use crate::sys::plain::plainly;

/// Asks the kernel once, without waiting and without consuming an event.
pub(super) fn look(fd: BorrowedFd<'_>, direction: Direction) -> io::Result<()> {
    let wanted = if direction == Direction::Read {
        PollFlags::IN
    } else {
        PollFlags::OUT
    };
    let mut one = [PollFd::from_borrowed_fd(fd, wanted)];
    match plainly(|| rustix::event::poll(&mut one, Some(&Timespec::default())))? {
        0 => Err(ErrorKind::WouldBlock.into()),
        _ => Ok(()),
    }
}

/// A place in the queue of a source, on the hub that polled the future.
struct Place {
    hub: HubRef,
    key: Key,
    number: u64,
}

/// Resolves when a descriptor is ready.
#[must_use = "a future does nothing unless it is polled"]
pub(super) struct Readiness<'a, T: AsFd> {
    io: &'a Async<T>,
    direction: Direction,
    place: Option<Place>,
}

impl<'a, T: AsFd> Readiness<'a, T> {
    pub(super) fn new(io: &'a Async<T>, direction: Direction) -> Readiness<'a, T> {
        Readiness {
            io,
            direction,
            place: None,
        }
    }

    /// Leaves the queue. An edge that woke this future, and that it does not use, goes to the next waiter.
    fn leave(&mut self, uses_it: bool) {
        let Some(place) = self.place.take() else { return };
        let direction = self.direction;
        let leave = move |hub: &'static Hub| {
            // Not queued any more: an edge has taken it out and woken it.
            if !hub.reactor.dequeue(place.key, direction, place.number) && !uses_it {
                hub.reactor.wake_next(hub, place.key, direction);
            }
        };
        match place.hub.here() {
            Some(hub) => leave(hub),
            // As a callback, because the waker is dropped there, and that runs the user's code.
            None => place
                .hub
                .run_or_send(move |hub| hub.queue_callback(Box::new(move || leave(hub)))),
        }
    }

    fn poll_ready(&mut self, context: &Context<'_>) -> Poll<io::Result<()>> {
        // `as_fd` is the user's code and may do anything, so it is called before the hub is looked at.
        let fd = self.io.as_fd();
        if Hub::has_ended() {
            return Poll::Ready(Err(crate::hub::ended()));
        }
        // If the budget is used up, the future keeps its place in the queue meanwhile.
        ready!(budget::poll(context));
        // This poll looks for itself, so it uses up the edge that may have woken it.
        self.leave(true);
        let hub = Hub::current();
        loop {
            let key = self.io.register(hub, fd)?;
            let mut ask = |_: &T| look(fd, self.direction);
            if let Some(result) = self.io.attempt(Some((hub, key)), self.direction, false, &mut ask) {
                return Poll::Ready(result);
            }
            // `None`: an edge came after the look. Look again, because no other edge may come.
            let queued = hub.reactor.enqueue(hub, key, self.direction, context.waker().clone());
            if let Some(number) = queued {
                self.place = Some(Place {
                    hub: hub.reference(),
                    key,
                    number,
                });
                return Poll::Pending;
            }
        }
    }
}

impl<T: AsFd> Future for Readiness<'_, T> {
    type Output = io::Result<()>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_ready(context)
    }
}

impl<T: AsFd> Drop for Readiness<'_, T> {
    fn drop(&mut self) {
        self.leave(false);
    }
}
