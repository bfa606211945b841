//! Signals as something to wait for: [`Signals`], [`on`] and [`ctrl_c`].
//!
//! Once a signal has had a listener here, it never has its default effect again (most signals end the process by
//! default). When the last listener has gone, the signal does nothing. Every listener gets every signal. If the same
//! signal comes twice before a listener looks, the listener gets it once, as usual in Unix.
//!
//! ```
//! use greenthread::signal::{SIGHUP, SIGTERM, Signals};
//!
//! # fn main() -> std::io::Result<()> {
//! let signals = Signals::new([SIGTERM, SIGHUP])?;
//! signal_hook::low_level::raise(SIGHUP)?; // as another process may
//! assert_eq!(signals.recv()?, SIGHUP);
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

use std::borrow::Borrow;
use std::fmt;
use std::future::Future;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use once_cell::race::OnceBox;
use signal_hook::{SigId, low_level};

pub use signal_hook::consts::{
    SIGABRT, SIGALRM, SIGCHLD, SIGCONT, SIGHUP, SIGINT, SIGKILL, SIGPIPE, SIGQUIT, SIGSTOP, SIGTERM, SIGTSTP, SIGTTIN,
    SIGTTOU, SIGURG, SIGUSR1, SIGUSR2, SIGWINCH,
};

use crate::io::Async;
use crate::sys::fork::{Global, Order, PerProcess};
use crate::thread::{self, JoinHandle};
use crate::threadpool::watch::watch;
use crate::time;

/// Signals that are listened to, until it is dropped.
///
/// Several green threads may wait with one: each signal goes to one of them. By an iterator it is a loop:
///
/// ```
/// use greenthread::{signal::{SIGHUP, SIGTERM, Signals}, spawn};
///
/// # fn main() -> std::io::Result<()> {
/// let signals = Signals::new([SIGHUP, SIGTERM])?;
/// let daemon = spawn(move || -> std::io::Result<i32> {
///     let mut loads = 0;
///     for signal in &signals {
///         match signal? {
///             SIGHUP => loads += 1, // read the configuration again
///             _ => break,           // end
///         }
///     }
///     Ok(loads)
/// });
/// signal_hook::low_level::raise(SIGHUP)?; // as another process may
/// signal_hook::low_level::raise(SIGTERM)?;
/// assert_eq!(daemon.join().unwrap()?, 1);
/// # Ok(())
/// # }
/// ```
///
/// In a [`select!`](crate::select!) it is a branch as a channel is:
///
/// ```
/// use std::time::Duration;
/// use greenthread::{select, signal::{SIGINT, Signals}, sync::channel};
///
/// # fn main() -> std::io::Result<()> {
/// let (ctrl_c, ticks) = (Signals::new([SIGINT])?, channel::tick(Duration::from_millis(1)));
/// let mut count = 0;
/// loop {
///     select! {
///         recv(ctrl_c) -> signal => break assert_eq!(signal?, SIGINT),
///         recv(ticks) => count += 1,
///     }
///     if count == 3 {
///         signal_hook::low_level::raise(SIGINT)?; // as Ctrl-C does
///     }
/// }
/// # Ok(())
/// # }
/// ```
///
/// In a forked child it listens for that process from its first use there on, and each of the two has its own signals.
/// Both receive a signal that came before the fork and had not been received by then.
///
/// # Coming from Python
/// asyncio's `add_signal_handler`, `signal.set_wakeup_fd`.
pub struct Signals {
    shared: Arc<Shared>,
}

struct Shared {
    flags: Vec<(i32, Arc<AtomicBool>)>,
    sockets: PerProcess<OnceBox<Socket>>,
}

/// The socket that the handlers of one process write to. A forked child makes its own: if it read its parent's, it
/// would take the bytes that wake the parent.
///
/// # Invariant
/// There are at least as many bytes in the socket, or about to be written, as flags are set: a handler sets its flag,
/// then writes its byte. A receiver takes at most one flag for each byte that it takes. So when a receiver finds the
/// socket empty, each flag that is set has a byte still to come, which wakes a receiver on whatever hub it waits. A
/// full socket drops bytes, but holds more bytes than there are signals.
struct Socket {
    reader: Async<UnixStream>,
    listening: Vec<SigId>,
}

/// Held while something is registered with signal-hook: a fork does not take that crate's own lock, so it must not
/// happen meanwhile.
static REGISTERING: Global<()> = Global::new(Order::Signals, ());

impl Drop for Socket {
    fn drop(&mut self) {
        let _registering = REGISTERING.lock();
        for id in self.listening.drain(..) {
            low_level::unregister(id);
        }
    }
}

impl Socket {
    fn new(flags: &[(i32, Arc<AtomicBool>)]) -> io::Result<Socket> {
        let (reader, writer) = UnixStream::pair()?;
        let mut socket = Socket {
            reader: Async::new(reader)?,
            listening: Vec::new(),
        };
        for (signal, flag) in flags {
            socket.listen(*signal, flag, writer.try_clone()?)?;
            if flag.load(Ordering::Acquire) {
                // In a forked child: the signal came before this socket existed, so its byte went elsewhere.
                (&writer).write_all(&[0])?;
            }
        }
        Ok(socket)
    }

