//! A call at a given time that is cancelled when its alarm is dropped, on any OS thread.
#![forbid(unsafe_code)]

use super::remote::{Message, Shared};
use super::{Callback, Due, Hub, timer};

/// A timer of one hub, owned by a value that may move to another OS thread.
pub(crate) struct Alarm {
    shared: &'static Shared,
    generation: u64,
    timer: timer::Key,
}

impl Alarm {
    /// Has `f` called on this hub when its clock says `at`.
    pub(crate) fn set(hub: &'static Hub, at: u64, f: Callback) -> Alarm {
        Alarm {
            shared: hub.shared,
            generation: hub.generation,
            timer: hub.insert_timer(at, Due::Call(Box::new(f))),
        }
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        let timer = self.timer;
        match Hub::try_current() {
            Some(hub) if std::ptr::eq(hub.shared, self.shared) && hub.generation == self.generation => {
                hub.timers.remove(timer);
            }
            // Only the hub's own OS thread may touch its timers. If the hub has ended, or its block serves another hub,
            // the message is dropped and the timer is gone already.
            _ => self.shared.send_to(
                self.generation,
                Message::Internal(Box::new(move |hub| hub.timers.remove(timer))),
            ),
        }
    }
}
