//! A server for HTTP/1.
#![forbid(unsafe_code)]

use std::error::Error;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use hyper::body::{Body, Incoming};
use hyper::rt::{Read, Write};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper::{Method, Request, Response, StatusCode, Uri, Version};

use super::rt::OneAlarm;
use crate::future::block_on;
use crate::server::{Handle, Listener, Stopped, StreamServer};
use crate::time;

/// How long a client has for the head of a request, unless the program says otherwise.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

type Failure = Box<dyn Error + Send + Sync>;
type Log = Box<dyn Fn(&Access) + Send + Sync>;

/// A request that was answered: a line of the access log.
///
/// `Display` gives the line: `GET /items/5?q=abc 200 0.412 ms`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Access {
    /// What was to be done.
    pub method: Method,
    /// With what: path and query.
    pub uri: Uri,
    /// In which version of HTTP.
    pub version: Version,
    /// What came of it.
    pub status: StatusCode,
    /// From the head of the request to the head of the response.
    pub took: Duration,
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = self.status.as_u16();
        let took = self.took.as_secs_f64() * 1e3;
        write!(f, "{} {} {status} {took:.3} ms", self.method, self.uri)
    }
}

/// What the connections of a server have in common.
#[derive(Default)]
struct Settings {
    log: OnceLock<Log>,
    head_timeout: OnceLock<Option<Duration>>,
    server: OnceLock<Handle>,
}

/// Serves HTTP/1 (keep-alive and pipelining too), with a green thread or a stackless task for each connection.
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
/// (`monkey`) wait so in [`new`](Self::new) and [`tower`](Self::tower), where thread-locals are each connection's own.
/// What a service panics with ends its connection, and is reported as that of any green thread.
///
/// # Stopping
/// [`stop`](Self::stop) lets each connection finish the request that it is at, and closes those that are idle; what is
/// not done within the patience is killed.
///
/// # Coming from Python
/// `gevent.pywsgi.WSGIServer`; `uvicorn.run(app)`.
pub struct HttpServer<L: Listener> {
    server: StreamServer<L>,
    settings: Arc<Settings>,
}

