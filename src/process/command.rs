//! What to run, and how.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::fmt;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::process::{ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use super::child::Child;
use super::orphans;
use crate::time;

/// A program to be run as a child process; like std's, but its waits park.
///
/// ```
/// use greenthread::process::Command;
/// # fn main() -> std::io::Result<()> {
/// let status = Command::new("sh").args(["-c", "exit 7"]).env("LANG", "C").status()?;
/// assert_eq!(status.code(), Some(7));
/// # Ok(())
/// # }
/// ```
///
/// The rest of std's (`get_args`, `CommandExt`'s `uid`, `process_group`, `pre_exec`) is behind
/// [`as_std_mut`](Self::as_std_mut). Or build the command with std, and then take it over: `Command::from(std)`.
///
/// # Coming from Python
/// The arguments of `subprocess.Popen`; [`output`](Self::output) is `subprocess.run(.., capture_output=True)`.
pub struct Command {
    std: std::process::Command,
    /// Whether standard input, output and errors were set.
    said: [bool; 3],
}

/// Takes std's over.
impl From<std::process::Command> for Command {
    fn from(std: std::process::Command) -> Command {
        Command { std, said: [false; 3] }
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.std.fmt(f)
    }
}

impl Command {
    /// A program by its path, or by its name, which is looked for in `PATH`.
    pub fn new(program: impl AsRef<OsStr>) -> Command {
        Command::from(std::process::Command::new(program))
    }

    /// Adds an argument.
    pub fn arg(&mut self, arg: impl AsRef<OsStr>) -> &mut Command {
        self.std.arg(arg);
        self
    }

