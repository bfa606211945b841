//! Inside a folder of `src`, imports do not go in circles: a file that is understood first needs no file that needs it.

use std::collections::HashMap;

use super::layering::{is_word, tokens};
use super::tidy::{code_only, sources, without_tests};

/// The folders, and how many files a circle of imports may have there: 1 is no circle.
const MOST_IN_A_CIRCLE: &[(&str, usize)] = &[("monkey", 1)];

/// A path from the crate's root: `["hub", "park", "Wake"]`.
type Path = Vec<String>;

/// A file, by its module's path, and the paths that its code names.
struct File {
    name: String,
    module: Path,
    /// All paths, of imports and of other code, from the root.
    paths: Vec<Path>,
    /// What its imports bring in, by name: other files may name these by way of this file.
    imports: HashMap<String, Path>,
}

struct Reader<'a> {
    tokens: Vec<(usize, &'a str)>,
    at: usize,
    /// The module that the reader is in, and the depth of braces at which each inline module in it began.
    module: Path,
    inline: Vec<usize>,
    depth: usize,
    children: Vec<String>,
}

impl<'a> Reader<'a> {
    fn text(&self, at: usize) -> &'a str {
        self.tokens.get(at).map_or("", |token| token.1)
    }

    /// The path that the tokens from `at` begin, up to a name, `{` or `*`; and where it ends. `None` if it leads to no
    /// file: it begins with another crate, a local name, or is a visibility.
    fn path(&self, mut at: usize) -> Option<(Path, usize)> {
        let before = |count: usize| at.checked_sub(count).map_or("", |before| self.text(before));
        if before(1) == "::" || before(1) == "in" && before(2) == "(" {
            return None;
        }
        let mut path = match self.text(at) {
            "crate" => Path::new(),
            "self" | "super" => self.module.clone(),
            child if self.children.iter().any(|known| known == child) && self.inline.is_empty() => {
                let mut path = self.module.clone();
                path.push(child.to_owned());
                path
            }
            _ => return None,
        };
        if self.text(at) == "super" {
            path.pop();
        }
        if self.text(at + 1) != "::" {
            return None;
        }
        at += 1;
        while self.text(at) == "::" && is_word(self.text(at + 1)) {
            match self.text(at + 1) {
                "super" => drop(path.pop()),
                "self" => {}
                name => path.push(name.to_owned()),
            }
            at += 2;
        }
        Some((path, at))
    }

    /// The paths of a tree of imports whose beginning is `path`, from `at` on, each with the name that it brings in.
    fn tree(&self, path: &Path, mut at: usize, found: &mut Vec<(String, Path)>) -> usize {
        let mut path = path.clone();
        loop {
            match self.text(at) {
                "::" => at += 1,
                "{" => {
                    at += 1;
                    while !["}", ""].contains(&self.text(at)) {
                        at = match self.text(at) {
                            "," => at + 1,
                            _ => self.tree(&path, at, found),
                        };
                    }
                    return at + 1;
                }
                "*" => {
                    found.push(("*".to_owned(), path));
                    return at + 1;
                }
                "self" => at += 1,
                name if is_word(name) && name != "as" => {
                    path.push(name.to_owned());
                    at += 1;
                }
                _ => break,
            }
        }
        let mut name = path.last().cloned().unwrap_or_default();
        if self.text(at) == "as" {
            name = self.text(at + 1).to_owned();
            at += 2;
        }
        found.push((name, path));
        at
    }

    fn read(mut self, name: &str) -> File {
        let (mut paths, mut imports) = (Vec::new(), HashMap::new());
        while self.at < self.tokens.len() {
            let at = self.at;
            self.at += 1;
            match self.text(at) {
                "mod" if self.text(at + 2) == "{" => {
                    self.module.push(self.text(at + 1).to_owned());
                    self.inline.push(self.depth);
                }
                "{" => self.depth += 1,
                "}" => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.inline.last() == Some(&self.depth) {
                        self.inline.pop();
                        self.module.pop();
                    }
                }
                "use" => {
                    let inside = self.path(at + 1);
                    let mut found = Vec::new();
                    // What comes from another crate is noted as well: it leads to none of the files.
                    let (path, end) = inside.clone().unwrap_or((Path::new(), at + 1));
                    self.at = self.tree(&path, end, &mut found).max(self.at);
                    if inside.is_some() {
                        paths.extend(found.iter().map(|(_, path)| path.clone()));
                    }
                    if self.depth == 0 {
                        imports.extend(found);
                    }
                }
                _ => paths.extend(self.path(at).map(|(path, _)| path)),
            }
        }
        File {
            name: name.to_owned(),
            module: self.module,
            paths,
            imports,
        }
    }
}

