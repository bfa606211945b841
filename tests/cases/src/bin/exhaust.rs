//! Want of descriptors and of a reader of stderr, signals without end, stops, and children: nothing stands still,
//! leaks or fails for good.

use std::io::{self, Read, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use cases::{argument, ms, os, patched, scenarios};
use greenthread::net::{TcpListener, TcpStream, UnixStream};
use greenthread::process::{Command, Stdio};
use greenthread::server::StreamServer;
use greenthread::{fs, sleep, spawn, spawn_local, thread, threadpool, timeout, yield_now};

/// stderr is a pipe that is full and has no reader that empties it; a server whose handlers fail reports each of them
/// there. The hub goes on.
fn stderr_full() {
    let this = std::env::current_exe().unwrap();
    let mut command = std::process::Command::new(this);
    command.arg("stderr_full_server").stderr(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    assert!(scenarios::ends_within(&mut child, ms(25_000)), "it stands still");
    assert!(child.wait().unwrap().success());
}

fn stderr_full_server() {
    let address = serve(TcpListener::bind("127.0.0.1:0").unwrap());
    let ticks = Arc::new(AtomicU64::new(0));
    let theirs = ticks.clone();
    spawn_local(move || {
        loop {
            sleep(ms(1));
            theirs.fetch_add(1, SeqCst);
        }
    });
    let clients = std::thread::spawn(move || {
        // The handler's read fails, and a line is written.
        for _ in 0..3000 {
            if let Ok(mut client) = std::net::TcpStream::connect_timeout(&address, ms(5000)) {
                let _ = client.write_all(b"x");
                os::reset_at_close(&client);
            }
        }
        let before = ticks.load(SeqCst);
        os::sleep(ms(500));
        ticks.load(SeqCst) > before
    });
    while !clients.is_finished() {
        sleep(ms(5));
    }
    assert!(clients.join().unwrap(), "the ticker stands still");
}

/// An echo server that is never stopped.
fn serve(listener: TcpListener) -> std::net::SocketAddr {
    let address = listener.local_addr().unwrap();
    let server = StreamServer::new(listener, |mut stream: TcpStream, _| -> io::Result<()> {
        let mut block = [0; 100];
        loop {
            let len = stream.read(&mut block)?;
            if len == 0 {
                return Ok(());
            }
            stream.write_all(&block[..len])?;
        }
    });
    server.start().unwrap();
    std::mem::forget(server);
    address
}

/// A server at its limit of descriptors does not spin, and recovers.
fn full_server() {
    let address = serve(TcpListener::bind("127.0.0.1:0").unwrap());
    yield_now();
    os::limit_descriptors(os::top_descriptor() + 50);
    let this = std::env::current_exe().unwrap();
    let mut flood = Command::new(this)
        .args(["connect_many", &address.port().to_string()])
        .spawn()
        .unwrap();
    sleep(ms(200));
    let processor = os::processor_time();
    sleep(ms(1500));
    let processor = os::processor_time() - processor;
    assert!(
        processor < ms(750),
        "{processor:?} of processor time in 1.5 s while it is full"
    );
    flood.wait().unwrap();
    os::limit_descriptors(os::top_descriptor() + 60);
    let mut client = TcpStream::connect(address).unwrap();
    client.write_all(b"x").unwrap();
    client.set_read_timeout(Some(ms(5000))).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap(), 1, "it does not recover");
}

/// The clients of `full_server`: 300 connections to the port in the second argument, for 2 s.
fn connect_many() {
    let port: u16 = argument(2).expect("a port").parse().expect("a number");
    let all: Vec<_> = (0..300)
        .filter_map(|_| std::net::TcpStream::connect(("127.0.0.1", port)).ok())
        .collect();
    os::sleep(ms(2000));
    drop(all);
}

#[derive(Default)]
struct Busy {
    stop: AtomicBool,
    echoes: AtomicU64,
    ticks: AtomicU64,
    early: AtomicU64,
    errors: AtomicU64,
}

impl Busy {
    fn expect(&self, holds: bool, what: &str) {
        if !holds {
            eprintln!("{what}");
            self.errors.fetch_add(1, SeqCst);
        }
    }
}

/// Echoes, timers, children, jobs and files, while something is done to the process: nothing goes wrong.
fn busy(during: impl FnOnce() + Send + 'static) {
    let shared = Arc::new(Busy::default());
    let mut all = Vec::new();
    for number in 0..20 {
        let busy = shared.clone();
        all.push(spawn(move || echo(&busy, number)));
        let busy = shared.clone();
        all.push(spawn(move || tick(&busy, number)));
    }
    let during = std::thread::spawn(during);
    while !during.is_finished() {
        sleep(ms(10));
    }
    during.join().unwrap();
    shared.stop.store(true, SeqCst);
    let failed = timeout(ms(10_000), || {
        thread::join_all(all).iter().filter(|one| one.is_err()).count()
    });
    assert_eq!(failed.expect("it ends"), 0);
    let [echoes, ticks, early, errors] =
        [&shared.echoes, &shared.ticks, &shared.early, &shared.errors].map(|count| count.load(SeqCst));
    assert!(echoes > 20 && ticks > 20, "{echoes} echoes, {ticks} ticks");
    assert_eq!((early, errors, os::zombies()), (0, 0, 0), "early, errors, zombies");
}

fn echo(busy: &Busy, number: u8) {
    let (mut near, mut far) = UnixStream::pair().unwrap();
    let peer = spawn(move || {
        let mut block = [0; 64];
        while let Ok(len @ 1..) = far.read(&mut block) {
            far.write_all(&block[..len]).unwrap();
        }
    });
    let mut count = 0_u8;
    while !busy.stop.load(SeqCst) {
        let (message, mut answer) = ([number, count, 3, 4, 5], [0; 5]);
        let result = near.write_all(&message).and_then(|()| near.read_exact(&mut answer));
        busy.expect(result.is_ok() && answer == message, "an echo is wrong");
        busy.echoes.fetch_add(1, SeqCst);
        count = count.wrapping_add(1);
        if count.is_multiple_of(16) {
            sleep(ms(1));
        }
    }
    drop(near);
    peer.join().unwrap();
}

fn tick(busy: &Busy, number: u8) {
    while !busy.stop.load(SeqCst) {
        let begin = Instant::now();
        if number.is_multiple_of(2) {
            std::thread::sleep(ms(3));
        } else {
            sleep(ms(3));
        }
        busy.early.fetch_add(u64::from(begin.elapsed() < ms(3)), SeqCst);
        busy.ticks.fetch_add(1, SeqCst);
        match number {
            0 => busy.expect(
                Command::new("true")
                    .output()
                    .is_ok_and(|output| output.status.success()),
                "true",
            ),
            1 => busy.expect(threadpool::unblock(|| 3) == 3, "a job"),
            2 => busy.expect(
                std::process::Command::new("true")
                    .output()
                    .is_ok_and(|output| output.status.success()),
                "std's true",
            ),
            3 => busy.expect(fs::read("/proc/self/status").is_ok(), "a file"),
            _ => {}
        }
    }
}

/// Signals without end, of which one has a handler with SA_RESTART and another is SIGCHLD.
fn storm() {
    extern "C" fn nothing(_: i32) {}
    patched(|| {
        os::on_signal(libc::SIGUSR1, nothing, libc::SA_RESTART);
        os::on_signal(libc::SIGCHLD, nothing, libc::SA_RESTART);
        busy(|| {
            let begin = Instant::now();
            while begin.elapsed() < ms(3000) {
                for signal in [libc::SIGUSR1, libc::SIGCHLD] {
                    // SAFETY: a signal to this process, which has a handler.
                    os::good(unsafe { libc::kill(libc::getpid(), signal) });
                }
                os::sleep(Duration::from_micros(500));
            }
        });
    });
}

/// The process is stopped and goes on, once for long and then often.
fn stops() {
    patched(|| {
        busy(|| {
            let script = "p=$PPID; sleep 0.5; kill -STOP $p; sleep 1; kill -CONT $p; sleep 0.5
                for i in 1 2 3 4 5 6 7 8 9 10; do kill -STOP $p; sleep 0.05; kill -CONT $p; sleep 0.05; done";
            let status = std::process::Command::new("sh").args(["-c", script]).status();
            assert!(status.unwrap().success());
        });
    });
}

/// Children of all kinds at once, and some whose parent is killed half way: no zombie and no descriptor stays.
fn forks() {
    let _ = Command::new("true").status();
    let before = os::descriptors();
    for _ in 0..4 {
        let all: Vec<_> = (0..50).map(|number| spawn(move || child(number))).collect();
        for one in all {
            assert!(one.join().unwrap().unwrap());
        }
    }
    for count in 0..50 {
        let one = spawn(|| Command::new("sh").args(["-c", "exec sleep 30"]).output());
        sleep(Duration::from_micros(count * 60));
        one.kill();
        assert!(one.join().is_err_and(|error| error.is_killed()));
    }
    let end = Instant::now() + ms(10_000);
    while (os::zombies() > 0 || os::descriptors() > before + 4) && Instant::now() < end {
        sleep(ms(100));
        // A dropped child is reaped by a later spawn.
        let _ = Command::new("true").status();
    }
    let (zombies, after) = (os::zombies(), os::descriptors());
    assert!(
        zombies == 0 && after <= before + 4,
        "{zombies} zombies, descriptors {before} -> {after}"
    );
}

fn child(number: u32) -> io::Result<bool> {
    let mut command = Command::new("sh");
    match number % 5 {
        0 => Command::new("true").status().map(|status| status.success()),
        1 => command
            .args(["-c", "echo a; exit 3"])
            .output()
            .map(|output| output.stdout == b"a\n" && output.status.code() == Some(3)),
        2 => {
            let mut cat = Command::new("cat")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()?;
            cat.communicate(&[7; 200_000])
                .map(|output| output.stdout.len() == 200_000)
        }
        3 => {
            let mut sleeper = Command::new("sleep").arg("100").spawn()?;
            sleep(ms(1));
            sleeper.kill()?;
            sleeper.wait().map(|status| !status.success())
        }
        _ => {
            drop(Command::new("sleep").arg("0.02").spawn()?);
            Ok(true)
        }
    }
}

/// Children that ignore SIGTERM, hold their pipes or write without end: each limit holds.
fn stubborn() {
    let script = "trap '' TERM; while :; do sleep 1; done";
    let mut child = Command::new("sh").args(["-c", script]).spawn().unwrap();
    sleep(ms(100));
    child.terminate().unwrap();
    assert!(child.wait_timeout(ms(300)).unwrap().is_none());
    child.kill().unwrap();
    assert!(child.wait_timeout(ms(5000)).unwrap().is_some());
    within("output_timeout of a child whose own child holds the pipe", || {
        let mut command = Command::new("sh");
        command.args(["-c", "trap '' TERM; sleep 8 & echo started; wait"]);
        let output = command.output_timeout(ms(300));
        assert!(output.is_err_and(|error| error.kind() == io::ErrorKind::TimedOut));
    });
    within(
        "a time-out around the output of one whose grandchild holds the pipe",
        || {
            let mut command = Command::new("sh");
            command.args(["-c", "sleep 8 & echo started"]);
            assert!(timeout(ms(300), || command.output()).is_err());
        },
    );
    within("a kill of one that reads `yes`", || {
        let reader = spawn(|| Command::new("yes").output());
        sleep(ms(100));
        reader.kill();
        assert!(reader.join().is_err_and(|error| error.is_killed()));
    });
    let end = Instant::now() + ms(5000);
    while os::zombies() > 0 && Instant::now() < end {
        sleep(ms(100));
        // A child that was killed with its reader is reaped by a later spawn.
        let _ = Command::new("true").status();
    }
    assert_eq!(os::zombies(), 0);
}

fn within(what: &str, f: impl FnOnce()) {
    let begin = Instant::now();
    f();
    let took = begin.elapsed();
    assert!(took < ms(5000), "{what} took {took:?}");
}

fn main() -> ExitCode {
    match argument(1).as_deref() {
        Some("connect_many") => connect_many(),
        Some("stderr_full_server") => stderr_full_server(),
        _ => {
            return scenarios::main(&[
                ("stderr_full", stderr_full),
                ("full_server", full_server),
                ("storm", storm),
                ("stops", stops),
                ("forks", forks),
                ("stubborn", stubborn),
            ]);
        }
    }
    ExitCode::SUCCESS
}