    /// Adds arguments.
    pub fn args<I, S>(&mut self, args: I) -> &mut Command
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        self.std.args(args);
        self
    }

    /// Sets a variable of its environment.
    pub fn env(&mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> &mut Command {
        self.std.env(key, value);
        self
    }

    /// Sets variables of its environment.
    pub fn envs<I, K, V>(&mut self, variables: I) -> &mut Command
    where
        I: IntoIterator<Item = (K, V)>,
        K: AsRef<OsStr>,
        V: AsRef<OsStr>,
    {
        self.std.envs(variables);
        self
    }

    /// Removes a variable from its environment.
    pub fn env_remove(&mut self, key: impl AsRef<OsStr>) -> &mut Command {
        self.std.env_remove(key);
        self
    }

    /// Removes the whole environment, except for what is set from now on.
    pub fn env_clear(&mut self) -> &mut Command {
        self.std.env_clear();
        self
    }

    /// Where it works.
    pub fn current_dir(&mut self, directory: impl AsRef<Path>) -> &mut Command {
        self.std.current_dir(directory);
        self
    }

    /// Its standard input; if not set, that of this process, and for [`output`](Self::output) none.
    pub fn stdin(&mut self, stdin: impl Into<Stdio>) -> &mut Command {
        self.std.stdin(stdin);
        self.said[0] = true;
        self
    }

    /// Its standard output; if not set, that of this process, and for [`output`](Self::output) a pipe.
    pub fn stdout(&mut self, stdout: impl Into<Stdio>) -> &mut Command {
        self.std.stdout(stdout);
        self.said[1] = true;
        self
    }

    /// Its standard errors; if not set, those of this process, and for [`output`](Self::output) a pipe.
    pub fn stderr(&mut self, stderr: impl Into<Stdio>) -> &mut Command {
        self.std.stderr(stderr);
        self.said[2] = true;
        self
    }

    /// std's command.
    pub fn as_std(&self) -> &std::process::Command {
        &self.std
    }

    /// std's command, for the settings that are not here.
    ///
    /// Set the three standard descriptors here all the same: std does not tell whether they were set, and
    /// [`output`](Self::output) must know.
    pub fn as_std_mut(&mut self) -> &mut std::process::Command {
        &mut self.std
    }

    /// Starts it.
    ///
    /// # Errors
    /// The system's error; `NotFound` if there is no such program.
    ///
    /// # Blocking and cancellation
    /// Does not park. It blocks the OS thread while the system starts the program (usually a tenth of a millisecond),
    /// and cannot be killed half-way. It does not run on the thread pool, because a child with `PR_SET_PDEATHSIG` dies
    /// with the OS thread that started it. If the program is on a disk that may hang, spawn in
    /// [`unblock`](crate::threadpool::unblock).
    pub fn spawn(&mut self) -> io::Result<Child> {
        orphans::reap();
        self.std.spawn().map(Child::from)
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// As [`spawn`](Self::spawn) and [`Child::wait`].
    ///
    /// # Blocking and cancellation
    /// Parks. A kill or time-out unwinds here, and the child is killed.
    #[track_caller]
    pub fn status(&mut self) -> io::Result<ExitStatus> {
        Leash(self.spawn()?).0.wait()
    }

    /// Runs it to its end, and gives what it wrote.
    ///
    /// # Errors
    /// As [`spawn`](Self::spawn) and [`Child::wait_with_output`].
    ///
    /// # Blocking and cancellation
    /// Parks. A kill or time-out unwinds here, and the child is killed.
    #[track_caller]
    pub fn output(&mut self) -> io::Result<Output> {
        self.spawn_piped()?.0.communicate(&[])
    }

    /// [`output`](Self::output) within `timeout`; after that the child is killed, but not the processes that it has
    /// started.
    ///
    /// ```
    /// use std::{io::ErrorKind, time::Duration};
    /// use greenthread::process::Command;
    /// let late = Command::new("sleep").arg("60").output_timeout(Duration::from_millis(5));
    /// assert_eq!(late.unwrap_err().kind(), ErrorKind::TimedOut);
    /// ```
    ///
    /// What it wrote until then is lost; [`Child::communicate_timeout`] keeps it.
    ///
    /// # Errors
    /// `TimedOut`; else as [`output`](Self::output).
    ///
    /// # Coming from Python
    /// `subprocess.run(.., timeout=seconds)`.
    #[track_caller]
    pub fn output_timeout(&mut self, timeout: Duration) -> io::Result<Output> {
        self.output_until(time::after(timeout))
    }

    /// [`output`](Self::output) until `deadline`; after that the child is killed.
    ///
    /// # Errors
    /// As [`output_timeout`](Self::output_timeout).
    #[track_caller]
    pub fn output_deadline(&mut self, deadline: Instant) -> io::Result<Output> {
        self.output_until(Some(deadline))
    }

    #[track_caller]
    fn output_until(&mut self, deadline: Option<Instant>) -> io::Result<Output> {
        let mut child = self.spawn_piped()?;
        let output = match deadline {
            Some(deadline) => child.0.communicate_deadline(&[], deadline)?,
            None => Some(child.0.communicate(&[])?),
        };
        if let Some(output) = output {
            return Ok(output);
        }
        child.0.kill()?;
        child.0.wait()?;
        let text = format!(
            "child {} ({:?}) did not end in time, and was killed",
            child.0.id(),
            self.std
        );
        Err(io::Error::new(ErrorKind::TimedOut, text))
    }

    /// Starts it for `output`.
    fn spawn_piped(&mut self) -> io::Result<Leash> {
        let [stdin, stdout, stderr] = self.said;
        let pipes = |std: &mut std::process::Command, input: fn() -> Stdio, output: fn() -> Stdio| {
            if !stdin {
                std.stdin(input());
            }
            if !stdout {
                std.stdout(output());
            }
            if !stderr {
                std.stderr(output());
            }
        };
        pipes(&mut self.std, Stdio::null, Stdio::piped);
        let child = self.spawn();
        // Undo it for the next `spawn`.
        pipes(&mut self.std, Stdio::inherit, Stdio::inherit);
        child.map(Leash)
    }
}

/// A child that only this can reach: it is killed when this is dropped.
struct Leash(Child);

impl Drop for Leash {
    fn drop(&mut self) {
        // Fails if the child has ended and was reaped by other means.
        let _ = self.0.kill();
    }
}
