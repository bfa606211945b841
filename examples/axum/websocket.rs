//! WebSockets by tungstenite, which blocks: from a router of axum's, and without HTTP's server. Each has 1,000 clients.
//!
//! ```text
//! cargo run --release --manifest-path examples/axum/Cargo.toml --bin websocket
//! ```
//!
//! Expect, in less than a second:
//!
//! ```text
//! axum's router: 1000 clients at once, 3000 messages came back
//! tungstenite alone: 1000 clients at once, 3000 messages came back
//! ```
//!
//! Servers and clients are on one OS thread. `WebSocketUpgrade` of axum would need tokio's runtime.

use std::error::Error;
use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use axum::{Router, body::Body, extract::Request, http::StatusCode, routing::get};
use greenthread::http::{self, HttpServer};
use greenthread::net::{SocketAddr, TcpListener, TcpStream, raise_open_files};
use greenthread::{server::StreamServer, spawn, sync::Barrier};
use tungstenite::handshake::server::create_response_with_body;
use tungstenite::protocol::{Role, WebSocket};

const CLIENTS: usize = 1000;
const MESSAGES: usize = 3;
const PATIENCE: Duration = Duration::from_secs(5);

/// Sends back what comes, until the client closes.
fn echo(mut socket: WebSocket<impl Read + Write>) {
    while let Ok(message) = socket.read() {
        if !message.is_close() && socket.send(message).is_err() {
            break;
        }
    }
}

/// A handler of axum's that leaves its connection to `echo`.
async fn upgrade(mut request: Request) -> Response {
    match create_response_with_body(&request, Body::empty) {
        Ok(mut response) => {
            http::upgrade(&mut request, &mut response, |stream| {
                echo(WebSocket::from_raw_socket(stream, Role::Server, None));
            });
            response
        }
        Err(error) => (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
    }
}

/// Connects, waits until all have, and sends messages; how many came back.
fn client(address: SocketAddr, all: &Barrier) -> Result<usize, Box<dyn Error>> {
    let stream = TcpStream::connect(address)?;
    let (mut socket, _) = tungstenite::client(format!("ws://{address}/echo"), stream)?;
    all.wait();
    for n in 0..MESSAGES {
        socket.send(format!("message {n}").into())?;
        assert_eq!(socket.read()?.into_text()?.as_str(), format!("message {n}"));
    }
    socket.close(None)?;
    // The server's answer to the close is not a message, so this reads to the end.
    while socket.read().is_ok() {}
    Ok(MESSAGES)
}

/// Runs the clients, all at once.
fn run(name: &str, address: SocketAddr) -> Result<(), Box<dyn Error>> {
    let all = Arc::new(Barrier::new(CLIENTS));
    let connect = |all: Arc<Barrier>| spawn(move || client(address, &all).map_err(|error| error.to_string()));
    let clients: Vec<_> = (0..CLIENTS).map(|_| connect(all.clone())).collect();
    let mut count = 0;
    for client in clients {
        count += client.join()??;
    }
    println!("{name}: {CLIENTS} clients at once, {count} messages came back");
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    raise_open_files()?;
    let router = Router::new().route("/echo", get(upgrade));
    let server = HttpServer::tower(TcpListener::bind("127.0.0.1:0")?, router);
    server.start()?;
    run("axum's router", server.local_addr()?)?;
    server.stop(PATIENCE);

    let server = StreamServer::new(TcpListener::bind("127.0.0.1:0")?, |stream, _| {
        tungstenite::accept(stream).map(echo).map_err(|error| error.to_string())
    });
    server.start()?;
    run("tungstenite alone", server.local_addr()?)?;
    server.stop(PATIENCE);
    Ok(())
}
