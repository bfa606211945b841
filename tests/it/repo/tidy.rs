//! What the source tree must look like: heads, sizes, where `unsafe` and libc may be, examples.
//! The checks are functions from a text to its faults, so that each is shown to find one as well.

use std::fs;
use std::path::{Path, PathBuf};

/// The only places with unsafe code: `x` stands for `x.rs` and for all that is in `x/`.
const UNSAFE_ROOMS: &[&str] = &[
    "sys",
    "stack",
    "isolation/context",
    "fiber",
    "hub/slot",
    "hub/task/block",
    "hub/task/blocks",
    "hub/task/body",
    "hub/task/join",
    "hub/task/stackless",
    "hub/wake",
    "hub/turn",
    "hub/life",
    "sync/held",
    "thread/scope",
    // `close` and `offload` have only what macros of `symbol` write.
    "monkey/bulk",
    "monkey/close",
    "monkey/fd",
    "monkey/futex",
    "monkey/locks",
    "monkey/offload",
    "monkey/processes",
    "monkey/ready",
    "monkey/signals",
    "monkey/symbol",
    "monkey/table",
    "monkey/threads",
];
const LIBC_ROOMS: &[&str] = &["sys", "monkey"];
const MOST_CODE_LINES: usize = 600;
const MOST_FUNCTION_LINES: usize = 60;
const MOST_LINE_CHARS: usize = 120;
/// What may stand before `fn`.
const QUALIFIERS: &[&str] = &[
    "pub", "crate", "super", "in", "hub", "self", "const", "async", "unsafe", "extern",
];
const MOST_EXAMPLE_LINES: usize = 100;

/// A file below a folder of this package.
pub(crate) struct Source {
    /// Its path below that folder, as in `hub/task.rs`.
    pub(crate) path: String,
    pub(crate) text: String,
}

/// The files whose names end in `.rs` below `folder` of this package, sorted.
pub(crate) fn sources(folder: &str) -> Vec<Source> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut found: Vec<PathBuf> = Vec::new();
    let mut folders = vec![top.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("the folder can be read") {
            let path = entry.expect("the entry can be read").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "no source files in {folder}");
    let source = |path: PathBuf| Source {
        path: path.strip_prefix(&top).unwrap().to_str().unwrap().to_owned(),
        text: fs::read_to_string(&path).expect("the file is text"),
    };
    found.into_iter().map(source).collect()
}

/// `text` with comments and the insides of strings and characters turned into spaces. Lines stay where they are.
pub(crate) fn code_only(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let (end, keep) = token(&chars, at);
        for &c in &chars[at..end] {
            out.push(if keep || c == '\n' { c } else { ' ' });
        }
        at = end;
    }
    out
}

/// The end of what starts at `at`, and whether it is code.
fn token(chars: &[char], at: usize) -> (usize, bool) {
    let get = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let find = |from: usize, what: &[char]| {
        let rest = chars.get(from..).unwrap_or_default();
        rest.windows(what.len()).position(|w| w == what).map(|i| from + i)
    };
    match (get(at), get(at + 1)) {
        ('/', '/') => (find(at, &['\n']).unwrap_or(chars.len()), false),
        ('/', '*') => (block_comment(chars, at), false),
        ('"', _) => (quoted(chars, at + 1, '"'), false),
        ('\'', '\\') => (quoted(chars, at + 1, '\''), false),
        ('\'', _) if get(at + 2) == '\'' => (at + 3, false),
        (c, _) if c.is_alphanumeric() || c == '_' => {
            let mut end = at;
            while get(end).is_alphanumeric() || get(end) == '_' {
                end += 1;
            }
            let word: String = chars[at..end].iter().collect();
            let hashes = chars[end..].iter().take_while(|&&c| c == '#').count();
            if ["r", "br", "cr"].contains(&word.as_str()) && get(end + hashes) == '"' {
                let mut closing = vec!['"'];
                closing.extend(std::iter::repeat_n('#', hashes));
                let from = end + hashes + 1;
                return (find(from, &closing).map_or(chars.len(), |i| i + closing.len()), false);
            }
            (end, true)
        }
        _ => (at + 1, true),
    }
}

