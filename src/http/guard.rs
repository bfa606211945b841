//! The bounds of a server's connection: how long it may stand still, and how much may come.
//!
//! hyper sees the socket through [`Io`], and its polls there show when it waits. hyper's option `half_close` is on. So
//! if a read waits while a request is answered, it can only be a read of that request's body. This tells the watch what
//! is being waited for:
//!
//! ```text
//!   between requests   read waits: the next head, which hyper's own timer bounds
//!   from a head to the end of its response ("busy")
//!                      read waits: the body
//!                      none waits: we look ahead, for the client may have ended or gone
//!   always             write waits: the client does not read
//! ```
#![forbid(unsafe_code)]

use std::io::{self, ErrorKind, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::StatusCode;
use hyper::body::{Body, Buf, Frame, SizeHint};
use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};
use pin_project_lite::pin_project;

use super::access::Line;
use crate::hub::Hub;
use crate::time::Sleep;

/// Stands for no deadline, and for no limit.
const NEVER: u64 = u64::MAX;
/// How much is read at once when bytes are counted or read ahead.
const CHUNK: usize = 8192;

/// The bounds, as the program has set them.
#[derive(Clone, Debug)]
pub(super) struct Limits {
    pub(super) body_timeout: Option<Duration>,
    pub(super) write_timeout: Option<Duration>,
    pub(super) half_close: Option<Duration>,
    pub(super) body: Option<u64>,
}

/// The state of one connection. Only one task uses it: the atomics are there for `Send`.
pub(super) struct Watch {
    limits: Limits,
    /// Set from the head of a request to the end of its response.
    busy: AtomicBool,
    /// Deadlines, in nanoseconds of the hub's clock: of the read that waits, of the write that waits, and of a client
    /// that has ended its side.
    read_due: AtomicU64,
    write_due: AtomicU64,
    half_due: AtomicU64,
    /// With HTTP/2: the deadline of a connection that is idle.
    idle_due: AtomicU64,
    /// How many more bytes a body of unknown length may have.
    body_left: AtomicU64,
    fault: AtomicU8,
    /// The socket is HTTP's no more, and has no deadlines.
    is_upgraded: AtomicBool,
}

/// What was wrong with a body.
const TOO_SLOW: u8 = 1;
const TOO_LARGE: u8 = 2;

impl Watch {
    pub(super) fn new(limits: Limits) -> Arc<Watch> {
        Arc::new(Watch {
            limits,
            busy: AtomicBool::new(false),
            read_due: AtomicU64::new(NEVER),
            write_due: AtomicU64::new(NEVER),
            half_due: AtomicU64::new(NEVER),
            idle_due: AtomicU64::new(NEVER),
            body_left: AtomicU64::new(NEVER),
            fault: AtomicU8::new(0),
            is_upgraded: AtomicBool::new(false),
        })
    }

    /// The head of a request has come, with a body of this size as far as it is known. The second value is the status
    /// to refuse the request with, if it is too large.
    pub(super) fn begin(self: &Arc<Watch>, body: &SizeHint) -> (Busy, Option<StatusCode>) {
        self.busy.store(true, Relaxed);
        self.fault.store(0, Relaxed);
        let limit = self.limits.body.unwrap_or(NEVER);
        let is_told = body.upper().is_some();
        self.body_left.store(if is_told { NEVER } else { limit }, Relaxed);
        let refused = (body.lower() > limit).then_some(StatusCode::PAYLOAD_TOO_LARGE);
        (Busy(self.clone()), refused)
    }

    /// The server's answer in place of the service's, if it cut the request's body off.
    pub(super) fn fault(&self) -> Option<StatusCode> {
        match self.fault.load(Relaxed) {
            TOO_SLOW => Some(StatusCode::REQUEST_TIMEOUT),
            TOO_LARGE => Some(StatusCode::PAYLOAD_TOO_LARGE),
            _ => None,
        }
    }

    /// The client has ended, and its time for an answer is over.
    pub(super) fn is_gone(&self) -> bool {
        let due = self.half_due.load(Relaxed);
        self.busy.load(Relaxed) && due != NEVER && due <= Hub::current().clock.now()
    }

    /// Has the connection end when it was idle for so long from now. `None`: it is not idle, or may be so forever.
    pub(super) fn idle_for(&self, limit: Option<Duration>) {
        let due = limit.map_or(NEVER, |limit| Hub::current().deadline_in(limit));
        self.idle_due.store(due, Relaxed);
    }

