//! Callbacks in place of a function that reads: [`Protocol`], and the two green threads that drive one.
//!
//! The reader is the green thread that called [`run_protocol`]: it waits for data and calls the protocol. The writer,
//! which it spawns in the same context, empties the buffer. A call of the protocol holds its lock, so no two callbacks
//! run at once.
#![forbid(unsafe_code)]

use std::io::{self, ErrorKind};
use std::net::Shutdown;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::{Arc, TryLockError};
use std::time::Duration;

use super::transport::{Connection, Link, Out, Transport};
use super::{Listener, StreamServer};
use crate::net::linger;
use crate::sync::{Mutex, MutexGuard};
use crate::sys::poison::IgnorePoison;
use crate::thread::{JoinHandle, shield, spawn_local, yield_now};

const CHUNK: usize = 16 * 1024;
/// The reader reads so many chunks in a row, then lets the other tasks of this hub run.
const ROW: usize = 16;

/// What happens on a connection, as callbacks: first `connection_made`, last `connection_lost`, each once.
///
/// ```
/// use greenthread::server::{Protocol, Transport};
///
/// #[derive(Default)]
/// struct Echo(Option<Transport>);
///
/// impl Protocol for Echo {
///     fn connection_made(&mut self, transport: Transport) {
///         self.0 = Some(transport);
///     }
///     fn data_received(&mut self, data: &[u8]) {
///         if let Some(transport) = &self.0 {
///             transport.write(data);
///         }
///     }
/// }
/// ```
///
/// A callback may wait, as any code in a green thread; the other callbacks of the same connection then wait for it. One
/// that panics ends the connection, and the panic goes on in the connection's green thread.
///
/// # Coming from Python
/// `asyncio.Protocol`. There the callbacks must not wait.
pub trait Protocol {
    /// The connection is there; this is what to write to.
    fn connection_made(&mut self, transport: Transport) {
        drop(transport);
    }

    /// Some bytes have come: as many as there were, not as many as were sent.
    fn data_received(&mut self, data: &[u8]);

    /// No more data will come. `true` keeps the connection open for writing; else it is closed once all is written.
    fn eof_received(&mut self) -> bool {
        false
    }

    /// The connection is over: `None` if it was closed or aborted here, or the peer ended it; else the error.
    ///
    /// After a [`close`](Transport::close) over TCP it comes with the peer's end, but at most two seconds late. When
    /// the green thread was killed or timed out, or another callback has panicked, the error is `ConnectionAborted`.
    fn connection_lost(&mut self, error: Option<io::Error>) {
        drop(error);
    }

    /// More than the high mark is buffered. Called after the callback that wrote so much has returned.
    fn pause_writing(&mut self) {}

    /// No more than the low mark is buffered.
    fn resume_writing(&mut self) {}
}

/// A server that runs a protocol of its own, made by `factory`, on each connection.
///
/// ```
/// use std::io::Read;
/// use std::time::Duration;
/// use greenthread::net::{TcpListener, TcpStream};
/// use greenthread::server::{Protocol, Transport, serve_protocol};
///
/// struct Greeter;
/// impl Protocol for Greeter {
///     fn connection_made(&mut self, transport: Transport) {
///         transport.write(b"hello");
///         transport.close();
///     }
///     fn data_received(&mut self, _data: &[u8]) {}
/// }
///
/// # fn main() -> std::io::Result<()> {
/// let server = serve_protocol(TcpListener::bind("127.0.0.1:0")?, || Greeter);
/// server.start()?;
/// let mut answer = String::new();
/// TcpStream::connect(server.local_addr()?)?.read_to_string(&mut answer)?;
/// assert_eq!(answer, "hello");
/// server.stop(Duration::from_secs(1));
/// # Ok(())
/// # }
/// ```
///
/// # Coming from Python
/// `loop.create_server(factory)`.
#[track_caller]
pub fn serve_protocol<L, F, P>(listener: L, factory: F) -> StreamServer<L>
where
    L: Listener,
    L::Stream: Connection,
    F: Fn() -> P + Send + Sync + 'static,
    P: Protocol + 'static,
{
    StreamServer::new(listener, move |stream, _| run_protocol(stream, factory()))
}

/// Runs a protocol on a connection, until it is over.
///
/// # Blocking and cancellation
/// Parks. A kill or time-out unwinds here, after `connection_lost`; what was buffered is lost.
///
/// # Coming from Python
/// `loop.connect_accepted_socket(factory, sock)`, but it stays until the connection is over; by that name, and
/// `create_connection`, see [`aio`](crate::aio).
#[track_caller]
pub fn run_protocol<C: Connection, P: Protocol + 'static>(stream: C, protocol: P) {
    run_protocol_then(stream, protocol, drop);
}

/// Like [`run_protocol`], and passes the transport to `made` after `connection_made`.
#[track_caller]
pub(crate) fn run_protocol_then<C: Connection, P: Protocol + 'static>(
    stream: C,
    protocol: P,
    made: impl FnOnce(Transport),
) {
    let stream: Arc<dyn Connection> = Arc::new(stream);
    let talk = Talk {
        link: Arc::new(Link::new(stream.clone())),
        stream,
        protocol: Rc::new(Mutex::new(protocol)),
    };
    let ended = catch_unwind(AssertUnwindSafe(|| talk.run(made)));
    let lost = talk.link.finish();
    let error = match &ended {
        Ok(()) => lost,
        Err(payload) => Some(super::aborted(&**payload)),
    };
    // A kill is deferred here: the writer, which is unwinding, may still be in a callback and hold the lock.
    let mut protocol = shield(|| talk.locked());
    protocol.connection_lost(error);
    drop(protocol);
    if let Err(payload) = ended {
        resume_unwind(payload);
    }
}

