//! One connection of a server: which version of HTTP it speaks, its requests, and its end.
//!
//! ```text
//!   accepted ── TLS? ──► handshake ─► ALPN ──┬─► HTTP/1 ─► upgraded? ──► what the handler has given
//!       └── HTTP/2 allowed? ──► preface? ────┴─► HTTP/2
//! ```
#![forbid(unsafe_code)]

use std::error::Error;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::body::{Body, Incoming};
use hyper::header::{CONNECTION, HeaderValue};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};

use super::access::{Entry, Line, Log, Peer};
use super::guard::{Alarm, Answer, Io, Limits, Watch};
use super::rt::OneAlarm;
use super::upgrade::Upgrades;
use crate::server::Handle;
use crate::time::{self, Elapsed, timeout, timeout_async};

/// How long a client may take for each step, unless the program sets it.
const PATIENCE: Option<Duration> = Some(Duration::from_secs(30));

pub(super) type Failure = Box<dyn Error + Send + Sync>;

/// A stream with TLS on it, whatever is below.
pub(super) trait Duplex: Read + Write + Unpin + Send {}
impl<T: Read + Write + Unpin + Send> Duplex for T {}

/// A stream past its handshake, and whether HTTP/2 was agreed on.
pub(super) type Secure = (Box<dyn Duplex>, bool);
type Greeting = Pin<Box<dyn Future<Output = io::Result<Secure>>>>;
/// Does the handshake; the second argument tells whether HTTP/2 may be agreed on.
pub(super) type Greet<I> = Arc<dyn Fn(I, bool) -> Greeting + Send + Sync>;

/// Told of a handshake that has failed.
pub(super) type NotGreeted = Arc<dyn Fn(Option<SocketAddr>, &io::Error) + Send + Sync>;

/// What the program has set.
pub(super) struct Config<I> {
    pub(super) log: Option<Log>,
    pub(super) peers: bool,
    pub(super) head_timeout: Option<Duration>,
    pub(super) request_timeout: Option<Duration>,
    pub(super) limits: Limits,
    pub(super) greet: Option<Greet<I>>,
    pub(super) not_greeted: Option<NotGreeted>,
    pub(super) http1: http1::Builder,
    #[cfg(feature = "http2")]
    pub(super) http2: Option<hyper::server::conn::http2::Builder<super::Executor>>,
}

impl<I> Default for Config<I> {
    fn default() -> Config<I> {
        Config {
            log: None,
            peers: false,
            head_timeout: PATIENCE,
            request_timeout: None,
            limits: Limits {
                body_timeout: PATIENCE,
                write_timeout: PATIENCE,
                half_close: PATIENCE,
                body: None,
            },
            greet: None,
            not_greeted: None,
            http1: http1::Builder::new(),
            #[cfg(feature = "http2")]
            http2: None,
        }
    }
}

impl<I> Clone for Config<I> {
    fn clone(&self) -> Config<I> {
        Config {
            log: self.log.clone(),
            limits: self.limits.clone(),
            greet: self.greet.clone(),
            not_greeted: self.not_greeted.clone(),
            http1: self.http1.clone(),
            #[cfg(feature = "http2")]
            http2: self.http2.clone(),
            ..*self
        }
    }
}

/// What the connections of a server have in common.
pub(super) struct Settings<I> {
    /// Set by the start; the connections read it.
    pub(super) config: OnceLock<Config<I>>,
    pub(super) server: OnceLock<Handle>,
}

impl<I> Default for Settings<I> {
    fn default() -> Settings<I> {
        Settings {
            config: OnceLock::new(),
            server: OnceLock::new(),
        }
    }
}

/// A client's stream, with TLS on it or not.
pub(super) enum Wire<I> {
    Plain(I),
    Secure(Box<dyn Duplex>),
}

