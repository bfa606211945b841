//! Three pages at once, by hand over plain sockets: `wget` for their headers only.
//!
//! Run: `cargo run --release --example streams_wget` or `... -- async`
//!
//! Expect `wget H...` for three hosts, then the lines of their headers, `H header > HTTP/1.1 200 OK` first, and 1.0 s: the
//! three servers, of this program itself, think for a second each.

use std::error::Error;
use std::io::{self, BufRead, Write};
use std::time::{Duration, Instant};

use futures::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use greenthread::aio;
use greenthread::io::{Reader, Writer};
use greenthread::net::{TcpListener, TcpStream};
use greenthread::server::StreamServer;
use greenthread::sleep;

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

fn show(host: &str, header: &str) {
    for line in header.lines().filter(|line| !line.is_empty()) {
        println!("{host} header > {line}");
    }
}

fn wget(host: &str, port: u16) -> io::Result<()> {
    println!("wget {host}...");
    let (mut reader, mut writer) = aio::open_connection((host, port))?;
    write!(writer, "GET / HTTP/1.0\r\nHost: {host}\r\n\r\n")?;
    writer.flush()?;
    let mut header = String::new();
    while reader.read_line(&mut header)? > 2 {} // up to the empty line
    show(host, &header);
    Ok(())
}

async fn wget_async(host: &str, port: u16) -> io::Result<()> {
    println!("wget {host}...");
    let mut stream = BufReader::new(TcpStream::connect((host, port))?); // a task may block too
    let request = format!("GET / HTTP/1.0\r\nHost: {host}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut header = String::new();
    while stream.read_line(&mut header).await? > 2 {}
    show(host, &header);
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let is_async = std::env::args().nth(1).as_deref() == Some("async");
    let get = move |(host, port): (&'static str, u16)| match is_async {
        true => aio::create_task(aio::fallible(wget_async(host, port))),
        false => aio::create_task(aio::fallible(aio::green(move || wget(host, port)))),
    };
    let hosts = ["127.0.0.1", "127.0.0.2", "127.0.0.3"];
    let ports = hosts.into_iter().map(serve).collect::<io::Result<Vec<_>>>()?;
    let start = Instant::now();
    aio::run(async move { aio::gather(hosts.into_iter().zip(ports).map(get)).await })??;
    println!("three at once: {:.2} s", start.elapsed().as_secs_f64());
    Ok(())
}
