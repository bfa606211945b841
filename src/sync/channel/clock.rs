//! Channels that the clock sends into.
#![forbid(unsafe_code)]

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::{Channel, Receiver};
use crate::hub::{Alarm, Hub};
use crate::sys::spin::push_back;

/// A channel that gives one message, the time, after `duration`, and then none forever.
///
/// ```
/// use std::time::Duration;
/// use greenthread::{select, sync::channel};
///
/// let (_sender, receiver) = channel::unbounded::<u32>();
/// let late = channel::after(Duration::from_millis(5)); // one limit for the whole loop
/// loop {
///     select! {
///         recv(receiver) -> number => println!("{number:?}"),
///         recv(late) -> _ => break,
///     }
/// }
/// ```
///
/// The time is that of the hub of the calling OS thread, and the message comes when that hub runs. When all receivers
/// are gone, the timer is removed.
#[track_caller]
pub fn after(duration: Duration) -> Receiver<Instant> {
    let hub = Hub::current();
    clock(hub, hub.deadline_in(duration), None)
}

/// A channel that gives one message, the time, at `when`; see [`after`].
#[track_caller]
pub fn at(when: Instant) -> Receiver<Instant> {
    let hub = Hub::current();
    clock(hub, hub.clock.nanos(when), None)
}

/// A channel that gives the time every `period`. A tick that is not received before the next one is lost.
///
/// ```
/// use std::time::Duration;
/// use greenthread::sync::channel;
///
/// let ticks = channel::tick(Duration::from_millis(1));
/// let (first, second) = (ticks.recv().unwrap(), ticks.recv().unwrap());
/// assert!(second > first);
/// ```
///
/// As with [`after`], the ticks come from the hub of the calling OS thread.
///
/// # Panics
/// If `period` is zero.
#[track_caller]
pub fn tick(period: Duration) -> Receiver<Instant> {
    assert!(!period.is_zero(), "a tick needs a period above zero");
    let hub = Hub::current();
    let nanos = u64::try_from(period.as_nanos()).unwrap_or(u64::MAX);
    clock(hub, hub.deadline_in(period), Some(nanos))
}

/// A channel that never gives a message, and never ends.
pub fn never<T>() -> Receiver<T> {
    Receiver(Arc::new(Channel::new(1)))
}

/// Makes a channel with messages that come from a timer of `hub`.
fn clock(hub: &'static Hub, at: u64, period: Option<u64>) -> Receiver<Instant> {
    // The clock is the one sender. It is never dropped, so the channel never ends.
    let core = Arc::new(Channel::new(1));
    set(hub, &core, at, period);
    Receiver(core)
}

/// Sets the timer for the next message.
fn set(hub: &'static Hub, core: &Arc<Channel<Instant>>, at: u64, period: Option<u64>) {
    // A weak reference: the timer must not keep the channel alive.
    let weak = Arc::downgrade(core);
    let alarm = Alarm::set(hub, at, Box::new(move || ring(hub, &weak, at, period)));
    // The previous alarm has rung. It is dropped outside the lock, because that may send a message to another hub.
    drop(core.change(|state| state.alarm.replace(alarm)));
}

/// Sends the time. Runs on the hub's stack when the timer is due.
fn ring(hub: &'static Hub, core: &Weak<Channel<Instant>>, at: u64, period: Option<u64>) {
    let Some(core) = core.upgrade() else { return };
    let now = hub.clock.instant();
    core.change(|state| {
        // A tick that was not received stays, and this one is lost.
        if state.queue.is_empty() {
            push_back(&mut state.queue, now);
        }
    });
    if let Some(period) = period {
        // In step with the first tick, however many were missed.
        let missed = hub.clock.now().saturating_sub(at) / period;
        set(
            hub,
            &core,
            at.saturating_add(period.saturating_mul(missed + 1)),
            Some(period),
        );
    }
}
