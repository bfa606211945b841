//! The lines that this crate writes to stderr: never waited for by who has something to tell, and never a flood.
//!
//! ```text
//!   complain ─► too many of this kind? counted ─► stderr takes it at once? written
//!                                                └─► queue (full? counted) ─► an OS thread of its own writes
//! ```
//!
//! What reads stderr may have stopped, and the hub of a server must not stop with it. So a line is written at once only if that
//! cannot block (`RWF_NOWAIT`: pipes, sockets); else the first such line starts an OS thread, which waits in its place and goes
//! after some idle seconds. What it could not write is given a moment more when the process exits.
//!
//! A kind is the place in the source that complains. Of each kind so many lines are written in a second; the others are counted,
//! and the count is told when the second is over.
//!
//! A process that is about to abort, and a stack overflow, have no later: see [`last_words`] and
//! [`write_stderr`](super::signal::write_stderr).

use std::collections::VecDeque;
use std::fmt;
use std::io::{IoSlice, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::Location;
use std::sync::Condvar;
use std::sync::atomic::{AtomicU64, Ordering};

use super::inside::MutexGuard;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, ReadWriteFlags};
use rustix::net::SendFlags;

use super::fork::{Global, Order, fork_epoch};
use super::thread;

/// How many lines of a kind are written in a [`WINDOW`].
const LINES: u32 = 32;
const WINDOW: Duration = Duration::from_secs(1);

/// The most bytes that wait to be written.
const MOST: usize = 256 * 1024;

/// After so long without a line the OS thread goes.
const IDLE: Duration = Duration::from_secs(10);

/// How long the end of the process waits for what is not written yet.
const PATIENCE: Duration = Duration::from_millis(200);

/// How much was told of one kind.
struct Kind {
    place: (String, u32),
    since: Instant,
    lines: u32,
    left_out: u64,
    /// The last that was left out, cut short: what the others were like.
    like: String,
}

struct Reports {
    kinds: Vec<Kind>,
    waiting: VecDeque<String>,
    bytes: usize,
    /// Lines that found the queue full.
    dropped: u64,
    /// The process whose OS thread writes, by [`fork_epoch`].
    writer: Option<u64>,
    /// It is writing what is no longer in the queue.
    writing: bool,
    at_exit: bool,
}

static REPORTS: Global<Reports> = Global::new(
    Order::Reports,
    Reports {
        kinds: Vec::new(),
        waiting: VecDeque::new(),
        bytes: 0,
        dropped: 0,
        writer: None,
        writing: false,
        at_exit: false,
    },
);
/// There is something to write, or to tell at a later time.
static WORK: Condvar = Condvar::new();
/// All is written.
static DONE: Condvar = Condvar::new();
/// The number of the OS thread that writes.
static WRITER: AtomicU64 = AtomicU64::new(0);

/// Whether it is the OS thread that writes: it gives nobody something to do.
pub(crate) fn is_writer(thread: u64) -> bool {
    WRITER.load(Ordering::Acquire) == thread
}

/// A line on stderr; if that is broken, nobody can be told. It does not wait.
#[track_caller]
pub(crate) fn complain(text: fmt::Arguments<'_>) {
    let at = Location::caller();
    let place = (at.file(), at.line());
    if !REPORTS.lock().may_tell(place, Instant::now()) {
        // What it says is the user's code, and that is not to run under the lock.
        let like = cut(text.to_string());
        REPORTS.lock().leave_out(place, like);
        return see_to_writer();
    }
    put(format!("greenthread: {text}\n"));
}

/// Text for stderr as it is, of one kind with all that has the same place.
pub(crate) fn print(place: (&str, u32), text: impl FnOnce() -> String) {
    let told = REPORTS.lock().may_tell(place, Instant::now());
    let text = text();
    if told {
        return put(text);
    }
    REPORTS.lock().leave_out(place, cut(text));
    see_to_writer();
}

fn put(line: String) {
    if !REPORTS.lock().put(line) {
        see_to_writer();
    }
}

/// The first line of a text, as far as it tells one kind from another.
fn cut(text: String) -> String {
    let line = text.trim().lines().next().unwrap_or_default();
    line.chars().take(80).collect()
}