fn block_comment(chars: &[char], mut at: usize) -> usize {
    let mut depth = 0;
    while at < chars.len() {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => (depth, at) = (depth + 1, at + 2),
            ('*', Some('/')) => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at.min(chars.len())
}

fn quoted(chars: &[char], mut at: usize, end: char) -> usize {
    while at < chars.len() && chars[at] != end {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(chars.len())
}

/// `code` (from [`code_only`]) with its unit tests, `#[cfg(.. test ..)] mod name { .. }`, made blank.
pub(crate) fn without_tests(code: &str) -> String {
    let mut out = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(at) = rest.find("#[cfg(") {
        let end = rest[at..].find(']').map_or(rest.len(), |i| at + i + 1);
        let body = rest[end..].trim_start();
        let for_tests = words(&rest[at..end]).any(|w| w == "test");
        let open = rest[end..].find('{').map_or(rest.len(), |i| end + i);
        let is_module = for_tests && body.starts_with("mod ") && !rest[end..open].contains(';');
        if is_module {
            let close = closing_brace(rest, open);
            out.push_str(&rest[..at]);
            out.extend(rest[at..close].chars().filter(|&c| c == '\n'));
            rest = &rest[close..];
        } else {
            out.push_str(&rest[..end]);
            rest = &rest[end..];
        }
    }
    out + rest
}

/// Just behind the brace that closes the one at `open`.
fn closing_brace(code: &str, open: usize) -> usize {
    let mut depth = 0;
    for (i, c) in code[open..].char_indices() {
        depth += i32::from(c == '{') - i32::from(c == '}');
        if depth == 0 {
            return open + i + 1;
        }
    }
    code.len()
}

fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|c: char| !c.is_alphanumeric() && c != '_')
        .filter(|w| !w.is_empty())
}

fn in_room(path: &str, rooms: &[&str]) -> bool {
    let stem = path.strip_suffix(".rs").unwrap_or(path);
    rooms
        .iter()
        .any(|room| stem == *room || stem.strip_prefix(room).is_some_and(|r| r.starts_with('/')))
}

/// Whether this is the front of a folder with an unsafe room in it: a `forbid` there would hold in the room too.
fn fronts_an_unsafe_room(path: &str) -> bool {
    path.strip_suffix("mod.rs").is_some_and(|folder| {
        let holds_one = UNSAFE_ROOMS.iter().any(|room| room.starts_with(folder));
        holds_one || in_room(folder.trim_end_matches('/'), UNSAFE_ROOMS)
    })
}

/// The functions of `code` that are too long: a name, and the number of lines from the `fn` to its closing brace.
fn long_functions(code: &str) -> Vec<String> {
    let lines: Vec<&str> = code.lines().collect();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let mut before = words(line).take_while(|word| *word != "fn");
        let is_one_line = line.ends_with('}') || line.ends_with(';');
        let is_fn = words(line).any(|word| word == "fn") && before.all(|word| QUALIFIERS.contains(&word));
        let indent = line.len() - line.trim_start().len();
        // rustfmt puts the closing brace under the first letter.
        let end = format!("{}}}", &line[..indent]);
        if is_fn
            && !is_one_line
            && let Some(length) = lines[start..].iter().position(|line| *line == end)
        {
            let name = words(line).skip_while(|word| *word != "fn").nth(1).unwrap_or_default();
            if length + 1 > MOST_FUNCTION_LINES {
                found.push(format!(
                    "`{name}` has {} lines, more than {MOST_FUNCTION_LINES}",
                    length + 1
                ));
            }
        }
    }
    found
}

