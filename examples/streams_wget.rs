//! Three pages at once, by hand over plain sockets: `wget` for their headers only.
//!
//! Run: `cargo run --release --example streams_wget`
//!
//! Expect `wget H...` for three hosts, then the lines of their headers, `H header > HTTP/1.1 200 OK` first, and 1.0 s: the
//! three servers, of this program itself, think for a second each.

use std::io::{self, BufRead, Write};
use std::time::{Duration, Instant};

use greenthread::io::{Reader, Writer};
use greenthread::net::{TcpListener, TcpStream};
use greenthread::server::StreamServer;
use greenthread::{sleep, spawn};

/// A server that answers after a second.
fn serve(host: &str) -> io::Result<u16> {
    let listener = TcpListener::bind((host, 0))?;
    let server = StreamServer::new(listener, |stream: TcpStream, _| -> io::Result<()> {
        let mut reader = Reader::new(&stream);
        let request = reader.read_through(b"\r\n\r\n")?;
        sleep(Duration::from_secs(1));
        let page = format!("<p>{} bytes of request</p>", request.len());
        let mut writer = Writer::new(&stream);
        write!(writer, "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n")?;
        write!(writer, "Content-Length: {}\r\n\r\n{page}", page.len())?;
        writer.flush()
    });
    server.start()?;
    Ok(server.local_addr()?.port())
}

fn wget(host: &str, port: u16) -> io::Result<()> {
    println!("wget {host}...");
    let stream = TcpStream::connect((host, port))?;
    let mut writer = Writer::new(&stream);
    write!(writer, "GET / HTTP/1.0\r\nHost: {host}\r\n\r\n")?;
    writer.flush()?;
    let (mut reader, mut header) = (Reader::new(&stream), String::new());
    while reader.read_line(&mut header)? > 2 {} // up to the empty line
    for line in header.lines().filter(|line| !line.is_empty()) {
        println!("{host} header > {line}");
    }
    Ok(())
}

fn main() -> io::Result<()> {
    let hosts = ["127.0.0.1", "127.0.0.2", "127.0.0.3"];
    let ports = hosts.map(serve);
    let start = Instant::now();
    let mut gets = Vec::new();
    for (host, port) in hosts.into_iter().zip(ports) {
        let port = port?;
        gets.push(spawn(move || wget(host, port)));
    }
    for get in gets {
        get.join().map_err(|error| io::Error::other(error.to_string()))??;
    }
    println!("three at once: {:.2} s", start.elapsed().as_secs_f64());
    Ok(())
}
