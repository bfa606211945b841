//! The examples, run as a user runs them: what they print, and how long they take.

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime};

use crate::support::fresh::ms;
use crate::support::lines;

/// The example's binary, which is beside this test's. `cargo test --test it` builds no example, so all of them are
/// built here when this one is missing, or older than a file that it was made from.
pub(crate) fn binary(name: &str) -> PathBuf {
    static BUILT: OnceLock<()> = OnceLock::new();
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(|deps| deps.parent()).unwrap();
    let path = profile.join("examples").join(name);
    if !is_up_to_date(&path) {
        BUILT.get_or_init(|| build_all(profile));
    }
    assert!(path.exists(), "no {}: cargo build --examples", path.display());
    path
}

/// Whether no file that cargo's `NAME.d` lists is newer than the binary.
fn is_up_to_date(binary: &Path) -> bool {
    let changed = |path: &Path| path.metadata().and_then(|it| it.modified());
    let (Ok(made), Ok(list)) = (changed(binary), std::fs::read_to_string(binary.with_extension("d"))) else {
        return false;
    };
    let (_, sources) = list.split_once(": ").expect("a rule of make");
    let mut sources = sources.split_whitespace();
    sources.all(|source| changed(Path::new(source)).is_ok_and(|changed| changed <= made))
}

/// Builds the examples with the profile, features and target that this test was built with.
fn build_all(profile: &Path) {
    let mut folder = profile.parent().unwrap();
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["build", "--examples"]);
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    for (is_on, feature) in [
        (cfg!(feature = "tls"), "tls"),
        (cfg!(feature = "sanitizer"), "sanitizer"),
    ] {
        if is_on {
            cargo.args(["--features", feature]);
        }
    }
    // With `--target` there is a folder for it in between.
    let target = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if target.ends_with("-linux-gnu") {
        cargo.args(["--target", target]);
        folder = folder.parent().unwrap();
    }
    let status = cargo.arg("--target-dir").arg(folder).status().expect("cargo runs");
    assert!(status.success(), "the examples do not build");
}

