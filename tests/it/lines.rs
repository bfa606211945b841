//! What the tests of examples share: to run one, and to read its lines.

use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// Runs one; what came of it, its lines, and how long it took.
pub(crate) fn run(binary: impl AsRef<Path>, args: &[&str]) -> (Output, Vec<String>, Duration) {
    let start = Instant::now();
    let output = Command::new(binary.as_ref()).args(args).output().unwrap();
    let lines = String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(String::from)
        .collect();
    (output, lines, start.elapsed())
}

/// Runs one that must succeed within these bounds.
pub(crate) fn prints(binary: impl AsRef<Path>, args: &[&str], at_least: Duration, at_most: Duration) -> Vec<String> {
    let (output, lines, took) = run(binary, args);
    assert!(output.status.success(), "{output:?}");
    assert!((at_least..at_most).contains(&took), "took {took:?}: {lines:?}");
    lines
}

/// The seconds at the end of the line that begins with `what` and a colon.
pub(crate) fn seconds(lines: &[String], what: &str) -> f64 {
    let line = lines
        .iter()
        .find_map(|line| line.strip_prefix(what)?.strip_prefix(": "));
    let seconds = line.and_then(|line| line.strip_suffix(" s")?.parse().ok());
    seconds.unwrap_or_else(|| panic!("{what}: {lines:?}"))
}

/// That it took as long as when all wait at once, and not as when each waits for the one before it.
pub(crate) fn took(lines: &[String], what: &str, at_once: f64, in_turn: f64) {
    let seconds = seconds(lines, what);
    assert!(
        seconds >= at_once && seconds < (at_once + in_turn) / 2.0,
        "{what}: {seconds} s"
    );
}

/// The lines that begin like this, without that.
pub(crate) fn begin<'a>(lines: &'a [String], with: &str) -> Vec<&'a str> {
    lines.iter().filter_map(|line| line.strip_prefix(with)).collect()
}

/// Runs one that has no `async` face yet.
pub(crate) fn refuses_async(binary: impl AsRef<Path>) {
    let (output, lines, _) = run(binary, &["async"]);
    assert_eq!((output.status.code(), lines.len()), (Some(2), 0));
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("not yet"),
        "{output:?}"
    );
}
