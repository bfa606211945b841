//! HTTP/2: how it is told from HTTP/1, and its requests, each in a stackless task of its own.
//!
//! Those tasks belong to the context of the connection, so they see its thread-locals, and nothing in them need be
//! `Send`. hyper drops the future of a request when its client or the connection is gone; only one that blocks goes on.
//! So a connection that ends waits for its requests, and one that is killed kills them.
#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use hyper::body::{Body, Incoming, SizeHint};
use hyper::rt::{Read, ReadBuf, Write};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};

use super::connection::{Begun, Failure, Settings, Wire};
use super::guard::{Io, Watch};
use super::{Executor, Timer};
use crate::thread::{Thread, current};

/// What a client sends first if it speaks HTTP/2.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// hyper's builder, as it is before the program sets its options.
pub(super) fn builder() -> http2::Builder<Executor> {
    http2::Builder::new(Executor)
}

/// Reads until it is clear whether the client begins with the preface: the stream, what was read, and whether it does.
pub(super) async fn preface<I: Read + Unpin>(mut stream: I) -> io::Result<(I, Vec<u8>, bool)> {
    let mut ahead = Vec::new();
    while ahead.len() < PREFACE.len() && PREFACE.starts_with(&ahead) {
        let mut bytes = [0; PREFACE.len()];
        let mut bytes = ReadBuf::new(&mut bytes[ahead.len()..]);
        poll_fn(|context| Pin::new(&mut stream).poll_read(context, bytes.unfilled())).await?;
        if bytes.filled().is_empty() {
            break;
        }
        ahead.extend_from_slice(bytes.filled());
    }
    let is_http2 = ahead == PREFACE;
    Ok((stream, ahead, is_http2))
}

/// The requests of a connection that are not answered yet.
struct Streams {
    watch: Arc<Watch>,
    /// How long the connection may be idle.
    patience: Option<Duration>,
    limit: u64,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    /// The tasks of the requests by number, once they run.
    live: HashMap<u64, Option<Thread>>,
    begun: u64,
    /// Woken when none is left.
    end: Option<Waker>,
}

/// A request that is not answered until this is dropped.
struct Busy {
    streams: Rc<Streams>,
    number: u64,
}

impl Streams {
    fn begin(self: &Rc<Streams>, body: &SizeHint) -> (Busy, Option<StatusCode>) {
        let mut state = self.state.borrow_mut();
        state.begun += 1;
        let number = state.begun;
        state.live.insert(number, None);
        self.watch.idle_for(None);
        let refused = (body.lower() > self.limit).then_some(StatusCode::PAYLOAD_TOO_LARGE);
        let streams = self.clone();
        (Busy { streams, number }, refused)
    }

    /// Waits until no request is left.
    async fn end(&self) {
        poll_fn(|context| {
            let mut state = self.state.borrow_mut();
            if state.live.is_empty() {
                return Poll::Ready(());
            }
            let before = state.end.replace(context.waker().clone());
            drop(state);
            drop(before);
            Poll::Pending
        })
        .await;
    }
}

impl Busy {
    /// Called in the request's own task.
    fn enter(&self) {
        let task = Some(current());
        self.streams.state.borrow_mut().live.insert(self.number, task);
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let streams = &self.streams;
        let mut state = streams.state.borrow_mut();
        let task = state.live.remove(&self.number);
        let mut end = None;
        if state.live.is_empty() {
            streams.watch.idle_for(streams.patience);
            end = state.end.take();
        }
        drop(state);
        drop(task);
        end.into_iter().for_each(Waker::wake);
    }
}

/// Kills the requests that are left when the connection was killed.
struct Kill(Rc<Streams>);

impl Drop for Kill {
    fn drop(&mut self) {
        let left: Vec<Thread> = self.0.state.borrow().live.values().flatten().cloned().collect();
        left.iter().for_each(Thread::kill);
    }
}

impl<I: Read + Write + Unpin + Send + 'static> Settings<I> {
    pub(super) async fn serve_http2<F, A, B, E>(
        self: &Arc<Self>,
        io: Io<Wire<I>>,
        watch: &Arc<Watch>,
        peer: Option<SocketAddr>,
        call: F,
    ) where
        F: Fn(Request<Incoming>) -> A + 'static,
        A: Future<Output = Result<Response<B>, E>> + 'static,
        B: Body<Error: Into<Failure>> + 'static,
        E: Into<Failure> + 'static,
    {
        let config = self.config();
        watch.idle_for(config.head_timeout);
        let streams = Rc::new(Streams {
            watch: watch.clone(),
            patience: config.head_timeout,
            limit: config.limits.body.unwrap_or(u64::MAX),
            state: RefCell::default(),
        });
        let kill = Kill(streams.clone());
        let (settings, call) = (self.clone(), Rc::new(call));
        let service = service_fn(move |request: Request<Incoming>| {
            let (busy, refused) = streams.begin(&request.body().size_hint());
            let (settings, call) = (settings.clone(), call.clone());
            async move {
                busy.enter();
                let watch = None;
                let begun = Begun {
                    request,
                    peer,
                    busy,
                    refused,
                    watch,
                };
                settings.config().answer(begun, &*call).await
            }
        });
        let mut builder = config.http2.clone().unwrap_or_else(builder);
        builder.timer(Timer);
        if let Some(limit) = config.limits.write_timeout {
            builder.keep_alive_interval(limit).keep_alive_timeout(limit);
        }
        let connection = builder.serve_connection(io, service);
        // Moved into the block, which drops it: then hyper drops the futures of requests that do not block.
        async move {
            let close = |connection: Pin<&mut _>| http2::Connection::graceful_shutdown(connection);
            self.drive(pin!(connection), watch, close).await;
        }
        .await;
        kill.0.end().await;
    }
}
