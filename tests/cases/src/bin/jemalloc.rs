//! A global allocator with C's locks inside (jemalloc), patched libc, several OS threads: a lock that malloc waits
//! for does not park the green thread in the middle of it, so the heap stays whole, and nothing hangs or aborts.
//!
//! `jemalloc [SECONDS]`, with the feature `jemalloc`
#![forbid(unsafe_code)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use cases::{Random, argument, ms, watchdog};
use greenthread::{monkey, run, sleep, spawn, yield_now};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() {
    let seconds = argument(1).map_or(8, |seconds| seconds.parse().expect("a number"));
    watchdog(Duration::from_secs(seconds + 40));
    monkey::patch_all().unwrap();
    let threads: Vec<_> = (0..4)
        .map(|thread| std::thread::spawn(move || run(move || eight(thread * 100, Duration::from_secs(seconds)))))
        .collect();
    let count: u64 = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
    println!("ok   {count} allocations");
}

/// Eight green threads that allocate; sleeps and spawns keep the hub's own tables growing and shrinking.
fn eight(seed: u64, time: Duration) -> u64 {
    let all: Vec<_> = (1..=8)
        .map(|number| {
            spawn(move || {
                let count = churn(seed + number, time);
                sleep(ms(1));
                count
            })
        })
        .collect();
    all.into_iter().map(|one| one.join().unwrap()).sum()
}

/// Allocates and frees blocks of all sizes; each block's first and last byte tell its length.
fn churn(seed: u64, time: Duration) -> u64 {
    let mut random = Random(seed | 1);
    let end = Instant::now() + time;
    let mut held: Vec<Vec<u8>> = vec![Vec::new(); 64];
    let mut count = 0;
    while Instant::now() < end {
        for _ in 0..200 {
            let old = &mut held[random.below(64) as usize];
            let tag = (old.len() % 251) as u8;
            assert!(old.first().is_none_or(|byte| *byte == tag), "heap corrupted");
            assert!(old.last().is_none_or(|byte| *byte == tag), "heap corrupted");
            let bound = match random.below(10) {
                0 => 4 << 20,
                1..4 => 200_000,
                _ => 2000,
            };
            let len = 1 + random.below(bound) as usize;
            let mut block = vec![0; len];
            block[0] = (len % 251) as u8;
            block[len - 1] = (len % 251) as u8;
            *old = black_box(block);
            count += 1;
        }
        yield_now();
    }
    count
}