/// All that is wrong with the file `path` of `src`.
fn faults(path: &str, text: &str) -> Vec<String> {
    let code = code_only(text);
    let mut faults = Vec::new();
    let mut fault = |bad: bool, what: &str| {
        if bad {
            faults.push(format!("src/{path}: {what}"));
        }
    };
    fault(!text.starts_with("//!"), "does not start with `//!`");
    let lines = without_tests(&code).lines().filter(|l| !l.trim().is_empty()).count();
    fault(
        lines > MOST_CODE_LINES,
        &format!("has {lines} lines of code, more than {MOST_CODE_LINES}"),
    );
    for long in long_functions(&without_tests(&code)) {
        fault(true, &long);
    }
    fault(
        !in_room(path, LIBC_ROOMS) && words(&code).any(|w| w == "libc"),
        "names libc; that is for `sys`",
    );
    if path == "lib.rs" || fronts_an_unsafe_room(path) {
        fault(
            words(&without_tests(&code)).any(|w| w == "unsafe"),
            "has unsafe code; that is for the rooms below it",
        );
    } else if !in_room(path, UNSAFE_ROOMS) {
        fault(
            !code.contains("#![forbid(unsafe_code)]"),
            "lacks `#![forbid(unsafe_code)]`",
        );
    }
    faults
}

/// Macros that must not be left behind, with their lines.
fn left_behind(code: &str) -> Vec<String> {
    let bad = |line: &str, name: &str| {
        line.match_indices(&format!("{name}!"))
            .any(|(at, _)| !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_'))
    };
    let found = |(i, line): (usize, &str)| {
        let name = ["todo", "dbg"].into_iter().find(|name| bad(line, name))?;
        Some(format!("line {}: {name}!", i + 1))
    };
    code.lines().enumerate().filter_map(found).collect()
}

/// Locks of the whole process that a fork would not know of, with their lines.
fn unknown_locks(path: &str, code: &str) -> Vec<String> {
    const LOCKS: [&str; 6] = ["Mutex", "RwLock", "OnceLock", "LazyLock", "Once", "ReentrantLock"];
    let found = |(i, line): (usize, &str)| {
        let (_, rest) = line.split_once("static ")?;
        let kind = rest.split_once(':')?.1;
        let kind = kind.split('=').next().unwrap_or_default();
        let name = words(kind).find(|word| LOCKS.contains(word))?;
        Some(format!(
            "src/{path}:{}: a static {name}: use `Global` of `sys/fork.rs`",
            i + 1
        ))
    };
    if path == "sys/fork.rs" {
        return Vec::new();
    }
    code.lines().enumerate().filter_map(found).collect()
}

#[test]
fn every_lock_of_the_process_is_known_to_a_fork() {
    let all = sources("src").into_iter();
    assert_none(
        all.flat_map(|s| unknown_locks(&s.path, &without_tests(&code_only(&s.text))))
            .collect(),
    );
    let one = |code: &str| unknown_locks("a.rs", code).len();
    assert_eq!(one("static A: Mutex<u8> = Mutex::new(0);"), 1);
    assert_eq!(one("    pub(crate) static A: std::sync::OnceLock<u8> = x();"), 1);
    assert_eq!(one("static A: Global<u8> = Global::new(Order::A, 0);"), 0);
    assert_eq!(one("fn f(a: &'static str) -> Mutex<u8> {"), 0);
}

/// Words that stand for a task, a thread or a caller without saying which.
const VAGUE: [&str; 8] = [
    "who",
    "whoever",
    "whom",
    "whose",
    "nobody",
    "somebody",
    "anybody",
    "everybody",
];

/// The comment lines of a text, and those among them that have a vague word.
fn vague(text: &str) -> (usize, Vec<&str>) {
    let comments = text.lines().map(str::trim).filter(|line| line.starts_with("//"));
    let is_vague = |line: &str| words(line).any(|word| VAGUE.contains(&word.to_lowercase().as_str()));
    let all: Vec<&str> = comments.collect();
    (all.len(), all.into_iter().filter(|line| is_vague(line)).collect())
}

#[test]
fn comments_name_their_subject() {
    let (mut lines, mut found) = (0, Vec::new());
    for source in sources("src") {
        let (count, vague) = vague(&source.text);
        lines += count;
        found.extend(vague.iter().map(|line| format!("src/{}: {line}", source.path)));
    }
    // Now and then plain English wants one: 3 in 1,000 lines.
    assert!(
        found.len() * 1000 <= lines * 3,
        "say which task, thread or caller it is, in some of these:\n{}",
        found.join("\n")
    );
    assert_eq!(
        vague("/// Wakes who waits.\nfn who() {}\n// The whole task.\n").1.len(),
        1
    );
}

/// The text behind the marker of a line comment.
fn comment(line: &str) -> Option<&str> {
    let text = line.trim().strip_prefix("//")?;
    Some(text.strip_prefix(['/', '!']).unwrap_or(text))
}

/// The numbers of the lines of prose that are too long: the comments of a source file, or all of a document. Tables,
/// links and code blocks cannot be broken.
fn long_lines(path: &str, text: &str) -> Vec<String> {
    let is_source = path.ends_with(".rs");
    let mut in_code = false;
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let prose = if is_source { comment(line) } else { Some(line) };
        let Some(prose) = prose.map(str::trim) else {
            in_code = false;
            continue;
        };
        if prose.starts_with("```") {
            in_code = !in_code;
        }
        let length = line.chars().count();
        if length > MOST_LINE_CHARS && !in_code && !prose.starts_with('|') && !prose.contains("://") {
            found.push(format!("{path}:{}: {length} characters", number + 1));
        }
    }
    found
}