    fn listen(&mut self, signal: i32, flag: &Arc<AtomicBool>, writer: UnixStream) -> io::Result<()> {
        let _registering = REGISTERING.lock();
        // Signal-hook calls them in this order: the flag is set before the byte is written.
        self.listening.push(signal_hook::flag::register(signal, flag.clone())?);
        self.listening.push(low_level::pipe::register(signal, writer)?);
        Ok(())
    }
}

impl Shared {
    /// This process's socket.
    fn socket(&self) -> io::Result<&Socket> {
        self.sockets
            .get()
            .get_or_try_init(|| Socket::new(&self.flags).map(Box::new))
    }

    /// Takes a byte, and the first signal that is set; `WouldBlock` if there is no byte.
    fn take(&self, mut stream: &UnixStream) -> io::Result<i32> {
        loop {
            stream.read_exact(&mut [0])?;
            // No flag may be set: it was taken with another byte (two signals of one kind set one flag). Then try the
            // next byte.
            let set = self.flags.iter().find(|(_, flag)| flag.swap(false, Ordering::AcqRel));
            if let Some((signal, _)) = set {
                return Ok(*signal);
            }
        }
    }
}

impl Signals {
    /// Listens to these signals from now on.
    ///
    /// # Errors
    /// `InvalidInput` for an empty list, for a number that is no signal, and for signals that cannot be caught
    /// (SIGKILL, SIGSTOP) or are the crash of the code that runs (SIGSEGV, SIGBUS, SIGILL, SIGFPE); what the system
    /// says if it has no descriptor left.
    pub fn new<I>(signals: I) -> io::Result<Signals>
    where
        I: IntoIterator<Item: Borrow<i32>>,
    {
        let mut flags = Vec::new();
        for signal in signals {
            let signal = *signal.borrow();
            check(signal)?;
            flags.push((signal, Arc::default()));
        }
        if flags.is_empty() {
            return Err(io::Error::new(
                ErrorKind::InvalidInput,
                "no signal was given to listen to: give at least one",
            ));
        }
        let sockets = PerProcess::new(OnceBox::new);
        let shared = Shared { flags, sockets };
        shared.socket()?;
        Ok(Signals {
            shared: Arc::new(shared),
        })
    }

    /// Waits for the next signal. If several have come, it gives the one that was named first.
    ///
    /// # Errors
    /// What the system says if it has no descriptor left to wait with.
    ///
    /// # Blocking and cancellation
    /// Parks. A kill or time-out unwinds here, and no signal is lost.
    #[track_caller]
    pub fn recv(&self) -> io::Result<i32> {
        self.shared
            .socket()?
            .reader
            .read_with(|stream| self.shared.take(stream))
    }

    /// The next signal, if one has come.
    pub fn try_recv(&self) -> Option<i32> {
        self.shared.take(self.shared.socket().ok()?.reader.get_ref()).ok()
    }

    /// Waits for the next signal for at most `timeout`. `None`: there was none.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    #[track_caller]
    pub fn recv_timeout(&self, timeout: Duration) -> io::Result<Option<i32>> {
        self.recv_until(time::after(timeout))
    }

    /// Waits for the next signal until `deadline`. `None`: there was none.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    #[track_caller]
    pub fn recv_deadline(&self, deadline: Instant) -> io::Result<Option<i32>> {
        self.recv_until(Some(deadline))
    }

    #[track_caller]
    fn recv_until(&self, deadline: Option<Instant>) -> io::Result<Option<i32>> {
        let take = |stream: &UnixStream| self.shared.take(stream);
        match self.shared.socket()?.reader.read_before(deadline, take) {
            Err(error) if error.kind() == ErrorKind::TimedOut => Ok(None),
            signal => signal.map(Some),
        }
    }

    /// Like [`recv`](Self::recv), for an `async` function on any executor. If it is dropped before it is ready, it
    /// waits no more, and no signal is lost.
    ///
    /// ```
    /// use greenthread::{future::block_on, signal::{SIGWINCH, Signals}};
    /// let signals = Signals::new([SIGWINCH]).unwrap();
    /// signal_hook::low_level::raise(SIGWINCH).unwrap();
    /// assert_eq!(block_on(signals.recv_async()).unwrap(), SIGWINCH);
    /// ```
    ///
    /// # Errors
    /// As [`recv`](Self::recv); what the system says if it cannot start the OS thread that waits for all such futures.
    pub fn recv_async(&self) -> impl Future<Output = io::Result<i32>> + Send + use<'_> {
        self.next()
    }

    async fn next(&self) -> io::Result<i32> {
        loop {
            if let Some(signal) = self.try_recv() {
                return Ok(signal);
            }
            let shared = self.shared.clone();
            watch(move || shared.socket()?.reader.readable())?.await?;
        }
    }

    /// Waits for one signal after the other: each item is a [`recv`](Self::recv).
    pub fn iter(&self) -> Iter<'_> {
        Iter { signals: self }
    }
}

