//! An unmodified blocking client, `redis`, talks to several servers at once, on one OS thread.
//!
//! ```text
//! cargo run --release --manifest-path examples/drivers/Cargo.toml --bin redis -- patched [URL...]
//! ```
//!
//! Without URLs it starts two `redis-server`s of its own, one with a password. Expect for one server
//!
//! ```text
//! 开始执行 127.0.0.1:24711
//! {key1: 1, key2: 2, key3: 3}
//! 结束 127.0.0.1:24711
//! ```
//!
//! then the same for all at once: each one's 开始执行, then their hashes, then each one's 结束. Then eight green threads that
//! share a pool of four connections, and two `BLPOP`s that wait a second for nothing: about 1.0 s, not 2.0 s.

use std::collections::BTreeMap;
use std::process::ExitCode;

use greenthread::{monkey, spawn};
use redis::{Client, Commands, RedisResult};

#[path = "../servers/mod.rs"]
mod servers;

use servers::Outcome;

fn execute(client: &Client) -> RedisResult<()> {
    let address = client.get_connection_info().addr();
    println!("开始执行 {address}");
    let mut connection = client.get_connection()?; // says the password, if the URL has one
    servers::be_far_away();
    let () = connection.hset_multiple("greenthread:hash", &[("key1", 1), ("key2", 2), ("key3", 3)])?;
    let hash: BTreeMap<String, u32> = connection.hgetall("greenthread:hash")?;
    let fields: Vec<_> = hash.iter().map(|(key, value)| format!("{key}: {value}")).collect();
    println!("{{{}}}", fields.join(", "));
    servers::be_far_away();
    let () = connection.del("greenthread:hash")?;
    drop(connection);
    println!("结束 {address}");
    Ok(())
}

fn wait_for_nothing(client: &Client) -> RedisResult<()> {
    let nothing: Option<(String, String)> = client.get_connection()?.blpop("greenthread:missing", 1.0)?;
    println!("BLPOP: {nothing:?}");
    Ok(())
}

fn count(client: Client) -> Outcome {
    let () = client.get_connection()?.del("greenthread:count")?;
    let pool = r2d2::Pool::builder().max_size(4).build(client)?;
    let counters: [_; 8] = std::array::from_fn(|_| {
        let pool = pool.clone();
        spawn(move || -> Outcome<u32> {
            let mut connection = pool.get()?; // waits for one of the four
            for _ in 1..10 {
                let () = connection.incr("greenthread:count", 1)?;
            }
            Ok(connection.incr("greenthread:count", 1)?)
        })
    });
    let counts = servers::join_all("eight share four connections", counters)?;
    println!("they counted to {}", counts.iter().max().unwrap_or(&0));
    Ok(pool.get()?.del("greenthread:count")?)
}

fn talk(urls: &[String]) -> Outcome {
    let clients = urls.iter().map(|url| Client::open(url.as_str()));
    let clients = clients.collect::<RedisResult<Vec<_>>>()?;
    execute(&clients[0])?;
    let each = clients.iter().cloned().map(|client| spawn(move || execute(&client)));
    servers::join_all("all servers at once", each.collect::<Vec<_>>())?;
    count(clients[0].clone())?;
    let waiters = [clients[0].clone(), clients[0].clone()];
    let waiters = waiters.map(|client| spawn(move || wait_for_nothing(&client)));
    servers::join_all("two BLPOPs of a second", waiters)?;
    Ok(())
}

fn patched(mut urls: Vec<String>) -> Outcome {
    let mut own = Vec::new(); // ended when this function is
    if urls.is_empty() {
        own = vec![servers::redis(Some("root123123"))?, servers::redis(None)?];
        urls = own.iter().map(|server| server.url.clone()).collect();
    }
    monkey::patch_all()?;
    let talked = greenthread::run(move || talk(&urls));
    drop(own);
    talked
}

fn main() -> ExitCode {
    servers::faces(patched)
}
