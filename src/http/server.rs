//! A server for HTTP.
#![forbid(unsafe_code)]

use std::any::Any;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::{Body, Incoming};
use hyper::rt::{Read, Write};
use hyper::server::conn::http1;
#[cfg(feature = "http2")]
use hyper::server::conn::http2;
use hyper::service::Service;
use hyper::{Request, Response};

use super::access::Access;
use super::connection::{Config, Failure, Settings};
use crate::future::block_on;
use crate::server::{Handle, Listener, Stopped, StreamServer};

/// Serves HTTP/1 (keep-alive and pipelining too), HTTPS ([`tls`](Self::tls)), HTTP/2 ([`http2`](Self::http2)) and
/// WebSockets ([`upgrade`](super::upgrade())), with a green thread or a stackless task for each connection.
///
/// ```no_run
/// use greenthread::{http::HttpServer, net::TcpListener};
/// # use std::task::{Context, Poll};
/// # #[derive(Clone)] struct Router;
/// # impl tower_service::Service<hyper::Request<hyper::body::Incoming>> for Router {
/// #     type Response = hyper::Response<String>;
/// #     type Error = std::convert::Infallible;
/// #     type Future = std::future::Ready<Result<Self::Response, Self::Error>>;
/// #     fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> { todo!() }
/// #     fn call(&mut self, _: hyper::Request<hyper::body::Incoming>) -> Self::Future { todo!() }
/// # }
/// # fn main() -> std::io::Result<()> {
/// # let router = Router;
/// let server = HttpServer::tower(TcpListener::bind("127.0.0.1:8000")?, router) // axum's, without its feature `tokio`
///     .access_log(|access| println!("{access}"));
/// server.serve_forever()
/// # }
/// ```
///
/// A service is `async`, and may block all the same: its connection waits, and the others go on. Patched calls of libc
/// (`monkey`) wait in the same way in [`new`](Self::new) and [`tower`](Self::tower), where each connection has its own
/// thread-locals. A panic of a service ends its connection, and is reported as that of any green thread.
///
/// # Time-outs and limits
/// See [the module](super#time-outs-and-limits) for all of them, and what they are at first. A body that comes too
/// slowly is answered by `408`, one that is too large by `413`, a service that is too slow by `503`; each ends its
/// connection.
///
/// # Stopping
/// [`stop`](Self::stop) lets each connection finish the request that it is at, and closes idle ones; a connection that
/// is not done within the patience is killed.
///
/// # Coming from Python
/// `gevent.pywsgi.WSGIServer`; `uvicorn.run(app)`.
#[doc(alias("WSGIServer", "pywsgi"))]
pub struct HttpServer<L: Listener> {
    server: StreamServer<L>,
    settings: Arc<Settings<L::Stream>>,
    config: Config<L::Stream>,
}

