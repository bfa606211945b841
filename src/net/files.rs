//! How many descriptors the process may have: the limit that servers meet first.
#![forbid(unsafe_code)]

use std::fmt;
use std::io;

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the number of descriptors that this process may have open (`RLIMIT_NOFILE`) to its hard limit.
///
/// Gives the new limit.
///
/// Each connection takes a descriptor, and most systems start a process with a soft limit of 1,024, for the sake of
/// `select`; the hard one is 4,096 to a million. Called once, at the start of `main`, by a server or a busy client.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// let most = greenthread::net::raise_open_files()?;
/// assert!(most >= 20, "{most}");
/// # Ok(())
/// # }
/// ```
///
/// Child processes inherit the limit: one that uses `select` on high numbers may need `ulimit -S -n 1024` in front.
/// Only root can raise the hard limit: `LimitNOFILE=` of systemd, `nofile` in `/etc/security/limits.conf`, `--ulimit`
/// of docker.
///
/// # Errors
/// The system's error.
///
/// # Coming from Python
/// `resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))`. Go does so by itself.
pub fn raise_open_files() -> io::Result<u64> {
    let limit = getrlimit(Resource::Nofile);
    let most = [limit.maximum, crate::sys::most_files()].into_iter().flatten().min();
    if limit.current.is_some_and(|soft| most.is_none_or(|most| soft < most)) {
        let current = most;
        setrlimit(Resource::Nofile, Rlimit { current, ..limit })?;
    }
    Ok(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX))
}

/// An error in words; if descriptors are short, also what can be done about it.
pub(crate) fn explained(error: &io::Error) -> impl fmt::Display {
    let help = match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::MFILE) => {
            let limit = getrlimit(Resource::Nofile);
            let [soft, hard] = [limit.current, limit.maximum].map(|limit| limit.unwrap_or(u64::MAX));
            let how = if soft < hard {
                format!("net::raise_open_files() or `ulimit -n {hard}` raises it to {hard}")
            } else {
                String::from("it is the hard limit too, which LimitNOFILE= of systemd or root raises")
            };
            format!("; this process may have {soft} descriptors: {how}")
        }
        Some(Errno::NFILE) => {
            String::from("; the whole system has no more: see /proc/sys/fs/file-max, or kern.maxfiles")
        }
        _ => String::new(),
    };
    format!("{error}{help}")
}