#[test]
fn lines_of_prose_are_short() {
    let in_folder = |folder: &'static str| {
        let of_source = move |s: Source| long_lines(&format!("{folder}/{}", s.path), &s.text);
        sources(folder).into_iter().flat_map(of_source)
    };
    let mut faults: Vec<String> = ["src", "tests"].into_iter().flat_map(in_folder).collect();
    for (name, text) in documents() {
        faults.extend(long_lines(&name, &text));
    }
    assert_none(faults);

    let long = "word ".repeat(25);
    let count = |path: &str, text: &str| long_lines(path, text).len();
    assert_eq!(count("a.rs", &format!("/// {long}\n//! {long}\n    // {long}\n")), 3);
    assert_eq!(
        count(
            "a.rs",
            &format!("f(\"{long}\");\n/// | {long} |\n/// {}\n", "x".repeat(116))
        ),
        0
    );
    assert_eq!(count("a.rs", &format!("/// ```\n/// {long}\n/// ```\n/// {long}\n")), 1);
    assert_eq!(
        count(
            "a.md",
            &format!("{long}\n| {long} |\n[{long}](https://a.b)\n```\n{long}\n```\n- {long}\n")
        ),
        2
    );
}

/// What is wrong with the head of an example, or with its size.
fn example_faults(path: &str, text: &str) -> Vec<String> {
    let head: Vec<&str> = text.lines().take_while(|l| l.starts_with("//!")).collect();
    let mut faults = Vec::new();
    if !head.iter().any(|l| l.contains("cargo run")) {
        faults.push(format!(
            "examples/{path}: its head (`//!`) does not say how to run it (`cargo run`)"
        ));
    }
    let lines = text.lines().count();
    if lines >= MOST_EXAMPLE_LINES && !in_room(path, &["crawl"]) {
        faults.push(format!(
            "examples/{path}: {lines} lines; the limit is {MOST_EXAMPLE_LINES}"
        ));
    }
    faults
}

fn assert_none(faults: Vec<String>) {
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn source_files_keep_the_house_rules() {
    assert_none(sources("src").iter().flat_map(|s| faults(&s.path, &s.text)).collect());
}

#[test]
fn nothing_is_left_behind() {
    let in_folder = |folder: &'static str| {
        sources(folder).into_iter().flat_map(move |s| {
            let found = left_behind(&code_only(&s.text));
            found
                .into_iter()
                .map(move |what| format!("{folder}/{}: {what}", s.path))
        })
    };
    assert_none(["src", "tests", "examples"].into_iter().flat_map(in_folder).collect());
}

