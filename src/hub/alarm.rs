//! A call at a given time that is cancelled when its alarm is dropped, on any OS thread.
#![forbid(unsafe_code)]

use super::callbacks::Callback;
use super::scheduler::{Hub, HubRef};
use super::timer;
use super::timers::Due;

/// A timer of one hub, owned by a value that may move to another OS thread.
pub(crate) struct Alarm {
    hub: HubRef,
    timer: timer::Key,
}

impl Alarm {
    /// Has `f` called on this hub when its clock says `at`.
    pub(crate) fn set(hub: &'static Hub, at: u64, f: Callback) -> Alarm {
        Alarm {
            hub: hub.reference(),
            timer: hub.insert_timer(at, Due::Call(Box::new(f))),
        }
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        let timer = self.timer;
        // If the hub has ended, the timer is gone already.
        self.hub.run_or_send(move |hub| hub.remove_timer(timer));
    }
}
