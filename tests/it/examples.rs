//! The examples, run as a user runs them: what they print, and how long they take.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::lines::{self, begin, took};
use crate::thread_fresh::ms;

/// The example's binary, which cargo puts beside this test's; built if it is not there.
pub(crate) fn binary(name: &str) -> PathBuf {
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
    lines::run(binary(name), args)
}

/// Runs one that must succeed within these bounds.
fn prints(name: &str, args: &[&str], at_least: Duration, at_most: Duration) -> Vec<String> {
    lines::prints(binary(name), args, at_least, at_most)
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
fn queues_print_pythons_words_and_share_the_work() {
    let lines = prints("queues", &[], ms(1400), ms(10_000));
    assert_eq!(
        lines[..9],
        [
            "1",
            "foo",
            "0",
            "QueueEmpty",
            "pending after 1.0 s",
            "bar",
            "QueueFull",
            "smallest first: 1 2 3",
            "newest first: 2 1 3"
        ]
    );
    took(&lines, "10 jobs by 3 workers", 0.4, 1.0);
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

/// A folder for one test, which it removes if it goes well.
fn folder(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("greenthread-it-{name}-{}", std::process::id()))
}

#[test]
fn patched_sleep_interleaves_two_workers() {
    let lines = prints("patched_sleep", &[], ms(1000), ms(1450));
    assert_eq!(lines.len(), 11, "{lines:?}");
    assert_eq!(lines[..2], ["work1 step 1", "work2 step 1"]);
    let second = lines.iter().position(|line| line == "work2 step 2");
    assert!(
        second < lines.iter().position(|line| line == "work1 step 5"),
        "{lines:?}"
    );
}

#[test]
fn patched_download_asks_for_all_and_receives_the_quickest_first() {
    let lines = prints("patched_download", &[], ms(1000), ms(20_000));
    assert_eq!(lines.len(), 7, "{lines:?}");
    assert!(lines[..3].iter().all(|line| line.starts_with("GET: ")), "{lines:?}");
    let arrived = lines[3..6].iter().map(|line| {
        assert!(line.starts_with("1000000 bytes received from "), "{lines:?}");
        line.rsplit('/').next().unwrap()
    });
    assert_eq!(arrived.collect::<Vec<_>>(), ["after600", "after800", "after1000"]);
    took(&lines, "three downloads", 1.0, 2.4);
}

#[test]
fn patched_download_writes_two_files_in_full() {
    let folder = folder("download");
    let lines = prints(
        "patched_download",
        &["files", folder.to_str().unwrap()],
        ms(1000),
        ms(20_000),
    );
    assert!(lines[..2].iter().all(|line| line.starts_with("GET: ")), "{lines:?}");
    assert!(
        lines[2..4]
            .iter()
            .all(|line| line.starts_with("5000000 bytes written to ")),
        "{lines:?}"
    );
    took(&lines, "two files", 1.0, 1.8);
    for name in ["after1000.mp4", "after800.mp4"] {
        let bytes = std::fs::read(folder.join(name)).unwrap();
        assert!(
            bytes.len() == 5_000_000 && bytes.iter().all(|byte| *byte == b'x'),
            "{name}"
        );
    }
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn fetch_three_gets_pages_and_saves_images() {
    let folder = folder("images");
    let lines = prints(
        "fetch_three",
        &["patched", folder.to_str().unwrap()],
        ms(2000),
        ms(20_000),
    );
    for first in [0, 7] {
        assert_eq!(begin(&lines[first..first + 3], "发送请求： ").len(), 3, "{lines:?}");
    }
    let lengths = begin(&lines[3..6], "得到结果： ")
        .into_iter()
        .map(|line| line.rsplit(' ').next());
    let mut lengths: Vec<_> = lengths.collect();
    lengths.sort_unstable();
    assert_eq!(lengths, [Some("1000"), Some("5000"), Some("9000")]);
    took(&lines, "pages", 1.0, 3.0);
    let mut saved = begin(&lines[10..13], "下载完成： ");
    saved.sort_unstable();
    assert_eq!(saved, ["one.jpg 14000", "three.jpg 21000", "two.jpg 19000"]);
    took(&lines, "images", 1.0, 3.0);
    let image = std::fs::read_to_string(folder.join("two.jpg")).unwrap();
    assert_eq!(image, "/cars/2024__two.jpg".repeat(1000));
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn fetch_three_asks_for_the_urls_that_it_is_given() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/some/page", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        use std::io::Write;
        let (mut stream, _) = listener.accept().unwrap();
        let request = BufReader::new(stream.try_clone().unwrap()).lines().next();
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
            .unwrap();
        request.unwrap().unwrap()
    });
    let lines = prints("fetch_three", &[&url], ms(0), ms(20_000));
    assert_eq!(lines[..2], [format!("发送请求： {url}"), format!("得到结果： {url} 5")]);
    assert_eq!(server.join().unwrap(), "GET /some/page HTTP/1.1");
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

#[test]
fn subprocess_date_ticks_until_the_child_tells_the_date() {
    let lines = prints("subprocess_date", &[], ms(1000), ms(10_000));
    let (ticks, rest) = lines.split_at(lines.len() - 2);
    assert!(ticks.len() >= 3, "{lines:?}");
    assert!(
        ticks
            .iter()
            .enumerate()
            .all(|(i, line)| *line == format!("tick {}", i + 1))
    );
    assert!(rest[0].starts_with("Current date: 20"), "{lines:?}");
    assert_eq!(rest[1], "ended with exit status: 0");
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
    let (mut server, address) = serve("protocol_server", &["127.0.0.1:0"]);
    let ask = |commands: &[&str]| {
        let args: Vec<&str> = ["client", &address].iter().chain(commands).copied().collect();
        prints("protocol_server", &args, ms(0), ms(20_000))
    };
    let lines = ask(&["add 1 2 3", "nope", "add x"]);
    assert_eq!(lines[..3], ["Welecome.", "6", "Invalid command: nope"]);
    assert!(lines[3].starts_with("Error: ") && lines.len() == 4, "{lines:?}");
    assert_eq!(ask(&["shutdown"]), ["Welecome.", "Okay. Shutting down."]);
    assert!(server.0.wait().unwrap().success());
    let error = std::net::TcpStream::connect(&address).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
}

#[test]
fn streams_wget_asks_all_and_gets_their_headers_in_a_second() {
    let lines = prints("streams_wget", &[], ms(1000), ms(20_000));
    let hosts = ["127.0.0.1", "127.0.0.2", "127.0.0.3"];
    assert_eq!(lines[..3], hosts.map(|host| format!("wget {host}...")));
    for host in hosts {
        let headers = begin(&lines, &format!("{host} header > "));
        assert_eq!(
            headers[..2],
            ["HTTP/1.1 200 OK", "Content-Type: text/html"],
            "{lines:?}"
        );
        assert_eq!(headers.len(), 3, "{lines:?}");
    }
    took(&lines, "three at once", 1.0, 3.0);
}

#[test]
fn thread_pool_runs_five_at_once_and_copies_a_folder() {
    let lines = prints("thread_pool", &[], ms(2000), ms(20_000));
    assert_eq!(lines[..5], ["<PoolFuture state=running>"; 5]);
    assert_eq!(lines[5..10], ["<PoolFuture state=pending>"; 5]);
    for wave in [0..5, 5..10] {
        let mut digits = lines[10..][wave.clone()].to_vec();
        digits.sort_unstable();
        assert_eq!(digits, wave.map(|n| n.to_string()).collect::<Vec<_>>());
    }
    took(&lines, "ten jobs", 2.0, 10.0);
    assert_eq!(lines[21..], ["20 files copied, 20 byte-equal"]);
}

#[cfg(feature = "process-pool")]
#[test]
fn process_pool_tests_primes_in_order_and_outlives_a_worker() {
    let lines = prints("process_pool", &["1000000007"], ms(0), ms(30_000));
    let primes: Vec<_> = lines.iter().filter_map(|line| line.split_once(" is prime: ")).collect();
    assert!(
        primes[..5].iter().all(|(_, is_prime)| *is_prime == "False"),
        "{lines:?}"
    );
    assert!(
        primes[..5].windows(2).all(|two| two[0].0 < two[1].0),
        "in order: {lines:?}"
    );
    assert_eq!(primes[5..], [("1000000007", "True")]);
    let rest = [
        "2 worker processes besides this one",
        "broken: true",
        "the next one is well: true",
    ];
    assert_eq!(lines[6..], rest);
}

#[cfg(feature = "process-pool")]
#[test]
fn executor_leaves_green_threads_running() {
    let lines = prints("executor", &[], ms(4000), ms(30_000));
    let pools = [
        "default thread pool go",
        "custom thread pool go",
        "custom process pool go",
    ];
    assert_eq!(lines[..3], pools);
    assert!((3.0..6.0).contains(&lines::seconds(&lines, "in turn")), "{lines:?}");
    assert_eq!(begin(&lines[4..7], "开始下载： "), ["one.jpg", "two.jpg", "three.jpg"]);
    assert_eq!(
        begin(&lines, "下载完成： "),
        ["one.jpg 8000", "two.jpg 8000", "three.jpg 10000"]
    );
    took(&lines, "downloads", 1.0, 3.0);
    assert!(begin(&lines[7..], "tick").len() >= 4, "{lines:?}");
}

#[test]
fn debug_errors_tells_what_nobody_would_hear_of_and_goes_on() {
    let lines = prints("debug_errors", &[], ms(300), ms(20_000));
    assert!(
        lines[0].starts_with("executing ") && lines[0].ends_with(" seconds"),
        "{lines:?}"
    );
    let took = lines[0].rsplit(' ').nth(1).and_then(|took| took.parse::<f64>().ok());
    assert!(took.is_some_and(|took| (0.2..2.0).contains(&took)), "{lines:?}");
    assert!(
        lines[1].starts_with("task exception was never retrieved: no milk"),
        "{lines:?}"
    );
    assert_eq!(lines[2], "a panic is its own task's: the tea was cold");
    assert!(
        lines[3].starts_with("this operation would block forever: ") && lines[3].ends_with("waits for a Promise"),
        "{lines:?}"
    );
    assert_eq!(lines[4..], ["and the hub goes on: 42"]);
}
