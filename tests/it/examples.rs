//! The examples, run as a user runs them: what they print, and how long they take.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::thread_fresh::ms;

/// The example's binary, which cargo puts beside this test's; built if it is not there.
fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(|deps| deps.parent()).unwrap();
    let path = profile.join("examples").join(name);
    if !path.exists() {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--example", name, "--target-dir"]);
        cargo.arg(profile.parent().unwrap());
        if profile.ends_with("release") {
            cargo.arg("--release");
        }
        assert!(
            cargo
                .current_dir(env!("CARGO_MANIFEST_DIR"))
                .status()
                .unwrap()
                .success()
        );
    }
    path
}

fn run(name: &str, args: &[&str]) -> (Output, Vec<String>, Duration) {
    let path = binary(name);
    let start = Instant::now();
    let output = Command::new(path).args(args).output().unwrap();
    let lines = String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(String::from)
        .collect();
    (output, lines, start.elapsed())
}

/// Runs one that must succeed within these bounds.
fn prints(name: &str, args: &[&str], at_least: Duration, at_most: Duration) -> Vec<String> {
    let (output, lines, took) = run(name, args);
    assert!(output.status.success(), "{output:?}");
    assert!((at_least..at_most).contains(&took), "{name} took {took:?}");
    lines
}

fn last_words(lines: &[String]) -> Vec<&str> {
    lines
        .iter()
        .filter_map(|line| line.strip_prefix('<')?.rsplit(' ').next())
        .collect()
}

#[test]
fn gevent_basic_counts_in_turn_or_together() {
    let lines = prints("gevent_basic", &["seq"], ms(0), ms(5000));
    assert_eq!(last_words(&lines).concat(), "012340123401234");
    assert!(lines[0].contains(": f(5)> 0"), "{lines:?}");
    let lines = prints("gevent_basic", &["sleep"], ms(5000), ms(10_000));
    assert_eq!(last_words(&lines).concat(), "000111222333444");
}

#[test]
fn run_entry_prints_what_is_run_only() {
    assert_eq!(prints("run_entry", &[], ms(0), ms(5000)), ["hello,world", "15", "42"]);
}

#[test]
fn await_nesting_waits_in_sequence_and_together() {
    let lines = prints("await_nesting", &[], ms(10_000), ms(14_000));
    assert_eq!(lines[..4], ["1", "3", "2", "4"]);
    assert_eq!(lines[5..7], ["[5, 7, 11, 17]", "结束 None"]);
}

#[test]
fn future_obj_gives_values_or_says_that_it_never_will() {
    let lines = prints("future_obj", &[], ms(2000), ms(2900));
    assert_eq!(
        lines,
        [
            "50! = 30414093201713378043612608166064768844377641568960512000000000000",
            "666"
        ]
    );
    let (output, lines, _) = run("future_obj", &["never"]);
    assert_eq!((output.status.code(), lines.len()), (Some(1), 0));
    assert!(String::from_utf8_lossy(&output.stderr).contains("error: this operation would block forever"));
}

#[test]
fn cancel_timeout_prints_pythons_lines() {
    assert_eq!(
        prints("cancel_timeout", &[], ms(2000), ms(10_000)),
        [
            "timeout!",
            "cancel_me(): before sleep",
            "cancel_me(): cancel sleep",
            "cancel_me(): after sleep",
            "main(): cancel_me is cancelled now"
        ]
    );
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

/// Ended with the test; its output stays open, or its prints would panic.
struct Server(Child, #[allow(dead_code)] BufReader<ChildStdout>);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts one that serves; gives its address, the first word with a colon in it.
fn serve(name: &str, args: &[&str]) -> (Server, String) {
    let mut child = Command::new(binary(name))
        .args(args)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    output.read_line(&mut line).unwrap();
    let address = line
        .split_whitespace()
        .find(|word| word.contains(':'))
        .map(String::from);
    (Server(child, output), address.expect("it says where it listens"))
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

#[test]
fn patched_sleep_interleaves_two_workers() {
    let lines = prints("patched_sleep", &[], ms(500), ms(900));
    assert_eq!(lines.len(), 11, "{lines:?}");
    assert_eq!(lines[..2], ["work1 step 1", "work2 step 1"]);
    let second = lines.iter().position(|line| line == "work2 step 2");
    assert!(
        second < lines.iter().position(|line| line == "work1 step 5"),
        "{lines:?}"
    );
}

#[test]
fn patched_download_asks_for_all_before_any_answer() {
    let lines = prints("patched_download", &[], ms(300), ms(800));
    assert_eq!(lines.len(), 7, "{lines:?}");
    assert!(lines[..3].iter().all(|line| line.starts_with("GET: ")), "{lines:?}");
    let received = |line: &String| line.starts_with("1000000 bytes received from ");
    assert!(lines[3..6].iter().all(received), "{lines:?}");
    assert!(lines[6].starts_with("3000000 bytes in "), "{lines:?}");
}

#[test]
fn echo_server_ends_well_by_ctrl_c() {
    let (mut server, address) = serve("echo_server", &["127.0.0.1:0"]);
    prints("echo_client", &[&address, "1", "1"], ms(0), ms(20_000));
    // SAFETY: a plain system call; the child is ours and has not been waited for.
    assert_eq!(unsafe { libc::kill(server.0.id().cast_signed(), libc::SIGINT) }, 0);
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
