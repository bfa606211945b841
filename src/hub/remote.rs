//! Code that is to run on one hub, from any OS thread.
#![forbid(unsafe_code)]

use super::report::discard;
use super::scheduler::{Hub, HubRef};
use super::shared::Message;

impl HubRef {
    /// Calls `f` with the hub: at once on its own OS thread, else in one of its turns, by a message. If the hub has
    /// ended, `f` is dropped. `f` does not park, and calls no code of the user but destructors by [`discard`].
    pub(crate) fn run_or_send(self, f: impl FnOnce(&'static Hub) + Send + 'static) {
        match self.here() {
            Some(hub) => f(hub),
            None => drop(self.send(self.call(f))),
        }
    }

    /// The message that has `f` called with the hub.
    pub(super) fn call(self, f: impl FnOnce(&'static Hub) + Send + 'static) -> Message {
        Message::Internal(Box::new(move || match self.here() {
            Some(hub) => f(hub),
            // A callback of the same turn has forked the process: this is the child, and the hub is the parent's.
            None => discard(f),
        }))
    }
}