/// A line of a process that is about to abort: written here, after what waits, unless stderr takes nothing for a moment.
pub(crate) fn last_words(text: fmt::Arguments<'_>) {
    let line = format!("greenthread: {text}\n");
    flush();
    let stderr = std::io::stderr();
    let mut left = line.as_bytes();
    while !left.is_empty() {
        match write_now(stderr.as_fd(), left) {
            Ok(count) => left = &left[count..],
            Err(Now::Later) if is_writable(stderr.as_fd(), PATIENCE) => {}
            Err(Now::CannotTell) => {
                // A terminal, or a file on a disk: as std does.
                let _ = (&stderr).write_all(left);
                return;
            }
            Err(_) => return,
        }
    }
}

impl Reports {
    /// Whether one more of this kind may be told.
    fn may_tell(&mut self, place: (&str, u32), now: Instant) -> bool {
        let kind = self.kind(place, now);
        if now.duration_since(kind.since) >= WINDOW {
            let summary = kind.next_window(now);
            if let Some(summary) = summary {
                self.put(summary);
            }
        }
        let kind = self.kind(place, now);
        kind.lines += 1;
        kind.lines <= LINES
    }

    fn kind(&mut self, place: (&str, u32), now: Instant) -> &mut Kind {
        let known = self
            .kinds
            .iter()
            .position(|kind| (kind.place.0.as_str(), kind.place.1) == place);
        let at = known.unwrap_or_else(|| {
            self.kinds.push(Kind {
                place: (place.0.to_owned(), place.1),
                since: now,
                lines: 0,
                left_out: 0,
                like: String::new(),
            });
            self.kinds.len() - 1
        });
        &mut self.kinds[at]
    }

    fn leave_out(&mut self, place: (&str, u32), like: String) {
        let kind = self.kind(place, Instant::now());
        kind.left_out += 1;
        kind.like = like;
    }

    /// Writes it, or lets it wait; `false`: that needs the OS thread.
    fn put(&mut self, line: String) -> bool {
        let mut left = line.as_bytes();
        if self.waiting.is_empty() && !self.writing {
            let stderr = std::io::stderr();
            while !left.is_empty() {
                match write_now(stderr.as_fd(), left) {
                    Ok(count) => left = &left[count..],
                    Err(Now::Broken) => return true,
                    Err(_) => break,
                }
            }
            if left.is_empty() {
                return true;
            }
        }
        if self.bytes + left.len() > MOST && !self.waiting.is_empty() {
            self.dropped += 1;
        } else {
            self.bytes += left.len();
            self.waiting.push_back(String::from_utf8_lossy(left).into_owned());
        }
        false
    }

    /// Tells how many were left out in windows that are over; when the next one will be.
    fn tell_left_out(&mut self, now: Instant, all: bool) -> Option<Instant> {
        let mut next: Option<Instant> = None;
        let mut summaries = Vec::new();
        for kind in self.kinds.iter_mut().filter(|kind| kind.left_out > 0) {
            let end = kind.since + WINDOW;
            if now >= end || all {
                summaries.extend(kind.next_window(now));
            } else {
                next = Some(next.map_or(end, |next| next.min(end)));
            }
        }
        for summary in summaries {
            self.put(summary);
        }
        next
    }

    fn has_work(&self) -> bool {
        !self.waiting.is_empty() || self.kinds.iter().any(|kind| kind.left_out > 0)
    }

    /// Takes all that waits.
    fn take(&mut self) -> String {
        let mut text: String = self.waiting.drain(..).collect();
        self.bytes = 0;
        let dropped = std::mem::take(&mut self.dropped);
        if dropped > 0 {
            text.push_str(&format!(
                "greenthread: {dropped} lines were left out, for stderr took nothing\n"
            ));
        }
        text
    }
}

impl Kind {
    /// Begins a new window; the line about what was left out in the last.
    fn next_window(&mut self, now: Instant) -> Option<String> {
        (self.since, self.lines) = (now, 0);
        let count = std::mem::take(&mut self.left_out);
        let like = std::mem::take(&mut self.like);
        (count > 0).then(|| format!("greenthread: {count} more of this kind were left out: {like}\n"))
    }
}

/// Why a line is not written at once.
enum Now {
    /// Stderr is full.
    Later,
    /// It cannot be told whether a write would block.
    CannotTell,
    Broken,
}