#[test]
fn examples_are_short_and_say_how_to_run_them() {
    // the parts of an example that is a folder are introduced by its main.rs
    let fronts = sources("examples")
        .into_iter()
        .filter(|s| !s.path.contains('/') || s.path.ends_with("/main.rs"));
    assert_none(fronts.flat_map(|s| example_faults(&s.path, &s.text)).collect());
}

#[test]
fn each_rule_finds_a_fault() {
    let clean = "//! Head.\n#![forbid(unsafe_code)]\nfn f() {}\n";
    assert_eq!(faults("time.rs", clean), [""; 0]);
    let one = |path: &str, text: &str, part: &str| {
        let found = faults(path, text);
        assert!(
            found.len() == 1 && found[0].contains(part),
            "{found:?} should be about {part}"
        );
    };
    one("time.rs", "#![forbid(unsafe_code)]\n", "does not start");
    one("time.rs", "//! #![forbid(unsafe_code)]\n", "lacks");
    one("hub/timer.rs", "//! Head.\n", "lacks");
    one("hub/parking.rs", "//! Head.\n", "lacks");
    one("hub/mod.rs", "//! Head.\nfn f() { unsafe {} }\n", "has unsafe code");
    one("lib.rs", "//! Head.\nunsafe fn f() {}\n", "has unsafe code");
    one(
        "stack/pool.rs",
        "//! Head.\nfn f() { unsafe { libc::abort() } }\n",
        "libc",
    );
    one("time.rs", &format!("{clean}{}", "f();\n".repeat(601)), "603 lines");
    one("stack/mod.rs", "//! Head.\nunsafe fn f() {}\n", "has unsafe code");
    one(
        "sys/platform/mod.rs",
        "//! Head.\nunsafe fn f() {}\n",
        "has unsafe code",
    );
    let long = format!(
        "//! Head.\n#![forbid(unsafe_code)]\npub(crate) fn g() {{\n{}}}\n",
        "    f();\n".repeat(59)
    );
    one("time.rs", &long, "`g` has 61 lines");
    assert_eq!(
        faults("sys/mem.rs", "//! Head.\nfn f() { unsafe { libc::abort() } }\n"),
        [""; 0]
    );
    assert_eq!(faults("stack.rs", "//! Head.\nfn f() { unsafe {} }\n"), [""; 0]);
    assert_eq!(
        faults("hub/mod.rs", "//! Head.\n#![deny(unsafe_op_in_unsafe_fn)] // unsafe\n"),
        [""; 0]
    );
    let tests = format!("{clean}#[cfg(test)]\nmod tests {{\n{}}}\n", "f();\n".repeat(601));
    assert_eq!(faults("time.rs", &tests), [""; 0]);

    assert_eq!(
        left_behind("a\ntodo!()\nmydbg!(1); x.dbg!(2)"),
        ["line 2: todo!", "line 3: dbg!"]
    );
    assert_eq!(example_faults("a.rs", "//! Run: cargo run --example a\n"), [""; 0]);
    assert_eq!(example_faults("a.rs", "// cargo run\n").len(), 1);
    let long = format!("//! cargo run\n{}", "f();\n".repeat(99));
    assert_eq!(example_faults("a.rs", &long).len(), 1);
    assert_eq!(example_faults("crawl/main.rs", &long), [""; 0]);
}

