//! The example `crawl`, run as a program on its generated site.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

/// The example's binary; Cargo builds it with the tests, but not when it is asked for one test target only.
fn binary() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let build = || {
        let folder = std::env::current_exe().unwrap();
        let profile = folder.parent().and_then(|deps| deps.parent()).unwrap().to_owned();
        let binary = profile.join("examples/crawl");
        if !binary.exists() {
            let mut cargo = Command::new(env!("CARGO"));
            cargo.args(["build", "--example", "crawl", "--manifest-path"]);
            cargo.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"));
            cargo.arg("--target-dir").arg(profile.parent().unwrap());
            if profile.ends_with("release") {
                cargo.arg("--release");
            }
            assert!(cargo.status().unwrap().success(), "the example does not build");
        }
        binary
    };
    BUILT.get_or_init(build).clone()
}

fn crawl(args: &str) -> Output {
    let mut command = Command::new(binary());
    command.args(args.split_whitespace()).stdin(Stdio::null());
    command.output().expect("the example runs")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// The number that is the value of `key`.
fn number(json: &str, key: &str) -> f64 {
    let (_, rest) = json.split_once(&format!("\"{key}\": ")).expect(key);
    let end = rest.find([',', '}']).unwrap();
    rest[..end].parse().expect(key)
}

#[test]
fn a_site_full_of_trouble_is_crawled_and_the_trouble_named() {
    let output = crawl("--generated --limit 300 --delay-ms 20 --timeout-ms 1500 --json");
    let json = text(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(json.lines().count(), 1, "{json}");
    assert!(json.starts_with('{') && json.ends_with("}\n"), "{json}");
    assert_eq!(number(json, "pages"), 300.0);
    let (wall, sequential) = (number(json, "wall_s"), number(json, "sequential_s"));
    assert!(sequential / wall >= 10.0, "{sequential} / {wall}");
    assert!(number(json, "bytes") > 300.0 * 100.0, "{json}");
    assert!(
        number(json, "redirects") >= 1.0 && number(json, "other_hosts") >= 1.0,
        "{json}"
    );
    assert!(number(json, "p50_ms") >= 20.0, "{json}");
    assert!(number(json, "p99_ms") >= number(json, "p50_ms"), "{json}");
    let named = [
        "404 Not Found",
        "500 Internal Server Error",
        "bad response: not HTTP/1",
        "connection closed in the middle",
        "redirect loop",
        "timed out",
    ];
    for kind in named {
        assert!(number(json, kind) >= 1.0, "{kind}: {json}");
    }
}

#[test]
fn bad_arguments_are_said_and_nothing_is_crawled() {
    for (args, part) in [
        ("--limit none", "--limit takes a number"),
        ("--what", "unknown option"),
        ("https://example.com/", "https is not supported"),
    ] {
        let output = crawl(args);
        assert_eq!(output.status.code(), Some(2), "{args}: {output:?}");
        assert!(text(&output.stderr).contains(part), "{args}: {output:?}");
        assert!(output.stdout.is_empty(), "{args}: {output:?}");
    }
    let help = crawl("--help");
    assert!(help.status.success() && text(&help.stdout).contains("--concurrency"));
}

#[test]
fn an_unreachable_host_is_a_named_error() {
    // A port that was just given back: nobody listens there.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let output = crawl(&format!("http://{address}/ --json"));
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(number(text(&output.stdout), "connection refused"), 1.0);
}

#[test]
fn ctrl_c_ends_it_with_the_table() {
    let mut command = Command::new(binary());
    // One page at a time: this would take ten seconds.
    command.args([
        "--generated",
        "--concurrency",
        "1",
        "--delay-ms",
        "200",
        "--limit",
        "50",
    ]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(1_200));
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let table = text(&output.stdout);
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    assert!(
        table.starts_with("Interrupted") && table.contains("one at a time"),
        "{table}"
    );
    let pages = table.lines().find_map(|line| line.strip_prefix("pages ")).unwrap();
    let pages: u32 = pages.trim().parse().unwrap();
    assert!((1..50).contains(&pages), "{table}");
    assert_eq!(text(&output.stderr), "", "progress is for a terminal");
}
