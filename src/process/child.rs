//! A child, and the waits for its end.
#![forbid(unsafe_code)]

use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::process::{ExitStatus, Output};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use super::orphans;
use super::pipe::{ChildStderr, ChildStdin, ChildStdout};
use super::talk::{Pipes, Talk};
use crate::io::wait_readable;
use crate::sys::fork::fork_epoch;
use crate::threadpool::watch::watch;
use crate::time;

/// The longest pause between two checks of a child without a descriptor that reports its end.
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// The pause after `pause`. The first is none, so a child that has ended by then is seen at once.
fn longer(pause: Duration) -> Duration {
    (pause * 2).clamp(Duration::from_millis(1), LONGEST_PAUSE)
}

/// A child process; like std's, but its waits park.
///
/// ```
/// use std::io::{Read, Write};
/// use greenthread::process::{Command, Stdio};
///
/// # fn main() -> std::io::Result<()> {
/// let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
/// child.stdin.take().unwrap().write_all(b"meow")?; // and closed
/// let mut text = String::new();
/// child.stdout.take().unwrap().read_to_string(&mut text)?;
/// assert!(text == "meow" && child.wait()?.success());
/// # Ok(())
/// # }
/// ```
///
/// When dropped, it runs on, as std's does. A later spawn reaps it once it has ended, so the program should not
/// `waitpid` for it.
///
/// # Coming from Python
/// `gevent.subprocess.Popen`, `asyncio.subprocess.Process`.
#[derive(Debug)]
pub struct Child {
    /// Its standard input, if that is a pipe.
    pub stdin: Option<ChildStdin>,
    /// Its standard output, if that is a pipe.
    pub stdout: Option<ChildStdout>,
    /// Its standard error, if that is a pipe.
    pub stderr: Option<ChildStderr>,
    process: Process,
    /// A [`communicate`](Child::communicate) that has begun.
    talk: Option<Talk>,
}

/// The process itself, apart from the pipes, so that a user may move these out of a `Child`.
#[derive(Debug)]
struct Process {
    std: std::process::Child,
    end: End,
    /// The value of `fork_epoch` when this was made.
    fork_epoch: u64,
}

/// How the end of the process is noticed.
#[derive(Clone, Debug)]
enum End {
    /// Not decided: nothing has waited yet.
    Unknown,
    /// By a descriptor (a pidfd, or a kqueue) that becomes readable when the process ends.
    Told(Arc<OwnedFd>),
    /// By repeated calls of `waitpid`: there is no such descriptor, or the poller refuses it.
    Asked,
}

impl Process {
    fn pid(&self) -> Option<Pid> {
        Pid::from_raw(i32::try_from(self.std.id()).ok()?)
    }

    fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.std.try_wait()
    }

    /// How to wait for the end. To be called while the process is not reaped: its number cannot be another process's
    /// then.
    fn end(&mut self) -> End {
        if let End::Unknown = self.end {
            self.end = match self.pid().map(crate::sys::open_process) {
                Some(Ok(told)) => End::Told(Arc::new(told)),
                _ => End::Asked,
            };
        }
        self.end.clone()
    }

    /// After a wait for the descriptor. Where the system refused that wait, the process is asked from now on.
    fn was_told(&mut self, waited: io::Result<()>) -> io::Result<()> {
        match waited {
            Err(error) if error.raw_os_error().is_some() => self.end = End::Asked,
            waited => return waited,
        }
        Ok(())
    }

    /// `waitpid` decides, whatever the descriptor says: the event of a kqueue may come a moment before the system lets
    /// the process be waited for. So a pause follows an event, and the pauses grow.
    #[track_caller]
    fn wait_until(&mut self, deadline: Option<Instant>) -> io::Result<Option<ExitStatus>> {
        if let Some(status) = self.try_wait()? {
            return Ok(Some(status));
        }
        let mut pause = Duration::ZERO;
        loop {
            if let End::Told(told) = self.end() {
                let left = deadline.map(|deadline| deadline.saturating_duration_since(time::now()));
                match wait_readable(told, left) {
                    Err(error) if error.kind() == ErrorKind::TimedOut => return Ok(None),
                    waited => self.was_told(waited)?,
                }
            }
            let next = time::now() + pause;
            time::sleep_until(deadline.map_or(next, |deadline| deadline.min(next)));
            let status = self.try_wait()?;
            if status.is_some() || deadline.is_some_and(|deadline| deadline <= time::now()) {
                return Ok(status);
            }
            pause = longer(pause);
        }
    }

    async fn wait_async(&mut self) -> io::Result<ExitStatus> {
        let mut pause = Duration::ZERO;
        loop {
            if let Some(status) = self.try_wait()? {
                return Ok(status);
            }
            if let End::Told(told) = self.end() {
                let waited = watch(move || wait_readable(told, None))?.await;
                self.was_told(waited)?;
            }
            if pause > Duration::ZERO || matches!(self.end, End::Asked) {
                let pause = pause;
                watch(move || {
                    time::sleep(pause);
                    Ok(())
                })?
                .await?;
            }
            pause = longer(pause);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.fork_epoch != fork_epoch() {
            // A forked child does not inherit a kqueue: its number may be another file's there.
            std::mem::forget(std::mem::replace(&mut self.end, End::Unknown));
        }
        // std knows whether the child was reaped, by this crate or by std itself before it came here: then its number
        // may be another child's by now.
        if let (Ok(None), Some(pid)) = (self.std.try_wait(), self.pid()) {
            orphans::adopt(pid);
        }
    }
}

