//! The lines that this crate writes to stderr: a caller never waits for them, and there is never a flood.
//!
//! ```text
//!   complain ─► too many of this kind? counted ─► stderr takes it at once? written
//!                                                └─► queue (full? counted) ─► an OS thread of its own writes
//! ```
//!
//! The reader of stderr may have stopped, and the hub of a server must not stop with it. So a line is written at once
//! only if that cannot block (`RWF_NOWAIT` on Linux: pipes, sockets; elsewhere: sockets). Otherwise the first such line
//! starts an OS thread, which does the waiting; it ends after some idle seconds. Lines that are still unwritten when
//! the process exits get a moment more.
//!
//! A kind of line is the place in the source that complains. A limited number of lines of each kind is written in a
//! second. The rest are counted, and the count is reported when the second is over.
//!
//! A process that aborts, for a stack overflow or otherwise, has no later moment: see [`last_words`] and
//! [`write_stderr`](super::signal::write_stderr).

use std::collections::VecDeque;
use std::fmt;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::Location;
use std::sync::Condvar;
use std::sync::atomic::{AtomicU64, Ordering};

use super::inside::MutexGuard;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::SendFlags;

use super::fork::{Global, Order, fork_epoch};
use super::platform::os;
use super::socket::NO_SIGPIPE;
use super::thread;

/// How many lines of one kind are written in one [`WINDOW`].
const LINES: u32 = 32;
const WINDOW: Duration = Duration::from_secs(1);

/// The most bytes that wait to be written.
const MOST: usize = 256 * 1024;

/// How long the OS thread that writes stays without a line to write.
const IDLE: Duration = Duration::from_secs(10);

/// How long the end of the process waits for unwritten lines.
const PATIENCE: Duration = Duration::from_millis(200);

/// How many lines of one kind there were in the present window.
struct Kind {
    place: (String, u32),
    since: Instant,
    lines: u32,
    left_out: u64,
    /// The last line that was left out, cut short, as an example of them.
    like: String,
}

struct Reports {
    kinds: Vec<Kind>,
    waiting: VecDeque<String>,
    bytes: usize,
    /// How many lines found the queue full.
    dropped: u64,
    /// The process that has started the OS thread that writes, as a number of [`fork_epoch`]; `None` if there is none.
    writer: Option<u64>,
    /// Whether that thread is writing text that is no longer in the queue.
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
/// Signals that there is something to write now, or to report later.
static WORK: Condvar = Condvar::new();
/// Signals that all is written.
static DONE: Condvar = Condvar::new();
/// The kernel's number of the OS thread that writes.
static WRITER: AtomicU64 = AtomicU64::new(0);

/// Whether `thread` is the OS thread that writes. It never gives a hub something to do.
pub(crate) fn is_writer(thread: u64) -> bool {
    WRITER.load(Ordering::Acquire) == thread
}

/// Writes a line to stderr, without waiting. If stderr is broken, the line is lost: there is no other place to report
/// to.
#[track_caller]
pub(crate) fn complain(text: fmt::Arguments<'_>) {
    let at = Location::caller();
    let place = (at.file(), at.line());
    if !REPORTS.lock().may_tell(place, Instant::now()) {
        // Formatting runs the user's code, which must not run under the lock.
        let like = cut(text.to_string());
        REPORTS.lock().leave_out(place, like);
        return see_to_writer();
    }
    put(format!("greenthread: {text}\n"));
}

/// Writes `text` to stderr as it is. All texts from one place are of one kind.
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

/// The start of a text's first line, which is enough to recognise its kind.
fn cut(text: String) -> String {
    let line = text.trim().lines().next().unwrap_or_default();
    line.chars().take(80).collect()
}

/// Writes the last line of a process that is about to abort: here and now, after the lines that wait. It gives up if
/// stderr takes nothing for a moment.
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
                // A terminal, or a file on a disk. Block, as std does. Where a pipe cannot be told from them, see first
                // whether it has room; another writer may still take it.
                if os::CAN_WRITE_NOW || is_writable(stderr.as_fd(), PATIENCE) {
                    let _ = (&stderr).write_all(left);
                }
                return;
            }
            Err(_) => return,
        }
    }
}

