//! What the tests of examples share: to run one, to read its lines, and to hold them against what `examples/README.md`
//! shows.
//!
//! A `console` block there is a command and what it prints. `…` is any text, and alone on a line any lines. What
//! follows ` # ` is said about the line: of the command `or NAME` (an argument with which it prints the same), `exit
//! code 1` (then it is stderr that is shown), `at once`, `12 s`, `2.0 s, not 10`, `1.0 s and a server's start`; of a
//! line `in any order` (with its neighbours of which the same is said), `3 times or more` (anywhere), `99 lines in
//! all`, `under 0.1 s`, `not 6 s`. A time is *not early, and under the midpoint* between that of waiting together and
//! that of waiting in turn.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Runs one; what came of it, its lines, and how long it took.
pub(crate) fn run(binary: impl AsRef<Path>, args: &[&str]) -> (Output, Vec<String>, Duration) {
    let start = Instant::now();
    // To print a backtrace takes longer than debug mode has patience.
    let mut command = Command::new(binary.as_ref());
    let output = command.args(args).env_remove("RUST_BACKTRACE").output().unwrap();
    let lines = lines_of(&output.stdout);
    (output, lines, start.elapsed())
}

fn lines_of(bytes: &[u8]) -> Vec<String> {
    String::from_utf8_lossy(bytes).lines().map(String::from).collect()
}

/// Runs one that must succeed within these bounds.
#[allow(dead_code, reason = "not in every package")]
pub(crate) fn prints(binary: impl AsRef<Path>, args: &[&str], at_least: Duration, at_most: Duration) -> Vec<String> {
    let (output, lines, took) = run(binary, args);
    assert!(output.status.success(), "{output:?}");
    assert!((at_least..at_most).contains(&took), "took {took:?}: {lines:?}");
    lines
}

/// A `console` block.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shown {
    /// Of the binary.
    pub(crate) name: String,
    /// What follows `--manifest-path`.
    package: String,
    args: Vec<String>,
    code: i32,
    took: Range<f64>,
    lines: Vec<Line>,
}

#[derive(Clone, Debug)]
struct Line {
    text: String,
    note: String,
}

impl Line {
    fn new(line: &str) -> Line {
        let (text, note) = line.split_once("  # ").unwrap_or((line, ""));
        Line {
            text: text.trim_end().to_owned(),
            note: note.to_owned(),
        }
    }

    /// Whether `line` is what this says, apart from its place.
    fn is(&self, line: &str) -> bool {
        let Some(range) = self.seconds() else {
            return like(&self.text, line);
        };
        let (what, _) = timed(&self.text).expect("a line with a time ends with it");
        timed(line).is_some_and(|(before, took)| like(what, before) && range.contains(&took))
    }

    /// What the time at the end of the line may be.
    fn seconds(&self) -> Option<Range<f64>> {
        let number = |text: &str| text.strip_suffix(" s")?.parse::<f64>().ok();
        if let Some(most) = self.note.strip_prefix("under ").and_then(number) {
            return Some(0.0..most);
        }
        let in_turn = self.note.strip_prefix("not ").and_then(number)?;
        let (_, at_once) = timed(&self.text)?;
        Some(at_once..f64::midpoint(at_once, in_turn))
    }

    fn count(&self, what: &str) -> Option<usize> {
        self.note.strip_suffix(what)?.parse().ok()
    }
}

/// A line that ends with a time: what is before that, and the seconds.
fn timed(line: &str) -> Option<(&str, f64)> {
    let line = line.strip_suffix(" s").or_else(|| line.strip_suffix(" seconds"))?;
    let (before, seconds) = line.rsplit_once(' ')?;
    Some((before, seconds.parse().ok()?))
}

