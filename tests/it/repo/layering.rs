//! Modules use only what stands above them in the list of `lib.rs`. Unit tests may use anything.

use super::tidy::{code_only, sources, without_tests};

/// The modules in their order, and what `lib.rs` re-exports from each.
struct Layers {
    modules: Vec<String>,
    exports: Vec<(String, usize)>,
}

impl Layers {
    fn of(lib: &str) -> Layers {
        let code = without_tests(&code_only(lib));
        let mut modules: Vec<String> = Vec::new();
        let mut exports = Vec::new();
        for item in code.split([';', '}']) {
            let tokens = tokens(item);
            let word = |w: &str| tokens.iter().position(|t| t.1 == w);
            if let Some(at) = word("mod") {
                modules.extend(tokens.get(at + 1).map(|t| t.1.to_owned()));
            }
            if let Some(at) = word("use") {
                let mut path = tokens[at + 1..]
                    .iter()
                    .map(|t| t.1)
                    .filter(|t| is_word(t) && *t != "crate" && *t != "self");
                let module = path.next();
                exports.extend(path.map(|name| (name.to_owned(), module.unwrap_or_default().to_owned())));
            }
        }
        let place = |module: &str| modules.iter().position(|m| m == module);
        let exports = exports
            .into_iter()
            .filter_map(|(name, module)| Some((name, place(&module)?)))
            .collect();
        Layers { modules, exports }
    }

    fn place(&self, name: &str) -> Option<usize> {
        let export = || self.exports.iter().find(|e| e.0 == name).map(|e| e.1);
        self.modules.iter().position(|m| m == name).or_else(export)
    }

    /// The uses in the file `path` of `src` that point down the list.
    fn violations(&self, path: &str, text: &str) -> Vec<String> {
        let Some(top) = path.trim_end_matches(".rs").split('/').next() else {
            return Vec::new();
        };
        let Some(own) = self.place(top) else {
            return vec![format!("src/{path}: `{top}` is not in the list of lib.rs")];
        };
        let code = without_tests(&code_only(text));
        let down = |&(line, name): &(usize, &str)| {
            let place = self.place(name)?;
            (place > own).then(|| format!("src/{path}:{line}: `{top}` must not use `{name}`, which stands below it"))
        };
        uses(&tokens(&code), depth(path)).iter().filter_map(down).collect()
    }
}

/// How many modules deep the file is: one `super` less leads to its top module.
fn depth(path: &str) -> usize {
    let parts = path.split('/').count();
    if path.ends_with("/mod.rs") { parts - 1 } else { parts }
}

pub(super) fn is_word(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphanumeric() || c == '_')
}

/// The words, `::` and single other characters of `code`, with their lines.
pub(super) fn tokens(code: &str) -> Vec<(usize, &str)> {
    let mut tokens = Vec::new();
    for (line, mut rest) in code.lines().enumerate() {
        loop {
            rest = rest.trim_start();
            let Some(first) = rest.chars().next() else {
                break;
            };
            let word = rest
                .find(|c: char| !c.is_alphanumeric() && c != '_')
                .unwrap_or(rest.len());
            let length = if rest.starts_with("::") {
                2
            } else {
                word.max(first.len_utf8())
            };
            tokens.push((line + 1, &rest[..length]));
            rest = &rest[length..];
        }
    }
    tokens
}

/// The names `x` of `crate::x` and `crate::{x, ..}`; `depth` times `super` is `crate` too.
fn uses<'a>(tokens: &[(usize, &'a str)], depth: usize) -> Vec<(usize, &'a str)> {
    let text = |i: usize| tokens.get(i).map_or("", |t| t.1);
    let mut found = Vec::new();
    for at in 0..tokens.len() {
        let mut next = at;
        if text(at) == "crate" {
            next += 1;
        } else if text(at) == "super" && (at == 0 || text(at - 1) != "::") {
            let supers = (0..)
                .take_while(|i| text(at + 2 * i) == "super" && text(at + 2 * i + 1) == "::")
                .count();
            if supers != depth {
                continue;
            }
            next += 2 * supers - 1;
        } else {
            continue;
        }
        if text(next) != "::" {
            continue;
        }
        if text(next + 1) != "{" {
            found.extend(tokens.get(next + 1));
            continue;
        }
        let mut nested = 0;
        for (i, &(line, name)) in tokens.iter().enumerate().skip(next + 1) {
            nested += i32::from(name == "{") - i32::from(name == "}");
            if nested == 0 {
                break;
            }
            if nested == 1 && is_word(name) && ["{", ","].contains(&text(i - 1)) {
                found.push((line, name));
            }
        }
    }
    found
}

#[test]
fn no_import_points_down_the_list() {
    let sources = sources("src");
    let lib = sources.iter().find(|s| s.path == "lib.rs").expect("there is a lib.rs");
    let layers = Layers::of(&lib.text);
    assert!(!layers.modules.is_empty(), "lib.rs lists no modules");
    let others = sources.iter().filter(|s| s.path != "lib.rs");
    let found: Vec<String> = others.flat_map(|s| layers.violations(&s.path, &s.text)).collect();
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn an_import_that_points_down_is_found() {
    let lib = "//! mod wrong;\npub(crate) mod sys;\npub mod hub;\nmod time;\n#[cfg(unix)]\npub mod thread;\npub use thread::{spawn, sleep as nap};\npub use time::now;\n";
    let layers = Layers::of(lib);
    assert_eq!(layers.modules, ["sys", "hub", "time", "thread"]);
    let count = |path: &str, text: &str| layers.violations(path, text).len();

    for bad in [
        "use crate::time::sleep;",
        "fn f() { crate::thread::spawn(); }",
        "pub(crate) use crate::{\n    sys,\n    time::{self, hub},\n};",
        "use crate::spawn;",
        "use crate::{sys::fd, nap};",
        "use crate::sys::a;\nuse crate :: time;",
        "macro_rules! m { () => { $crate::time::x() } }",
        "#[cfg(test)] mod tests { } use crate::time;",
    ] {
        assert_eq!(count("hub/task.rs", bad), 1, "{bad}");
    }
    for good in [
        "use crate::sys::fd; use crate::hub::ready;",
        "// crate::time\nconst A: &str = \"crate::time\";",
        "use std::{time, thread}; pub(crate) fn time() {}",
        "use crate::{sys::{time, thread}, hub};",
        "#[cfg(test)] mod tests { use crate::time; }",
        "use super::super::sys; use super::time;",
    ] {
        assert_eq!(count("hub/task.rs", good), 0, "{good}");
    }
    assert_eq!(count("hub/task.rs", "use super::super::thread;"), 1);
    assert_eq!(count("hub/mod.rs", "use super::thread;"), 1);
    assert_eq!(count("sys.rs", "use super::{hub, time};"), 2);
    assert_eq!(count("time.rs", "use crate::hub;"), 0);
    assert_eq!(count("stray.rs", ""), 1);
    let found = layers.violations("hub/mod.rs", "//! Head.\n\nuse crate::time;\n");
    assert_eq!(
        found,
        ["src/hub/mod.rs:3: `hub` must not use `time`, which stands below it"]
    );
}
