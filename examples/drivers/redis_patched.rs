//! The blocking client, in green threads on patched libc.

use std::collections::BTreeMap;

use greenthread::{monkey, spawn};
use redis::{Client, Commands, RedisResult};

use crate::servers::{self, Outcome};

fn execute(client: &Client) -> RedisResult<()> {
    let address = client.get_connection_info().addr();
    println!("begins {address}");
    let mut connection = client.get_connection()?; // says the password, if the URL has one
    std::thread::sleep(servers::FAR_AWAY);
    let () = connection.hset_multiple(crate::HASH, &crate::FIELDS)?;
    let hash: BTreeMap<String, u32> = connection.hgetall(crate::HASH)?;
    crate::show(&hash);
    std::thread::sleep(servers::FAR_AWAY);
    let () = connection.del(crate::HASH)?;
    drop(connection);
    println!("ends {address}");
    Ok(())
}

fn wait_for_nothing(client: &Client) -> RedisResult<()> {
    let nothing: Option<(String, String)> = client.get_connection()?.blpop("greenthread:missing", 1.0)?;
    println!("BLPOP: {nothing:?}");
    Ok(())
}

fn count(client: Client) -> Outcome {
    let () = client.get_connection()?.del(crate::COUNT)?;
    let pool = r2d2::Pool::builder().max_size(4).build(client)?;
    let counters: [_; 8] = std::array::from_fn(|_| {
        let pool = pool.clone();
        spawn(move || -> Outcome<u32> {
            let mut connection = pool.get()?; // waits for one of the four
            for _ in 1..10 {
                let () = connection.incr(crate::COUNT, 1)?;
            }
            Ok(connection.incr(crate::COUNT, 1)?)
        })
    });
    let counts = servers::join_all("eight share four connections", counters)?;
    println!("they counted to {}", counts.iter().max().unwrap_or(&0));
    Ok(pool.get()?.del(crate::COUNT)?)
}

fn talk(clients: &[Client]) -> Outcome {
    execute(&clients[0])?;
    let each = clients.iter().cloned().map(|client| spawn(move || execute(&client)));
    servers::join_all("all servers at once", each)?;
    count(clients[0].clone())?;
    let waiters = [clients[0].clone(), clients[0].clone()];
    let waiters = waiters.map(|client| spawn(move || wait_for_nothing(&client)));
    servers::join_all("two BLPOPs of a second", waiters)?;
    Ok(())
}

pub(crate) fn main(urls: Vec<String>) -> Outcome {
    let (clients, own) = crate::clients(urls)?;
    monkey::patch_all()?;
    let talked = greenthread::run(move || talk(&clients));
    drop(own); // ends them
    talked
}