impl fmt::Debug for Signals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let signals = self.shared.flags.iter().map(|(signal, _)| *signal);
        f.debug_tuple("Signals").field(&signals.collect::<Vec<_>>()).finish()
    }
}

/// The iterator of [`Signals::iter`]; it never ends.
#[derive(Debug)]
pub struct Iter<'a> {
    signals: &'a Signals,
}

impl Iterator for Iter<'_> {
    type Item = io::Result<i32>;

    #[track_caller]
    fn next(&mut self) -> Option<io::Result<i32>> {
        Some(self.signals.recv())
    }
}

impl<'a> IntoIterator for &'a Signals {
    type Item = io::Result<i32>;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// Refuses signals that cannot or must not be caught.
fn check(signal: i32) -> io::Result<()> {
    let why = if signal <= 0 {
        "is not a signal number"
    } else if [SIGKILL, SIGSTOP].contains(&signal) {
        "cannot be caught"
    } else if signal == signal_hook::consts::SIGBUS || signal_hook::consts::FORBIDDEN.contains(&signal) {
        "reports a crash of the code that runs: it cannot be waited for"
    } else {
        return Ok(());
    };
    let name = low_level::signal_name(signal).map_or_else(|| format!("signal {signal}"), String::from);
    Err(io::Error::new(ErrorKind::InvalidInput, format!("{name} {why}")))
}

/// Has `f` called in a green thread of its own whenever the signal comes, until the guard is dropped.
///
/// ```
/// use std::sync::Arc;
/// use greenthread::{signal, sync::Event};
///
/// # fn main() -> std::io::Result<()> {
/// let stop = Arc::new(Event::new());
/// let theirs = stop.clone();
/// let _handler = signal::on(signal::SIGTERM, move || theirs.set())?;
/// signal_hook::low_level::raise(signal::SIGTERM)?; // as another process may
/// stop.wait();
/// # Ok(())
/// # }
/// ```
///
/// It is no handler in C's sense: `f` runs on the hub of the OS thread that calls this, soon after the signal, as any
/// green thread, and may lock, print and block. A second signal does not wait for the first's `f` to return. A panic of
/// `f` is reported as that of any green thread that is not joined.
///
/// # Errors
/// As [`Signals::new`].
///
/// # Coming from Python
/// `gevent.signal_handler(signum, f)`; the guard's drop is its `cancel()`.
#[track_caller]
pub fn on<F>(signal: i32, f: F) -> io::Result<Handler>
where
    F: Fn() + Send + Sync + 'static,
{
    let signals = Signals::new([signal])?;
    let is_off = Arc::new(AtomicBool::new(false));
    let (theirs, f) = (is_off.clone(), Arc::new(f));
    let listener = thread::spawn(move || {
        while signals.recv().is_ok() {
            let (is_off, f) = (theirs.clone(), f.clone());
            drop(thread::spawn(move || {
                if !is_off.load(Ordering::Acquire) {
                    f();
                }
            }));
        }
    });
    Ok(Handler {
        signal,
        is_off,
        listener,
    })
}

/// The guard of [`on`]: dropped, it stops the calls; a call that has begun goes on.
#[must_use = "dropping it removes the handler: keep it, or call `forget`"]
pub struct Handler {
    signal: i32,
    is_off: Arc<AtomicBool>,
    listener: JoinHandle<()>,
}

impl Handler {
    /// Keeps it for good.
    pub fn forget(self) {
        std::mem::forget(self);
    }
}

impl Drop for Handler {
    fn drop(&mut self) {
        self.is_off.store(true, Ordering::Release);
        self.listener.kill();
    }
}

impl fmt::Debug for Handler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Handler").field(&self.signal).finish()
    }
}

/// Waits for the next Ctrl-C (SIGINT).
///
/// From the first call on, SIGINT by itself no longer ends the process; the caller decides. A Ctrl-C that comes while
/// no call waits is lost: for a loop, or a [`select!`](crate::select!), use [`Signals`], which keep it.
///
/// ```
/// use greenthread::{signal, spawn};
/// let waiter = spawn(signal::ctrl_c);
/// greenthread::yield_now(); // it is waiting now
/// signal_hook::low_level::raise(signal::SIGINT).unwrap();
/// waiter.join().unwrap().unwrap();
/// ```
///
/// # Errors
/// When there is no descriptor left for the pipe that carries the signal.
///
/// # Blocking and cancellation
/// Parks. When it is killed or timed out, SIGINT is no longer listened to, but stays caught.
///
/// # Coming from Python
/// `KeyboardInterrupt`, caught in main.
#[track_caller]
pub fn ctrl_c() -> io::Result<()> {
    Signals::new([SIGINT])?.recv().map(drop)
}
