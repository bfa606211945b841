//! The files of a folder of `src` do not import each other in a circle; those of the hub stand in order.

use std::collections::{BTreeMap, BTreeSet};

use super::layering::tokens;
use super::tidy::{code_only, sources, without_tests};

/// The folders that are looked at, and how many files at most may be in one circle.
const FOLDERS: &[(&str, usize)] = &[("aio", 0), ("hub", 3), ("monkey", 0)];

/// Which files of a folder each of its files imports from. A name that a file only re-exports is that of the file where
/// it comes from.
struct Folder {
    imports: BTreeMap<String, BTreeSet<String>>,
}

impl Folder {
    fn of(name: &str) -> Folder {
        let files = sources(&format!("src/{name}"));
        Folder::new(name, files.iter().map(|file| (file.path.as_str(), file.text.as_str())))
    }

    fn new<'a>(name: &str, files: impl Iterator<Item = (&'a str, &'a str)>) -> Folder {
        let files: Vec<(&str, String)> = files
            .map(|(path, text)| (path, without_tests(&code_only(text))))
            .collect();
        // The modules of the folder, by their path from the folder on.
        let modules: BTreeMap<Vec<&str>, &str> = files.iter().map(|(path, _)| (module(path), *path)).collect();
        let uses: Vec<(&str, Vec<Vec<String>>)> = files
            .iter()
            .map(|(path, code)| (*path, uses(name, &module(path), code)))
            .collect();
        // What each file re-exports or imports: a name, and where it comes from.
        let mut names: BTreeMap<(&str, &str), &[String]> = BTreeMap::new();
        for (path, used) in &uses {
            for used in used.iter().filter(|used| used.len() > 1) {
                let last = used.last().map_or("", String::as_str);
                // A glob names the module itself.
                if last != "*" {
                    names.insert((path, last), used);
                }
            }
        }
        let find = |used: &[String]| -> Option<&str> {
            let mut used = used;
            // Follows a few re-exports, and stops where they go round.
            for _ in 0..4 {
                let depth = (0..=used.len())
                    .rev()
                    .find(|n| modules.contains_key(&used[..*n].iter().map(String::as_str).collect::<Vec<_>>()))?;
                let file = modules[&used[..depth].iter().map(String::as_str).collect::<Vec<_>>()];
                match used.get(depth).and_then(|name| names.get(&(file, name.as_str()))) {
                    Some(next) if file.ends_with("mod.rs") => used = next,
                    _ => return Some(file),
                }
            }
            None
        };
        let mut imports = BTreeMap::new();
        for (path, used) in &uses {
            // A front only gathers what its folder shows. (In a macro `super` is the front of another folder.)
            let named = used.iter().filter_map(|used| find(used));
            let found: BTreeSet<String> = named.filter(|file| *file != "mod.rs").map(str::to_owned).collect();
            let others = found.into_iter().filter(|file| file != path).collect();
            imports.insert((*path).to_owned(), others);
        }
        Folder { imports }
    }

    /// The files that `file` imports from, at any remove.
    fn reach(&self, file: &str) -> BTreeSet<&str> {
        let mut found = BTreeSet::new();
        let mut left: Vec<&str> = vec![file];
        while let Some(file) = left.pop() {
            for next in self.imports.get(file).into_iter().flatten() {
                if found.insert(next.as_str()) {
                    left.push(next);
                }
            }
        }
        found
    }

    /// The circles, each once.
    fn circles(&self) -> BTreeSet<Vec<&str>> {
        let files = || {
            self.imports
                .keys()
                .map(String::as_str)
                .filter(|file| !file.ends_with("mod.rs"))
        };
        let circle = |file: &str| -> Vec<&str> {
            let reach = self.reach(file);
            files()
                .filter(|other| reach.contains(other) && self.reach(other).contains(file))
                .collect()
        };
        files().map(circle).filter(|circle| !circle.is_empty()).collect()
    }
}

/// `["task", "block"]` for `task/block.rs`.
fn module(path: &str) -> Vec<&str> {
    let path = path.strip_suffix(".rs").unwrap_or(path);
    path.split('/').filter(|part| *part != "mod").collect()
}

/// What the code of a module of folder `name` names of that folder: the paths after `crate::name`, `super` and `self`,
/// and each path of a `use` that begins with a module beside it.
fn uses(name: &str, module: &[&str], code: &str) -> Vec<Vec<String>> {
    let tokens: Vec<&str> = tokens(code).into_iter().map(|(_, token)| token).collect();
    let text = |i: usize| tokens.get(i).copied().unwrap_or_default();
    let mut found = Vec::new();
    for at in 0..tokens.len() {
        let begins = at == 0 || text(at - 1) != "::";
        let (mut base, mut next): (Vec<String>, usize) = match text(at) {
            "crate" if begins && text(at + 1) == "::" && text(at + 2) == name => (Vec::new(), at + 3),
            "super" if begins && text(at + 1) == "::" => {
                let up = (0..).take_while(|i| text(at + 2 * i) == "super").count();
                if up > module.len() {
                    continue;
                }
                let base = module[..module.len() - up].iter().map(|part| (*part).to_owned());
                (base.collect(), at + 2 * up - 1)
            }
            // In a front: `use part::{..}` names what lies beside it.
            "use" if text(at + 2) == "::" && !["crate", "super", "std"].contains(&text(at + 1)) => {
                (module.iter().map(|part| (*part).to_owned()).collect(), at)
            }
            _ => continue,
        };
        if text(at) == "use" {
            base.push(text(at + 1).to_owned());
            next = at + 2;
        }
        if text(next) == "::" {
            tree(&tokens, next + 1, &base, &mut found);
        }
    }
    found
}