#[test]
fn comments_and_strings_are_not_code() {
    let code = |text: &str| code_only(text).split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(code("a // unsafe\nb"), "a b");
    assert_eq!(code("a /* x /* y */ z */ b"), "a b");
    assert_eq!(code(r#"a "x \" unsafe" b"#), "a b");
    assert_eq!(code(r##"a r#"x " unsafe"# b br"\" c"##), "a b c");
    assert_eq!(code(r"a '\'' b '{' c '\u{7d}' d"), "a b c d");
    assert_eq!(code("fn f<'a>(x: &'a str) {}"), "fn f<'a>(x: &'a str) {}");
    assert_eq!(code("r#type for_ x"), "r#type for_ x");
    assert_eq!(code_only("\"a\nb\"\n// c\nd").lines().count(), 4);

    let rest = |text: &str| without_tests(text).split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(rest("a #[cfg(test)] mod tests { b { c } } d"), "a d");
    assert_eq!(rest("a #[cfg(all(test, loom))]\nmod loom_tests {\nb\n}\nd"), "a d");
    assert_eq!(
        rest("#[cfg(test)] mod tests; fn f() {}"),
        "#[cfg(test)] mod tests; fn f() {}"
    );
    assert_eq!(rest("#[cfg(unix)] mod a { b }"), "#[cfg(unix)] mod a { b }");
}

/// The files of this repository that a document names and that are not there.
fn missing_files(text: &str) -> Vec<String> {
    let is_path = |c: char| c.is_alphanumeric() || "_-./".contains(c);
    let named = text.split(|c: char| !is_path(c)).filter(|word| {
        let top = ["src/", "tests/", "examples/", "benches/", "docs/"];
        let end = [".rs", ".sh", ".md", ".toml", ".supp"];
        top.iter().any(|top| word.starts_with(top)) && end.iter().any(|end| word.ends_with(end))
    });
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    named
        .filter(|path| !path.contains("NAME") && !root.join(path).exists())
        .map(str::to_owned)
        .collect()
}

/// The documents of this repository: their names and texts.
fn documents() -> Vec<(String, String)> {
    const FOLDERS: [&str; 9] = [
        "",
        "docs",
        "docs/design",
        "docs/guide/src",
        "docs/guide/src/migration",
        "src/hub",
        "examples",
        "tests/compat",
        "benches/peers",
    ];
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let entries = |folder| fs::read_dir(root.join(folder)).into_iter().flatten().flatten();
    let paths = FOLDERS.into_iter().flat_map(entries).map(|entry| entry.path());
    let found: Vec<(String, String)> = paths
        .filter(|path| path.extension().is_some_and(|e| e == "md"))
        .map(|path| {
            let name = path.strip_prefix(root).unwrap_or(&path).display().to_string();
            (name, fs::read_to_string(&path).expect("the document is text"))
        })
        .collect();
    assert!(found.len() > 8, "{} documents", found.len());
    found
}

#[test]
fn documents_name_files_that_are_there() {
    let faults = documents().into_iter().flat_map(|(name, text)| {
        let missing = missing_files(&text).into_iter();
        missing.map(move |file| format!("{name}: there is no {file}"))
    });
    assert_none(faults.collect());

    assert_eq!(
        missing_files("see `src/nowhere.rs`, src/lib.rs and tests/it/NAME.rs"),
        ["src/nowhere.rs"]
    );
}

/// The pairs of a file and a function, as in "`src/a.rs`: `f`, `B::g`", of which the file has no such word.
fn missing_functions(text: &str) -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut missing = Vec::new();
    let parts = text
        .split('`')
        .skip(1)
        .step_by(2)
        .zip(text.split('`').skip(2).step_by(2));
    let mut file: Option<&str> = None;
    for (code, after) in parts {
        if code.ends_with(".rs") {
            file = (after.trim_end() == ":").then_some(code);
            continue;
        }
        if let Some(path) = file {
            let name = words(code).last().unwrap_or_default();
            let source = fs::read_to_string(root.join(path)).unwrap_or_default();
            if !words(&source).any(|word| word == name) {
                missing.push(format!("{path}: {code}"));
            }
        }
        // A list goes on after a comma.
        if after.trim() != "," {
            file = None;
        }
    }
    missing
}

#[test]
fn the_walks_name_functions_that_are_there() {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("ARCHITECTURE.md")).expect("it is text");
    assert_none(missing_functions(&text));
    let text = "1. `src/lib.rs`: `nowhere`, `hub`. `src/lib.rs` (`other`): `thread::spawn`";
    assert_eq!(missing_functions(text), ["src/lib.rs: nowhere"]);
}
