//! The example `crawl`, run as a program on its generated site; and several of them on a site of ours, through Redis.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use super::programs::binary;

fn crawl(args: &str) -> Output {
    start(args).0.take().unwrap().wait_with_output().unwrap()
}

/// A crawl that goes on; killed if the test fails.
struct Running(Option<Child>);

fn start(args: &str) -> Running {
    let mut command = Command::new(binary("crawl"));
    command.args(args.split_whitespace()).stdin(Stdio::null());
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    Running(Some(child.expect("the example runs")))
}

impl Running {
    fn signal(&self, name: &str) {
        let pid = self.0.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }

    /// Its output, when it has ended.
    fn end(mut self) -> Output {
        self.0.take().unwrap().wait_with_output().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
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
        ("--frontier http://127.0.0.1/ http://127.0.0.1/", "redis://HOST:PORT/DB"),
        ("--frontier redis://127.0.0.1/", "--frontier needs URLs"),
        ("--compare --native", "not both"),
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
    // One page at a time: this would take ten seconds.
    let running = start("--generated --concurrency 1 --delay-ms 200 --limit 50");
    std::thread::sleep(Duration::from_millis(1_200));
    running.signal("-INT");
    let output = running.end();
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

#[test]
fn compare_crawls_the_same_site_by_both_clients() {
    let args = "--generated --limit 100 --delay-ms 5 --compare";
    let output = crawl(args);
    let table = text(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    let row = |name: &str| {
        let row = table.lines().find_map(|line| line.strip_prefix(name)).expect(name);
        row.split("  ")
            .map(str::trim)
            .filter(|cell| !cell.is_empty())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        row("client "),
        ["unmodified ureq, patched libc", "greenthread's own sockets"]
    );
    assert_eq!(row("pages "), ["100", "100"]);
    for name in [
        "bytes ",
        "requests ",
        "errors ",
        "latency p50 ",
        "latency p99 ",
        "pages/s ",
        "time ",
        "  404 Not Found ",
    ] {
        assert_eq!(row(name).len(), 2, "{table}");
    }
    let output = crawl(&format!("{args} --json"));
    let (patched, native) = text(&output.stdout).split_once(", \"native\": {").expect("two keys");
    assert!(
        patched.starts_with("{\"patched\": {") && native.ends_with("}}\n"),
        "{output:?}"
    );
    assert_eq!((number(patched, "pages"), number(native, "pages")), (100.0, 100.0));
}

#[test]
fn the_site_is_served_for_others_until_ctrl_c() {
    let mut server = start("--serve 0 --generated --delay-ms 1");
    let mut line = String::new();
    let mut stdout = BufReader::new(server.0.as_mut().unwrap().stdout.take().unwrap());
    stdout.read_line(&mut line).unwrap();
    let url = line.split(' ').next().unwrap();
    let json = crawl(&format!("{url} --limit 30 --json"));
    assert_eq!(number(text(&json.stdout), "pages"), 30.0, "{line}: {json:?}");
    server.signal("-INT");
    assert_eq!(server.end().status.code(), Some(0));
}

/// A real server on a free port of loopback, with a folder of its own; stopped when dropped.
struct Redis {
    child: Child,
    port: u16,
    folder: PathBuf,
}

impl Redis {
    fn start() -> Redis {
        loop {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let folder = std::env::temp_dir().join(format!("greenthread-crawl-{}-{port}", std::process::id()));
            std::fs::create_dir_all(&folder).unwrap();
            let mut command = Command::new("redis-server");
            command.args([
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--appendonly",
                "no",
                "--port",
                &port.to_string(),
            ]);
            command
                .arg("--dir")
                .arg(&folder)
                .stdin(Stdio::null())
                .stdout(Stdio::piped());
            let mut child = command
                .spawn()
                .expect("redis-server is installed (Debian: redis-server)");
            let log = BufReader::new(child.stdout.take().unwrap());
            let mut lines = log.lines().map_while(Result::ok);
            let up = lines.any(|line| line.contains("Ready to accept connections"));
            // Nobody reads on: what it would write fails, and that is nothing to it.
            let redis = Redis { child, port, folder };
            if up {
                return redis;
            } // else somebody was faster to take the port
        }
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    /// Waits until so many processes have joined the first run of `crawl`.
    fn wait_for_processes(&self, crawl: &str, count: u64) {
        let mut connection = redis::Client::open(self.url()).unwrap().get_connection().unwrap();
        let begun = Instant::now();
        let ask = || {
            redis::cmd("HGET")
                .arg(format!("crawl:{crawl}:1:state"))
                .arg("processes")
                .to_owned()
        };
        while ask().query::<Option<u64>>(&mut connection).unwrap() < Some(count) {
            assert!(begun.elapsed() < Duration::from_secs(30), "the processes do not join");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A site of [`PAGES`], as a tree; every fifth is reached through a redirect only. It counts what is asked for.
struct Site {
    address: SocketAddr,
    asked: Arc<Asked>,
}

#[derive(Default)]
struct Asked {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    hits: HashMap<String, usize>,
    count: usize,
    /// So many requests are answered; the others wait.
    allowed: usize,
}

const PAGES: usize = 400;
const REDIRECTS: usize = (PAGES - 1) / 5;
const WORKERS: usize = 10;

impl Site {
    fn start() -> Site {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Asked::default());
        let for_threads = asked.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let asked = for_threads.clone();
                std::thread::spawn(move || converse(&stream.unwrap(), &asked));
            }
        });
        Site { address, asked }
    }

    /// From now on the first `count` requests are answered.
    fn allow(&self, count: usize) {
        self.asked.state.lock().unwrap().allowed = count;
        self.asked.changed.notify_all();
    }

    /// Waits until there were so many requests.
    fn wait_for_requests(&self, count: usize) {
        let state = self.asked.state.lock().unwrap();
        let patience = Duration::from_secs(30);
        let few = |state: &mut State| state.count < count;
        let (_state, waited) = self.asked.changed.wait_timeout_while(state, patience, few).unwrap();
        assert!(!waited.timed_out(), "too few requests");
    }

    /// Every page was asked for. How many requests were repeated.
    fn repeated(&self) -> usize {
        let state = self.asked.state.lock().unwrap();
        assert_eq!(state.hits.len(), PAGES + REDIRECTS, "{:?}", state.hits);
        state.count - state.hits.len()
    }
}

/// One connection of the site.
fn converse(mut stream: &TcpStream, asked: &Asked) -> Option<()> {
    let mut lines = BufReader::new(stream).lines();
    loop {
        let first = lines.next()?.ok()?;
        while !lines.next()?.ok()?.is_empty() {}
        let path = first.split(' ').nth(1)?.to_owned();
        let mut state = asked.state.lock().unwrap();
        *state.hits.entry(path.clone()).or_default() += 1;
        state.count += 1;
        let number = state.count;
        asked.changed.notify_all();
        drop(asked.changed.wait_while(state, |state| state.allowed < number).unwrap());
        std::thread::sleep(Duration::from_millis(5)); // a site takes its time
        let reply = match path.strip_prefix("/moved/") {
            Some(page) => format!("HTTP/1.1 302 Found\r\nLocation: /page/{page}\r\nContent-Length: 0\r\n\r\n"),
            None => {
                let page: usize = path.strip_prefix("/page/").map_or(0, |number| number.parse().unwrap());
                let children = (page * 4 + 1..=page * 4 + 4).filter(|child| *child < PAGES);
                let kind = |child: usize| if child.is_multiple_of(5) { "moved" } else { "page" };
                let links: String = children
                    .map(|child| format!("<a href=/{}/{child}>", kind(child)))
                    .collect();
                let len = links.len();
                format!("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {len}\r\n\r\n{links}")
            }
        };
        stream.write_all(reply.as_bytes()).ok()?;
    }
}

/// A crawl of `site` that others may join.
fn start_shared(redis: &Redis, site: &Site, more: &str) -> Running {
    let (frontier, address) = (redis.url(), site.address);
    start(&format!(
        "--frontier {frontier} --crawl test --concurrency {WORKERS} --json {more} http://{address}/"
    ))
}

/// Its own pages, and those of all processes.
fn pages(output: &Output) -> (usize, usize) {
    let json = text(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    let (own, all) = json.split_once("\"all\": ").expect("the crawl is shared");
    (number(own, "pages") as usize, number(all, "pages") as usize)
}

#[test]
fn two_processes_share_a_crawl_and_fetch_each_page_once() {
    let (redis, site) = (Redis::start(), Site::start());
    let one = start_shared(&redis, &site, "");
    let other = start_shared(&redis, &site, "--native");
    redis.wait_for_processes("test", 2);
    site.allow(usize::MAX);
    let (one, other) = (one.end(), other.end());
    let ((one, all), (other, all_too)) = (pages(&one), pages(&other));
    assert_eq!((one + other, all, all_too), (PAGES, PAGES, PAGES));
    assert!(one > 0 && other > 0, "{one} + {other}");
    assert_eq!(site.repeated(), 0);

    // The crawl is over: one of the same name begins anew.
    assert_eq!(pages(&start_shared(&redis, &site, "").end()), (PAGES, PAGES));
}

#[test]
fn two_processes_meet_their_limit_exactly() {
    let (redis, site) = (Redis::start(), Site::start());
    let one = start_shared(&redis, &site, "--limit 101");
    let other = start_shared(&redis, &site, "--limit 101");
    redis.wait_for_processes("test", 2);
    let refused = start_shared(&redis, &site, "--limit 102").end();
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        text(&refused.stderr).contains("goes on with --limit 101, not 102"),
        "{refused:?}"
    );
    site.allow(usize::MAX);
    let ((one, all), (other, all_too)) = (pages(&one.end()), pages(&other.end()));
    assert_eq!((one + other, all, all_too), (101, 101, 101));
}

/// Two processes with all their workers waiting for a reply.
fn two_in_the_middle(redis: &Redis, site: &Site) -> (Running, Running) {
    let one = start_shared(redis, site, "");
    redis.wait_for_processes("test", 1);
    let other = start_shared(redis, site, "");
    redis.wait_for_processes("test", 2);
    site.allow(100);
    site.wait_for_requests(100 + 2 * WORKERS);
    (one, other)
}

#[test]
fn what_a_killed_process_had_to_do_is_done_by_the_other() {
    let (redis, site) = (Redis::start(), Site::start());
    let (one, other) = two_in_the_middle(&redis, &site);
    one.signal("-KILL");
    let killed = one.end();
    assert!(killed.status.code().is_none() && killed.stdout.is_empty(), "{killed:?}");
    site.allow(usize::MAX);
    let (own, all) = pages(&other.end());
    assert_eq!(all, PAGES, "no page is lost, none counts twice");
    assert!((PAGES - 100..PAGES).contains(&own), "{own}");
    let repeated = site.repeated();
    assert!(
        repeated <= WORKERS,
        "{repeated}: more than the killed one had in flight"
    );
}

#[test]
fn what_a_stopped_process_had_to_do_counts_once() {
    let (redis, site) = (Redis::start(), Site::start());
    let (one, other) = two_in_the_middle(&redis, &site);
    one.signal("-STOP");
    site.allow(usize::MAX);
    let (own, all) = pages(&other.end());
    assert_eq!(all, PAGES);
    one.signal("-CONT");
    let (late, all) = pages(&one.end());
    assert_eq!(all, PAGES);
    assert!((PAGES..=PAGES + WORKERS).contains(&(own + late)), "{own} + {late}");
    assert!(site.repeated() <= WORKERS);
}

#[test]
fn ctrl_c_leaves_the_shared_crawl_to_the_next() {
    let (redis, site) = (Redis::start(), Site::start());
    let one = start_shared(&redis, &site, "");
    site.allow(100);
    site.wait_for_requests(100 + WORKERS);
    one.signal("-INT");
    let one = one.end();
    assert_eq!(one.status.code(), Some(130), "{one:?}");
    let done = number(text(&one.stdout), "pages") as usize;
    site.allow(usize::MAX);
    let begun = Instant::now();
    let (own, all) = pages(&start_shared(&redis, &site, "").end());
    assert_eq!((own + done, all), (PAGES, PAGES));
    assert!(
        begun.elapsed() < Duration::from_secs(4),
        "it had to wait as for the dead"
    );
    assert!(site.repeated() <= WORKERS);
}

#[test]
fn a_lost_redis_is_said() {
    let (mut redis, site) = (Redis::start(), Site::start());
    let one = start_shared(&redis, &site, "");
    site.allow(50);
    site.wait_for_requests(50 + WORKERS);
    redis.child.kill().unwrap();
    redis.child.wait().unwrap();
    site.allow(usize::MAX);
    let lost = one.end();
    let said = format!("crawl: Redis at 127.0.0.1:{}", redis.port);
    assert_eq!(lost.status.code(), Some(1), "{lost:?}");
    assert!(text(&lost.stderr).starts_with(&said), "{lost:?}");
    assert!(number(text(&lost.stdout), "pages") > 0.0, "{lost:?}");

    let dead = start_shared(&redis, &site, "").end();
    assert_eq!(dead.status.code(), Some(1), "{dead:?}");
    assert!(
        text(&dead.stderr).contains("Connection refused") && dead.stdout.is_empty(),
        "{dead:?}"
    );
}