/// The module of a file: `hub/task/join.rs` is `hub::task::join`, and `hub/mod.rs` is `hub`.
fn module_of(path: &str) -> Path {
    let path = path.trim_end_matches(".rs").trim_end_matches("/mod");
    path.split('/').map(str::to_owned).collect()
}

/// The files of a folder, without unit tests.
fn files(sources: &[(&str, &str)]) -> Vec<File> {
    let codes: Vec<String> = sources
        .iter()
        .map(|(_, text)| without_tests(&code_only(text)))
        .collect();
    let read = |(&(name, _), code): (&(&str, &str), &String)| {
        let module = module_of(name);
        let children = sources.iter().map(|(other, _)| module_of(other));
        let children = children.filter(|other| other.split_last().is_some_and(|(_, parent)| parent == module));
        Reader {
            tokens: tokens(code),
            at: 0,
            children: children.filter_map(|child| child.last().cloned()).collect(),
            module,
            inline: Vec::new(),
            depth: 0,
        }
        .read(name)
    };
    sources.iter().zip(&codes).map(read).collect()
}

/// The file that defines what `path` names: imports of the files on its way are followed. `None`: none of these files.
fn find(files: &[File], path: &[String], patience: usize) -> Option<usize> {
    let place = |module: &[String]| files.iter().position(|file| file.module == module);
    let mut at = None;
    for end in 1..=path.len() {
        match place(&path[..end]) {
            Some(file) => at = Some((file, end)),
            None if at.is_some() => break,
            None => {}
        }
    }
    let (file, end) = at?;
    let import = path.get(end).and_then(|name| files[file].imports.get(name));
    match import {
        Some(from) if patience > 0 => {
            let whole: Path = from.iter().chain(&path[end + 1..]).cloned().collect();
            find(files, &whole, patience - 1)
        }
        _ => Some(file),
    }
}

/// Which files each file imports.
fn graph(files: &[File]) -> Vec<Vec<usize>> {
    let of = |(at, file): (usize, &File)| {
        let mut to: Vec<usize> = file.paths.iter().filter_map(|path| find(files, path, 8)).collect();
        to.sort_unstable();
        to.dedup();
        to.retain(|to| *to != at);
        to
    };
    files.iter().enumerate().map(of).collect()
}

/// The strongly connected components that have more than `most` files: what each file of it imports there.
fn circles(sources: &[(&str, &str)], most: usize) -> Vec<String> {
    let files = files(sources);
    let graph = graph(&files);
    let reached = |from: usize| {
        let (mut seen, mut next) = (vec![false; files.len()], graph[from].clone());
        while let Some(at) = next.pop() {
            if !std::mem::replace(&mut seen[at], true) {
                next.extend(&graph[at]);
            }
        }
        seen
    };
    let reached: Vec<Vec<bool>> = (0..files.len()).map(reached).collect();
    let mut found = Vec::new();
    for (first, from) in reached.iter().enumerate() {
        let circle: Vec<usize> = (0..files.len())
            .filter(|&at| at == first || from[at] && reached[at][first])
            .collect();
        if circle[0] != first || circle.len() <= most {
            continue;
        }
        let line = |&at: &usize| {
            let to = graph[at].iter().filter(|to| circle.contains(to));
            let to: Vec<&str> = to.map(|&to| files[to].name.as_str()).collect();
            format!("    {} imports {}", files[at].name, to.join(", "))
        };
        let lines: Vec<String> = circle.iter().map(line).collect();
        found.push(format!("{} files in a circle:\n{}", circle.len(), lines.join("\n")));
    }
    found
}

