//! Spawning on several hubs, and waiting for all of them.
#![forbid(unsafe_code)]

use std::io;
use std::panic::Location;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::JoinHandle;
use crate::hub::{self, Hub, Hubs, serve};
use crate::sync::channel::{self, Receiver, RecvTimeoutError};

impl Hubs {
    /// Starts `count` hubs, each on an OS thread of its own.
    ///
    /// # Errors
    /// `InvalidInput` if `count` is 0; the system's error if it can start no more OS threads.
    ///
    /// # Blocking and cancellation
    /// Parks until the hubs run. After an error, a kill or a time-out, the hubs that run by then are stopped.
    #[track_caller]
    pub fn new(count: usize) -> io::Result<Hubs> {
        if count == 0 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "0 hubs could not run any green thread: ask for at least 1",
            ));
        }
        let mut hubs = Hubs::none();
        for number in 0..count {
            let open = Arc::new(AtomicBool::new(true));
            let theirs = open.clone();
            // The new OS thread sends its handle, and serves only when it is told that the handle was received. If this
            // call ends early, the channels are dropped and the OS thread ends.
            let (tell, told) = channel::bounded(1);
            let (go, may) = channel::bounded(1);
            crate::sys::thread::start(&format!("greenthread-hub-{number}"), move || {
                if tell.send(hub::handle()).is_ok() && may.recv().is_ok() {
                    serve(&theirs);
                }
            })?;
            let gone =
                |_| io::Error::other("the OS thread of a hub panicked before its hub started: see the panic on stderr");
            hubs.push(told.recv().map_err(gone)?, open);
            // The send fails only if the hub has ended: a later spawn there gives an error.
            let _ = go.send(());
        }
        Ok(hubs)
    }

    /// Spawns a green thread on one of the hubs, in turn. A hub that has ended is passed over.
    ///
    /// # Errors
    /// `NotConnected` after [`stop`](Self::stop), or when all have ended; `f` is dropped.
    #[track_caller]
    pub fn spawn<F, T>(&self, f: F) -> io::Result<JoinHandle<T>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let count = self.handles().len();
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let mut turns = (0..count).map(|turn| first.wrapping_add(turn) % count);
        let index = turns.find(|index| self.is_open(*index)).ok_or_else(ended)?;
        self.start_on(index, f, Location::caller())
    }

    /// Spawns a green thread on hub number `index`, from 0.
    ///
    /// # Errors
    /// `NotConnected` after [`stop`](Self::stop), or when that hub has ended; `f` is dropped.
    ///
    /// # Panics
    /// If there is no hub with this number.
    #[track_caller]
    pub fn spawn_on<F, T>(&self, index: usize, f: F) -> io::Result<JoinHandle<T>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let count = self.handles().len();
        assert!(
            index < count,
            "spawn_on({index}): there is no such hub; the {count} hubs are numbered from 0"
        );
        self.start_on(index, f, Location::caller())
    }

    fn start_on<F, T>(&self, index: usize, f: F, place: &'static Location<'static>) -> io::Result<JoinHandle<T>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        if !self.is_open(index) {
            return Err(ended());
        }
        self.handles()[index]
            .start(f, self.stack_size, place)
            .map(JoinHandle::new)
    }

    /// Waits until all green threads of these hubs have ended, including those that are spawned meanwhile. After a
    /// [`stop`](Self::stop) it waits until the hubs themselves have ended.
    ///
    /// ```
    /// use greenthread::{hub::Hubs, sleep, spawn};
    /// use std::{sync::{Arc, atomic::{AtomicUsize, Ordering}}, time::Duration};
    ///
    /// let (hubs, count) = (Hubs::new(2).unwrap(), Arc::new(AtomicUsize::new(0)));
    /// for _ in 0..4 {
    ///     let count = count.clone();
    ///     hubs.spawn(move || {
    ///         spawn(move || { // on the same hub
    ///             sleep(Duration::from_millis(1));
    ///             count.fetch_add(1, Ordering::SeqCst);
    ///         });
    ///     }).unwrap();
    /// }
    /// hubs.join();
    /// assert_eq!(count.load(Ordering::SeqCst), 4);
    /// ```
    ///
    /// # Panics
    /// If it is called on one of these hubs, because it would wait for its caller.
    ///
    /// # Blocking and cancellation
    /// Parks. A kill or time-out unwinds here, and the green threads go on.
    #[track_caller]
    pub fn join(&self) {
        self.join_until(None);
    }

    /// Like [`join`](Self::join), but for at most `timeout`; returns whether all have ended.
    ///
    /// # Panics
    /// As [`join`](Self::join).
    #[track_caller]
    pub fn join_timeout(&self, timeout: Duration) -> bool {
        self.join_until(crate::time::after(timeout))
    }

    /// Like [`join`](Self::join), but until `deadline`; returns whether all have ended.
    ///
    /// # Panics
    /// As [`join`](Self::join).
    #[track_caller]
    pub fn join_deadline(&self, deadline: Instant) -> bool {
        self.join_until(Some(deadline))
    }

    #[track_caller]
    fn join_until(&self, deadline: Option<Instant>) -> bool {
        let here = Hub::try_current().map(|_| hub::handle());
        assert!(
            !here.is_some_and(|here| self.handles().contains(&here)),
            "a green thread cannot join the hub that it runs on: it would wait for itself"
        );
        // One round is not enough: a hub that was empty may then have been sent work by a hub that was asked later. So
        // a second round must find that nothing has arrived anywhere since the first. Then all hubs were empty at the
        // moment between the rounds: messages arrive in order, so one that had been sent by then would have arrived.
        loop {
            let before = self.round(deadline);
            if before.is_none() || before == self.round(deadline) {
                return before.is_some();
            }
        }
    }

    /// Waits until each hub has been empty once. Gives the number of messages that had arrived there by then, or `None`
    /// for a hub that has ended; `None` for the whole if the deadline has passed.
    #[track_caller]
    fn round(&self, deadline: Option<Instant>) -> Option<Vec<Option<u64>>> {
        let ask = |index: usize| {
            let (sender, receiver) = channel::bounded(1);
            let handle = &self.handles()[index];
            if self.is_open(index) {
                handle.when_empty(move |arrived| _ = sender.send(arrived));
            } else {
                handle.at_end(sender);
            }
            receiver
        };
        let asked: Vec<_> = (0..self.handles().len()).map(ask).collect();
        asked.iter().map(|answer| heard(answer, deadline)).collect()
    }
}

/// A hub's answer; the inner `None` if the hub has ended, the outer one if the deadline has passed.
#[track_caller]
fn heard(answer: &Receiver<u64>, deadline: Option<Instant>) -> Option<Option<u64>> {
    match deadline {
        None => Some(answer.recv().ok()),
        Some(deadline) => match answer.recv_deadline(deadline) {
            Ok(arrived) => Some(Some(arrived)),
            Err(RecvTimeoutError::Disconnected) => Some(None),
            Err(RecvTimeoutError::Timeout) => None,
        },
    }
}

fn ended() -> io::Error {
    io::Error::new(
        io::ErrorKind::NotConnected,
        "the hub was stopped or has ended: it takes no green threads",
    )
}
