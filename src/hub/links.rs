//! Exit links: functions that `on_exit` and groups leave, from any OS thread, to be called at the end of a green
//! thread.
//!
//! They are kept in a register of the process, not in the task's block. The bit `LINKED` beside `DONE` (both are
//! described in [`task`](super::task)) decides which side runs them: the owner if it finds `LINKED` when it sets
//! `DONE`, and the side that links if `DONE` was first. So each link runs once, in order, and is told how the green
//! thread ended.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::panic::Location;

use super::slot::Ended;
use super::task::block::TaskRef;
use crate::sys::fork::{Global, Order};

/// A function to be called with how the green thread ended.
pub(crate) type ExitLink = Box<dyn FnOnce(Ended) + Send>;

/// How a link runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Runs {
    /// In a green thread of its own: the link is the user's code, and may block.
    Apart,
    /// At once, as a callback: the link is this crate's, and short.
    AtOnce,
}

/// One link in the register.
pub(super) struct Left {
    /// The id of the green thread. Blocks are recycled, ids never repeat.
    pub(super) id: u64,
    number: u64,
    pub(super) place: &'static Location<'static>,
    pub(super) runs: Runs,
    pub(super) link: ExitLink,
}

#[derive(Default)]
struct Register {
    next: u64,
    /// The links, by the address of the task's block.
    left: HashMap<usize, Vec<Left>>,
}

static REGISTER: Global<Option<Register>> = Global::new(Order::Links, None);

/// Calls `f` under the register's lock. It must neither call nor drop a link, which may run the user's code.
fn register<R>(f: impl FnOnce(&mut Register) -> R) -> R {
    let mut register = REGISTER.lock();
    f(register.get_or_insert_default())
}

/// Leaves a link; its number is for [`take_back`].
pub(super) fn add(task: TaskRef, id: u64, place: &'static Location<'static>, runs: Runs, link: ExitLink) -> u64 {
    register(|register| {
        register.next += 1;
        let number = register.next;
        let left = Left {
            id,
            number,
            place,
            runs,
            link,
        };
        register.left.entry(task.address()).or_default().push(left);
        number
    })
}

/// Takes a link back, unless the end of the green thread has taken it already.
pub(super) fn take_back(task: TaskRef, number: u64) -> Option<ExitLink> {
    take(task, |left| left.number == number).pop().map(|left| left.link)
}

/// Takes the matching links of a block, in the order in which they were left. Each link is taken only once.
pub(super) fn take(task: TaskRef, which: impl Fn(&Left) -> bool) -> Vec<Left> {
    register(|register| {
        let Some(all) = register.left.get_mut(&task.address()) else {
            return Vec::new();
        };
        let taken = all.extract_if(.., |left| which(left)).collect();
        // The register must not grow with blocks that once had a link.
        if all.is_empty() {
            register.left.remove(&task.address());
        }
        taken
    })
}
