//! A client for `echo_server`: several connections at once, each of which checks what comes back.
//!
//! Run: `cargo run --release --example echo_client -- 127.0.0.1:7000 10 100` (address, connections, lines on each)
//!
//! Expect `10 connections, 1000 lines, all came back`, and exit code 0; 1 if anything went wrong.

use std::io::{self, BufRead, BufReader, Write};

use greenthread::net::TcpStream;
use greenthread::spawn;
use greenthread::thread::join_all;

/// One connection: how many lines came back as they were sent.
fn talk(address: &str, connection: usize, lines: usize) -> io::Result<usize> {
    let stream = TcpStream::connect(address)?;
    let mut reader = BufReader::new(&stream);
    for line in 0..lines {
        let sent = format!("line {line} of connection {connection}\n");
        (&stream).write_all(sent.as_bytes())?;
        let mut came = String::new();
        reader.read_line(&mut came)?;
        if came != sent {
            return Err(io::Error::other(format!("sent {sent:?}, came {came:?}")));
        }
    }
    Ok(lines)
}

fn main() -> io::Result<()> {
    let mut args = std::env::args().skip(1);
    let address = args.next().unwrap_or_else(|| String::from("127.0.0.1:7000"));
    let mut number = |default| args.next().and_then(|n| n.parse().ok()).unwrap_or(default);
    let (connections, lines) = (number(10), number(100));
    let clients: Vec<_> = (0..connections)
        .map(|connection| {
            let address = address.clone();
            spawn(move || talk(&address, connection, lines))
        })
        .collect();
    let mut total = 0;
    for client in join_all(clients) {
        total += client.map_err(|error| io::Error::other(error.to_string()))??;
    }
    println!("{connections} connections, {total} lines, all came back");
    Ok(())
}
