//! The parent's side of one worker process.
//!
//! It belongs to one OS thread of the pool, which waits for nothing else and runs no green threads; so it waits as an
//! OS thread does. It waits for the socket and for the process: when a worker has died, a process that it forked may
//! still have its end of the socket open.
#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::ffi::{OsStr, OsString};
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::worker::{MARK, read_frame, write_frame};
use super::{Reply, Workers};
use crate::threadpool::JobError;

/// How long a worker may take to reach `serve`.
const START: Duration = Duration::from_secs(60);
/// How long a worker that is to end may take.
const END: Duration = Duration::from_secs(5);
/// The pause between two looks at a worker without a descriptor that reports its end.
const ASK: Duration = Duration::from_millis(50);

/// What the links of a pool have in common.
pub(super) struct Plan {
    pub(super) workers: Workers,
    pub(super) args: Vec<OsString>,
    pub(super) max_tasks: usize,
}

struct Link {
    child: Child,
    socket: UnixStream,
    /// Readable when the process has ended, where the system has such a thing.
    process: Option<OwnedFd>,
    deadline: Option<Instant>,
    tasks: usize,
}

thread_local! {
    static LINK: RefCell<Option<Link>> = const { RefCell::new(None) };
}

/// Has this OS thread's worker run a function, and starts one if there is none.
pub(super) fn call(plan: &Plan, number: u32, argument: &[u8]) -> Result<Reply, JobError> {
    LINK.with_borrow_mut(|place| {
        if let Some(spent) = place.take_if(|link| link.is_spent(plan)) {
            spent.end();
        }
        let link = match place {
            Some(link) => link,
            None => place.insert(Link::start(plan)?),
        };
        match link.round(number, argument) {
            Ok(reply) => {
                link.tasks += 1;
                if link.tasks >= plan.max_tasks {
                    // No more jobs for it: let it end now. The next call, or the end of this OS thread, waits for that.
                    let _ = link.socket.shutdown(Shutdown::Write);
                }
                Ok(reply)
            }
            Err(error) => {
                let how = place.take().map_or_else(String::new, |link| link.bury(&error));
                let name = plan.workers.name(number);
                Err(JobError::broken(format!("{how} while it ran {name}")))
            }
        }
    })
}

/// Ends this OS thread's worker, if it has one.
pub(super) fn end() {
    if let Some(link) = LINK.take() {
        link.end();
    }
}

impl Link {
    fn start(plan: &Plan) -> Result<Link, JobError> {
        let mut link = Link::spawn(plan)
            .map_err(|error| JobError::broken(format!("its process could not be started: {error}")))?;
        link.deadline = Instant::now().checked_add(START);
        let roll = match read_frame(&mut link) {
            Ok(roll) => roll,
            Err(error) => {
                let how = link.bury(&error);
                return Err(JobError::broken(format!(
                    "{how} before it called Functions::serve: main must call that before anything else"
                )));
            }
        };
        link.deadline = None;
        if roll == plan.workers.roll() {
            return Ok(link);
        }
        link.end();
        Err(JobError::broken(
            "its functions are not those of its parent: main must register the same ones in every process",
        ))
    }

    fn spawn(plan: &Plan) -> io::Result<Link> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let program = std::env::current_exe()?;
        let mut name = program.file_name().map_or_else(OsString::new, OsStr::to_os_string);
        name.push(MARK);
        let mut command = Command::new(program);
        command.arg0(name).args(&plan.args).stdin(OwnedFd::from(theirs));
        let child = command.spawn()?;
        let process = process_of(&child);
        Ok(Link {
            child,
            socket: ours,
            process,
            deadline: None,
            tasks: 0,
        })
    }

    /// Whether it takes no more jobs, or has ended since the last.
    fn is_spent(&mut self, plan: &Plan) -> bool {
        self.tasks >= plan.max_tasks || !self.lives()
    }

    fn round(&mut self, number: u32, argument: &[u8]) -> io::Result<Reply> {
        write_frame(self, &[&number.to_le_bytes(), argument])?;
        Reply::parse(read_frame(self)?)
    }

    /// Waits until the socket may be used; `false` if the process has ended first.
    fn wait(&mut self, wanted: PollFlags) -> io::Result<bool> {
        loop {
            let limit = self.deadline.map(|at| at.saturating_duration_since(Instant::now()));
            // Without a descriptor that reports the end of the process, this loop asks for the end now and then.
            let asks = self.process.is_none();
            let has_ended = asks && !self.lives();
            let pause = match limit {
                _ if has_ended => Some(Duration::ZERO),
                limit if asks => Some(limit.map_or(ASK, |limit| limit.min(ASK))),
                limit => limit,
            };
            let mut both = vec![PollFd::new(&self.socket, wanted)];
            both.extend(self.process.as_ref().map(|process| PollFd::new(process, PollFlags::IN)));
            return match poll(&mut both, pause.map(timespec).as_ref()) {
                Ok(0) if has_ended => Ok(false),
                Ok(0) if asks && limit.is_none_or(|limit| !limit.is_zero()) => continue,
                Ok(0) => Err(ErrorKind::TimedOut.into()),
                Ok(_) if !both[0].revents().is_empty() => Ok(true),
                // The process has ended, maybe after the look at the socket: its last bytes may have come in between.
                Ok(_) => Ok(!matches!(poll(&mut both[..1], Some(&timespec(Duration::ZERO))), Ok(0))),
                // Report it as ready: the caller then tries again.
                Err(rustix::io::Errno::INTR) => Ok(true),
                Err(error) => Err(error.into()),
            };
        }
    }

    fn lives(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for the end of a worker that has failed, and says how it ended.
    fn bury(mut self, error: &io::Error) -> String {
        let id = self.child.id();
        let lives = self.lives() && !self.has_ended(Duration::from_millis(100));
        let _ = self.child.kill();
        match self.child.wait() {
            Ok(status) if !lives => format!("process {id} ended ({status})"),
            Ok(_) if error.kind() == ErrorKind::TimedOut => format!("process {id} did not answer in time"),
            _ => format!("process {id} gave no valid answer ({error})"),
        }
    }

    fn has_ended(&mut self, within: Duration) -> bool {
        if let Some(process) = &self.process {
            let mut one = [PollFd::new(process, PollFlags::IN)];
            return matches!(poll(&mut one, Some(&timespec(within))), Ok(1..));
        }
        let until = Instant::now() + within;
        while self.lives() {
            if Instant::now() >= until {
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        true
    }

    /// Has the process end, and waits for that.
    fn end(mut self) {
        let _ = self.socket.shutdown(Shutdown::Write);
        if !self.has_ended(END) {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: duration.subsec_nanos().into(),
    }
}

fn process_of(child: &Child) -> Option<OwnedFd> {
    crate::sys::open_process(rustix::process::Pid::from_child(child)).ok()
}

impl Read for Link {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.socket.read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if !self.wait(PollFlags::IN)? {
                        return Ok(0);
                    }
                }
                result => return result,
            }
        }
    }
}

impl Write for Link {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.socket.write(bytes) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if !self.wait(PollFlags::OUT)? {
                        return Err(ErrorKind::BrokenPipe.into());
                    }
                }
                result => return result,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
