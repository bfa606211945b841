//! A hub that always runs, on an OS thread of its own. It waits for descriptors on behalf of futures that another
//! executor polls.
#![forbid(unsafe_code)]

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::mpsc;
use std::task::{Context, Poll};

use crate::hub::{self, Handle};
use crate::sys::fork::{Global, Order, fork_epoch};
use crate::thread::JoinHandle;

struct Watcher {
    hub: Handle,
    /// In a forked child the watcher is the parent's.
    fork_epoch: u64,
}

static WATCHER: Global<Option<Watcher>> = Global::new(Order::Watcher, None);

impl Watcher {
    fn is_alive(&self) -> bool {
        self.fork_epoch == fork_epoch() && self.hub.is_alive()
    }
}

/// Starts the OS thread and its hub.
fn start() -> io::Result<Watcher> {
    let (tell, told) = mpsc::channel();
    crate::sys::thread::start("greenthread-watch", move || {
        // The send fails if the caller was killed and has dropped the receiver.
        let _ = tell.send(hub::handle());
        hub::run_forever();
    })?;
    let dead = |_| io::Error::other("the OS thread that waits for descriptors did not start");
    Ok(Watcher {
        hub: told.recv().map_err(dead)?,
        fork_epoch: fork_epoch(),
    })
}

/// The hub, which is started if it does not run.
fn watcher() -> io::Result<Handle> {
    let known = |watcher: &Option<Watcher>| watcher.as_ref().filter(|w| w.is_alive()).map(|w| w.hub.clone());
    if let Some(hub) = known(&WATCHER.lock()) {
        return Ok(hub);
    }
    // Without the lock, because a patched `recv` parks. So two callers may both start one.
    let new = start()?;
    let mut watcher = WATCHER.lock();
    // Another caller was first: use its hub, and stop this one.
    if let Some(first) = known(&watcher) {
        new.hub.stop()?;
        return Ok(first);
    }
    Ok(watcher.insert(new).hub.clone())
}

/// Runs `wait`, which may park, in a green thread of that hub. If the future is dropped before it is ready, it kills
/// that green thread.
pub(crate) fn watch<F>(wait: F) -> io::Result<Watch>
where
    F: FnOnce() -> io::Result<()> + Send + 'static,
{
    watcher()?.spawn(wait).map(Watch)
}

/// A wait that another hub does.
#[derive(Debug)]
pub(crate) struct Watch(JoinHandle<io::Result<()>>);

impl Future for Watch {
    type Output = io::Result<()>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ended = Pin::new(&mut self.0).poll(context);
        ended.map(|ended| ended.unwrap_or_else(|error| Err(io::Error::other(error.to_string()))))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if !self.0.is_finished() {
            self.0.kill();
        }
    }
}
