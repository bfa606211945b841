//! Exit links: what `on_exit` and groups leave for the end of a green thread, from any OS thread.
//!
//! They lie in a register of the process, not in the block: whoever ends last sees the other by the bit `LINKED` beside
//! `DONE` (the picture is in [`task`](super::task)), so each runs once, in order, and is told how it was.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::panic::Location;

use super::context::Kind;
use super::task::{self, Ended, TaskRef};
use super::{Hub, Reporter, call_user};
use crate::sys::fork::{Global, Order};

/// Called with how the green thread ended.
pub(crate) type ExitLink = Box<dyn FnOnce(Ended) + Send>;

/// How a link runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Runs {
    /// In a green thread of its own: it is the user's, and may block.
    Apart,
    /// Then and there, as a callback: it is ours, and short.
    AtOnce,
}

struct Left {
    /// Of the green thread: ids never repeat, blocks do.
    id: u64,
    number: u64,
    place: &'static Location<'static>,
    runs: Runs,
    link: ExitLink,
}

#[derive(Default)]
struct Register {
    next: u64,
    /// By the address of the block.
    left: HashMap<usize, Vec<Left>>,
}

static REGISTER: Global<Option<Register>> = Global::new(Order::Links, None);

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

/// Takes a link back, unless the end has it.
pub(super) fn take_back(task: TaskRef, number: u64) -> Option<ExitLink> {
    take(task, |left| left.number == number).pop().map(|left| left.link)
}

fn take(task: TaskRef, which: impl Fn(&Left) -> bool) -> Vec<Left> {
    register(|register| {
        let Some(all) = register.left.get_mut(&task.address()) else {
            return Vec::new();
        };
        let taken = all.extract_if(.., |left| which(left)).collect();
        if all.is_empty() {
            register.left.remove(&task.address());
        }
        taken
    })
}

/// Runs the links of a green thread that has ended, in order.
#[cold]
pub(super) fn run(hub: &'static Hub, task: TaskRef, id: u64, ended: Ended) {
    for Left { place, runs, link, .. } in take(task, |left| left.id == id) {
        if runs == Runs::AtOnce {
            // It may call wakers, which are the user's.
            if let Err(payload) = call_user(|| link(ended)) {
                super::report_panic(&Reporter::callback(), payload);
            }
            continue;
        }
        // The link goes in there if there is no memory.
        let spawned = call_user(|| task::spawn(hub, Kind::Local, None, place, move || link(ended)).is_ok());
        if !matches!(spawned, Ok(true)) {
            super::complain(format_args!(
                "no memory for an on_exit of green thread #{id}, spawned at {place}"
            ));
            spawned.err().into_iter().for_each(super::discard);
        }
    }
}

/// Runs those of one that is lost: as callbacks, or here if this OS thread's hub has ended.
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
