//! Runs the workloads on every peer, round by round, and prints tables:
//! `cargo run --release --bin compare -- [-r ROUNDS] [WORKLOAD[:N] ..]`; or one build of ours against another, see
//! [`against`].

mod against;
mod load;
mod table;

use std::io::{Error, Read};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use load::Dialogue;
use table::Results;

/// The peers, the words that start them, and what they can do.
const PEERS: &[(&str, &[&str], &[&str])] = &[
    (
        "ours",
        &["ours"],
        &["switch", "spawn", "yield", "chan", "mem", "timers", "echo", "http"],
    ),
    ("bare", &["peers", "bare"], &["switch", "spawn", "yield", "chan"]),
    ("epoll", &["peers", "epoll"], &["echo"]),
    (
        "tokio",
        &["peers", "tokio"],
        &["switch", "spawn", "yield", "chan", "mem", "timers", "echo", "http"],
    ),
    (
        "may",
        &["peers", "may"],
        &["switch", "spawn", "yield", "chan", "mem", "timers", "echo"],
    ),
    (
        "threads",
        &["peers", "threads"],
        &["switch", "spawn", "yield", "chan", "echo"],
    ),
    ("gevent", &[PYTHON, "gevent"], &["echo"]),
    ("uvloop", &[PYTHON, "uvloop"], &["echo"]),
];
/// Stands for the Python of `PEERS_PYTHON`, which has gevent and uvloop, and its script.
const PYTHON: &str = "python";
const ALL: &[&str] = &[
    "switch",
    "spawn",
    "yield",
    "chan",
    "mem:10000",
    "mem:100000",
    "timers:10000",
    "timers:100000",
    "echo",
];
/// With so many connections each.
const ECHO: &[usize] = &[1, 50, 1000];
const HTTP: &[usize] = &[64];
const LOAD_TIME: Duration = Duration::from_secs(1);
const LIMIT: Duration = Duration::from_secs(120);

fn main() {
    let mut rounds = None;
    let (mut other, mut bar) = (None, 1.03);
    let mut workloads = Vec::new();
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "-r" => rounds = Some(words.next().and_then(|n| n.parse().ok()).expect("-r ROUNDS")),
            "--against" => other = Some(PathBuf::from(words.next().expect("--against PATH"))),
            "--bar" => bar = words.next().and_then(|n| n.parse().ok()).expect("--bar RATIO"),
            name => workloads.push(name.to_owned()),
        }
    }
    if let Some(other) = other {
        raise_open_files();
        let rounds = rounds.unwrap_or(15);
        let holds = against::Against { other, bar, rounds }.run(&workloads);
        std::process::exit(i32::from(!holds));
    }
    let rounds = rounds.unwrap_or(5);
    if workloads.is_empty() {
        workloads = ALL.iter().map(|name| name.to_string()).collect();
    }
    raise_open_files();
    for workload in workloads {
        let (name, n) = workload.split_once(':').unwrap_or((&workload, ""));
        assert!(
            PEERS[0].2.contains(&name),
            "{name}: no such workload; there are {ALL:?}"
        );
        assert!(
            name != "http" || cfg!(feature = "http"),
            "http: build it with --features http"
        );
        let python = std::env::var_os("PEERS_PYTHON");
        let mut results = Results::default();
        for round in 1..=rounds {
            let here = |peer: &&(&str, &[&str], &[&str])| peer.1[0] != PYTHON || python.is_some();
            for (peer, command, _) in PEERS.iter().filter(|peer| peer.2.contains(&name)).filter(here) {
                results.begin(peer, round);
                let program = self::command(command);
                let done = match name {
                    "echo" => serve_program(program, name, &load::ECHO, ECHO, &mut results),
                    "http" => serve_program(program, name, &load::HTTP, HTTP, &mut results),
                    _ => work_program(program, name, n, &mut results),
                };
                if let Err(error) = done {
                    eprintln!("{peer} {workload}: {error}");
                }
            }
            eprintln!("{workload}: round {round} of {rounds}");
        }
        results.print();
    }
}

/// The program that stands beside this one, or the script.
fn command(words: &[&str]) -> Command {
    if let (PYTHON, Some(python)) = (words[0], std::env::var_os("PEERS_PYTHON")) {
        let mut command = Command::new(python);
        command
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/src/echo.py"))
            .args(&words[1..]);
        return command;
    }
    let mut command = Command::new(here(words[0]));
    command.args(&words[1..]).stdin(Stdio::null());
    command
}

/// A program that stands beside this one.
fn here(name: &str) -> PathBuf {
    let this: PathBuf = std::env::current_exe().expect("the path of this program");
    this.with_file_name(name)
}

/// Runs a workload to its end and takes its lines.
fn work_program(mut command: Command, name: &str, n: &str, results: &mut Results) -> Result<(), Error> {
    command.arg(name).args(Some(n).filter(|n| !n.is_empty()));
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let status = wait(&mut child)?;
    // the few lines are in the pipe
    for line in std::io::read_to_string(child.stdout.take().expect("piped"))?.lines() {
        results.take(line);
    }
    if status.success() {
        Ok(())
    } else {
        Err(Error::other(status.to_string()))
    }
}

fn wait(child: &mut Child) -> Result<std::process::ExitStatus, Error> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if start.elapsed() > LIMIT {
            child.kill()?;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A server, which ends with this value.
struct Server {
    child: Child,
    port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// Starts a server on core 0, and waits until it accepts.
    fn start(mut command: Command, workload: &str) -> Result<Server, Error> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        command.args([workload, &port.to_string()]);
        // SAFETY: between fork and exec there is but one system call.
        unsafe { command.pre_exec(|| pin(0)) };
        let child = command.spawn()?;
        let server = Server { child, port };
        let begin = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if begin.elapsed() > Duration::from_secs(20) {
                return Err(Error::other("the server did not come up"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(server)
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to end, and gives what it said on stderr.
    fn stop(mut self) -> Result<Vec<u8>, Error> {
        // SAFETY: no pointers; a child that is waited for only below.
        unsafe { libc::kill(self.pid() as i32, libc::SIGTERM) };
        let mut said = Vec::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            stderr.read_to_end(&mut said)?;
        }
        self.child.wait()?;
        Ok(said)
    }
}

/// Loads a server from core 1.
fn serve_program(
    command: Command,
    workload: &str,
    dialogue: &'static Dialogue,
    connections: &[usize],
    results: &mut Results,
) -> Result<(), Error> {
    let server = Server::start(command, workload)?;
    for &connections in connections {
        let (pid, port) = (server.pid(), server.port);
        let load = move || pin(1).and_then(|()| load::load(dialogue, pid, port, connections, against::SPAN));
        let figures = std::thread::spawn(load).join().expect("no panic")?;
        for (metric, value, unit) in figures {
            results.add(&format!("{workload}{connections}"), metric, value, unit);
        }
    }
    Ok(())
}

/// Binds the calling thread to a core, if the machine has more than one.
fn pin(core: usize) -> Result<(), Error> {
    // SAFETY: cpu_set_t is plain bits, and is there during the call.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(core, &mut set);
        match libc::sched_setaffinity(0, size_of_val(&set), &set) {
            0 => Ok(()),
            _ if libc::sysconf(libc::_SC_NPROCESSORS_ONLN) < 2 => Ok(()),
            _ => Err(Error::last_os_error()),
        }
    }
}

/// As many open files as the system allows, for the servers too.
fn raise_open_files() {
    // SAFETY: rlimit is plain numbers, and is there during the calls.
    unsafe {
        let mut limit: libc::rlimit = std::mem::zeroed();
        if libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
        }
    }
}
