//! A server that ends as a server should: at SIGTERM or Ctrl-C it takes no more connections, lets those that it has come to
//! their end, for five seconds at most, and returns from `main`. A second signal ends it at once.
//!
//! Run: `cargo run --release --example graceful_stop [ADDRESS]`, then `nc` to the address it prints, a line, and Ctrl-C
//! within the second that the answer takes.
//!
//! Expect:
//!
//! ```text
//! listening on 127.0.0.1:40123
//! SIGINT: 1 to finish
//! bye
//! ```

use std::io::{self, BufRead, BufReader, Write};
use std::time::Duration;

use greenthread::net::{TcpListener, TcpStream};
use greenthread::signal::{self, SIGINT, SIGTERM, Signals};
use greenthread::thread::{JoinHandle, catch_kill};
use greenthread::{sleep, spawn, thread, timeout};

const PATIENCE: Duration = Duration::from_secs(5);

/// Answers one line, after a second of work.
fn serve(mut stream: TcpStream) -> io::Result<()> {
    writeln!(stream, "what is to be done?")?;
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line)?;
    sleep(Duration::from_secs(1));
    write!(stream, "done: {line}")
}

/// Accepts until it is killed; gives those that it serves.
fn accept(listener: TcpListener) -> Vec<JoinHandle<io::Result<()>>> {
    let mut serving = Vec::new();
    let killed = catch_kill(|| {
        for stream in listener.incoming().flatten() {
            serving.push(spawn(move || serve(stream)));
        }
    });
    assert!(killed.is_err(), "incoming never ends by itself");
    serving
}

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1);
    let listener = TcpListener::bind(address.as_deref().unwrap_or("127.0.0.1:0"))?;
    let signals = Signals::new([SIGINT, SIGTERM])?;
    println!("listening on {}", listener.local_addr()?);
    let acceptor = spawn(move || accept(listener));

    let name = if signals.recv()? == SIGINT { "SIGINT" } else { "SIGTERM" };
    let _impatient = [SIGINT, SIGTERM].map(|signal| signal::on(signal, || std::process::exit(1)));
    acceptor.kill(); // closes the listener
    let mut serving = acceptor.join().map_err(|error| io::Error::other(error.to_string()))?;
    serving.retain(|one| !one.is_finished());
    println!("{name}: {} to finish", serving.len());
    if timeout(PATIENCE, || thread::join_all(serving)).is_err() {
        println!("not all came to their end");
    }
    println!("bye");
    Ok(())
}
