//! What the compatibility tests share: patched green threads, a measure of concurrency, and servers on free ports.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use greenthread::{JoinHandle, monkey, spawn};

pub fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Runs `f` as a green thread of an OS thread of its own, all patched.
pub fn patched<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> T {
    monkey::patch_all().unwrap();
    std::thread::spawn(|| greenthread::run(f)).join().unwrap()
}

/// Runs `f` 20 times at once, each of which waits for `each`; checks that they do not wait one after the other, and
/// that they all ran on one OS thread.
pub fn at_once<T: Send + 'static>(each: Duration, f: impl Fn(usize) -> T + Send + Sync + 'static) -> Vec<T> {
    let f = Arc::new(f);
    let start = Instant::now();
    let handles: Vec<JoinHandle<(T, i64)>> = (0..20)
        .map(|n| {
            let f = f.clone();
            // SAFETY: asks for a number.
            spawn(move || (f(n), unsafe { libc::syscall(libc::SYS_gettid) }))
        })
        .collect();
    let results: Vec<_> = handles.into_iter().map(|handle| handle.join().unwrap()).collect();
    let took = start.elapsed();
    assert!(took >= each, "not early: {took:?}");
    assert!(took < each * 15, "at once: {took:?}");
    assert!(
        results.iter().all(|(_, thread)| *thread == results[0].1),
        "one OS thread"
    );
    results.into_iter().map(|(value, _)| value).collect()
}

/// Answers each HTTP request with its path, after `delay`; on green threads of its own OS thread.
pub fn http_server(delay: Duration) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || answer(&stream, delay));
        }
    });
    address
}

/// Reads requests and answers them, until the other end closes.
pub fn answer(stream: &TcpStream, delay: Duration) -> Option<()> {
    let mut lines = BufReader::new(stream.try_clone().ok()?);
    loop {
        let mut request = String::new();
        if lines.read_line(&mut request).ok()? == 0 {
            return None;
        }
        let mut header = String::new();
        while lines.read_line(&mut header).ok()? > 2 {
            header.clear();
        }
        std::thread::sleep(delay);
        let path = request.split(' ').nth(1)?;
        let mut stream = stream;
        write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{path}",
            path.len()
        )
        .ok()?;
    }
}

/// A port that nobody listens on now.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A server process with a folder of its own; ended by its process id, and the folder with it.
pub struct Server {
    child: Child,
    folder: PathBuf,
    pub port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        // SAFETY: a signal to our own child.
        unsafe { libc::kill(self.child.id() as i32, libc::SIGTERM) };
        let start = Instant::now();
        while start.elapsed() < ms(10_000) {
            if let Ok(Some(_)) = self.child.try_wait() {
                let _ = std::fs::remove_dir_all(&self.folder);
                return;
            }
            std::thread::sleep(ms(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("greenthread-{name}-{}-{}", std::process::id(), free_port()));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// Waits until something listens on the server's port.
fn up(mut server: Server) -> Server {
    let start = Instant::now();
    loop {
        if TcpStream::connect(("127.0.0.1", server.port)).is_ok() {
            return server;
        }
        if let Some(status) = server.child.try_wait().unwrap() {
            panic!(
                "the server ended: {status}; see {}",
                server.folder.join("log").display()
            );
        }
        assert!(start.elapsed() < ms(60_000), "the server does not come up");
        std::thread::sleep(ms(50));
    }
}

fn start(mut command: Command, folder: PathBuf, port: u16) -> Server {
    let log = std::fs::File::create(folder.join("log")).unwrap();
    let child = command
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap();
    up(Server { child, folder, port })
}

pub fn redis() -> Server {
    let (folder, port) = (folder("redis"), free_port());
    let mut command = Command::new("redis-server");
    command
        .args([
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
            "--port",
            &port.to_string(),
        ])
        .arg("--dir")
        .arg(&folder);
    start(command, folder, port)
}

/// Runs a command as a user that may run a database; as we are, if we are not root.
fn as_user(user: &str, program: &Path) -> Command {
    // SAFETY: asks for a number.
    if unsafe { libc::geteuid() } != 0 {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid", user, "--regid", user, "--clear-groups"])
        .arg(program);
    command
}

fn own(user: &str, folder: &Path) {
    // SAFETY: asks for a number.
    if unsafe { libc::geteuid() } == 0 {
        let status = Command::new("chown")
            .arg(format!("{user}:{user}"))
            .arg(folder)
            .status()
            .unwrap();
        assert!(status.success());
    }
}

pub fn postgres() -> Server {
    let (folder, port) = (folder("postgres"), free_port());
    own("postgres", &folder);
    let bin = std::fs::read_dir("/usr/lib/postgresql")
        .expect("PostgreSQL is installed")
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .max()
        .unwrap();
    let data = folder.join("data");
    let made = as_user("postgres", &bin.join("initdb"))
        .args(["-A", "trust", "-U", "postgres", "--no-sync", "-D"])
        .arg(&data)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let mut command = as_user("postgres", &bin.join("postgres"));
    command
        .args([
            "-c",
            "fsync=off",
            "-c",
            "listen_addresses=127.0.0.1",
            "-p",
            &port.to_string(),
            "-k",
        ])
        .arg(&folder)
        .arg("-D")
        .arg(&data);
    start(command, folder, port)
}

pub fn mariadb() -> Server {
    let (folder, port) = (folder("mariadb"), free_port());
    own("mysql", &folder);
    let data = folder.join("data");
    let made = as_user("mysql", Path::new("mariadb-install-db"))
        .args([
            "--no-defaults",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
        ])
        .arg(format!("--datadir={}", data.display()))
        // Of its own: it begins by clearing away what it takes for its leftovers, which may be another's.
        .arg(format!("--tmpdir={}", folder.display()))
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let mut command = as_user("mysql", Path::new("/usr/sbin/mariadbd"));
    command
        .args([
            "--no-defaults",
            "--bind-address=127.0.0.1",
            "--skip-networking=0",
            "--skip-name-resolve",
        ])
        .arg(format!("--port={port}"))
        .arg(format!("--datadir={}", data.display()))
        .arg(format!("--tmpdir={}", folder.display()))
        .arg(format!("--socket={}", folder.join("sock").display()))
        .arg(format!("--pid-file={}", folder.join("pid").display()));
    start(command, folder, port)
}
