//! The guide in `docs/guide`: its programs are doctests of `src/lib.rs`, and its excerpts are those of files that are
//! built.

use std::fs;
use std::path::{Path, PathBuf};

const GUIDE: &str = "docs/guide/src";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(root().join(path)).expect("the file is there, and is text")
}

/// The pages, by their paths from the repository on.
fn pages() -> Vec<PathBuf> {
    let mut pages = Vec::new();
    for folder in [GUIDE.to_owned(), format!("{GUIDE}/migration")] {
        let entries = fs::read_dir(root().join(&folder)).expect("the guide has this folder");
        let names = entries.map(|entry| entry.expect("it can be listed").file_name());
        let paths = names.map(|name| Path::new(&folder).join(name));
        pages.extend(
            paths.filter(|path| path.extension().is_some_and(|end| end == "md") && !path.ends_with("SUMMARY.md")),
        );
    }
    pages
}

/// A block of code: what follows its first fence, its lines, and the text before it.
struct Block<'a> {
    kind: &'a str,
    code: Vec<&'a str>,
    before: &'a str,
}

fn blocks(page: &str) -> Vec<Block<'_>> {
    let parts: Vec<&str> = page.split("```").collect();
    let pairs = parts[..parts.len() - 1].chunks_exact(2);
    pairs
        .map(|pair| {
            let mut lines = pair[1].lines();
            Block {
                kind: lines.next().unwrap_or_default(),
                code: lines.map(str::trim).collect(),
                before: pair[0],
            }
        })
        .collect()
}

/// The last file of `examples` that the text names in backquotes.
fn named(text: &str) -> Option<&str> {
    let codes = text.split('`').skip(1).step_by(2);
    codes
        .filter(|code| code.starts_with("examples/") && code.ends_with(".rs"))
        .last()
}

/// Whether the lines of `code` stand together in `file`, at any indentation.
fn is_excerpt(code: &[&str], file: &str) -> bool {
    let lines: Vec<&str> = file.lines().map(str::trim).collect();
    !code.is_empty() && lines.windows(code.len()).any(|part| part == code)
}

/// What is wrong with the shape of a page.
fn faults(page: &str) -> Vec<&'static str> {
    let blocks = blocks(page);
    let program = blocks.first().is_some_and(|block| {
        block.kind == "rust"
            && block.code.iter().any(|line| line.starts_with("fn main()"))
            && !block.before.contains("\n## ")
    });
    let mut faults = Vec::new();
    if !program {
        faults.push("does not begin with a program");
    }
    if page.lines().rfind(|line| line.starts_with("## ")) != Some("## What can go wrong") {
        faults.push("does not end with what can go wrong");
    }
    let (mut file, mut wrong) = (None, false);
    for block in &blocks {
        file = named(block.before).or(file);
        if block.kind == "rust,ignore" {
            wrong |= !file.is_some_and(|file| is_excerpt(&block.code, &read(file)));
        }
    }
    if wrong {
        faults.push("has a block that is neither run nor in the example it names");
    }
    faults
}

/// The targets of the links of a page, without those to elsewhere.
fn links(page: &str) -> impl Iterator<Item = &str> {
    let targets = page.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets.filter(|target| !target.contains("://") && !target.starts_with('#'))
}

#[test]
fn each_page_is_listed_and_run() {
    let (summary, lib) = (read(format!("{GUIDE}/SUMMARY.md")), read("src/lib.rs"));
    let pages = pages();
    assert!(pages.len() > 15, "{pages:?}");
    for page in pages {
        let path = page.to_str().expect("the name is text");
        let short = path.strip_prefix(GUIDE).expect("it is a page").trim_start_matches('/');
        assert!(
            links(&summary).any(|link| link == short),
            "SUMMARY.md does not list {short}"
        );
        assert!(lib.contains(&format!("\"{path}\"")), "src/lib.rs does not run {path}");
    }
}

#[test]
fn each_page_begins_with_a_program_and_ends_with_what_can_go_wrong() {
    for page in pages() {
        let found = faults(&read(&page));
        assert!(found.is_empty(), "{}: {found:?}", page.display());
    }
}

#[test]
fn the_links_of_the_guide_lead_to_files() {
    for page in pages()
        .into_iter()
        .chain([PathBuf::from(format!("{GUIDE}/SUMMARY.md"))])
    {
        let folder = root().join(page.parent().expect("it is in a folder"));
        let text = read(&page);
        let broken: Vec<&str> = links(&text).filter(|target| !folder.join(target).exists()).collect();
        assert!(broken.is_empty(), "{}: {broken:?}", page.display());
    }
}

#[test]
fn a_wrong_page_is_found() {
    let good = "# A\n\n```rust\nfn main() {}\n```\n\n## What can go wrong\n";
    assert_eq!(faults(good), [""; 0]);
    assert_eq!(faults("# A\n\n```rust\nfn main() {}\n```\n\n## More\n").len(), 1);
    assert_eq!(
        faults("# A\n\n```text\nfn main() {}\n```\n\n## What can go wrong\n").len(),
        1
    );
    let excerpt = |code: &str| {
        good.replace(
            "\n## ",
            &format!("\n`examples/generator.rs`\n```rust,ignore\n{code}\n```\n## "),
        )
    };
    assert_eq!(faults(&excerpt("    fn main() {")), [""; 0]);
    assert_eq!(faults(&excerpt("fn main() { 1 }")).len(), 1);
    assert_eq!(links("[a](b.md) [c](https://d) [e](#f)").collect::<Vec<_>>(), ["b.md"]);
}