impl<L> HttpServer<L>
where
    L: Listener,
    L::Stream: Read + Write + Unpin,
{
    /// One for a service of hyper's, whose green threads are isolated, as those of [`spawn`](crate::spawn).
    #[track_caller]
    pub fn new<S, B>(listener: L, service: S) -> HttpServer<L>
    where
        S: Service<Request<Incoming>, Response = Response<B>, Error: Into<Failure>> + Send + Sync + 'static,
        B: Body<Error: Into<Failure>> + 'static,
    {
        HttpServer::with(|settings| {
            StreamServer::new(listener, move |stream, _| {
                block_on(settings.serve(stream, |request| service.call(request)));
            })
        })
    }

    /// The same, with [stackless tasks](crate::future::spawn) in place of green threads: the cheapest, and nothing in
    /// the service need be `Send`. They share the thread-locals of whoever starts the server.
    #[track_caller]
    pub fn new_local<S, B>(listener: L, service: S) -> HttpServer<L>
    where
        S: Service<Request<Incoming>, Response = Response<B>, Error: Into<Failure>> + 'static,
        B: Body<Error: Into<Failure>> + 'static,
    {
        HttpServer::with(|settings| {
            let service = Rc::new(service);
            StreamServer::new_stackless(listener, move |stream| {
                let (settings, service) = (settings.clone(), service.clone());
                async move { settings.serve(stream, |request| service.call(request)).await }
            })
        })
    }

    /// As [`new`](Self::new), for a service of tower's: axum's `Router`.
    #[track_caller]
    pub fn tower<S, B>(listener: L, service: S) -> HttpServer<L>
    where
        S: tower_service::Service<Request<Incoming>, Response = Response<B>, Error: Into<Failure>>,
        S: Clone + Send + Sync + 'static,
        B: Body<Error: Into<Failure>> + 'static,
    {
        HttpServer::with(|settings| {
            StreamServer::new(listener, move |stream, _| {
                let service = service.clone();
                block_on(settings.serve(stream, |request| ask(service.clone(), request)));
            })
        })
    }

    /// As [`new_local`](Self::new_local), for a service of tower's.
    #[track_caller]
    pub fn tower_local<S, B>(listener: L, service: S) -> HttpServer<L>
    where
        S: tower_service::Service<Request<Incoming>, Response = Response<B>, Error: Into<Failure>> + Clone + 'static,
        B: Body<Error: Into<Failure>> + 'static,
    {
        HttpServer::with(|settings| {
            StreamServer::new_stackless(listener, move |stream| {
                let (settings, service) = (settings.clone(), service.clone());
                async move { settings.serve(stream, |request| ask(service.clone(), request)).await }
            })
        })
    }

    fn with(server: impl FnOnce(Arc<Settings>) -> StreamServer<L>) -> HttpServer<L> {
        let settings = Arc::<Settings>::default();
        let server = server(settings.clone());
        let _ = settings.server.set(server.handle());
        HttpServer { server, settings }
    }

    /// Calls `log` after each request that was answered; the first that is given counts.
    #[must_use]
    pub fn access_log(self, log: impl Fn(&Access) + Send + Sync + 'static) -> HttpServer<L> {
        let _ = self.settings.log.set(Box::new(log));
        self
    }

    /// How long a client has for the head of a request, from the end of the one before: 30 seconds, unless this is
    /// called. `None`: for ever. The first that is given counts.
    #[must_use]
    pub fn head_timeout(self, limit: Option<Duration>) -> HttpServer<L> {
        let _ = self.settings.head_timeout.set(limit);
        self
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
        self.server.start()
    }

    /// Starts, unless it has, and waits until it was stopped, as [`StreamServer::serve_forever`].
    ///
    /// # Errors
    /// What made the server close by itself.
    ///
    /// # Blocking and cancellation
    /// Parks. A kill or time-out unwinds here, and closes the listener; the connections finish what they are at.
    #[track_caller]
    pub fn serve_forever(&self) -> io::Result<()> {
        self.server.serve_forever()
    }

    /// Stops it, as [`Handle::stop`].
    #[track_caller]
    pub fn stop(&self, patience: Duration) -> Stopped {
        self.server.stop(patience)
    }

    /// What may stop it from elsewhere.
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

/// Waits until a service of tower's has room, and asks it.
async fn ask<S: tower_service::Service<R>, R>(mut service: S, request: R) -> Result<S::Response, S::Error> {
    poll_fn(|context| service.poll_ready(context)).await?;
    service.call(request).await
}

impl Settings {
    /// Answers the requests of one connection with `call`.
    async fn serve<I, F, A, B, E>(&self, stream: I, call: F)
    where
        I: Read + Write + Unpin,
        F: Fn(Request<Incoming>) -> A,
        A: Future<Output = Result<Response<B>, E>>,
        B: Body<Error: Into<Failure>> + 'static,
        E: Into<Failure>,
    {
        let service = service_fn(|request: Request<Incoming>| {
            let log = self.log.get().map(|log| (log, Begun::new(&request)));
            let answer = call(request);
            async move {
                let response = answer.await?;
                if let Some((log, begun)) = log {
                    log(&begun.end(response.status()));
                }
                Ok::<_, E>(response)
            }
        });
        let head_timeout = self.head_timeout.get().copied().unwrap_or(Some(HEAD_TIMEOUT));
        let mut builder = http1::Builder::new();
        builder.timer(OneAlarm::default()).header_read_timeout(head_timeout);
        let mut connection = pin!(builder.serve_connection(stream, service));
        let mut closing = pin!(async {
            match self.server.get() {
                Some(server) => server.closing().await,
                None => std::future::pending().await,
            }
        });
        let mut closes = false;
        let mut waits = false;
        // An error is the client's, who is gone, or the service's, who knows.
        let _ = poll_fn(|context| {
            // One task polls this from first to last: its waker is left once.
            let is_closing = self.server.get().is_some_and(Handle::is_closing);
            if !closes && (is_closing || !waits) && closing.as_mut().poll(context).is_ready() {
                closes = true;
                connection.as_mut().graceful_shutdown();
            }
            waits = true;
            connection.as_mut().poll(context)
        })
        .await;
    }
}

/// A request that is not answered yet.
struct Begun {
    method: Method,
    uri: Uri,
    version: Version,
    at: Instant,
}

impl Begun {
    fn new(request: &Request<Incoming>) -> Begun {
        Begun {
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: request.version(),
            at: time::now(),
        }
    }

    fn end(self, status: StatusCode) -> Access {
        Access {
            method: self.method,
            uri: self.uri,
            version: self.version,
            status,
            took: time::now().saturating_duration_since(self.at),
        }
    }
}