/// Takes std's child over.
impl From<std::process::Child> for Child {
    fn from(mut child: std::process::Child) -> Child {
        Child {
            stdin: child.stdin.take().map(ChildStdin::from),
            stdout: child.stdout.take().map(ChildStdout::from),
            stderr: child.stderr.take().map(ChildStderr::from),
            process: Process {
                std: child,
                end: End::Unknown,
                fork_epoch: fork_epoch(),
            },
            talk: None,
        }
    }
}

impl Child {
    /// Its process number.
    pub fn id(&self) -> u32 {
        self.process.std.id()
    }

    /// Waits for its end, with its standard input closed first, as in std. Once it has ended, every later wait gives
    /// the same.
    ///
    /// # Errors
    /// The system's error; `ECHILD` if it was waited for by other means, or SIGCHLD is ignored.
    ///
    /// # Blocking and cancellation
    /// Parks. A kill or time-out unwinds here and leaves the child alone: it can be waited for again.
    #[track_caller]
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        match self.wait_until(None)? {
            Some(status) => Ok(status),
            None => unreachable!("without a deadline, none can pass"),
        }
    }

    /// Waits for its end for at most `timeout`. `None`: it has not ended.
    ///
    /// ```
    /// use std::time::Duration;
    /// use greenthread::process::Command;
    /// # fn main() -> std::io::Result<()> {
    /// let mut child = Command::new("sleep").arg("60").spawn()?;
    /// assert!(child.wait_timeout(Duration::from_millis(5))?.is_none());
    /// child.kill()?;
    /// assert!(!child.wait()?.success());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    ///
    /// # Coming from Python
    /// `popen.wait(timeout)`, which raises `TimeoutExpired`.
    #[track_caller]
    pub fn wait_timeout(&mut self, timeout: Duration) -> io::Result<Option<ExitStatus>> {
        self.wait_until(time::after(timeout))
    }

    /// Waits for its end until `deadline`. `None`: it has not ended.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    #[track_caller]
    pub fn wait_deadline(&mut self, deadline: Instant) -> io::Result<Option<ExitStatus>> {
        self.wait_until(Some(deadline))
    }

    #[track_caller]
    fn wait_until(&mut self, deadline: Option<Instant>) -> io::Result<Option<ExitStatus>> {
        drop(self.stdin.take());
        self.process.wait_until(deadline)
    }

    /// Whether it has ended, and how. Its standard input stays open.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.process.try_wait()
    }

    /// Like [`wait`](Self::wait), for an `async` function on any executor. If it is dropped before it is ready, it
    /// waits no more, and the child can be waited for again.
    ///
    /// ```
    /// use greenthread::{future::block_on, process::Command};
    /// let mut child = Command::new("true").spawn().unwrap();
    /// assert!(block_on(child.wait_async()).unwrap().success());
    /// ```
    ///
    /// # Errors
    /// As [`wait`](Self::wait); what the system says if it cannot start the OS thread that waits for all such futures.
    pub fn wait_async(&mut self) -> impl Future<Output = io::Result<ExitStatus>> + Send + use<'_> {
        drop(self.stdin.take());
        self.process.wait_async()
    }

    /// Closes its standard input, reads its output and errors to their ends, and waits for its end.
    ///
    /// What is not a pipe is empty in the [`Output`].
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    ///
    /// # Blocking and cancellation
    /// As [`wait`](Self::wait); but what was read so far is lost with the child. [`communicate`](Self::communicate)
    /// keeps it.
    #[track_caller]
    pub fn wait_with_output(mut self) -> io::Result<Output> {
        drop(self.stdin.take());
        self.communicate(&[])
    }

    /// Writes `input` to its standard input and closes that, and waits for its end.
    ///
    /// Meanwhile it reads the child's output and errors to their ends.
    ///
    /// ```
    /// use greenthread::process::{Command, Stdio};
    /// # fn main() -> std::io::Result<()> {
    /// let mut sort = Command::new("sort").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    /// assert_eq!(sort.communicate(b"b\na\n")?.stdout, b"a\nb\n");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// A child that does not read all of it is no error. What is not a pipe is empty in the [`Output`].
    ///
    /// # Errors
    /// What the pipes and [`wait`](Self::wait) say. `InvalidInput` for an input when standard input is not a pipe, or
    /// when an earlier call was cut short: go on with an empty one.
    ///
    /// # Blocking and cancellation
    /// Parks. A kill or time-out unwinds here and leaves the child alone. Nothing is lost: the next call goes on with
    /// what is left of the input, and returns all of the output.
    ///
    /// # Coming from Python
    /// `popen.communicate(input)`.
    #[track_caller]
    pub fn communicate(&mut self, input: &[u8]) -> io::Result<Output> {
        match self.communicate_until(input, None)? {
            Some(output) => Ok(output),
            None => unreachable!("without a deadline, none can pass"),
        }
    }

    /// [`communicate`](Self::communicate)s for at most `timeout`.
    ///
    /// `None`: the child has not ended, and the next call (with an empty input) goes on from there. The pipes end when
    /// all that have them open close them, the child's own children too.
    ///
    /// ```
    /// use std::time::Duration;
    /// use greenthread::process::{Command, Stdio};
    /// # fn main() -> std::io::Result<()> {
    /// let mut shell = Command::new("sh");
    /// let mut child = shell.args(["-c", "echo one; sleep 0.1; echo two"]).stdout(Stdio::piped()).spawn()?;
    /// let output = loop {
    ///     if let Some(output) = child.communicate_timeout(&[], Duration::from_millis(10))? {
    ///         break output;
    ///     }
    ///     // Something else, or a `kill`.
    /// };
    /// assert_eq!(output.stdout, b"one\ntwo\n");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`communicate`](Self::communicate).
    #[track_caller]
    pub fn communicate_timeout(&mut self, input: &[u8], timeout: Duration) -> io::Result<Option<Output>> {
        self.communicate_until(input, time::after(timeout))
    }

    /// [`communicate`](Self::communicate)s until `deadline`; see [`communicate_timeout`](Self::communicate_timeout).
    ///
    /// # Errors
    /// As [`communicate`](Self::communicate).
    #[track_caller]
    pub fn communicate_deadline(&mut self, input: &[u8], deadline: Instant) -> io::Result<Option<Output>> {
        self.communicate_until(input, Some(deadline))
    }

    #[track_caller]
    fn communicate_until(&mut self, input: &[u8], deadline: Option<Instant>) -> io::Result<Option<Output>> {
        self.begin(input)?;
        let talk = self.talk.get_or_insert_default();
        let pipes = Pipes {
            stdin: &mut self.stdin,
            stdout: &mut self.stdout,
            stderr: &mut self.stderr,
        };
        if !talk.go_on(pipes, deadline)? {
            return Ok(None);
        }
        let Some(status) = self.process.wait_until(deadline)? else {
            return Ok(None);
        };
        let Talk { stdout, stderr, .. } = self.talk.take().unwrap_or_default();
        Ok(Some(Output { status, stdout, stderr }))
    }

    fn begin(&mut self, input: &[u8]) -> io::Result<()> {
        let refused = match (&self.talk, &self.stdin) {
            _ if input.is_empty() => None,
            (Some(_), _) => Some("it was given its input by an earlier call: pass an empty input now"),
            (None, None) => Some("its standard input is not a pipe, or was taken, so no input can be sent"),
            (None, Some(_)) => None,
        };
        if let Some(why) = refused {
            let text = format!("cannot communicate with child {}: {why}", self.id());
            return Err(io::Error::new(ErrorKind::InvalidInput, text));
        }
        if self.talk.is_none() {
            self.talk = Some(Talk {
                input: input.to_vec(),
                ..Talk::default()
            });
        }
        Ok(())
    }

    /// Ends it with SIGKILL. Nothing happens if it has ended; it still has to be waited for.
    ///
    /// # Errors
    /// As [`send_signal`](Self::send_signal).
    pub fn kill(&mut self) -> io::Result<()> {
        self.signal(Signal::KILL)
    }

    /// Asks it to end, with SIGTERM. Nothing happens if it has ended.
    ///
    /// # Errors
    /// As [`send_signal`](Self::send_signal).
    pub fn terminate(&mut self) -> io::Result<()> {
        self.signal(Signal::TERM)
    }

    /// Sends it a signal by its number, as those of [`signal`](crate::signal). Nothing happens if it has ended.
    ///
    /// # Errors
    /// `InvalidInput` if it is not the number of a signal with a name; what the system says.
    pub fn send_signal(&mut self, signal: i32) -> io::Result<()> {
        let Some(signal) = Signal::from_named_raw(signal) else {
            let text = format!("cannot send signal {signal}: no signal has this number");
            return Err(io::Error::new(ErrorKind::InvalidInput, text));
        };
        self.signal(signal)
    }

    fn signal(&mut self, signal: Signal) -> io::Result<()> {
        // Once the child is reaped, its number may be another process's.
        match (self.process.try_wait()?, self.process.pid()) {
            (None, Some(pid)) => Ok(rustix::process::kill_process(pid, signal)?),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    #[cfg(not(loom))]
    use std::os::fd::AsRawFd;

    use super::*;
    use crate::process::Command;

    /// A child without a descriptor that reports its end.
    fn asked(seconds: &str) -> Child {
        let mut child = Command::new("sleep").arg(seconds).spawn().unwrap();
        child.process.end = End::Asked;
        child
    }

    #[test]
    fn without_a_descriptor_it_is_asked_until_it_has_ended() {
        assert!(asked("0.1").wait().unwrap().success());
        assert!(crate::future::block_on(asked("0.1").wait_async()).unwrap().success());
        let mut child = asked("600");
        assert!(child.wait_timeout(Duration::from_millis(5)).unwrap().is_none());
        assert!(child.wait_deadline(time::now()).unwrap().is_none());
        let short = Duration::from_millis(5);
        assert!(time::timeout(short, || child.wait()).is_err());
        child.kill().unwrap();
        let ended = child.wait_timeout(Duration::from_secs(50)).unwrap();
        assert!(ended.is_some_and(|status| !status.success()));
        assert!(matches!(child.process.end, End::Asked));
    }

    /// A kqueue sends such an event: before the system lets the parent wait for the child.
    #[test]
    fn an_event_that_comes_too_early_is_no_end() {
        let told = |seconds| {
            let mut child = asked(seconds);
            let (always_readable, _) = std::io::pipe().unwrap();
            child.process.end = End::Told(Arc::new(always_readable.into()));
            child
        };
        assert!(told("0.1").wait().unwrap().success());
        assert!(crate::future::block_on(told("0.1").wait_async()).unwrap().success());
        let mut child = told("600");
        assert!(child.wait_timeout(Duration::from_millis(5)).unwrap().is_none());
        let other = crate::spawn(|| time::sleep(Duration::from_millis(20)));
        assert!(child.wait_timeout(Duration::from_millis(100)).unwrap().is_none());
        assert!(other.is_finished());
        child.kill().unwrap();
        assert!(!child.wait().unwrap().success());
    }

    #[test]
    fn where_the_poller_does_not_take_the_descriptor_it_is_asked() {
        let mut child = Command::new("sleep").arg("0.1").spawn().unwrap();
        let refused = io::Error::from(rustix::io::Errno::INVAL);
        assert!(matches!(child.process.end(), End::Told(_)));
        child.process.was_told(Err(refused)).unwrap();
        assert!(matches!(child.process.end(), End::Asked));
        assert!(child.wait().unwrap().success());
        let unwinds = io::Error::other("the caller is unwinding");
        assert!(child.process.was_told(Err(unwinds)).is_err());
    }

    #[cfg(not(loom))]
    #[test]
    fn a_forked_child_does_not_close_what_may_be_another_file_there() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let End::Told(told) = child.process.end() else {
            panic!("it has no descriptor");
        };
        let path = format!("/proc/self/fd/{}", told.as_raw_fd());
        drop(told);
        let mut child = Some(child);
        let stays = || {
            drop(child.take());
            std::fs::exists(&path).unwrap()
        };
        let status = crate::sys::fork::tests::in_child(stays);
        let mut child = child.expect("it was taken in the forked child");
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(status, 0);
    }
}
