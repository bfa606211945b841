//! Scenarios, each in a process of its own, with a time limit.

use std::io::Read;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use crate::{Verdict, argument, ms, os};

/// A name, and what panics if something is wrong.
pub type Case = (&'static str, fn());

/// Runs each scenario in a child process; the one that is named in the first argument in this process.
pub fn main(cases: &[Case]) -> ExitCode {
    if let Some(name) = argument(1) {
        let case = cases.iter().find(|case| case.0 == name).expect("no such scenario");
        (case.1)();
        return ExitCode::SUCCESS;
    }
    let limit = std::env::var("LIMIT").ok().and_then(|limit| limit.parse().ok());
    let limit = Duration::from_secs(limit.unwrap_or(30));
    let mut verdict = Verdict::default();
    for (name, _) in cases {
        match in_a_child(name, limit) {
            Ok(()) => verdict.holds(true, name),
            Err(text) => verdict.holds(false, format_args!("{name}: {text}")),
        }
    }
    verdict.end()
}

/// Runs this program anew with one argument; an error is how it ended, and the first lines of its stderr.
fn in_a_child(name: &str, limit: Duration) -> Result<(), String> {
    let this = std::env::current_exe().expect("a path");
    let mut command = Command::new(this);
    command.arg(name).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("a process");
    let mut errors = child.stderr.take().expect("a pipe");
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        let _ = errors.read_to_end(&mut text);
        String::from_utf8_lossy(&text).into_owned()
    });
    if !ends_within(&mut child, limit) {
        return Err(format!("not done after {limit:?}"));
    }
    let status = child.wait().expect("a child");
    if status.success() {
        return Ok(());
    }
    let text = reader.join().expect("no panic");
    let lines: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).take(6).collect();
    Err(format!("{status}: {}", lines.join(" | ")))
}

/// Waits for the child; kills it if it takes too long.
pub fn ends_within(child: &mut Child, limit: Duration) -> bool {
    let start = Instant::now();
    while child.try_wait().expect("a child").is_none() {
        if start.elapsed() > limit {
            child.kill().expect("a child");
            child.wait().expect("a child");
            return false;
        }
        os::sleep(ms(2));
    }
    true
}
