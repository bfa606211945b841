//! The asynchronous client, in tasks of the hub; tokio's reactor and timers run on an OS thread of their own.

use async_compat::CompatExt;
use greenthread::{future, time};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts, OptsBuilder, Result};

use crate::servers::{self, Outcome};

async fn execute(n: u32, opts: Opts) -> Result<()> {
    println!("begins {n}");
    let mut connection = Conn::new(opts).await?;
    time::sleep_async(servers::FAR_AWAY).await;
    let rows: Vec<(String, String)> = connection.query(crate::USERS).await?;
    println!("{n}: {rows:?}");
    time::sleep_async(servers::FAR_AWAY).await;
    connection.disconnect().await?;
    println!("ends {n}");
    Ok(())
}

async fn doze(n: u32, opts: Opts) -> Result<()> {
    println!("begins {n}");
    let slept: Option<u32> = Conn::new(opts).await?.query_first(crate::DOZE).await?;
    println!("ends {n}: {slept:?}");
    Ok(())
}

fn ask(url: &str) -> Outcome {
    let opts = OptsBuilder::from_opts(Opts::from_url(url)?)
        .db_name(Some("mysql"))
        .prefer_socket(false); // over TCP, even to this machine
    let wrong = Opts::from(opts.clone().pass(Some("wrong")));
    let opts = Opts::from(opts);
    // `compat()` enters tokio's context for each poll.
    future::block_on(execute(1, opts.clone()).compat())?;
    crate::at_once(
        [opts, wrong],
        |n, opts| future::spawn(execute(n, opts).compat()),
        |n, opts| future::spawn(doze(n, opts).compat()),
    )
}

pub(crate) fn main(args: Vec<String>) -> Outcome {
    let (url, _own) = crate::url(args)?;
    greenthread::run(move || ask(&url))
}
