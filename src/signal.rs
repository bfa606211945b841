//! Signals as something to wait for: [`ctrl_c`].
#![forbid(unsafe_code)]

use std::io::{self, Read};
use std::os::unix::net::UnixStream;

use signal_hook::consts::SIGINT;
use signal_hook::low_level;

use crate::io::Async;

/// Waits for the next Ctrl-C (SIGINT).
///
/// From the first call on the process no longer dies of SIGINT by itself; who waits decides.
///
/// ```
/// use greenthread::{signal, spawn, thread};
/// let waiter = spawn(signal::ctrl_c);
/// greenthread::yield_now(); // it is waiting now
/// signal_hook::low_level::raise(signal_hook::consts::SIGINT).unwrap();
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
/// `gevent.signal_handler(SIGINT, f)`, asyncio's `add_signal_handler`.
#[track_caller]
pub fn ctrl_c() -> io::Result<()> {
    struct Listening(signal_hook::SigId);
    impl Drop for Listening {
        fn drop(&mut self) {
            low_level::unregister(self.0);
        }
    }
    let (reader, writer) = UnixStream::pair()?;
    let reader = Async::new(reader)?;
    let _listening = Listening(low_level::pipe::register(SIGINT, writer)?);
    let mut byte = [0];
    reader.read_with(|mut stream| stream.read(&mut byte)).map(|_| ())
}