/// Whether the text is the pattern, in which `…` is any text.
fn like(pattern: &str, text: &str) -> bool {
    let Some((start, mut pattern)) = pattern.split_once('…') else {
        return pattern == text;
    };
    let Some(mut text) = text.strip_prefix(start) else {
        return false;
    };
    while let Some((part, rest)) = pattern.split_once('…') {
        let Some((_, after)) = text.split_once(part) else {
            return false;
        };
        (pattern, text) = (rest, after);
    }
    text.ends_with(pattern)
}

/// The blocks of a text, each once for each argument that it may take.
fn blocks(text: &str) -> Vec<Shown> {
    let blocks = text.split("\n```console\n").skip(1);
    let blocks = blocks.map(|block| block.split("\n```").next().expect("the first part"));
    blocks.flat_map(block).collect()
}

fn block(block: &str) -> Vec<Shown> {
    let mut lines = block.lines().map(Line::new);
    let command = lines.next().expect("a command");
    let mut shown = Shown {
        lines: lines.collect(),
        ..Shown::default()
    };
    let (cargo, args) = command.text.split_once(" -- ").unwrap_or((&command.text, ""));
    assert!(cargo.starts_with("$ cargo run --release "), "{cargo}");
    let mut words = cargo.split(' ');
    while let Some(word) = words.next() {
        match word {
            "--example" | "--bin" => shown.name = words.next().expect("a name").to_owned(),
            "--manifest-path" => shown.package = words.next().expect("a path").to_owned(),
            _ => {}
        }
    }
    shown.args = args.split_whitespace().map(String::from).collect();
    let mut others = Vec::new();
    for note in command.note.split("; ") {
        if let Some(other) = note.strip_prefix("or ") {
            others.push(other.to_owned());
        } else if let Some(code) = note.strip_prefix("exit code ") {
            shown.code = code.parse().expect("a number");
        } else {
            shown.took = took(note);
        }
    }
    let other = |arg: String| Shown {
        args: vec![arg],
        ..shown.clone()
    };
    let mut all: Vec<_> = others.into_iter().map(other).collect();
    all.push(shown);
    all
}

/// What the time of a command may be.
fn took(note: &str) -> Range<f64> {
    if note == "at once" {
        return 0.0..5.0;
    }
    if let Some((start, "a server's start")) = note.split_once(" s and ") {
        return start.parse().expect("seconds")..120.0;
    }
    let (at_once, in_turn) = note.split_once(", not ").unwrap_or((note, ""));
    let number = |text: &str| text.trim_end_matches(" s").parse::<f64>();
    let at_once = number(at_once).unwrap_or_else(|_| panic!("{note}: what is that?"));
    // Where all is in turn, what the machine is slow by.
    let in_turn = number(in_turn).unwrap_or(2.0 * at_once + 10.0);
    // A process takes a moment to start on a machine that has other things to do.
    at_once..f64::midpoint(at_once, in_turn) + 0.5
}

impl Shown {
    /// Whether it is of the package in this folder of the examples.
    pub(crate) fn is_of(&self, package: &str) -> bool {
        let folder = self.package.trim_start_matches("examples/");
        folder.trim_end_matches("Cargo.toml").trim_end_matches('/') == package
    }

    /// Runs it; says what is not as it is shown.
    fn check(&self, binary: &Path) -> Result<(), String> {
        let args: Vec<&str> = self.args.iter().map(String::as_str).collect();
        let (output, mut lines, took) = run(binary, &args);
        let words = format!("{} {}", self.name, self.args.join(" "));
        if output.status.code() != Some(self.code) {
            return Err(format!("{words}: {output:?}"));
        }
        if self.code != 0 {
            lines = lines_of(&output.stderr);
        }
        same(&self.lines, &lines).map_err(|what| format!("{words}: {what}\n{}", lines.join("\n")))?;
        match self.took.contains(&took.as_secs_f64()) {
            true => Ok(()),
            false => Err(format!("{words}: took {took:?}, not {:?} s", self.took)),
        }
    }
}

