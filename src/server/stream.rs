//! A server for connections.
#![forbid(unsafe_code)]

use std::any::Any;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::Outcome;
use super::engine::{Engine, Handle, Plan, Spawn, Stopped, isolated, local};
use crate::net::linger::Leave;
use crate::net::{SocketAddr, TcpListener, TcpStream, UnixListener, UnixStream};

/// Something that a [`StreamServer`] can accept from.
pub trait Listener: Send + 'static {
    /// What it accepts.
    type Stream: Send + 'static;
    /// The peer's address.
    type Address: Clone + fmt::Debug + Send + 'static;

    /// Waits for a connection, parked. Every error is returned at once: the server decides what to do about it.
    ///
    /// # Errors
    /// The system's error.
    fn accept(&self) -> io::Result<(Self::Stream, Self::Address)>;

    /// The address that it listens on.
    ///
    /// # Errors
    /// The system's error.
    fn local_addr(&self) -> io::Result<Self::Address>;
}

impl Listener for TcpListener {
    type Stream = TcpStream;
    type Address = SocketAddr;

    fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        self.accept_once()
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        TcpListener::local_addr(self)
    }
}

impl Listener for UnixListener {
    type Stream = UnixStream;
    type Address = std::os::unix::net::SocketAddr;

    fn accept(&self) -> io::Result<(UnixStream, Self::Address)> {
        self.accept_once()
    }

    fn local_addr(&self) -> io::Result<Self::Address> {
        UnixListener::local_addr(self)
    }
}

/// Accepts connections, and runs a handler for each in a green thread of its own.
///
/// ```
/// use std::io::{Read, Write};
/// use std::time::Duration;
/// use greenthread::{net::{TcpListener, TcpStream}, server::StreamServer};
///
/// # fn main() -> std::io::Result<()> {
/// let server = StreamServer::new(TcpListener::bind("127.0.0.1:0")?, |mut stream, _peer| {
///     stream.write_all(b"hello")
/// })
/// .limit(1000);
/// server.start()?;
///
/// let mut answer = String::new();
/// TcpStream::connect(server.local_addr()?)?.read_to_string(&mut answer)?;
/// assert_eq!(answer, "hello");
/// server.stop(Duration::from_secs(1));
/// # Ok(())
/// # }
/// ```
///
/// An error that a handler returns is a line on stderr, or what [`on_failure`](Self::on_failure) does. A panic ends the
/// handler and nothing else, and is reported as that of any green thread. With a [`limit`](Self::limit) the server
/// stops accepting while so many handlers run: new connections then wait in the listener's queue.
///
/// It belongs to the hub that starts it. Dropped before, it closes its listener; dropped after, it serves on.
///
/// # The end of a connection
/// The connection ends when the handler has dropped its stream (the last handle, where it was cloned). A TCP socket
/// that is closed with unread input, or that gets some afterwards, would reset the connection, and the peer might lose
/// what was written to it. So, unless the peer has ended already, the server shuts down writing and reads away what
/// still comes, until the peer ends, for two seconds ([`linger`](Self::linger)) and 16 MiB at most. That is not part of
/// the handler: it does not count for the [`limit`](Self::limit). A server that is stopped waits so only for peers that
/// send.
///
/// This is not done for a descriptor that is given away (`OwnedFd::from(stream)`) or an `abort`ed transport. A copy
/// that the server cannot know of (`stream.as_fd().try_clone_to_owned()`, for a child process say) is shut down with
/// the stream: use `linger(None)` for handlers that make one.
///
/// # When accepting fails
/// This is also about a lack of descriptors, or of memory for a handler's stack. A line on stderr says so, or
/// [`on_error`](Self::on_error) is called, and the server tries again in 10 ms, then in 20, up to a second. When the
/// descriptor is no listener any more (`EBADF`, `EINVAL`, `ENOTSOCK`) the server closes, and
/// [`serve_forever`](Self::serve_forever) gives the error.
///
/// # Coming from Python
/// `gevent.server.StreamServer(listener, handle, spawn=Pool(n))`, where `spawn=Pool(n)` is `limit(n)`;
/// `asyncio.start_server`.
pub struct StreamServer<L: Listener> {
    engine: Engine<(L::Stream, L::Address)>,
    address: io::Result<L::Address>,
}

impl<L: Listener> StreamServer<L> {
    /// A server with isolated handlers, as the green threads of [`spawn`](crate::spawn).
    #[track_caller]
    pub fn new<F, R>(listener: L, handler: F) -> StreamServer<L>
    where
        F: Fn(L::Stream, L::Address) -> R + Send + Sync + 'static,
        R: Outcome,
    {
        let handler = move |(stream, peer)| handler(stream, peer);
        StreamServer::with(listener, isolated(handler))
    }

