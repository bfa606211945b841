//! A conversation with a child: its input is written and its output read at once, so that neither waits for the other.
//!
//! What was written and read so far is kept with the child, whatever cuts a call short: the next call goes on from
//! there.
#![forbid(unsafe_code)]

use std::io::{self, ErrorKind};
use std::time::Instant;

use super::pipe::{ChildStderr, ChildStdin, ChildStdout, ReadBefore};
use crate::thread::{self, Builder, Scope, ScopedJoinHandle, Thread};
use crate::time;

/// As much as a pipe holds.
const CHUNK: usize = 64 * 1024;

/// How far the conversation has come.
#[derive(Debug, Default)]
pub(super) struct Talk {
    pub(super) input: Vec<u8>,
    pub(super) written: usize,
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: Vec<u8>,
}

/// A child's pipes. Each is dropped when its part is over.
pub(super) struct Pipes<'a> {
    pub(super) stdin: &'a mut Option<ChildStdin>,
    pub(super) stdout: &'a mut Option<ChildStdout>,
    pub(super) stderr: &'a mut Option<ChildStderr>,
}

impl Talk {
    /// Goes on until all is written and read, or until `deadline`; returns whether all is.
    #[track_caller]
    pub(super) fn go_on(&mut self, pipes: Pipes<'_>, deadline: Option<Instant>) -> io::Result<bool> {
        let Pipes { stdin, stdout, stderr } = pipes;
        let Talk { input, written, .. } = self;
        let (out, err) = (&mut self.stdout, &mut self.stderr);
        thread::scope(|scope| {
            // The caller reads the output; two helpers write the input and read the errors, if there are such pipes.
            let write = match stdin {
                Some(_) => Some(Helper::new(scope, move || feed(stdin, input, written, deadline))?),
                None => None,
            };
            let read = match stderr {
                Some(_) => Some(Helper::new(scope, move || drain(stderr, err, deadline))?),
                None => None,
            };
            let mut done = drain(stdout, out, deadline)?;
            for helper in [write, read].into_iter().flatten() {
                done &= helper.join()?;
            }
            Ok(done)
        })
    }
}

/// A green thread for the input or the errors. The scope waits for it in any case, so it is killed if the caller leaves
/// early.
struct Helper<'scope> {
    handle: ScopedJoinHandle<'scope, io::Result<bool>>,
    killer: Killer,
}

struct Killer(Thread);

impl Drop for Killer {
    fn drop(&mut self) {
        self.0.kill();
    }
}

impl<'scope> Helper<'scope> {
    fn new<F>(scope: &'scope Scope<'scope, '_>, f: F) -> io::Result<Helper<'scope>>
    where
        F: FnOnce() -> io::Result<bool> + Send + 'scope,
    {
        let handle = Builder::new().spawn_scoped(scope, f)?;
        let killer = Killer(handle.thread());
        Ok(Helper { handle, killer })
    }

    #[track_caller]
    fn join(self) -> io::Result<bool> {
        let Helper {
            handle,
            killer: _killer,
        } = self;
        handle
            .join()
            .unwrap_or_else(|error| Err(io::Error::other(error.to_string())))
    }
}

fn has_passed(deadline: Option<Instant>) -> bool {
    deadline.is_some_and(|deadline| deadline <= time::now())
}

/// Writes the rest of `input` and closes the pipe; returns whether it was all written.
#[track_caller]
fn feed(
    pipe: &mut Option<ChildStdin>,
    input: &[u8],
    written: &mut usize,
    deadline: Option<Instant>,
) -> io::Result<bool> {
    while let Some(stdin) = pipe.as_ref().filter(|_| *written < input.len()) {
        match stdin.write_before(deadline, &input[*written..]) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => *written += count,
            // The child has closed its input, as it may: that is no error. Its exit status tells the rest.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => break,
            Err(error) if error.kind() == ErrorKind::TimedOut && has_passed(deadline) => return Ok(false),
            Err(error) => return Err(error),
        }
        if *written < input.len() && has_passed(deadline) {
            return Ok(false);
        }
        // If the child is as quick as this loop, no write ever parks: let others run.
        thread::yield_now();
    }
    *written = input.len();
    *pipe = None;
    Ok(true)
}

/// Reads to the end and closes the pipe; returns whether the end was reached.
#[track_caller]
fn drain<P: ReadBefore>(pipe: &mut Option<P>, into: &mut Vec<u8>, deadline: Option<Instant>) -> io::Result<bool> {
    if pipe.is_none() {
        return Ok(true);
    }
    let mut chunk = vec![0; CHUNK];
    while let Some(output) = pipe {
        match output.read_before(deadline, &mut chunk) {
            Ok(0) => *pipe = None,
            Ok(count) => into.extend_from_slice(&chunk[..count]),
            Err(error) if error.kind() == ErrorKind::TimedOut && has_passed(deadline) => return Ok(false),
            Err(error) => return Err(error),
        }
        if pipe.is_some() && has_passed(deadline) {
            return Ok(false);
        }
        thread::yield_now();
    }
    Ok(true)
}
