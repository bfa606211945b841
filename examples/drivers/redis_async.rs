//! The asynchronous client, over this crate's socket: no runtime of another crate.

use std::collections::BTreeMap;

use greenthread::net::TcpStream;
use greenthread::{future, time};
use redis::aio::MultiplexedConnection;
use redis::{AsyncCommands, AsyncConnectionConfig, Client, ConnectionAddr, RedisResult};

use crate::servers::{self, Outcome};

async fn connect(client: &Client) -> Outcome<MultiplexedConnection> {
    let info = client.get_connection_info();
    let ConnectionAddr::Tcp(host, port) = info.addr() else {
        return Err("this example takes redis://HOST:PORT only".into());
    };
    let stream = TcpStream::connect((&**host, *port))?; // a task may block too
    let config = AsyncConnectionConfig::new().set_response_timeout(None); // its clock would be tokio's
    let (connection, driver) = MultiplexedConnection::new_with_config(info.redis_settings(), stream, config).await?;
    future::spawn(driver); // ends with the connection
    Ok(connection)
}

async fn execute(client: Client) -> Outcome {
    let address = client.get_connection_info().addr();
    println!("begins {address}");
    let mut connection = connect(&client).await?; // says the password, if the URL has one
    time::sleep_async(servers::FAR_AWAY).await;
    let () = connection.hset_multiple(crate::HASH, &crate::FIELDS).await?;
    let hash: BTreeMap<String, u32> = connection.hgetall(crate::HASH).await?;
    crate::show(&hash);
    time::sleep_async(servers::FAR_AWAY).await;
    let () = connection.del(crate::HASH).await?;
    drop(connection);
    println!("ends {address}");
    Ok(())
}

async fn wait_for_nothing(client: Client) -> Outcome {
    let mut connection = connect(&client).await?;
    let nothing: Option<(String, String)> = connection.blpop("greenthread:missing", 1.0).await?;
    println!("BLPOP: {nothing:?}");
    Ok(())
}

async fn count(client: &Client) -> Outcome {
    let mut four = Vec::new();
    for _ in 0..4 {
        four.push(connect(client).await?);
    }
    let () = four[0].del(crate::COUNT).await?;
    // Two tasks on each connection: their questions and answers go through it in turns.
    let counters = four.iter().chain(&four).cloned().map(|mut connection| {
        future::spawn(async move {
            for _ in 1..10 {
                let () = connection.incr(crate::COUNT, 1).await?;
            }
            connection.incr(crate::COUNT, 1).await as RedisResult<u32>
        })
    });
    let counts = servers::join_all("eight share four connections", counters)?;
    println!("they counted to {}", counts.iter().max().unwrap_or(&0));
    Ok(four[0].del(crate::COUNT).await?)
}

pub(crate) fn main(urls: Vec<String>) -> Outcome {
    let (clients, _own) = crate::clients(urls)?;
    future::block_on(async {
        execute(clients[0].clone()).await?;
        let each = clients.iter().cloned().map(|client| future::spawn(execute(client)));
        servers::join_all("all servers at once", each)?;
        count(&clients[0]).await?;
        let waiters = [0, 1].map(|_| future::spawn(wait_for_nothing(clients[0].clone())));
        servers::join_all("two BLPOPs of a second", waiters)?;
        Ok(())
    })
}