impl Reports {
    /// Whether one more line of this kind may be written.
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

    /// Writes the line, or queues it. `false` if the OS thread that writes is needed.
    fn put(&mut self, line: String) -> bool {
        let mut left = line.as_bytes();
        // Only if no earlier line waits, so that lines keep their order.
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
        // A line that is longer than the limit is queued all the same if it is alone.
        if self.bytes + left.len() > MOST && !self.waiting.is_empty() {
            self.dropped += 1;
        } else {
            self.bytes += left.len();
            self.waiting.push_back(String::from_utf8_lossy(left).into_owned());
        }
        false
    }

    /// Reports how many lines were left out in the windows that are over, or in all. Returns when the next window ends.
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

    /// Takes all that waits, as one text.
    fn take(&mut self) -> String {
        let mut text: String = self.waiting.drain(..).collect();
        self.bytes = 0;
        let dropped = std::mem::take(&mut self.dropped);
        if dropped > 0 {
            text.push_str(&format!(
                "greenthread: {dropped} lines were left out, for stderr did not take them\n"
            ));
        }
        text
    }
}

impl Kind {
    /// Begins a new window. Returns the line that reports what was left out in the last one.
    fn next_window(&mut self, now: Instant) -> Option<String> {
        (self.since, self.lines) = (now, 0);
        let count = std::mem::take(&mut self.left_out);
        let like = std::mem::take(&mut self.like);
        (count > 0).then(|| format!("greenthread: {count} more of this kind were left out: {like}\n"))
    }
}

/// Why a line was not written at once.
enum Now {
    /// Stderr is full.
    Later,
    /// It cannot be told whether a write would block.
    CannotTell,
    Broken,
}

/// Writes as much as stderr takes without blocking.
fn write_now(stderr: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize, Now> {
    let written = match os::write_now(stderr, bytes) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::PERM | Errno::INVAL | Errno::SPIPE) => {
            match rustix::net::send(stderr, bytes, SendFlags::DONTWAIT | NO_SIGPIPE) {
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

/// Starts the OS thread that writes if there is none, and wakes it otherwise. To be called when there is something to
/// write, or to report later.
fn see_to_writer() {
    let mut reports = REPORTS.lock();
    if reports.writer == Some(fork_epoch()) {
        return WORK.notify_one();
    }
    // Set under the lock, so that two callers cannot start two OS threads.
    reports.writer = Some(fork_epoch());
    let first = !std::mem::replace(&mut reports.at_exit, true);
    drop(reports);
    if first {
        super::hooks::at_exit(&(flush as _));
    }
    if thread::start("greenthread-report", write_all).is_err() {
        REPORTS.lock().writer = None;
    }
}

/// The body of the OS thread that writes.
fn write_all() {
    WRITER.store(thread::id(), Ordering::Release);
    while let Some(text) = next_text() {
        write_patiently(text.as_bytes());
        REPORTS.lock().writing = false;
        DONE.notify_all();
    }
    // Another OS thread may be the writer by now; then leave its number alone.
    let _ = WRITER.compare_exchange(thread::id(), 0, Ordering::AcqRel, Ordering::Relaxed);
}

/// The next text to write. `None` if the OS thread has been idle for too long; it is the writer no more.
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

/// Writes all of `bytes`, however long that takes.
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

/// Gives unwritten lines a moment, because the process ends.
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

/// To be called in a forked child: the waiting lines are the parent's to write.
pub(crate) fn forget_all() {
    let mut reports = REPORTS.lock();
    reports.kinds.clear();
    reports.waiting.clear();
    (reports.bytes, reports.dropped) = (0, 0);
    (reports.writer, reports.writing) = (None, false);
    WRITER.store(0, Ordering::Release);
}
