//! A time-out around something that lasts for ever, and the kill of a green thread, or a task, that cleans up after itself.
//!
//! Run: `cargo run --release --example cancel_timeout` or `... -- async`
//!
//! Expect after one second `timeout!`, and after one more the other four lines of:
//!
//! ```text
//! timeout!
//! cancel_me(): before sleep
//! cancel_me(): cancel sleep
//! cancel_me(): after sleep
//! main(): cancel_me is cancelled now
//! ```

use std::time::Duration;

use greenthread::thread::catch_kill;
use greenthread::{aio, sleep, spawn, thread, timeout};

const SECOND: Duration = Duration::from_secs(1);

/// Python's `finally`: a destructor.
struct Finally(&'static str);

impl Drop for Finally {
    fn drop(&mut self) {
        println!("{}", self.0);
    }
}

fn eternity() {
    sleep(3600 * SECOND);
    println!("yay!");
}

fn cancel_me() {
    let _finally = Finally("cancel_me(): after sleep");
    println!("cancel_me(): before sleep");
    if catch_kill(|| sleep(3600 * SECOND)).is_err() {
        println!("cancel_me(): cancel sleep");
        thread::current().kill(); // what was caught goes on: Python's `raise`
        greenthread::yield_now(); // and is delivered here
    }
}

fn green() {
    if timeout(SECOND, eternity).is_err() {
        println!("timeout!");
    }
    let task = spawn(cancel_me);
    sleep(SECOND);
    task.kill();
    if task.join().is_err_and(|error| error.is_killed()) {
        println!("main(): cancel_me is cancelled now");
    }
}

/// A task that is cancelled is dropped: nothing in it can catch that, but destructors run, the youngest first.
async fn asynchronous() {
    let eternity = async {
        aio::sleep(3600 * SECOND).await;
        println!("yay!");
    };
    if aio::wait_for_async(eternity, SECOND).await.is_err() {
        println!("timeout!");
    }
    let cancel_me = aio::create_task(async {
        let _finally = Finally("cancel_me(): after sleep");
        println!("cancel_me(): before sleep");
        let cancelled = Finally("cancel_me(): cancel sleep");
        aio::sleep(3600 * SECOND).await;
        std::mem::forget(cancelled); // nobody did
    });
    aio::sleep(SECOND).await;
    cancel_me.cancel();
    if cancel_me.await.is_err_and(|error| error.is_cancelled()) {
        println!("main(): cancel_me is cancelled now");
    }
}

fn main() -> Result<(), aio::TaskError> {
    if std::env::args().nth(1).as_deref() == Some("async") {
        return aio::run(asynchronous());
    }
    green();
    Ok(())
}
