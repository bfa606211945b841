//! The worker's side: one socket, which comes as standard input.
//!
//! ```text
//!   reader (an OS thread): frames ─► main: runs one, writes its reply
//!   reader, at the end:    no job? main ends. A job? its parent died, and the result is not wanted: the process is killed
//! ```
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::exit;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use rustix::process::{Signal, getpid, kill_process};

use super::{Function, Reply, roll};

/// The end of a worker's own name, its zeroth argument: the worker's own children do not inherit that, as they would a
/// variable of the environment.
pub(super) const MARK: &str = " (greenthread worker)";

const VALUE: u8 = 0;
const PANIC: u8 = 1;
const ENCODING: u8 = 2;

pub(super) fn is_worker() -> bool {
    let name = std::env::args_os().next().unwrap_or_default();
    name.as_encoded_bytes().ends_with(MARK.as_bytes())
}

/// Writes a frame: a length, and that many bytes.
pub(super) fn write_frame(to: &mut impl Write, parts: &[&[u8]]) -> io::Result<()> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut frame = Vec::with_capacity(8 + length);
    frame.extend((length as u64).to_le_bytes());
    parts.iter().for_each(|part| frame.extend_from_slice(part));
    to.write_all(&frame)
}

pub(super) fn read_frame(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut length = [0; 8];
    from.read_exact(&mut length)?;
    let length = u64::from_le_bytes(length);
    let mut frame = Vec::new();
    // Grow with what arrives: the length may be wrong, so do not reserve that much.
    if from.take(length).read_to_end(&mut frame)? as u64 == length {
        Ok(frame)
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

impl Reply {
    fn parts(&self) -> (u8, &[u8]) {
        match self {
            Reply::Value(bytes) => (VALUE, bytes),
            Reply::Panic(text) => (PANIC, text.as_bytes()),
            Reply::Encoding(text) => (ENCODING, text.as_bytes()),
        }
    }

    pub(super) fn parse(mut frame: Vec<u8>) -> io::Result<Reply> {
        let text = |frame: &[u8]| String::from_utf8_lossy(&frame[1..]).into_owned();
        match frame.first() {
            Some(&VALUE) => {
                frame.remove(0);
                Ok(Reply::Value(frame))
            }
            Some(&PANIC) => Ok(Reply::Panic(text(&frame))),
            Some(&ENCODING) => Ok(Reply::Encoding(text(&frame))),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

/// What a worker process does from now on.
pub(super) fn serve(all: &[Function]) -> ! {
    let code = match work(all) {
        Ok(()) => 0,
        // The parent has closed the socket: nothing is left to do.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => 0,
        Err(error) => {
            crate::hub::complain(format_args!(
                "a worker process ends, for the socket to its parent failed: {error}"
            ));
            1
        }
    };
    exit(code)
}

fn work(all: &[Function]) -> io::Result<()> {
    let mut socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    write_frame(&mut socket, &[&roll(all)])?;
    let (sender, jobs) = mpsc::channel();
    let under_way = Arc::new(AtomicUsize::new(0));
    let (mut theirs, count) = (socket.try_clone()?, under_way.clone());
    crate::sys::thread::start("greenthread-worker", move || {
        while let Ok(job) = read_frame(&mut theirs) {
            count.fetch_add(1, Ordering::SeqCst);
            if sender.send(job).is_err() {
                return;
            }
        }
        if count.load(Ordering::SeqCst) > 0 {
            let _ = kill_process(getpid(), Signal::KILL);
        }
    })?;
    for job in jobs {
        let Some((number, argument)) = job.split_first_chunk() else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let Some(function) = all.get(u32::from_le_bytes(*number) as usize) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let reply = (function.run)(argument);
        // Count it as done before the reply is sent: the parent may close the socket as soon as it has the reply, and
        // the reader must then not kill the process.
        under_way.fetch_sub(1, Ordering::SeqCst);
        let (kind, body) = reply.parts();
        write_frame(&mut socket, &[&[kind], body])?;
    }
    Ok(())
}
