//! Ctrl-C in a program by asyncio's names: the first cancels the main task, which cleans up; the second ends the
//! program.
//!
//! Run: `cargo run --release --example interrupt`, or with `async`, or with `stubborn`; then press Ctrl-C
//!
//! Expect: `press Ctrl-C`, then `cleaned up`, `interrupted by Ctrl-C`, and the shell sees 130. With `stubborn` it
//! prints `and again` in place of that, and the second Ctrl-C ends it.

use std::process::ExitCode;
use std::time::Duration;

use greenthread::aio::{self, TaskError};
use greenthread::{sleep, thread};

const LONG: Duration = Duration::from_secs(60);

/// What is to be done in any case.
struct CleanUp;

impl Drop for CleanUp {
    fn drop(&mut self) {
        println!("cleaned up");
    }
}

fn green() {
    let _clean_up = CleanUp;
    println!("press Ctrl-C");
    sleep(LONG);
}

async fn asynchronous() {
    let _clean_up = CleanUp;
    println!("press Ctrl-C");
    aio::sleep(LONG).await;
}

fn stubborn() {
    println!("press Ctrl-C");
    // Who catches the cancel and goes on says so.
    if thread::catch_kill(|| sleep(LONG)).is_err() {
        aio::current_task().map(|me| me.uncancel());
    }
    println!("and again");
    sleep(LONG);
}

fn main() -> ExitCode {
    let result = match std::env::args().nth(1).as_deref() {
        Some("async") => aio::run(asynchronous()),
        Some("stubborn") => aio::run(aio::green(stubborn)),
        _ => aio::run(aio::green(green)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(TaskError::Interrupted) => {
            println!("interrupted by Ctrl-C");
            ExitCode::from(130)
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