    /// The connection was idle for too long.
    pub(super) fn is_idle(&self) -> bool {
        let due = self.idle_due.load(Relaxed);
        due != NEVER && due <= Hub::current().clock.now()
    }

    /// From now on the socket has no deadlines.
    pub(super) fn upgrade(&self) {
        self.is_upgraded.store(true, Relaxed);
    }

    /// The earliest deadline.
    fn due(&self) -> u64 {
        let dues = [&self.read_due, &self.write_due, &self.half_due, &self.idle_due];
        let [read, write, half, idle] = dues.map(|due| due.load(Relaxed));
        let half = if self.busy.load(Relaxed) { half } else { NEVER };
        read.min(write).min(half).min(idle)
    }

    /// Clears the deadlines that have passed. An operation that still waited for one has failed in the last poll, so
    /// these are not waited for any more.
    pub(super) fn forget_late(&self) {
        let now = Hub::current().clock.now();
        for due in [&self.read_due, &self.write_due] {
            if due.load(Relaxed) <= now {
                due.store(NEVER, Relaxed);
            }
        }
    }

    /// Counts bytes of a body of unknown length; an error if there are too many.
    fn take(&self, len: usize) -> io::Result<()> {
        let left = self.body_left.load(Relaxed);
        if left == NEVER || !self.busy.load(Relaxed) {
            return Ok(());
        }
        match left.checked_sub(len as u64) {
            Some(left) => self.body_left.store(left, Relaxed),
            None => {
                self.fault.store(TOO_LARGE, Relaxed);
                return Err(io::Error::new(
                    ErrorKind::InvalidData,
                    "the body of the request is larger than body_limit",
                ));
            }
        }
        Ok(())
    }

    fn body_is_late(&self) -> io::Error {
        self.fault.store(TOO_SLOW, Relaxed);
        io::Error::new(
            ErrorKind::TimedOut,
            "the client sent nothing of the request's body for body_timeout",
        )
    }
}

/// Whether an operation that waits has waited for longer than `limit`. The first call sets its deadline.
fn is_late(due: &AtomicU64, limit: Option<Duration>) -> bool {
    let Some(limit) = limit else { return false };
    let hub = Hub::current();
    match due.load(Relaxed) {
        NEVER => {
            due.store(hub.deadline_in(limit), Relaxed);
            false
        }
        due => due <= hub.clock.now(),
    }
}

/// A request is being answered until this is dropped.
pub(super) struct Busy(Arc<Watch>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.store(false, Relaxed);
        self.0.read_due.store(NEVER, Relaxed);
        self.0.body_left.store(NEVER, Relaxed);
    }
}

/// The one timer of a connection. It is not moved when a deadline moves to a later time: it rings at the old one, and
/// is set anew then.
#[derive(Default)]
pub(super) struct Alarm(Option<(u64, Sleep)>);

impl Alarm {
    /// Whether a deadline has come; if not, the task is woken when it does.
    pub(super) fn poll(&mut self, watch: &Watch, context: &mut Context<'_>) -> Poll<()> {
        loop {
            let due = watch.due();
            if due == NEVER {
                return Poll::Pending;
            }
            let (rings, mut sleep) = self
                .0
                .take()
                .filter(|(rings, _)| *rings <= due)
                .unwrap_or_else(|| (due, Sleep::at(due)));
            if Pin::new(&mut sleep).poll(context).is_pending() {
                self.0 = Some((rings, sleep));
                return Poll::Pending;
            }
            if rings == due {
                return Poll::Ready(());
            }
        }
    }
}

/// A socket, as hyper sees it.
pub(super) struct Io<I> {
    stream: I,
    watch: Arc<Watch>,
    /// hyper waits in a read, so it looks at the socket itself.
    waits: bool,
    /// Bytes that were read while hyper did not read.
    ahead: Vec<u8>,
    ended: bool,
}

impl<I: Read + Unpin> Io<I> {
    /// `ahead` has come of the stream already.
    pub(super) fn new(stream: I, watch: Arc<Watch>, ahead: Vec<u8>) -> Io<I> {
        Io {
            stream,
            watch,
            waits: false,
            ahead,
            ended: false,
        }
    }

