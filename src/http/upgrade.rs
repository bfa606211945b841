//! What becomes of a connection that stops to speak HTTP: a WebSocket, a tunnel.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::fmt;
use std::future::poll_fn;
use std::io::{self, Read, Write};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use hyper::rt::{self, ReadBuf};
use hyper::upgrade::{self, OnUpgrade};
use hyper::{Request, Response};

use crate::future::block_on;
use crate::sys::poison::IgnorePoison;

type Serve = Box<dyn FnOnce(Upgraded) + Send>;

/// What a handler has given for the time after its response. Extensions must be `Clone`: the first taker gets it.
#[derive(Clone)]
struct Then(Arc<Mutex<Option<(OnUpgrade, Serve)>>>);

/// Has `serve` take the connection over, once this response (`101`, or a `2xx` to a `CONNECT`) was sent.
///
/// It runs where the connection has run so far: in its green thread, or in its stackless task. It may block. The
/// connection still counts for the [`limit`](super::HttpServer::limit), and
/// [`stop`](super::HttpServer::stop) waits for it and then kills it. If the connection is not upgraded after all,
/// because the client has gone or speaks HTTP/2, `serve` is dropped.
///
/// ```
/// use std::convert::Infallible;
/// use std::io::{Read, Write};
/// use std::time::Duration;
/// use greenthread::{http::{self, HttpServer}, net::{TcpListener, TcpStream}};
/// use hyper::{Request, Response, StatusCode, body::Incoming, header, service::service_fn};
///
/// async fn echo(mut request: Request<Incoming>) -> Result<Response<String>, Infallible> {
///     let mut response = Response::new(String::new());
///     *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
///     response.headers_mut().insert(header::UPGRADE, header::HeaderValue::from_static("echo"));
///     http::upgrade(&mut request, &mut response, |mut stream| {
///         let mut word = [0; 5];
///         stream.read_exact(&mut word).and_then(|()| stream.write_all(&word)).expect("the client is there");
///     });
///     Ok(response)
/// }
///
/// # fn main() -> std::io::Result<()> {
/// let server = HttpServer::new(TcpListener::bind("127.0.0.1:0")?, service_fn(echo));
/// server.start()?;
/// let mut client = TcpStream::connect(server.local_addr()?)?;
/// client.write_all(b"GET / HTTP/1.1\r\nhost: here\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\nhello")?;
/// let mut answer = String::new();
/// client.read_to_string(&mut answer)?;
/// assert!(answer.starts_with("HTTP/1.1 101 ") && answer.ends_with("\r\n\r\nhello"));
/// server.stop(Duration::from_secs(1));
/// # Ok(())
/// # }
/// ```
///
/// A WebSocket by `tungstenite`, also in a handler of axum's: its `create_response_with_body` makes the response of the
/// request, and `WebSocket::from_raw_socket(stream, Role::Server, None)` speaks on the stream. `examples/axum` has one.
/// The extractor `WebSocketUpgrade` of axum spawns on tokio's runtime, so it cannot be used.
pub fn upgrade<B, C>(
    request: &mut Request<B>,
    response: &mut Response<C>,
    serve: impl FnOnce(Upgraded) + Send + 'static,
) {
    let then: (OnUpgrade, Serve) = (upgrade::on(request), Box::new(serve));
    let then = Then(Arc::new(Mutex::new(Some(then))));
    response.extensions_mut().insert(then);
}

/// What the handlers of a connection have given for the time after it.
#[derive(Default)]
pub(super) struct Upgrades(Cell<Option<(OnUpgrade, Serve)>>);

impl Upgrades {
    /// Keeps what the handler has given, if anything.
    pub(super) fn keep<B>(&self, response: &mut Response<B>) {
        if let Some(then) = response.extensions_mut().remove::<Then>() {
            drop(self.0.replace(then.0.lock().ignore_poison().take()));
        }
    }

    /// Runs it, if the connection was upgraded.
    pub(super) async fn run(self) {
        if let Some((on_upgrade, serve)) = self.0.take()
            && let Ok(stream) = on_upgrade.await
        {
            serve(Upgraded::from(stream));
        }
    }
}

/// A connection that does not speak HTTP any more, as a blocking stream. hyper's is made into one by `From`.
///
/// Reads and writes park. They have no time-outs: put [`timeout`](crate::timeout()) around them.
pub struct Upgraded(upgrade::Upgraded);

impl From<upgrade::Upgraded> for Upgraded {
    fn from(stream: upgrade::Upgraded) -> Upgraded {
        Upgraded(stream)
    }
}

impl Upgraded {
    /// hyper's stream, for code that polls.
    pub fn into_inner(self) -> upgrade::Upgraded {
        self.0
    }

    /// Ends the stream for the other end, after all that was written; with TLS, with a good-bye.
    ///
    /// # Errors
    /// What the stream gives.
    ///
    /// # Blocking and cancellation
    /// Parks while the stream has no room. A kill or time-out unwinds.
    #[track_caller]
    pub fn shutdown(&mut self) -> io::Result<()> {
        self.wait(rt::Write::poll_shutdown)
    }

    #[track_caller]
    fn wait<T>(
        &mut self,
        mut poll: impl FnMut(Pin<&mut upgrade::Upgraded>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> io::Result<T> {
        block_on(poll_fn(|context| poll(Pin::new(&mut self.0), context)))
    }
}

impl Read for Upgraded {
    #[track_caller]
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut buffer = ReadBuf::new(buffer);
        self.wait(|stream, context| rt::Read::poll_read(stream, context, buffer.unfilled()))?;
        Ok(buffer.filled().len())
    }
}

impl Write for Upgraded {
    #[track_caller]
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.wait(|stream, context| rt::Write::poll_write(stream, context, data))
    }

    #[track_caller]
    fn flush(&mut self) -> io::Result<()> {
        self.wait(rt::Write::poll_flush)
    }
}

impl fmt::Debug for Upgraded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Upgraded").field(&self.0).finish()
    }
}
