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
use greenthread::server::StreamServer;
use greenthread::signal::{self, SIGINT, SIGTERM, Signals};
use greenthread::sleep;

const PATIENCE: Duration = Duration::from_secs(5);

/// Answers one line, after a second of work.
fn serve(mut stream: TcpStream) -> io::Result<()> {
    writeln!(stream, "what is to be done?")?;
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line)?;
    sleep(Duration::from_secs(1));
    write!(stream, "done: {line}")
}

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1);
    let listener = TcpListener::bind(address.as_deref().unwrap_or("127.0.0.1:0"))?;
    let server = StreamServer::new(listener, |stream, _| serve(stream));
    let signals = Signals::new([SIGINT, SIGTERM])?;
    server.start()?;
    println!("listening on {}", server.local_addr()?);

    let name = if signals.recv()? == SIGINT { "SIGINT" } else { "SIGTERM" };
    let _impatient = [SIGINT, SIGTERM].map(|signal| signal::on(signal, || std::process::exit(1)));
    println!("{name}: {} to finish", server.handle().live());
    let stopped = server.stop(PATIENCE);
    if stopped.killed > 0 {
        println!("{} did not come to their end", stopped.killed);
    }
    println!("bye");
    Ok(())
}
