//! UDP and TLS: an echo by datagrams, and https by `rustls` at both ends; in green threads on patched libc, or in tasks.
//!
//! ```text
//! cargo run --release --manifest-path examples/drivers/Cargo.toml --bin udp_tls -- [patched|async]
//! ```
//!
//! All servers are this program's own, on loopback, and think for half a second. Expect six echoes, in 0.5 s and not 3.0 s;
//! then three https pages from a server with a certificate that it signed itself (`tls.rs`), in 0.5 s and not 1.5 s.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

#[path = "udp_tls_async.rs"]
mod asynchronous;
#[path = "udp_tls_patched.rs"]
mod patched;
#[path = "../servers/mod.rs"]
mod servers;
mod tls;

use servers::Outcome;

const THINKS: Duration = Duration::from_millis(500);

fn request(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
}

fn show(server: SocketAddr, path: &str, reply: &str) -> Outcome {
    let (head, body) = reply
        .split_once("\r\n\r\n")
        .ok_or("a reply without an end of its head")?;
    let status = head.lines().next().unwrap_or_default();
    println!("https://localhost:{}{path}: {status}: {body}", server.port());
    Ok(())
}

fn main() -> ExitCode {
    servers::faces(patched::main, asynchronous::main)
}
