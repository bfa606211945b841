//! gevent's first program: three green threads that count, by `spawn`, `join` and `sleep`.
//!
//! Run: `cargo run --release --example gevent_basic -- seq` or `... -- sleep`
//!
//! Expect with `seq`: each green thread counts to the end before the next begins, 15 lines like
//! `green thread #1 'f(5)' 0`. With `sleep` (one second after each number): all print 0, then all print 1, and so on;
//! `took 5.0 s` and not 15.

use std::time::{Duration, Instant};

use greenthread::{sleep, thread};

fn main() -> std::io::Result<()> {
    let sleeps = std::env::args().nth(1).as_deref() == Some("sleep");
    let start = Instant::now();
    let f = move |n: u32| {
        for i in 0..n {
            println!("{:?} {i}", thread::current());
            if sleeps {
                sleep(Duration::from_secs(1));
            }
        }
    };
    let spawn = || thread::Builder::new().name("f(5)").spawn(move || f(5));
    let (g1, g2, g3) = (spawn()?, spawn()?, spawn()?);
    for green in [g1, g2, g3] {
        green.join().expect("it only prints");
    }
    println!("took {:.1} s", start.elapsed().as_secs_f64());
    Ok(())
}
