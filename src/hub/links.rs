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

use super::context::Kind;
use super::task::{self, Ended, TaskRef};
use super::{Hub, Reporter, call_user};
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
struct Left {
    /// The id of the green thread. Blocks are recycled, ids never repeat.
    id: u64,
    number: u64,
    place: &'static Location<'static>,
    runs: Runs,
    link: ExitLink,
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
pub(super) fn leave(task: TaskRef, id: u64, place: &'static Location<'static>, runs: Runs, link: ExitLink) -> u64 {
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
fn take(task: TaskRef, which: impl Fn(&Left) -> bool) -> Vec<Left> {
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

/// Runs the links of a green thread that has ended, in order.
#[cold]
pub(super) fn run(hub: &'static Hub, task: TaskRef, id: u64, ended: Ended) {
    // By id, not by block alone: `DONE` is set, so the block may have been recycled, and its next life may have links.
    for Left { place, runs, link, .. } in take(task, |left| left.id == id) {
        if runs == Runs::AtOnce {
            // Even a link of this crate may call wakers, which are the user's code.
            if let Err(payload) = call_user(|| link(ended)) {
                super::report_panic(&Reporter::callback(), payload);
            }
            continue;
        }
        // If there is no memory for the green thread, the link is dropped inside of `call_user`.
        let spawned = call_user(|| task::spawn(hub, Kind::Local, None, place, move || link(ended)).is_ok());
        if !matches!(spawned, Ok(true)) {
            super::complain(format_args!(
                "no memory for an on_exit of green thread #{id}, spawned at {place}"
            ));
            spawned.err().into_iter().for_each(super::discard);
        }
    }
}

/// Runs the links of a green thread that is lost: as callbacks, or here if this OS thread's hub has ended.
#[cold]
pub(super) fn lose(task: TaskRef, id: u64) {
    for Left { link, .. } in take(task, |left| left.id == id) {
        let call = move || link(Ended::Lost);
        match Hub::try_current() {
            Some(hub) => hub.call(Box::new(call)),
            None => {
                if let Err(payload) = call_user(call) {
                    super::report_panic(&Reporter::callback(), payload);
                }
            }
        }
    }
}
