//! hyper on the hub, and what is built on hyper: an HTTP server, and what a client needs. No runtime is involved.
//!
//! Sockets have hyper's `Read` and `Write` themselves; [`Timer`] and [`Executor`] are the rest of what hyper asks for.
//! [`HttpServer`] serves hyper's services, and tower's: axum's `Router`.
//!
//! ```
//! use std::{convert::Infallible, time::Duration};
//! use greenthread::{future::block_on, http::{Executor, HttpServer}, net::{TcpListener, TcpStream}};
//! use http_body_util::{BodyExt, Empty, Full};
//! use hyper::{Request, Response, body::{Bytes, Incoming}, rt::Executor as _, service::service_fn};
//!
//! async fn hello(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
//!     greenthread::sleep(Duration::from_millis(1)); // it may block: only this connection waits
//!     Ok(Response::new(Full::from(format!("hello, {}", request.uri().path()))))
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//! let server = HttpServer::new(TcpListener::bind("127.0.0.1:0")?, service_fn(hello));
//! server.start()?;
//!
//! let stream = TcpStream::connect(server.local_addr()?)?;
//! let text = block_on(async {
//!     let (mut client, connection) = hyper::client::conn::http1::handshake(stream).await?;
//!     Executor.execute(connection);
//!     let request = Request::get("/you").header("host", "here").body(Empty::<Bytes>::new())?;
//!     let body = client.send_request(request).await?.into_body().collect().await?;
//!     Ok::<_, Box<dyn std::error::Error + Send + Sync>>(body.to_bytes())
//! })?;
//! assert_eq!(text, "hello, /you");
//! server.stop(Duration::from_secs(1));
//! # Ok(())
//! # }
//! ```
//!
//! # What to depend on
//! A server of axum's, and a client of hyper's; tokio itself stays out:
//!
//! ```toml
//! greenthread = { path = "../greenthread", features = ["hyper"] }
//! axum = { version = "0.8", default-features = false, features = ["json", "query"] }
//! hyper = { version = "1", default-features = false, features = ["client", "http1"] }
//! http-body-util = "0.1"
//! ```
//!
//! `axum::serve` needs tokio's reactor, so it is not there; [`HttpServer::tower`] serves the same `Router`. axum wants
//! a handler's future to be `Send`; it may hold whatever this crate has across an await, a lock too. The exception is
//! an [`asyncify`](crate::future::asyncify): instead of that, the handler just blocks. Layers of tower run too, except
//! those with tokio's timers: [`request_timeout`](HttpServer::request_timeout) stands for a time-out.
//!
//! # Time-outs and limits
//! What a server of [`HttpServer`] bounds, and what is usual elsewhere (none: a client can hold a connection that way
//! forever). The methods take `None` for no bound, too.
//!
//! | what | method | here | axum::serve | Go `net/http` | gevent `pywsgi` |
//! |---|---|---|---|---|---|
//! | the head of a request, and idleness before it | [`head_timeout`](HttpServer::head_timeout) | 30 s | none | none (`ReadHeaderTimeout`, `IdleTimeout`) | none |
//! | a body that stands still | [`body_timeout`](HttpServer::body_timeout) | 30 s, `408` | none | none (`ReadTimeout`: the whole) | none |
//! | a client that does not read | [`write_timeout`](HttpServer::write_timeout) | 30 s | none | none (`WriteTimeout`: the whole) | none |
//! | the service | [`request_timeout`](HttpServer::request_timeout) | none; `503` | none (tower-http's `TimeoutLayer`) | none (`TimeoutHandler`) | none |
//! | the size of a body | [`body_limit`](HttpServer::body_limit) | none; `413` | 2 MB in extractors | none (`MaxBytesHandler`) | none |
//! | the size of a head | [`http1`](HttpServer::http1): `max_header_size`, `max_headers` | about 400 KB, 100 headers; `431` | the same | 1 MB (`MaxHeaderBytes`) | 8 KB a line, 100 headers |
//! | an answer to a client that sends no more | [`half_close`](HttpServer::half_close) | 30 s | dropped at once | forever | forever |
//! | the client's end, after the server's | [`linger`](HttpServer::linger) | 2 s | none: it may reset | 0.5 s, if there is unread input | none: it may reset |
//! | connections at once | [`limit`](HttpServer::limit) | none | none | none (`LimitListener`) | none (`spawn=Pool(n)`) |
//!
//! # HTTPS, HTTP/2, WebSockets
//! [`HttpServer::tls`] (feature `tls`) speaks HTTPS. [`HttpServer::http2`] (feature `http2`) adds HTTP/2, by ALPN or by
//! its preface. [`upgrade`](upgrade()) hands a connection over to a function, which then speaks the protocol of its
//! own, blocking: a WebSocket of `tungstenite`.
//!
//! # HTTP/2
//! Each request has a task of its own, so all that bounds a service is the same. hyper keeps the streams of a
//! connection to itself, so some of the other bounds are wider than with HTTP/1:
//!
//! | method | with HTTP/2 |
//! |---|---|
//! | [`head_timeout`](HttpServer::head_timeout) | how long a connection may have no request, or only a part of a head |
//! | [`body_timeout`](HttpServer::body_timeout) | does not apply: put a time-out around the reading of a body |
//! | [`write_timeout`](HttpServer::write_timeout) | of the connection; and how long a client has to answer a `PING`, which is sent after as long without a frame |
//! | [`request_timeout`](HttpServer::request_timeout) | the same |
//! | [`body_limit`](HttpServer::body_limit) | only for a body of announced length; a service bounds the others: axum's extractors do, or `http_body_util::Limited` |
//! | [`half_close`](HttpServer::half_close) | does not apply: a client that ends takes its requests with it |
//! | [`limit`](HttpServer::limit) | connections; [`http2`](HttpServer::http2): `max_concurrent_streams` bounds the requests of each, 200 unless it is set |
//!
//! A client that answers each `PING` but never opens the window of a stream holds the response of that stream, with up
//! to 400 KB in memory, for as long as it likes. `max_send_buf_size` and `max_concurrent_streams` bound what it holds.
//!
//! A handler that calls [`Handle::stop`](crate::server::Handle::stop) on its own server waits for itself here: spawn
//! that call.
//!
//! # Time-outs in services and clients
//! [`timeout_async`](crate::time::timeout_async) around a request of a client's, or around a part of a handler. A
//! handler that blocks is cut short by [`timeout`](crate::timeout()).
//!
//! ```
//! use std::time::Duration;
//! use greenthread::{future::block_on, http::Executor, net::{TcpListener, TcpStream}, time::timeout_async};
//! use http_body_util::Empty;
//! use hyper::{Request, body::Bytes, client::conn::http1, rt::Executor as _};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let silent = TcpListener::bind("127.0.0.1:0")?; // it lets connect, and never answers
//! let stream = TcpStream::connect(silent.local_addr()?)?;
//! let answer = block_on(async {
//!     let (mut client, connection) = http1::handshake(stream).await?;
//!     Executor.execute(connection);
//!     let request = Request::new(Empty::<Bytes>::new());
//!     Ok::<_, hyper::Error>(timeout_async(Duration::from_millis(5), client.send_request(request)).await)
//! })?;
//! assert_eq!(answer.unwrap_err().to_string(), "the time allowed has passed");
//! # Ok(())
//! # }
//! ```
//!
//! # Stopping
//! `serve_forever` waits until the server is stopped by its [`handle`](HttpServer::handle):
//!
//! ```no_run
//! # use std::{convert::Infallible, time::Duration};
//! # use greenthread::{http::HttpServer, net::TcpListener, signal, spawn};
//! # use hyper::{Request, Response, body::Incoming, service::service_fn};
//! # fn main() -> std::io::Result<()> {
//! # let service = service_fn(async |_: Request<Incoming>| Ok::<_, Infallible>(Response::new(String::new())));
//! let server = HttpServer::new(TcpListener::bind("127.0.0.1:8000")?, service);
//! let handle = server.handle();
//! spawn(move || signal::ctrl_c().map(|()| handle.stop(Duration::from_secs(5))));
//! server.serve_forever() // returns when the requests under way are answered
//! # }
//! ```
#![forbid(unsafe_code)]

mod access;
mod connection;
mod guard;
#[cfg(feature = "http2")]
mod http2;
mod rt;
mod server;
#[cfg(feature = "tls")]
mod tls;
mod upgrade;

pub use access::{Access, Peer};
pub use rt::{Executor, Timer};
pub use server::HttpServer;
pub use upgrade::{Upgraded, upgrade};
