//! The examples as `examples/README.md` shows them: the commands there are run, and print what stands there, in time.

use crate::{examples, lines};

fn readme() -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/README.md")).unwrap()
}

fn is_patched(shown: &lines::Shown) -> bool {
    shown.name.starts_with("patched_") || shown.name == "fetch_three"
}

#[test]
fn the_examples_print_what_is_shown_in_the_time_of_waiting_together() {
    let count = lines::check_all(
        &readme(),
        |shown| shown.is_of("") && !is_patched(shown),
        examples::binary,
    );
    assert!(count > 30, "only {count} commands");
}

#[test]
fn the_examples_on_patched_libc_do_too() {
    let count = lines::check_all(
        &readme(),
        |shown| shown.is_of("") && is_patched(shown),
        examples::binary,
    );
    assert_eq!(count, 5);
}

#[test]
fn every_row_and_every_example_is_shown() {
    let readme = readme();
    let headings: Vec<&str> = readme.lines().filter(|line| line.starts_with("### ")).collect();
    // One is a benchmark, one is tests.
    for row in (1..=31).filter(|row| ![20, 28].contains(row)) {
        let row = format!("(R{row})");
        assert!(headings.iter().any(|heading| heading.ends_with(&row)), "{row}");
    }
    let folder = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/examples")).unwrap();
    for entry in folder {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|end| end != "rs") && !path.join("main.rs").exists() {
            continue;
        }
        let name = path.file_stem().unwrap().to_str().unwrap();
        let told = |heading: &&str| heading[4..].split([' ', ',']).any(|word| word == name);
        assert!(headings.iter().any(told), "{name} is not in examples/README.md");
    }
}
