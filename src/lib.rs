//! Green threads for Rust: write blocking code, and run thousands of such tasks on one OS thread.
//!
//! A green thread is spawned, joined and killed like a thread, but it is only a stack that a scheduler (the *hub*) of
//! its OS thread switches to. When it waits in this crate for a socket, a timer or a lock, the hub runs another green
//! thread meanwhile. In Python, gevent and greenlet do the same.
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
//! client.read_exact(&mut answer)?; // main waits: the server runs
//! assert_eq!(&answer, b"hello");
//! # Ok(())
//! # }
//! ```
//!
//! There is no runtime to start. Everything runs on one OS thread, unless you start more with [`hub::Hubs`]. Nothing
//! interrupts a computation: a green thread lets others run when it waits.
//!
//! # Start here
//! | you want to | read |
//! |---|---|
//! | spawn, join and kill green threads; several at once | [`thread`] |
//! | sleep, and limit how long something takes | [`time`] |
//! | use sockets | [`net`]; on a descriptor of your own [`io`] |
//! | write a server, and stop it in good order | [`server`], [`signal`]; HTTP: `http` |
//! | share data, send messages, wait for the first of several | [`sync`], [`select!`] |
//! | use a blocking driver or other crates as they are | `monkey` |
//! | call async code from blocking code, or the other way round | [`future`] |
//! | port a program that uses asyncio | [`aio`] |
//! | use several processors | [`hub::Hubs`] |
//! | compute, or call what cannot give way | [`threadpool`], `processpool` |
//! | read files, run other programs, look up names | [`fs`], [`process`], [`dns`] |
//! | test with a clock that jumps | [`hub::Builder`] |
//! | see what a program does | [`debug`] |
//! | switch by hand | [`generator`], [`greenlet`] |
//! | change sizes of stacks | [`stack`] |
//!
//! The repository has a guide of a page for each step (`docs/guide/src`), and tables of names for readers who know
//! gevent, greenlet, asyncio, tokio, may or std's threads (`docs/guide/src/migration`). The search of this
//! documentation finds their names, too.
//!
//! # Features
//! None is on by default.
//!
//! | feature | adds | for |
//! |---|---|---|
//! | `monkey` | `monkey`: patched libc | programs on Linux with glibc; not libraries |
//! | `hyper` | `http`: hyper's traits, and a server for services of hyper and tower (axum's `Router`) | |
//! | `tokio-io` | tokio's `AsyncRead` and `AsyncWrite` on the sockets | async crates that ask for them |
//! | `tls` | `net::tls`: TLS by rustls | |
//! | `process-pool` | `processpool`: jobs in worker processes | Unix |
//!
//! # What patching needs
//! With the feature `monkey`, [`spawn`], [`run`] and [`scope`](scope()) run std's sockets, sleeps and locks, and the
//! crates and C libraries that use libc, without blocking the OS thread. That needs Linux with glibc, a call of
//! `monkey::patch_all` at the start of `main`, and [`run`] around the rest of `main`. It also needs thread-locals for
//! each green thread: [`thread::isolation`] says whether this platform has them. Files, standard input and output, and
//! crates that make system calls without libc still block.
//!
//! # What still blocks
//! Without patching, all that waits outside of this crate: see the list in [`thread`](thread#what-still-blocks).

#![deny(clippy::print_stdout)]
// docs.rs shows which feature an item needs.
#![cfg_attr(docsrs, feature(doc_cfg))]

// From the ground up: a module may use only those above it, and a test checks that.
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