#[test]
fn a_binary_is_stale_when_a_source_is_newer_or_gone() {
    let folder = std::env::temp_dir().join(format!("greenthread-stale-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let [binary, list, source] = ["a", "a.d", "a.rs"].map(|name| folder.join(name));
    std::fs::write(&source, "").unwrap();
    assert!(!is_up_to_date(&binary), "it is missing");
    std::fs::write(&list, format!("{}: {}\n", binary.display(), source.display())).unwrap();
    let made = std::fs::File::create(&binary).unwrap();
    made.set_modified(SystemTime::now() + ms(10_000)).unwrap();
    assert!(is_up_to_date(&binary));
    made.set_modified(SystemTime::UNIX_EPOCH).unwrap();
    assert!(!is_up_to_date(&binary), "its source is newer");
    made.set_modified(SystemTime::now() + ms(10_000)).unwrap();
    std::fs::remove_file(&source).unwrap();
    assert!(!is_up_to_date(&binary), "its source is gone");
    std::fs::remove_dir_all(&folder).unwrap();
}

/// Runs one that must succeed within these bounds.
fn prints(name: &str, args: &[&str], at_least: Duration, at_most: Duration) -> Vec<String> {
    lines::prints(binary(name), args, at_least, at_most)
}

#[test]
fn echo_soak_finds_no_errors() {
    let lines = prints(
        "echo_soak",
        &["--connections", "300", "--seconds", "1"],
        ms(1000),
        ms(30_000),
    );
    assert!(lines[0].ends_with(" errors 0 wrong_bytes 0"), "{lines:?}");
}

#[test]
fn multi_core_serves_on_every_hub() {
    let lines = prints("multi_core", &["0.3"], ms(600), ms(30_000));
    assert_eq!(lines.len(), 3, "{lines:?}");
    for (count, line) in [(1, &lines[0]), (2, &lines[1])] {
        let rates = line.strip_prefix(&format!("hubs: {count}, requests/s: "));
        let (total, each) = rates.and_then(|rates| rates.split_once(' ')).unwrap();
        let each = each
            .trim_matches(['[', ']'])
            .split(", ")
            .map(|rate| rate.parse::<f64>().unwrap());
        let each: Vec<_> = each.collect();
        assert!(each.len() == count && each.iter().all(|rate| *rate > 0.0), "{line}");
        assert!(
            (each.iter().sum::<f64>() - total.parse::<f64>().unwrap()).abs() < 2.0,
            "{line}"
        );
    }
    let ratio = lines[2].strip_prefix("ratio: ").unwrap();
    assert!(ratio.parse::<f64>().unwrap() > 0.0, "{ratio}");
}

/// Ended with the test; its output stays open, or its prints would panic.
struct Server(Child, BufReader<ChildStdout>);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts one that does not end of itself; gives its first line.
fn start(name: &str, args: &[&str]) -> (Server, String) {
    let mut child = Command::new(binary(name))
        .args(args)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    output.read_line(&mut line).unwrap();
    (Server(child, output), line)
}

/// Starts one that serves; gives its address, the first word with a colon in it.
fn serve(name: &str, args: &[&str]) -> (Server, String) {
    let (server, line) = start(name, args);
    let address = line
        .split_whitespace()
        .find(|word| word.contains(':'))
        .map(String::from);
    (server, address.expect("it says where it listens"))
}

fn interrupt(server: &Server) {
    let pid = rustix::process::Pid::from_child(&server.0);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
}

#[test]
fn echo_client_talks_to_echo_server_directly_and_by_the_proxy() {
    let (_server, direct) = serve("echo_server", &["127.0.0.1:0"]);
    let (_proxy, proxied) = serve("tcp_proxy", &["127.0.0.1:0", &direct]);
    for address in [direct, proxied] {
        let lines = prints("echo_client", &[&address, "5", "20"], ms(0), ms(20_000));
        assert_eq!(lines, ["5 connections, 100 lines, all came back"]);
    }
}

#[test]
fn chat_server_tells_the_others() {
    use std::io::Write;
    let (_server, address) = serve("chat_server", &["127.0.0.1:0"]);
    let join = |name: &str| {
        let mut stream = std::net::TcpStream::connect(&address).unwrap();
        stream.set_read_timeout(Some(ms(20_000))).unwrap();
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "* your name?");
        writeln!(stream, "{name}").unwrap();
        assert_eq!(lines.next().unwrap().unwrap(), format!("* {name} is here"));
        (stream, lines)
    };
    let (_ann, mut at_ann) = join("ann");
    let (mut bob, at_bob) = join("bob");
    writeln!(bob, "hello").unwrap();
    drop((bob, at_bob));
    let heard: Vec<String> = at_ann
        .by_ref()
        .map(Result::unwrap)
        .take_while(|l| l != "* bob has left")
        .collect();
    assert_eq!(heard, ["* bob is here", "bob: hello"]);
}

/// A folder for one test, which it removes if it goes well.
fn folder(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("greenthread-it-{name}-{}", std::process::id()))
}

#[test]
fn patched_download_writes_two_files_in_full() {
    let folder = folder("download");
    prints(
        "patched_download",
        &["files", folder.to_str().unwrap()],
        ms(2000),
        ms(20_000),
    );
    for name in ["after2000.mp4", "after1500.mp4"] {
        let bytes = std::fs::read(folder.join(name)).unwrap();
        assert!(
            bytes.len() == 5_000_000 && bytes.iter().all(|byte| *byte == b'x'),
            "{name}"
        );
    }
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn fetch_three_saves_images() {
    for face in ["patched", "async"] {
        let folder = folder(face);
        prints("fetch_three", &[face, folder.to_str().unwrap()], ms(2000), ms(20_000));
        let image = std::fs::read_to_string(folder.join("two.jpg")).unwrap();
        assert_eq!(image, "/cars/2024__two.jpg".repeat(1000));
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 3);
        std::fs::remove_dir_all(folder).unwrap();
    }
}

#[test]
fn fetch_three_asks_for_the_urls_that_it_is_given() {
    for face in ["patched", "async"] {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/some/page", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            use std::io::Write;
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = BufReader::new(stream.try_clone().unwrap()).lines().map(Result::unwrap);
            let first = request.next().unwrap();
            request.find(|line| line.is_empty()).unwrap();
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
                .unwrap();
            first
        });
        let lines = prints("fetch_three", &[face, &url], ms(0), ms(20_000));
        assert_eq!(lines[..2], [format!("request: {url}"), format!("answer: {url} 5")]);
        assert_eq!(server.join().unwrap(), "GET /some/page HTTP/1.1");
    }
}

