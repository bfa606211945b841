//! Tasks that wait in this crate's sockets; libc is as it was.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use futures::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use futures_rustls::{TlsAcceptor, TlsConnector};
use greenthread::future;
use greenthread::net::{TcpListener, TcpStream, UdpSocket};
use greenthread::time::sleep_async;

use crate::servers::{self, Outcome};
use crate::{THINKS, tls};

fn udp_server() -> io::Result<SocketAddr> {
    let socket = Arc::new(UdpSocket::bind("127.0.0.1:0")?);
    let address = socket.local_addr()?;
    future::spawn(async move {
        loop {
            let mut buffer = [0; 1500];
            let (len, from) = socket.recv_from_async(&mut buffer).await?;
            let socket = socket.clone();
            future::spawn(async move {
                sleep_async(THINKS).await;
                socket.send_to_async(&buffer[..len], from).await
            });
        }
        #[expect(unreachable_code, reason = "it says what the task gives")]
        io::Result::Ok(())
    });
    Ok(address)
}

async fn echo(server: SocketAddr, n: u32) -> io::Result<()> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.send_to_async(format!("datagram {n}").as_bytes(), server).await?;
    let mut buffer = [0; 1500];
    let (len, _) = socket.recv_from_async(&mut buffer).await?;
    println!("{} came back", String::from_utf8_lossy(&buffer[..len]));
    Ok(())
}

/// Answers one request on each connection.
fn tls_server(acceptor: TlsAcceptor) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    future::spawn(async move {
        while let Ok((stream, _)) = listener.accept_async().await {
            let acceptor = acceptor.clone();
            future::spawn(async move {
                let mut stream = BufReader::new(acceptor.accept(stream).await?);
                let (mut request, mut header) = (String::new(), String::new());
                stream.read_line(&mut request).await?;
                while stream.read_line(&mut header).await? > 2 {}
                sleep_async(THINKS).await;
                let body = format!("this is {}", request.split(' ').nth(1).unwrap_or("/"));
                let reply = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                stream.write_all(reply.as_bytes()).await?;
                stream.close().await
            });
        }
    });
    Ok(address)
}

async fn get(server: SocketAddr, connector: TlsConnector, path: &str) -> Outcome {
    let stream = TcpStream::connect(server)?; // a task may block too
    let mut stream = connector.connect("localhost".try_into()?, stream).await?;
    stream.write_all(crate::request(path).as_bytes()).await?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await?;
    crate::show(server, path, &reply)
}

pub(crate) fn main(_: Vec<String>) -> Outcome {
    greenthread::run(|| {
        let server = udp_server()?;
        let echoes = [1, 2, 3, 4, 5, 6].map(|n| future::spawn(echo(server, n)));
        servers::join_all("six echoes over UDP", echoes)?;
        let (config, client) = tls::configs()?;
        let (server, connector) = (tls_server(config.into())?, TlsConnector::from(client));
        let gets = ["/1", "/2", "/3"].map(|path| future::spawn(get(server, connector.clone(), path)));
        servers::join_all("three pages over TLS", gets)?;
        Ok(())
    })
}
