//! Child processes, with std's names. Where std's would block the OS thread, these park the green thread.
//!
//! ```
//! use greenthread::process::Command;
//!
//! # fn main() -> std::io::Result<()> {
//! let output = Command::new("echo").arg("hello").output()?; // other green threads run meanwhile
//! assert_eq!(output.stdout, b"hello\n");
//! # Ok(())
//! # }
//! ```
//!
//! # What differs from std
//! - **A child that is dropped** is left alone, as std leaves it, but does not stay a zombie: the next
//!   [`spawn`](Command::spawn) reaps those that have ended since.
//! - **`output` and `status`** of a caller that is killed or timed out kill the child: nothing else could reach it.
//! - **Pipes** are in non-blocking mode at this end, and in blocking mode at the child's. All are closed on `exec`.
//! - More than std has: [`wait_timeout`](Child::wait_timeout), [`communicate`](Child::communicate),
//!   [`send_signal`](Child::send_signal), [`output_timeout`](Command::output_timeout),
//!   [`wait_async`](Child::wait_async).
//!
//! A pidfd (on Linux) or a kqueue (elsewhere) signals the end of a child, so no handler for SIGCHLD is installed. If
//! there is none (Linux before 5.3, no descriptor left), the child is checked repeatedly, at first often and later
//! every 50 ms.
//!
//! # Coming from Python
//! `gevent.subprocess`, `asyncio.create_subprocess_exec`.
#![forbid(unsafe_code)]

mod child;
mod command;
mod orphans;
mod pipe;
mod talk;

pub use std::process::{ExitStatus, Output, Stdio};

pub use child::Child;
pub use command::Command;
pub use pipe::{ChildStderr, ChildStdin, ChildStdout};