/// Writes what stderr takes without blocking.
fn write_now(stderr: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize, Now> {
    // At the end, or at the position that the file has, which a pipe has not.
    let written = rustix::io::pwritev2(stderr, &[IoSlice::new(bytes)], u64::MAX, ReadWriteFlags::NOWAIT);
    let written = match written {
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::PERM | Errno::INVAL | Errno::SPIPE) => {
            match rustix::net::send(stderr, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Err(Errno::NOTSOCK) => return Err(Now::CannotTell),
                sent => sent,
            }
        }
        written => written,
    };
    match written {
        Ok(0) => Err(Now::CannotTell),
        Ok(count) => Ok(count),
        Err(Errno::PERM) => Err(Now::CannotTell),
        Err(Errno::AGAIN | Errno::INTR) => Err(Now::Later),
        Err(_) => Err(Now::Broken),
    }
}

pub(super) fn is_writable(stderr: BorrowedFd<'_>, patience: Duration) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(stderr, PollFlags::OUT)];
    let patience = Timespec::try_from(patience).ok();
    poll(&mut fds, patience.as_ref()) != Ok(0)
}

/// Starts the OS thread that writes, if there is none; with something to write or to tell later.
fn see_to_writer() {
    let mut reports = REPORTS.lock();
    if reports.writer == Some(fork_epoch()) {
        return WORK.notify_one();
    }
    reports.writer = Some(fork_epoch());
    let first = !std::mem::replace(&mut reports.at_exit, true);
    drop(reports);
    if first {
        super::at_exit(flush);
    }
    if thread::start("greenthread-report", write_all).is_err() {
        REPORTS.lock().writer = None;
    }
}

/// What the OS thread does.
fn write_all() {
    WRITER.store(thread::id(), Ordering::Release);
    while let Some(text) = next_text() {
        write_patiently(text.as_bytes());
        REPORTS.lock().writing = false;
        DONE.notify_all();
    }
    // Unless another is the writer by now.
    let _ = WRITER.compare_exchange(thread::id(), 0, Ordering::AcqRel, Ordering::Relaxed);
}

/// The next text to write; `None`: it has been idle for too long, and is the writer no more.
fn next_text() -> Option<String> {
    let mut reports = REPORTS.lock();
    let mut idle_since = Instant::now();
    loop {
        let now = Instant::now();
        let next = reports.tell_left_out(now, false);
        if !reports.waiting.is_empty() {
            reports.writing = true;
            return Some(reports.take());
        }
        DONE.notify_all();
        if next.is_some() {
            idle_since = now;
        }
        let end = next.unwrap_or(idle_since + IDLE);
        let Some(left) = end.checked_duration_since(now).filter(|left| !left.is_zero()) else {
            reports.writer = None;
            return None;
        };
        reports = wait(&WORK, reports, left);
    }
}

fn wait<'a>(what: &Condvar, reports: MutexGuard<'a, Reports>, most: Duration) -> MutexGuard<'a, Reports> {
    reports.wait_timeout(what, most).0
}

/// Writes to the end, however long that takes.
fn write_patiently(mut bytes: &[u8]) {
    let stderr = std::io::stderr();
    while !bytes.is_empty() {
        match rustix::io::write(stderr.as_fd(), bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => drop(is_writable(stderr.as_fd(), WINDOW)),
            Err(_) => return,
        }
    }
}

/// Gives what is not written yet a moment: the process ends.
pub(crate) fn flush() {
    let mut reports = REPORTS.lock();
    reports.tell_left_out(Instant::now(), true);
    if reports.has_work() && reports.writer.is_none() {
        drop(reports);
        see_to_writer();
        reports = REPORTS.lock();
    }
    WORK.notify_one();
    let end = Instant::now() + PATIENCE;
    while reports.writer.is_some() && (reports.writing || !reports.waiting.is_empty()) {
        let Some(left) = end
            .checked_duration_since(Instant::now())
            .filter(|left| !left.is_zero())
        else {
            return;
        };
        reports = wait(&DONE, reports, left);
    }
}

/// In a forked child: what waits is the parent's to write.
pub(crate) fn forget_all() {
    let mut reports = REPORTS.lock();
    reports.kinds.clear();
    reports.waiting.clear();
    (reports.bytes, reports.dropped) = (0, 0);
    (reports.writer, reports.writing) = (None, false);
    WRITER.store(0, Ordering::Release);
}
