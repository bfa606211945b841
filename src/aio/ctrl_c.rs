//! Ctrl-C while a [`Runner`](super::Runner) runs: the first cancels the main task.
//!
//! A dedicated OS thread, not the hub, reads the byte that the signal handler writes. A hub that waits for no
//! descriptor need not ask the kernel for events, and it can detect that nothing will ever wake it; a registered pipe
//! would cost both.
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use super::AnyTask;
use crate::hub::Registered;
use crate::sys::fork::{Global, Order, fork_epoch};
use crate::sys::inside::MutexGuard;
use crate::sys::{ctrl_c, socket, thread};

#[derive(Default)]
struct State {
    /// Where the signal handler writes, with the fork epoch of the process that reads it.
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

/// While this exists, the first Ctrl-C cancels the main task.
pub(super) struct CtrlC(Option<ctrl_c::Caught>);

impl CtrlC {
    /// Has Ctrl-C cancel `main`; does nothing where the library does not handle Ctrl-C.
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

/// The descriptor that the signal handler writes to. The first call of a process starts the OS thread that reads it.
fn writer(state: &mut State) -> io::Result<i32> {
    let epoch = fork_epoch();
    if let Some((_, writer)) = state.writer.as_ref().filter(|(of, _)| *of == epoch) {
        return Ok(writer.as_raw_fd());
    }
    let (reader, writer) = socket::pipe()?;
    thread::start("ctrl-c", move || listen(&reader))?;
    let fd = writer.as_raw_fd();
    // In a forked child this closes the parent's pipe end, to which no handler of this process writes any more.
    state.writer = Some((epoch, writer));
    Ok(fd)
}

fn listen(reader: &OwnedFd) {
    let registered = Registered::new();
    loop {
        // While it rests, this OS thread does not count as one that could still wake a green thread.
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