/// Passes a poll on to the stream.
macro_rules! pass {
    ($self:ident, $stream:ident => $poll:expr) => {
        match $self.get_mut() {
            Wire::Plain(stream) => {
                let $stream = Pin::new(stream);
                $poll
            }
            Wire::Secure(stream) => {
                let $stream = Pin::new(stream);
                $poll
            }
        }
    };
}

impl<I: Read + Unpin> Read for Wire<I> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        pass!(self, stream => stream.poll_read(context, buffer))
    }
}

impl<I: Write + Unpin> Write for Wire<I> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        pass!(self, stream => stream.poll_write(context, data))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        pass!(self, stream => stream.poll_write_vectored(context, data))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Wire::Plain(stream) => stream.is_write_vectored(),
            Wire::Secure(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        pass!(self, stream => stream.poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        pass!(self, stream => stream.poll_shutdown(context))
    }
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
fn refuse<B, G>(status: StatusCode, entry: Option<Box<Entry>>, busy: G) -> Response<Answer<B, G>> {
    let mut response = Response::new(Answer::new(None, Line::of(entry, status), busy));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// A request of a connection, as it is before it is answered.
pub(super) struct Begun<'a, G> {
    pub(super) request: Request<Incoming>,
    pub(super) peer: Option<SocketAddr>,
    /// Dropped when the request is answered.
    pub(super) busy: G,
    /// The status to refuse it with.
    pub(super) refused: Option<StatusCode>,
    /// Tells whether the server has cut the body off.
    pub(super) watch: Option<&'a Watch>,
}

impl<I> Config<I> {
    /// Has `call` answer a request, within the limits.
    pub(super) async fn answer<F, A, B, E, G>(&self, begun: Begun<'_, G>, call: &F) -> Result<Response<Answer<B, G>>, E>
    where
        F: Fn(Request<Incoming>) -> A,
        A: Future<Output = Result<Response<B>, E>>,
    {
        let Begun {
            mut request,
            peer,
            busy,
            refused,
            watch,
        } = begun;
        let log = self.log.as_ref();
        let entry = log.map(|log| Entry::new(log.clone(), peer, &request));
        if let Some(status) = refused {
            return Ok(refuse(status, entry, busy));
        }
        if let Some(peer) = peer.filter(|_| self.peers) {
            request.extensions_mut().insert(Peer(peer));
        }
        let answer = within(self.request_timeout, async { call(request).await }).await;
        match (watch.and_then(Watch::fault), answer) {
            (Some(status), _) => Ok(refuse(status, entry, busy)),
            (None, Ok(response)) => {
                let response = response?;
                let line = Line::of(entry, response.status());
                Ok(response.map(|body| Answer::new(Some(body), line, busy)))
            }
            (None, Err(_)) => Ok(refuse(StatusCode::SERVICE_UNAVAILABLE, entry, busy)),
        }
    }
}

impl<I: Read + Write + Unpin + Send + 'static> Settings<I> {
    pub(super) fn config(&self) -> &Config<I> {
        self.config.get_or_init(Config::default)
    }

    /// Answers the requests of one connection with `call`.
    pub(super) async fn serve<F, A, B, E>(self: Arc<Self>, stream: I, peer: Option<SocketAddr>, call: F)
    where
        F: Fn(Request<Incoming>) -> A + 'static,
        A: Future<Output = Result<Response<B>, E>> + 'static,
        B: Body<Error: Into<Failure>> + 'static,
        E: Into<Failure> + 'static,
    {
        let Some((wire, ahead, _is_http2)) = self.unless_closing(self.open(stream, peer)).await.flatten() else {
            return;
        };
        let watch = Watch::new(self.config().limits.clone());
        let io = Io::new(wire, watch.clone(), ahead);
        #[cfg(feature = "http2")]
        if _is_http2 {
            return self.serve_http2(io, &watch, peer, call).await;
        }
        self.serve_http1(io, &watch, peer, call).await;
    }

    /// Awaits this, unless the server closes first.
    async fn unless_closing<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        let (mut future, mut closing) = (pin!(future), pin!(self.closing()));
        poll_fn(|context| {
            if let Poll::Ready(value) = future.as_mut().poll(context) {
                return Poll::Ready(Some(value));
            }
            closing.as_mut().poll(context).map(|()| None)
        })
        .await
    }

    async fn closing(&self) {
        match self.server.get() {
            Some(server) => server.closing().await,
            None => std::future::pending().await,
        }
    }

    /// Does what comes before HTTP: the stream, what was read of it, and whether it speaks HTTP/2. None: it fails.
    async fn open(&self, stream: I, peer: Option<SocketAddr>) -> Option<(Wire<I>, Vec<u8>, bool)> {
        let config = self.config();
        #[cfg(feature = "http2")]
        let http2 = config.http2.is_some();
        #[cfg(not(feature = "http2"))]
        let http2 = false;
        if let Some(greet) = &config.greet {
            let tell = |error| {
                if let Some(hook) = &config.not_greeted {
                    hook(peer, &error);
                }
            };
            let (stream, is_http2) = greet(stream, http2).await.map_err(tell).ok()?;
            return Some((Wire::Secure(stream), Vec::new(), is_http2));
        }
        #[cfg(feature = "http2")]
        if http2 {
            let limit = config.head_timeout.unwrap_or(Duration::MAX);
            let opened = timeout_async(limit, super::http2::preface(stream)).await.ok()?.ok()?;
            return Some((Wire::Plain(opened.0), opened.1, opened.2));
        }
        Some((Wire::Plain(stream), Vec::new(), false))
    }

    async fn serve_http1<F, A, B, E>(&self, io: Io<Wire<I>>, watch: &Arc<Watch>, peer: Option<SocketAddr>, call: F)
    where
        F: Fn(Request<Incoming>) -> A,
        A: Future<Output = Result<Response<B>, E>>,
        B: Body<Error: Into<Failure>> + 'static,
        E: Into<Failure>,
    {
        let config = self.config();
        let upgrades = Upgrades::default();
        let service = service_fn(|request: Request<Incoming>| {
            let (busy, refused) = watch.begin(&request.body().size_hint());
            let watch = Some(&**watch);
            let begun = Begun {
                request,
                peer,
                busy,
                refused,
                watch,
            };
            let answer = config.answer(begun, &call);
            let upgrades = &upgrades;
            async move {
                let mut answer = answer.await;
                if let Ok(response) = &mut answer {
                    upgrades.keep(response);
                }
                answer
            }
        });
        let mut builder = config.http1.clone();
        builder
            .timer(OneAlarm::default())
            .header_read_timeout(config.head_timeout)
            .half_close(true);
        let connection = builder.serve_connection(io, service).with_upgrades();
        // Moved into the block, which drops it: what was not answered is not busy any more.
        async move {
            let close = |connection: Pin<&mut _>| http1::UpgradeableConnection::graceful_shutdown(connection);
            self.drive(pin!(connection), watch, close).await;
        }
        .await;
        watch.upgrade();
        upgrades.run().await;
    }

    /// Drives a connection to its end, or to a deadline. `close` begins its graceful end.
    pub(super) async fn drive<C: Future>(
        &self,
        mut connection: Pin<&mut C>,
        watch: &Watch,
        close: impl Fn(Pin<&mut C>),
    ) {
        let mut closing = pin!(self.closing());
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
                close(connection.as_mut());
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
                ready!(alarm.poll(watch, context));
                rang = true;
                if watch.is_gone() {
                    return Poll::Ready(());
                }
                if watch.is_idle() {
                    // The second time: the client has not ended either.
                    if closes {
                        return Poll::Ready(());
                    }
                    closes = true;
                    close(connection.as_mut());
                    watch.idle_for(PATIENCE);
                }
            }
        })
        .await;
    }
}
