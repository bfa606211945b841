//! A child process that takes a second and prints the date, and a ticker that runs meanwhile.
//!
//! Run: `cargo run --release --example subprocess_date` or `... -- async`
//!
//! Expect, after a second in all:
//!
//! ```text
//! tick 1
//! tick 2
//! tick 3
//! tick 4
//! Current date: 2026-11-21 14:07:31
//! ended with exit status: 0
//! ```

use std::io::{self, BufRead, BufReader};
use std::time::Duration;

use futures::io::AsyncBufReadExt;
use greenthread::process::{Child, Command, Stdio};
use greenthread::time::Interval;
use greenthread::{future, spawn};

const PERIOD: Duration = Duration::from_millis(220);

fn child() -> io::Result<Child> {
    let mut shell = Command::new("sh");
    shell.args(["-c", "sleep 1; date '+%Y-%m-%d %H:%M:%S'"]);
    shell.stdout(Stdio::piped()).spawn()
}

fn green() -> io::Result<()> {
    let ticker = spawn(|| {
        let mut interval = Interval::new(PERIOD);
        for tick in 1.. {
            interval.tick();
            println!("tick {tick}");
        }
    });
    let (mut child, mut line) = (child()?, String::new());
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut line)?; // the ticker runs
    }
    ticker.kill();
    print!("Current date: {line}");
    println!("ended with {}", child.wait()?);
    Ok(())
}

async fn asynchronous() -> io::Result<()> {
    let ticker = future::spawn(async {
        let mut interval = Interval::new(PERIOD);
        for tick in 1.. {
            interval.tick_async().await;
            println!("tick {tick}");
        }
    });
    let (mut child, mut line) = (child()?, String::new());
    if let Some(stdout) = child.stdout.take() {
        futures::io::BufReader::new(stdout).read_line(&mut line).await?;
    }
    ticker.cancel();
    print!("Current date: {line}");
    println!("ended with {}", child.wait_async().await?);
    Ok(())
}

fn main() -> io::Result<()> {
    if std::env::args().nth(1).as_deref() == Some("async") {
        return future::block_on(asynchronous());
    }
    green()
}
