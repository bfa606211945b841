//! The blocking client, in green threads on patched libc.

use greenthread::{monkey, spawn};
use mysql::prelude::Queryable;
use mysql::{Conn, Opts, OptsBuilder, Result};

use crate::servers::{self, Outcome};

fn execute(n: u32, opts: Opts) -> Result<()> {
    println!("begins {n}");
    let mut connection = Conn::new(opts)?;
    std::thread::sleep(servers::FAR_AWAY);
    let rows: Vec<(String, String)> = connection.query(crate::USERS)?;
    println!("{n}: {rows:?}");
    std::thread::sleep(servers::FAR_AWAY);
    drop(connection); // closes
    println!("ends {n}");
    Ok(())
}

fn doze(n: u32, opts: Opts) -> Result<()> {
    println!("begins {n}");
    let slept: Option<u32> = Conn::new(opts)?.query_first(crate::DOZE)?;
    println!("ends {n}: {slept:?}");
    Ok(())
}

fn ask(url: &str) -> Outcome {
    let opts = OptsBuilder::from_opts(Opts::from_url(url)?)
        .db_name(Some("mysql"))
        .prefer_socket(false); // over TCP, even to this machine
    let wrong = Opts::from(opts.clone().pass(Some("wrong")));
    let opts = Opts::from(opts);
    execute(1, opts.clone())?;
    crate::at_once(
        [opts, wrong],
        |n, opts| spawn(move || execute(n, opts)),
        |n, opts| spawn(move || doze(n, opts)),
    )
}

pub(crate) fn main(args: Vec<String>) -> Outcome {
    let (url, own) = crate::url(args)?;
    monkey::patch_all()?;
    let asked = greenthread::run(move || ask(&url));
    drop(own); // ends it
    asked
}
