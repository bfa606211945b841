//! A server that sends everything back, one green thread per connection.
//!
//! Run: `cargo run --release --example echo_server -- 127.0.0.1:7000` (port 0: the system chooses)
//!
//! Expect `listening on 127.0.0.1:7000`; then try `cargo run --release --example echo_client -- 127.0.0.1:7000`.
//! Ctrl-C ends it, with exit code 0; an error of the listener ends it with 1.

use std::io::{self, Read, Write};

use greenthread::net::{TcpListener, TcpStream};
use greenthread::{signal, spawn};

fn echo(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            n => stream.write_all(&buffer[..n])?,
        }
    }
}

fn main() -> io::Result<()> {
    let address = std::env::args()
        .nth(1)
        .unwrap_or_else(|| String::from("127.0.0.1:7000"));
    let listener = TcpListener::bind(address)?;
    println!("listening on {}", listener.local_addr()?);
    let server = spawn(move || -> io::Result<()> {
        loop {
            let (stream, peer) = listener.accept()?;
            spawn(move || {
                if let Err(error) = echo(stream) {
                    eprintln!("{peer}: {error}");
                }
            });
        }
    });
    let listening = server.thread();
    spawn(move || {
        if let Err(error) = signal::ctrl_c() {
            eprintln!("Ctrl-C: {error}");
        }
        listening.kill();
    });
    // What is not joined, nobody hears of: an error of accept ends the program, and is its last word.
    match server.join() {
        Ok(ended) => ended,
        Err(error) if error.is_killed() => Ok(()),
        Err(error) => Err(io::Error::other(error.to_string())),
    }
}
