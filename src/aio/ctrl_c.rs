//! Ctrl-C while a [`Runner`](super::Runner) runs: the first cancels the main task.
//!
//! The byte that the signal leaves is read by an OS thread that does nothing else, and not by the hub: one that waits
//! for no descriptor asks the kernel for none, and can tell that nothing will ever wake it.
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::pipe::{PipeFlags, pipe_with};

use super::AnyTask;
use crate::hub::stuck::Registered;
use crate::sys::fork::{Global, Order, fork_epoch};
use crate::sys::inside::MutexGuard;
use crate::sys::{ctrl_c, thread};

#[derive(Default)]
struct State {
    /// Where the signal writes to, and how many forks lay before the process that reads it.
    writer: Option<(u64, OwnedFd)>,
    main: Option<AnyTask>,
    came: bool,
}

static STATE: Global<State> = Global::new(
    Order::CtrlC,
    State {
        writer: None,
        main: None,
        came: false,
    },
);

fn state() -> MutexGuard<'static, State> {
    STATE.lock()
}

/// The first Ctrl-C is a cancel, until this is dropped.
pub(super) struct CtrlC(Option<ctrl_c::Caught>);

impl CtrlC {
    /// It cancels `main`; nothing at all where Ctrl-C is not ours.
    pub(super) fn cancels(main: AnyTask) -> CtrlC {
        let mut state = state();
        let caught = writer(&mut state).ok().and_then(ctrl_c::catch);
        if caught.is_some() {
            (state.main, state.came) = (Some(main), false);
        }
        CtrlC(caught)
    }

    /// Whether it has come.
    pub(super) fn came(&self) -> bool {
        self.0.is_some() && state().came
    }
}

impl Drop for CtrlC {
    fn drop(&mut self) {
        if self.0.take().is_some() {
            let main = state().main.take();
            drop(main);
        }
    }
}

/// Where the signal is to write to; with somebody who reads.
fn writer(state: &mut State) -> io::Result<i32> {
    let epoch = fork_epoch();
    if let Some((_, writer)) = state.writer.as_ref().filter(|(of, _)| *of == epoch) {
        return Ok(writer.as_raw_fd());
    }
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
    thread::start("ctrl-c", move || listen(&reader))?;
    let fd = writer.as_raw_fd();
    // In a forked child this closes the parent's, to which no handler writes any more.
    state.writer = Some((epoch, writer));
    Ok(fd)
}

fn listen(reader: &OwnedFd) {
    let registered = Registered::new();
    loop {
        registered.rest();
        let read = rustix::io::retry_on_intr(|| rustix::io::read(reader, &mut [0]));
        registered.rise();
        if read != Ok(1) {
            return;
        }
        let mut state = state();
        state.came = true;
        let main = state.main.clone();
        drop(state);
        if let Some(main) = main {
            main.cancel();
        }
    }
}
