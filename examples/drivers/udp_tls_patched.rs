//! Green threads that wait in std's sockets, as libc is patched, or in this crate's.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;

use greenthread::{monkey, net, spawn};
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection, StreamOwned};

use crate::servers::{self, Outcome};
use crate::{THINKS, tls};

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
    ($UdpSocket:ty, $server:expr, $n:expr) => {{
        let socket = <$UdpSocket>::bind("127.0.0.1:0")?;
        socket.connect($server)?;
        socket.send(format!("datagram {}", $n).as_bytes())?;
        let mut buffer = [0; 1500];
        let len = socket.recv(&mut buffer)?;
        println!("{} came back", String::from_utf8_lossy(&buffer[..len]));
        Ok::<(), io::Error>(())
    }};
}

fn udp(server: SocketAddr) -> Outcome {
    let std = [1, 2, 3].map(|n| spawn(move || echo!(UdpSocket, server, n)));
    let ours = [4, 5, 6].map(|n| spawn(move || echo!(net::UdpSocket, server, n)));
    servers::join_all("six echoes over UDP", std.into_iter().chain(ours))?;
    Ok(())
}

fn tls_server(config: Arc<ServerConfig>) -> io::Result<SocketAddr> {
    servers::serve(move |stream| {
        let session = ServerConnection::new(config.clone()).map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(session, stream);
        servers::answer(&mut stream, |path| (THINKS, format!("this is {path}").into_bytes()))?;
        stream.conn.send_close_notify();
        stream.flush()
    })
}

fn get(server: SocketAddr, config: Arc<ClientConfig>, path: &str) -> Outcome {
    let session = ClientConnection::new(config, "localhost".try_into()?)?;
    let mut stream = StreamOwned::new(session, TcpStream::connect(server)?);
    stream.write_all(crate::request(path).as_bytes())?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply)?;
    crate::show(server, path, &reply)
}

pub(crate) fn main(_: Vec<String>) -> Outcome {
    monkey::patch_all()?;
    greenthread::run(|| {
        udp(udp_server()?)?;
        let (config, client) = tls::configs()?;
        let server = tls_server(config)?;
        let gets = ["/1", "/2", "/3"].map(|path| (path, client.clone()));
        let gets = gets.map(|(path, client)| spawn(move || get(server, client, path)));
        servers::join_all("three pages over TLS", gets)?;
        Ok(())
    })
}