/// Adds the paths of the use tree that begins at token `at`; returns where it ends.
fn tree(tokens: &[&str], mut at: usize, base: &[String], found: &mut Vec<Vec<String>>) -> usize {
    let text = |i: usize| tokens.get(i).copied().unwrap_or_default();
    if text(at) == "{" {
        at += 1;
        while !["}", ""].contains(&text(at)) {
            at = if text(at) == "," {
                at + 1
            } else {
                tree(tokens, at, base, found)
            };
        }
        return at + 1;
    }
    let mut path = base.to_vec();
    if text(at) != "self" {
        path.push(text(at).to_owned());
    }
    at += 1;
    if text(at) == "::" {
        return tree(tokens, at + 1, &path, found);
    }
    found.push(path);
    // Over `as name`.
    if text(at) == "as" { at + 2 } else { at }
}

/// The rows of the table of files in `src/hub/README.md`.
fn rows(readme: &str) -> Vec<Vec<&str>> {
    let table = readme.split("## Files, from the ground up").nth(1).unwrap_or_default();
    let lines = table.lines().take_while(|line| !line.starts_with("## "));
    lines
        .map(|line| {
            let first = line.trim_start_matches('|').split('|').next().unwrap_or_default();
            first.split('`').filter(|name| name.ends_with(".rs")).collect()
        })
        .filter(|row: &Vec<&str>| !row.is_empty())
        .collect()
}

/// What is wrong with the order of the files: those that no row has, and imports of what stands below.
fn disorder(folder: &Folder, rows: &[Vec<&str>]) -> Vec<String> {
    let row = |file: &str| rows.iter().position(|row| row.contains(&file));
    let mut faults = Vec::new();
    for (file, used) in &folder.imports {
        let Some(own) = row(file) else {
            faults.push(format!("{file} is in no row of the table"));
            continue;
        };
        let below = used.iter().filter(|used| row(used).is_some_and(|row| row > own));
        faults.extend(below.map(|used| format!("{file} must not use {used}, which stands below it")));
    }
    faults
}

#[test]
fn no_folder_has_a_larger_circle() {
    for (name, most) in FOLDERS {
        let folder = Folder::of(name);
        let circles = folder.circles();
        let large: Vec<_> = circles.iter().filter(|circle| circle.len() > *most).collect();
        assert!(large.is_empty(), "src/{name}: these import each other: {large:#?}");
    }
}

#[test]
fn the_files_of_the_hub_use_what_stands_above_them() {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/hub/README.md")).unwrap();
    let rows = rows(&readme);
    assert!(rows.len() > 10, "the table has {} rows", rows.len());
    let found = disorder(&Folder::of("hub"), &rows);
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn circles_and_disorder_are_found() {
    let files = [
        ("mod.rs", "mod a; mod b; mod c; mod d; pub use b::B; use deep::low::L;"),
        ("a.rs", "use super::b::X;\n// super::d"),
        ("b.rs", "use crate::hub::{c::{Y, Z as W}, d::V};"),
        ("c.rs", "fn f() { super::super::hub::x(); crate::hub::a::g() }"),
        ("d.rs", "#[cfg(test)] mod tests { use crate::hub::a; }"),
        ("e.rs", "use super::B; use crate::hub::L;"),
        ("deep/mod.rs", "pub use low::L;"),
        ("deep/low.rs", "use super::super::d; use crate::other::a;"),
    ];
    let folder = Folder::new("hub", files.into_iter());
    assert_eq!(folder.circles(), [vec!["a.rs", "b.rs", "c.rs"]].into());
    let of = |file: &str| folder.imports[file].iter().map(String::as_str).collect::<Vec<_>>();
    assert_eq!(of("b.rs"), ["c.rs", "d.rs"]);
    assert_eq!(of("e.rs"), ["b.rs", "deep/low.rs"]);
    assert_eq!(of("deep/low.rs"), ["d.rs"]);

    let table = "## Files, from the ground up\n| files | what |\n|---|---|\n| `d.rs` `c.rs` | x |\n| `b.rs` | y |\n| `a.rs` | z |\n\n## More\n| `e.rs` |\n";
    let faults = disorder(&folder, &rows(table));
    assert!(
        faults.contains(&"c.rs must not use a.rs, which stands below it".to_owned()),
        "{faults:?}"
    );
    assert!(
        faults.contains(&"e.rs is in no row of the table".to_owned()),
        "{faults:?}"
    );
    assert!(!faults.iter().any(|fault| fault.starts_with("b.rs must")), "{faults:?}");
}
