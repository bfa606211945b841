//! Children that were dropped before their end: reaped when they have ended, at the next spawn.
#![forbid(unsafe_code)]

use std::sync::{Mutex, PoisonError};

use rustix::process::{Pid, WaitOptions, waitpid};

static ORPHANS: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

/// Leaves a child that has not been reaped.
pub(super) fn adopt(child: Pid) {
    if is_left(child) {
        ORPHANS.lock().unwrap_or_else(PoisonError::into_inner).push(child);
    }
}

/// Reaps those that have ended.
pub(super) fn reap() {
    let mut orphans = ORPHANS.lock().unwrap_or_else(PoisonError::into_inner);
    orphans.retain(|child| is_left(*child));
}

/// Whether there is still something to reap. What is not ours (any more: somebody else has reaped it) is not.
fn is_left(child: Pid) -> bool {
    matches!(waitpid(Some(child), WaitOptions::NOHANG), Ok(None))
}
