//! The labels of invariants, such as WAIT-3: each is stated once, and what a comment cites is stated somewhere.
//!
//! A statement is a line `- **WAIT-3** ...` in a comment of `src`, or in `src/hub/README.md`. A SAFETY note that says
//! "as above" is refused here too: it cites what an edit moves away.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Written like a label, but other names.
const NOT_LABELS: [&str; 3] = ["UTF-8", "SSH-2", "C11"];
/// The text that cites labels, in folders of the repository.
const FOLDERS: [&str; 3] = ["src", "docs", "tests"];
const FILES: [&str; 2] = ["ARCHITECTURE.md", "CONTRIBUTING.md"];
/// Lists of their own: the rows of the examples, and the traps of other crates.
const OTHER_LISTS: [&str; 1] = ["tests/compat"];

struct Text {
    path: String,
    /// The comments of a Rust file, or all lines of a Markdown file; each with its number.
    lines: Vec<(usize, String)>,
}

impl Text {
    fn of(path: &str, text: &str) -> Text {
        let comment = |line: &str| {
            if path.ends_with(".rs") {
                comment_of(line).map(str::to_owned)
            } else {
                Some(line.to_owned())
            }
        };
        let lines = text.lines().enumerate();
        Text {
            path: path.to_owned(),
            lines: lines.filter_map(|(i, line)| Some((i + 1, comment(line)?))).collect(),
        }
    }
}

/// The comment of a line of code, with its slashes.
fn comment_of(line: &str) -> Option<&str> {
    let (mut in_text, mut skip) = (false, false);
    for (i, c) in line.char_indices() {
        match c {
            _ if skip => skip = false,
            '\\' => skip = in_text,
            '"' if !line[..i].ends_with('\'') => in_text = !in_text,
            '/' if !in_text && line[i..].starts_with("//") => return Some(&line[i..]),
            _ => {}
        }
    }
    None
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let is_text = path.extension().is_some_and(|end| end == "rs" || end == "md");
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            collect(&path, files);
        } else if is_text {
            files.push(path);
        }
    }
}

fn texts() -> Vec<Text> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files: Vec<PathBuf> = FILES.iter().map(|file| root.join(file)).collect();
    FOLDERS
        .iter()
        .for_each(|folder| collect(&root.join(folder), &mut files));
    let text = |path: PathBuf| {
        let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        // This file has wrong labels on purpose.
        let is_meant = !name.ends_with("/labels.rs") && !OTHER_LISTS.iter().any(|list| name.starts_with(list));
        is_meant.then(|| Text::of(&name, &std::fs::read_to_string(path).unwrap()))
    };
    files.into_iter().filter_map(text).collect()
}

/// The words of a line that a label may be, each with the characters before and behind it.
fn words(line: &str) -> impl Iterator<Item = &str> {
    let inside = |c: char| c.is_alphanumeric() || "-_#'".contains(c);
    line.split(move |c: char| !inside(c)).filter(|word| !word.is_empty())
}

/// Whether this is `AREA-1`.
fn is_label(word: &str) -> bool {
    word.split_once('-').is_some_and(|(area, number)| {
        area.len() > 1 && area.chars().all(|c| c.is_ascii_uppercase()) && is_number(number)
    })
}

/// Whether this is `A1`, as labels were written once.
fn is_old_label(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_uppercase()) && is_number(&word[1..])
}

fn is_number(text: &str) -> bool {
    (1..=2).contains(&text.len()) && text.chars().all(|c| c.is_ascii_digit())
}

/// The label that this line states, if it states one.
fn stated(path: &str, line: &str) -> Option<String> {
    let may_state = path.starts_with("src/") && (path.ends_with(".rs") || path == "src/hub/README.md");
    let line = line.trim_start_matches(['/', '!']).trim_start();
    let label = line.strip_prefix("- **")?.split_once("**")?.0;
    (may_state && (is_label(label) || is_old_label(label))).then(|| label.to_owned())
}

/// All that is wrong with the labels of these texts.
fn faults(texts: &[Text]) -> Vec<String> {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for text in texts {
        for (number, line) in &text.lines {
            if let Some(label) = stated(&text.path, line) {
                places.entry(label).or_default().push(format!("{}:{number}", text.path));
            }
        }
    }
    let twice = places.iter().filter(|(_, places)| places.len() > 1);
    let mut faults: Vec<String> = twice
        .map(|(label, places)| format!("{label} is stated at {}", places.join(" and ")))
        .collect();
    for text in texts {
        for (number, line) in &text.lines {
            let at = format!("{}:{number}", text.path);
            for word in words(line).filter(|word| !NOT_LABELS.contains(word)) {
                if is_old_label(word) {
                    faults.push(format!("{at}: {word} does not say whose it is: use AREA-n"));
                } else if is_label(word) && !places.contains_key(word) {
                    faults.push(format!("{at}: {word} is stated nowhere"));
                }
            }
            if line.contains("SAFETY: as above") {
                faults.push(format!("{at}: say the condition in place of \"as above\""));
            }
        }
    }
    faults
}

#[test]
fn labels_are_stated_once_and_cited_as_they_are() {
    let faults = faults(&texts());
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn each_fault_of_a_label_is_found() {
    let of = |texts: &[(&str, &str)]| {
        faults(
            &texts
                .iter()
                .map(|(path, text)| Text::of(path, text))
                .collect::<Vec<_>>(),
        )
    };
    let state = ("src/a.rs", "//! - **WAIT-1** It holds.\n");
    assert_eq!(of(&[state, ("src/b.rs", "// SAFETY: WAIT-1: held.\n")]), [""; 0]);
    assert_eq!(of(&[state, ("docs/a.md", "- **WAIT-1** In UTF-8 and C11.\n")]), [""; 0]);
    assert_eq!(of(&[("src/hub/README.md", "- **HUB-1** It holds.\n")]), [""; 0]);
    assert_eq!(
        of(&[("src/a.rs", "let a: A1 = \"// A1 of WAIT-1\"; // an URL: http://a\n")]),
        [""; 0]
    );

    let one = |texts: &[(&str, &str)], part: &str| {
        let found = of(texts);
        assert!(
            found.len() == 1 && found[0].contains(part),
            "{found:?} should be about {part}"
        );
    };
    one(
        &[state, ("src/b.rs", "// - **WAIT-1** Another.\n")],
        "src/a.rs:1 and src/b.rs:1",
    );
    one(
        &[("src/b.rs", "f(); // by WAIT-2\n")],
        "src/b.rs:1: WAIT-2 is stated nowhere",
    );
    one(&[("docs/a.md", "- **WAIT-2** Not here.\n")], "stated nowhere");
    one(&[("src/b.rs", "/// It holds (W1).\n")], "W1 does not say whose");
    one(&[("src/b.rs", "//! - **W1** It holds.\n")], "W1 does not say whose");
    one(&[("tests/b.rs", "    // SAFETY: as above.\n")], "as above");
}
