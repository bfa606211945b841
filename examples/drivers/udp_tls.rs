//! UDP and TLS in green threads: an echo by datagrams, and https by `rustls` on std's own sockets, at both ends.
//!
//! ```text
//! cargo run --release --manifest-path examples/drivers/Cargo.toml --bin udp_tls -- patched
//! ```
//!
//! All servers are this program's own, on loopback, and think for half a second. Expect six echoes, three by std's
//! `UdpSocket` (libc is patched) and three by this crate's, in 0.5 s and not 3.0 s; then three https pages from a
//! server with a certificate that it signed itself (`tls.rs`), in 0.5 s and not 1.5 s.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use greenthread::{monkey, net, spawn};
use rustls::{ClientConfig, ClientConnection, StreamOwned};

#[path = "../servers/mod.rs"]
mod servers;
mod tls;

use servers::Outcome;

const THINKS: Duration = Duration::from_millis(500);

fn udp_server() -> io::Result<SocketAddr> {
    let socket = Arc::new(UdpSocket::bind("127.0.0.1:0")?);
    let address = socket.local_addr()?;
    spawn(move || -> io::Result<()> {
        loop {
            let mut buffer = [0; 1500];
            let (len, from) = socket.recv_from(&mut buffer)?;
            let (socket, came) = (socket.clone(), buffer[..len].to_vec());
            spawn(move || {
                std::thread::sleep(THINKS);
                socket.send_to(&came, from)
            });
        }
    });
    Ok(address)
}

/// Both have the same methods; what differs is who makes them wait.
macro_rules! echo {
    ($UdpSocket:ty, $server:expr, $text:expr) => {{
        let socket = <$UdpSocket>::bind("127.0.0.1:0")?;
        socket.connect($server)?;
        socket.send($text.as_bytes())?;
        let mut buffer = [0; 1500];
        let len = socket.recv(&mut buffer)?;
        println!("{} came back", String::from_utf8_lossy(&buffer[..len]));
        Ok::<(), io::Error>(())
    }};
}

fn udp(server: SocketAddr) -> Outcome {
    let std = [1, 2, 3].map(|n| spawn(move || echo!(UdpSocket, server, format!("std's {n}"))));
    let ours = [1, 2, 3].map(|n| spawn(move || echo!(net::UdpSocket, server, format!("ours {n}"))));
    servers::join_all("six echoes over UDP", std.into_iter().chain(ours).collect::<Vec<_>>())?;
    Ok(())
}

fn get(server: SocketAddr, config: Arc<ClientConfig>, path: &str) -> Outcome {
    let session = ClientConnection::new(config, "localhost".try_into()?)?;
    let mut stream = StreamOwned::new(session, TcpStream::connect(server)?);
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply)?;
    let (head, body) = reply
        .split_once("\r\n\r\n")
        .ok_or("a reply without an end of its head")?;
    let status = head.lines().next().unwrap_or_default();
    println!("https://localhost:{}{path}: {status}: {body}", server.port());
    Ok(())
}

fn patched(_: Vec<String>) -> Outcome {
    monkey::patch_all()?;
    greenthread::run(|| {
        udp(udp_server()?)?;
        let (server, config) = tls::serve(|path| (THINKS, format!("this is {path}").into_bytes()))?;
        let gets = ["/1", "/2", "/3"].map(|path| (path, config.clone()));
        let gets = gets.map(|(path, config)| spawn(move || get(server, config, path)));
        servers::join_all("three pages over TLS", gets)?;
        Ok(())
    })
}

fn main() -> ExitCode {
    servers::faces(patched)
}