    /// A server with handlers that share thread-locals, as those of [`spawn_local`](crate::spawn_local); nothing in
    /// them need be `Send`.
    #[track_caller]
    pub fn new_local<F, R>(listener: L, handler: F) -> StreamServer<L>
    where
        F: Fn(L::Stream, L::Address) -> R + 'static,
        R: Outcome,
    {
        let handler = move |(stream, peer)| handler(stream, peer);
        StreamServer::with(listener, local(handler))
    }

    /// A server with stackless tasks as handlers.
    #[cfg(feature = "hyper")]
    #[track_caller]
    pub(crate) fn new_stackless<F, A>(listener: L, handler: F) -> StreamServer<L>
    where
        F: Fn(L::Stream, L::Address) -> A + 'static,
        A: Future + 'static,
    {
        let handler = move |(stream, peer)| handler(stream, peer);
        StreamServer::with(listener, super::engine::stackless(handler))
    }

    #[track_caller]
    fn with(listener: L, spawn: Spawn<(L::Stream, L::Address)>) -> StreamServer<L> {
        let address = listener.local_addr();
        let plan = |handle: &Handle| {
            let handle = handle.clone();
            let leave: Leave = Arc::new(move |socket| super::linger::let_go(&handle, socket));
            let next = Box::new(move || {
                let (mut stream, peer) = listener.accept()?;
                if let Some(stream) = (&mut stream as &mut dyn Any).downcast_mut::<TcpStream>() {
                    stream.leave_to(leave.clone());
                }
                Ok((stream, peer))
            });
            Plan { next, spawn }
        };
        StreamServer {
            engine: Engine::new(plan),
            address,
        }
    }

    /// The size of the stacks of its handlers, in bytes that they can use; otherwise it is that of
    /// [`spawn`](crate::spawn), or of [`spawn_local`](crate::spawn_local). The first that is given counts.
    #[must_use]
    pub fn stack_size(self, bytes: usize) -> StreamServer<L> {
        self.engine.stack_size(bytes);
        self
    }

    /// At most so many handlers at once; at first there is no limit.
    ///
    /// # Panics
    /// If it is zero.
    #[must_use]
    #[track_caller]
    pub fn limit(self, handlers: usize) -> StreamServer<L> {
        self.engine.limit(handlers);
        self
    }

    /// How long a TCP connection [lingers](#the-end-of-a-connection) after its handler: two seconds, unless this is
    /// called. `None`: it is closed at once. The first value that is given counts.
    #[must_use]
    pub fn linger(self, patience: Option<Duration>) -> StreamServer<L> {
        self.engine.linger(patience);
        self
    }

    /// Calls `hook` with every error of accepting, in place of the line on stderr.
    #[must_use]
    pub fn on_error(self, hook: impl Fn(&io::Error) + 'static) -> StreamServer<L> {
        self.engine.on_error(Box::new(hook));
        self
    }

    /// Calls `hook` with the error of every handler that returns one, in place of the line on stderr.
    ///
    /// It runs in that handler's green thread. (For a panic see [`hub::set_panic_hook`](crate::hub::set_panic_hook).)
    /// The first hook counts.
    #[must_use]
    pub fn on_failure(self, hook: impl Fn(&str) + Send + Sync + 'static) -> StreamServer<L> {
        self.engine.on_failure(Box::new(hook));
        self
    }

    /// Starts accepting on this OS thread's hub, and returns at once. Started before, it does nothing.
    ///
    /// # Errors
    /// `NotConnected` if it was stopped; when there is no memory for a stack.
    pub fn start(&self) -> io::Result<()> {
        self.engine.start()
    }

    /// Starts, unless it has, and waits until the server was stopped and its last handler has ended.
    ///
    /// # Errors
    /// The error that made the server close by itself.
    ///
    /// # Blocking and cancellation
    /// Parks. A kill or time-out unwinds here, and closes the listener; the handlers go on.
    #[track_caller]
    pub fn serve_forever(&self) -> io::Result<()> {
        self.engine.serve_forever()
    }

    /// Stops it, as [`Handle::stop`].
    #[track_caller]
    pub fn stop(&self, patience: Duration) -> Stopped {
        self.engine.stop(patience)
    }

    /// A handle that may stop it from elsewhere.
    pub fn handle(&self) -> Handle {
        self.engine.handle().clone()
    }

    /// The address that it listens on, or did.
    ///
    /// # Errors
    /// What the system said when the server was made.
    pub fn local_addr(&self) -> io::Result<L::Address> {
        super::again(&self.address)
    }
}

impl<L: Listener> fmt::Debug for StreamServer<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamServer")
            .field("address", &self.address)
            .field("handle", self.engine.handle())
            .finish()
    }
}
