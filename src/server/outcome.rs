//! What a handler gives back: nothing, or an error that should be reported.
#![forbid(unsafe_code)]

use std::fmt::Display;

/// What the handler of a server returns: `()`, or a `Result` with an error that goes to the server's `on_failure`.
///
/// ```
/// use std::io::{self, Write};
/// use greenthread::{net::TcpListener, server::StreamServer};
///
/// # fn main() -> io::Result<()> {
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let _unit = StreamServer::new(listener, |_stream, peer| println!("{peer}"));
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let _result = StreamServer::new(listener, |mut stream, _peer| stream.write_all(b"hello"));
/// # Ok(())
/// # }
/// ```
///
/// It is not for a future: an `async` block does nothing unless it is polled.
pub trait Outcome {
    /// What has gone wrong, in words.
    fn failure(self) -> Option<String>;
}

impl Outcome for () {
    fn failure(self) -> Option<String> {
        None
    }
}

impl<T, E: Display> Outcome for Result<T, E> {
    fn failure(self) -> Option<String> {
        self.err().map(|error| error.to_string())
    }
}

/// Names the never type `!`, which has no name in stable Rust yet.
trait Returns {
    type Value;
}

impl<T> Returns for fn() -> T {
    type Value = T;
}

#[allow(private_interfaces, reason = "`!` itself is as public as can be")]
impl Outcome for <fn() -> ! as Returns>::Value {
    fn failure(self) -> Option<String> {
        self
    }
}
