//! The examples with axum, run as a user runs them: what they print and answer, and how long they take.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

#[path = "../../../tests/it/support/lines.rs"]
mod lines;

fn readme() -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md")).unwrap()
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// `web` on a port that the system chose, and a `redis-server` on a socket in a folder of its own.
struct Web {
    web: Child,
    redis: Child,
    folder: PathBuf,
    address: String,
    lines: mpsc::Receiver<String>,
}

fn interrupt(child: &mut Child) {
    let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(kill.unwrap().success());
    child.wait().unwrap();
}

impl Drop for Web {
    fn drop(&mut self) {
        let _ = self.web.kill();
        let _ = self.web.wait();
        interrupt(&mut self.redis);
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Web {
    fn start(name: &str) -> Web {
        let folder = std::env::temp_dir().join(format!("gt-web-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let socket = folder.join("redis.sock");
        let redis = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"])
            .arg(&socket)
            .arg("--dir")
            .arg(&folder)
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed");
        let start = Instant::now();
        while !socket.exists() {
            assert!(start.elapsed() < ms(30_000), "redis-server does not come up");
            std::thread::sleep(ms(20));
        }
        let mut web = Command::new(env!("CARGO_BIN_EXE_web"))
            .args(["--host", "127.0.0.1", "--port", "0"])
            .args(["--redis", &format!("redis+unix://{}", socket.display())])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(web.stdout.take().unwrap()).lines();
        let first = out.next().unwrap().unwrap();
        let address = first
            .strip_prefix("listening on http://")
            .expect("its first line")
            .to_owned();
        let (tell, lines) = mpsc::channel();
        std::thread::spawn(move || out.map_while(Result::ok).try_for_each(|line| tell.send(line)));
        Web {
            web,
            redis,
            folder,
            address,
            lines,
        }
    }

    /// The status and the body of an answer.
    fn get(&self, path: &str) -> (u16, String) {
        get(&self.address, path)
    }
}

fn get(address: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n"
    )
    .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let status = text.split(' ').nth(1).unwrap().parse().unwrap();
    (status, text.split_once("\r\n\r\n").unwrap().1.to_owned())
}

/// What the index shows of `web`: the path of each `curl`, and what comes.
fn shown() -> Vec<(String, String)> {
    let text = readme();
    let (_, web) = text.split_once("\n### web\n").expect("it is there");
    let lines: Vec<&str> = web.lines().take_while(|line| !line.starts_with("###")).collect();
    let curls = lines.windows(2).filter_map(|two| {
        let (_, path) = two[0].strip_prefix("$ curl ")?.split_once("http://127.0.0.1:8000")?;
        let path = path.split([' ', '\'']).next()?;
        Some((path.to_owned(), two[1].to_owned()))
    });
    curls.collect()
}

#[test]
fn web_answers_as_it_is_shown_and_logs() {
    let mut web = Web::start("answers");
    let mut wanted = shown();
    assert_eq!(wanted.len(), 6);
    wanted.extend([("/items/5", r#"{"item_id":5,"q":null}"#), ("/nowhere", "404")].map(|(a, b)| (a.into(), b.into())));
    for (path, wanted) in wanted {
        let (status, body) = web.get(&path);
        match status {
            200 => assert_eq!(body, wanted, "{path}"),
            _ => assert_eq!(status.to_string(), wanted, "{path}: {body}"),
        }
        let mut line = web.lines.recv_timeout(ms(10_000)).unwrap();
        if path == "/red" {
            assert_eq!(line, "a request has come");
            line = web.lines.recv_timeout(ms(10_000)).unwrap();
        }
        let rest = format!("] \"GET {path} HTTP/1.1\" {status} {}", body.len());
        assert!(line.starts_with("127.0.0.1 - - [") && line.ends_with(&rest), "{line}");
    }
    let (_, body) = web.get("/items/x");
    assert!(body.contains("detail"), "{body}");
    interrupt(&mut web.web);
    let rest: Vec<_> = web.lines.iter().collect();
    assert_eq!(rest.last().unwrap(), "stopped", "Ctrl-C: {rest:?}");
}

/// The answers to so many at once, and how long they took.
fn at_once(web: &Web, count: usize, path: &'static str) -> (Vec<(u16, String)>, Duration) {
    let start = Instant::now();
    let clients: Vec<_> = (0..count)
        .map(|_| {
            let address = web.address.clone();
            std::thread::spawn(move || get(&address, path))
        })
        .collect();
    let answers = clients.into_iter().map(|client| client.join().unwrap()).collect();
    (answers, start.elapsed())
}

#[test]
fn two_reds_take_three_seconds_and_fifty_pages_less_than_one() {
    let web = Web::start("waits");
    let (answers, took) = at_once(&web, 2, "/red");
    let hash = (200, String::from(r#"{"key1":1,"key2":2,"key3":3}"#));
    assert_eq!(answers, [hash.clone(), hash]);
    assert!(took >= ms(3000) && took < ms(4500), "{took:?}");
    let lines: Vec<_> = web.lines.try_iter().collect();
    assert_eq!(
        lines[..2],
        ["a request has come", "a request has come"],
        "both came before the first answer: {lines:?}"
    );
    // Of three times one, as the machine may have something else to do.
    let times = [(); 3].map(|()| {
        let (answers, took) = at_once(&web, 50, "/hello/bob");
        let hello = (200, String::from("<h1>hello, bob!</h1>"));
        assert!(answers.iter().all(|answer| *answer == hello), "{answers:?}");
        assert!(took >= ms(500), "{took:?}");
        took
    });
    assert!(times.iter().any(|took| *took < ms(1000)), "{times:?}");
}

#[test]
fn bridges_and_websockets_print_what_is_shown() {
    let text = readme();
    let binary = |name: &str| {
        PathBuf::from(match name {
            "websocket" => env!("CARGO_BIN_EXE_websocket"),
            _ => env!("CARGO_BIN_EXE_bridges"),
        })
    };
    assert_eq!(lines::check_all(&text, |shown| shown.is_of("axum"), binary), 2);
}
