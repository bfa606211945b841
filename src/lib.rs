//! Blocking code that does not block.
//!
//! This crate has green threads with the API of `std::thread`, run by one scheduler (a *hub*) for each OS thread.
//! Sockets, timers, files and locks have std's names, and block the green thread instead of the OS thread. Futures and
//! blocking code can call each other. Greenlets and generators are switched by hand. In Python, greenlet and gevent do
//! the same.
//!
//! ```
//! use std::io::{Read, Write};
//! use greenthread::{net::{TcpListener, TcpStream}, spawn};
//!
//! # fn main() -> std::io::Result<()> {
//! let listener = TcpListener::bind("127.0.0.1:0")?;
//! let address = listener.local_addr()?;
//! spawn(move || {
//!     for stream in listener.incoming() {
//!         let mut stream = stream.unwrap();
//!         spawn(move || std::io::copy(&mut stream.try_clone().unwrap(), &mut stream));
//!     }
//! });
//! let mut client = TcpStream::connect(address)?;
//! client.write_all(b"hello")?;
//! let mut answer = [0; 5];
//! client.read_exact(&mut answer)?;
//! assert_eq!(&answer, b"hello");
//! # Ok(())
//! # }
//! ```
//!
//! The modules stand in `lib.rs` from the ground up: a module may use only those above it, and a test checks that.

#![deny(clippy::print_stdout)]
// docs.rs shows which feature an item needs.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub(crate) mod sys;
pub mod stack;
pub(crate) mod isolation;
pub(crate) mod fiber;
pub mod greenlet;
pub mod generator;
pub mod hub;
pub mod time;
pub mod sync;
pub mod thread;
pub mod io;
pub mod threadpool;
#[cfg(all(feature = "process-pool", unix))]
pub mod processpool;
pub mod dns;
pub mod net;
pub mod fs;
pub mod process;
pub mod signal;
pub mod future;
pub mod server;
#[cfg(feature = "hyper")]
pub mod http;
pub mod aio;
pub mod debug;
#[cfg(all(feature = "monkey", target_os = "linux", target_env = "gnu"))]
pub mod monkey;

#[cfg(all(feature = "monkey", not(all(target_os = "linux", target_env = "gnu"))))]
compile_error!(
    "the feature `monkey` works on Linux with glibc only, because it stands in for glibc's blocking calls and reads the \
     insides of its locks. Leave the feature off for this target: the rest of the crate does not need it."
);

pub use thread::{JoinHandle, run, scope, spawn, spawn_local, yield_now};
pub use time::{sleep, timeout};

/// The programs of the README and of the guide run too.
#[cfg(doctest)]
mod guide {
    macro_rules! pages {
        ($($name:ident $page:literal)*) => {
            $(
                #[doc = include_str!(concat!("../", $page))]
                struct $name;
            )*
        };
    }

    pages! {
        Readme "README.md"
        About "docs/guide/src/README.md"
        Hello "docs/guide/src/hello.md"
        Sockets "docs/guide/src/sockets.md"
        Sync "docs/guide/src/sync.md"
        Structured "docs/guide/src/structured.md"
        Cancel "docs/guide/src/cancel.md"
        Driver "docs/guide/src/driver.md"
        Pool "docs/guide/src/pool.md"
        Async "docs/guide/src/async.md"
        Axum "docs/guide/src/axum.md"
        Hubs "docs/guide/src/hubs.md"
        Testing "docs/guide/src/testing.md"
        Deployment "docs/guide/src/deployment.md"
        How "docs/guide/src/how.md"
        Faq "docs/guide/src/faq.md"
        Glossary "docs/guide/src/glossary.md"
        FromGevent "docs/guide/src/migration/gevent.md"
        FromGreenlet "docs/guide/src/migration/greenlet.md"
        FromAsyncio "docs/guide/src/migration/asyncio.md"
        FromTokio "docs/guide/src/migration/tokio.md"
        FromMay "docs/guide/src/migration/may.md"
        FromStd "docs/guide/src/migration/std.md"
    }
}
