//! An unmodified client asks several questions at once, on one OS thread: `mysql`, which blocks, on patched libc; or
//! `mysql_async`, whose sockets are tokio's, with tokio's reactor beside.
//!
//! ```text
//! cargo run --release --manifest-path examples/drivers/Cargo.toml --bin mysql -- [patched|async] [URL]
//! ```
//!
//! Without a URL it starts a MariaDB of its own, which takes some seconds. Expect `begins 1`, the rows of
//! `SELECT Host,User FROM user`, and `ends 1`. Then the same twice at once: two `begins`, …, two `ends`. Then two
//! `SELECT SLEEP(1)` in 1.0 s and not 2.0 s; and three at once, of which the second has a wrong password: only it fails.

use std::error::Error;
use std::fmt::Display;
use std::process::ExitCode;

use greenthread::future::block_on;
use greenthread::thread::JoinError;

#[path = "mysql_async.rs"]
mod asynchronous;
#[path = "mysql_patched.rs"]
mod patched;
#[path = "../servers/mod.rs"]
mod servers;

use servers::{Outcome, Server};

const USERS: &str = "SELECT Host,User FROM user";
const DOZE: &str = "SELECT SLEEP(1)";

/// The URL that is given, or that of a server of our own, which is ended when it is dropped.
fn url(mut args: Vec<String>) -> Outcome<(String, Option<Server>)> {
    match args.pop() {
        Some(url) => Ok((url, None)),
        None => servers::mariadb().map(|server| (server.url.clone(), Some(server))),
    }
}

/// Two of each at once; then three, of which the second has the wrong password.
fn at_once<O: Clone, J, E>([opts, wrong]: [O; 2], execute: impl Fn(u32, O) -> J, doze: impl Fn(u32, O) -> J) -> Outcome
where
    J: Future<Output = Result<Result<(), E>, JoinError>>,
    E: Display + Into<Box<dyn Error + Send + Sync>>,
{
    let two = [1, 2].map(|n| (n, opts.clone()));
    servers::join_all("two at once", two.clone().map(|(n, opts)| execute(n, opts)))?;
    servers::join_all("two SELECT SLEEP(1) at once", two.map(|(n, opts)| doze(n, opts)))?;
    let three = [(1, opts.clone()), (2, wrong), (3, opts)];
    tell(three.map(|(n, opts)| execute(n, opts)));
    Ok(())
}

/// Waits for each, and says what became of it: the others know nothing of one that fails.
fn tell<J, E: Display>(all: [J; 3])
where
    J: Future<Output = Result<Result<(), E>, JoinError>>,
{
    for (n, end) in (1..).zip(all.map(block_on)) {
        match end {
            Ok(Ok(())) => println!("{n} did well"),
            Ok(Err(error)) => println!("{n} failed: {error}"),
            Err(error) => println!("{n}: {error}"), // it panicked: nor of that
        }
    }
}

fn main() -> ExitCode {
    servers::faces(patched::main, asynchronous::main)
}
