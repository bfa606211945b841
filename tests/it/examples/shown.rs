//! The examples as `examples/README.md` shows them: the commands there are run, and print what stands there, in time.

use super::programs;
use crate::support::lines;

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
        programs::binary,
    );
    assert!(count > 30, "only {count} commands");
}

#[test]
fn the_examples_on_patched_libc_do_too() {
    let count = lines::check_all(
        &readme(),
        |shown| shown.is_of("") && is_patched(shown),
        programs::binary,
    );
    assert_eq!(count, 5);
}

#[test]
fn every_example_is_shown() {
    let readme = readme();
    let headings: Vec<&str> = readme.lines().filter(|line| line.starts_with("### ")).collect();
    let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/examples");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(examples).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|end| end == "rs") || path.join("main.rs").exists() {
            names.push(path.file_stem().unwrap().to_str().unwrap().to_owned());
        }
    }
    // Two packages of their own, whose programs their manifests name.
    for package in ["drivers", "axum"] {
        let manifest = std::fs::read_to_string(format!("{examples}/{package}/Cargo.toml")).unwrap();
        let programs = manifest.split("[[bin]]").skip(1);
        let named = programs.filter_map(|text| text.split('"').nth(1).map(String::from));
        names.extend(named.filter(|name| name != "plaintext")); // a server for measurements
    }
    for name in &names {
        let told = |heading: &&str| heading[4..].split([' ', ',']).any(|word| word == name);
        assert!(headings.iter().any(told), "{name} is not in examples/README.md");
    }
    assert!(names.len() > 30, "only {}", names.len());
}
