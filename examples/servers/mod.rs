//! What the examples share: their faces, folders that vanish, and servers of their own on loopback.

#![allow(dead_code, reason = "each example uses a part of it")]

use std::error::Error;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use greenthread::future::block_on;
use greenthread::spawn;
use greenthread::thread::JoinError;

pub(crate) type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

/// The main of an example that has two faces: its first argument may say which.
pub(crate) fn faces(patched: fn(Vec<String>) -> Outcome, asynchronous: fn(Vec<String>) -> Outcome) -> ExitCode {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    let face = match args.first().map(String::as_str) {
        Some("async") => asynchronous,
        _ => patched,
    };
    args.drain(
        ..usize::from(
            args.first()
                .is_some_and(|first| ["patched", "async"].contains(&&**first)),
        ),
    );
    match face(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Waits for all of them, then says how long that took; the first error, if any of them has one.
pub(crate) fn join_all<J, T, E>(what: &str, all: impl IntoIterator<Item = J>) -> Outcome<Vec<T>>
where
    J: Future<Output = Result<Result<T, E>, JoinError>>,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    let start = Instant::now();
    let all: Vec<_> = all.into_iter().collect(); // now all run
    let ended: Vec<_> = all.into_iter().map(block_on).collect();
    println!("{what}: {:.2} s", start.elapsed().as_secs_f64());
    let values = ended.into_iter().map(|end| match end {
        Ok(value) => value.map_err(Into::into),
        Err(panicked) => Err(panicked.to_string().into()),
    });
    values.collect()
}

/// As though a server were far away: on loopback an answer may be there before anybody has to wait for it.
pub(crate) const FAR_AWAY: Duration = Duration::from_millis(50);

/// A folder: the one that was asked for, which stays; or a fresh one, which is removed with this.
pub(crate) struct Folder {
    pub(crate) path: PathBuf,
    fresh: bool,
}

impl Folder {
    pub(crate) fn given_or_fresh(given: Option<String>) -> io::Result<Folder> {
        match given.map(PathBuf::from) {
            Some(path) => {
                fs::create_dir_all(&path)?;
                Ok(Folder { path, fresh: false })
            }
            None => Folder::fresh(),
        }
    }

    fn fresh() -> io::Result<Folder> {
        let mut n = 0;
        loop {
            let name = format!("greenthread-{}-{n}", std::process::id());
            let path = std::env::temp_dir().join(name);
            match fs::create_dir(&path) {
                Ok(()) => return Ok(Folder { path, fresh: true }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => n += 1,
                Err(error) => return Err(error),
            }
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.fresh
            && let Err(error) = fs::remove_dir_all(&self.path)
        {
            eprintln!("{}: {error}", self.path.display());
        }
    }
}

/// A server process; ended with this, by its process id, and its folder removed.
pub(crate) struct Server {
    pub(crate) url: String,
    child: Child,
    folder: Folder,
}

impl Drop for Server {
    fn drop(&mut self) {
        // Nothing is to be saved.
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait()) {
            eprintln!("process {}: {error}", self.child.id());
        }
    }
}

impl Server {
    /// Starts `program`, and waits until it listens. If this program is killed, the server is as well.
    fn start(program: &str, args: &[String], folder: Folder, address: SocketAddr, url: String) -> Outcome<Server> {
        let log = folder.path.join("log");
        let output = File::create(&log)?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", program]).args(args);
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let child = command.spawn().map_err(|error| format!("setpriv: {error}"))?;
        let mut server = Server { url, child, folder };
        let start = Instant::now();
        while TcpStream::connect(address).is_err() {
            let ended = server.child.try_wait()?;
            if ended.is_some() || start.elapsed() > Duration::from_secs(60) {
                let log = fs::read_to_string(&log).unwrap_or_default();
                return Err(format!("{program} does not come up; install it, or give a URL. Its words:\n{log}").into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }
}

/// A loopback port that nobody listens on, outside the range from which the system gives ports to clients. Programs that
/// start at the same time look at different ones.
fn free_port() -> io::Result<u16> {
    let first = std::process::id() % 625 * 16;
    let mut ports = (0..10_000)
        .map(|n| 20_000 + (first + n) % 10_000)
        .filter_map(|n| u16::try_from(n).ok());
    let free = ports.find(|&port| TcpListener::bind(("127.0.0.1", port)).is_ok());
    free.ok_or_else(|| io::Error::other("no free port"))
}

/// A Redis server that keeps nothing, with this password.
pub(crate) fn redis(password: Option<&str>) -> Outcome<Server> {
    let (folder, port) = (Folder::fresh()?, free_port()?);
    let mut args: Vec<String> = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        .map(String::from)
        .into();
    args.extend([format!("--port {port}"), format!("--dir {}", folder.path.display())]);
    args.extend(password.map(|password| format!("--requirepass {password}")));
    let user = password.map_or_else(String::new, |password| format!(":{password}@"));
    let url = format!("redis://{user}127.0.0.1:{port}/");
    Server::start("redis-server", &args, folder, ([127, 0, 0, 1], port).into(), url)
}

/// A MariaDB server with a fresh database, whose root has no password.
pub(crate) fn mariadb() -> Outcome<Server> {
    let (folder, port) = (Folder::fresh()?, free_port()?);
    let file = |name| folder.path.join(name).display().to_string();
    let mut args = vec![String::from("--no-defaults"), format!("--datadir={}", file("data"))];
    // Of its own: it begins by clearing away what it takes for its leftovers, which may be another's.
    args.push(format!("--tmpdir={}", folder.path.display()));
    args.extend(["--innodb-log-file-size=4M", "--innodb-flush-method=nosync"].map(String::from));
    // It wants to be told that root may run it; the folder's owner is who we are.
    if fs::metadata(&folder.path)?.uid() == 0 {
        args.push(String::from("--user=root"));
    }
    let made = Command::new("mariadb-install-db")
        .args(&args)
        .args(["--auth-root-authentication-method=normal", "--skip-test-db"])
        .output()
        .map_err(|error| format!("mariadb-install-db: {error}; install MariaDB, or give a URL"))?;
    if !made.status.success() {
        return Err(format!("mariadb-install-db: {}", String::from_utf8_lossy(&made.stderr)).into());
    }
    args.extend(["--bind-address=127.0.0.1", "--skip-networking=0", "--skip-name-resolve"].map(String::from));
    args.extend([
        format!("--port={port}"),
        format!("--socket={}", file("socket")),
        format!("--pid-file={}", file("pid")),
    ]);
    let installed = Path::new("/usr/sbin/mariadbd"); // which is not in every user's PATH
    let program = if installed.exists() {
        "/usr/sbin/mariadbd"
    } else {
        "mariadbd"
    };
    let url = format!("mysql://root@127.0.0.1:{port}/mysql");
    Server::start(program, &args, folder, ([127, 0, 0, 1], port).into(), url)
}

/// What a web server says to the path of a GET, and how long it thinks about it.
pub(crate) type Page = fn(&str) -> (Duration, Vec<u8>);

/// A web server in patched green threads: a plain loop that blocks, one green thread a connection.
pub(crate) fn http(page: Page) -> io::Result<SocketAddr> {
    serve(move |stream| answer(&mut &stream, page))
}

/// A page that says the path a thousand times, after a second.
pub(crate) fn echo_path(path: &str) -> (Duration, Vec<u8>) {
    (Duration::from_secs(1), path.repeat(1000).into_bytes())
}

/// The same server on OS threads, for who does not patch; it says [`echo_path`].
pub(crate) fn http_on_threads() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || answer(&mut &stream, echo_path));
        }
    });
    Ok(address)
}

