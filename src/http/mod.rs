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
#![forbid(unsafe_code)]

mod rt;
mod server;

pub use rt::{Executor, Timer};
pub use server::{Access, HttpServer};
