//! A server whose handler takes 50 µs of the processor for each request, on one hub and on two: what a second core is worth.
//!
//! Run: `cargo run --release --example multi_core -- 2` (seconds a measurement; 1 if it is left out)
//!
//! Expect, on two cores with nothing else to do, about
//! ```text
//! hubs: 1, requests/s: 19500 [19500]
//! hubs: 2, requests/s: 38500 [19300, 19200]
//! ratio: 1.97
//! ```
//! The 50 µs are a number of rounds of arithmetic, timed beforehand: time in which somebody else has the core is no work done.
//! The load comes from this OS thread, over 16 connections with 64 requests of a byte under way on each: a hundredth of a core.

use std::hint::black_box;
use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use greenthread::hub::Hubs;
use greenthread::net::{SocketAddr, TcpListener, TcpStream};
use greenthread::{sleep, spawn};

const COST: Duration = Duration::from_micros(50);
const BATCH: usize = 64;
/// How many requests each hub has answered.
static SERVED: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

fn burn(rounds: u64) {
    (0..rounds).for_each(|round| _ = black_box(round));
}

/// How many rounds take as long as one request is to take.
fn rounds() -> u64 {
    const MANY: u64 = 100_000;
    let once = |_| {
        let start = Instant::now();
        burn(MANY);
        start.elapsed().as_secs_f64()
    };
    (MANY as f64 * COST.as_secs_f64() / (0..500).map(once).fold(f64::MAX, f64::min)) as u64
}

fn handle(mut stream: TcpStream, rounds: u64, served: &AtomicU64) -> io::Result<()> {
    let mut requests = [0; BATCH];
    loop {
        stream.read_exact(&mut requests)?;
        for _ in requests {
            burn(rounds);
            served.fetch_add(1, Ordering::Relaxed);
        }
        stream.write_all(&requests)?;
    }
}

fn ask(address: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    loop {
        stream.write_all(&[b'x'; BATCH])?;
        stream.read_exact(&mut [0; BATCH])?;
    }
}

/// Requests a second, on so many hubs.
fn serve(count: usize, rounds: u64, length: Duration) -> io::Result<f64> {
    let hubs = Hubs::new(count)?;
    let mut address = SocketAddr::from(([127, 0, 0, 1], 0));
    for (index, served) in SERVED.iter().enumerate().take(count) {
        let listener = TcpListener::bind_reuse_port(address)?;
        address = listener.local_addr()?; // the first one's port is everybody's
        hubs.spawn_on(index, move || {
            for stream in listener.incoming().flatten() {
                spawn(move || handle(stream, rounds, served));
            }
        })?;
    }
    (0..16).for_each(|_| drop(spawn(move || ask(address))));
    sleep(length / 5);
    let start = Instant::now();
    SERVED.iter().for_each(|served| served.store(0, Ordering::Relaxed));
    sleep(length);
    let rate = |served: &AtomicU64| served.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64();
    let rates: Vec<f64> = SERVED[..count].iter().map(rate).collect();
    let total = rates.iter().sum();
    println!("hubs: {count}, requests/s: {total:.0} {rates:.0?}");
    hubs.stop(); // closes the connections, so whoever asks ends too
    hubs.join();
    Ok(total)
}

fn main() -> io::Result<()> {
    let seconds = std::env::args().nth(1).and_then(|seconds| seconds.parse().ok());
    let (length, rounds) = (Duration::from_secs_f64(seconds.unwrap_or(1.0)), rounds());
    let one = serve(1, rounds, length)?;
    println!("ratio: {:.2}", serve(2, rounds, length)? / one);
    Ok(())
}