struct Talk<P> {
    link: Arc<Link>,
    stream: Arc<dyn Connection>,
    protocol: Rc<Mutex<P>>,
}

impl<P> Clone for Talk<P> {
    fn clone(&self) -> Talk<P> {
        Talk {
            link: self.link.clone(),
            stream: self.stream.clone(),
            protocol: self.protocol.clone(),
        }
    }
}

/// The writer's handle. The writer is killed when the reader drops it.
struct Writer(Option<JoinHandle<()>>);

impl Drop for Writer {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::kill);
    }
}

impl<P: Protocol + 'static> Talk<P> {
    #[track_caller]
    fn run(&self, made: impl FnOnce(Transport)) {
        let transport = Transport::new(self.link.clone());
        self.call(|protocol| protocol.connection_made(transport.clone()));
        made(transport);
        let theirs = self.clone();
        let mut writer = Writer(Some(spawn_local(move || theirs.write_all())));
        if let Err(error) = self.read_all() {
            self.link.change(|out| out.fail(error));
        }
        self.link.change(|out| {
            out.ended = true;
            out.close();
        });
        let ended = writer.0.as_mut().and_then(|writer| writer.join_timeout(Duration::MAX));
        writer.0 = None;
        // The writer's panic is the connection's.
        if let Some(Err(error)) = ended
            && let Ok(payload) = error.try_into_panic()
        {
            resume_unwind(payload);
        }
    }

    fn locked(&self) -> MutexGuard<'_, P> {
        self.protocol.lock().ignore_poison()
    }

    fn call<R>(&self, f: impl FnOnce(&mut P) -> R) -> R {
        let result = f(&mut self.locked());
        self.settle();
        result
    }

    /// Calls `pause_writing` or `resume_writing` if one is due. If a callback runs, its caller does this after it: the
    /// callback may be waiting for the writer (in `drain`), so the writer must not wait for the callback.
    fn settle(&self) {
        while self.link.locked().is_news() {
            let mut protocol = match self.protocol.try_lock() {
                Ok(protocol) => protocol,
                Err(TryLockError::Poisoned(protocol)) => protocol.into_inner(),
                Err(TryLockError::WouldBlock) => return,
            };
            let news = self.link.locked().news();
            match news {
                Some(true) => protocol.pause_writing(),
                Some(false) => protocol.resume_writing(),
                None => {}
            }
        }
    }

    /// What the reader does. Bytes read while the protocol was closing are dropped; those read while it paused are kept
    /// until it resumes.
    fn read_all(&self) -> io::Result<()> {
        let mut buffer = vec![0; CHUNK];
        let mut most = linger::MOST;
        for chunk in 1_usize.. {
            let read = self.stream.read(&mut buffer);
            let closing = self.link.wait_while(|out| !out.reading && !out.closing).closing;
            match read {
                Ok(len @ 1..) if closing => match most.checked_sub(len) {
                    // While closing, input is only read away, up to a limit, so that the close does not reset the
                    // connection (TRANSPORT-3).
                    Some(left) => most = left,
                    None => break,
                },
                _ if closing => break,
                Ok(0) => {
                    if self.call(P::eof_received) {
                        drop(self.link.wait_while(|out| {
                            out.ended = true;
                            !out.closing
                        }));
                    }
                    break;
                }
                Ok(len) => self.call(|protocol| protocol.data_received(&buffer[..len])),
                Err(error) => return Err(error),
            }
            if chunk % ROW == 0 {
                yield_now();
            }
        }
        Ok(())
    }

    /// What the writer does.
    fn write_all(&self) {
        /// Closes when the writer ends, however it ends, so that the reader ends too.
        struct End<'a>(&'a Link);
        impl Drop for End<'_> {
            fn drop(&mut self) {
                self.0.change(Out::close);
            }
        }
        let _end = End(&self.link);
        let mut is_shut = false;
        loop {
            let mut out = self
                .link
                .wait_while(|out| out.buffer.is_empty() && !out.closing && (!out.eof || is_shut));
            let (chunk, shuts) = (std::mem::take(&mut out.buffer), out.eof && !is_shut);
            let aborted = out.aborted;
            out.in_flight = chunk.len();
            drop(out);
            if !chunk.is_empty() {
                if let Err(error) = self.write(&chunk) {
                    return self.link.change(|out| out.fail(error));
                }
            } else if shuts {
                is_shut = true;
                let _ = self.stream.shutdown(Shutdown::Write);
            } else if aborted {
                return;
            } else {
                return self.part(is_shut);
            }
        }
    }

    /// Ends writing, waits for the peer's end, and aborts. Errors are ignored: the connection ends here anyway.
    fn part(&self, is_shut: bool) {
        let _ = self.stream.finish();
        if !is_shut {
            let _ = self.stream.shutdown(Shutdown::Write);
        }
        self.link.wait_for_end(self.stream.linger());
        self.link.change(Out::abort);
    }

    fn write(&self, mut chunk: &[u8]) -> io::Result<()> {
        self.settle();
        while !chunk.is_empty() {
            let written = self.stream.write(chunk)?;
            if written == 0 {
                return Err(ErrorKind::WriteZero.into());
            }
            chunk = &chunk[written..];
            self.link.change(|out| out.in_flight = chunk.len());
            self.settle();
        }
        Ok(())
    }
}
