//! A server for HTTP/1.
#![forbid(unsafe_code)]

use std::error::Error;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::task::{Poll, ready};
use std::time::{Duration, Instant};

use hyper::body::{Body, Incoming};
use hyper::header::{CONNECTION, HeaderValue};
use hyper::rt::{Read, Write};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper::{Method, Request, Response, StatusCode, Uri, Version};

use super::guard::{Alarm, Answer, Busy, Io, Limits, Watch};
use super::rt::OneAlarm;
use crate::future::block_on;
use crate::server::{Handle, Listener, Stopped, StreamServer};
use crate::time::{self, Elapsed, timeout, timeout_async};

/// How long a client may take for each step, unless the program sets it.
const PATIENCE: Option<Duration> = Some(Duration::from_secs(30));

type Failure = Box<dyn Error + Send + Sync>;
type Log = Arc<dyn Fn(&Access) + Send + Sync>;

/// A request that was answered: a line of the access log.
///
/// `Display` gives the line: `GET /items/5?q=abc 200 0.412 ms`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Access {
    /// The request's method.
    pub method: Method,
    /// The request's path and query.
    pub uri: Uri,
    /// The version of HTTP.
    pub version: Version,
    /// The status of the response.
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

/// What the program has set.
#[derive(Clone)]
struct Config {
    log: Option<Log>,
    head_timeout: Option<Duration>,
    request_timeout: Option<Duration>,
    limits: Limits,
    http1: http1::Builder,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            log: None,
            head_timeout: PATIENCE,
            request_timeout: None,
            limits: Limits {
                body_timeout: PATIENCE,
                write_timeout: PATIENCE,
                half_close: PATIENCE,
                body: None,
            },
            http1: http1::Builder::new(),
        }
    }
}

/// What the connections of a server have in common.
#[derive(Default)]
struct Settings {
    /// Set by the start; the connections read it.
    config: OnceLock<Config>,
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
    settings: Arc<Settings>,
    config: Config,
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
            StreamServer::new(listener, move |stream, _| {
                block_on(settings.serve(stream, |request| service.call(request)));
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
            StreamServer::new_stackless(listener, move |stream| {
                let (settings, service) = (settings.clone(), service.clone());
                async move { settings.serve(stream, |request| service.call(request)).await }
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
            StreamServer::new(listener, move |stream, _| {
                let service = service.clone();
                block_on(settings.serve(stream, |request| ask(service.clone(), request)));
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
        HttpServer {
            server,
            settings,
            config: Config::default(),
        }
    }

    /// Calls `log` after each request that was answered.
    #[must_use]
    pub fn access_log(mut self, log: impl Fn(&Access) + Send + Sync + 'static) -> HttpServer<L> {
        self.config.log = Some(Arc::new(log));
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

/// Awaits an answer for at most `limit`. The `timeout` cuts a poll that blocks short, `timeout_async` a wait between
/// polls.
async fn within<F: Future>(limit: Option<Duration>, answer: F) -> Result<F::Output, Elapsed> {
    let Some(limit) = limit else {
        return Ok(answer.await);
    };
    let begun = time::now();
    let mut answer = pin!(answer);
    let bounded = poll_fn(|context| {
        let left = limit.saturating_sub(time::now().saturating_duration_since(begun));
        match timeout(left, || answer.as_mut().poll(context)) {
            Ok(poll) => poll.map(Ok),
            Err(elapsed) => Poll::Ready(Err(elapsed)),
        }
    });
    timeout_async(limit, bounded).await.and_then(|answer| answer)
}

/// An answer of the server's own, which ends the connection.
fn refuse<B>(status: StatusCode, busy: Busy) -> Response<Answer<B>> {
    let mut response = Response::new(Answer::new(None, busy));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

impl Config {
    /// Has `call` answer a request, within the limits.
    async fn answer<F, A, B, E>(
        &self,
        watch: &Arc<Watch>,
        call: F,
        request: Request<Incoming>,
        (busy, refused): (Busy, Option<StatusCode>),
    ) -> Result<Response<Answer<B>>, E>
    where
        F: Fn(Request<Incoming>) -> A,
        A: Future<Output = Result<Response<B>, E>>,
    {
        let log = self.log.as_ref().map(|log| (log, Begun::new(&request)));
        let response = if let Some(status) = refused {
            refuse(status, busy)
        } else {
            let answer = within(self.request_timeout, async { call(request).await }).await;
            match (watch.fault(), answer) {
                (Some(status), _) => refuse(status, busy),
                (None, Ok(response)) => response?.map(|body| Answer::new(Some(body), busy)),
                (None, Err(_)) => refuse(StatusCode::SERVICE_UNAVAILABLE, busy),
            }
        };
        if let Some((log, begun)) = log {
            log(&begun.end(response.status()));
        }
        Ok(response)
    }
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
        let config = self.config.get_or_init(Config::default);
        let watch = Watch::new(config.limits.clone());
        let service = service_fn(|request: Request<Incoming>| {
            let begun = watch.begin(&request.body().size_hint());
            config.answer(&watch, &call, request, begun)
        });
        let mut builder = config.http1.clone();
        builder
            .timer(OneAlarm::default())
            .header_read_timeout(config.head_timeout)
            .half_close(true);
        let io = Io::new(stream, watch.clone());
        let mut connection = pin!(builder.serve_connection(io, service));
        let mut closing = pin!(async {
            match self.server.get() {
                Some(server) => server.closing().await,
                None => std::future::pending().await,
            }
        });
        let (mut alarm, mut rang) = (Alarm::default(), false);
        let mut closes = false;
        let mut waits = false;
        // Errors are not reported: one is either of the connection, and the client has gone, or of the service, which
        // knows it.
        poll_fn(|context| {
            // `closing` keeps a waker. One task polls this from first to last, so it need be polled only once before
            // the server closes.
            let is_closing = self.server.get().is_some_and(Handle::is_closing);
            if !closes && (is_closing || !waits) && closing.as_mut().poll(context).is_ready() {
                closes = true;
                connection.as_mut().graceful_shutdown();
            }
            waits = true;
            loop {
                if connection.as_mut().poll(context).is_ready() {
                    return Poll::Ready(());
                }
                // An operation that was late has failed in this poll, or has ended: clear its deadline.
                if std::mem::take(&mut rang) {
                    watch.forget_late();
                }
                ready!(alarm.poll(&watch, context));
                rang = true;
                if watch.is_gone() {
                    return Poll::Ready(());
                }
            }
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
