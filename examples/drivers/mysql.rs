//! An unmodified blocking client, `mysql`, asks several questions at once, on one OS thread.
//!
//! ```text
//! cargo run --release --manifest-path examples/drivers/Cargo.toml --bin mysql -- patched [URL]
//! ```
//!
//! Without a URL it starts a MariaDB of its own, which takes some seconds. Expect 开始, the rows of
//! `SELECT Host,User FROM user`, and 结束; then the same twice at once: 开始, 开始, …, 结束, 结束. Then two `SELECT SLEEP(1)` in
//! 1.0 s and not 2.0 s; and three at once, of which the second has a wrong password: only it fails.

use std::process::ExitCode;

use greenthread::{monkey, spawn};
use mysql::prelude::Queryable;
use mysql::{Conn, Opts, OptsBuilder};

#[path = "../servers/mod.rs"]
mod servers;

use servers::Outcome;

fn execute(n: u32, opts: Opts) -> mysql::Result<()> {
    println!("开始 {n}");
    let mut connection = Conn::new(opts)?;
    servers::be_far_away();
    let rows: Vec<(String, String)> = connection.query("SELECT Host,User FROM user")?;
    println!("{n}: {rows:?}");
    servers::be_far_away();
    drop(connection); // closes
    println!("结束 {n}");
    Ok(())
}

fn doze(n: u32, opts: Opts) -> mysql::Result<()> {
    println!("开始 {n}");
    let slept: Option<u32> = Conn::new(opts)?.query_first("SELECT SLEEP(1)")?;
    println!("结束 {n}: {slept:?}");
    Ok(())
}

fn ask(url: &str) -> Outcome {
    let opts = OptsBuilder::from_opts(Opts::from_url(url)?)
        .db_name(Some("mysql"))
        .prefer_socket(false); // over TCP, even to this machine
    let wrong = Opts::from(opts.clone().pass(Some("wrong")));
    let opts = Opts::from(opts);
    execute(1, opts.clone())?;

    let two = [1, 2].map(|n| (n, opts.clone()));
    let executing = two.clone().map(|(n, opts)| spawn(move || execute(n, opts)));
    servers::join_all("two at once", executing)?;
    let dozing = two.map(|(n, opts)| spawn(move || doze(n, opts)));
    servers::join_all("two SELECT SLEEP(1) at once", dozing)?;

    let three = [(1, opts.clone()), (2, wrong), (3, opts)];
    let three = three.map(|(n, opts)| (n, spawn(move || execute(n, opts))));
    for (n, green) in three {
        match green.join() {
            Ok(Ok(())) => println!("{n} did well"),
            Ok(Err(error)) => println!("{n} failed: {error}"), // the others know nothing of it
            Err(error) => println!("{n}: {error}"),            // it panicked: nor of that
        }
    }
    Ok(())
}

fn patched(args: Vec<String>) -> Outcome {
    let (url, own) = match args.into_iter().next() {
        Some(url) => (url, None),
        None => servers::mariadb().map(|server| (server.url.clone(), Some(server)))?,
    };
    monkey::patch_all()?;
    let asked = greenthread::run(move || ask(&url));
    drop(own); // ends it
    asked
}

fn main() -> ExitCode {
    servers::faces(patched)
}