impl<L> HttpServer<L>
where
    L: Listener,
    L::Stream: Read + Write + Unpin,
{
    /// A server for a service of hyper's, with isolated green threads, as those of [`spawn`](crate::spawn).
    #[track_caller]
    pub fn new<S, B>(listener: L, service: S) -> HttpServer<L>
    where
        S: Service<Request<Incoming>, Response = Response<B>, Error: Into<Failure>> + Send + Sync + 'static,
        B: Body<Error: Into<Failure>> + 'static,
    {
        HttpServer::with(|settings| {
            let service = Arc::new(service);
            StreamServer::new(listener, move |stream, peer| {
                let service = service.clone();
                block_on(
                    settings
                        .clone()
                        .serve(stream, address(&peer), move |request| service.call(request)),
                );
            })
        })
    }

    /// Like [`new`](Self::new), with [stackless tasks](crate::future::spawn) in place of green threads.
    ///
    /// That is the cheapest, and nothing in the service need be `Send`. The tasks share the thread-locals of the caller
    /// that starts the server.
    #[track_caller]
    pub fn new_local<S, B>(listener: L, service: S) -> HttpServer<L>
    where
        S: Service<Request<Incoming>, Response = Response<B>, Error: Into<Failure>> + 'static,
        B: Body<Error: Into<Failure>> + 'static,
    {
        HttpServer::with(|settings| {
            let service = Rc::new(service);
            StreamServer::new_stackless(listener, move |stream, peer| {
                let service = service.clone();
                settings
                    .clone()
                    .serve(stream, address(&peer), move |request| service.call(request))
            })
        })
    }

    /// Like [`new`](Self::new), for a service of tower's: axum's `Router`.
    #[track_caller]
    pub fn tower<S, B>(listener: L, service: S) -> HttpServer<L>
    where
        S: tower_service::Service<Request<Incoming>, Response = Response<B>, Error: Into<Failure>>,
        S: Clone + Send + Sync + 'static,
        B: Body<Error: Into<Failure>> + 'static,
    {
        HttpServer::with(|settings| {
            StreamServer::new(listener, move |stream, peer| {
                let service = service.clone();
                block_on(
                    settings
                        .clone()
                        .serve(stream, address(&peer), move |request| ask(service.clone(), request)),
                );
            })
        })
    }

    /// Like [`new_local`](Self::new_local), for a service of tower's.
    #[track_caller]
    pub fn tower_local<S, B>(listener: L, service: S) -> HttpServer<L>
    where
        S: tower_service::Service<Request<Incoming>, Response = Response<B>, Error: Into<Failure>> + Clone + 'static,
        B: Body<Error: Into<Failure>> + 'static,
    {
        HttpServer::with(|settings| {
            StreamServer::new_stackless(listener, move |stream, peer| {
                let service = service.clone();
                settings
                    .clone()
                    .serve(stream, address(&peer), move |request| ask(service.clone(), request))
            })
        })
    }

    fn with(server: impl FnOnce(Arc<Settings<L::Stream>>) -> StreamServer<L>) -> HttpServer<L> {
        let settings = Arc::<Settings<L::Stream>>::default();
        let server = server(settings.clone());
        let _ = settings.server.set(server.handle());
        HttpServer {
            server,
            settings,
            config: Config::default(),
        }
    }

    /// Calls `log` with each request that was answered, at the end of its response.
    #[must_use]
    pub fn access_log(mut self, log: impl Fn(&Access) + Send + Sync + 'static) -> HttpServer<L> {
        self.config.log = Some(Arc::new(log));
        self
    }

    /// Puts the client's address into the extensions of each request, as a [`Peer`](super::Peer), if it is an IP
    /// address.
    ///
    /// axum's `into_make_service_with_connect_info`.
    #[must_use]
    pub fn peers(mut self) -> HttpServer<L> {
        self.config.peers = true;
        self
    }

    /// Speaks HTTPS: each connection begins with a TLS handshake, for which a client has `patience`.
    ///
    /// ```
    /// use std::{convert::Infallible, time::Duration};
    /// use greenthread::{future::block_on, http::{Executor, HttpServer}};
    /// use greenthread::net::{TcpListener, TcpStream, tls::TlsStream};
    /// use http_body_util::{BodyExt, Empty};
    /// use hyper::{Request, Response, body::{Bytes, Incoming}, rt::Executor as _, service::service_fn};
    /// # use std::sync::Arc;
    /// # use greenthread::net::tls::rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
    /// # use greenthread::net::tls::rustls::{ClientConfig, RootCertStore, ServerConfig};
    /// # macro_rules! pem { ($name:literal) => {
    /// #     include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/tls/", $name))
    /// # } }
    /// # fn configs() -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    /// #     let certificate = CertificateDer::from_pem_slice(pem!("certificate.pem")).unwrap();
    /// #     let key = PrivateKeyDer::from_pem_slice(pem!("key.pem")).unwrap();
    /// #     let mut roots = RootCertStore::empty();
    /// #     roots.add(certificate.clone()).unwrap();
    /// #     let server = ServerConfig::builder().with_no_client_auth();
    /// #     let client = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    /// #     (Arc::new(server.with_single_cert(vec![certificate], key).unwrap()), Arc::new(client))
    /// # }
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    /// const PATIENCE: Duration = Duration::from_secs(10);
    /// let (server_config, client_config) = configs(); // of rustls, with a certificate for `localhost`
    /// let service = service_fn(async |_: Request<Incoming>| {
    ///     Ok::<_, Infallible>(Response::new(String::from("in private")))
    /// });
    /// let server = HttpServer::new(TcpListener::bind("127.0.0.1:0")?, service).tls(&server_config, PATIENCE);
    /// server.start()?;
    ///
    /// let socket = TcpStream::connect(server.local_addr()?)?;
    /// let text = block_on(async {
    ///     let stream = TlsStream::connect_async(client_config, "localhost", socket, PATIENCE).await?;
    ///     let (mut client, connection) = hyper::client::conn::http1::handshake(stream).await?;
    ///     Executor.execute(connection);
    ///     let request = Request::get("/").header("host", "localhost").body(Empty::<Bytes>::new())?;
    ///     let body = client.send_request(request).await?.into_body().collect().await?;
    ///     Ok::<_, Box<dyn std::error::Error + Send + Sync>>(body.to_bytes())
    /// })?;
    /// assert_eq!(text, "in private");
    /// server.stop(Duration::from_secs(1));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// The handshake is part of the connection, so a client that sends nothing or garbage holds up only itself. A
    /// handshake that fails ends the connection, and is told to [`on_tls_error`](Self::on_tls_error). If the
    /// configuration names no `alpn_protocols`, the server offers those that it speaks: `h2`, if it
    /// [does](Self::http2), and `http/1.1`.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, config: &rustls::ServerConfig, patience: Duration) -> HttpServer<L>
    where
        L::Stream: futures_io::AsyncRead + futures_io::AsyncWrite,
    {
        self.config.greet = Some(super::tls::greet(config, patience));
        self
    }

    /// Calls `hook` with the client's address and the error of each TLS handshake that has failed: `TimedOut` for a
    /// silent client, `InvalidData` for garbage or a certificate that it does not trust.
    ///
    /// Without a hook they are not reported, because anyone can bring them about.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn on_tls_error(
        mut self,
        hook: impl Fn(Option<SocketAddr>, &io::Error) + Send + Sync + 'static,
    ) -> HttpServer<L> {
        self.config.not_greeted = Some(Arc::new(hook));
        self
    }

    /// Speaks HTTP/2 too, with hyper's options: `max_concurrent_streams`, `max_frame_size` and so on.
    ///
    /// ```no_run
    /// # use std::convert::Infallible;
    /// # use greenthread::{http::HttpServer, net::TcpListener};
    /// # use hyper::{Request, Response, body::Incoming, service::service_fn};
    /// # fn main() -> std::io::Result<()> {
    /// # let service = service_fn(async |_: Request<Incoming>| Ok::<_, Infallible>(Response::new(String::new())));
    /// let server = HttpServer::new(TcpListener::bind("127.0.0.1:8000")?, service).http2(|http2| {
    ///     http2.max_concurrent_streams(100);
    /// });
    /// # server.serve_forever()
    /// # }
    /// ```
    ///
    /// With [TLS](Self::tls), a client chooses it by ALPN. Without, a connection that begins with the preface of HTTP/2
    /// is taken for it (prior knowledge); there is no upgrade to `h2c`.
    ///
    /// Each request of a connection has a [stackless task](crate::future::spawn) of its own. It may block: other
    /// requests go on, on the same connection too. The tasks of a connection share its thread-locals. [The
    /// module](super#http2) tells what the time-outs and limits mean here.
    ///
    /// The server itself sets hyper's `timer`, `keep_alive_interval` and `keep_alive_timeout`.
    #[cfg(feature = "http2")]
    #[must_use]
    pub fn http2(mut self, set: impl FnOnce(&mut http2::Builder<super::Executor>)) -> HttpServer<L> {
        set(self.config.http2.get_or_insert_with(super::http2::builder));
        self
    }

    /// How long a client has for the head of a request, from the end of the one before.
    ///
    /// So this is also how long a connection may be idle. 30 seconds, unless this is called. `None`: forever.
    ///
    /// hyper's `header_read_timeout`; Go's `ReadHeaderTimeout` and `IdleTimeout` in one.
    #[must_use]
    pub fn head_timeout(mut self, limit: Option<Duration>) -> HttpServer<L> {
        self.config.head_timeout = limit;
        self
    }

    /// The size of the stacks of its green threads, in bytes that they can use, as [`StreamServer::stack_size`].
    /// Services of a server of stackless tasks ([`new_local`](Self::new_local), [`tower_local`](Self::tower_local))
    /// have [`stack::default_size`](crate::stack::default_size).
    #[must_use]
    pub fn stack_size(self, bytes: usize) -> HttpServer<L> {
        HttpServer {
            server: self.server.stack_size(bytes),
            ..self
        }
    }

    /// How long the body of a request may stand still while the service waits for it.
    ///
    /// 30 seconds, unless this is called. `None`: forever. When it is over, the service's read of the body is an
    /// error, and the client is answered by `408`.
    ///
    /// nginx's `client_body_timeout`. Go's `ReadTimeout` bounds the whole body, and so the size that a slow client can
    /// send: for that there is [`request_timeout`](Self::request_timeout).
    #[must_use]
    pub fn body_timeout(mut self, limit: Option<Duration>) -> HttpServer<L> {
        self.config.limits.body_timeout = limit;
        self
    }

    /// How long a client may take nothing of what is written to it.
    ///
    /// 30 seconds, unless this is called. `None`: forever. When it is over, the connection ends.
    ///
    /// nginx's `send_timeout`. Go's `WriteTimeout` bounds the whole response.
    #[must_use]
    pub fn write_timeout(mut self, limit: Option<Duration>) -> HttpServer<L> {
        self.config.limits.write_timeout = limit;
        self
    }

    /// How long the service has, from the head of the request to that of its response.
    ///
    /// There is no limit unless this is called. When the time is over, the service is cut short as by
    /// [`timeout`](crate::timeout()), even where it blocks, and the client gets a `503`.
    ///
    /// Go's `TimeoutHandler`. It does not bound the body of the response.
    #[must_use]
    pub fn request_timeout(mut self, limit: Option<Duration>) -> HttpServer<L> {
        self.config.request_timeout = limit;
        self
    }

    /// How many bytes the body of a request may have; any number, unless this is called.
    ///
    /// A request that announces more gets a `413`, and the service is not called. A body of unknown length
    /// (`transfer-encoding: chunked`) is cut off when more than that has come. Then the service's read of the body
    /// fails, and the client gets a `413`. The chunk headers count; bytes that came together with the head of the
    /// request (400 KB at most) do not.
    ///
    /// Go's `MaxBytesHandler`. (The extractors of axum have a limit of their own, 2 MB.)
    #[must_use]
    pub fn body_limit(mut self, bytes: Option<u64>) -> HttpServer<L> {
        self.config.limits.body = bytes;
        self
    }

    /// How long a client that has ended its side of the connection may wait for its answer.
    ///
    /// 30 seconds, unless this is called. When the time is over (with `None`: at once), the service is dropped, as when
    /// the connection breaks. A server cannot tell a client that has gone from one that only sends no more.
    ///
    /// hyper's `half_close`, with an end. A service that blocks is not dropped.
    #[must_use]
    pub fn half_close(mut self, patience: Option<Duration>) -> HttpServer<L> {
        self.config.limits.half_close = patience;
        self
    }

    /// Sets the other options of hyper: `keep_alive`, `max_headers`, `max_header_size`, `max_buf_size`,
    /// `pipeline_flush`, `title_case_headers` and so on.
    ///
    /// ```no_run
    /// # use std::convert::Infallible;
    /// # use greenthread::{http::HttpServer, net::TcpListener};
    /// # use hyper::{Request, Response, body::Incoming, service::service_fn};
    /// # fn main() -> std::io::Result<()> {
    /// # let service = service_fn(async |_: Request<Incoming>| Ok::<_, Infallible>(Response::new(String::new())));
    /// let server = HttpServer::new(TcpListener::bind("127.0.0.1:8000")?, service).http1(|http1| {
    ///     http1.max_headers(50).max_header_size(16 * 1024);
    /// });
    /// # server.serve_forever()
    /// # }
    /// ```
    ///
    /// The server itself sets hyper's `timer`, `header_read_timeout` and `half_close`.
    #[must_use]
    pub fn http1(mut self, set: impl FnOnce(&mut http1::Builder)) -> HttpServer<L> {
        set(&mut self.config.http1);
        self
    }

    /// How long a connection that the server has closed lingers, as [`StreamServer::linger`].
    #[must_use]
    pub fn linger(self, patience: Option<Duration>) -> HttpServer<L> {
        HttpServer {
            server: self.server.linger(patience),
            ..self
        }
    }

    /// At most so many connections at once, as [`StreamServer::limit`].
    ///
    /// # Panics
    /// If it is zero.
    #[must_use]
    #[track_caller]
    pub fn limit(self, connections: usize) -> HttpServer<L> {
        HttpServer {
            server: self.server.limit(connections),
            ..self
        }
    }

    /// Starts accepting, as [`StreamServer::start`].
    ///
    /// # Errors
    /// As there.
    pub fn start(&self) -> io::Result<()> {
        self.settings.config.get_or_init(|| self.config.clone());
        self.server.start()
    }

    /// Starts, unless it has, and waits until it was stopped, as [`StreamServer::serve_forever`].
    ///
    /// # Errors
    /// The error that made the server close by itself.
    ///
    /// # Blocking and cancellation
    /// Parks. A kill or time-out unwinds here, and closes the listener; the connections finish what they are at.
    #[track_caller]
    pub fn serve_forever(&self) -> io::Result<()> {
        self.settings.config.get_or_init(|| self.config.clone());
        self.server.serve_forever()
    }

    /// Stops it, as [`Handle::stop`].
    #[track_caller]
    pub fn stop(&self, patience: Duration) -> Stopped {
        self.server.stop(patience)
    }

    /// A handle that may stop it from elsewhere.
    pub fn handle(&self) -> Handle {
        self.server.handle()
    }

    /// The address that it listens on, or did.
    ///
    /// # Errors
    /// What the system said when the server was made.
    pub fn local_addr(&self) -> io::Result<L::Address> {
        self.server.local_addr()
    }
}

impl<L: Listener> fmt::Debug for HttpServer<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpServer").field("server", &self.server).finish()
    }
}

/// Waits until a service of tower's is ready, and calls it.
async fn ask<S: tower_service::Service<R>, R>(mut service: S, request: R) -> Result<S::Response, S::Error> {
    poll_fn(|context| service.poll_ready(context)).await?;
    service.call(request).await
}

/// The client's address, if it is an IP address.
fn address<A: 'static>(peer: &A) -> Option<SocketAddr> {
    (peer as &dyn Any).downcast_ref().copied()
}