fn same(shown: &[Line], lines: &[String]) -> Result<(), String> {
    let (often, shown): (Vec<_>, Vec<_>) = shown.iter().partition(|line| line.note.ends_with(" times or more"));
    for line in &often {
        let (most, count) = (
            line.count(" times or more"),
            lines.iter().filter(|l| line.is(l)).count(),
        );
        if most.is_none_or(|most| count < most) {
            return Err(format!("{count} times {:?}", line.text));
        }
    }
    let mut lines: Vec<_> = lines.iter().filter(|l| !often.iter().any(|line| line.is(l))).collect();
    let (mut head, mut tail) = (&shown[..], &[][..]);
    if let Some(at) = shown.iter().position(|line| line.text == "…") {
        let all = shown[at].count(" lines in all");
        if lines.len() + 1 < shown.len() || all.is_some_and(|all| lines.len() != all) {
            return Err(format!("{} lines", lines.len()));
        }
        (head, tail) = (&shown[..at], &shown[at + 1..]);
        lines.drain(head.len()..lines.len() - tail.len());
    }
    if lines.len() != head.len() + tail.len() {
        return Err(format!("{} lines, not {}", lines.len(), head.len() + tail.len()));
    }
    let groups = [head, tail].concat();
    for group in groups.chunk_by(|a, b| a.note.starts_with("in any order") && b.note == a.note) {
        let mut these: Vec<_> = lines.drain(..group.len()).collect();
        for line in group {
            let Some(at) = these.iter().position(|l| line.is(l)) else {
                return Err(format!("no {:?} {} in its place", line.text, line.note));
            };
            these.remove(at);
        }
    }
    Ok(())
}

/// Runs what the text shows of which `which` says yes, eight at a time, as they mostly sleep; those that take longest
/// first.
pub(crate) fn check_all(text: &str, which: impl Fn(&Shown) -> bool, binary: impl Fn(&str) -> PathBuf) -> usize {
    let mut all: Vec<_> = blocks(text).into_iter().filter(which).collect();
    all.sort_by(|a, b| a.took.start.total_cmp(&b.took.start));
    let count = all.len();
    let with_binaries: Vec<_> = all.into_iter().map(|shown| (binary(&shown.name), shown)).collect();
    let (left, faults) = (Mutex::new(with_binaries), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                loop {
                    let next = left.lock().unwrap().pop();
                    let Some((binary, shown)) = next else { break };
                    let fault = shown.check(&binary).err();
                    faults.lock().unwrap().extend(fault);
                }
            });
        }
    });
    let faults = faults.into_inner().unwrap();
    assert!(faults.is_empty(), "{}", faults.join("\n\n"));
    count
}

#[test]
fn a_block_is_held_against_what_is_printed() {
    let text = "\n```console\n$ cargo run --release --example x -- green  # or async; 2.0 s, not 4\n1 …\na  # in any order\n\
                b  # in any order\ntick …  # 2 times or more\nall: 1.0 s  # not 3 s\n```\n";
    let [asynchronous, green] = &blocks(text)[..] else {
        panic!("two: {:?}", blocks(text));
    };
    assert_eq!((&*asynchronous.args[0], &*green.args[0]), ("async", "green"));
    assert_eq!((&*green.name, green.took.clone()), ("x", 2.0..3.5));
    let printed = |words: &str| same(&green.lines, &words.split(',').map(String::from).collect::<Vec<_>>());
    assert_eq!(printed("1 x,b,tick 1,a,all: 1.2 s,tick 2"), Ok(()));
    for wrong in [
        "1 x,b,tick 1,a,all: 1.2 s",
        "1 x,b,tick 1,b,all: 1.2 s,tick 2",
        "1,b,tick 1,a,all: 1.2 s,tick 2",
        "1 x,b,tick 1,a,all: 0.9 s,tick 2",
        "1 x,b,tick 1,a,all: 2.0 s,tick 2",
        "1 x,b,tick 1,a,all: 1.2 s,tick 2,c",
    ] {
        assert!(printed(wrong).is_err(), "{wrong}");
    }
}