    fn poll_some(&mut self, context: &mut Context<'_>, mut buffer: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        if !self.ahead.is_empty() {
            let len = self.ahead.len().min(buffer.remaining());
            self.watch.take(len)?;
            buffer.put_slice(&self.ahead[..len]);
            self.ahead.drain(..len);
            return Poll::Ready(Ok(()));
        }
        if self.ended {
            return Poll::Ready(Ok(()));
        }
        if self.watch.body_left.load(Relaxed) == NEVER {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        }
        let mut chunk = [MaybeUninit::<u8>::uninit(); CHUNK];
        let most = buffer.remaining().min(CHUNK);
        let mut chunk = ReadBuf::uninit(&mut chunk[..most]);
        ready!(Pin::new(&mut self.stream).poll_read(context, chunk.unfilled()))?;
        self.watch.take(chunk.filled().len())?;
        buffer.put_slice(chunk.filled());
        Poll::Ready(Ok(()))
    }

    /// While hyper does not read: looks whether the client has ended its side, or is gone.
    fn look_ahead(&mut self, context: &mut Context<'_>) {
        let watch = &self.watch;
        if self.waits || self.ended || !self.ahead.is_empty() || !watch.busy.load(Relaxed) {
            return;
        }
        let mut chunk = [MaybeUninit::<u8>::uninit(); CHUNK];
        let mut chunk = ReadBuf::uninit(&mut chunk);
        match Pin::new(&mut self.stream).poll_read(context, chunk.unfilled()) {
            Poll::Pending => {}
            Poll::Ready(Ok(())) if !chunk.filled().is_empty() => self.ahead = chunk.filled().to_vec(),
            // The client may have ended only its sending, and still wait for the answer. After an error it does not.
            Poll::Ready(result) => {
                self.ended = true;
                let patience = result.ok().and(watch.limits.half_close).unwrap_or_default();
                watch.half_due.store(Hub::current().deadline_in(patience), Relaxed);
            }
        }
    }
}

impl<I: Read + Unpin> Read for Io<I> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let got = this.poll_some(context, buffer);
        this.waits = got.is_pending();
        if !this.waits {
            this.watch.read_due.store(NEVER, Relaxed);
        } else if this.watch.busy.load(Relaxed) && is_late(&this.watch.read_due, this.watch.limits.body_timeout) {
            this.waits = false;
            return Poll::Ready(Err(this.watch.body_is_late()));
        }
        got
    }
}

impl<I: Write + Unpin> Io<I> {
    /// Runs a writing operation, within the write time-out.
    fn write<R>(
        &mut self,
        context: &mut Context<'_>,
        operation: impl FnOnce(Pin<&mut I>, &mut Context<'_>) -> Poll<io::Result<R>>,
    ) -> Poll<io::Result<R>> {
        let result = operation(Pin::new(&mut self.stream), context);
        let watch = &self.watch;
        if result.is_ready() {
            watch.write_due.store(NEVER, Relaxed);
        } else if !watch.is_upgraded.load(Relaxed) && is_late(&watch.write_due, watch.limits.write_timeout) {
            let late = "the client read nothing of the response for write_timeout";
            return Poll::Ready(Err(io::Error::new(ErrorKind::TimedOut, late)));
        }
        result
    }
}

impl<I: Read + Write + Unpin> Write for Io<I> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let write = |stream: Pin<&mut I>, context: &mut Context<'_>| stream.poll_write(context, data);
        self.get_mut().write(context, write)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let write = |stream: Pin<&mut I>, context: &mut Context<'_>| stream.poll_write_vectored(context, data);
        self.get_mut().write(context, write)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// hyper calls this at the end of each of its rounds, so it is the place to look ahead.
    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.look_ahead(context);
        this.write(context, |stream, context| stream.poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut()
            .write(context, |stream, context| stream.poll_shutdown(context))
    }
}

pin_project! {
    /// The body of a response: the service's, or none. The request counts as not answered, and has its line in the log
    /// to come, until this is dropped.
    pub(super) struct Answer<B, G> {
        #[pin]
        body: Option<B>,
        line: Line,
        busy: G,
    }
}

impl<B, G> Answer<B, G> {
    pub(super) fn new(body: Option<B>, line: Line, busy: G) -> Answer<B, G> {
        Answer { body, line, busy }
    }
}

impl<B: Body, G> Body for Answer<B, G> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.project();
        let Some(body) = this.body.as_pin_mut() else {
            return Poll::Ready(None);
        };
        let frame = ready!(body.poll_frame(context));
        if let Some(Ok(frame)) = &frame {
            this.line.count(|| frame.data_ref().map_or(0, Buf::remaining));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}
