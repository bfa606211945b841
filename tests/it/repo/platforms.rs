//! What differs between platforms is in `sys`: no other code asks for which target it is compiled.

use super::tidy::{code_only, sources};

const NAMES: [&str; 8] = [
    "target_os",
    "target_arch",
    "target_env",
    "target_vendor",
    "target_family",
    "target_abi",
    "target_endian",
    "target_pointer_width",
];

/// Whole features that some platforms lack: the file, and how many lines of it ask.
const FEATURES: [(&str, usize); 1] = [("lib.rs", 2)];

/// The lines of the file that ask for the target.
fn asking(path: &str, text: &str) -> Vec<String> {
    let code = code_only(text);
    let is_name = |word: &str| NAMES.contains(&word);
    let asks = |line: &str| line.split(|c: char| !c.is_alphanumeric() && c != '_').any(is_name);
    let lines = code.lines().zip(text.lines()).enumerate();
    lines
        .filter(|(_, (code, _))| asks(code))
        .map(|(i, (_, line))| format!("src/{path}:{}: {}", i + 1, line.trim()))
        .collect()
}

#[test]
fn only_sys_asks_for_the_target() {
    let mut found = Vec::new();
    for source in sources("src") {
        let lines = asking(&source.path, &source.text);
        let allowed = FEATURES.iter().find(|(path, _)| *path == source.path);
        if source.path.starts_with("sys/") || allowed.is_some_and(|(_, count)| *count == lines.len()) {
            continue;
        }
        found.extend(lines);
    }
    assert!(
        found.is_empty(),
        "this belongs into src/sys/platform, behind its interface:\n{}",
        found.join("\n")
    );
}

#[test]
fn a_line_that_asks_is_found() {
    let count = |text: &str| asking("time.rs", text).len();
    assert_eq!(count("#[cfg(target_os = \"linux\")]\nfn f() {}\n"), 1);
    assert_eq!(count("if cfg!(target_arch = \"x86_64\") {}"), 1);
    assert_eq!(
        count("/// #[cfg(target_os = \"linux\")]\nfn target() {}\nconst A: &str = \"target_os\";"),
        0
    );
}