#[test]
fn echo_server_ends_well_by_ctrl_c() {
    let (mut server, address) = serve("echo_server", &["127.0.0.1:0"]);
    prints("echo_client", &[&address, "1", "1"], ms(0), ms(20_000));
    interrupt(&server);
    let start = Instant::now();
    let status = loop {
        if let Some(status) = server.0.try_wait().unwrap() {
            break status;
        }
        assert!(start.elapsed() < ms(20_000), "Ctrl-C does not end it");
        std::thread::sleep(ms(5));
    };
    assert!(status.success(), "{status}");
}

#[test]
fn graceful_stop_lets_a_connection_finish() {
    use std::io::Write;
    let (mut server, address) = serve("graceful_stop", &[]);
    let mut client = std::net::TcpStream::connect(&address).unwrap();
    client.set_read_timeout(Some(ms(20_000))).unwrap();
    let mut lines = BufReader::new(client.try_clone().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "what is to be done?");
    let pid = rustix::process::Pid::from_child(&server.0);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let mut said = String::new();
    server.1.read_line(&mut said).unwrap();
    assert_eq!(said, "SIGTERM: 1 to finish\n");
    // It takes no more, and finishes this one.
    let start = Instant::now();
    while std::net::TcpStream::connect(&address).is_ok() {
        assert!(start.elapsed() < ms(20_000), "it still listens");
    }
    writeln!(client, "this").unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "done: this");
    assert!(lines.next().is_none());
    assert!(server.0.wait().unwrap().success());
    said.clear();
    std::io::Read::read_to_string(&mut server.1, &mut said).unwrap();
    assert_eq!(said, "bye\n");
}

#[test]
fn protocol_server_answers_and_shuts_down() {
    for style in [&[][..], &["async"]] {
        let (mut server, address) = serve("protocol_server", &[style, &["127.0.0.1:0"]].concat());
        let ask = |commands: &[&str]| {
            let args = [style, &["client", &address], commands].concat();
            prints("protocol_server", &args, ms(0), ms(20_000))
        };
        let lines = ask(&["add 1 2 3", "nope", "add x"]);
        let wanted = [
            "Welcome.",
            "6",
            "Invalid command: nope",
            "Error: invalid digit found in string",
        ];
        assert_eq!(lines, wanted);
        assert_eq!(ask(&["shutdown"]), ["Welcome.", "Okay. Shutting down."]);
        assert!(server.0.wait().unwrap().success());
        let error = std::net::TcpStream::connect(&address).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    }
}

#[test]
fn ctrl_c_ends_a_loop_that_has_nothing_to_do() {
    let (mut child, line) = start("loop_control", &["forever"]);
    assert_eq!(line, "press Ctrl-C\n");
    interrupt(&child);
    // What the shell calls 130.
    assert_eq!(child.0.wait().unwrap().signal(), Some(libc::SIGINT));
}

#[test]
fn the_first_ctrl_c_cancels_the_main_task_and_the_second_ends_the_program() {
    for (style, presses, rest, status) in [
        (
            "green",
            1,
            &["cleaned up", "interrupted by Ctrl-C"][..],
            (Some(130), None),
        ),
        ("async", 1, &["cleaned up", "interrupted by Ctrl-C"], (Some(130), None)),
        ("stubborn", 2, &["and again"], (None, Some(libc::SIGINT))),
    ] {
        let (mut child, first) = start("interrupt", &[style]);
        assert_eq!(first, "press Ctrl-C\n");
        interrupt(&child);
        let (mut said, mut line) = (Vec::new(), String::new());
        while child.1.read_line(&mut line).unwrap() > 0 {
            said.push(std::mem::take(&mut line).trim_end().to_owned());
            if said.len() < presses {
                interrupt(&child);
            }
        }
        let ended = child.0.wait().unwrap();
        assert_eq!(
            (said, ended.code(), ended.signal()),
            (rest.iter().map(|line| line.to_string()).collect(), status.0, status.1),
            "{style}"
        );
    }
}

#[test]
fn async_iter_counts_in_each_way() {
    let numbers: Vec<_> = (1..100).map(|number: u32| number.to_string()).collect();
    for way in ["green", "async", "generator"] {
        assert_eq!(prints("async_iter", &[way], ms(0), ms(10_000)), numbers, "{way}");
    }
}
