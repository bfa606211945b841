//! std's own sleep on green threads: two workers whose `std::thread::sleep`s run side by side on one OS thread.
//!
//! ```text
//! cargo run --release --example patched_sleep
//! ```
//!
//! Expect the lines of work1 and work2 interleaved, and the time of the longer one: 1.0 s, not 1.9 s.

use std::thread::sleep;
use std::time::{Duration, Instant};

use greenthread::{monkey, spawn};

fn work(name: &str, steps: u32, each: Duration) {
    for step in 1..=steps {
        println!("{name} step {step}");
        sleep(each); // std's: it parks this green thread, because libc is patched
    }
}

fn main() -> std::io::Result<()> {
    monkey::patch_all()?;
    let start = Instant::now();
    greenthread::run(|| {
        let one = spawn(|| work("work1", 5, Duration::from_millis(200)));
        let two = spawn(|| work("work2", 5, Duration::from_millis(180)));
        for worker in [one, two] {
            worker.join().expect("no panic");
        }
    });
    println!("took {:.1} s", start.elapsed().as_secs_f64());
    Ok(())
}
