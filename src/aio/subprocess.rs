//! Child processes.
#![forbid(unsafe_code)]

use std::ffi::OsStr;

use crate::process::Command;

/// A child process that is not started yet: `create_subprocess_exec(program, *args)` is
/// `Command::new(program).args(args).spawn()`.
///
/// ```
/// use greenthread::{aio, process::Stdio};
///
/// # fn main() -> std::io::Result<()> {
/// let mut cat = aio::create_subprocess_exec("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
/// assert_eq!(cat.communicate(b"meow")?.stdout, b"meow");
/// # Ok(())
/// # }
/// ```
///
/// # Coming from Python
/// `asyncio.create_subprocess_exec`.
pub fn create_subprocess_exec(program: impl AsRef<OsStr>) -> Command {
    Command::new(program)
}

/// A child process, not started yet, that runs a line of the shell.
///
/// ```
/// use greenthread::aio;
///
/// # fn main() -> std::io::Result<()> {
/// assert_eq!(aio::create_subprocess_shell("echo $((6 * 7))").output()?.stdout, b"42\n");
/// # Ok(())
/// # }
/// ```
///
/// # Coming from Python
/// `asyncio.create_subprocess_shell`.
pub fn create_subprocess_shell(line: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(line);
    command
}
