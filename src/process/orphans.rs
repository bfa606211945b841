//! Children that were dropped before their end: reaped when they have ended, at the next spawn.
#![forbid(unsafe_code)]

use rustix::process::{Pid, WaitOptions, waitpid};

use crate::sys::fork::{Global, Order};
use crate::sys::plain::plainly;

static ORPHANS: Global<Vec<Pid>> = Global::new(Order::Orphans, Vec::new());

/// Leaves a child that has not been reaped to a later spawn.
pub(super) fn adopt(child: Pid) {
    if is_left(child) {
        ORPHANS.lock().push(child);
    }
}

/// Reaps the children that have ended.
pub(super) fn reap() {
    let mut orphans = ORPHANS.lock();
    orphans.retain(|child| is_left(*child));
}

/// Whether the child still runs; reaps it if not. A child that was reaped by other means does not count.
fn is_left(child: Pid) -> bool {
    matches!(plainly(|| waitpid(Some(child), WaitOptions::NOHANG)), Ok(None))
}
