//! An unmodified blocking HTTP client, `ureq`, downloads three files at once on one OS thread.
//!
//! ```text
//! cargo run --release --example patched_download
//! ```
//!
//! A server of its own on loopback thinks 0.3 s about each. Expect three `GET:` lines, then three `… bytes received`, in
//! 0.3 s and not 0.9 s. The server is std's too: a plain loop that blocks, one green thread a connection.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use greenthread::{monkey, spawn};

const SIZE: usize = 1_000_000;

fn answer(stream: TcpStream) -> std::io::Result<()> {
    let mut lines = BufReader::new(&stream).lines();
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    std::thread::sleep(Duration::from_millis(300));
    write!(
        &stream,
        "HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\nConnection: close\r\n\r\n"
    )?;
    (&stream).write_all(&vec![b'x'; SIZE])
}

fn download(url: &str) -> Result<usize, ureq::Error> {
    println!("GET: {url}");
    let body = ureq::get(url).call()?.body_mut().read_to_vec()?;
    println!("{} bytes received from {url}", body.len());
    Ok(body.len())
}

fn main() -> std::io::Result<()> {
    monkey::patch_all()?;
    let start = Instant::now();
    let total: usize = greenthread::run(|| -> std::io::Result<usize> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        spawn(move || {
            for stream in listener.incoming() {
                match stream {
                    Ok(stream) => drop(spawn(|| answer(stream))),
                    Err(error) => eprintln!("accept: {error}"),
                }
            }
        });
        let downloads: Vec<_> = ["a", "b", "c"]
            .map(|name| format!("http://{address}/{name}"))
            .into_iter()
            .map(|url| spawn(move || download(&url)))
            .collect();
        let sizes = downloads.into_iter().map(|download| download.join().expect("no panic"));
        sizes.map(|size| size.map_err(std::io::Error::other)).sum()
    })?;
    println!("{total} bytes in {:.1} s", start.elapsed().as_secs_f64());
    Ok(())
}
