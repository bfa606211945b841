//! An unmodified client, `redis`, talks to several servers at once, on one OS thread: its blocking face on patched libc, or
//! its asynchronous one.
//!
//! ```text
//! cargo run --release --manifest-path examples/drivers/Cargo.toml --bin redis -- [patched|async] [URL...]
//! ```
//!
//! Without URLs it starts two `redis-server`s of its own, one with a password. Expect for one server
//!
//! ```text
//! begins 127.0.0.1:24711
//! {key1: 1, key2: 2, key3: 3}
//! ends 127.0.0.1:24711
//! ```
//!
//! then the same for all at once: each one's `begins`, then their hashes, then each one's `ends`. Then eight green
//! threads, or tasks, that share four connections, and two `BLPOP`s that wait a second for nothing: about 1.0 s, not
//! 2.0 s.

use std::collections::BTreeMap;
use std::process::ExitCode;

use redis::{Client, RedisResult};

#[path = "redis_async.rs"]
mod asynchronous;
#[path = "redis_patched.rs"]
mod patched;
#[path = "../servers/mod.rs"]
mod servers;

use servers::{Outcome, Server};

const HASH: &str = "greenthread:hash";
const FIELDS: [(&str, u32); 3] = [("key1", 1), ("key2", 2), ("key3", 3)];
const COUNT: &str = "greenthread:count";

fn show(hash: &BTreeMap<String, u32>) {
    let fields: Vec<_> = hash.iter().map(|(key, value)| format!("{key}: {value}")).collect();
    println!("{{{}}}", fields.join(", "));
}

/// One for each URL, or for each of two servers of our own, which are ended when they are dropped.
fn clients(mut urls: Vec<String>) -> Outcome<(Vec<Client>, Vec<Server>)> {
    let mut own = Vec::new();
    if urls.is_empty() {
        own = vec![servers::redis(Some("root123123"))?, servers::redis(None)?];
        urls = own.iter().map(|server| server.url.clone()).collect();
    }
    let clients = urls.into_iter().map(Client::open).collect::<RedisResult<_>>()?;
    Ok((clients, own))
}

fn main() -> ExitCode {
    servers::faces(patched::main, asynchronous::main)
}
