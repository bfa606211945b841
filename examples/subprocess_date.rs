//! A child process that takes a second and prints the date, and a ticker that runs meanwhile.
//!
//! Run: `cargo run --release --example subprocess_date`
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

use greenthread::process::{Command, Stdio};
use greenthread::{spawn, time};

fn main() -> io::Result<()> {
    let ticker = spawn(|| {
        let mut interval = time::Interval::new(Duration::from_millis(220));
        for tick in 1.. {
            interval.tick();
            println!("tick {tick}");
        }
    });
    let mut shell = Command::new("sh");
    shell.args(["-c", "sleep 1; date '+%Y-%m-%d %H:%M:%S'"]);
    let mut child = shell.stdout(Stdio::piped()).spawn()?;
    if let Some(stdout) = child.stdout.take() {
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?; // the ticker runs
        ticker.kill();
        print!("Current date: {line}");
    }
    println!("ended with {}", child.wait()?);
    Ok(())
}