/// Accepts connections for ever, each served in a green thread of its own.
pub(crate) fn serve<F>(connection: F) -> io::Result<SocketAddr>
where
    F: Fn(TcpStream) -> io::Result<()> + Clone + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    spawn(move || {
        for stream in listener.incoming() {
            let connection = connection.clone();
            spawn(move || {
                if let Err(error) = stream.and_then(connection) {
                    eprintln!("a connection of the server: {error}");
                }
            });
        }
    });
    Ok(address)
}

/// Answers GETs until the client closes, or says that it will.
pub(crate) fn answer(stream: &mut (impl Read + Write), page: Page) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut close = false;
    while !close {
        let mut request = String::new();
        if reader.read_line(&mut request)? == 0 {
            break;
        }
        let mut header = String::new();
        while reader.read_line(&mut header)? > 2 {
            close |= header.trim_end().eq_ignore_ascii_case("connection: close");
            header.clear();
        }
        let (delay, body) = page(request.split(' ').nth(1).unwrap_or("/"));
        std::thread::sleep(delay);
        // In one write: a second one would wait for the client to acknowledge the first.
        let mut reply = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
        reply.extend(body);
        let stream = reader.get_mut();
        stream.write_all(&reply)?;
        stream.flush()?;
    }
    Ok(())
}