#[test]
fn imports_do_not_go_in_circles() {
    let all = sources("src");
    for &(folder, most) in MOST_IN_A_CIRCLE {
        let inside = |path: &str| path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'));
        let files: Vec<(&str, &str)> = all
            .iter()
            .filter(|source| inside(&source.path))
            .map(|source| (source.path.as_str(), source.text.as_str()))
            .collect();
        assert!(!files.is_empty(), "src has no folder {folder}");
        let found = circles(&files, most);
        assert!(
            found.is_empty(),
            "\nsrc/{folder}: at most {most} allowed\n{}",
            found.join("\n")
        );
    }
}

#[test]
fn a_circle_of_imports_is_found() {
    let sizes = |b: &str, c: &str, top: &str| {
        let a = "use super::b::B; fn f() { let x = B::new(); }";
        let files = [("x/a.rs", a), ("x/b.rs", b), ("x/b/c.rs", c), ("x/mod.rs", top)];
        circles(&files, 1)
            .iter()
            .map(|found| found.lines().count() - 1)
            .collect::<Vec<_>>()
    };
    let top = "mod a; mod b; pub use b::B;";
    // Without a circle.
    assert_eq!(sizes("pub struct B;", "", top), [0; 0]);
    assert_eq!(sizes("use crate::y::a; use std::a;", "", top), [0; 0]);
    assert_eq!(
        sizes("pub(in crate::x) fn f() {} pub(super) fn a() {}", "", top),
        [0; 0]
    );
    assert_eq!(
        sizes("#[cfg(test)] mod tests { use super::super::a; }", "", top),
        [0; 0]
    );
    assert_eq!(
        sizes("// super::a::f\nconst A: &str = \"super::a::f\";", "", top),
        [0; 0]
    );
    assert_eq!(
        sizes("mod a { pub fn f() {} } fn g() { self::a::f() }", "", top),
        [0; 0]
    );
    // A name that `mod.rs` re-exports is its file's, and `mod.rs` may use all.
    assert_eq!(sizes("pub struct B;", "use super::super::B;", top), [0; 0]);
    assert_eq!(sizes("mod c; use c::C;", "use crate::x::a::A; pub struct C;", top), [3]);
    // With one.
    for b in [
        "use super::a;",
        "use super::{a::{f as g, h}};",
        "use crate::x::{a::{self, f}};",
        "pub(super) use self::super::a::*;",
        "fn f() { super::a::f() }",
        "fn f() { use crate::x::a::g; }",
        "macro_rules! m { () => { $crate::x::a::f() } }",
        "mod inner { use super::super::a; }",
        "mod inner { mod more { fn f() { super::super::super::a::f() } } } fn g() {}",
    ] {
        assert_eq!(sizes(b, "", top), [2], "{b}");
    }
    // By way of `mod.rs`: what that defines itself, and what it only imports.
    assert_eq!(
        sizes("use super::T;", "", "mod a; mod b; pub struct T; fn f() { a::f() }"),
        [3]
    );
    assert_eq!(
        sizes("use super::T;", "", "mod a; mod b; use std::t::T; fn f() { a::f() }"),
        [0; 0]
    );
    assert_eq!(sizes("use super::f;", "", "mod a; mod b; use a::f;"), [2]);
    let found = circles(&[("x/a.rs", "use super::b;"), ("x/b.rs", "use super::a;")], 1);
    assert_eq!(
        found,
        ["2 files in a circle:\n    x/a.rs imports x/b.rs\n    x/b.rs imports x/a.rs"]
    );
}
