//! What `await` and nested coroutines are in green threads: plain calls, at any depth.
//!
//! Run: `cargo run --release --example await_nesting`
//!
//! Expect (about 12 seconds in all): `1 3 2 4` with two seconds in the middle; `[5, 7, 11, 17]` out of nested calls;
//! `结束 None`; `hello`, a second later `world`; two calls in a row take 3.0 s, two others 4.0 s: to wait for one thing
//! after the other is sequential, and only `spawn` makes it concurrent.

use std::time::{Duration, Instant};

use greenthread::thread::join_all;
use greenthread::{run, sleep, spawn};

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn two_numbers(first: u32) {
    println!("{first}");
    sleep(secs(2)); // the other one runs meanwhile
    println!("{}", first + 1);
}

/// Each of 2, 3, 5 and 8 goes through `nested`, which waits a little and gives 2n + 1.
fn outer() -> Vec<u32> {
    [2, 3, 5, 8].into_iter().map(nested).collect()
}

fn nested(value: u32) -> u32 {
    sleep(Duration::from_millis(10));
    value * 2 + 1
}

fn say_after(delay: Duration, what: &str) {
    sleep(delay);
    println!("{what}");
}

fn others() -> &'static str {
    println!("start");
    sleep(secs(2));
    println!("end");
    "返回值"
}

fn timed(what: &str, f: impl FnOnce()) {
    let start = Instant::now();
    f();
    println!("{what}: {:.1} s", start.elapsed().as_secs_f64());
}

fn main() {
    run(|| {
        timed("concurrent", || {
            join_all([1, 3].map(|n| spawn(move || two_numbers(n))));
        });
        println!("{:?}", outer());
        let nothing: Option<()> = None;
        println!("结束 {nothing:?}");
        timed("hello world", || {
            println!("hello");
            say_after(secs(1), "world");
        });
        timed("sequential", || {
            say_after(secs(1), "hello");
            say_after(secs(2), "world");
        });
        timed("two others", || {
            for _ in 0..2 {
                println!("io请求完成，结果是： {}", others());
            }
        });
    });
}
