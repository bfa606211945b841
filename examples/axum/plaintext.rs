//! The least application, for those who measure: server CPU, rate and latency of one OS thread.
//!
//! ```text
//! cargo run --release --manifest-path examples/axum/Cargo.toml --bin plaintext -- 8000 &
//! wrk -t1 -c64 -d5s --latency http://127.0.0.1:8000/
//! ```
//!
//! Expect `Hello, World!` from curl. It serves until Ctrl-C.

use axum::{Router, routing::get};
use greenthread::{http::HttpServer, net::TcpListener};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let port: u16 = std::env::args().nth(1).map_or(Ok(8000), |port| port.parse())?;
    let router = Router::new().route("/", get(|| async { "Hello, World!" }));
    HttpServer::tower_local(TcpListener::bind(("127.0.0.1", port))?, router).serve_forever()?;
    Ok(())
}
